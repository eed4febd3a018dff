/**
 * Description of a cluster with what its stores know. Loaded when a host is first
 * asked for it.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { LogInfo } from "../log/log.ts";
import type { SnapshotInfo, SnapshotStore } from "../snapshot/store.ts";
import type { ClusterInfo, ClusterStatus } from "./info.ts";

/** Parts of a host that know more of a cluster. */
export interface DescribeParts {
  /** Replica of the cluster, if it runs. */
  readonly replica: {
    readonly appliedIndex: number;
    readonly logInfo: LogInfo | undefined;
    pending(): readonly unknown[];
  } | undefined;
  readonly snapshots: SnapshotStore;
  /** Lists submissions that the cluster may not have. */
  readonly unsynced: () => Promise<readonly unknown[]>;
}

/** Describes a cluster. */
export async function describeCluster(
  status: ClusterStatus,
  { replica, snapshots: store, unsynced }: DescribeParts,
): Promise<ClusterInfo> {
  let snapshots: readonly SnapshotInfo[] = [];
  let pending = 0;
  let unreadable: { readonly error: unknown } | undefined;
  // A store that fails must not hide the rest.
  try {
    snapshots = await store.list(status.clusterID);
    pending = replica?.pending().length ?? (await unsynced()).length;
  } catch (error) {
    unreadable = { error };
  }
  const log = status.state === "failed" ? undefined : replica?.logInfo;
  return {
    ...status,
    committedIndex: Math.max(
      log?.committed ?? 0,
      replica?.appliedIndex ?? 0,
    ),
    ...(log === undefined ? {} : { log }),
    snapshots,
    snapshotBytes: snapshots.reduce((sum, { size }) => sum + size, 0),
    pending,
    ...(unreadable === undefined ? {} : { listError: unreadable.error }),
  };
}
