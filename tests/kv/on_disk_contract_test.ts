import { kv, OnDiskKVStateMachine } from "../../src/kv/mod.ts";
import { FaultyBlockStore } from "../../src/testing/faulty_block_store.ts";
import { checkOnDiskStateMachine, type Disk } from "../../src/testing/mod.ts";

const commands = [
  kv.put("a", "1"),
  kv.put("a", "2"),
  kv.put("b", "1"),
  kv.delete("a"),
  kv.compareAndSwap("a", "1", "3"),
  kv.compareAndSwap("b", undefined, "4"),
  kv.put("", ""),
  kv.put("c", "large".repeat(3000)),
  kv.put("d", "larger".repeat(6000)),
  kv.batch([kv.put("x", "1"), kv.compareAndSwap("a", "2", "5")]),
  Uint8Array.of(9, 9),
];

const queries = [
  kv.get("a"),
  kv.get("b"),
  kv.getMany(["d", "a", "b"]),
  kv.count(),
  kv.range(),
  kv.range({ start: "b", reverse: true, limit: 2 }),
  { type: "nonsense" },
];

/** Disk that loses writes that are not strict at a crash, all of them or the last ones. */
function diskOf(asynchronous: boolean, memoryBudgetBytes?: number): Disk {
  let store = new FaultyBlockStore({ asynchronous });
  let crashes = 0;
  return {
    create: () => new OnDiskKVStateMachine(store, { memoryBudgetBytes }),
    crash: (): void => {
      store = store.crash(crashes++ % 3 === 2 ? store.unsynced >> 1 : 0);
    },
  };
}

for (const asynchronous of [false, true]) {
  for (const budget of [undefined, 40_000]) {
    const where = `${asynchronous ? "slow" : "fast"} blocks, ${
      budget === undefined ? "ample" : "little"
    } memory`;
    Deno.test(`D12 OnDiskKVStateMachine keeps the contract, ${where}`, () =>
      checkOnDiskStateMachine({
        disk: () => diskOf(asynchronous, budget),
        commands,
        queries,
        naQueries: [kv.encodeQuery(kv.range()), Uint8Array.of(1)],
        runs: 6,
      }));
  }
}
