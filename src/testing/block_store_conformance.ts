/**
 * Conformance suite of {@linkcode BlockStore}.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ErrClusterClosed } from "../log/errors.ts";
import type { MaybePromise } from "../statemachine/types.ts";
import type { Block, BlockStore } from "../store/store.ts";
import {
  type CaseDefinition,
  check,
  checkThrows,
  type ConformanceCase,
  conformanceCases,
  makeBytes,
  type PortContext,
} from "./conformance.ts";

/** Options of {@linkcode blockStoreConformance}. */
export interface BlockStoreConformanceOptions {
  /** Creates an empty store. */
  create(): MaybePromise<BlockStore>;
  /** Opens the data that `store`, which is closed, left behind; only for durable ports. */
  reopen?: ((store: BlockStore) => MaybePromise<BlockStore>) | undefined;
}

function block(key: string, ...bytes: number[]): Block {
  return { key, bytes: Uint8Array.from(bytes) };
}

function same(a: Uint8Array | undefined, b: Uint8Array | undefined): boolean {
  return a === b || a !== undefined && b !== undefined &&
      a.length === b.length && a.every((byte, i) => byte === b[i]);
}

async function checkBlock(
  store: BlockStore,
  key: string,
  expected: Uint8Array | undefined,
): Promise<void> {
  const [found] = await store.get([key]);
  check(same(found, expected), `${key} is ${found}, not ${expected}`);
}

async function checkNames(
  store: BlockStore,
  ...expected: string[]
): Promise<void> {
  const names = await store.keys("", "\x7f");
  check(
    names.join() === expected.join(),
    `Names are ${names}, not ${expected}`,
  );
}

/** Case of the suite. */
type BlockStoreCase = CaseDefinition<PortContext<BlockStore>>;

const CASES: readonly BlockStoreCase[] = [
  {
    rule: "D4",
    name: "write() puts blocks and replaces those with the same key",
    async run({ port: store }): Promise<void> {
      await store.write({ put: [block("a", 1), block("b")] }, "strict");
      await store.write({ put: [block("a", 2, 3)] }, "relaxed");
      const found = await store.get(["b", "none", "a", "a"]);
      check(found.length === 4, "get() did not return one block per key");
      check(found[0]?.length === 0, "An empty block is not empty");
      check(
        found[1] === undefined,
        "get() returned a block for an unknown key",
      );
      check(
        same(found[2], Uint8Array.of(2, 3)),
        "get() did not return the last block written",
      );
      check(
        same(found[3], found[2]),
        "get() of one key twice returned different blocks",
      );
      check(
        found[2]?.constructor === Uint8Array,
        "get() did not return a Uint8Array, whose slice() copies",
      );
      check(
        (await store.get([])).length === 0,
        "get() without keys returned blocks",
      );
    },
  },
  {
    rule: "D4",
    name: "write() deletes before it puts",
    async run({ port: store }): Promise<void> {
      await store.write({
        put: [block("a", 1), block("b/1", 1), block("b/2", 1), block("c", 1)],
      }, "relaxed");
      await store.write({
        put: [block("a", 2), block("b/2", 2)],
        delete: ["a", "none"],
        deleteRanges: [["b/", "b0"], ["x", "y"]],
      }, "relaxed");
      await checkNames(store, "a", "b/2", "c");
      await checkBlock(store, "a", Uint8Array.of(2));
      await checkBlock(store, "b/2", Uint8Array.of(2));
      await store.write({ deleteRanges: [["a", "b/2"]] }, "strict");
      await checkNames(store, "b/2", "c");
      await store.write({}, "strict");
      await checkNames(store, "b/2", "c");
    },
  },
  {
    rule: "D5",
    name:
      "list() and keys() are in character order, in both directions, from the first key to before the last",
    async run({ port: store }): Promise<void> {
      const names = ["a", "a/", "a/1", "a/10", "a/2", "a0", "b", "B"];
      await store.write(
        { put: names.map((name) => block(name, 1)) },
        "relaxed",
      );
      await checkNames(store, ...names.toSorted());
      const keys = async (
        from: string,
        to: string,
        limit?: number,
        reverse?: boolean,
      ): Promise<string> => {
        const given = {
          ...(limit !== undefined && { limit }),
          ...(reverse !== undefined && { reverse }),
        };
        const keys = await store.keys(from, to, given);
        const blocks = await store.list(from, to, given);
        check(
          blocks.map(({ key }) => key).join() === keys.join(),
          "list() and keys() differ",
        );
        check(
          blocks.every(({ bytes }) => bytes[0] === 1),
          "list() returned other bytes",
        );
        return keys.join();
      };
      check(
        await keys("a/", "a0") === "a/,a/1,a/10,a/2",
        "keys() returned another range",
      );
      check(
        await keys("a/", "a0", 2) === "a/,a/1",
        "limit returned other keys",
      );
      check(
        await keys("a/", "a0", 2, true) === "a/2,a/10",
        "limit with reverse returned other keys",
      );
      check(
        await keys("a/", "a0", undefined, true) === "a/2,a/10,a/1,a/",
        "reverse returned another order",
      );
      check(await keys("a/1", "a/1") === "", "Empty range is not empty");
      check(
        await keys("b", "a") === "",
        "Range with from after to is not empty",
      );
      check(await keys("a", "b", 0) === "", "limit 0 returned keys");
    },
  },
  {
    rule: "R11",
    name: "bytes written and bytes read belong to the caller",
    async run({ port: store }): Promise<void> {
      const bytes = makeBytes(1000, 3);
      const expected = bytes.slice();
      const whole = makeBytes(3000, 9);
      const view = whole.subarray(1000, 2000);
      const expectedView = view.slice();
      await store.write({
        put: [{ key: "a", bytes }, { key: "view", bytes: view }],
      }, "relaxed");
      bytes.fill(0);
      whole.fill(0);
      await checkBlock(store, "a", expected);
      await checkBlock(store, "view", expectedView);
      (await store.get(["a"]))[0]!.fill(7);
      (await store.list("a", "b"))[0]!.bytes.fill(7);
      await checkBlock(store, "a", expected);
    },
  },
  {
    rule: "D5",
    name: "writes take effect in call order, even if not awaited",
    async run({ port: store }): Promise<void> {
      const writes: MaybePromise<void>[] = [];
      for (let i = 0; i < 50; i++) {
        writes.push(store.write({
          put: [block("last", i), block(`w/${i % 7}`, i)],
          ...(i % 5 === 4 && { deleteRanges: [["w/", "w0"]] }),
        }, i % 9 === 0 ? "strict" : "relaxed"));
      }
      await Promise.all(writes);
      await checkBlock(store, "last", Uint8Array.of(49));
      await checkNames(store, "last", `w/${49 % 7}`);
    },
  },
  {
    rule: "D4",
    name: "a read sees every settled write, and each write as a whole",
    async run({ port: store }): Promise<void> {
      await store.write({ put: [block("a", 0), block("b", 0)] }, "relaxed");
      const reads: Promise<void>[] = [];
      for (let i = 1; i < 30; i++) {
        const writing = store.write(
          { put: [block("a", i), block("b", i)] },
          "relaxed",
        );
        reads.push((async (): Promise<void> => {
          const [a, b] = await store.get(["a", "b"]);
          check(a?.[0] === b?.[0], `Read sees part of a write: ${a} and ${b}`);
        })());
        if (i % 4 !== 0) continue;
        await writing;
        const [a] = await store.get(["a"]);
        check(a?.[0] === i, `Read ${a} after ${i} was written`);
      }
      await Promise.all(reads);
    },
  },
  {
    rule: "D6",
    name: "many and large blocks are read as written",
    async run({ port: store }): Promise<void> {
      const put = Array.from({ length: 200 }, (_, i) => ({
        key: `m/${String(i).padStart(4, "0")}`,
        bytes: makeBytes(i * 37, i),
      }));
      put.push({ key: "z", bytes: makeBytes(3 * 1024 * 1024, 5) });
      await store.write({ put }, "strict");
      const listed = await store.list("m/", "m0");
      check(listed.length === 200, `${listed.length} blocks`);
      for (const [i, { key, bytes }] of listed.entries()) {
        check(
          key === put[i]!.key && same(bytes, put[i]!.bytes),
          `${key} differs`,
        );
      }
      await checkBlock(store, "z", put.at(-1)!.bytes);
    },
  },
  {
    rule: "U2",
    name: "identity() is constant, and unique per store",
    async run({ port: store, create }): Promise<void> {
      const identity = await store.identity();
      check(identity.length >= 16, `Identity is ${identity}`);
      check(await store.identity() === identity, "Identity has changed");
      const other = await create();
      const theirs = await other.identity();
      // Not `await using`: WebKit has no `Symbol.asyncDispose`.
      await other.close();
      check(theirs !== identity, "Two stores have the same identity");
    },
  },
  {
    rule: "U40",
    name: "close() waits for calls in progress, and is idempotent",
    async run({ port: store }): Promise<void> {
      const writing = store.write({ put: [block("a", 1)] }, "relaxed");
      const closing = store.close();
      await writing;
      await closing;
      await store.close();
      const closed = (error: unknown): boolean =>
        error instanceof ErrClusterClosed;
      await checkThrows("write()", closed, () => store.write({}, "relaxed"));
      await checkThrows("get()", closed, () => store.get(["a"]));
      await checkThrows("list()", closed, () => store.list("a", "b"));
      await checkThrows("keys()", closed, () => store.keys("a", "b"));
      await checkThrows("identity()", closed, () => store.identity());
    },
  },
  {
    rule: "D6",
    name: "a reopened store has everything that was written",
    needs: ["reopen"],
    async run({ port: store, reopen }): Promise<void> {
      const identity = await store.identity();
      await store.write({ put: [block("a", 1), block("b", 2)] }, "strict");
      await store.write({ put: [block("c", 3)], delete: ["b"] }, "relaxed");
      const again = await reopen();
      await checkNames(again, "a", "c");
      await checkBlock(again, "c", Uint8Array.of(3));
      const name = await again.identity();
      check(name === identity, "Reopened store has another identity");
    },
  },
];

/** Cases that every {@linkcode BlockStore} must pass, for any test runner. */
export function blockStoreConformance(
  options: BlockStoreConformanceOptions,
): readonly ConformanceCase[] {
  return conformanceCases(CASES, options);
}
