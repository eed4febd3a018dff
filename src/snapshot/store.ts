/**
 * Where snapshots are kept, as a port.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { MaybePromise } from "../statemachine/types.ts";
import type { Epoch } from "../log/history.ts";
import type { Type } from "../statemachine/types.ts";

/** Hash of a machine's state, and the version of the form that the state had. */
export interface StateHash {
  /** Value of `getHash()`. */
  readonly hash: bigint;
  /** The machine's `stateVersion`, 0 for a machine without: hashes of different versions are never compared (H16). */
  readonly version: number;
}

/** What is known of a snapshot before it is made: the header of its container. */
export interface SnapshotHeader {
  /** The cluster it is a snapshot of. */
  readonly clusterID: bigint;
  /** The replica that made it. */
  readonly nodeID: bigint;
  /** The kind of machine that wrote the payload. */
  readonly type: Type;
  /** `full` holds the state; `metadata` only the index and the sessions, and means something only to the replica that made it (D10). */
  readonly kind: "full" | "metadata";
  /** The index of the last entry the state contains. */
  readonly index: number;
  /** The last epoch at or before that index, if there is one (H13). */
  readonly epoch?: Epoch | undefined;
  /** How payload and files are compressed. */
  readonly compression: "none" | "gzip" | "deflate-raw";
  /** Hash of the state, if its machine has one: a recovery that ends in another state is refused (H16). It is in the container; `list()` may leave it out. */
  readonly stateHash?: StateHash | undefined;
}

/** A snapshot that is complete and can be read. */
export interface SnapshotInfo extends SnapshotHeader {
  /** Identifies it in its store. */
  readonly id: string;
  /** Size of the container, in bytes. */
  readonly size: number;
  /** How many external files are in it. */
  readonly files: number;
  /** Whether it came from another host by import, not from a replica of this store. */
  readonly imported: boolean;
}

/** What is known of a snapshot once its container is written. */
export interface SnapshotTotals {
  /** How many external files are in it. */
  readonly files: number;
}

/** A snapshot on its way into a store; not visible before `commit()`. */
export interface SnapshotSink {
  /** Takes the container's bytes. */
  readonly writable: WritableStream<Uint8Array>;
  /**
   * Makes the snapshot visible, after `writable` was closed. It replaces one
   * that says the same ({@linkcode isSameSnapshot}): if that is made again, the
   * old one may be damaged.
   */
  commit(totals: SnapshotTotals): MaybePromise<SnapshotInfo>;
  /** Drops what was written, and fails `writable` if it is still open; harmless after `commit()`. Idempotent. */
  abort(reason?: unknown): MaybePromise<void>;
}

/**
 * Whether a store keeps only one of the two: full snapshots of a cluster at one
 * index hold the same state whoever made them, metadata is a replica's own.
 */
export function isSameSnapshot(a: SnapshotHeader, b: SnapshotHeader): boolean {
  return a.clusterID === b.clusterID && a.index === b.index &&
    a.kind === b.kind && (a.kind === "full" || a.nodeID === b.nodeID);
}

/** Sorts as `list()` does: the highest index first, and of one index full before metadata. */
export function compareSnapshots(a: SnapshotHeader, b: SnapshotHeader): number {
  return b.index - a.index ||
    Number(b.kind === "full") - Number(a.kind === "full");
}

/** Snapshots of clusters. Whoever makes one closes it; a host never closes what it was given. */
export interface SnapshotStore extends AsyncDisposable {
  /** Begins a snapshot. */
  create(
    header: SnapshotHeader,
    options?: { readonly imported?: boolean },
  ): MaybePromise<SnapshotSink>;
  /** The complete snapshots of a cluster, the one with the highest index first; of one index, full before metadata, and the latest made first. */
  list(clusterID: bigint): MaybePromise<readonly SnapshotInfo[]>;
  /**
   * The container's bytes; a stream that was opened can be read to its end also
   * when the snapshot is removed meanwhile.
   *
   * @throws ErrSnapshotNotFound if it is not, or no longer, there
   */
  open(info: SnapshotInfo): MaybePromise<ReadableStream<Uint8Array>>;
  /** Removes a snapshot; harmless when it is gone already. */
  remove(info: SnapshotInfo): MaybePromise<void>;
  /** Clusters that have a snapshot here, in order of their ids, where the store can tell. */
  clusters?(): MaybePromise<readonly bigint[]>;
  /** Frees what the store holds, after which its other methods fail; idempotent. */
  close(): Promise<void>;
}

/** Clusters of a list of snapshots, in order of their ids. */
export function clustersOf(
  snapshots: Iterable<SnapshotHeader>,
): readonly bigint[] {
  const found = new Set<bigint>();
  for (const { clusterID } of snapshots) found.add(clusterID);
  return [...found].sort((a, b) => a < b ? -1 : 1);
}
