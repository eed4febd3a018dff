import { assert, assertEquals, assertRejects } from "@std/assert";
import { kv } from "../../src/kv/mod.ts";
import { ErrStoreCorrupted } from "../../src/store/mod.ts";
import { FaultyBlockStore } from "../../src/testing/faulty_block_store.ts";
import { applyAll, Commands, opened, saved } from "./on_disk_util.ts";

const options = { memoryBudgetBytes: 300_000 };

/** A store with blocks of every kind. */
async function damaged(): Promise<[FaultyBlockStore, Uint8Array]> {
  const store = new FaultyBlockStore();
  const [machine] = await opened(store, options);
  const commands = new Commands(4, 2000, 300);
  for (let i = 0; i < 20; i++) {
    await applyAll(machine, i * 200, commands.commands(200));
    await machine.sync();
  }
  return [store, await saved(machine)];
}

/** Opens and reads everything. */
async function readAll(store: FaultyBlockStore): Promise<Uint8Array> {
  const [machine] = await opened(store, options);
  await machine.readHostRows();
  return await saved(machine);
}

Deno.test("H8 every block that is missing is named", async () => {
  const [store] = await damaged();
  const names = store.names();
  for (const kind of ["kv/head", "kv/base", "kv/log/", "kv/page/"]) {
    assert(names.some((name) => name.startsWith(kind)), `No ${kind}`);
  }
  for (const name of names) {
    const [store] = await damaged();
    store.remove(name);
    const error = await assertRejects(() => readAll(store), ErrStoreCorrupted);
    assertEquals((error as ErrStoreCorrupted).part, name);
  }
});

Deno.test("H8 every block that is damaged is named, wherever the damage is", async () => {
  const seed = Math.floor(Math.random() * 2 ** 31);
  const { next } = new Commands(seed, 1, 1);
  const [whole, expected] = await damaged();
  for (const name of whole.names()) {
    for (const bit of [0, 39, 47, next(2 ** 20), next(2 ** 20)]) {
      const before = (await whole.get([name]))[0]!;
      whole.flip(name, bit);
      const error = await assertRejects(
        () => readAll(whole),
        ErrStoreCorrupted,
        undefined,
        `Seed ${seed}: ${name}, bit ${bit}`,
      );
      assertEquals((error as ErrStoreCorrupted).part, name);
      await whole.write({ put: [{ key: name, bytes: before }] }, "strict");
    }
  }
  assertEquals(await readAll(whole), expected);
});

Deno.test("H8 a page in place of another page is detected", async () => {
  const [store] = await damaged();
  const [first, second] = store.names().filter((name) =>
    name.includes("/page/")
  );
  const [bytes] = await store.get([second!]);
  await store.write({ put: [{ key: first!, bytes: bytes! }] }, "strict");
  await assertRejects(() => readAll(store), ErrStoreCorrupted);
});

Deno.test("R5 an update that reads a damaged page fails, and none of its changes are kept", async () => {
  const store = new FaultyBlockStore();
  const [machine] = await opened(store, options);
  const commands = new Commands(4, 2000, 300);
  await applyAll(machine, 0, commands.commands(4000));
  await machine.close();
  const [again, index] = await opened(store, options);
  const hash = again.getHash();
  for (const name of store.names()) {
    if (name.includes("/page/")) store.flip(name, 77);
  }
  const batch = [kv.put("fresh", "1"), ...commands.commands(300)];
  await assertRejects(() => applyAll(again, index, batch), ErrStoreCorrupted);
  await assertRejects(() => applyAll(again, index, batch), ErrStoreCorrupted);
  await again.sync();
  const [found, at] = await opened(store, options);
  assertEquals(at, index);
  assertEquals(found.getHash(), hash);
});

Deno.test("R5 an update that fails in the middle is never written, and ends the machine", async () => {
  const store = new FaultyBlockStore();
  const [machine] = await opened(store);
  await applyAll(machine, 0, [kv.put("a", "1")]);
  await machine.sync();
  const entries = [{ index: 2, cmd: kv.put("a", "2") }];
  const broken = new Error("Broken");
  const host = (): never => {
    throw broken;
  };
  const thrown = await assertRejects(async () =>
    await machine.updateWithHost(entries, host)
  );
  assertEquals(thrown, broken);
  const later = await assertRejects(async () => await machine.sync());
  assertEquals(later, broken);
  await assertRejects(() => applyAll(machine, 2, [kv.put("b", "1")]));
  await machine.close();
  const [again, index] = await opened(store);
  assertEquals(index, 1);
  assertEquals(await again.lookup(kv.get("a")), Uint8Array.of(0x31));
});
