import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertStrictEquals,
  assertThrows,
} from "@std/assert";
import {
  ErrClusterAlreadyExist,
  ErrClusterClosed,
  ErrNotImplemented,
  ErrUnsynced,
  kv,
  KVStateMachine,
  MemoryBlockStore,
  MemoryFileStore,
  MemoryLogDB,
  MemoryOutbox,
  MemorySnapshotStore,
  NodeHost,
  OnDiskKVStateMachine,
} from "../../mod.ts";
import {
  BlockOutbox,
  ErrFileNotFound,
  type LogDB,
  type SnapshotInfo,
} from "../../src/ports/mod.ts";
import { HOST_DIRECTORY } from "../../src/snapshot/file_store.ts";
import { BlockLogDB, BlockSnapshotStore } from "../../src/indexeddb/mod.ts";
import {
  FileSnapshotStore,
  SqliteKVStateMachine,
  SqliteLogDB,
  SqliteOutbox,
} from "../../src/sqlite/mod.ts";
import { makeDirectory } from "../support/directory.ts";
import { bytes } from "../support/bytes.ts";
import { checked, rejection } from "../support/environment.ts";
import { proposeAll, start } from "../support/clusters.ts";

const config = { clusterID: 1n, nodeID: 1n };

/** Names of all blocks of a store. */
async function namesIn(store: MemoryBlockStore): Promise<string[]> {
  return await store.keys("", "~");
}

Deno.test(
  "H7 a requested compaction goes as far as two good snapshots allow, and each request can set its own overhead",
  checked(async () => {
    await using logDB = new MemoryLogDB();
    const { host, replica } = await start({ logDB });
    const first = async (): Promise<number> =>
      (await host.info()).clusters[0]!.log!.first;
    await proposeAll(replica, ..."abcdefgh");
    await replica.requestSnapshot();
    assertEquals(await replica.requestCompaction(), 0);
    await proposeAll(replica, "i");
    await replica.requestSnapshot({ compactionOverhead: 100 });
    assertEquals(await first(), 1);
    assertEquals(await replica.requestCompaction({ compactionOverhead: 4 }), 5);
    assertEquals(await first(), 6);
    assertEquals(await replica.requestCompaction(), 9);
    assertEquals(await first(), 10);
    for (const compactionOverhead of [-1, 0.5, NaN]) {
      for (const method of ["requestCompaction", "requestSnapshot"] as const) {
        assertInstanceOf(
          await rejection(replica[method]({ compactionOverhead })),
          RangeError,
        );
      }
    }
    await host.stop();
    assertInstanceOf(
      await rejection(replica.requestCompaction()),
      ErrClusterClosed,
    );
  }),
);

Deno.test(
  "H19 a host describes its clusters: indexes, log, snapshots, sizes and the causes of failures",
  checked(async () => {
    await using logDB = new BlockLogDB(() => new MemoryBlockStore());
    await using outbox = new BlockOutbox(() => new MemoryBlockStore());
    await using host = new NodeHost({ logDB, outbox });
    assertEquals(await host.info(), { clusters: [] });
    const replica = await host.startCluster(
      () => new KVStateMachine(),
      config,
    );
    await replica.propose(kv.put("a", "1"));
    const snapshot = await replica.requestSnapshot();
    const [info] = (await host.info()).clusters;
    assertEquals(info, {
      clusterID: 1n,
      nodeID: 1n,
      type: 1,
      state: "running",
      appliedIndex: 2,
      committedIndex: 2,
      log: { first: 1, last: 2, committed: 2, bytes: info!.log!.bytes! },
      snapshots: [snapshot],
      snapshotBytes: snapshot.size,
      pending: 0,
    });
    assert(info!.log!.bytes! > 0);
    const fault = new Error("Machine failed (test)");
    const broken = host.startCluster(() => {
      throw fault;
    }, { clusterID: 2n, nodeID: 1n });
    assertStrictEquals(await rejection(broken), fault);
    await host.stopCluster(1n);
    const states = (await host.info()).clusters.map((one) => [
      one.clusterID,
      one.state,
      one.error,
    ]);
    assertEquals(states, [[1n, "stopped", undefined], [2n, "failed", fault]]);
  }),
);

Deno.test(
  "H18 [H19] a host reports pending submissions of a stopped cluster, a failed start whatever was thrown, and the other clusters if one store fails",
  checked(async () => {
    await using logDB = new MemoryLogDB();
    await using outbox = new MemoryOutbox();
    await using snapshots = new MemorySnapshotStore();
    await using host = new NodeHost({ logDB, outbox, snapshots });
    let thrown: { error: unknown } | undefined;
    const create = (): KVStateMachine => {
      if (thrown !== undefined) throw thrown.error;
      return new KVStateMachine();
    };
    await host.startCluster(create, config);
    await host.startCluster(create, { clusterID: 2n, nodeID: 1n });
    await host.stopCluster(1n);
    const queue = await outbox.open(1n, () => {});
    await queue.add(kv.put("a", "1"));
    await queue.close();
    const pending = async (): Promise<readonly number[]> =>
      (await host.info()).clusters.map(({ pending }) => pending);
    // The replica of a cluster that ran here knows.
    assertEquals(await pending(), [0, 0]);
    for (const error of [new Error("Factory failed (test)"), undefined, null]) {
      thrown = { error };
      const rejected = host.startCluster(create, config).then(
        () => assert(false),
        (error) => error,
      );
      assertStrictEquals(await rejected, error);
      const status = host.clusterStatus(1n)!;
      assertEquals([status.state, status.error], ["failed", error]);
      assertEquals(await pending(), [1, 0]);
    }
    const fault = new Error("Store failed (test)");
    const { list } = snapshots;
    snapshots.list = (clusterID): readonly SnapshotInfo[] => {
      if (clusterID === 1n) throw fault;
      return list.call(snapshots, clusterID);
    };
    const { clusters } = await host.info();
    assertEquals(
      clusters.map(({ state, listError }) => [state, listError]),
      [["failed", fault], ["running", undefined]],
    );
    snapshots.list = list;
  }),
);

Deno.test(
  "case C14: removeData() removes the host's own files of a cluster, and none of a machine [H19, F4]",
  checked(async () => {
    await using files = new MemoryFileStore();
    await using logDB = new MemoryLogDB();
    await using host = new NodeHost({ logDB, files });
    await host.startCluster(() => new KVStateMachine(), config);
    const kept = [
      "snapshots/1-1/7",
      "views/1-1/7",
      `${HOST_DIRECTORY}/views/10-1/7`,
      `${HOST_DIRECTORY}/recovery/2-1/5/7`,
    ];
    const removed = ["views/1-1", "recovery/1-1/5", "replay/1-1/5"]
      .map((path) => `${HOST_DIRECTORY}/${path}/7`);
    for (const path of [...kept, ...removed]) {
      await files.create(path).getWriter().close();
    }
    await host.stopCluster(1n);
    await host.removeData(1n);
    for (const path of kept) files.open(path);
    for (const path of removed) {
      assertThrows(() => files.open(path), ErrFileNotFound);
    }
  }),
);

Deno.test(
  "H19 removeData() removes every block of a cluster and none of others, and is refused while it runs or has pending submissions",
  checked(async () => {
    const stores = Array.from({ length: 4 }, () => new MemoryBlockStore());
    const [log, out, saved, state] = stores as [
      MemoryBlockStore,
      MemoryBlockStore,
      MemoryBlockStore,
      MemoryBlockStore,
    ];
    await using logDB = new BlockLogDB(log);
    await using outbox = new BlockOutbox(out);
    await using snapshots = new BlockSnapshotStore(saved);
    await using host = new NodeHost({ logDB, outbox, snapshots });
    const create = (): OnDiskKVStateMachine => new OnDiskKVStateMachine(state);
    const other = await host.startCluster(() => new KVStateMachine(), {
      clusterID: 2n,
      nodeID: 1n,
    });
    await (await other.submit(kv.put("other", "1"))).result;
    await other.requestSnapshot();
    await host.stopCluster(2n);
    const before = await Promise.all([log, out, saved].map(namesIn));

    const replica = await host.startOnDiskCluster(create, config);
    await (await replica.submit(kv.put("a", "1"))).result;
    await replica.requestSnapshot();
    assertInstanceOf(
      await rejection(host.removeData(1n)),
      ErrClusterAlreadyExist,
    );
    assertEquals(await replica.staleRead(kv.get("a")), bytes("1"));
    await host.stopCluster(1n);
    // Applied, though the outbox may not have stored that yet.
    await host.removeData(1n);
    assertEquals(
      await Promise.all([log, out, saved].map(namesIn)),
      before,
    );
    assertEquals(await namesIn(state), []);

    const again = await host.startOnDiskCluster(create, config);
    assertEquals(again.appliedIndex, 0);
    assertEquals(await again.staleRead(kv.get("a")), undefined);
    await host.stopCluster(1n);
    const queue = await outbox.open(1n, () => {});
    await queue.add(kv.put("b", "2"));
    await queue.close();
    // Stored by an earlier process; no replica has it.
    await using next = new NodeHost({ logDB, outbox, snapshots });
    const refused = await rejection(next.removeData(1n));
    assertInstanceOf(refused, ErrUnsynced);
    assertEquals(refused.unsynced.map(({ cmd }) => cmd), [kv.put("b", "2")]);
    assertEquals((await outbox.unsynced(1n)).length, 1);
    await next.removeData(1n, { discardPending: true, machine: create });
    assertEquals(
      await Promise.all([log, out, saved].map(namesIn)),
      before,
    );
    assertEquals(await namesIn(state), []);
  }),
);

Deno.test(
  "H19 removeData() is refused, and removes nothing, if a log or a machine cannot remove its data, or another host has opened the log",
  checked(async () => {
    await using logDB = new MemoryLogDB();
    await using outbox = new BlockOutbox(() => new MemoryBlockStore());
    await using one = new NodeHost({ logDB });
    await using two = new NodeHost({ logDB, outbox });
    const replica = await one.startCluster(() => new KVStateMachine(), config);
    await replica.propose(kv.put("a", "1"));
    assertInstanceOf(
      await rejection(two.removeData(1n)),
      ErrClusterAlreadyExist,
    );
    await replica.propose(kv.put("a", "2"));

    const inner = new MemoryLogDB();
    const bare: LogDB = {
      open: (clusterID, nodeID) => inner.open(clusterID, nodeID),
      close: () => inner.close(),
      [Symbol.asyncDispose]: () => inner.close(),
    };
    await using three = new NodeHost({ logDB: bare });
    assertInstanceOf(await rejection(three.removeData(1n)), ErrNotImplemented);

    const bareMachine = (): never => ({}) as never;
    assertInstanceOf(
      await rejection(two.removeData(7n, { machine: bareMachine })),
      ErrNotImplemented,
    );
    await bare.close();
  }),
);

Deno.test(
  "U35 [H19] leave() removes the data of every cluster, also of one never started by this host, and first refuses if submissions are pending",
  checked(async () => {
    using directory = makeDirectory();
    const open = (): {
      logDB: SqliteLogDB;
      outbox: SqliteOutbox;
      snapshots: FileSnapshotStore;
    } => ({
      logDB: new SqliteLogDB(directory.path("log.db")),
      outbox: new SqliteOutbox(directory.path("outbox.db")),
      snapshots: new FileSnapshotStore(directory.path("snapshots")),
    });
    const machine = (): SqliteKVStateMachine =>
      new SqliteKVStateMachine(directory.path("state.db"));
    const close = async (
      host: NodeHost,
      parts: ReturnType<typeof open>,
    ): Promise<void> => {
      await host.stop();
      for (const part of Object.values(parts)) await part.close();
    };
    const first = open();
    const alice = new NodeHost(first);
    const disk = await alice.startOnDiskCluster(machine, config);
    await (await disk.submit(kv.put("diary", "alice's"))).result;
    const memory = await alice.startCluster(() => new KVStateMachine(), {
      clusterID: 5n,
      nodeID: 1n,
    });
    await (await memory.submit(kv.put("notes", "alice's"))).result;
    await memory.requestSnapshot();
    await close(alice, first);

    const second = open();
    const again = new NodeHost(second);
    const replica = await again.startOnDiskCluster(machine, config);
    const queue = await second.outbox.open(5n, () => {});
    await queue.add(kv.put("late", "alice's"));
    await queue.close();
    const refused = await rejection(again.leave());
    assertInstanceOf(refused, ErrUnsynced);
    // An applied submission may be stored as applied only with the next start.
    assertEquals(refused.clusterIDs, [5n]);
    assertEquals(refused.unsynced.at(-1)!.cmd, kv.put("late", "alice's"));
    assertEquals(await replica.staleRead(kv.get("diary")), bytes("alice's"));
    await again.leave({ discardPending: true });
    assertEquals(await again.info(), { clusters: [] });
    assertEquals(await second.logDB.clusters(), []);
    assertEquals(await second.outbox.clusters(), []);
    assertEquals(second.snapshots.clusters(), []);
    const bob = await again.startOnDiskCluster(machine, config);
    assertEquals(await bob.staleRead(kv.get("diary")), undefined);
    assertEquals(bob.appliedIndex, 0);
    await close(again, second);
  }),
);

Deno.test(
  "H19 removeData() forgets the log in memory and the snapshots it shares",
  checked(async () => {
    await using logDB = new MemoryLogDB();
    await using snapshots = new MemorySnapshotStore();
    await using host = new NodeHost({ logDB, snapshots });
    const replica = await host.startCluster(() => new KVStateMachine(), config);
    await replica.propose(kv.put("a", "1"));
    await replica.requestSnapshot();
    assertEquals([logDB.clusters(), logDB.snapshots.clusters()], [[1n], [1n]]);
    await host.stopCluster(1n);
    await host.removeData(1n);
    assertEquals(logDB.clusters(), []);
    assertEquals(logDB.snapshots.clusters(), []);
    assertEquals(snapshots.clusters(), []);
  }),
);
