import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertMatch,
} from "@std/assert";
import {
  ErrCompacted,
  ErrNotImplemented,
  kv,
  KVStateMachine,
  MemoryBlockStore,
  NodeHost,
  OnDiskKVStateMachine,
  type Replica,
  type ReplicaConfig,
} from "../../mod.ts";
import {
  HISTORY_FOLLOWED_BATCHES_MAX,
  HISTORY_PART_ENTRIES_MAX,
} from "../../src/limits.ts";
import { BlockLogDB } from "../../src/log/block_log.ts";
import type { Log } from "../../src/log/log.ts";
import type { EntryReader } from "../../src/divergence/mod.ts";
import { rejection } from "../support/environment.ts";

async function started(
  config: Partial<ReplicaConfig> = {},
): Promise<{ host: NodeHost; replica: Replica }> {
  const host = new NodeHost();
  const replica = await host.startCluster(() => new KVStateMachine(), {
    clusterID: 1n,
    nodeID: 1n,
    ...config,
  });
  return { host, replica: replica as Replica };
}

/** Puts the numbers up to `count`, each under its name, and returns the index of the first. */
async function fill(replica: Replica, count: number): Promise<number> {
  const first = replica.appliedIndex + 2;
  await Promise.all(
    Array.from(
      { length: count },
      (_, i) => replica.propose(kv.put(`k${i + 1}`, `${i + 1}`)),
    ),
  );
  return first;
}

Deno.test("U42 the history of a replica has its entries in order with their kinds, first those of the log, then each as it is committed", async () => {
  const { host, replica } = await started();
  await using _ = host;
  const session = await replica.openSession({
    owner: new TextEncoder().encode("ann"),
  });
  await replica.propose(kv.put("a", "1"), { session });
  await replica.propose(kv.put("b", "2"));
  await replica.closeSession(session);
  const history = await replica.history();
  const reader = await history.read(0);
  const entries = [];
  while (entries.length < replica.appliedIndex) {
    entries.push(...await reader.next());
  }
  assertEquals(entries.map(({ index, kind }) => [index, kind]), [
    [1, "epoch"],
    [2, "session opened"],
    [3, "command"],
    [4, "command"],
    [5, "session closed"],
  ]);
  assertEquals([entries[1]!.text, entries[2]!.session], ["ann", 2]);
  assertEquals(entries[2]!.cmd, kv.put("a", "1"));
  const later = reader.next();
  await replica.propose(kv.put("c", "3"));
  assertEquals((await later)[0]!.cmd, kv.put("c", "3"));
  reader.close();
});

Deno.test("U42 a reader of the history returns no more entries at once than it may, and none twice", async () => {
  const { host, replica } = await started();
  await using _ = host;
  const count = 2 * HISTORY_PART_ENTRIES_MAX;
  await fill(replica, count);
  const reader = await (await replica.history()).read(0);
  let last = 0;
  while (last < replica.appliedIndex) {
    const part = await reader.next();
    assert(part.length <= HISTORY_PART_ENTRIES_MAX);
    for (const { index } of part) assertEquals(index, ++last);
  }
  reader.close();
});

/** Host with a replica, and the indexes after which its log was read. */
async function startedOnReadLog(): Promise<
  { host: NodeHost; replica: Replica; reads: number[] }
> {
  const reads: number[] = [];
  class ReadLogDB extends BlockLogDB {
    override async open(
      ...options: Parameters<BlockLogDB["open"]>
    ): ReturnType<BlockLogDB["open"]> {
      const log = await super.open(...options);
      const { read } = log as Log;
      (log as { read: Log["read"] }).read = (after, options) => {
        reads.push(after);
        return read.call(log, after, options);
      };
      return log;
    }
  }
  const logDB = new ReadLogDB(new MemoryBlockStore());
  const host = new NodeHost({ logDB });
  const replica = await host.startCluster(() => new KVStateMachine(), {
    clusterID: 1n,
    nodeID: 1n,
  });
  reads.length = 0;
  return { host, replica: replica as Replica, reads };
}

/** Reads up to an entry, and checks that none is missing or returned twice. */
async function readUpTo(
  reader: EntryReader,
  first: number,
  last: number,
): Promise<void> {
  let next = first;
  while (next <= last) {
    const part = await reader.next();
    assert(part.length <= HISTORY_PART_ENTRIES_MAX);
    for (const { index } of part) assertEquals(index, next++);
  }
}

Deno.test("U42 a reader that follows a replica gets what the replica reads, and has the log read for earlier entries only", async () => {
  const { host, replica, reads } = await startedOnReadLog();
  await using _ = host;
  await fill(replica, HISTORY_PART_ENTRIES_MAX + 10);
  const history = await replica.history();
  const now = history.follow(replica.appliedIndex);
  const early = history.follow(1);
  await readUpTo(early, 2, replica.appliedIndex);
  assertEquals(reads, [1]);
  const first = await fill(replica, 2 * HISTORY_PART_ENTRIES_MAX) - 1;
  await readUpTo(early, first, replica.appliedIndex);
  await readUpTo(now, first, replica.appliedIndex);
  const waiting = early.next();
  await replica.propose(kv.put("last", "1"));
  assertEquals((await waiting).map(({ index }) => index), [
    replica.appliedIndex,
  ]);
  assertEquals(reads, [1]);
  const closed = early.next();
  early.close();
  now.close();
  assertMatch(`${await rejection(closed)}`, /AbortError/);
});

Deno.test("U42 a reader that follows a replica and takes nothing for long holds no more than it may, and reads the rest of the log again", async () => {
  const { host, replica, reads } = await startedOnReadLog();
  await using _ = host;
  const history = await replica.history();
  const after = replica.appliedIndex;
  const reader = history.follow(after);
  for (let i = 0; i < HISTORY_FOLLOWED_BATCHES_MAX + 5; i++) {
    await replica.propose(kv.put("a", `${i}`));
  }
  assertEquals(reads, []);
  await readUpTo(reader, after + 1, replica.appliedIndex);
  assertEquals(reads, [after]);
  await replica.propose(kv.put("more", "1"));
  await readUpTo(reader, replica.appliedIndex, replica.appliedIndex);
  assertEquals(reads, [after]);
  await host.stopCluster(1n);
  assertMatch(`${await rejection(reader.next())}`, /ErrClusterClosed/);
  reader.close();
});

Deno.test("U42 the history lists open sessions with their owners and progress", async () => {
  const { host, replica } = await started();
  await using _ = host;
  const session = await replica.openSession({
    owner: new TextEncoder().encode("ann"),
  });
  await replica.propose(kv.put("a", "1"), { session });
  const [one, ...others] = (await replica.history()).sessions();
  assertEquals(others, []);
  assertEquals([one!.id, one!.owner, one!.decided], [2, "ann", 1]);
});

Deno.test("U42 the state as of any entry is the one that the replica had, from the log and from a snapshot before it", async () => {
  const { host, replica } = await started({ hashEntries: 1 });
  await using _ = host;
  const first = await fill(replica, 100);
  await replica.requestSnapshot();
  const snapshot = replica.appliedIndex;
  await fill(replica, 150);
  const history = await replica.history();
  const { hash } = await replica.getHash();
  for (
    const [index, count, base] of [
      [0, 0, 0],
      [first, 1, 0],
      [first + 41, 42, 0],
      [snapshot, 100, snapshot],
      [replica.appliedIndex, 150, snapshot],
    ] as const
  ) {
    const state = await history.stateAt(index);
    assertEquals(await state.lookup(kv.count()), count);
    assertEquals([state.index, state.base], [index, base]);
    if (index === replica.appliedIndex) {
      assertEquals(await state.getHash(), hash);
    }
    await state.close();
  }
});

Deno.test("U42 an earlier state is refused with words if it is not applied yet, the log does not have it any more, or the machine is on disk", async () => {
  const { host, replica } = await started();
  await using _ = host;
  await fill(replica, 20);
  await replica.requestSnapshot();
  await fill(replica, 20);
  await replica.requestSnapshot();
  await fill(replica, 20);
  await replica.requestCompaction();
  const history = await replica.history();
  const { first } = replica.logInfo!;
  assert(first > 1);
  const lost = await rejection(history.stateAt(first - 2));
  assertInstanceOf(lost, ErrCompacted);
  assertEquals(lost.firstIndex, first);
  const later = await rejection(history.stateAt(1000));
  assertInstanceOf(later, RangeError);
  assertMatch(later.message, /Entry 1000 is not applied here; give an index/);
  const disk = await host.startOnDiskCluster(
    () => new OnDiskKVStateMachine(new MemoryBlockStore()),
    { clusterID: 2n, nodeID: 1n },
  );
  const refused = await rejection((await disk.history()).stateAt(0));
  assertInstanceOf(refused, ErrNotImplemented);
  assertMatch(refused.message, /replayMachine/);
});

Deno.test("U42 entries are replayed into the machine that the configuration gives for it", async () => {
  let made = 0;
  const { host, replica } = await started({
    replayMachine: () => {
      made++;
      return new KVStateMachine();
    },
  });
  await using _ = host;
  await fill(replica, 3);
  const state = await (await replica.history()).stateAt(replica.appliedIndex);
  assertEquals([made, await state.lookup(kv.count())], [1, 3]);
  await state.close();
});

Deno.test("U42 the computation of an earlier state reports its progress, leaves turns to others and ends when it is aborted", async () => {
  let time = 0;
  let turns = 0;
  const host = new NodeHost({
    env: {
      now: () => time += 5,
      random64: () => 7n,
      setTimer: (callback, delay) => {
        const id = setTimeout(callback, delay);
        return () => clearTimeout(id);
      },
      turn: () => {
        turns++;
        return Promise.resolve();
      },
    },
  });
  await using _ = host;
  const replica = await host.startCluster(() => new KVStateMachine(), {
    clusterID: 1n,
    nodeID: 1n,
  }) as Replica;
  await fill(replica, 1000);
  const history = await replica.history();
  const seen: number[] = [];
  turns = 0;
  const state = await history.stateAt(replica.appliedIndex, {
    progress: (index) => seen.push(index),
  });
  await state.close();
  assert(turns > 3, `${turns} turns`);
  assertEquals(seen, seen.toSorted((a, b) => a - b));
  const abort = new AbortController();
  const ended = await rejection(history.stateAt(replica.appliedIndex, {
    signal: abort.signal,
    progress: () => abort.abort(new Error("enough")),
  }));
  assertEquals((ended as Error).message, "enough");
});
