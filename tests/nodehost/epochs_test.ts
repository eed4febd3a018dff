import { assertEquals, assertInstanceOf } from "@std/assert";
import { ErrDiverged, MemoryLogDB, MemorySnapshotStore } from "../../mod.ts";
import { recordAt, RecordKind } from "../../src/log/records.ts";
import { bytes } from "../support/bytes.ts";
import { checked, ManualEnv, rejection } from "../support/environment.ts";
import { Disk } from "../machines/journal.ts";
import { KINDS, listOf, proposeAll, start } from "../support/clusters.ts";
import { newLogDB, test, testInMemory } from "../support/log_tests.ts";

test(
  "H13 the first writer of a log appends an epoch record before its records",
  checked(async () => {
    await using logDB = newLogDB();
    const { host, replica } = await start({ logDB });
    await proposeAll(replica, "a");
    const log = await logDB.open(1n, 7n);
    const reader = await log.read(0);
    const batch = await reader.next();
    assertEquals(batch.first, 1);
    const record = recordAt(batch.records, 0);
    assertEquals([record[0], record.length], [RecordKind.Epoch, 9]);
    reader.close();
    await log.close();
    const info = await replica.requestSnapshot();
    assertEquals(info.epoch?.index, 1);
    await host.stop();
  }),
);

testInMemory(
  "H13 a snapshot of another history is ErrDiverged, whether the log is shorter or longer, and nothing is rewound",
  checked(async () => {
    await using snapshots = new MemorySnapshotStore();
    const one = await start({ snapshots });
    await proposeAll(one.replica, "a", "b");
    await one.replica.requestSnapshot();
    await one.host.stop();
    for (const length of [0, 1, 2, 10]) {
      await using logDB = new MemoryLogDB({ env: new ManualEnv(length + 7) });
      const other = await start({
        logDB,
        snapshots: new MemorySnapshotStore(),
        config: { nodeID: 2n },
      });
      for (let i = 0; i < length; i++) await proposeAll(other.replica, "x");
      const before = snapshots.list(1n);
      const error = await rejection(start({ logDB, snapshots }));
      assertInstanceOf(error, ErrDiverged, `${length}`);
      assertEquals(snapshots.list(1n), before);
      assertEquals((await listOf(other.replica)).length, length);
      await other.host.stop();
    }
  }),
);

testInMemory(
  "H13 host rows on disk identify their history: the machine is not started on another log of any length",
  checked(async () => {
    const disk = new Disk();
    const one = await start({ kind: "hosted", disk });
    await proposeAll(one.replica, "a", "b");
    await one.host.stop();
    await using logDB = new MemoryLogDB({ env: new ManualEnv(99) });
    const other = await start({ logDB, config: { nodeID: 2n } });
    for (let i = 0; i < 5; i++) await proposeAll(other.replica, "x");
    assertInstanceOf(
      await rejection(start({ logDB, kind: "hosted", disk })),
      ErrDiverged,
    );
    assertEquals(disk.newest.list, ["a", "b"]);
    await other.host.stop();
  }),
);

test(
  "H13 every kind of machine recognizes its history after a restart",
  checked(async () => {
    for (const kind of KINDS) {
      await using logDB = newLogDB();
      const disk = new Disk();
      for (let life = 0; life < 4; life++) {
        const { host, replica } = await start({ logDB, kind, disk });
        await replica.propose(bytes(`${life}`));
        await replica.requestSnapshot();
        assertEquals((await listOf(replica)).length, life + 1);
        await host.stop();
      }
    }
  }),
);
