import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertMatch,
  assertRejects,
} from "@std/assert";
import {
  ErrSkippedApplied,
  ErrSkipRefused,
  ErrUpdateFailed,
  type HostEvent,
  MemoryLogDB,
  MemorySnapshotStore,
  type NodeHost,
  type Replica,
} from "../../mod.ts";
import type { SnapshotStore } from "../../src/ports/mod.ts";
import { bytes } from "../support/bytes.ts";
import {
  checked,
  ManualEnv,
  rejection,
  settle,
} from "../support/environment.ts";
import {
  Disk,
  type Journal,
  type MachineFaults,
  RegularJournal,
} from "../machines/journal.ts";
import {
  firstIndex,
  hostOf,
  KINDS,
  listOf,
  proposeAll,
  snapshotAfterEach,
  startOn,
  typesOf,
} from "../support/clusters.ts";
import { newLogDB, test, testInMemory, until } from "../support/log_tests.ts";

/** Faults of a machine that throws at every command that begins with `poison`. */
const BROKEN: MachineFaults = {
  apply(command): void {
    if (command.startsWith("poison")) throw new TypeError(`No ${command}`);
  },
};

/** Returns the index of the entry at which the cluster of a host has failed. */
function failedAt(host: NodeHost): number {
  const { error } = host.clusterStatus(1n)!;
  assertInstanceOf(error, ErrUpdateFailed);
  return error.index;
}

async function untilApplied(replica: Replica, index: number): Promise<void> {
  await until(`index ${index}`, () => replica.appliedIndex >= index);
}

async function untilFailed(replica: Replica): Promise<void> {
  await until("a failure", () => replica.failure !== undefined);
}

for (const kind of KINDS) {
  test(
    `case A10: a ${kind} machine that throws starts again once its entry is skipped, and the proposer gets the reason [H17]`,
    checked(async () => {
      await using logDB = newLogDB();
      const disk = new Disk();
      const host = hostOf({ logDB });
      const replica = await startOn(host, { kind, disk, faults: BROKEN });
      await proposeAll(replica, "a");
      const session = await replica.openSession();
      await replica.propose(bytes("b"), { session });
      assertInstanceOf(
        await rejection(replica.propose(bytes("poison"), { session })),
        TypeError,
      );
      const index = failedAt(host);
      const skip = await host.skipEntry(1n, index, "decoder of 1.2 was wrong");
      assertEquals(skip.index, index);
      assert(skip.decidedAt > index);
      assertEquals(
        await host.skipEntry(1n, index, "once more"),
        skip,
      );
      const again = await host.restartCluster(1n);
      assertEquals(await listOf(again), ["a", "b"]);
      assertEquals(again.skips, [skip]);
      await again.propose(bytes("c"));
      // Its session continues after the refused series.
      await again.propose(bytes("d"), { session });
      assertEquals(await listOf(again), ["a", "b", "c", "d"]);
      // A replica started later never applied it.
      const other = hostOf({ logDB });
      const late = await startOn(other, { config: { nodeID: 2n } });
      assertEquals(await late.getHash(), await again.getHash());
      assertEquals(late.skips, [skip]);
      await host.stop();
      await other.stop();
    }),
  );
}

test(
  "case A10: several entries are skipped in turn, also one that a running replica has applied [H17]",
  checked(async () => {
    await using logDB = newLogDB();
    const poisoned = hostOf({ logDB });
    const replica = await startOn(poisoned, { faults: BROKEN });
    await proposeAll(replica, "a");
    // Two that fail together: the machine never gets the second.
    await Promise.all([
      rejection(replica.propose(bytes("poison 1"))),
      rejection(replica.propose(bytes("poison 2"))),
    ]);
    const index = failedAt(poisoned);
    await poisoned.skipEntry(1n, index, "first");
    assertInstanceOf(
      await rejection(poisoned.restartCluster(1n)),
      ErrUpdateFailed,
    );
    assertEquals(failedAt(poisoned), index + 1);
    await poisoned.skipEntry(1n, index + 1, "second");
    await poisoned.restartCluster(1n);
    // A running replica with other code had applied them.
    const session = await poisoned.replica(1n)!.openSession();
    const two = hostOf({ logDB });
    const other = await startOn(two, { config: { nodeID: 2n } });
    await other.propose(bytes("poison 3"), { session });
    await untilFailed(poisoned.replica(1n)!);
    await poisoned.skipEntry(1n, failedAt(poisoned), "third");
    const up = await poisoned.restartCluster(1n);
    await untilApplied(other, up.appliedIndex);
    assertEquals(await listOf(up), ["a"]);
    assertEquals(await listOf(other), ["a"]);
    assertEquals(await other.getHash(), await up.getHash());
    await other.propose(bytes("b"), { session });
    assertEquals(await listOf(other), ["a", "b"]);
    await poisoned.stop();
    await two.stop();
  }),
);

for (const kind of KINDS) {
  for (const snapshot of [false, true]) {
    const from = snapshot ? "a snapshot of before it" : "the beginning";
    test(
      `case A10: a ${kind} machine that had applied the entry recovers without it from ${from} [H17]`,
      checked(async () => {
        await using logDB = newLogDB();
        const store = new MemorySnapshotStore();
        const broken = hostOf({ logDB });
        const fine = hostOf({ logDB, snapshots: store });
        const one = await startOn(broken, { kind, faults: BROKEN });
        const events: HostEvent[] = [];
        const machines: Journal[] = [];
        const two = await startOn(fine, {
          kind,
          config: { nodeID: 2n, fullSnapshotInterval: 1 },
        }, machines);
        await proposeAll(two, "a", "b");
        if (snapshot) await two.requestSnapshot();
        await two.propose(bytes("poison"));
        await proposeAll(two, "c");
        assertEquals(await listOf(two), ["a", "b", "poison", "c"]);
        await untilFailed(one);
        const skip = await broken.skipEntry(1n, failedAt(broken), "no poison");
        const up = await broken.restartCluster(1n);
        const plain = kind === "disk" || kind === "hosted";
        if (plain && !snapshot) {
          // It cannot be emptied here.
          await untilFailed(two);
          assertInstanceOf(two.failure, ErrSkippedApplied);
          assertMatch(two.failure.message, /remove the data of the cluster/);
        } else {
          await untilApplied(two, skip.decidedAt);
          await proposeAll(two, "d");
          assertEquals(await listOf(two), ["a", "b", "c", "d"]);
          await untilApplied(up, two.appliedIndex);
          assertEquals(await two.getHash(), await up.getHash());
          assertEquals(two.failure, undefined);
          assertEquals(typesOf(events).includes("diverged"), false);
          assertEquals(two.skips, [skip]);
        }
        await broken.stop();
        await fine.stop();
      }),
    );
  }
}

test(
  "case A10: replicas that applied a skipped entry and those that did not are not reported as diverged [H12, H17]",
  checked(async () => {
    await using logDB = newLogDB();
    const events: HostEvent[] = [];
    const config = { hashEntries: 1 };
    const broken = hostOf({ logDB }, events);
    const fine = hostOf({ logDB }, events);
    const one = await startOn(broken, { faults: BROKEN, config });
    const two = await startOn(fine, { config: { ...config, nodeID: 2n } });
    await proposeAll(two, "a", "poison", "b", "c");
    await untilFailed(one);
    const skip = await broken.skipEntry(1n, failedAt(broken), "no poison");
    const up = await broken.restartCluster(1n);
    await untilApplied(two, skip.decidedAt);
    await proposeAll(two, "d");
    await untilApplied(up, two.appliedIndex);
    await settle(20);
    assertEquals(typesOf(events), ["failed", "entry skipped", "entry skipped"]);
    assertEquals(await two.getHash(), await up.getHash());
    await broken.stop();
    await fine.stop();
  }),
);

test(
  "case A10: the log is not compacted past a skipped entry before two snapshots have states without it [H7, H17]",
  checked(async () => {
    await using logDB = newLogDB();
    const snapshots = new MemorySnapshotStore();
    const broken = hostOf({ logDB });
    const fine = hostOf({ logDB, snapshots });
    const events: HostEvent[] = [];
    const one = await startOn(broken, { faults: BROKEN });
    const two = await startOn(fine, { config: { nodeID: 2n } });
    await proposeAll(two, "a");
    await two.requestSnapshot();
    await proposeAll(two, "poison", "b");
    await untilFailed(one);
    const index = failedAt(broken);
    // Snapshots of states with the entry.
    for (const command of ["c", "d"]) {
      await two.requestSnapshot({ compactionOverhead: 100 });
      await proposeAll(two, command);
    }
    await broken.stop();
    // All snapshots contain the entry, but the log begins at 1.
    await fine.skipEntry(1n, index, "no poison");
    await untilApplied(two, two.appliedIndex + 1);
    await settle(20);
    assertEquals((await snapshots.list(1n)).length, 0);
    await two.requestSnapshot();
    assert(await firstIndex(logDB) <= index);
    await proposeAll(two, "e");
    await two.requestSnapshot();
    assert(await firstIndex(logDB) > index);
    assertEquals(await listOf(two), ["a", "b", "c", "d", "e"]);
    // Snapshots contain the skip decisions.
    await fine.stop();
    const again = hostOf({ logDB, snapshots }, events);
    const three = await startOn(again, {
      faults: BROKEN,
      config: { nodeID: 3n },
    });
    assertEquals(await listOf(three), ["a", "b", "c", "d", "e"]);
    assertEquals(three.skips.map(({ reason }) => reason), ["no poison"]);
    await again.stop();
  }),
);

/** Calls made once when a snapshot is opened, before and after that. */
interface OpenHooks {
  before?: (() => Promise<unknown>) | undefined;
  after?: (() => Promise<void>) | undefined;
}

function storeWith(hooks: OpenHooks): SnapshotStore {
  const store: SnapshotStore = new MemorySnapshotStore();
  const open = store.open.bind(store);
  store.open = async (info): Promise<ReadableStream<Uint8Array>> => {
    const { before, after } = hooks;
    hooks.before = hooks.after = undefined;
    await before?.();
    const stream = await open(info);
    await after?.();
    return stream;
  };
  return store;
}

async function removeAll(store: SnapshotStore): Promise<void> {
  for (const info of await store.list(1n)) await store.remove(info);
}

/** Skips an entry that one server has applied, while that server's snapshots are replaced. */
async function skipWhileReplaced(
  when: "as it is skipped" | "as newer ones are verified",
): Promise<void> {
  await using logDB = newLogDB();
  const hooks: OpenHooks = {};
  const snapshots = storeWith(hooks);
  const broken = hostOf({ logDB, snapshots });
  const fine = hostOf({ logDB, snapshots });
  const one = await startOn(broken, { faults: BROKEN });
  const two = await startOn(fine, { config: { nodeID: 2n } });
  for (const command of ["a", "b"]) {
    await proposeAll(two, command);
    await two.requestSnapshot();
  }
  await proposeAll(two, "poison", "c");
  for (let i = 0; one.failure === undefined; i++) await settle();
  const index = failedAt(broken);
  const skip = (): Promise<unknown> => broken.skipEntry(1n, index, "no poison");
  const expected = ["a", "b", "c"];
  if (when === "as it is skipped") {
    hooks.after = (): Promise<void> => removeAll(snapshots);
    await skip();
  } else {
    await two.requestSnapshot();
    await proposeAll(two, "d");
    expected.push("d");
    hooks.before = skip;
    await two.requestSnapshot();
  }
  assertEquals(hooks, { before: undefined, after: undefined });
  assert(await firstIndex(logDB) > 1);
  const up = await broken.restartCluster(1n);
  await untilApplied(two, up.appliedIndex);
  await settle(20);
  assertEquals(await listOf(up), expected);
  assertEquals(await listOf(two), expected);
  await broken.stop();
  await fine.stop();
}

test(
  "case A10: a snapshot that another server removes while an entry is skipped is put back [H7, H17]",
  checked(() => skipWhileReplaced("as it is skipped")),
);

test(
  "case A10: a snapshot is not removed when an entry that newer ones contain is skipped while they are verified [H7, H17]",
  checked(() => skipWhileReplaced("as newer ones are verified")),
);

test(
  "case A10: skipEntry() refuses an entry that cannot be skipped, with the reason [H11, H17]",
  checked(async () => {
    await using logDB = newLogDB();
    const host = hostOf({ logDB });
    const replica = await startOn(host, {});
    const session = await replica.openSession();
    await replica.propose(bytes("a"), { session });
    const refusal = async (index: number): Promise<string> => {
      const error = await rejection(host.skipEntry(1n, index, "because"));
      assertInstanceOf(error, ErrSkipRefused);
      assertEquals([error.clusterID, error.index], [1n, index]);
      return error.why;
    };
    assertEquals(await refusal(1), "not a command");
    assertEquals(await refusal(2), "not a command");
    assertEquals(await refusal(4), "not found");
    await assertRejects(() => host.skipEntry(1n, 0, "because"), RangeError);
    await assertRejects(() => host.skipEntry(1n, 3, ""), TypeError, "Reason");
    await snapshotAfterEach(replica, "b", "c");
    assertEquals(await refusal(3), "compacted");
    const last = replica.appliedIndex;
    for (const info of await logDB.snapshots.list(1n)) {
      await logDB.snapshots.remove(info);
    }
    const empty = hostOf({ logDB, snapshots: new MemorySnapshotStore() });
    await assertRejects(
      () => empty.skipEntry(1n, last, "because"),
      ErrSkipRefused,
      "no full snapshot",
    );
    await empty.stop();
    await host.stop();
  }),
);

test(
  "case A10: a session continues after its skipped series, also after a snapshot [H14, H17]",
  checked(async () => {
    await using logDB = newLogDB();
    const snapshots = new MemorySnapshotStore();
    const host = hostOf({ logDB, snapshots });
    const replica = await startOn(host, { faults: BROKEN });
    const session = await replica.openSession();
    const failed = replica.propose(bytes("poison"), { session });
    await rejection(failed);
    await host.skipEntry(1n, failedAt(host), "no poison");
    const up = await host.restartCluster(1n);
    await up.requestSnapshot();
    await host.stopCluster(1n);
    const again = await startOn(host, { faults: BROKEN });
    assertEquals(again.sessionInfo(session.id)!.next, 2);
    await again.propose(bytes("b"), { session });
    assertEquals(await listOf(again), ["b"]);
    assertEquals(again.skips.length, 1);
    await host.stop();
  }),
);

for (const kind of ["concurrent", "disk", "hosted"] as const) {
  for (const replays of [false, true]) {
    const said = kind === "concurrent" || replays ? "entry" : "batch";
    testInMemory(
      `R5 a ${kind} machine ${
        replays ? "with" : "without"
      } a replayMachine that throws in a batch fails with the ${said} named`,
      checked(async () => {
        const env = new ManualEnv();
        await using logDB = new MemoryLogDB({ env });
        const fine = hostOf({ logDB, env });
        const one = await startOn(fine, { kind });
        await proposeAll(one, "a", "b");
        await one.requestSnapshot();
        await proposeAll(one, "c", "poison", "d", "e");
        await fine.stop();
        const config = {
          nodeID: 2n,
          ...(replays
            ? { replayMachine: () => new RegularJournal(BROKEN, 1n, 2n) }
            : {}),
        };
        const broken = hostOf({ logDB, env });
        const error = await rejection(
          startOn(broken, { kind, faults: BROKEN, config }),
        );
        assertInstanceOf(error, ErrUpdateFailed);
        if (said === "entry") {
          assertEquals([error.index, error.upTo], [5, 5]);
          assertMatch(error.message, /threw at entry 5 of/);
        } else {
          assert(error.index < 5 && error.upTo > 5);
          assertMatch(error.message, /in a batch of entries \d+ to \d+ of/);
        }
        await broken.stop();
        assertEquals(env.timers, 0);
      }),
    );
  }
}

testInMemory(
  "case A10: the failing entry of a batch is named, also if the batch contains another one and its skip decision [R5, H17]",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new MemoryLogDB({ env });
    const fine = hostOf({ logDB, env });
    const one = await startOn(fine, { kind: "concurrent" });
    await proposeAll(one, "a", "poison 1", "b");
    const first = one.appliedIndex - 1;
    const skip = await fine.skipEntry(1n, first, "no poison");
    await untilApplied(one, skip.decidedAt);
    await proposeAll(one, "c", "poison 2", "d");
    const second = one.appliedIndex - 1;
    await fine.stop();
    const broken = hostOf({ logDB, env });
    const config = { nodeID: 2n };
    const error = await rejection(
      startOn(broken, { kind: "concurrent", faults: BROKEN, config }),
    );
    assertInstanceOf(error, ErrUpdateFailed);
    assertEquals([error.index, error.upTo], [second, second]);
    await broken.skipEntry(1n, second, "no poison");
    const up = await broken.restartCluster(1n);
    assertEquals(await listOf(up), ["a", "b", "c", "d"]);
    await broken.stop();
    assertEquals(env.timers, 0);
  }),
);
