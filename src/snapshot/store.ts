/**
 * Port of the snapshot store.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { MaybePromise } from "../statemachine/types.ts";
import type { Epoch } from "../log/history.ts";
import type { StoreLease } from "../store/lease.ts";
import type { Type } from "../statemachine/types.ts";

/** Hash of a state machine's state, with its state version. */
export interface StateHash {
  /** Value returned by `getHash()`. */
  readonly hash: bigint;
  /** The machine's `stateVersion`, 0 without one. Hashes of different state versions are never compared (H16). */
  readonly version: number;
}

/** Header of a snapshot's container, known before it is written. */
export interface SnapshotHeader {
  /** Id of the cluster. */
  readonly clusterID: bigint;
  /** Node id of the replica that created the snapshot. */
  readonly nodeID: bigint;
  /** Type of the state machine that wrote the payload. */
  readonly type: Type;
  /** `full` has the state; `metadata` has only the index and the sessions, and is of use only to the replica that created it (D10). */
  readonly kind: "full" | "metadata";
  /** Index of the last entry in the state. */
  readonly index: number;
  /** Last epoch at or before `index`, if any (H13). */
  readonly epoch?: Epoch | undefined;
  /** Compression of payload and files. */
  readonly compression: "none" | "gzip" | "deflate-raw";
  /** Hash of the state, if its machine has one: a recovery that leads to another state fails (H16). Part of the container; `list()` may omit it. */
  readonly stateHash?: StateHash | undefined;
}

/** Complete snapshot in a store. */
export interface SnapshotInfo extends SnapshotHeader {
  /** Identifies the snapshot in its store. */
  readonly id: string;
  /** Size of the container, in bytes. */
  readonly size: number;
  /** Number of external files. */
  readonly files: number;
  /** True if it was imported from another host rather than created by a replica of this store. */
  readonly imported: boolean;
}

/** Totals of a snapshot, known once its container is written. */
export interface SnapshotTotals {
  /** Number of external files. */
  readonly files: number;
}

/** Snapshot that is being written to a store; invisible until `commit()`. */
export interface SnapshotSink {
  /** Stream for the container's bytes. */
  readonly writable: WritableStream<Uint8Array>;
  /**
   * Makes the snapshot visible, after `writable` was closed. It replaces an equal
   * one ({@linkcode isSameSnapshot}), which may be damaged.
   */
  commit(totals: SnapshotTotals): MaybePromise<SnapshotInfo>;
  /** Discards the written bytes, and fails `writable` if it is still open. Idempotent, and without effect after `commit()`. */
  abort(reason?: unknown): MaybePromise<void>;
}

/**
 * True if a store keeps only one of the two snapshots. Full snapshots of a cluster at
 * the same index are equal whichever replica created them; a metadata snapshot
 * belongs to its replica.
 */
export function isSameSnapshot(a: SnapshotHeader, b: SnapshotHeader): boolean {
  return a.clusterID === b.clusterID && a.index === b.index &&
    a.kind === b.kind && (a.kind === "full" || a.nodeID === b.nodeID);
}

/** Compares snapshots for the order of `list()`: highest index first, then full before metadata. */
export function compareSnapshots(a: SnapshotHeader, b: SnapshotHeader): number {
  return b.index - a.index ||
    Number(b.kind === "full") - Number(a.kind === "full");
}

/** Snapshots of clusters. The code that creates a store closes it; a host does not. */
export interface SnapshotStore extends AsyncDisposable {
  /** Begins writing a snapshot. */
  create(
    header: SnapshotHeader,
    options?: { readonly imported?: boolean },
  ): MaybePromise<SnapshotSink>;
  /** Complete snapshots of a cluster: highest index first, then full before metadata, then newest first. */
  list(clusterID: bigint): MaybePromise<readonly SnapshotInfo[]>;
  /**
   * Opens the container's bytes. An open stream is not affected if the snapshot is
   * removed.
   *
   * @throws ErrSnapshotNotFound if it is not in the store, or was removed
   */
  open(info: SnapshotInfo): MaybePromise<ReadableStream<Uint8Array>>;
  /** Removes a snapshot; does nothing if it was removed before. */
  remove(info: SnapshotInfo): MaybePromise<void>;
  /**
   * True if this process stores the snapshots that are due: of those that share a store
   * one does. It takes that duty if no other process has it; with `onlyLook` it takes
   * nothing.
   *
   * @default {always true}
   */
  isOnDuty?(onlyLook?: boolean): MaybePromise<boolean>;
  /** Ids of the clusters that have a snapshot here, in ascending order, if the store can list them. */
  clusters?(): MaybePromise<readonly bigint[]>;
  /** Shares the store between processes under a lease, of which only the holder uses it; called before the first use. */
  share?(lease: StoreLease): void;
  /** Closes the store, after which its other methods fail; idempotent. */
  close(): Promise<void>;
}

/** Ids of the clusters of a list of snapshots, in ascending order. */
export function clustersOf(
  snapshots: Iterable<SnapshotHeader>,
): readonly bigint[] {
  const found = new Set<bigint>();
  for (const { clusterID } of snapshots) found.add(clusterID);
  return [...found].sort((a, b) => a < b ? -1 : 1);
}
