/**
 * Choice of the snapshot that a client receives: a stored one that is recent
 * enough, else a new one.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Retention } from "../../log/log.ts";
import type { NodeHost } from "../../nodehost/node_host.ts";
import { verifySnapshot } from "../../snapshot/verifier.ts";
import {
  ErrSnapshotCorrupted,
  ErrSnapshotVersion,
} from "../../snapshot/errors.ts";
import type {
  SnapshotHeader,
  SnapshotInfo,
  SnapshotStore,
} from "../../snapshot/store.ts";
import type { ServedCluster } from "./served_cluster.ts";

/** Snapshot that is ready to be sent. */
export interface SnapshotOffer {
  /** Header of the snapshot. */
  readonly header: SnapshotHeader;
  /** Number of external files in the snapshot. */
  readonly files: number;
  /** Size in bytes, 0 if it is not known yet. */
  readonly size: number;
  /** Content of the container; each block is verified before it is returned. */
  readonly content: ReadableStream<Uint8Array>;
  /** Prevents compaction of the log after the snapshot until released. */
  readonly retention: Retention;
}

/**
 * Opens the newest stored snapshot that is at most `lag` entries old and covers
 * index `least`; without one, exports a new snapshot.
 *
 * @throws the error of `exportSnapshot()`: a replica known to have diverged offers no snapshot
 */
export async function offerSnapshot(
  host: NodeHost,
  cluster: ServedCluster,
  lag: number,
  least = 0,
): Promise<SnapshotOffer> {
  // The export starts with the first read; this call throws if none is possible.
  const exported = cluster.replica.exportSnapshot();
  const oldest = Math.max(cluster.replica.appliedIndex - lag, least);
  const stored = await offerStored(host, cluster, oldest);
  if (stored !== undefined) {
    await exported.cancel();
    return stored;
  }
  // The export is at or after the index applied now.
  const retention = cluster.log.retain(cluster.replica.appliedIndex);
  try {
    const { transform, header } = verifySnapshot();
    const content = exported.pipeThrough(transform);
    return await readHeader(content, header, { files: 0, size: 0 }, retention);
  } catch (error) {
    retention.release();
    throw error;
  }
}

async function offerStored(
  host: NodeHost,
  cluster: ServedCluster,
  oldest: number,
): Promise<SnapshotOffer | undefined> {
  const { log, replica, damagedSnapshots, clusterID } = cluster;
  const shared = host.logDB.snapshots;
  const stores: SnapshotStore[] = [host.snapshots];
  if (shared !== undefined && shared !== host.snapshots) stores.push(shared);
  for (const store of stores) {
    // Only this replica's own snapshots: a client that diverged could not compare
    // one of another replica, or an imported one, with the server's hashes.
    const info = (await store.list(clusterID)).find(({ kind, id, nodeID }) =>
      kind === "full" && nodeID === replica.nodeID &&
      !damagedSnapshots.has(id)
    );
    if (info === undefined || info.index < oldest) continue;
    const retention = log.retain(info.index);
    try {
      (await log.read(info.index, { epoch: info.epoch })).close();
      return await openStored(cluster, store, info, retention);
    } catch {
      // The snapshot was removed, is damaged, or is of another history of the log.
      retention.release();
    }
  }
  return undefined;
}

async function openStored(
  cluster: ServedCluster,
  store: SnapshotStore,
  info: SnapshotInfo,
  retention: Retention,
): Promise<SnapshotOffer> {
  const { transform, header, totals } = verifySnapshot();
  totals.catch((error) => {
    // The next client gets another snapshot.
    if (isDamage(error)) cluster.damagedSnapshots.add(info.id);
  });
  const content = (await store.open(info)).pipeThrough(transform);
  return await readHeader(content, header, info, retention);
}

function isDamage(error: unknown): boolean {
  return error instanceof ErrSnapshotCorrupted ||
    error instanceof ErrSnapshotVersion;
}

/** Reads the content up to the header, and returns an offer with the whole content. */
async function readHeader(
  content: ReadableStream<Uint8Array>,
  header: Promise<SnapshotHeader>,
  { files, size }: Pick<SnapshotInfo, "files" | "size">,
  retention: Retention,
): Promise<SnapshotOffer> {
  const reader = content.getReader();
  const head: Uint8Array[] = [];
  let known: SnapshotHeader | undefined;
  header.then((header) => known = header, () => {});
  while (known === undefined) {
    const { done, value } = await reader.read();
    if (done) break;
    head.push(value);
    // The header resolves a microtask after its block is read.
    await Promise.resolve();
  }
  const whole = new ReadableStream<Uint8Array>({
    pull: async (controller): Promise<void> => {
      const next = head.shift();
      if (next !== undefined) return controller.enqueue(next);
      const { done, value } = await reader.read();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    cancel: (reason) => reader.cancel(reason),
  }, { highWaterMark: 0 });
  return { header: await header, files, size, content: whole, retention };
}
