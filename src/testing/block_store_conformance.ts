/**
 * What every {@linkcode BlockStore} must do, as cases that run anywhere.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ErrClusterClosed } from "../log/errors.ts";
import type { MaybePromise } from "../statemachine/types.ts";
import type { Block, BlockStore } from "../store/store.ts";
import {
  caseOf,
  check,
  checkThrows,
  type ConformanceCase,
  makeBytes,
} from "./conformance.ts";

/** What {@linkcode blockStoreConformance} is given. */
export interface BlockStoreConformanceOptions {
  /** Makes an empty store. */
  create(): MaybePromise<BlockStore>;
  /** Opens what `store`, closed by now, has left behind; for stores that keep something. */
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

/** The cases every block store must pass; each makes its own store and closes it. */
export function blockStoreConformance(
  options: BlockStoreConformanceOptions,
): readonly ConformanceCase[] {
  const cases: ConformanceCase[] = [];
  const add = (
    name: string,
    body: (store: BlockStore) => Promise<void>,
  ): void => void cases.push(caseOf(name, options, body));

  add(
    "D4 write() puts blocks, in place of those of the same name",
    async (store) => {
      await store.write({ put: [block("a", 1), block("b")] }, "strict");
      await store.write({ put: [block("a", 2, 3)] }, "relaxed");
      const found = await store.get(["b", "none", "a", "a"]);
      check(found.length === 4, "Not one answer for each name");
      check(found[0]?.length === 0, "An empty block is not empty");
      check(found[1] === undefined, "There is a block nobody put");
      check(same(found[2], Uint8Array.of(2, 3)), "Not the block last put");
      check(same(found[3], found[2]), "Not the same twice");
      check((await store.get([])).length === 0, "No names, some blocks");
    },
  );

  add("D4 write() deletes before it puts", async (store) => {
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
  });

  add(
    "D5 list() and keys() go by character, both ways, from the first name to before the last",
    async (store) => {
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
        check(blocks.every(({ bytes }) => bytes[0] === 1), "Wrong content");
        return keys.join();
      };
      check(await keys("a/", "a0") === "a/,a/1,a/10,a/2", "Wrong range");
      check(await keys("a/", "a0", 2) === "a/,a/1", "Wrong limit");
      check(await keys("a/", "a0", 2, true) === "a/2,a/10", "Wrong end");
      check(
        await keys("a/", "a0", undefined, true) === "a/2,a/10,a/1,a/",
        "Wrong order",
      );
      check(await keys("a/1", "a/1") === "", "Empty range is not empty");
      check(await keys("b", "a") === "", "Range from behind is not empty");
      check(await keys("a", "b", 0) === "", "Limit of 0 is none");
    },
  );

  add(
    "R11 what is given and what is taken belong to the caller",
    async (store) => {
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
  );

  add(
    "D5 writes take effect in the order they were made, also unawaited",
    async (store) => {
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
  );

  add(
    "D4 a read sees all of each write that settled before it, and nothing in halves",
    async (store) => {
      await store.write({ put: [block("a", 0), block("b", 0)] }, "relaxed");
      const reads: Promise<void>[] = [];
      for (let i = 1; i < 30; i++) {
        const writing = store.write(
          { put: [block("a", i), block("b", i)] },
          "relaxed",
        );
        reads.push((async (): Promise<void> => {
          const [a, b] = await store.get(["a", "b"]);
          check(a?.[0] === b?.[0], `Halves: ${a} and ${b}`);
        })());
        if (i % 4 !== 0) continue;
        await writing;
        const [a] = await store.get(["a"]);
        check(a?.[0] === i, `Read ${a} after ${i} was written`);
      }
      await Promise.all(reads);
    },
  );

  add("D6 large and many blocks come back as they were", async (store) => {
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
  });

  add(
    "U2 identity() stays the same, and is another one for another store",
    async (store) => {
      const identity = await store.identity();
      check(identity.length >= 16, `Identity is ${identity}`);
      check(await store.identity() === identity, "Identity has changed");
      const other = await options.create();
      const theirs = await other.identity();
      // Not `await using`: WebKit has no `Symbol.asyncDispose`.
      await other.close();
      check(theirs !== identity, "Two stores, one identity");
    },
  );

  add(
    "U40 close() comes after what is under way, and twice is harmless",
    async (store) => {
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
  );

  const { reopen } = options;
  if (reopen) {
    add(
      "D6 what was written is there when the store is opened again",
      async (store) => {
        const identity = await store.identity();
        await store.write({ put: [block("a", 1), block("b", 2)] }, "strict");
        await store.write({ put: [block("c", 3)], delete: ["b"] }, "relaxed");
        await store.close();
        const again = await reopen(store);
        try {
          await checkNames(again, "a", "c");
          await checkBlock(again, "c", Uint8Array.of(3));
          const name = await again.identity();
          check(name === identity, "Identity is another one");
        } finally {
          await again.close();
        }
      },
    );
  }
  return cases;
}
