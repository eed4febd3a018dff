/**
 * Import of a snapshot that another host exported, and export of the data of a
 * cluster that does not run. Loaded when one of the two is first asked for.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { pacedSource, withResolvers } from "../async.ts";
import type { Env } from "../env.ts";
import { ErrClusterAlreadyExist, ErrDiverged } from "../log/errors.ts";
import type { Log, LogDB } from "../log/log.ts";
import { ReadOnlyLog } from "../log/read_only_log.ts";
import { copySnapshot } from "../snapshot/copy_snapshot.ts";
import type { SnapshotInfo, SnapshotStore } from "../snapshot/store.ts";
import { checkImport, inspectSnapshot } from "./import_check.ts";
import type { ClusterData } from "./info.ts";

/** Node id under which a log is opened for an import; no replica may have it. */
const IMPORTER = 0n;

/** Dependencies of {@linkcode importData}. */
export interface ImportParts {
  readonly clusterID: bigint;
  readonly logDB: LogDB;
  /** Snapshot store of the host. */
  readonly snapshots: SnapshotStore;
  readonly env: Env;
  readonly signal: AbortSignal;
  /** Opens the log of the cluster under a node id. */
  readonly openLog: (nodeID: bigint) => Promise<Log>;
  /** True if the last start of the cluster has failed. */
  readonly hasFailed: boolean;
}

/**
 * Imports a snapshot into an empty cluster, or one that has only an import from which
 * its start has failed (H9).
 *
 * @throws ErrClusterAlreadyExist if the cluster has a log or another snapshot
 */
export async function importData(
  snapshot: ReadableStream<Uint8Array>,
  parts: ImportParts,
): Promise<void> {
  const { clusterID, snapshots, signal, openLog } = parts;
  let log = await openLog(IMPORTER);
  try {
    const present = await snapshots.list(clusterID);
    const isFree = await log.isEmpty() &&
      (present.length === 0 || mayReplace(parts, present));
    if (!isFree) {
      throw new ErrClusterAlreadyExist(
        `Cluster ${clusterID} already has a log or a snapshot on this host; remove them with removeData() before the import`,
      );
    }
    const info = await copySnapshot(snapshot, snapshots, (header) => {
      checkImport(clusterID, header);
    }, {
      imported: true,
      signal,
      inspect: inspectSnapshot,
      // Before the snapshot is stored: an import interrupted between the two can
      // be repeated.
      beforeCommit: async ({ index, epoch }) => {
        if (present.length > 0) {
          await log.close();
          await removeImport(parts, present);
          log = await openLog(IMPORTER);
        }
        await log.startAt(index, epoch);
      },
    });
    await shareImport(parts, info);
  } finally {
    await log.close();
  }
}

/** True if a cluster has only an import from which its start has failed, such as a snapshot its machine cannot read. */
function mayReplace(
  { hasFailed, logDB }: ImportParts,
  present: readonly SnapshotInfo[],
): boolean {
  return hasFailed && logDB.removeData !== undefined &&
    present.every(({ imported }) => imported);
}

/** Removes an import from which no replica has started. */
async function removeImport(
  { clusterID, logDB, snapshots }: ImportParts,
  present: readonly SnapshotInfo[],
): Promise<void> {
  for (const info of present) await snapshots.remove(info);
  const shared = logDB.snapshots;
  if (shared !== undefined && shared !== snapshots) {
    for (const info of await shared.list(clusterID)) {
      if (info.imported) await shared.remove(info);
    }
  }
  await logDB.removeData!(clusterID);
}

/** Shares an import with the replicas of the cluster on other hosts. */
async function shareImport(
  { logDB, snapshots, env }: ImportParts,
  info: SnapshotInfo,
): Promise<void> {
  const shared = logDB.snapshots;
  if (shared === undefined || shared === snapshots) return;
  const source = pacedSource(await snapshots.open(info), env);
  await copySnapshot(source, shared, () => {}, { imported: true });
}

/** Replica whose state is exported. */
interface Exporter {
  readonly replica: {
    readonly appliedIndex: number;
    exportSnapshot(): ReadableStream<Uint8Array>;
  };
  readonly stop: () => Promise<void>;
}

/** Dependencies of {@linkcode exportData}. */
export interface ExportParts
  extends Pick<ClusterData, "clusterID" | "pending"> {
  /** Id of the replica of this host. */
  readonly nodeID: bigint;
  readonly logDB: LogDB;
  /** Runs `work` with exclusive use of the cluster; `started` is called with what stops it. */
  readonly reserve: (
    work: (
      started: (part: { readonly stop: () => Promise<void> }) => void,
    ) => Promise<void>,
  ) => Promise<void>;
  /** Starts a replica that reads a log and appends nothing. */
  readonly start: (log: Log) => Promise<Exporter>;
}

/** Exports the data of a cluster that does not run, which is reserved until the stream has ended. */
export async function exportData(parts: ExportParts): Promise<ClusterData> {
  const { clusterID, pending } = parts;
  const { promise, resolve, reject } = withResolvers<ClusterData>();
  const exported = parts.reserve(async (started) => {
    const ended = withResolvers<void>();
    started({
      stop: async () => {
        ended.resolve();
        await exported.catch(() => {});
      },
    });
    const { replica, stop } = await startOffline(parts);
    try {
      const { appliedIndex } = replica;
      const snapshot = untilEnd(replica.exportSnapshot(), ended.resolve);
      resolve({ clusterID, appliedIndex, snapshot, pending });
      await ended.promise;
    } finally {
      await stop();
    }
  });
  exported.catch(reject);
  return await promise;
}

/** Starts a replica from the data on this device only. */
async function startOffline(
  { clusterID, nodeID, logDB, start }: ExportParts,
): Promise<Exporter> {
  if (logDB.openReadOnly !== undefined) {
    return await start(await logDB.openReadOnly(clusterID));
  }
  try {
    return await start(await logDB.open(clusterID, nodeID));
  } catch (error) {
    if (!(error instanceof ErrDiverged)) throw error;
    return await start(new ReadOnlyLog(undefined));
  }
}

/** Passes a stream on and calls `ended` once it has ended, failed or was cancelled. */
function untilEnd(
  source: ReadableStream<Uint8Array>,
  ended: () => void,
): ReadableStream<Uint8Array> {
  const reader = source.getReader();
  return new ReadableStream<Uint8Array>({
    async pull(controller): Promise<void> {
      try {
        const { done, value } = await reader.read();
        if (!done) return controller.enqueue(value);
      } catch (error) {
        ended();
        throw error;
      }
      ended();
      controller.close();
    },
    async cancel(reason): Promise<void> {
      try {
        await reader.cancel(reason);
      } finally {
        ended();
      }
    },
  }, { highWaterMark: 0 });
}
