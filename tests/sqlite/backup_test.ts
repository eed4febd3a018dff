import { assert, assertEquals } from "@std/assert";
import { toBytes } from "@std/streams";
import { kv } from "../../mod.ts";
import { backup } from "../../src/sqlite/backup.ts";
import { DataFolder } from "../../src/sqlite/mod.ts";
import type { SnapshotInfo, SnapshotStore } from "../../src/snapshot/store.ts";
import {
  type FolderReplica,
  takeSnapshots,
  withReplica,
} from "../support/replicas.ts";
import { streamOf } from "../support/streams.ts";

/** Runs `work` with a folder whose cluster has two snapshots, and the path for a restored one. */
async function withFolder(
  work: (
    data: DataFolder,
    replica: FolderReplica,
    other: string,
  ) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "backup-" });
  try {
    await withReplica(`${folder}/data`, async (data, replica) => {
      await takeSnapshots(replica);
      await work(data, replica, `${folder}/restored`);
    });
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Snapshots of a folder; `open` is called in the place of its `open()`. */
function opening(
  { snapshots }: DataFolder,
  open: (info: SnapshotInfo) => ReturnType<SnapshotStore["open"]>,
): SnapshotStore {
  return Object.assign(Object.create(snapshots) as SnapshotStore, {
    list: (clusterID: bigint) => snapshots.list(clusterID),
    open,
  });
}

/** Number of keys in a folder that is restored from a backup. */
async function restored(bytes: Uint8Array, path: string): Promise<unknown> {
  await DataFolder.restore(path, streamOf(bytes));
  return await withReplica(
    path,
    async (_, replica) => await replica.read(kv.count()),
  );
}

/** Index of the first entry in the log of a replica. */
function firstOf({ logInfo }: FolderReplica): number {
  return logInfo!.first;
}

Deno.test("H7 H9 a backup takes the newer snapshots if one that it begins with is removed before it is opened", async () => {
  await withFolder(async (data, replica, other) => {
    let opened = 0;
    const snapshots = opening(data, async (info) => {
      if (++opened === 2) await takeSnapshots(replica);
      return data.snapshots.open(info);
    });
    const bytes = await toBytes(backup(data.logDB, snapshots));
    assertEquals(opened, 4);
    assertEquals(await restored(bytes, other), 4);
  });
});

Deno.test("H7 H9 the log of a backup continues where one of its snapshots ends, also if newer ones are taken before it is copied", async () => {
  await withFolder(async (data, replica, other) => {
    let opened = 0;
    const snapshots = opening(data, async (info) => {
      const content = data.snapshots.open(info);
      if (++opened === 2) {
        await takeSnapshots(replica);
        await takeSnapshots(replica);
      }
      return content;
    });
    const bytes = await toBytes(backup(data.logDB, snapshots));
    assertEquals(opened, 2);
    assertEquals(await restored(bytes, other), 6);
    await takeSnapshots(replica);
    assert(firstOf(replica) > 6);
  });
});

Deno.test("H7 the log can be compacted again after a backup was cancelled, also before it has read the log", async () => {
  await withFolder(async (data, replica) => {
    const before = firstOf(replica);
    const reader = data.backup().getReader();
    for (let frames = 0; frames < 3; frames++) await reader.read();
    await takeSnapshots(replica);
    assertEquals(firstOf(replica), before);
    await reader.cancel();
    await takeSnapshots(replica);
    assert(firstOf(replica) > before);
  });
});
