/**
 * Configuration of a replica.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { CreateReplayMachineFunc } from "../divergence/mod.ts";
import { SESSIONS_MAX } from "../limits.ts";
import {
  checkOptions,
  isCount,
  isFunction,
  isID,
  isOneOf,
  optional,
  type OptionChecks,
} from "../options.ts";
import type { SnapshotHeader } from "../snapshot/store.ts";

/** Configuration of a replica. */
export interface ReplicaConfig {
  /** Id of the cluster, in 0…2^64-1. */
  clusterID: bigint;
  /** Id of the replica in its cluster, in 1…2^64-1. */
  nodeID: bigint;
  /**
   * Number of applied entries after which a snapshot is taken. With 0, snapshots
   * are taken on request, and when the log on this device grows too long (H7).
   *
   * @default {0}
   */
  snapshotEntries?: number;
  /**
   * Entries that the log keeps before the older of the two full snapshots, for
   * replicas that are slightly behind (H7).
   *
   * @default {0}
   */
  compactionOverhead?: number;
  /**
   * For an on-disk machine: every Nth snapshot is full and shared, which lets the
   * log be compacted; the others hold metadata only (D10). With 0, none is full
   * and the log is never compacted.
   *
   * @default {8}
   */
  fullSnapshotInterval?: number;
  /**
   * Compression of the payload and files of snapshots.
   *
   * @default {"none"}
   */
  compression?: SnapshotHeader["compression"];
  /**
   * Number of sessions that the cluster may have; the least recently used ones
   * are evicted. Used only if this replica writes the first record of the
   * cluster; every other replica follows the log (H4).
   *
   * @default {4096}
   */
  sessionsMax?: number;
  /**
   * Distance of the indexes at which replicas compare their state hashes, the
   * same on every replica; 0 disables the comparison (H12).
   *
   * @default {0}
   */
  hashEntries?: number;
  /**
   * Creates a machine in memory into which entries are replayed, with the same
   * results, the same hash and the same full snapshots. An on-disk machine needs it,
   * since there can be one instance on one disk only: with it a host can find the
   * command after which this replica differs from the trusted one (U32), and an
   * inspector shows earlier states. For the key-value machines it is
   * `() => new KVStateMachine()`. A machine with `prepareSnapshot()` counts as a
   * concurrent machine.
   *
   * @default {the factory of the replica, if its machine is in memory}
   */
  replayMachine?: CreateReplayMachineFunc;
  /**
   * Id of the replica that is right when state hashes differ. Without one, a
   * difference is only reported (H12).
   *
   * @default {the replica that the log names, as a server's log does}
   */
  trustedNode?: bigint;
  /**
   * Number of proposals that may wait for their results; more are rejected with
   * `ErrSystemBusy`.
   *
   * @default {65536}
   */
  pendingProposalsMax?: number;
  /**
   * Size of the commands that may wait for their results, in bytes; more are
   * rejected with `ErrSystemBusy`.
   *
   * @default {67108864}
   */
  pendingBytesMax?: number;
}

/** Validates a configuration; throws a `TypeError` or `RangeError` that names the option. */
export function checkConfig(config: ReplicaConfig): void {
  const checks: OptionChecks<ReplicaConfig> = {
    clusterID: isID(0n),
    nodeID: isID(1n),
    snapshotEntries: optional(isCount()),
    compactionOverhead: optional(isCount()),
    fullSnapshotInterval: optional(isCount()),
    compression: optional(isOneOf("none", "gzip", "deflate-raw")),
    sessionsMax: optional(isCount(1, SESSIONS_MAX)),
    hashEntries: optional(isCount()),
    replayMachine: optional(isFunction),
    trustedNode: optional(isID(1n)),
    pendingProposalsMax: optional(isCount(1)),
    pendingBytesMax: optional(isCount(1)),
  };
  checkOptions("Configuration of a replica", config, checks);
}

/** Validates an id: an unsigned 64-bit number of at least `min`. */
export function checkID(name: string, id: bigint, min: bigint): void {
  isID(min)(name, id);
}
