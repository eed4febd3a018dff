/**
 * Description of a host and its clusters at a moment.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { LogInfo } from "../log/log.ts";
import type { SnapshotInfo } from "../snapshot/store.ts";
import type { Type } from "../statemachine/types.ts";

/** One cluster of a host, as `NodeHost.info()` describes it. */
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
  /** Error of the last write of the log, such as an `ErrStoreFull`, while nothing can be stored in it. */
  readonly storageError?: unknown;
  /** Index of the last entry applied; 0 unless it runs. */
  readonly appliedIndex: number;
  /** Last index known to be committed; 0 unless it runs on a log that can tell. */
  readonly committedIndex: number;
  /** Extent of the log, if the cluster runs on a log that can tell. */
  readonly log?: LogInfo;
  /** Snapshots of the cluster in the host's store, the newest first. */
  readonly snapshots: readonly SnapshotInfo[];
  /** Size of those snapshots together, in bytes. */
  readonly snapshotBytes: number;
  /** Submissions that are not applied, those that wait to be dismissed included; also of a cluster that does not run. */
  readonly pending: number;
  /** Set if snapshots or submissions could not be listed, with what the store threw: nothing is told of them then. */
  readonly listError?: unknown;
}

/** State of one cluster of a host, as far as it is at hand without asking a store. */
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

/** A host at a moment, as `NodeHost.info()` describes it. */
export interface NodeHostInfo {
  /** Clusters that were started since the host was made, in order of their ids. */
  readonly clusters: readonly ClusterInfo[];
}
