/**
 * The committed log as a port: what a host needs of whatever puts commands in
 * order, be it memory, a file, or a server at the other end of a wire.
 *
 * Records travel packed, many in one buffer, because a `Uint8Array` of its own
 * costs a microsecond and a slice of a shared one nothing. Within a batch the
 * indexes are consecutive; between batches they may have gaps, so a batch names
 * the index it follows (H15).
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { MaybePromise } from "../statemachine/types.ts";
import type { SnapshotStore } from "../snapshot/store.ts";
import type { Epoch, HistoryPoint } from "./history.ts";

/** Records side by side in one buffer. Nobody may change the bytes once they are given to a log. */
export interface Records {
  /** The records, one behind the other. */
  readonly bytes: Uint8Array;
  /** Where each record ends in `bytes`; the first starts at 0. */
  readonly ends: readonly number[];
}

/** Committed records with consecutive indexes. */
export interface LogBatch {
  /** The index of the last record before this batch, 0 if there is none (H15). */
  readonly follows: number;
  /** The index of the first record. */
  readonly first: number;
  /** The records, at least one. */
  readonly records: Records;
}

/** What `Log.read()` takes besides where to start. */
export interface ReadOptions {
  /** The last epoch the reader knows, at or before where it starts: a log whose last one there is another is refused. */
  readonly epoch?: Epoch | undefined;
  /** Ends the reading; a `next()` that waits rejects with its reason. */
  readonly signal?: AbortSignal | undefined;
}

/** The records after some index, in order, and then each as it is committed. */
export interface LogReader {
  /**
   * The index up to which records were at hand when the reading began: what a
   * start applies before it resolves.
   */
  readonly held: number;
  /**
   * The next batch; waits until there is one. Not called again before the call
   * before it has settled.
   *
   * @throws ErrCompacted if what comes next was cut
   * @throws ErrDiverged if the log turns out to be another one
   */
  next(): MaybePromise<LogBatch>;
  /** Says that all up to `index` is applied, where a log wants to know: one that tells how far its readers are. */
  applied?(index: number): void;
  /** Frees what the reader holds; idempotent. */
  close(): void;
}

/** A promise of the log not to cut what somebody still needs (H7). */
export interface Retention {
  /** Says that only what comes after `index` is needed from now on. */
  move(index: number): void;
  /** Says that nothing is needed any more; idempotent. */
  release(): void;
}

/** What a replica reports of its state at an agreed index, beside the log (H12). */
export interface Checkpoint {
  /** The replica that reports. */
  readonly nodeID: bigint;
  /** The index at which the hashes were taken. */
  readonly index: number;
  /** Hash of the machine's state, undefined for a machine without `getHash()`. */
  readonly state: bigint | undefined;
  /** Version of the form that the state has; 0 if undefined. Hashes of different versions are never compared (H16). */
  readonly stateVersion?: number | undefined;
  /** Hash of the session table. */
  readonly sessions: bigint;
}

/** Where snapshots can be had, but not put. */
export type SnapshotSource = Pick<SnapshotStore, "list" | "open">;

/** Optional part of a log: a board on which replicas compare their hashes (H12). */
export interface CheckpointBoard {
  /** The replica that is right when hashes differ, where the log itself knows it: the server, for a page. */
  readonly trusted?: bigint | undefined;
  /** Puts up a checkpoint for the other replicas to see. */
  publish(checkpoint: Checkpoint): void;
  /** Calls `listener` with every checkpoint of another replica still on the board, and each that comes; returns what ends it. */
  watch(nodeID: bigint, listener: (checkpoint: Checkpoint) => void): () => void;
  /**
   * The hashes the trusted replica has after each entry in (`after`, `upTo`], by
   * replaying them; undefined if it cannot tell.
   */
  explain?(
    after: number,
    upTo: number,
    signal: AbortSignal,
  ): Promise<readonly Omit<Checkpoint, "nodeID">[] | undefined>;
}

/** Optional part of a log: tells whether appends can be stored. */
export interface LogStorage {
  /** Error of the last write, such as an `ErrStoreFull`, while nothing can be stored; undefined otherwise. */
  readonly trouble: unknown;
  /** Calls `listener` with `trouble` whenever that begins or ends; returns what ends the calls. */
  watch(listener: (trouble: unknown) => void): () => void;
}

/** Extent of a log. */
export interface LogInfo {
  /** First index that is kept here, or will be next. */
  readonly first: number;
  /** Last index that is kept here. */
  readonly last: number;
  /** Last index known to be committed; above `last` where the log's home is elsewhere. */
  readonly committed: number;
  /** Size of the records kept here, in bytes, where the log knows it. */
  readonly bytes?: number | undefined;
}

/** The log of one cluster, as opened for one replica. */
export interface Log {
  /**
   * Adds records and returns the index of the first, once all are committed.
   * Calls made one after the other take effect in that order, or not at all.
   * The first append ever puts an epoch record before them (H13). Never retried
   * by the log.
   *
   * @throws ErrUnknownOutcome if they may or may not be committed
   * @throws ErrRecordsRefused if some of them were refused for good; the others are committed
   * @throws ErrClusterClosed if the log was closed; anything else thrown means that nothing was added
   */
  append(records: Records): MaybePromise<number>;
  /**
   * Reads the records after index `after`, checked before the reader is handed out.
   *
   * @throws ErrCompacted if some of them were cut: take a snapshot
   * @throws ErrDiverged if `after` is beyond the last record (D13), or `epoch` is not in this log (H13)
   */
  read(after: number, options?: ReadOptions): MaybePromise<LogReader>;
  /**
   * An index at or above everything committed, anywhere, before the call. Waits
   * for a connection where one is needed, until `signal` aborts (H2).
   */
  readIndex(
    options?: { signal?: AbortSignal | undefined },
  ): MaybePromise<number>;
  /** Keeps the records after `after` from being cut until released. */
  retain(after: number): Retention;
  /**
   * Lets go of the records up to `upTo`, but of none that is retained or not yet
   * read by an open reader (H7). A log ordered elsewhere has no such method.
   */
  compact?(upTo: number): MaybePromise<void>;
  /** An index from which on a snapshot is wanted, where a log can say that it will have to be cut (H7); 0 for none. */
  readonly snapshotFrom?: number | undefined;
  /**
   * Makes an empty log go on after `index`, as a snapshot that is imported does (D13).
   *
   * @throws ErrClusterAlreadyExist if the log is not empty
   */
  startAt(index: number, epoch: Epoch | undefined): MaybePromise<void>;
  /** Whether nothing was ever added. */
  isEmpty(): MaybePromise<boolean>;
  /** Extent of the log, from memory, where it can tell. */
  info?(): LogInfo;
  /**
   * Checks that this is the log that has reached a point of a history, where the
   * log's home is elsewhere. Waits for a connection, until `signal` aborts.
   *
   * @throws ErrOtherHistory if it is not
   */
  verify?(
    point: HistoryPoint,
    options?: { signal?: AbortSignal | undefined },
  ): MaybePromise<void>;
  /**
   * Calls `listener` whenever the log's home is reached again, where that is
   * elsewhere; returns what ends the calls. From then on, what was acknowledged
   * before may be lost: the home may have been put back to an older copy.
   */
  onReopened?(listener: () => void): () => void;
  /**
   * Says why the replica has stopped, or why nothing that is submitted can be
   * sent until the user or the application acts; undefined once it can. A log
   * that reports a state reports this with it.
   */
  block?(cause: unknown): void;
  /** Snapshots of its cluster that are to be had where the log is, if there is such a place: how a replica far behind catches up. */
  readonly snapshots?: SnapshotSource | undefined;
  /** The board for comparing hashes, if the log has one. */
  readonly checkpoints?: CheckpointBoard | undefined;
  /** Tells whether appends can be stored, where they are stored in this process. */
  readonly storage?: LogStorage | undefined;
  /** Gives the log back; what waits in it fails with `ErrClusterClosed`. Idempotent. */
  close(): MaybePromise<void>;
}

/** Logs of clusters. Whoever makes one closes it; a host never closes what it was given. */
export interface LogDB extends AsyncDisposable {
  /**
   * Opens the log of a cluster for one of its replicas.
   *
   * @throws ErrClusterAlreadyExist if that replica has it open already (H11)
   */
  open(clusterID: bigint, nodeID: bigint): MaybePromise<Log>;
  /** Where full snapshots of these clusters are shared, if there is such a place. */
  readonly snapshots?: SnapshotStore | undefined;
  /** True if what is kept here is a copy: the home of these logs is elsewhere. */
  readonly isCopy?: boolean;
  /**
   * Opens what is kept here of the log of a cluster that is not open, and nothing
   * else: no record comes, and none can be added. Where logs are copies.
   */
  openReadOnly?(clusterID: bigint): MaybePromise<Log>;
  /** Clusters of which something is kept here, in order of their ids. */
  clusters?(): MaybePromise<readonly bigint[]>;
  /**
   * Removes everything that is kept here of the log of a cluster. Harmless if
   * there is nothing. Without this method `NodeHost.removeData()` is refused.
   *
   * @throws ErrClusterAlreadyExist if a replica has the log open; nothing is removed
   */
  removeData?(clusterID: bigint): MaybePromise<void>;
  /** Closes the logs; idempotent. */
  close(): Promise<void>;
}
