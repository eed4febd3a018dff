import { assert, assertEquals, assertRejects } from "@std/assert";
import { ErrCompacted, MemorySnapshotStore } from "../../mod.ts";
import { EtcdLogDB } from "../../src/etcd/mod.ts";
import { type LogDB, packRecords } from "../../src/ports/mod.ts";
import { start, type Started, stopAll, typesOf } from "../support/clusters.ts";
import { test } from "./nodes.ts";
import { storeConforms } from "./store_conforms.ts";

const one = packRecords(new Uint8Array([1, 2, 3]));

test(
  "the snapshot store with pointers in etcd conforms to its port",
  ({ endpoints }, t) =>
    storeConforms(
      t,
      () => ({ endpoints, snapshots: new MemorySnapshotStore() }),
    ),
);

/** Starts a replica with a snapshot after every 10 entries. */
function startOne(
  logDB: LogDB,
  nodeID: bigint,
  kind: "regular" | "concurrent" | "hosted" = "regular",
): Promise<Started> {
  return start({ logDB, kind, config: { nodeID, snapshotEntries: 10 } });
}

for (const kind of ["regular", "concurrent", "hosted"] as const) {
  test(`H7 a ${kind} machine's log on etcd is compacted behind verified snapshots in the shared store, and a new replica on another server recovers from one`, async ({ endpoints }) => {
    const snapshots = new MemorySnapshotStore();
    await using one = new EtcdLogDB({ endpoints, snapshots });
    await using two = new EtcdLogDB({ endpoints, snapshots });
    const first = await startOne(one, 1n, kind);
    for (let i = 0; i < 35; i++) {
      await first.replica.propose(new TextEncoder().encode(`${i}`));
    }
    await first.replica.requestSnapshot();
    if (kind !== "hosted") {
      const pointers = await one.snapshotPointers(1n);
      assertEquals(pointers.length, 2);
      assert(pointers[0]!.index > pointers[1]!.index);
      assert(typesOf(first.events).includes("compacted"));
      // Compacting etcd itself removes what no cluster needs.
      assert(await one.compactHistory() > 10);
    }
    const second = await startOne(two, 2n, kind);
    assertEquals(
      await second.replica.read(undefined),
      await first.replica.read(undefined),
    );
    await second.replica.propose(new TextEncoder().encode("last"));
    assertEquals(
      await second.replica.read(undefined),
      await first.replica.read(undefined),
    );
    await stopAll([first, second]);
  });
}

test("H7 a log is never compacted past the newest snapshot in the shared store that matches its pointer", async ({ endpoints }) => {
  const snapshots = new MemorySnapshotStore();
  await using logDB = new EtcdLogDB({ endpoints, snapshots });
  const log = await logDB.open(1n, 9n);
  for (let i = 0; i < 20; i++) await log.append(one);
  await log.compact!(15);
  (await log.read(0)).close();
  const store = logDB.snapshots!;
  const header = {
    clusterID: 1n,
    nodeID: 9n,
    type: 1,
    kind: "full",
    index: 8,
    compression: "none",
  } as const;
  const sink = await store.create(header);
  const writer = sink.writable.getWriter();
  await writer.write(new Uint8Array(1000).fill(7));
  await writer.close();
  const info = await sink.commit({ files: 0 });
  assertEquals((await logDB.snapshotPointers(1n))[0]!.index, 8);
  await log.compact!(15);
  const error = await assertRejects(
    async () => await log.read(0),
    ErrCompacted,
  );
  assertEquals(error.firstIndex, 9);
  (await log.read(8)).close();
  // Without the snapshot that its pointer names nothing more is compacted.
  await store.remove(info);
  await log.compact!(15);
  (await log.read(8)).close();
});

test("H7 a compaction goes on to an older snapshot if another server removes the newer one while it is read back", async ({ endpoints }) => {
  const snapshots = new MemorySnapshotStore();
  await using logDB = new EtcdLogDB({ endpoints, snapshots });
  await using other = new EtcdLogDB({ endpoints, snapshots });
  const log = await logDB.open(1n, 9n);
  for (let i = 0; i < 20; i++) await log.append(one);
  for (const index of [8, 12]) {
    const sink = await other.snapshots!.create({
      clusterID: 1n,
      nodeID: 9n,
      type: 1,
      kind: "full",
      index,
      compression: "none",
    });
    const writer = sink.writable.getWriter();
    await writer.write(new Uint8Array(1000).fill(index));
    await writer.close();
    await sink.commit({ files: 0 });
  }
  const open = snapshots.open.bind(snapshots);
  snapshots.open = (info): ReadableStream<Uint8Array> => {
    if (info.index === 12) snapshots.remove(info);
    return open(info);
  };
  await log.compact!(15);
  const error = await assertRejects(
    async () => await log.read(0),
    ErrCompacted,
  );
  assertEquals(error.firstIndex, 9);
});

test("H7 one cluster that still needs its history keeps etcd from compacting it; idle ones do not", async ({ endpoints }) => {
  await using logDB = new EtcdLogDB({ endpoints });
  const logs = await Promise.all(
    [1n, 2n, 3n].map((id) => logDB.open(id, 1n)),
  );
  for (const log of logs) {
    for (let i = 0; i < 10; i++) await log.append(one);
  }
  const last = await logs[0]!.readIndex();
  for (const log of logs.slice(0, 2)) await log.compact!(last);
  const before = await logDB.compactHistory();
  // Cluster 3 has all its records.
  const reader = await logs[2]!.read(0);
  assertEquals((await reader.next()).first, 1);
  reader.close();
  await logs[2]!.compact!(5);
  const after = await logDB.compactHistory();
  assert(after > before, `${after} after ${before}`);
  const rest = await logs[2]!.read(5);
  assertEquals((await rest.next()).first, 6);
  rest.close();
  await logs[2]!.compact!(last);
  assert(await logDB.compactHistory() > after);
  // Idle logs go on, here and in a process that starts now.
  await using other = new EtcdLogDB({ endpoints });
  for (const log of [...logs, await other.open(1n, 2n)]) {
    const at = await log.readIndex();
    const next = await log.read(at);
    await log.append(one);
    assertEquals((await next.next()).follows, at);
    next.close();
  }
});

test("H7 a replica that was stopped while its log was compacted far beyond it recovers from the shared store", async ({ endpoints }) => {
  const snapshots = new MemorySnapshotStore();
  await using one = new EtcdLogDB({ endpoints, snapshots });
  await using two = new EtcdLogDB({ endpoints, snapshots });
  const first = await startOne(one, 1n);
  const lagging = await startOne(two, 2n);
  await first.replica.propose(new TextEncoder().encode("seen"));
  await lagging.replica.read(undefined);
  await lagging.host.stop();
  for (let i = 0; i < 40; i++) {
    await first.replica.propose(new TextEncoder().encode(`${i}`));
  }
  await first.replica.requestSnapshot();
  await one.compactHistory();
  const again = await startOne(two, 2n);
  assertEquals(
    await again.replica.read(undefined),
    await first.replica.read(undefined),
  );
  await stopAll([first, again]);
});

test("R5 a removed cluster begins again, and replicas of it in other processes fail in words", async ({ endpoints }) => {
  await using one_ = new EtcdLogDB({ endpoints });
  await using two = new EtcdLogDB({ endpoints });
  const log = await one_.open(1n, 1n);
  await log.append(one);
  const other = await two.open(1n, 2n);
  const reader = await other.read(await other.readIndex());
  const next = (async () => await reader.next())();
  next.catch(() => {});
  await log.close();
  await one_.removeData(1n);
  await assertRejects(() => next, Error, "was removed");
  assertEquals(await one_.clusters(), []);
  const again = await one_.open(1n, 1n);
  assert(await again.isEmpty());
  assertEquals(await again.append(one), 2);
});
