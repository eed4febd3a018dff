import { assert, assertEquals, assertRejects } from "@std/assert";
import { PackedStore } from "../../src/kv/packed/packed_store.ts";
import { viewOf } from "../../src/kv/view.ts";
import { FaultyBlockStore } from "../../src/testing/faulty_block_store.ts";
import { random } from "./util.ts";

let meta = 0;

async function opened(
  blocks: FaultyBlockStore,
  memoryBudgetBytes?: number,
  prefix?: string,
): Promise<[PackedStore, number]> {
  const store = new PackedStore(blocks, {
    memoryBudgetBytes,
    prefix,
    meta: () => Uint8Array.of(meta & 255, meta >> 8),
  });
  const found = await store.open();
  return [store, found ? found[0]! | found[1]! << 8 : 0];
}

/** Sets the value of a key, or removes it; in both spaces. */
async function set(
  store: PackedStore,
  key: Uint8Array,
  value: Uint8Array | undefined,
): Promise<void> {
  const row = new Uint8Array([...key, ...value ?? []]);
  const view = viewOf(row);
  for (const space of [0, 1]) {
    const slot = store.table.slotOf(space, view, 0, key.length);
    if (!slot.content.leaf) await store.load([slot]);
    const found = store.table.seek(space, view, 0, key.length);
    if (value) store.table.set(view, 0, key.length, key.length, row.length);
    else if (found) store.table.remove(view, 0, key.length);
  }
}

/** All rows of the first space. */
async function rows(store: PackedStore): Promise<[string, string][]> {
  const version = store.freeze();
  const found: [string, string][] = [];
  for await (const { leaf, start, end } of store.spans(version)) {
    for (let row = start; row < end; row++) {
      const bytes = new Uint8Array(leaf.view.buffer, leaf.view.byteOffset);
      const value = leaf.valueAt(row);
      found.push([
        `${bytes.slice(leaf.keyAt(row), value)}`,
        `${bytes.slice(value, leaf.offset(row + 1))}`,
      ]);
    }
  }
  store.release(version);
  return found;
}

Deno.test("D4 PackedStore takes any key and any value, and finds them and what is beside them again", async () => {
  const blocks = new FaultyBlockStore();
  const [store] = await opened(blocks);
  const keys = [0, 1, 2, 7].map((n) => new Uint8Array(n));
  keys.push(Uint8Array.of(255), Uint8Array.of(0, 255), new Uint8Array(60_000));
  const values = [0, 1, 500, 200_000].map((n) => new Uint8Array(n));
  for (const value of values) {
    await store.begin();
    for (const key of keys) await set(store, key, value);
    meta++;
    await store.commit();
    await store.sync();
    const [again, found] = await opened(blocks);
    assertEquals(found, meta);
    const all = await rows(again);
    assertEquals(all.length, keys.length);
    assert(all.every(([, bytes]) => bytes === `${value}`));
    assertEquals(new Set(all.map(([key]) => key)), new Set(keys.map(String)));
  }
});

Deno.test("D5 PackedStore has after a crash at any write the state after some step, never a part of a step", async () => {
  const seed = Math.floor(Math.random() * 2 ** 31);
  const next = random(seed);
  const states = new Map<number, string>();
  const model = new Map<string, string>();
  meta = 0;
  let blocks = new FaultyBlockStore({ asynchronous: true });
  let [store] = await opened(blocks, 200_000);
  states.set(0, "");
  let synced = 0;
  for (let step = 1; step < 110; step++) {
    await store.begin();
    for (let i = next(40); i >= 0; i--) {
      const key = Uint8Array.of(next(256), next(8));
      const value = next(5) === 0
        ? undefined
        : new Uint8Array(next(900)).fill(next(256));
      if (value) model.set(`${key}`, `${value}`);
      else model.delete(`${key}`);
      store.table.tick++;
      await store.spill();
      await set(store, key, value);
    }
    meta = step;
    await store.commit();
    states.set(step, JSON.stringify([...model].sort()));
    if (next(9) === 0) {
      await store.sync();
      synced = step;
    }
    if (next(12) > 0) continue;
    // A crash in the middle of a write.
    for (let i = next(4); i > 0; i--) await Promise.resolve();
    blocks = blocks.crash(next(2) * next(1 + blocks.unsynced));
    const [again, found] = await opened(blocks, 200_000);
    assert(found >= synced && found <= step, `Seed ${seed}: ${found}`);
    const state = (await rows(again)).sort();
    assertEquals(
      JSON.stringify(state),
      states.get(found) || "[]",
      `Seed ${seed}`,
    );
    model.clear();
    for (const [key, value] of state) model.set(key, value);
    store = again;
    meta = step = synced = found;
    // Steps that are lost are made again, with other content.
  }
});

Deno.test("D1 two packed stores with different names share one block store", async () => {
  const blocks = new FaultyBlockStore();
  const [a] = await opened(blocks, undefined, "a/");
  const [b] = await opened(blocks, undefined, "b/");
  for (const [store, value] of [[a, 1], [b, 2]] as const) {
    await store.begin();
    await set(store, Uint8Array.of(1), Uint8Array.of(value));
    await store.commit();
    await store.sync();
  }
  for (const [prefix, value] of [["a/", 1], ["b/", 2]] as const) {
    const [again] = await opened(blocks, undefined, prefix);
    assertEquals(await rows(again), [["1", `${value}`]]);
  }
});

Deno.test("D6 a write that fails in the background is reported by the next step, before it changes anything", async () => {
  const blocks = new FaultyBlockStore({ asynchronous: true });
  const [store] = await opened(blocks);
  blocks.fault = { at: 1, times: 2, error: new Error("Broken") };
  await store.begin();
  await set(store, Uint8Array.of(1), new Uint8Array(600_000));
  meta = 1;
  await store.commit();
  await new Promise((resolve) => setTimeout(resolve, 20));
  await assertRejects(async () => await store.begin(), Error, "Broken");
  await store.begin();
  await set(store, Uint8Array.of(2), Uint8Array.of(2));
  meta = 2;
  await store.commit();
  await store.sync();
  const [again, found] = await opened(blocks.crash());
  assertEquals(found, 2);
  assertEquals((await rows(again)).length, 2);
});

/** Steps that each set some keys to values of their own, written at once. */
async function fill(
  store: PackedStore,
  steps: number,
  keys = 256,
): Promise<void> {
  for (let step = 0; step < steps; step++) {
    await store.begin();
    for (let key = 0; key < keys; key++) {
      await set(store, Uint8Array.of(key), new Uint8Array(400).fill(step));
    }
    await store.commit();
    await store.sync();
  }
}

Deno.test("D8 a version is read as it was, also while its pages get other blocks", async () => {
  const seed = Math.floor(Math.random() * 2 ** 31);
  const next = random(seed);
  for (let round = 0; round < 10; round++) {
    const blocks = new FaultyBlockStore({ asynchronous: true });
    const [before] = await opened(blocks, 100_000);
    await fill(before, 1 + next(9));
    const [store] = await opened(blocks, 50_000 + next(100_000));
    const expected = await rows(store);
    const [again] = await opened(blocks, 50_000 + next(100_000));
    const reading = rows(again);
    // Pages that are not changed get another block all the same, for the log's sake.
    await fill(again, 30, 1 + next(20));
    assertEquals(await reading, expected, `Seed ${seed}`);
  }
});

Deno.test("U28 rewritten pages reuse the ids of blocks that are no longer referenced", async () => {
  const blocks = new FaultyBlockStore();
  const [store] = await opened(blocks, 100_000);
  await fill(store, 100);
  const names = blocks.names().filter((name) => name.includes("/page/"));
  const ids = names.map((name) => parseInt(name.split("/").at(-1)!, 16));
  assert(names.length > 10);
  assert(Math.max(...ids) < 4 * names.length, `${ids}`);
});

Deno.test("D5 a write that cannot be built ends the store, and the stored state is unchanged", async () => {
  const blocks = new FaultyBlockStore();
  let broken = false;
  const store = new PackedStore(blocks, {
    meta: () => {
      if (broken) throw new RangeError("Allocation of 65536 bytes failed");
      return Uint8Array.of(7, 0);
    },
  });
  await store.open();
  const put = async (value: number): Promise<void> => {
    await store.begin();
    await set(store, Uint8Array.of(1), Uint8Array.of(value));
    await store.commit();
  };
  await put(1);
  await store.sync();
  broken = true;
  await put(2);
  await assertRejects(async () => await store.sync(), RangeError);
  broken = false;
  // The commit is incomplete: going on would lose data.
  await assertRejects(async () => await store.sync(), RangeError);
  await assertRejects(() => put(3), RangeError);
  await store.close();
  const [again, found] = await opened(blocks.crash());
  assertEquals(found, 7);
  assertEquals(await rows(again), [["1", "1"]]);
});
