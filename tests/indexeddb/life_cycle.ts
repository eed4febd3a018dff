/**
 * Cases for the life cycle of the store in IndexedDB, including the faults that
 * browsers cause, which run over any IndexedDB.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import {
  ErrStoreBlocked,
  ErrStoreCorrupted,
  ErrStoreFull,
  ErrStoreLocked,
  ErrStoreUnavailable,
  ErrStoreVanished,
  ErrStoreVersion,
  IndexedDBBlockStore,
  type IndexedDBOptions,
  type StoreEvent,
} from "../../src/indexeddb/mod.ts";
import { Connection } from "../../src/indexeddb/connection.ts";
import { ErrClusterClosed, ErrUnknownOutcome } from "../../src/log/mod.ts";
import { randomOf } from "../../src/testing/seeded_globals.ts";
import { MemoryBlockStore } from "../../src/store/mod.ts";
import type { Block, Changes } from "../../src/store/store.ts";
import type { Case } from "../browser/runner.ts";
import {
  answer,
  drop,
  Faults,
  freshName,
  Locks,
  ManualEnv,
  type TransactionFault,
  until,
} from "./faults.ts";

/** Store with its faulty database and the events it reported. */
class Bench {
  readonly name: string = freshName();
  readonly faults = new Faults();
  readonly env = new ManualEnv();
  readonly events: StoreEvent[] = [];
  readonly #stores: IndexedDBBlockStore[] = [];

  /** Opens the bench's database, or another's. */
  store(options: IndexedDBOptions = {}): IndexedDBBlockStore {
    const store = new IndexedDBBlockStore(this.name, {
      indexedDB: this.faults.factory,
      env: this.env,
      onEvent: (event) => this.events.push(event),
      ...options,
    });
    this.#stores.push(store);
    return store;
  }

  /** The events of a kind. */
  of<T extends StoreEvent["type"]>(
    type: T,
  ): Extract<StoreEvent, { type: T }>[] {
    return this.events.filter((event) => event.type === type) as Extract<
      StoreEvent,
      { type: T }
    >[];
  }

  async end(): Promise<void> {
    for (const store of this.#stores) await store.close();
    await drop(this.name);
  }
}

const cases: Case[] = [];

function add(name: string, body: (bench: Bench) => Promise<void>): void {
  cases.push({
    name,
    async run(): Promise<void> {
      const bench = new Bench();
      await body(bench);
      await bench.end();
    },
  });
}

function block(key: string, ...bytes: number[]): Block {
  return { key, bytes: new Uint8Array(bytes) };
}

function put(
  store: IndexedDBBlockStore,
  ...blocks: Block[]
): Promise<void> {
  return store.write({ put: blocks }, "relaxed");
}

async function names(store: IndexedDBBlockStore): Promise<string> {
  return (await store.keys("", "~")).join(" ");
}

/** Opens a database like code outside of the library. */
function openRaw(name: string, version?: number): Promise<IDBDatabase> {
  return answer(globalThis.indexedDB.open(name, version));
}

/** Outcome of a promise, once it has settled. */
function watch(promise: Promise<unknown>): { error?: unknown; over: boolean } {
  const watched: { error?: unknown; over: boolean } = { over: false };
  promise.then(
    () => watched.over = true,
    (error) => {
      watched.over = true;
      watched.error = error;
    },
  );
  return watched;
}

add("U2 a store keeps its identity", async (bench) => {
  const first = bench.store();
  const identity = await first.identity();
  assert(identity.length > 16);
  await put(first, block("a", 1));
  await first.close();
  const second = bench.store({ identity });
  assertEquals(await second.identity(), identity);
  assertEquals(await names(second), "a");
  await second.close();
  await drop(bench.name);
  assert(await bench.store().identity() !== identity);
});

add(
  "U1 U2 a deleted store is not mistaken for an empty one",
  async (bench) => {
    const store = bench.store({ identity: "what it was" });
    await assertRejects(() => store.keys("", "~"), ErrStoreVanished);
    await assertRejects(() => put(store, block("a", 1)), ErrStoreVanished);
    // Nor was one made.
    const request = globalThis.indexedDB.open(bench.name);
    let before = -1;
    request.onupgradeneeded = ({ oldVersion }) => before = oldVersion;
    (await answer(request)).close();
    assertEquals(before, 0);
    await drop(bench.name);
    // Another one is no better than none.
    await bench.store().identity();
    await assertRejects(() => store.identity(), ErrStoreVanished);
  },
);

add(
  "U2 a store that is deleted while it is open is not created again",
  async (bench) => {
    const store = bench.store({ locks: null });
    await put(store, block("a", 1));
    bench.faults.forget();
    await drop(bench.name);
    await assertRejects(() => put(store, block("b", 1)), ErrStoreVanished);
    await assertRejects(() => store.keys("", "~"), ErrStoreVanished);
    const other = bench.store({ locks: null });
    assertEquals(await names(other), "");
    await assertRejects(() => store.keys("", "~"), ErrStoreVanished);
  },
);

add(
  "U2 a store that another page deletes is closed with an event",
  async (bench) => {
    const store = bench.store();
    await put(store, block("a", 1));
    await drop(bench.name);
    const [event] = bench.of("ended");
    assert(event?.error instanceof ErrStoreVanished);
    await assertRejects(() => put(store, block("b", 1)), ErrStoreVanished);
  },
);

add("D5 a store behaves like the one in memory", async (bench) => {
  const seed = crypto.getRandomValues(new Uint32Array(1))[0]!;
  const random = randomOf(seed);
  const model = new MemoryBlockStore();
  const store = bench.store();
  const key = (): string =>
    `${["a/", "b/", "b0"][random() % 3]}${random() % 12}`;
  for (let step = 0; step < 60; step++) {
    const changes: Changes = {
      put: Array.from(
        { length: random() % 3 },
        () => block(key(), random() % 256, step),
      ),
      delete: Array.from({ length: random() % 3 }, key),
      deleteRanges: random() % 4 ? [] : [[key(), key()]],
    };
    model.write(changes, "relaxed");
    await store.write(changes, random() % 2 ? "relaxed" : "strict");
    const [from, to] = [key(), key()];
    const message = `seed ${seed}, step ${step}`;
    for (
      const options of [
        undefined,
        { limit: 3 },
        { reverse: true },
        { limit: 3, reverse: true },
        { limit: 0, reverse: true },
      ]
    ) {
      assertEquals(
        await store.list(from, to, options),
        model.list(from, to, options),
        message,
      );
      assertEquals(
        await store.keys(from, to, options),
        model.keys(from, to, options),
        message,
      );
    }
    const keys = [key(), key(), key()];
    assertEquals(await store.get(keys), model.get(keys), message);
  }
  assertEquals(await store.get([]), []);
});

add("U4 a connection that the browser closed is reopened", async (bench) => {
  const store = bench.store();
  await put(store, block("a", 1));
  bench.faults.close();
  assertEquals(bench.of("lost").length, 1);
  await put(store, block("b", 2));
  assertEquals(await names(store), "a b");
  assertEquals(bench.faults.opens, 2);
});

add(
  "U4 an operation that cannot begin is repeated on another connection",
  async (bench) => {
    const store = bench.store();
    await put(store, block("a", 1));
    bench.faults.injected = ["refused"];
    await put(store, block("b", 2));
    bench.faults.refusedReads = 1;
    assertEquals(await names(store), "a b");
    assertEquals(bench.faults.opens, 3);
  },
);

add(
  "U5 a write that was lost before its commit, which cannot be detected, has an unknown outcome",
  async (bench) => {
    const store = bench.store();
    bench.faults.injected = ["fine", "lost early"];
    await put(store, block("a", 1));
    await assertRejects(
      () => put(store, block("a", 2), block("b", 2)),
      ErrUnknownOutcome,
    );
    assertEquals(await names(store), "a");
    assertEquals(bench.faults.opens, 2);
  },
);

add(
  "U5 an operation that is lost twice fails, and nothing was changed",
  async (bench) => {
    const store = bench.store();
    bench.faults.injected = ["refused", "refused", "refused", "refused"];
    for (let i = 0; i < 2; i++) {
      await assertRejects(
        () => put(store, block("a", 1), block("b", 1)),
        ErrStoreUnavailable,
      );
    }
    bench.faults.refusedReads = 2;
    // Opening reads too: the first attempt fails, and so does the second.
    await assertRejects(() => names(store), ErrStoreUnavailable);
    assertEquals(await names(store), "");
    await put(store, block("a", 1));
    assertEquals(await names(store), "a");
  },
);

add(
  "U5 a write that was lost during its commit has an unknown outcome",
  async (bench) => {
    const store = bench.store();
    bench.faults.injected = ["lost late"];
    const error = await assertRejects(
      () => put(store, block("a", 1)),
      ErrUnknownOutcome,
    );
    assert(!error.applied);
    await put(store, block("b", 1));
    assertEquals(await names(store), "a b");
  },
);

add(
  "U5 a write without an answer has an unknown outcome",
  async (bench) => {
    const store = bench.store();
    await put(store, block("a", 1));
    bench.faults.injected = ["silent"];
    const silent = watch(put(store, block("b", 1)));
    // A frozen page sees an hour go by at once; that alone is no sign of death.
    await new Promise((resolve) => setTimeout(resolve, 50));
    for (let ticks = 0; ticks < 29; ticks++) bench.env.advance(1_000);
    assert(!silent.over);
    bench.env.advance(1_000);
    await until("outcome", () => silent.over);
    assert(silent.error instanceof ErrUnknownOutcome);
    await put(store, block("c", 1));
    assertEquals(await names(store), "a b c");
    assert(!bench.env.waits, "A timer is left");
  },
);

add(
  "U5 writes take effect in order, whichever operations are lost",
  async (bench) => {
    const seed = crypto.getRandomValues(new Uint32Array(1))[0]!;
    const random = randomOf(seed);
    const store = bench.store();
    const kinds: TransactionFault[] = [
      "refused",
      "refused alone",
      "lost early",
      "lost late",
      { full: 1 },
    ];
    let found: [string, number | undefined][] = [];
    for (let round = 0; round < 40; round++) {
      const count = 1 + random() % 6;
      bench.faults.injected = Array.from(
        { length: count },
        () => random() % 2 ? "fine" : kinds[random() % kinds.length]!,
      );
      const writes = Array.from({ length: count }, (_, i) => {
        const keys = [0, 1].map((j) => `${(random() + j) % 5}`);
        const value = (round * 10 + i) % 256;
        const done = put(store, ...keys.map((key) => block(key, value)))
          .then(() => undefined, (error) => error);
        return { keys, value, done };
      });
      if (random() % 4 === 0) bench.faults.close();
      /** Possible contents; their number doubles with each unknown outcome. */
      const models = [new Map(found)];
      for (const { keys, value, done } of writes) {
        const error = await done;
        if (error === undefined) {
          for (const model of models) {
            for (const key of keys) model.set(key, value);
          }
        } else if (error instanceof ErrUnknownOutcome) {
          const made = keys.map((key) => [key, value] as const);
          models.push(...models.map((model) => new Map([...model, ...made])));
        }
      }
      bench.faults.injected = [];
      found = (await store.list("", "~")).map(({ key, bytes }) => [
        key,
        bytes[0],
      ]);
      const possible = models.map((model) =>
        JSON.stringify([...model].sort(([a], [b]) => a < b ? -1 : 1))
      );
      assert(
        possible.includes(JSON.stringify(found)),
        `seed ${seed}, round ${round}: ${JSON.stringify(found)}`,
      );
    }
  },
);

add(
  "U5 a write is not repeated after a later one that may have taken effect",
  async (bench) => {
    const store = bench.store();
    await put(store, block("a", 0));
    bench.faults.injected = ["refused alone", "lost late"];
    const [one, two] = [
      watch(put(store, block("a", 1), block("b", 1))),
      watch(put(store, block("a", 2))),
    ];
    await until("outcomes", () => one.over && two.over);
    assert(one.error instanceof ErrStoreUnavailable, `${one.error}`);
    assert(two.error instanceof ErrUnknownOutcome, `${two.error}`);
    assertEquals(await store.get(["a", "b"]), [new Uint8Array([2]), undefined]);
  },
);

add(
  "U5 a write waits for earlier ones on a lost connection",
  async (bench) => {
    const store = bench.store();
    await put(store, block("a", 0));
    bench.faults.injected = ["silent", "refused"];
    const [one, two] = [
      watch(put(store, block("a", 1))),
      watch(put(store, block("a", 2))),
    ];
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert(!one.over && !two.over);
    bench.env.advance(30_000);
    await until("outcomes", () => one.over && two.over);
    assert(one.error instanceof ErrUnknownOutcome);
    assertEquals(two.error, undefined);
    assertEquals(await store.get(["a"]), [new Uint8Array([2])]);
  },
);

add(
  "U5 a connection that was closed while idle does not shorten later waits",
  async (bench) => {
    const store = bench.store();
    await put(store, block("a", 0));
    bench.faults.close();
    bench.faults.injected = ["silent"];
    const silent = watch(put(store, block("a", 1)));
    await new Promise((resolve) => setTimeout(resolve, 50));
    bench.env.advance(29_000);
    await new Promise((resolve) => setTimeout(resolve, 10));
    assert(!silent.over);
    bench.env.advance(1_000);
    await until("outcome", () => silent.over);
    assert(silent.error instanceof ErrUnknownOutcome);
  },
);

add(
  "U6 U11 a page that waits for the lock lets a newer one upgrade, and go first",
  async (bench) => {
    const one = bench.store();
    await put(one, block("a", 1));
    const two = bench.store();
    const waiting = watch(put(two, block("a", 2)));
    await until("a wait", () => bench.env.waits);
    await new Promise((resolve) => setTimeout(resolve, 20));
    const newer = new Faults();
    newer.newer = 1;
    const three = bench.store({ indexedDB: newer.factory });
    await put(three, block("b", 3));
    await until("refusal", () => waiting.over);
    assert(waiting.error instanceof ErrStoreVersion, `${waiting.error}`);
    assertEquals(await three.get(["a"]), [new Uint8Array([1])]);
    assertEquals(bench.of("blocked"), []);
  },
);

add(
  "U6 a blocked upgrade reports its waiting time, and fails in the end",
  async (bench) => {
    const first = bench.store();
    await first.identity();
    await first.close();
    const old = await openRaw(bench.name);
    bench.faults.newer = 1;
    const store = bench.store();
    const opening = watch(put(store, block("a", 1)));
    await until("blocked", () => bench.of("blocked").length > 0);
    bench.env.advance(3_000);
    assertEquals(bench.of("blocked").map(({ waitedMs }) => waitedMs), [
      0,
      1_000,
      2_000,
      3_000,
    ]);
    bench.env.advance(7_000);
    await until("outcome", () => opening.over);
    assert(opening.error instanceof ErrStoreBlocked);
    assertEquals(opening.error.waitedMs, 10_000);
    // The opening has failed already, so the store is not upgraded.
    old.close();
    const same = await openRaw(bench.name);
    assertEquals(same.version, 1);
    same.close();
    await put(store, block("a", 1));
    assertEquals(await names(store), "a");
  },
);

add(
  "U6 U14 a page with older code lets a newer one upgrade, and stays closed",
  async (bench) => {
    const old = bench.store();
    await put(old, block("a", 1));
    const last = put(old, block("b", 1));
    const newer = new Faults();
    newer.newer = 1;
    const store = bench.store({ indexedDB: newer.factory });
    await put(store, block("c", 1));
    await last;
    assertEquals(await names(store), "a b c");
    const [event] = bench.of("ended");
    assert(event?.error instanceof ErrStoreVersion);
    await assertRejects(() => put(old, block("c", 2)), ErrStoreVersion);
    await assertRejects(() => old.keys("", "~"), ErrStoreVersion);
    assertEquals(await store.get(["c"]), [new Uint8Array([1])]);
  },
);

add("U14 older code does not open a newer store", async (bench) => {
  bench.faults.newer = 1;
  const store = bench.store();
  await put(store, block("a", 1));
  await store.close();
  bench.faults.newer = 0;
  const old = bench.store();
  const error = await assertRejects(
    () => put(old, block("a", 2)),
    ErrStoreVersion,
  );
  assertEquals(error.supported, 1);
});

add("U7 an opening without an answer is repeated", async (bench) => {
  bench.faults.silentOpens = 1;
  const store = bench.store();
  const writing = watch(put(store, block("a", 1)));
  bench.env.advance(5_000);
  await until("outcome", () => writing.over);
  assertEquals(writing.error, undefined);
  assertEquals(bench.faults.opens, 2);
  assert(!bench.env.waits, "A timer is left");
});

add("U7 openings without an answer fail in the end", async (bench) => {
  bench.faults.silentOpens = 2;
  const store = bench.store();
  const both = [watch(put(store, block("a", 1))), watch(store.identity())];
  bench.env.advance(5_000);
  bench.env.advance(5_000);
  await until("outcome", () => both.every(({ over }) => over));
  for (const { error } of both) {
    assert(error instanceof ErrStoreBlocked, `${error}`);
    assertEquals(error.waitedMs, 10_000);
  }
  await put(store, block("a", 2));
  assertEquals(await names(store), "a");
});

add(
  "U5 an opening that fails for lack of a connection is repeated",
  async (bench) => {
    bench.faults.openErrors.push("UnknownError");
    const store = bench.store();
    await put(store, block("a", 1));
    assertEquals(await names(store), "a");
  },
);

add("U9 a refusal of the browser is reported by each call", async (bench) => {
  bench.faults.openErrors.push(
    "SecurityError",
    "InvalidStateError",
    "InvalidStateError",
  );
  const store = bench.store();
  for (let i = 0; i < 2; i++) {
    await assertRejects(() => store.identity(), ErrStoreUnavailable);
  }
  await store.identity();
});

add(
  "U8 a write without room changes nothing, whichever put fails",
  async (bench) => {
    const store = bench.store();
    const blocks = [block("a", 2), block("b", 2), block("c", 2)];
    await put(store, block("a", 1), block("old", 1));
    for (let k = 1; k <= blocks.length; k++) {
      bench.faults.injected = [{ full: k }];
      const error = await assertRejects(
        () => store.write({ put: blocks, delete: ["old"] }, "strict"),
        ErrStoreFull,
      );
      assert(error.cause instanceof DOMException);
      assertEquals(await names(store), "a old");
      assertEquals(await store.get(["a"]), [new Uint8Array([1])]);
    }
    await store.write({ put: blocks, delete: ["old"] }, "strict");
    assertEquals(await names(store), "a b c");
    assertEquals(bench.faults.opens, 1);
  },
);

add("U8 a write that cannot be stored changes nothing", async (bench) => {
  const store = bench.store();
  await assertRejects(
    () =>
      put(store, block("a", 1), {
        key: "b",
        bytes: new Proxy(new Uint8Array(1), {}),
      }),
  );
  assertEquals(await names(store), "");
  await put(store, block("a", 1));
  assertEquals(await names(store), "a");
});

add("U10 one page at a time has a store open", async (bench) => {
  const one = bench.store();
  await put(one, block("a", 1));
  const two = bench.store();
  const refused = watch(put(two, block("a", 2)));
  await until("a wait", () => bench.env.waits);
  for (let i = 0; i < 50 && !refused.over; i++) {
    bench.env.advance(500);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  assert(refused.error instanceof ErrStoreLocked, `${refused.error}`);
  assertEquals(await one.get(["a"]), [new Uint8Array([1])]);
  // A page that goes lets the next one in, which may have begun to wait.
  const written = put(two, block("a", 3));
  await new Promise((resolve) => setTimeout(resolve, 20));
  await one.close();
  await written;
  assertEquals(await two.get(["a"]), [new Uint8Array([3])]);
});

add(
  "U10 a store whose lock was stolen is closed, and without Web Locks none opens",
  async (bench) => {
    const locks = new Locks();
    const store = bench.store({ locks: locks.manager });
    await put(store, block("a", 1));
    locks.steal(`sampan/${bench.name}`);
    await until("ended", () => bench.of("ended").length > 0);
    await assertRejects(() => put(store, block("a", 2)), ErrStoreLocked);
    const without = new Connection({
      name: bench.name,
      factory: bench.faults.factory,
      env: bench.env,
      locks: undefined,
      identity: undefined,
      onEvent: undefined,
    });
    await assertRejects(
      () => without.identity(),
      ErrStoreUnavailable,
      "Web Locks",
    );
    await without.close();
  },
);

/** Advances the bench's time until something is over. */
async function pass(bench: Bench, watched: { over: boolean }): Promise<void> {
  await until("over", () => {
    if (!watched.over) bench.env.advance(500);
    return watched.over;
  });
}

/** Hides or shows the page with the events of a browser. */
function page(type: "pagehide" | "pageshow"): void {
  globalThis.dispatchEvent(new Event(type));
}

add(
  "case B6: a store that this page has open already, one of another page, and a database of another program have different errors [U10, H11]",
  async (bench) => {
    const one = bench.store();
    await put(one, block("a", 1));
    const two = watch(bench.store().identity());
    await pass(bench, two);
    assert(two.error instanceof ErrStoreLocked);
    assertMatch(two.error.message, /This page has the store .* open already/);
    await one.close();
    const locks = new Locks();
    const done = Promise.withResolvers<void>();
    // Another page's lock, of which this page knows nothing.
    const other = locks.manager.request(
      `sampan/${bench.name}`,
      {},
      () => done.promise,
    );
    const three = watch(bench.store({ locks: locks.manager }).identity());
    await pass(bench, three);
    assert(three.error instanceof ErrStoreLocked);
    assertMatch(three.error.message, /Another page or worker/);
    done.resolve();
    await other;
    await drop(bench.name);
    for (const version of [1, 7]) {
      const foreign = `${bench.name} ${version}`;
      const request = globalThis.indexedDB.open(foreign, version);
      request.onupgradeneeded = () =>
        request.result.createObjectStore("theirs").put(1, 1);
      (await answer(request)).close();
      const store = new IndexedDBBlockStore(foreign, { locks: null });
      const error = await assertRejects(
        () => store.identity(),
        ErrStoreCorrupted,
      );
      assertMatch(error.message, /belongs to another application/);
      await store.close();
      const theirs = await openRaw(foreign);
      assertEquals(
        await answer(theirs.transaction("theirs").objectStore("theirs").get(1)),
        1,
      );
      theirs.close();
      await drop(foreign);
    }
  },
);

add(
  "case B9: a page restored from the back/forward cache has its store again [U10, M1]",
  async (bench) => {
    const store = bench.store();
    await put(store, block("a", 1));
    for (let i = 0; i < 3; i++) {
      page("pagehide");
      page("pageshow");
      assertEquals(await store.get(["a"]), [new Uint8Array([1])]);
    }
    assertEquals(bench.of("ended"), []);
    // Another page had it in between: what this one knows of it is out of date.
    page("pagehide");
    const other = bench.store();
    await put(other, block("a", 2));
    await other.close();
    page("pageshow");
    const error = await assertRejects(() => store.get(["a"]), ErrStoreLocked);
    assertMatch(error.message, /back\/forward cache: reload the page/);
    await assertRejects(() => put(store, block("a", 3)), ErrStoreLocked);
    assertEquals(bench.of("ended").length, 1);
    assertEquals(await bench.store().get(["a"]), [new Uint8Array([2])]);
  },
);

add(
  "case B10: a page that is left releases its store to a waiting page, and a waiting page tries again before it fails [U10, M1]",
  async (bench) => {
    const store = bench.store();
    await put(store, block("a", 1));
    const two = bench.store();
    const waiting = watch(two.identity());
    await until("a wait", () => bench.env.waits);
    page("pagehide");
    await until("opened", () => waiting.over);
    assertEquals(waiting.error, undefined);
    assertEquals(await two.get(["a"]), [new Uint8Array([1])]);
    await two.close();
    await store.close();
    // A lock that is never granted to a waiting request, only to a new one.
    const { manager } = new Locks();
    let asked = 0;
    const locks = {
      query: () => manager.query(),
      request: (
        name: string,
        options: LockOptions,
        callback: LockGrantedCallback<unknown>,
      ): Promise<unknown> => {
        if (++asked > 1) return manager.request(name, options, callback);
        return new Promise((_, reject) => {
          options.signal?.addEventListener(
            "abort",
            () => reject(options.signal!.reason),
          );
        });
      },
    } as LockManager;
    const again = watch(bench.store({ locks }).identity());
    await pass(bench, again);
    assertEquals(again.error, undefined);
    assertEquals(asked, 2);
  },
);

add(
  "U28 syncing writes nothing that grows, and reaches the disk strictly",
  async (bench) => {
    const store = bench.store();
    await put(store, block("a", 1));
    for (let i = 0; i < 5; i++) await store.write({}, "strict");
    assertEquals(bench.faults.durabilities, [
      "relaxed",
      ...Array(5).fill("strict"),
    ]);
    await store.close();
    const db = await openRaw(bench.name);
    const count = async (name: string): Promise<number> =>
      await answer(db.transaction(name).objectStore(name).count());
    assertEquals([await count("blocks"), await count("meta")], [1, 3]);
    db.close();
  },
);

add(
  "U28 a block that is part of a larger buffer is stored alone",
  async (bench) => {
    const store = bench.store();
    const large = new Uint8Array(100_000).fill(5);
    await put(store, { key: "a", bytes: large.subarray(10, 20) });
    await store.close();
    const db = await openRaw(bench.name);
    const raw = await answer(
      db.transaction("blocks").objectStore("blocks").get("a"),
    );
    assertEquals(raw.buffer.byteLength, 10);
    db.close();
  },
);

add(
  "H8 a value that is not a block is reported as damage, with its name",
  async (bench) => {
    const store = bench.store({ locks: null });
    await put(store, block("a", 1), block("b", 1));
    const db = await openRaw(bench.name);
    await answer(
      db.transaction("blocks", "readwrite").objectStore("blocks").put("?", "b"),
    );
    db.close();
    for (
      const read of [
        () => store.get(["a", "b"]),
        () => store.list("a", "c"),
        () => store.list("a", "c", { limit: 1, reverse: true }),
      ]
    ) {
      const error = await assertRejects(read, ErrStoreCorrupted);
      assertEquals(error.part, "b");
    }
    assertEquals(await store.get(["a"]), [new Uint8Array([1])]);
  },
);

add("H8 a database of another layout is refused", async (bench) => {
  (await openRaw(bench.name, 1)).close();
  await assertRejects(() => bench.store().identity(), ErrStoreCorrupted);
});

add(
  "U40 close() waits for operations under way, and is idempotent",
  async (bench) => {
    const store = bench.store();
    const writes = [1, 2, 3].map((i) => put(store, block(`${i}`, i)));
    const closed = store.close();
    assert(store.close() === closed);
    await Promise.all(writes);
    await closed;
    await assertRejects(() => put(store, block("a", 1)), ErrClusterClosed);
    await assertRejects(() => store.get(["a"]), ErrClusterClosed);
    await assertRejects(() => store.identity(), ErrClusterClosed);
    assertEquals(await names(bench.store()), "1 2 3");
    assertEquals(bench.of("ended"), []);
  },
);

add("U40 close() of a store that cannot be opened ends too", async (bench) => {
  bench.faults.openErrors.push("SecurityError");
  const store = bench.store();
  const failing = watch(put(store, block("a", 1)));
  await store.close();
  assert(failing.error instanceof ErrStoreUnavailable);
  await bench.store().close();
});

/** The cases of this suite. */
export { cases };
