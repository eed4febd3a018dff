/**
 * Description of a host and its clusters at one moment.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { LogInfo } from "../log/log.ts";
import type { SnapshotInfo } from "../snapshot/store.ts";
import type { Type } from "../statemachine/types.ts";
import type { Unsynced } from "./outbox.ts";

/** Description of one cluster of a host. */
export interface ClusterInfo {
  /** Id of the cluster. */
  readonly clusterID: bigint;
  /** Replica of the cluster that this host runs, or tried to start last. */
  readonly nodeID: bigint;
  /** Kind of its machine. */
  readonly type: Type;
  /**
   * `starting` until the start has resolved; `running`; `failed` if the start or
   * the replica failed, until it is started again or stopped; `stopped` after
   * `stopCluster()`.
   */
  readonly state: "starting" | "running" | "failed" | "stopped";
  /** Cause of the failure, if it failed: an `ErrUpdateFailed` that names the entry if `update()` threw. */
  readonly error?: unknown;
  /** Error of the last write of the log, such as an `ErrStoreFull`, while the log cannot be written. */
  readonly storageError?: unknown;
  /** Index of the last entry applied; 0 if the cluster does not run. */
  readonly appliedIndex: number;
  /** Last index known to be committed; 0 if the cluster does not run, or its log does not report it. */
  readonly committedIndex: number;
  /** Extent of the log, if the cluster runs and its log reports it. */
  readonly log?: LogInfo;
  /** Snapshots of the cluster in the host's store, the newest first. */
  readonly snapshots: readonly SnapshotInfo[];
  /** Size of those snapshots together, in bytes. */
  readonly snapshotBytes: number;
  /** Number of submissions that are not applied, including those to be dismissed; also of a cluster that does not run. */
  readonly pending: number;
  /** Error of the store if snapshots or submissions could not be listed; they are missing here then. */
  readonly listError?: unknown;
}

/** State of one cluster of a host, without what only its stores know. */
export type ClusterStatus = Pick<
  ClusterInfo,
  | "clusterID"
  | "nodeID"
  | "type"
  | "state"
  | "error"
  | "storageError"
  | "appliedIndex"
>;

/** Description of a host, as `NodeHost.info()` returns it. */
export interface NodeHostInfo {
  /** Clusters that were started since the host was made, in order of their ids. */
  readonly clusters: readonly ClusterInfo[];
}

/** Data of a cluster on a device, as `NodeHost.exportData()` returns it. */
export interface ClusterData {
  /** Id of the cluster. */
  readonly clusterID: bigint;
  /** Index of the last entry that was applied when the export began. */
  readonly appliedIndex: number;
  /** Snapshot of the whole state, as `NodeHost.importSnapshot()` takes it. */
  readonly snapshot: ReadableStream<Uint8Array>;
  /** Submissions that the cluster may not have, in order. */
  readonly pending: readonly Unsynced[];
}
