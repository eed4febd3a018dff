import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  ErrUnknownOutcome,
  kv,
  KVStateMachine,
  MemorySnapshotStore,
  NodeHost,
  type Replica,
} from "../../mod.ts";
import { OnDiskKVStateMachine } from "../../src/kv/on_disk_kv_state_machine.ts";
import { BlockLogDB } from "../../src/log/block_log.ts";
import { lastOf, packRecords } from "../../src/log/records.ts";
import {
  ErrStoreCorrupted,
  ErrStoreFull,
  MemoryBlockStore,
} from "../../src/store/mod.ts";
import { FaultyBlockStore } from "../../src/testing/faulty_block_store.ts";

const config = { clusterID: 1n, nodeID: 1n };
const COUNT = 10;

async function countOf(replica: Replica): Promise<number> {
  const value = await replica.read(kv.get("count")) as Uint8Array | undefined;
  return Number(new TextDecoder().decode(value));
}

/** Counts on in a session, some of it at once; each step says from where to where, so that one applied twice would show. */
async function count(replica: Replica, answered: number[]): Promise<void> {
  const session = await replica.openSession();
  const from = await countOf(replica);
  const waiting: Promise<void>[] = [];
  for (let i = from + 1; i <= from + COUNT; i++) {
    const before = i === 1 ? undefined : `${i - 1}`;
    const cmd = kv.compareAndSwap("count", before, `${i}`);
    const proposed = replica.propose(cmd, { session }).then(({ value }) => {
      assertEquals(value, 1n, `Step ${i}`);
      answered.push(i);
    });
    // One that failed before may end the waiting for this one.
    proposed.catch(() => {});
    waiting.push(proposed);
    if (i % 3 === 0) await proposed;
  }
  await Promise.all(waiting);
}

/** The state of a machine in memory that applies the whole log. */
async function replayed(logDB: BlockLogDB): Promise<bigint> {
  await using snapshots = new MemorySnapshotStore();
  await using host = new NodeHost({ logDB, snapshots });
  const replica = await host.startCluster(() => new KVStateMachine(), {
    ...config,
    nodeID: 2n,
  });
  return (await replica.getHash()).hash;
}

/** Opens a log and a machine, counts on, and compares the machine with a replay. */
async function live(
  log: FaultyBlockStore,
  state: FaultyBlockStore,
  answered: number[],
): Promise<void> {
  await using logDB = new BlockLogDB(log);
  await using host = new NodeHost({ logDB });
  const replica = await host.startOnDiskCluster(
    () => new OnDiskKVStateMachine(state),
    config,
  );
  const found = await countOf(replica);
  const least = answered.at(-1) ?? 0;
  assert(found >= least && found <= least + COUNT, `${found}, was ${least}`);
  await count(replica, answered);
  assertEquals((await replica.getHash()).hash, await replayed(logDB));
}

for (
  const [what, after, error] of [
    ["fails", false, new ErrStoreFull("Full")],
    ["is lost", false, new ErrUnknownOutcome("Lost")],
    ["is made and its answer lost", true, new ErrUnknownOutcome("Lost")],
  ] as const
) {
  Deno.test(`H3 every step of a session is applied once, whichever write of the log ${what}`, async () => {
    for (let at = 1; at <= 12; at++) {
      let log = new FaultyBlockStore({ asynchronous: at % 2 === 0 });
      let state = new FaultyBlockStore();
      log.fault = { at, after, error };
      const answered: number[] = [];
      await live(log, state, answered);
      // Power cut: strict writes survive.
      log = log.crash();
      state = state.crash();
      await live(log, state, answered);
      assertEquals(
        answered,
        Array.from({ length: 2 * COUNT }, (_, i) => i + 1),
      );
    }
  });
}

Deno.test("D5 log and machine agree after a power cut in the middle of the work", async () => {
  for (let kept = 0; kept < 8; kept++) {
    const log = new FaultyBlockStore({ asynchronous: true });
    const state = new FaultyBlockStore();
    const answered: number[] = [];
    const logDB = new BlockLogDB(log);
    const host = new NodeHost({ logDB, stopTimeoutMs: 100 });
    const replica = await host.startOnDiskCluster(
      () => new OnDiskKVStateMachine(state),
      config,
    );
    const counting = count(replica, answered).catch(() => {});
    while (answered.length < kept) {
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
    const before = [...answered];
    const [logAfter, stateAfter] = [log.crash(kept), state.crash(kept)];
    await live(logAfter, stateAfter, before);
    await host.stop();
    await counting;
    await logDB.close();
  }
});

Deno.test("H8 a start on a log with a damaged block fails with its name, and is not retried forever", async () => {
  let store = new FaultyBlockStore();
  {
    await using logDB = new BlockLogDB(() => store);
    await using host = new NodeHost({ logDB });
    const replica = await host.startCluster(() => new KVStateMachine(), config);
    for (let i = 0; i < 3; i++) await replica.propose(kv.put(`${i}`, "x"));
  }
  store = store.crash();
  const blocks = store.names().filter((name) => /\d{8}/.test(name));
  store.flip(blocks.at(-1)!, 200);
  await using logDB = new BlockLogDB(() => store);
  await using host = new NodeHost({ logDB });
  const error = await assertRejects(
    () => host.startCluster(() => new KVStateMachine(), config),
    ErrStoreCorrupted,
  );
  assert(error.part.length > 0);
});

Deno.test("D5 H13 a log is copied whole after the write of a compaction has failed", async () => {
  const store = new FaultyBlockStore();
  await using logDB = new BlockLogDB(store);
  const log = await logDB.open(1n, 1n);
  for (let i = 0; i < 6; i++) await log.append(packRecords(new Uint8Array(9)));
  store.fault = { at: store.writes + 1, error: new ErrStoreFull("Full") };
  await assertRejects(async () => await log.compact!(3), ErrStoreFull);
  const copy = new MemoryBlockStore();
  const { base, last, blocks } = await logDB.copy(1n);
  for await (const put of blocks) await copy.write({ put }, "strict");
  await using copied = new BlockLogDB(copy);
  const found = await copied.open(1n, 2n);
  assertEquals([found.info!().first, found.info!().last], [base + 1, last]);
  assertEquals([base, last], [3, 7]);
  const reader = await found.read(base);
  let at = base;
  while (at < last) at = lastOf(await reader.next());
  assertEquals(at, last);
  reader.close();
});
