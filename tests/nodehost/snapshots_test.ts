import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStrictEquals,
} from "@std/assert";
import { toBytes } from "@std/streams";
import {
  ErrClusterClosed,
  ErrCompacted,
  ErrSnapshotAborted,
  ErrSnapshotFile,
  ErrSnapshotStopped,
  ErrUnknownOutcome,
  MemoryFileStore,
} from "../../mod.ts";
import { bytes, text } from "../support/bytes.ts";
import {
  checked,
  Gate,
  ManualEnv,
  peek,
  rejection,
  settle,
} from "../support/environment.ts";
import { Disk, type MachineFaults } from "../machines/journal.ts";
import { FaultyLogDB, FaultySnapshotStore } from "../support/faults.ts";
import {
  firstIndex,
  hostOf,
  KINDS,
  listOf,
  proposeAll,
  snapshotAfterEach,
  start,
  type Started,
  startOn,
  startThree,
  stopAll,
  typesOf,
} from "../support/clusters.ts";
import { newLogDB, test, testInMemory } from "../support/log_tests.ts";

// On etcd, where snapshot and compaction take round trips, later entries overtake them.
testInMemory(
  "H7 a snapshot is taken every snapshotEntries, two are kept, and the log is compacted up to the older minus the overhead",
  checked(async () => {
    for (const kind of ["regular", "concurrent"] as const) {
      for (const compactionOverhead of [0, 7]) {
        await using logDB = newLogDB();
        const { host, replica, events } = await start({
          logDB,
          kind,
          config: { snapshotEntries: 10, compactionOverhead },
        });
        for (let i = 0; i < 55; i++) {
          await proposeAll(replica, `${i}`);
          await settle();
        }
        const taken = events.filter(({ type }) => type === "snapshot");
        assertEquals(taken.length, 5);
        const kept = await logDB.snapshots.list(1n);
        assertEquals(kept.map(({ index }) => index), [50, 40]);
        assertEquals(await firstIndex(logDB), 41 - compactionOverhead);
        await host.stop();
      }
    }
  }),
);

test(
  "H7 by default snapshots are taken on request only, and a single one compacts nothing",
  checked(async () => {
    await using logDB = newLogDB();
    const { host, replica, events } = await start({ logDB });
    for (let i = 0; i < 30; i++) await proposeAll(replica, `${i}`);
    await settle();
    assertEquals(events, []);
    const info = await replica.requestSnapshot();
    assertEquals([info.index, info.kind, info.nodeID], [31, "full", 1n]);
    assertEquals(await firstIndex(logDB), 1);
    // A snapshot of the same index replaces the first.
    await replica.requestSnapshot();
    assertEquals(await firstIndex(logDB), 1);
    await proposeAll(replica, "x");
    await replica.requestSnapshot();
    assertEquals(await firstIndex(logDB), 32);
    await host.stop();
  }),
);

// A log on etcd is compacted by whole puts, so the exact index differs there.
testInMemory(
  "H7 a compaction never passes a retention or an open reader",
  checked(async () => {
    await using logDB = newLogDB();
    const { host, replica } = await start({ logDB });
    const log = await logDB.open(1n, 7n);
    await proposeAll(replica, "a", "b", "c");
    const reader = await log.read(2);
    const retention = log.retain(1);
    for (let i = 0; i < 3; i++) {
      await proposeAll(replica, `${i}`);
      await replica.requestSnapshot();
    }
    assertEquals(await firstIndex(logDB), 2);
    retention.release();
    await proposeAll(replica, "x");
    await replica.requestSnapshot();
    assertEquals(await firstIndex(logDB), 3);
    reader.close();
    await proposeAll(replica, "y");
    await replica.requestSnapshot();
    assert(await firstIndex(logDB) > 5);
    await log.close();
    await host.stop();
  }),
);

testInMemory(
  "H7 H8 the log is not compacted because of snapshots that cannot be read back",
  checked(async () => {
    for (const which of ["all", "newest", "older"]) {
      const env = new ManualEnv();
      await using snapshots = new FaultySnapshotStore();
      await using logDB = new FaultyLogDB({ env, snapshots });
      const { host, replica, events } = await start({ logDB, env, snapshots });
      await proposeAll(replica, "a");
      const older = await replica.requestSnapshot();
      await proposeAll(replica, "b");
      snapshots.damaged = ({ index }) =>
        which === "all" || (which === "older") === (index === older.index);
      await replica.requestSnapshot();
      if (which !== "older" || typesOf(events).includes("snapshot failed")) {
        assertEquals(await firstIndex(logDB), 1, which);
      }
      await host.stop();
      // A replica can start from what is left.
      const again = await start({ logDB, env, snapshots });
      assertEquals(await listOf(again.replica), ["a", "b"]);
      await again.host.stop();
    }
  }),
);

testInMemory(
  "H8 a damaged snapshot is replaced by an older one and more of the log, before the machine gets a byte",
  checked(async () => {
    for (const kind of ["regular", "concurrent"] as const) {
      const env = new ManualEnv();
      await using snapshots = new FaultySnapshotStore();
      await using logDB = new FaultyLogDB({ env, snapshots });
      const one = await start({ logDB, env, kind });
      await proposeAll(one.replica, "a", "b");
      await one.replica.requestSnapshot();
      await proposeAll(one.replica, "c");
      const newest = await one.replica.requestSnapshot();
      await proposeAll(one.replica, "d");
      snapshots.damaged = ({ id }) => id === newest.id;
      const two = await start({ logDB, env, kind, config: { nodeID: 2n } });
      assertEquals(typesOf(two.events), ["snapshot failed", "recovered"]);
      assertEquals(await listOf(two.replica), ["a", "b", "c", "d"]);
      assertEquals(two.machines.at(-1)!.list.length, 4);
      // The instance whose recovery failed was closed and not used again (R9).
      assertEquals(two.machines[0]!.calls.at(-1), "close");
      assertEquals(two.machines[0]!.list, []);
      await stopAll([one, two]);
    }
  }),
);

testInMemory(
  "H8 with all snapshots damaged and the log compacted, the start fails with an error that says so",
  checked(async () => {
    const env = new ManualEnv();
    await using snapshots = new FaultySnapshotStore();
    await using logDB = new FaultyLogDB({ env, snapshots });
    const one = await start({ logDB, env });
    await snapshotAfterEach(one.replica, "a", "b");
    await one.host.stop();
    snapshots.damaged = () => true;
    for (const kind of KINDS) {
      const host = hostOf({ logDB, env });
      const error = await rejection(
        startOn(host, { kind, config: { nodeID: 2n } }),
      ) as Error;
      assertInstanceOf(error, ErrCompacted);
      assertEquals((error.cause as Error).name, "ErrSnapshotCorrupted");
      // Its status is failed until it is stopped.
      await host.stopCluster(1n);
      assertInstanceOf(await rejection(host.stopCluster(1n)), Error);
      await host.stop();
    }
    snapshots.damaged = () => false;
    const again = await start({ logDB, env });
    assertEquals(await listOf(again.replica), ["a", "b"]);
    await again.host.stop();
  }),
);

test(
  "R3 R9 a new replica of every kind recovers from the newest snapshot and the log after it",
  checked(async () => {
    for (const from of KINDS) {
      for (const kind of ["regular", "concurrent", "hosted"] as const) {
        if (from === "disk") continue;
        await using logDB = newLogDB();
        const one = await start({
          logDB,
          kind: from,
          config: { fullSnapshotInterval: 1 },
        });
        await proposeAll(one.replica, "a", "b");
        await one.replica.requestSnapshot();
        await proposeAll(one.replica, "c");
        await one.replica.requestSnapshot();
        await proposeAll(one.replica, "d");
        const two = await start({ logDB, kind, config: { nodeID: 2n } });
        assertEquals(await listOf(two.replica), ["a", "b", "c", "d"]);
        assertEquals(
          await two.replica.getHash(),
          await one.replica.getHash(),
        );
        await stopAll([one, two]);
      }
    }
  }),
);

testInMemory(
  "H7 a replica behind the compacted log recovers while it runs, and its pending proposals are settled",
  checked(async () => {
    for (const kind of ["regular", "concurrent"] as const) {
      const env = new ManualEnv();
      await using logDB = new FaultyLogDB({ env });
      const one = await start({ logDB, env, kind });
      const two = await start({ logDB, env, kind, config: { nodeID: 2n } });
      const session = await two.replica.openSession();
      const closing = await two.replica.openSession();
      await two.replica.propose(bytes("a"), { session });
      logDB.faults.break(2n);
      const inSession = ["b", "c"].map((c) =>
        two.replica.propose(bytes(c), { session })
      );
      const single = rejection(two.replica.propose(bytes("d")));
      const opening = two.replica.openSession();
      const closed = two.replica.closeSession(closing);
      await settle();
      const read = two.replica.read(null);
      await snapshotAfterEach(one.replica, "e", "f");
      assert(await firstIndex(logDB) > two.replica.appliedIndex + 1);
      logDB.faults.mend(2n);
      const answers = await env.until(Promise.all(inSession));
      assertEquals(
        answers.map(({ value, data }) => `${value}${text(data)}`),
        ["2b", "3c"],
      );
      assertInstanceOf(await single, ErrUnknownOutcome);
      const opened = await env.until(opening);
      await env.until(closed);
      assertEquals(
        (await env.until(read) as string[]).slice(0, 4),
        ["a", "b", "c", "d"],
      );
      await two.replica.propose(bytes("g"), { session });
      await two.replica.propose(bytes("h"), { session: opened });
      assertEquals(
        await one.replica.read(null),
        ["a", "b", "c", "d", "e", "f", "g", "h"],
      );
      assertEquals(
        await listOf(two.replica),
        await listOf(one.replica),
      );
      assertEquals(
        typesOf(two.events).filter((type) => type !== "log failed"),
        ["recovered"],
      );
      await env.until(stopAll([one, two]));
    }
  }),
);

testInMemory(
  "H4 a session opened in entries that a replica missed is found in the snapshot, not opened twice",
  checked(async () => {
    const env = new ManualEnv();
    await using logDB = new FaultyLogDB({ env });
    const one = await start({ logDB, env, config: { sessionsMax: 2 } });
    const two = await start({ logDB, env, config: { nodeID: 2n } });
    const first = await one.replica.openSession();
    await one.replica.propose(bytes("a"), { session: first });
    logDB.faults.break(2n);
    const opening = two.replica.openSession();
    await settle();
    await snapshotAfterEach(one.replica, "b", "c");
    logDB.faults.mend(2n);
    const second = await env.until(opening);
    await env.advance(10_000);
    await one.replica.propose(bytes("d"), { session: first });
    await two.replica.propose(bytes("e"), { session: second });
    await env.until(stopAll([one, two]));
  }),
);

/** Starts a replica with its machine in memory, which falls behind while every snapshot is damaged. */
async function startDamaged(
  kind: "regular" | "concurrent",
  faults: MachineFaults = {},
): Promise<{
  env: ManualEnv;
  snapshots: FaultySnapshotStore;
  logDB: FaultyLogDB;
  one: Started;
  two: Started;
}> {
  const env = new ManualEnv();
  const snapshots = new FaultySnapshotStore();
  const logDB = new FaultyLogDB({ env, snapshots });
  // Big enough for the damage to be detected after the recovery has begun.
  const one = await start({
    logDB,
    env,
    kind,
    faults: { filling: 1 << 20 },
  });
  const two = await start({
    logDB,
    env,
    kind,
    faults,
    config: { nodeID: 2n },
  });
  await proposeAll(one.replica, "a");
  await two.replica.read(null);
  logDB.faults.break(2n);
  await snapshotAfterEach(one.replica, "b", "c");
  snapshots.damaged = () => true;
  logDB.faults.mend(2n);
  return { env, snapshots, logDB, one, two };
}

testInMemory(
  "H8 R9 a replica that no snapshot helps to catch up answers from its state and retries",
  checked(async () => {
    for (const kind of ["regular", "concurrent"] as const) {
      const { env, snapshots, logDB, one, two } = await startDamaged(kind);
      const read = two.replica.read(null);
      await env.advance(20_000);
      assert(typesOf(two.events).includes("snapshot failed"), kind);
      assertEquals(await listOf(two.replica), ["a"], kind);
      assertEquals((await two.replica.getHash()).index, 2, kind);
      assertEquals(await peek(read), "pending", kind);
      assertEquals(typesOf(two.events).includes("recovered"), false);
      // A store that cannot be listed does not end the retries.
      snapshots.before = (step) => {
        if (step === "list") throw new Error("list() failed (test)");
      };
      await env.advance(20_000);
      assertEquals(two.replica.error, undefined);
      snapshots.before = () => {};
      snapshots.damaged = () => false;
      await env.advance(20_000);
      assertEquals(await read, ["a", "b", "c"], kind);
      // Each machine that was tried is closed, and not called after that.
      assertEquals(
        two.machines.map(({ closed }) => closed).indexOf(false),
        two.machines.length - 1,
        kind,
      );
      await env.until(stopAll([one, two]));
      await logDB.close();
      await snapshots.close();
    }
  }),
);

test(
  "R9 a machine that fails to recover fails the start with its error; no older snapshot is tried",
  checked(async () => {
    await using logDB = newLogDB();
    const one = await start({ logDB });
    await snapshotAfterEach(one.replica, "a", "b");
    const cause = new Error("recoverFromSnapshot() failed (test)");
    for (const kind of ["regular", "concurrent", "hosted"] as const) {
      let tries = 0;
      const error = await rejection(start({
        logDB,
        kind,
        config: { nodeID: 2n },
        faults: {
          before: (method) => {
            if (method !== "recoverFromSnapshot") return;
            tries++;
            throw cause;
          },
        },
      }));
      assertStrictEquals(error, cause);
      assertEquals(tries, 1);
    }
    await one.host.stop();
  }),
);

test(
  "R7 R8 a snapshot that the machine aborts is dropped, its caller gets the error, and older ones stay",
  checked(async () => {
    for (const kind of ["regular", "concurrent"] as const) {
      await using logDB = newLogDB();
      let error: unknown;
      const { host, replica, events } = await start({
        logDB,
        kind,
        faults: {
          before: (method) => {
            if (method === "saveSnapshot" && error) throw error;
          },
        },
      });
      await proposeAll(replica, "a");
      const first = await replica.requestSnapshot();
      await proposeAll(replica, "b");
      for (
        const thrown of [new ErrSnapshotAborted(), new ErrSnapshotStopped()]
      ) {
        error = thrown;
        const told = await rejection(replica.requestSnapshot());
        assertInstanceOf(told, ErrSnapshotAborted);
        assertEquals(typesOf(events).at(-1), "snapshot failed");
      }
      error = undefined;
      assertEquals((await logDB.snapshots.list(1n)).map(({ id }) => id), [
        first.id,
      ]);
      await proposeAll(replica, "c");
      await replica.requestSnapshot();
      await host.stop();
    }
  }),
);

test(
  "R8 any other error of saveSnapshot() fails the replica",
  checked(async () => {
    for (const kind of KINDS) {
      const cause = new Error("saveSnapshot() failed (test)");
      const { host, replica, events } = await start({
        kind,
        config: { fullSnapshotInterval: 1 },
        faults: {
          before: (method) => {
            if (method === "saveSnapshot") throw cause;
          },
        },
      });
      await proposeAll(replica, "a");
      assertStrictEquals(await rejection(replica.requestSnapshot()), cause);
      const later = await rejection(replica.propose(bytes("b")));
      assertInstanceOf(later, ErrClusterClosed);
      assertStrictEquals(later.cause, cause);
      assertEquals(typesOf(events), ["failed"]);
      await host.stop();
    }
  }),
);

testInMemory(
  "R8 an error of the store at any step drops only the snapshot",
  checked(async () => {
    for (const kind of KINDS) {
      for (const step of ["create", "write", "commit", "list"]) {
        const env = new ManualEnv();
        await using snapshots = new FaultySnapshotStore();
        const { host, replica } = await start({
          env,
          kind,
          snapshots,
          config: { fullSnapshotInterval: 1 },
        });
        for (let i = 0; i < 3; i++) {
          await proposeAll(replica, `${i}`);
          await replica.requestSnapshot();
        }
        const cause = new Error("Quota");
        let left = 2;
        snapshots.before = (name) => {
          if (name === step && --left < 1) throw cause;
        };
        await proposeAll(replica, "a");
        if (step !== "write" || kind === "regular") left = 1;
        const told = await rejection(replica.requestSnapshot());
        assertStrictEquals(told, cause, `${kind} ${step}: ${told}`);
        snapshots.before = () => {};
        assertEquals(replica.error, undefined);
        await proposeAll(replica, "b");
        await replica.requestSnapshot();
        assertEquals(snapshots.inner.list(1n).length, 2);
        await host.stop();
      }
    }
  }),
);

testInMemory(
  "C4 C5 a snapshot contains the state of its index, and every context is saved once, whether or not the snapshot succeeds",
  checked(async () => {
    for (const kind of ["concurrent", "disk", "hosted"] as const) {
      const env = new ManualEnv();
      await using snapshots = new FaultySnapshotStore();
      await using logDB = new FaultyLogDB({ env, snapshots });
      const { host, replica, machines } = await start({
        env,
        kind,
        logDB,
        config: { fullSnapshotInterval: 1 },
      });
      await proposeAll(replica, "a");
      let release!: () => void;
      snapshots.before = (step) =>
        step === "create"
          ? new Promise<void>((resolve) => release = resolve)
          : undefined;
      const taken = replica.requestSnapshot();
      await settle();
      // Updates go on while it is created.
      await proposeAll(replica, "later");
      release();
      const info = await taken;
      assertEquals(info.index, 2);
      snapshots.before = () => {};
      // No other kind can read the snapshot of a machine that stores its index itself.
      if (kind !== "disk") {
        const late = await start({ logDB, env, config: { nodeID: 2n } });
        assertEquals(await listOf(late.replica), ["a", "later"]);
        await late.host.stop();
      }
      for (const step of ["create", "write", "commit"]) {
        snapshots.before = (name) => {
          if (name === step) throw new Error("No");
        };
        await rejection(replica.requestSnapshot());
      }
      const reason = new Error("Enough");
      snapshots.before = (step) =>
        step === "create"
          ? new Promise<void>((resolve) => release = resolve)
          : undefined;
      const controller = new AbortController();
      const given = rejection(
        replica.requestSnapshot({ signal: controller.signal }),
      );
      await settle();
      controller.abort(reason);
      assertStrictEquals(await given, reason);
      release();
      await settle();
      snapshots.before = () => {};
      const { contexts } = machines[0] as unknown as { contexts: Set<unknown> };
      assertEquals(contexts.size, 0);
      await replica.requestSnapshot();
      await host.stop();
    }
  }),
);

test(
  "F1 F3 a recovery gets the files of a snapshot with their metadata, and removes them afterwards",
  checked(async () => {
    for (const kind of ["regular", "concurrent"] as const) {
      await using logDB = newLogDB();
      await using files = new MemoryFileStore();
      const writer = (await files.create("blob")).getWriter();
      await writer.write(bytes("content"));
      await writer.close();
      const one = await start({
        logDB,
        files,
        kind,
        faults: {
          addFiles: (files) =>
            files.addFile(2n ** 64n - 1n, "blob", bytes("m")),
        },
      });
      await proposeAll(one.replica, "a");
      const info = await one.replica.requestSnapshot();
      assertEquals(info.files, 1);
      const two = await start({ logDB, files, kind, config: { nodeID: 2n } });
      assertEquals(two.machines[0]!.files, [
        { fileID: 2n ** 64n - 1n, metadata: "m" },
      ]);
      assertEquals(await files.list("sampan-host/recovery/1-2"), []);
      await stopAll([one, two]);
    }
  }),
);

test(
  "F2 a missing or repeated file fails only the snapshot, with an error that names the file",
  checked(async () => {
    for (const kind of ["regular", "concurrent"] as const) {
      await using files = new MemoryFileStore();
      const writer = (await files.create("dir/blob")).getWriter();
      await writer.close();
      for (
        const add of [
          ["missing"],
          ["dir"],
          ["dir/blob", "dir/blob"],
        ]
      ) {
        await using logDB = newLogDB();
        let wrong = false;
        const { host, replica } = await start({
          logDB,
          files,
          kind,
          faults: {
            addFiles: (files) => {
              for (const path of wrong ? add : []) {
                files.addFile(7n, path, new Uint8Array());
              }
            },
          },
        });
        await proposeAll(replica, "a");
        const first = await replica.requestSnapshot();
        await proposeAll(replica, "b");
        wrong = true;
        const error = await assertRejects(
          () => replica.requestSnapshot(),
          ErrSnapshotFile,
        );
        assertEquals([error.fileID, error.path], [7n, add.at(-1)!]);
        await proposeAll(replica, "c");
        assertEquals((await logDB.snapshots.list(1n)).map(({ id }) => id), [
          first.id,
        ]);
        await host.stop();
      }
    }
  }),
);

test(
  "H7 a host with its own store shares a full snapshot before the log is compacted",
  checked(async () => {
    await using logDB = newLogDB();
    await using snapshots = new FaultySnapshotStore();
    const one = await start({ logDB, snapshots });
    await snapshotAfterEach(one.replica, "a", "b", "c");
    assertEquals((await logDB.snapshots.list(1n)).length, 2);
    assert(await firstIndex(logDB) > 1);
    // A new replica that can read only the log's shared store.
    const two = await start({
      logDB,
      snapshots: new FaultySnapshotStore(),
      config: { nodeID: 2n },
    });
    assertEquals(await listOf(two.replica), ["a", "b", "c"]);
    await stopAll([one, two]);
  }),
);

testInMemory(
  "H7 H8 a shared snapshot is read back from the shared store, whether or not the host's own copy is good",
  checked(async () => {
    const env = new ManualEnv();
    await using shared = new FaultySnapshotStore();
    await using snapshots = new FaultySnapshotStore();
    await using logDB = new FaultyLogDB({ env, snapshots: shared });
    const { host, replica } = await start({ logDB, env, snapshots });
    shared.damaged = () => true;
    await snapshotAfterEach(replica, "a", "b", "c");
    assertEquals(await firstIndex(logDB), 1);
    await host.stop();
  }),
);

testInMemory(
  "H7 H12 a replica that cannot read another one's snapshot of the same index does not remove it: the log may be compacted because of it",
  checked(async () => {
    const env = new ManualEnv();
    await using snapshots = new FaultySnapshotStore();
    await using logDB = new FaultyLogDB({ env, snapshots });
    const one = await start({ logDB, env });
    const two = await start({ logDB, env, config: { nodeID: 2n } });
    await snapshotAfterEach(one.replica, "a", "b");
    await two.replica.read(null);
    snapshots.damaged = () => true;
    const { nodeID } = await two.replica.requestSnapshot();
    assertEquals(nodeID, 1n);
    assertEquals(snapshots.inner.list(1n).length, 2);
    await stopAll([one, two]);
  }),
);

testInMemory(
  "H7 H8 good snapshots are not removed for one that cannot be read back",
  checked(async () => {
    const env = new ManualEnv();
    await using snapshots = new FaultySnapshotStore();
    await using logDB = new FaultyLogDB({ env, snapshots });
    const { host, replica } = await start({ logDB, env });
    const good: number[] = [];
    for (const c of ["a", "b"]) {
      await proposeAll(replica, c);
      good.unshift((await replica.requestSnapshot()).index);
    }
    snapshots.damaged = ({ index }) => !good.includes(index);
    await snapshotAfterEach(replica, "c", "d", "e");
    // The newest one may have been read by another replica.
    const [newest, ...others] = snapshots.inner.list(1n);
    assertEquals(newest!.index, replica.appliedIndex);
    assertEquals(others.map(({ index }) => index), good);
    // Another replica fails to read them once; the log was compacted because of them.
    await host.stop();
    const two = await start({ logDB, env, config: { nodeID: 2n } });
    snapshots.damaged = () => true;
    await proposeAll(two.replica, "f");
    await two.replica.requestSnapshot();
    snapshots.damaged = () => false;
    await two.host.stop();
    const three = await start({ logDB, env, config: { nodeID: 3n } });
    assertEquals(await listOf(three.replica), [..."abcdef"]);
    await three.host.stop();
  }),
);

testInMemory(
  "H7 H12 a replica that cannot read back its own snapshot once does not remove it: another one may have compacted the log because of it",
  checked(async () => {
    const env = new ManualEnv();
    await using snapshots = new FaultySnapshotStore();
    await using logDB = new FaultyLogDB({ env, snapshots });
    const one = await start({ logDB, env });
    await snapshotAfterEach(one.replica, "a");
    snapshots.damaged = () => true;
    await snapshotAfterEach(one.replica, "b");
    assertEquals(snapshots.inner.list(1n).length, 2);
    snapshots.damaged = () => false;
    const two = await start({ logDB, env, config: { nodeID: 2n } });
    assert(await two.replica.requestCompaction() > 0);
    await snapshotAfterEach(one.replica, "c");
    assertEquals(snapshots.inner.list(1n).length, 2);
    await stopAll([one, two]);
  }),
);

test(
  "R2 lookups of a regular machine wait no longer for a snapshot than an update does",
  checked(async () => {
    const three = await startThree(newLogDB(), {
      config: { snapshotEntries: 5 },
    });
    await Promise.all(
      Array.from(
        { length: 300 },
        (_, i) => three[i % 3]!.replica.propose(bytes(`${i}`)),
      ),
    );
    const lists = [];
    for (const { replica } of three) lists.push(await replica.read("count"));
    assertEquals(lists, [300, 300, 300]);
    await stopAll(three);
  }),
);

test(
  "D10 the periodic snapshots of an on-disk machine are metadata, every fullSnapshotInterval-th is full",
  checked(async () => {
    for (const kind of ["disk", "hosted"] as const) {
      await using logDB = newLogDB();
      const { host, replica, machines } = await start({
        logDB,
        kind,
        disk: new Disk(),
        faults: { filling: 1 << 20 },
        config: { fullSnapshotInterval: 3 },
      });
      const kinds: string[] = [];
      for (let i = 0; i < 9; i++) {
        await proposeAll(replica, `${i}`);
        const info = await replica.requestSnapshot();
        kinds.push(info.kind);
        if (info.kind === "metadata") assert(info.size < 4096, `${info.size}`);
      }
      assertEquals(kinds.join(" "), "metadata metadata full ".repeat(3).trim());
      assertEquals(
        machines[0]!.calls.filter((c) => c === "saveSnapshot").length,
        3,
      );
      assertEquals(
        (await logDB.snapshots.list(1n)).map(({ kind, index }) =>
          `${kind} ${index}`
        ),
        ["full 10", "metadata 9", "metadata 8", "full 7"],
      );
      assertEquals(await firstIndex(logDB), 8);
      await host.stop();
    }
  }),
);

test(
  "D10 with fullSnapshotInterval 0 the log is never compacted",
  checked(async () => {
    await using logDB = newLogDB();
    const { host, replica } = await start({
      logDB,
      kind: "hosted",
      config: { fullSnapshotInterval: 0, snapshotEntries: 2 },
    });
    for (let i = 0; i < 40; i++) await proposeAll(replica, `${i}`);
    await settle();
    assertEquals(await firstIndex(logDB), 1);
    assert(
      (await logDB.snapshots.list(1n)).every(({ kind }) => kind === "metadata"),
    );
    await host.stop();
  }),
);

testInMemory(
  "R9 H8 an instance whose recovery failed is not queried, hashed or saved; waiting calls go to its successor",
  checked(async () => {
    for (const kind of ["regular", "concurrent"] as const) {
      const gate = new Gate();
      const { env, snapshots, logDB, one, two } = await startDamaged(kind, {
        before: (method) =>
          method === "recoverFromSnapshot" ? gate.opened : undefined,
      });
      const isRecovering = (): boolean =>
        two.machines.some(({ calls }) =>
          calls.at(-1) === "recoverFromSnapshot"
        );
      for (let i = 0; !isRecovering(); i++) {
        assert(i < 100, "It does not recover");
        await env.advance(1_000);
      }
      const machine = two.machines.find(({ calls }) =>
        calls.at(-1) === "recoverFromSnapshot"
      )!;
      const calls = machine.calls.length;
      assertEquals(await listOf(two.replica), ["a"]);
      assertEquals((await two.replica.getHash()).index, 2);
      assertEquals((await two.replica.requestSnapshot()).index, 2);
      gate.open();
      await settle(20);
      assertEquals(machine.calls.slice(calls), ["close"]);
      assertEquals(await listOf(two.replica), ["a"]);
      snapshots.damaged = () => false;
      await env.advance(20_000);
      assertEquals(await two.replica.read(null), ["a", "b", "c"]);
      await env.until(stopAll([one, two]));
      await logDB.close();
      await snapshots.close();
    }
  }),
);

testInMemory(
  "H7 a snapshot is reported also if superseded ones cannot be removed",
  checked(async () => {
    for (const kind of ["regular", "concurrent", "hosted"] as const) {
      for (const failing of ["list", "open", "remove", "compact"]) {
        await using snapshots = new FaultySnapshotStore();
        await using logDB = new FaultyLogDB({ snapshots });
        const cause = new Error(`Failed to ${failing}`);
        let isBroken = false;
        const fail = (step: string): void => {
          if (isBroken && step === failing) throw cause;
        };
        snapshots.before = (step) => {
          // The store is also listed once before the snapshot is created.
          if (step === "commit") isBroken = events.length > 2;
          fail(step);
        };
        const open = logDB.open.bind(logDB);
        logDB.open = async (...ids) => {
          const log = await open(...ids);
          const compact = log.compact!.bind(log);
          log.compact = (upTo) => {
            fail("compact");
            return compact(upTo);
          };
          return log;
        };
        const { host, replica, events } = await start({
          logDB,
          snapshots,
          kind,
          config: { fullSnapshotInterval: 1 },
        });
        for (const key of ["a", "b", "c"]) {
          await proposeAll(replica, key);
          const info = await replica.requestSnapshot();
          assertEquals(snapshots.inner.list(1n)[0], info);
        }
        const told = events.filter(({ type }) => type === "snapshot failed");
        assertEquals(told.map((event) => "error" in event && event.error), [
          cause,
        ]);
        // The next snapshot removes the rest.
        isBroken = false;
        events.length = 0;
        await proposeAll(replica, "d");
        await replica.requestSnapshot();
        assertEquals(typesOf(events), ["snapshot", "compacted"]);
        assertEquals(snapshots.inner.list(1n).length, 2);
        await host.stop();
      }
    }
  }),
);

testInMemory(
  "H8 a start lists snapshots again if those it found fail or are gone, and newer ones exist",
  checked(async () => {
    for (const kind of ["regular", "concurrent", "hosted"] as const) {
      await using snapshots = new FaultySnapshotStore();
      await using logDB = new FaultyLogDB({ snapshots });
      const one = await start({ logDB });
      let count = 0;
      const grow = async (): Promise<void> => {
        for (let i = 0; i < 3; i++) {
          await proposeAll(one.replica, `${count++}`);
          await one.replica.requestSnapshot();
        }
      };
      await grow();
      let isFirst = true;
      snapshots.before = async (step) => {
        if (step !== "open" || !isFirst) return;
        isFirst = false;
        await grow();
        throw new Error("Connection was lost (test)");
      };
      const two = await start({ logDB, kind, config: { nodeID: 2n } });
      assertEquals((await listOf(two.replica)).length, 6);
      assertEquals(typesOf(two.events), ["snapshot failed", "recovered"]);
      await stopAll([one, two]);
    }
  }),
);

test(
  "H9 H12 replicas can snapshot and export the same index concurrently, and the first snapshot stays",
  checked(async () => {
    for (const kind of ["regular", "concurrent", "hosted"] as const) {
      await using logDB = newLogDB();
      const config = { fullSnapshotInterval: 1 };
      const three = await startThree(logDB, { kind, config });
      const replicas = three.map(({ replica }) => replica);
      for (let i = 0; i < 4; i++) {
        await proposeAll(replicas[0]!, `${i}`);
        for (const replica of replicas) await replica.read(null);
        const infos = await Promise.all(
          replicas.map((replica) => replica.requestSnapshot()),
        );
        for (const { index } of infos) {
          assertEquals(index, replicas[0]!.appliedIndex);
        }
        const [first] = await logDB.snapshots.list(1n);
        for (const replica of replicas) await replica.requestSnapshot();
        assertEquals(
          (await logDB.snapshots.list(1n))[0]?.nodeID,
          first!.nodeID,
        );
        await Promise.all(
          replicas.map((replica) => toBytes(replica.exportSnapshot())),
        );
      }
      for (const { events } of three) {
        assert(!typesOf(events).includes("snapshot failed"));
      }
      await stopAll(three);
    }
  }),
);
