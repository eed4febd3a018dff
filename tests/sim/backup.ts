/**
 * Backup of the servers' log and snapshots, taken while they are written to and read
 * slowly, and its restore to another disk.
 *
 * @module
 */

import { ByteReader } from "../../src/bytes.ts";
import type { Env } from "../../src/env.ts";
import { verifyBlock } from "../../src/log/block.ts";
import type { BlockLogDB } from "../../src/log/block_log.ts";
import { BlockSnapshotStore } from "../../src/snapshot/block_snapshot_store.ts";
import type { SnapshotInfo, SnapshotStore } from "../../src/snapshot/store.ts";
import { backup, BackupReader, FrameKind } from "../../src/sqlite/backup.ts";
import { streamOfParts } from "../support/streams.ts";
import type { SimulatedDisk } from "./disk.ts";

/** Complete backup. */
export interface Backup {
  readonly parts: readonly Uint8Array<ArrayBuffer>[];
  /** Snapshots in it, by id. */
  readonly infos: ReadonlyMap<string, SnapshotInfo>;
}

/** Takes a backup; `rest` is called before each part is read. */
export async function takeBackup(
  logDB: BlockLogDB,
  snapshots: SnapshotStore,
  env: Env,
  rest: () => Promise<void>,
): Promise<Backup> {
  const infos = new Map<string, SnapshotInfo>();
  const listed = Object.assign(Object.create(snapshots) as SnapshotStore, {
    list: async (cluster: bigint): Promise<readonly SnapshotInfo[]> => {
      const list = await snapshots.list(cluster);
      for (const info of list) infos.set(info.id, info);
      return list;
    },
    open: (info: SnapshotInfo) => snapshots.open(info),
  });
  const parts: Uint8Array<ArrayBuffer>[] = [];
  const reader = backup(logDB, listed, { env }).getReader();
  for (;;) {
    await rest();
    const { done, value } = await reader.read();
    if (done) return { parts, infos };
    parts.push(value.slice());
  }
}

/** Restores a backup to empty disks: of the log, and of the snapshots. */
export async function restoreBackup(
  { parts, infos }: Backup,
  disk: SimulatedDisk,
  bucket: SimulatedDisk,
  env: Env,
): Promise<void> {
  const store = disk.open(env);
  const snapshots = new BlockSnapshotStore(bucket.open(env), { env });
  const source = streamOfParts(parts);
  let cluster = 0n;
  let info: SnapshotInfo | undefined;
  let chunks: Uint8Array[] = [];
  for await (const { kind, payload } of new BackupReader(source).frames()) {
    const reader = new ByteReader(payload);
    switch (kind) {
      case FrameKind.Cluster:
        cluster = reader.u64();
        break;
      case FrameKind.Block: {
        const key = new TextDecoder().decode(reader.bytes());
        const bytes = reader.raw(reader.remaining);
        verifyBlock(bytes, cluster, key);
        await store.write({ put: [{ key, bytes }] }, "strict");
        break;
      }
      case FrameKind.Snapshot:
        info = infos.get(new TextDecoder().decode(payload));
        chunks = [];
        break;
      case FrameKind.Chunk:
        chunks.push(payload.slice());
        break;
      case FrameKind.SnapshotEnd: {
        const { imported, files } = info!;
        const sink = await snapshots.create(info!, { imported });
        const writer = sink.writable.getWriter();
        for (const chunk of chunks) await writer.write(chunk);
        await writer.close();
        await sink.commit({ files });
      }
    }
  }
  await snapshots.close();
}
