import { assert, assertEquals } from "@std/assert";
import { ConcurrentKVStateMachine, kv } from "../../src/kv/mod.ts";
import { PackedStore } from "../../src/kv/packed/packed_store.ts";
import { viewOf } from "../../src/kv/view.ts";
import { FaultyBlockStore } from "../../src/testing/faulty_block_store.ts";
import { applyAll, opened, saved } from "./on_disk_util.ts";
import { apply, never, random, save } from "./util.ts";
import { text } from "../support/bytes.ts";

const MIB = 1024 * 1024;

/** Puts of random ones among `keys` keys. */
function puts(
  next: (n: number) => number,
  count: number,
  keys: number,
  size = 128,
): Uint8Array[] {
  return Array.from({ length: count }, () => {
    const value = new Uint8Array(size);
    for (let i = 0; i < 8; i++) value[i] = next(256);
    return kv.put(`key-${next(keys)}`.padEnd(16, "x"), value);
  });
}

for (const asynchronous of [false, true]) {
  Deno.test(`D6 a state of sixteen times the memory is correct, ${asynchronous ? "slow" : "fast"} blocks`, async () => {
    const seed = Math.floor(Math.random() * 2 ** 31);
    const next = random(seed);
    const store = new FaultyBlockStore({ asynchronous });
    const [machine] = await opened(store, { memoryBudgetBytes: MIB / 8 });
    const memory = new ConcurrentKVStateMachine();
    const say = `Seed ${seed}`;
    let index = 0;
    const write = async (count: number): Promise<void> => {
      const batch = puts(next, count, 2_500, 800);
      assertEquals(
        await applyAll(machine, index, batch),
        batch.map((cmd) => apply(memory, cmd)),
        say,
      );
      index += count;
    };
    for (let i = 0; i < 14; i++) await write(400);
    for (let i = 0; i < 200; i++) {
      const key = kv.get(`key-${next(2_500)}`.padEnd(16, "x"));
      assertEquals(await machine.lookup(key), memory.lookup(key), say);
    }
    const context = machine.prepareSnapshot();
    const expected = await save(memory);
    await write(400);
    const range = kv.range({ start: "key-5", end: "key-6", limit: 500 });
    assertEquals(await machine.lookup(range), memory.lookup(range), say);
    await write(400);
    assertEquals(await saved(machine, context), expected, say);
    assertEquals(machine.getHash(), memory.getHash(), say);
    await machine.sync();
    const [again] = await opened(store.crash(), {
      memoryBudgetBytes: MIB / 8,
    });
    assertEquals(await saved(again), await save(memory), say);
  });
}

/** A store with many rows, without a machine. */
class Filled {
  readonly blocks = new FaultyBlockStore({ asynchronous: true });
  readonly store: PackedStore;
  most = 0;

  constructor(budget: number) {
    this.store = new PackedStore(this.blocks, {
      memoryBudgetBytes: budget,
      meta: () => Uint8Array.of(1),
    });
  }

  /** One step that sets the values of some keys. */
  async put(keys: readonly number[], size: number): Promise<void> {
    const { store } = this;
    await store.begin();
    for (const key of keys) {
      const row = new Uint8Array(4 + size);
      const view = viewOf(row);
      view.setUint32(0, key);
      store.table.tick++;
      if (store.excess > store.slack) await store.spill();
      const slot = store.table.slotOf(0, view, 0, 4);
      if (!slot.content.leaf) await store.load([slot]);
      store.table.seek(0, view, 0, 4);
      store.table.set(view, 0, 4, 4, row.length);
      this.most = Math.max(this.most, store.memoryBytes);
    }
    await store.commit();
    this.most = Math.max(this.most, store.memoryBytes);
  }
}

Deno.test("D6 memory stays near the budget, whatever a step changes and a version holds", async () => {
  const filled = new Filled(MIB / 4);
  await filled.store.open();
  const next = random(11);
  for (let i = 0; i < 10; i++) {
    const keys = Array.from({ length: 500 }, () => next(2 ** 31));
    await filled.put(keys, 800);
  }
  assert(filled.blocks.bytesWritten > 4 * MIB);
  const version = filled.store.freeze();
  for (let i = 0; i < 3; i++) {
    const keys = Array.from({ length: 500 }, () => next(2 ** 31));
    await filled.put(keys, 800);
  }
  filled.store.release(version);
  // The budget, the slack of a step, and the record being filled.
  assert(filled.most < 1.5 * MIB, `${filled.most / MIB} MiB`);
  await filled.store.close();
});

Deno.test("D6 one hundred thousand rows of 144 bytes cost less than 25 MB", async () => {
  const [machine] = await opened(new FaultyBlockStore());
  const packed = new PackedStore(new FaultyBlockStore(), {
    meta: () => new Uint8Array(),
  });
  await packed.open();
  const next = random(3);
  await packed.begin();
  for (let i = 0; i < 100_000; i++) {
    const row = new Uint8Array(144);
    const view = viewOf(row);
    for (let at = 0; at < 16; at += 4) view.setUint32(at, next(2 ** 31));
    packed.table.seek(0, view, 0, 16);
    packed.table.set(view, 0, 16, 16, 144);
    if (i % 1000 === 999) {
      packed.commit();
      packed.begin();
    }
  }
  packed.commit();
  const bytes = packed.memoryBytes;
  assert(bytes < 25e6, `${bytes / 1e6} MB`);
  await machine.close();
});

Deno.test("U26 the log is bounded, in bytes and in blocks, and so are the pages", async () => {
  const store = new FaultyBlockStore();
  const [machine] = await opened(store, { memoryBudgetBytes: MIB });
  const next = random(5);
  let most = 0;
  let bytes = 0;
  for (let i = 0; i < 4000; i++) {
    await applyAll(machine, i, puts(next, 1, 2000));
    await machine.sync();
    if (i % 100 !== 0) continue;
    const logs = await store.list("kv/log/", "kv/log0");
    most = Math.max(most, logs.length);
    bytes = Math.max(bytes, logs.reduce((n, { bytes }) => n + bytes.length, 0));
  }
  assert(most < 700, `${most} records`);
  assert(bytes < MIB, `${bytes} bytes`);
  const pages = await store.list("kv/page/", "kv/page0");
  const size = pages.reduce((n, { bytes }) => n + bytes.length, 0);
  assert(size < MIB, `${size} bytes`);
});

Deno.test("U26 the log is bounded also where keys are new, and writes slow", async () => {
  for (const sorted of [true, false]) {
    const store = new FaultyBlockStore({ asynchronous: true });
    const [machine] = await opened(store, { memoryBudgetBytes: MIB });
    const next = random(5);
    let most = 0;
    for (let i = 0; i < 60_000; i += 1000) {
      const batch = Array.from({ length: 1000 }, (_, j) => {
        const key = sorted ? i + j : next(2 ** 31);
        return kv.put(`${key}`.padStart(10, "0"), new Uint8Array(128));
      });
      await applyAll(machine, i, batch);
      const logs = await store.list("kv/log/", "kv/log0");
      most = Math.max(most, logs.reduce((n, { bytes }) => n + bytes.length, 0));
    }
    assert(most < 3 * MIB, `${most} bytes, sorted ${sorted}`);
  }
});

Deno.test("U28 nothing is written when nothing has changed", async () => {
  const store = new FaultyBlockStore();
  const [machine] = await opened(store);
  await applyAll(machine, 0, [kv.put("a", "1")]);
  await machine.sync();
  const { writes } = store;
  for (let i = 0; i < 10; i++) {
    await machine.sync();
    await machine.lookup(kv.get("a"));
    await saved(machine);
  }
  assertEquals(store.writes, writes);
  await machine.close();
  const [again] = await opened(store);
  await again.sync();
  await again.close();
  assertEquals(store.writes, writes);
});

Deno.test("U26 a closed store has a short log, and reopens with the same rows", async () => {
  const store = new FaultyBlockStore();
  const [machine] = await opened(store);
  const batch = Array.from(
    { length: 20_000 },
    (_, i) => kv.put(`${i}`.padStart(8, "0"), new Uint8Array(32)),
  );
  await applyAll(machine, 0, batch);
  await machine.sync();
  const state = await saved(machine);
  await machine.close();
  const logs = await store.list("kv/log/", "kv/log0");
  const bytes = logs.reduce((n, { bytes }) => n + bytes.length, 0);
  assert(bytes < 64 * 1024, `${bytes} bytes`);
  const [again, index] = await opened(store);
  assertEquals(index, 20_000);
  assertEquals(await saved(again), state);
  const { writes } = store;
  await again.close();
  assertEquals(store.writes, writes);
});

Deno.test("U28 endless overwrites of the same rows do not make the store grow", async () => {
  const store = new FaultyBlockStore();
  const [machine] = await opened(store, { memoryBudgetBytes: MIB });
  const next = random(5);
  let index = 0;
  let most = 0;
  for (let i = 0; i < 300; i++) {
    await applyAll(machine, index, puts(next, 200, 1000));
    index += 200;
    const blocks = await store.list("", "\x7f");
    most = Math.max(most, blocks.reduce((n, { bytes }) => n + bytes.length, 0));
  }
  // Rows of 150 KB, some of them twice, and a log of half the budget.
  assert(most < 2 * MIB, `${most} bytes`);
});

Deno.test("D5 keys that are added and removed in order leave no pages", async () => {
  const store = new FaultyBlockStore();
  const [machine] = await opened(store, { memoryBudgetBytes: MIB });
  const name = (i: number): string => `${i}`.padStart(9, "0");
  const value = new Uint8Array(500);
  for (let i = 0; i < 12_000; i += 100) {
    const batch: Uint8Array[] = [];
    for (let j = i; j < i + 100; j++) {
      batch.push(kv.put(name(j), value));
      if (j >= 1000) batch.push(kv.delete(name(j - 1000)));
    }
    await applyAll(machine, i * 2, batch);
  }
  await machine.sync();
  assertEquals(await machine.lookup(kv.count()), 1000);
  const pages = store.names().filter((name) => name.includes("/page/"));
  assert(pages.length < 80, `${pages.length} pages`);
});

Deno.test("D7 an update of more pages than fit in memory is done while lookups read others", async () => {
  const store = new FaultyBlockStore({ asynchronous: true });
  const options = { memoryBudgetBytes: MIB / 16 };
  let [machine] = await opened(store, options);
  await applyAll(machine, 0, puts(random(4), 4000, 3000));
  await machine.close();
  [machine] = await opened(store, options);
  const next = random(5);
  let done = false;
  const updating = applyAll(machine, 4000, [
    kv.batch(puts(random(6), 300, 3000)),
  ]).finally(() => done = true);
  const looked: unknown[] = [];
  while (!done && looked.length < 1000) {
    const key = `key-${next(3000)}`.padEnd(16, "x");
    looked.push(machine.lookup(kv.get(key)), machine.lookup(kv.get(`${key}y`)));
    await new Promise((resolve) => setTimeout(resolve));
  }
  assert(done, "It has to read the same pages again and again");
  await Promise.all(looked);
  assertEquals((await updating)[0]?.value, 1n);
});

Deno.test("D7 the values of many keys are of one state, while updates change pages that are not in memory", async () => {
  const store = new FaultyBlockStore({ asynchronous: true });
  const options = { memoryBudgetBytes: MIB / 16 };
  let [machine] = await opened(store, options);
  const keys = Array.from({ length: 3000 }, (_, i) => `key ${i}`);
  const fill = (value: string): Uint8Array =>
    kv.batch(keys.map((key) => kv.put(key, value.repeat(20))));
  await applyAll(machine, 0, [fill("0")]);
  await machine.close();
  [machine] = await opened(store, options);
  const query = kv.getMany([...keys.slice(1000).reverse(), "none", ...keys]);
  for (let i = 1; i < 4; i++) {
    const reading = machine.lookup(query);
    const updating = applyAll(machine, i, [fill(`${i}`)]);
    const values = (await reading).map((value) => value && text(value));
    assertEquals(values.splice(2000, 1), [undefined]);
    assertEquals(new Set(values), new Set([`${i - 1}`.repeat(20)]));
    await updating;
  }
});

Deno.test("H6 host's rows are read also where some are in memory and all do not fit", async () => {
  const store = new FaultyBlockStore({ asynchronous: true });
  const [machine] = await opened(store, { memoryBudgetBytes: MIB / 16 });
  const rows = Array.from({ length: 200 }, (_, i) => ({
    key: `row-${100 + i}`,
    value: new Uint8Array(1000).fill(i),
  }));
  for (let index = 1; index < 10; index++) {
    const some = index === 1 ? rows : rows.slice(index, index + 1);
    await machine.updateWithHost(
      [{ index, cmd: kv.put("a", `${index}`) }],
      () => ({ index, rows: some }),
    );
    await machine.sync();
  }
  // All it takes is each page once.
  const { reads } = store;
  const found = machine.readHostRows();
  while (store.reads === reads) await new Promise((r) => setTimeout(r));
  let turns = 0;
  const timer = setInterval(() => {
    if (++turns > 1000 || store.reads > reads + 1000) store.crash();
  });
  try {
    assertEquals(await found, rows);
  } finally {
    clearInterval(timer);
  }
});

Deno.test("C5 a context frees what it holds, also when its snapshot is aborted", async () => {
  const store = new FaultyBlockStore();
  const [machine] = await opened(store, { memoryBudgetBytes: MIB });
  const next = random(9);
  let index = 0;
  const write = async (): Promise<void> => {
    for (let i = 0; i < 10; i++) {
      await applyAll(machine, index, puts(next, 1000, 6000, 300));
      index += 1000;
    }
    await machine.sync();
  };
  const pages = (): number =>
    store.names().filter((name) => name.includes("/page/")).length;
  await write();
  const before = pages();
  const context = machine.prepareSnapshot();
  await write();
  assert(pages() > before * 1.3, `${before} then ${pages()} pages`);
  const stopped = AbortSignal.abort(new Error("abort() was called"));
  let thrown: unknown;
  try {
    await machine.saveSnapshot(context, new WritableStream(), stopped);
  } catch (error) {
    thrown = error;
  }
  assertEquals(thrown, stopped.reason);
  await machine.sync();
  assert(pages() < before * 1.3, `${before} then ${pages()} pages`);
  assertEquals(never.aborted, false);
});

Deno.test("D8 contexts with no update between them give the same bytes", async () => {
  const [machine] = await opened(new FaultyBlockStore({ asynchronous: true }), {
    memoryBudgetBytes: MIB / 4,
  });
  await applyAll(machine, 0, puts(random(2), 4000, 3000, 300));
  const first = machine.prepareSnapshot();
  const second = machine.prepareSnapshot();
  await applyAll(machine, 4000, puts(random(3), 2000, 3000, 300));
  assertEquals(await saved(machine, second), await saved(machine, first));
});
