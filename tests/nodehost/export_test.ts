import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStrictEquals,
} from "@std/assert";
import { toBytes } from "@std/streams";
import {
  ErrClusterAlreadyExist,
  ErrClusterClosed,
  ErrInvalidSession,
  ErrSnapshotCorrupted,
  ErrSnapshotMismatch,
  ErrSnapshotNotFound,
  MemorySnapshotStore,
  NodeHost,
} from "../../mod.ts";
import { bytes, text } from "../support/bytes.ts";
import {
  checked,
  ManualEnv,
  rejection,
  settle,
} from "../support/environment.ts";
import { flipByte, streamOf } from "../support/streams.ts";
import { Disk } from "../machines/journal.ts";
import { FaultyLogDB, FaultySnapshotStore } from "../support/faults.ts";
import {
  KINDS,
  listOf,
  proposeAll,
  snapshotAfterEach,
  start,
  startOn,
} from "../support/clusters.ts";
import { newLogDB, test, testInMemory } from "../support/log_tests.ts";

test(
  "H9 a host continues from an imported snapshot, for every pair of kinds",
  checked(async () => {
    for (const from of KINDS) {
      for (const compression of ["none", "gzip"] as const) {
        const one = await start({ kind: from, config: { compression } });
        const session = await one.replica.openSession();
        await one.replica.propose(bytes("a"), { session });
        await proposeAll(one.replica, "b");
        const snapshot = await toBytes(one.replica.exportSnapshot());
        const index = one.replica.appliedIndex;
        let moved = false;
        // A machine without host rows knows its index only from its own kind of payload.
        const kinds = from === "disk"
          ? ["disk"] as const
          : ["regular", "concurrent", "hosted"] as const;
        for (const kind of kinds) {
          await using logDB = newLogDB();
          await using host = new NodeHost({ logDB });
          await host.importSnapshot(1n, streamOf(snapshot, 7));
          const replica = await startOn(host, { kind });
          assertEquals(await listOf(replica), ["a", "b"]);
          assertEquals(replica.appliedIndex, index, "the log goes on after it");
          assertEquals((await replica.propose(bytes("c"))).value, 3n);
          // Another replica starts from there.
          const late = await start({ logDB, kind, config: { nodeID: 2n } });
          assertEquals(await listOf(late.replica), ["a", "b", "c"]);
          // The session has moved with the state, and knows what was applied:
          // it goes on in one of the copies, and is refused in every other.
          const answer = replica.propose(bytes("d"), { session });
          if (moved) {
            const error = await rejection(answer);
            assertInstanceOf(error, ErrInvalidSession);
          } else {
            const { value, data } = await answer;
            assertEquals([value, text(data)], [4n, "d"]);
            await replica.propose(bytes("e"), { session });
          }
          moved = true;
          await late.host.stop();
        }
        await one.host.stop();
      }
    }
  }),
);

test(
  "H9 a cluster without entries can be exported and imported",
  checked(async () => {
    for (const kind of KINDS) {
      const one = await start({ kind });
      const snapshot = await toBytes(one.replica.exportSnapshot());
      await using host = new NodeHost();
      await host.importSnapshot(1n, streamOf(snapshot));
      const replica = await startOn(host, { kind });
      await proposeAll(replica, "a");
      await one.host.stop();
    }
  }),
);

test(
  "H9 an export is the state at one index, and a slow reader of it delays no update",
  checked(async () => {
    for (const kind of KINDS) {
      const { host, replica } = await start({
        kind,
        faults: { filling: 1 << 20 },
      });
      await proposeAll(replica, "a");
      const reader = replica.exportSnapshot().getReader();
      const chunks = [(await reader.read()).value!];
      await settle();
      for (let i = 0; i < 5; i++) await proposeAll(replica, `${i}`);
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        chunks.push(value);
        if (chunks.length % 5 === 0) await proposeAll(replica, "x");
      }
      await using other = new NodeHost();
      const whole = new Blob(chunks as BlobPart[]).stream();
      await other.importSnapshot(1n, whole);
      const there = await startOn(other, { kind });
      assertEquals(await listOf(there), ["a"]);
      await host.stop();
    }
  }),
);

testInMemory(
  "H9 concurrent exports of one index do not remove each other's snapshot",
  checked(async () => {
    const env = new ManualEnv();
    await using snapshots = new FaultySnapshotStore();
    const { host, replica } = await start({ env, snapshots });
    await proposeAll(replica, "a");
    snapshots.before = async (step) => {
      if (step === "open") await settle(2);
    };
    const all = await Promise.all(
      Array.from({ length: 4 }, () => toBytes(replica.exportSnapshot())),
    );
    for (const one of all) assertEquals(one, all[0]!);
    await host.stop();
  }),
);

test(
  "H9 a cancelled export ends and releases its resources",
  checked(async () => {
    for (const kind of KINDS) {
      await using logDB = newLogDB();
      const { host, replica, machines, events } = await start({
        logDB,
        kind,
        faults: { filling: 4 << 20 },
      });
      await proposeAll(replica, "a");
      const reader = replica.exportSnapshot().getReader();
      await reader.read();
      await settle();
      await reader.cancel(new Error("Enough"));
      await replica.exportSnapshot().cancel();
      await settle();
      const { contexts } = machines[0] as unknown as {
        contexts?: Set<unknown>;
      };
      assertEquals(contexts?.size ?? 0, 0);
      await proposeAll(replica, "b");
      assertEquals(replica.error, undefined);
      assertEquals(events.filter(({ type }) => type === "failed"), []);
      await host.stop();
    }
  }),
);

test(
  "H7 U27 the log is not compacted past an export in progress",
  checked(async () => {
    for (const kind of ["regular", "concurrent"] as const) {
      await using logDB = newLogDB();
      const { host, replica } = await start({
        logDB,
        kind,
        faults: { filling: 4 << 20 },
      });
      await proposeAll(replica, "a");
      const index = replica.appliedIndex;
      const reader = replica.exportSnapshot().getReader();
      await reader.read();
      await settle();
      await snapshotAfterEach(replica, "b", "c", "d");
      const log = await logDB.open(1n, 9n);
      (await log.read(index)).close();
      await reader.cancel();
      await settle();
      await proposeAll(replica, "e");
      await replica.requestSnapshot();
      assertEquals(
        (await rejection((async () => await log.read(index))()) as Error).name,
        "ErrCompacted",
      );
      await log.close();
      await host.stop();
    }
  }),
);

test(
  "R5 a machine that fails during an export fails the export with its error",
  checked(async () => {
    for (const kind of KINDS) {
      const cause = new Error("saveSnapshot() failed (test)");
      const { host, replica, events } = await start({
        kind,
        faults: {
          before: (method) => {
            if (method === "saveSnapshot") throw cause;
          },
        },
        config: { fullSnapshotInterval: 1 },
      });
      await proposeAll(replica, "a");
      const reader = replica.exportSnapshot().getReader();
      const error = await rejection((async () => {
        while (!(await reader.read()).done);
      })());
      assertStrictEquals(error, cause, kind);
      await settle();
      const later = await rejection(replica.propose(bytes("b")));
      assertInstanceOf(later, ErrClusterClosed);
      assertEquals(events.at(-1)!.type, "failed");
      await host.stop();
    }
  }),
);

test(
  "H9 an import over a log, a snapshot or a replica rejects with ErrClusterAlreadyExist and changes nothing",
  checked(async () => {
    const one = await start();
    await proposeAll(one.replica, "a");
    const snapshot = await toBytes(one.replica.exportSnapshot());
    assertInstanceOf(
      await rejection(one.host.importSnapshot(1n, streamOf(snapshot))),
      ErrClusterAlreadyExist,
    );
    await one.host.stop();

    await using logDB = newLogDB();
    const two = await start({ logDB });
    await proposeAll(two.replica, "mine");
    await two.host.stop();
    await using host = new NodeHost({ logDB });
    let cancelled = false;
    const source = new ReadableStream<Uint8Array>({
      pull: (controller) => controller.enqueue(snapshot.slice()),
      cancel: () => {
        cancelled = true;
      },
    }, { highWaterMark: 0 });
    assertInstanceOf(
      await rejection(host.importSnapshot(1n, source)),
      ErrClusterAlreadyExist,
    );
    assert(cancelled, "the source of a refused import must be cancelled");
    assertEquals(await listOf(await startOn(host, {})), ["mine"]);

    await using fresh = new NodeHost();
    await fresh.importSnapshot(1n, streamOf(snapshot));
    assertInstanceOf(
      await rejection(fresh.importSnapshot(1n, streamOf(snapshot))),
      ErrClusterAlreadyExist,
    );
    assertEquals(await listOf(await startOn(fresh, {})), ["a"]);
  }),
);

test(
  "H9 another cluster's snapshot, or one without state, is ErrSnapshotMismatch",
  checked(async () => {
    await using logDB = newLogDB();
    const one = await start({ logDB, kind: "hosted" });
    await proposeAll(one.replica, "a");
    const snapshot = await toBytes(one.replica.exportSnapshot());
    const info = await one.replica.requestSnapshot();
    const metadata = await toBytes(await logDB.snapshots.open(info));
    await one.host.stop();
    await using host = new NodeHost();
    await assertRejects(
      () => host.importSnapshot(2n, streamOf(snapshot)),
      ErrSnapshotMismatch,
    );
    await assertRejects(
      () => host.importSnapshot(1n, streamOf(metadata)),
      ErrSnapshotMismatch,
    );
    // Nothing of it is stored.
    for (const clusterID of [1n, 2n]) {
      const replica = await startOn(host, { config: { clusterID } });
      assertEquals(await listOf(replica), []);
    }
  }),
);

testInMemory(
  "H9 H8 a damaged import stores nothing and can be repeated",
  checked(async () => {
    const one = await start({ faults: { filling: 200_000 } });
    await proposeAll(one.replica, "a");
    const snapshot = await toBytes(one.replica.exportSnapshot());
    await one.host.stop();
    await using snapshots = new FaultySnapshotStore();
    await using logDB = new FaultyLogDB({ snapshots });
    await using host = new NodeHost({ logDB, snapshots });
    for (
      const broken of [
        streamOf(new Uint8Array()),
        streamOf(bytes("this is no snapshot at all, whatever it says")),
        streamOf(snapshot.slice(0, -1)),
        streamOf(snapshot.slice(0, 100)),
        streamOf(new Uint8Array([...snapshot, 0])),
        streamOf(snapshot).pipeThrough(flipByte(20)),
        streamOf(snapshot).pipeThrough(flipByte(snapshot.length >> 1)),
        streamOf(snapshot).pipeThrough(flipByte(snapshot.length - 2)),
      ]
    ) {
      await assertRejects(
        () => host.importSnapshot(1n, broken),
        ErrSnapshotCorrupted,
      );
      assertEquals(snapshots.inner.list(1n), []);
    }
    const cause = new Error("Connection was lost (test)");
    const cut = new ReadableStream<Uint8Array>({
      pull: (controller) => {
        controller.enqueue(snapshot.slice(0, 5000));
        controller.error(cause);
      },
    });
    assertStrictEquals(await rejection(host.importSnapshot(1n, cut)), cause);
    for (const step of ["create", "write", "commit"]) {
      snapshots.before = (name) => {
        if (name === step) throw cause;
      };
      const error = await rejection(
        host.importSnapshot(1n, streamOf(snapshot)),
      );
      assertStrictEquals(error, cause);
      snapshots.before = () => {};
    }
    await host.importSnapshot(1n, streamOf(snapshot));
    assertEquals(await listOf(await startOn(host, {})), ["a"]);
  }),
);

test(
  "H9 of two concurrent imports, on one host or two, one is refused",
  checked(async () => {
    const one = await start();
    await proposeAll(one.replica, "a");
    const snapshot = await toBytes(one.replica.exportSnapshot());
    await one.host.stop();
    await using logDB = newLogDB();
    await using here = new NodeHost({ logDB });
    await using there = new NodeHost({ logDB });
    const results = await Promise.allSettled([
      here.importSnapshot(1n, streamOf(snapshot)),
      here.importSnapshot(1n, streamOf(snapshot)),
      there.importSnapshot(1n, streamOf(snapshot)),
      startOn(here, {}),
    ]);
    assertEquals(
      results.map(({ status }) => status),
      ["fulfilled", "rejected", "rejected", "rejected"],
    );
    assertEquals(await listOf(await startOn(there, {})), ["a"]);
  }),
);

test(
  "H9 an on-disk machine with state is refused after an import",
  checked(async () => {
    const disk = new Disk();
    const one = await start({ kind: "hosted", disk });
    await proposeAll(one.replica, "a", "b", "c");
    await one.host.stop();
    const two = await start();
    await proposeAll(two.replica, "other");
    const snapshot = await toBytes(two.replica.exportSnapshot());
    await two.host.stop();
    await using host = new NodeHost();
    await host.importSnapshot(1n, streamOf(snapshot));
    assertInstanceOf(
      await rejection(startOn(host, { kind: "hosted", disk })),
      ErrClusterAlreadyExist,
    );
    const fresh = await startOn(host, { kind: "hosted", disk: new Disk() });
    assertEquals(await listOf(fresh), ["other"]);
  }),
);

test(
  "H9 an export from a store that lost the snapshot fails, and the replica continues",
  checked(async () => {
    await using snapshots = new FaultySnapshotStore();
    const { host, replica } = await start({ snapshots });
    await proposeAll(replica, "a");
    snapshots.before = (step) => {
      if (step === "open") throw new ErrSnapshotNotFound("1");
    };
    assertInstanceOf(
      await rejection(replica.exportSnapshot().getReader().read()),
      ErrSnapshotNotFound,
    );
    snapshots.before = () => {};
    await proposeAll(replica, "b");
    await toBytes(replica.exportSnapshot());
    await host.stop();
  }),
);

test(
  "H9 an import is shared with a replica on another host with its own store; a second import is refused",
  checked(async () => {
    const source = await start();
    await proposeAll(source.replica, "a");
    const older = await toBytes(source.replica.exportSnapshot());
    await proposeAll(source.replica, "b");
    const newer = await toBytes(source.replica.exportSnapshot());
    await source.host.stop();
    for (const isOpen of [true, false]) {
      await using logDB = newLogDB();
      await using here = new NodeHost({
        logDB,
        snapshots: new MemorySnapshotStore(),
      });
      await here.importSnapshot(1n, streamOf(newer));
      const one = isOpen ? await startOn(here, {}) : undefined;
      await using there = new NodeHost({
        logDB,
        snapshots: new MemorySnapshotStore(),
      });
      assertInstanceOf(
        await rejection(there.importSnapshot(1n, streamOf(older))),
        ErrClusterAlreadyExist,
      );
      const two = await startOn(there, { config: { nodeID: 2n } });
      assertEquals(await listOf(two), ["a", "b"]);
      await proposeAll(two, "c");
      assertEquals(await two.read(null), ["a", "b", "c"]);
      if (one !== undefined) assertEquals(await one.read(null), [..."abc"]);
    }
  }),
);

test(
  "H9 a machine without host rows and with other state at the imported index recovers the imported state",
  checked(async () => {
    const one = await start({ kind: "disk" });
    await proposeAll(one.replica, "a", "b", "c");
    const snapshot = await toBytes(one.replica.exportSnapshot());
    await one.host.stop();
    const disk = new Disk();
    const two = await start({ kind: "disk", disk });
    await proposeAll(two.replica, "x", "y", "z");
    await two.host.stop();
    assertEquals(disk.newest.index, 4);
    await using logDB = newLogDB();
    for (const list of [[..."abc"], [..."abc"], [..."abcd"]]) {
      await using host = new NodeHost({ logDB });
      if ((await logDB.snapshots.list(1n)).length === 0) {
        await host.importSnapshot(1n, streamOf(snapshot));
      }
      const replica = await startOn(host, { kind: "disk", disk });
      if (list.length > 3) await proposeAll(replica, "d");
      assertEquals(await replica.read(null), list);
    }
    const last = await start({ logDB, kind: "disk", disk });
    assertEquals(await listOf(last.replica), [..."abcd"]);
    await last.host.stop();
  }),
);
