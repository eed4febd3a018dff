import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
} from "@std/assert";
import { systemEnv } from "../../src/env.ts";
import {
  LOG_BLOCK_BYTES_MAX,
  LOG_EPOCHS_MAX,
  LOG_TAIL_BYTES,
} from "../../src/limits.ts";
import { decodeMeta } from "../../src/log/block.ts";
import { BlockLogDB } from "../../src/log/block_log.ts";
import {
  ErrClusterClosed,
  ErrCompacted,
  ErrDiverged,
  ErrUnknownOutcome,
  type Log,
  MemoryLogDB,
  packRecords,
  recordAt,
} from "../../src/log/mod.ts";
import type { Epoch } from "../../src/log/history.ts";
import { epochOf } from "../../src/log/records.ts";
import {
  type Block,
  type BlockStore,
  type Changes,
  type Durability,
  ErrStoreCorrupted,
  ErrStoreFull,
  ErrStoreVanished,
  type ListOptions,
  MemoryBlockStore,
} from "../../src/store/mod.ts";
import { FaultyBlockStore } from "../../src/testing/faulty_block_store.ts";
import { logDBConformance } from "../../src/testing/log_conformance.ts";

/** Asynchronous store whose writes can be delayed, failed and counted. */
class TryingStore implements BlockStore {
  readonly inner = new MemoryBlockStore();
  readonly writes: [Changes, Durability][] = [];
  /** Called before each write; the write fails with its error. */
  before: (changes: Changes) => unknown = () => {};
  /** Asked after each write, in the same way. */
  after: () => unknown = () => {};
  reads = 0;

  identity(): string {
    return this.inner.identity();
  }
  async get(keys: readonly string[]): Promise<(Uint8Array | undefined)[]> {
    await undefined;
    return this.inner.get(keys);
  }
  async list(
    from: string,
    to: string,
    options?: ListOptions,
  ): Promise<Block[]> {
    this.reads++;
    await undefined;
    return this.inner.list(from, to, options);
  }
  async keys(
    from: string,
    to: string,
    options?: ListOptions,
  ): Promise<string[]> {
    await undefined;
    return this.inner.keys(from, to, options);
  }
  async write(changes: Changes, durability: Durability): Promise<void> {
    this.writes.push([changes, durability]);
    await this.before(changes);
    this.inner.write(changes, durability);
    await this.after();
  }
  close(): Promise<void> {
    return Promise.resolve();
  }
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** The names of the blocks of a log. */
  get names(): string[] {
    return this.inner.keys("log/", "log0").filter((key) => key.includes("/b/"));
  }
}

const stores = new WeakMap<object, BlockStore>();
function logsOver(store: BlockStore): BlockLogDB {
  const db = new BlockLogDB(store);
  stores.set(db, store);
  return db;
}

for (const make of [() => new MemoryBlockStore(), () => new TryingStore()]) {
  const cases = logDBConformance({
    create: () => logsOver(make()),
    reopen: (db) => logsOver(stores.get(db)!),
  });
  for (const { name, run } of cases) {
    Deno.test(`BlockLogDB on ${make().constructor.name}: ${name}`, run);
  }
}

function makeRecord(i: number, size = 4): Uint8Array {
  const record = new Uint8Array(size);
  new DataView(record.buffer).setUint32(0, i);
  return record;
}

const one = (i: number): ReturnType<typeof packRecords> =>
  packRecords(makeRecord(i));

/** Reads the numbers of the records of a log up to its last index, -1 for an epoch. */
async function numbers(log: Log, after = 0): Promise<number[]> {
  const last = await log.readIndex();
  const reader = await log.read(after);
  const found: number[] = [];
  for (let at = after; at < last;) {
    const { follows, first, records } = await reader.next();
    assertEquals([follows, first], [at, at + 1]);
    for (let i = 0; i < records.ends.length; i++) {
      const record = recordAt(records, i);
      const view = new DataView(record.buffer, record.byteOffset);
      found.push(epochOf(record) === undefined ? view.getUint32(0) : -1);
    }
    at += records.ends.length;
  }
  reader.close();
  return found;
}

/** The first index a log has. */
async function firstOf(log: Log): Promise<number> {
  try {
    (await log.read(0)).close();
    return 1;
  } catch (error) {
    assertInstanceOf(error, ErrCompacted);
    return error.firstIndex;
  }
}

Deno.test("H1 BlockLogDB writes appends that arrive during a write as one block, in order", async () => {
  const store = new TryingStore();
  await using db = new BlockLogDB(store);
  const log = await db.open(1n, 1n);
  const gate = Promise.withResolvers<void>();
  store.before = () => gate.promise;
  const first = log.append(one(1));
  while (store.writes.length === 0) await undefined;
  const rest = [2, 3, 4].map((i) => log.append(one(i)));
  gate.resolve();
  assertEquals(await Promise.all([first, ...rest]), [2, 3, 4, 5]);
  assertEquals(store.writes.length, 2);
  assertEquals(store.names.length, 2);
  assertEquals(await numbers(log), [-1, 1, 2, 3, 4]);
  assert(store.writes.every(([, durability]) => durability === "strict"));
});

Deno.test("H1 BlockLogDB bounds its blocks, and writes all waiting appends before it closes", async () => {
  const store = new TryingStore();
  const db = new BlockLogDB(store);
  const log = await db.open(1n, 1n);
  const size = 300_000;
  const appended = Array.from(
    { length: 10 },
    (_, i) => log.append(packRecords(makeRecord(i, size))),
  );
  await db.close();
  const { writes } = store;
  assertEquals(writes.length, 4);
  for (const [{ put = [] }] of writes) {
    for (const { bytes } of put) assert(bytes.length < LOG_BLOCK_BYTES_MAX);
  }
  assertEquals(
    await Promise.all(appended),
    Array.from({ length: 10 }, (_, i) => 2 + i),
  );
});

Deno.test("H5 BlockLogDB fails the appends of a write that fails, and no other", async () => {
  const store = new TryingStore();
  await using db = new BlockLogDB(store);
  const log = await db.open(1n, 1n);
  const full = new ErrStoreFull("Full");
  for (let round = 0; round < 3; round++) {
    store.before = () => Promise.reject(full);
    const failed = [1, 2].map((i) => log.append(one(i)));
    for (const append of failed) {
      assertEquals(await assertRejects(async () => await append), full);
    }
    assertEquals(await log.readIndex(), 0);
    assertEquals(await log.isEmpty(), true);
    assertEquals(store.names, []);
  }
  store.before = () => {};
  assertEquals(await log.append(one(7)), 2);
  store.before = () => Promise.reject(full);
  await assertRejects(async () => await log.append(one(8)), ErrStoreFull);
  store.before = () => {};
  assertEquals(await log.append(one(9)), 3);
  assertEquals(await numbers(log), [-1, 7, 9]);
});

Deno.test("H5 BlockLogDB finds out the outcome of a write that was unknown", async () => {
  for (const landed of [true, false]) {
    for (const isFirst of [true, false]) {
      const store = new TryingStore();
      await using db = new BlockLogDB(store);
      const log = await db.open(1n, 1n);
      const before = isFirst ? [] : [1, 2];
      for (const i of before) await log.append(one(i));
      const lose = () => Promise.reject(new ErrUnknownOutcome("Lost"));
      store[landed ? "after" : "before"] = lose;
      const reader = await log.read(await log.readIndex());
      await assertRejects(
        async () => await log.append(packRecords(makeRecord(3), makeRecord(4))),
        ErrUnknownOutcome,
      );
      store.before = store.after = () => {};
      await log.append(one(5));
      const read = await numbers(log);
      assertEquals(
        read.filter((i) => i >= 0),
        [...before, ...landed ? [3, 4] : [], 5],
      );
      // A reader that was there has seen the same.
      let seen = (await reader.next()).first;
      while (seen < await log.readIndex()) {
        const { first, records } = await reader.next();
        seen = first + records.ends.length - 1;
      }
      reader.close();
      // And so has the next life of the log.
      await using again = new BlockLogDB(store);
      assertEquals(await numbers(await again.open(1n, 1n)), read);
    }
  }
});

Deno.test("D13 BlockLogDB refuses to continue if acknowledged records are missing", async () => {
  const store = new TryingStore();
  await using db = new BlockLogDB(store);
  const log = await db.open(1n, 1n);
  for (let i = 0; i < 3; i++) await log.append(one(i));
  store.before = () => {
    store.inner.write({ delete: [store.names.at(-1)!] }, "strict");
    throw new ErrUnknownOutcome("Lost");
  };
  await assertRejects(async () => await log.append(one(3)), ErrUnknownOutcome);
  store.before = () => {};
  await assertRejects(async () => await log.append(one(4)), ErrStoreVanished);
});

Deno.test("H13 BlockLogDB has one epoch for each process, and remembers them all", async () => {
  const store = new MemoryBlockStore();
  let random = 0n;
  const env = { ...systemEnv, random64: () => ++random };
  const epochs: { index: number; id: bigint }[] = [];
  for (let life = 0; life < 4; life++) {
    await using db = new BlockLogDB(store, { env });
    const log = await db.open(1n, 1n);
    // A life that only reads has none.
    if (life === 2) continue;
    epochs.push({ index: await log.readIndex() + 1, id: random + 1n });
    await log.append(one(life));
    await log.append(one(life));
  }
  await using db = new BlockLogDB(store, { env });
  const log = await db.open(1n, 1n);
  assertEquals(await numbers(log), [-1, 0, 0, -1, 1, 1, -1, 3, 3]);
  // Each as the one whose reader has seen nothing of the next life.
  const readEach = async (epochs: readonly Epoch[]): Promise<void> => {
    for (const epoch of epochs) {
      (await log.read(epoch.index + 2, { epoch })).close();
    }
  };
  await readEach(epochs);
  await log.compact!(5);
  await readEach(epochs.slice(1));
});

Deno.test("H13 BlockLogDB bounds the epochs it remembers, and keeps those that a reader may know", async () => {
  const store = new MemoryBlockStore();
  const lives = LOG_EPOCHS_MAX + 20;
  let random = 0n;
  const env = { ...systemEnv, random64: () => ++random };
  for (let life = 0; life < lives; life++) {
    await using db = new BlockLogDB(store, { env });
    const log = await db.open(1n, 1n);
    await log.append(one(life));
    if (life === lives - 1) await log.compact!(2 * (lives - 2));
  }
  const [key] = store.keys("log/", "log0").filter((key) =>
    key.endsWith("meta")
  );
  const [meta] = store.get([key!]);
  const { epochs } = decodeMeta(meta!, 1n, key!);
  assert(epochs.length <= LOG_EPOCHS_MAX + 2, `${epochs.length} epochs`);
  await using db = new BlockLogDB(store, { env });
  const log = await db.open(1n, 1n);
  const epochAt = (life: number): { index: number; id: bigint } => ({
    index: 2 * life + 1,
    id: BigInt(life + 1),
  });
  const last = await log.readIndex();
  for (const life of [lives - 3, lives - 2, lives - 1]) {
    const epoch = epochAt(life);
    (await log.read(epoch.index + 1, { epoch })).close();
  }
  // One that is so far behind is told to take a snapshot, not that it is wrong.
  await assertRejects(
    async () => await log.read(2, { epoch: epochAt(0) }),
    ErrCompacted,
  );
  await assertRejects(
    async () => await log.read(last, { epoch: { index: last, id: 1n } }),
    ErrDiverged,
  );
});

Deno.test("H7 BlockLogDB deletes compacted blocks in the step that moves its base", async () => {
  const store = new TryingStore();
  const db = new BlockLogDB(store);
  const log = await db.open(1n, 1n);
  for (let i = 0; i < 10; i++) await log.append(one(i));
  const names = store.names;
  store.before = () => Promise.reject(new Error("EIO: i/o error"));
  await assertRejects(
    async () => await log.compact!(5),
    Error,
    "EIO: i/o error",
  );
  assertEquals(store.names, names);
  await db.close();
  // What was not cut is there again.
  store.before = () => {};
  await using again = new BlockLogDB(store);
  const reopened = await again.open(1n, 1n);
  assertEquals((await numbers(reopened)).length, 11);
  await reopened.compact!(5);
  assertEquals(store.names, names.slice(4));
  // The next write of the head completes a compaction that failed.
  store.before = () => Promise.reject(new Error("EIO: i/o error"));
  await assertRejects(async () => await reopened.compact!(7), Error);
  store.before = () => {};
  await reopened.append(one(10));
  assertEquals(store.names.length, names.length - 6 + 1);
  await using third = new BlockLogDB(store);
  assertEquals(await numbers(await third.open(1n, 1n), 7), [
    6,
    7,
    8,
    9,
    -1,
    10,
  ]);
});

Deno.test("H15 BlockLogDB reads back batches that are no longer in memory", async () => {
  const store = new TryingStore();
  await using db = new BlockLogDB(store);
  const log = await db.open(1n, 1n);
  const expected = [-1];
  const size = 50_000;
  for (let i = 0; i < 4 * LOG_TAIL_BYTES / size; i++) {
    expected.push(i);
    // Small ones between, so that many are read at once.
    await log.append(packRecords(makeRecord(i, i % 3 === 0 ? 4 : size)));
  }
  assertEquals(await numbers(log), expected);
  const { reads } = store;
  assert(reads > 1 && reads < 12, `Read ${reads} times`);
  for (const after of [1, 2, 50, 100, expected.length - 1]) {
    assertEquals(await numbers(log, after), expected.slice(after));
  }
  await using again = new BlockLogDB(store);
  assertEquals(await numbers(await again.open(1n, 1n)), expected);
});

Deno.test("H10 a reader that waits for a block rejects when it is closed", async () => {
  const store = new TryingStore();
  {
    await using db = new BlockLogDB(store);
    await (await db.open(1n, 1n)).append(one(1));
  }
  await using db = new BlockLogDB(store);
  const log = await db.open(1n, 1n);
  const reader = await log.read(0);
  const next = Promise.resolve(reader.next());
  reader.close();
  await assertRejects(() => next, ErrClusterClosed);
  const controller = new AbortController();
  const aborted = await log.read(0, { signal: controller.signal });
  const waiting = Promise.resolve(aborted.next());
  controller.abort(new Error("Enough"));
  await assertRejects(() => waiting, Error, "Enough");
});

Deno.test("D5 BlockLogDB names the block that is missing or damaged", async () => {
  const store = new TryingStore();
  {
    await using db = new BlockLogDB(store);
    const log = await db.open(1n, 1n);
    for (let i = 0; i < 6; i++) await log.append(one(i));
  }
  const blocks = store.inner.list("log/", "log0");
  const put = (block: Block): void =>
    store.inner.write({ put: [block] }, "strict");
  const read = async (): Promise<unknown> => {
    await using db = new BlockLogDB(store);
    try {
      return await numbers(await db.open(1n, 1n));
    } catch (error) {
      return error;
    }
  };
  const good = await read();
  assertEquals((good as number[]).length, 7);
  for (const [i, block] of blocks.entries()) {
    const { key, bytes } = block;
    for (let at = 0; at < bytes.length; at++) {
      const damaged = bytes.slice();
      damaged[at]! ^= 1 << at % 8;
      put({ key, bytes: damaged });
      const error = await read();
      assertInstanceOf(error, ErrStoreCorrupted);
      assertEquals(error.part, key);
    }
    for (const length of [0, 3, bytes.length - 1]) {
      put({ key, bytes: bytes.slice(0, length) });
      assertEquals((await read() as ErrStoreCorrupted).part, key);
    }
    store.inner.write({ delete: [key] }, "strict");
    const error = await read();
    // Only the name of the last block shows that it exists; its loss is found by D13.
    if (i === 5) assertEquals(error, (good as number[]).slice(0, -1));
    else {
      assertInstanceOf(error, ErrStoreCorrupted);
      assert(key.startsWith(error.part), error.part);
    }
    put(block);
  }
  // A block in the place of another one.
  put({ key: blocks[2]!.key, bytes: blocks[3]!.bytes });
  assertEquals((await read() as ErrStoreCorrupted).part, blocks[2]!.key);
  put(blocks[2]!);
  // A name that is not that of a block.
  const strange = blocks[2]!.key.slice(0, -1);
  put({ key: strange, bytes: new Uint8Array() });
  assertEquals((await read() as ErrStoreCorrupted).part, strange);
});

Deno.test("D5 BlockLogDB has a prefix when it is reopened after its k-th write failed or was the last", async () => {
  // Operations on the log: appends of a number of records, or a compaction.
  const steps: ("cut" | number)[] = [1, 3, "cut", 2, 1, 1, "cut", 5, 1];
  for (let k = 0; k < steps.length + 1; k++) {
    for (const isCrash of [true, false]) {
      const store = new TryingStore();
      let writes = 0;
      store.before = () => {
        const isBad = isCrash ? writes >= k : writes === k;
        writes++;
        if (isBad) throw new ErrStoreFull("Full");
      };
      const db = new BlockLogDB(store);
      const log = await db.open(1n, 1n);
      const acknowledged: number[] = [];
      let next = 0;
      for (const step of steps) {
        try {
          if (step === "cut") await log.compact!(await log.readIndex() - 1);
          else {
            const numbers = Array.from({ length: step }, () => next++);
            await log.append(packRecords(...numbers.map((i) => makeRecord(i))));
            acknowledged.push(...numbers);
          }
        } catch (error) {
          assertInstanceOf(error, ErrStoreFull);
        }
      }
      // The process ends here: nothing is closed.
      store.before = () => {};
      await using again = new BlockLogDB(store);
      const reopened = await again.open(1n, 1n);
      assertEquals(await reopened.readIndex(), await log.readIndex());
      const first = await firstOf(reopened);
      const kept = (await numbers(reopened, first - 1)).filter((i) => i >= 0);
      assertEquals(kept, acknowledged.slice(acknowledged.length - kept.length));
      await reopened.append(one(99));
      assertEquals((await numbers(reopened, first - 1)).at(-1), 99);
      await db.close();
    }
  }
});

Deno.test("D5 BlockLogDB has a prefix after a power cut, and every resolved append if its durability is full", async () => {
  for (const durability of ["full", "normal"] as const) {
    for (const asynchronous of [false, true]) {
      for (let kept = 0; kept < 9; kept++) {
        const store = new FaultyBlockStore({ asynchronous });
        await using cut = new BlockLogDB(store, { durability });
        const log = await cut.open(1n, 1n);
        for (let i = 0; i < 8; i++) {
          await log.append(one(i));
          if (i === 4) await log.compact!(3);
        }
        // What is under way when the power is cut was not answered.
        void Promise.resolve(log.append(one(8))).catch(() => {});
        await using db = new BlockLogDB(store.crash(kept));
        const found = await db.open(1n, 1n);
        const first = await firstOf(found);
        const records = (await numbers(found, first - 1)).filter((i) => i >= 0);
        const from = records[0] ?? 0;
        assertEquals(records, records.map((_, i) => from + i));
        assertEquals(from <= 2, true);
        if (durability === "full") assert(records.at(-1)! >= 7);
        await found.append(one(99));
        assertEquals((await numbers(found, first - 1)).at(-1), 99);
      }
    }
  }
});

Deno.test("H10 BlockLogDB.close() waits for writes under way, and closes only a store it created", async () => {
  const store = new TryingStore();
  let closed = 0;
  store.close = () => Promise.resolve(void closed++);
  const gate = Promise.withResolvers<void>();
  const logDBs = [new BlockLogDB(store), new BlockLogDB(() => store)];
  for (const [i, db] of logDBs.entries()) {
    store.before = () => gate.promise;
    const log = await db.open(BigInt(i), 1n);
    const appended = log.append(one(1));
    const closing = db.close();
    gate.resolve();
    await closing;
    assertEquals(await appended, 2);
  }
  assertEquals(closed, 1);
});

Deno.test("H1 BlockLogDB exposes the shared snapshot store", async () => {
  await using memory = new MemoryLogDB();
  const { snapshots } = memory;
  await using db = new BlockLogDB(new MemoryBlockStore(), { snapshots });
  assertEquals(db.snapshots, snapshots);
  await db.close();
  assertEquals(snapshots.list(1n), []);
});

Deno.test("H11 BlockLogDB.open() can be repeated after it failed", async () => {
  const store = new TryingStore();
  await using db = new BlockLogDB(store);
  const { keys } = store;
  store.keys = () => Promise.reject(new Error("EIO: i/o error"));
  await assertRejects(() => db.open(1n, 1n), Error, "EIO: i/o error");
  store.keys = keys;
  const [log, other] = await Promise.all([db.open(1n, 1n), db.open(1n, 2n)]);
  await log.append(one(1));
  assertEquals(await other.readIndex(), 2);
});

Deno.test("H1 BlockLogDB keeps several clusters in one store", async () => {
  const store = new MemoryBlockStore();
  const ids = [0n, 1n, 15n, 16n, 255n, (1n << 64n) - 1n];
  {
    await using db = new BlockLogDB(store);
    for (const [i, id] of ids.entries()) {
      const log = await db.open(id, 1n);
      for (let j = 0; j <= i; j++) await log.append(one(10 * i + j));
    }
  }
  await using db = new BlockLogDB(store);
  for (const [i, id] of ids.entries()) {
    const expected = Array.from({ length: i + 1 }, (_, j) => 10 * i + j);
    assertEquals(await numbers(await db.open(id, 1n)), [-1, ...expected]);
  }
});

Deno.test("H1 BlockLogDB writes with the durability of its options", async () => {
  for (
    const [durability, expected] of [
      [undefined, "strict"],
      ["full", "strict"],
      ["normal", "relaxed"],
    ] as const
  ) {
    const store = new TryingStore();
    await using db = new BlockLogDB(store, { durability });
    await (await db.open(1n, 1n)).append(one(1));
    assertEquals(store.writes.map(([, how]) => how), [expected]);
  }
});
