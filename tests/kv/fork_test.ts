import { assertEquals } from "@std/assert";
import {
  ConcurrentKVStateMachine,
  kv,
  type KVQuery,
  KVStateMachine,
} from "../../src/kv/mod.ts";
import type { Entry, MaybePromise } from "../../src/statemachine/mod.ts";
import { MemoryBlockStore } from "../../src/store/mod.ts";
import { applyAll, Commands, opened } from "./on_disk_util.ts";
import { apply } from "./util.ts";

interface Fork {
  apply(cmd: Uint8Array): MaybePromise<unknown>;
  lookup(query: KVQuery): MaybePromise<unknown>;
}

/** Fork of each kind of machine in the same state, with its `close()`. */
async function forks(
  commands: readonly Uint8Array[],
): Promise<[string, () => Fork, () => Promise<unknown>][]> {
  const regular = new KVStateMachine();
  const concurrent = new ConcurrentKVStateMachine();
  const [disk] = await opened(new MemoryBlockStore(), {
    memoryBudgetBytes: 64 * 1024,
  });
  for (const cmd of commands) {
    apply(regular, cmd);
    apply(concurrent, cmd);
  }
  await applyAll(disk, 0, commands);
  await disk.sync();
  const entryOf = (cmd: Uint8Array): Entry => ({ index: 1, cmd });
  const batched = (fork: ReturnType<typeof disk.fork>): Fork => ({
    apply: async (cmd) => (await fork.update([entryOf(cmd)]))[0]!.result,
    lookup: (query) => fork.lookup(query),
  });
  const hash = (): Promise<unknown> =>
    Promise.resolve([
      regular.getHash(),
      concurrent.getHash(),
      disk.getHash(),
    ]);
  return [
    ["regular", () => {
      const fork = regular.fork();
      return { ...fork, apply: (cmd) => fork.update(cmd) };
    }, hash],
    ["concurrent", () => batched(concurrent.fork()), hash],
    ["on disk", () => batched(disk.fork()), async () => {
      const hashes = await hash();
      await disk.close();
      return hashes;
    }],
  ];
}

async function compare(seed: number): Promise<void> {
  const commands = new Commands(seed, 3000, 300);
  const { next } = commands;
  const before = commands.commands(3000);
  const all = await forks(before);
  const model = new KVStateMachine();
  for (const cmd of before) apply(model, cmd);
  const untouched = model.getHash();
  const after = commands.commands(400);
  const run = all.map(([name, fork]) => [name, fork()] as const);
  for (const cmd of after) {
    const result = apply(model, cmd);
    for (const [name, fork] of run) {
      assertEquals(await fork.apply(cmd.slice()), result, name);
    }
    if (next(4) > 0) continue;
    const range = {
      start: next(3) === 0 ? undefined : commands.key(),
      end: next(3) === 0 ? undefined : commands.key(),
      limit: next(3) === 0 ? undefined : next(50),
      reverse: next(2) === 0,
    };
    for (
      const query of [
        kv.get(commands.key()),
        kv.getMany([commands.key(), commands.key(), commands.key()]),
        kv.count(),
        kv.range(range),
        kv.range({ ...range, limit: 1 }),
      ]
    ) {
      const answer = model.lookup(query);
      for (const [name, fork] of run) {
        assertEquals(await fork.lookup(query), answer, name);
      }
    }
  }
  assertEquals(
    await run[2]![1].lookup(kv.range()),
    model.lookup(kv.range()),
  );
  // What is done to a fork does not show in its machine.
  for (const [name, , end] of all) {
    assertEquals(await end(), Array(3).fill(untouched), name);
  }
}

Deno.test("U25 a fork of a key-value machine is the machine after some commands more, and the machine stays as it is", async () => {
  const seed = crypto.getRandomValues(new Uint32Array(1))[0]!;
  try {
    await compare(seed);
  } catch (cause) {
    throw new Error(`Failed with seed ${seed}: ${cause}`, { cause });
  }
});

Deno.test("U25 a fork that has deleted keys takes the largest limit there is", async () => {
  const commands = [kv.put("a", "1"), kv.put("b", "2")];
  for (const [name, make, end] of await forks(commands)) {
    const fork = make();
    await fork.apply(kv.delete("a"));
    const limit = Number.MAX_SAFE_INTEGER;
    const rows = await fork.lookup(kv.range({ limit })) as unknown[];
    assertEquals(rows.length, 1, name);
    await end();
  }
});
