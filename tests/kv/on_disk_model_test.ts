import { assertEquals, assertRejects } from "@std/assert";
import {
  ConcurrentKVStateMachine,
  kv,
  type KVQuery,
  KVStateMachine,
  type OnDiskKVStateMachine,
} from "../../src/kv/mod.ts";
import { ErrStoreLocked, MemoryBlockStore } from "../../src/store/mod.ts";
import { FaultyBlockStore } from "../../src/testing/faulty_block_store.ts";
import {
  applyAll,
  Commands,
  opened,
  recovered,
  saved,
} from "./on_disk_util.ts";
import { apply, recover, save } from "./util.ts";

const seeds = [1, 2, 3, Math.floor(Math.random() * 2 ** 31)];

function queries(commands: Commands): KVQuery[] {
  const { next } = commands;
  const bound = (): Uint8Array | undefined =>
    next(4) === 0 ? undefined : commands.key();
  return [
    kv.count(),
    kv.get(commands.key()),
    kv.getMany([commands.key(), commands.key(), commands.key()]),
    kv.range({ start: bound(), end: bound(), limit: next(40) }),
    kv.range({ start: bound(), end: bound(), limit: next(40), reverse: true }),
    kv.range({ start: bound(), end: bound() }),
  ];
}

/** Holds everything that can be seen of a machine against one in memory. */
async function expectSame(
  disk: OnDiskKVStateMachine,
  memory: ConcurrentKVStateMachine,
  commands: Commands,
): Promise<void> {
  assertEquals(disk.getHash(), memory.getHash());
  for (const query of queries(commands)) {
    assertEquals(await disk.lookup(query), memory.lookup(query));
    const bytes = kv.encodeQuery(query);
    assertEquals(await disk.naLookup(bytes), memory.naLookup(bytes));
  }
}

for (const seed of seeds) {
  for (const asynchronous of [false, true]) {
    const way = asynchronous
      ? "a store that takes time"
      : "a store that does not";
    Deno.test(`C7 one history gives the same on all machines, over ${way}, seed ${seed}`, async () => {
      const commands = new Commands(seed, 400, 60);
      const regular = new KVStateMachine();
      const concurrent = new ConcurrentKVStateMachine();
      const [disk] = await opened(new FaultyBlockStore({ asynchronous }));
      for (let index = 0; index < 2000;) {
        const batch = commands.commands(1 + commands.next(60));
        const results = await applyAll(disk, index, batch);
        index += batch.length;
        assertEquals(results, batch.map((cmd) => apply(regular, cmd)));
        assertEquals(results, batch.map((cmd) => apply(concurrent, cmd)));
        await expectSame(disk, concurrent, commands);
      }
      const payload = await saved(disk);
      assertEquals(payload, await save(regular));
      assertEquals(payload, await save(concurrent));
      const copy = await recover([payload]);
      assertEquals(copy.getHash(), disk.getHash());
    });
  }

  Deno.test(`D5 a machine in little memory, reopened and recovered at random, is as one that never was, seed ${seed}`, async () => {
    const commands = new Commands(seed, 3000, 200);
    let store = new FaultyBlockStore({ asynchronous: seed % 2 === 1 });
    const options = { memoryBudgetBytes: 200_000 };
    const memory = new ConcurrentKVStateMachine();
    let [disk, index] = await opened(store, options);
    for (let step = 0; step < 80; step++) {
      commands.deletes = step % 50 < 35 ? 15 : 80;
      const batch = commands.commands(
        1 + commands.next(commands.next(4) ? 20 : 300),
      );
      const results = await applyAll(disk, index, batch);
      assertEquals(results, batch.map((cmd) => apply(memory, cmd)));
      index += batch.length;
      const dice = commands.next(12);
      if (dice === 0) {
        await disk.sync();
        store = store.crash();
        [disk] = await opened(store, options);
      } else if (dice === 1) {
        await disk.close();
        const [next, found] = await opened(store, options);
        assertEquals(found, index);
        disk = next;
      } else if (dice === 2) {
        await recovered(disk, await saved(disk), index);
      } else if (dice === 3) {
        const context = disk.prepareSnapshot();
        const expected = await save(memory);
        const more = commands.commands(400);
        await applyAll(disk, index, more);
        for (const cmd of more) apply(memory, cmd);
        index += more.length;
        assertEquals(await saved(disk, context), expected);
      } else if (dice === 4) await disk.sync();
      if (step % 8 === 0) await expectSame(disk, memory, commands);
    }
    assertEquals(await saved(disk), await save(memory));
  });
}

Deno.test("D1 a new machine opens at 0", async () => {
  const [machine, index] = await opened(new MemoryBlockStore());
  assertEquals(index, 0);
  assertEquals(machine.getHash(), 0n);
  assertEquals(await machine.readHostRows(), []);
});

Deno.test("R5 a store that refuses everything is reported by open(), and by nothing else", async () => {
  const refused = new ErrStoreLocked("KV store is open in another page");
  const store = new MemoryBlockStore();
  const refuse = (): Promise<never> => Promise.reject(refused);
  store.get =
    store.list =
    store.keys =
    store.write =
      refuse as never;
  // An unhandled rejection fails the test.
  const error = await assertRejects(() => opened(store), ErrStoreLocked);
  assertEquals(error, refused);
});
