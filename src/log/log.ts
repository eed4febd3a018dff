/**
 * Port of the committed log: the interface between a host and the log that orders
 * the commands of a cluster, in memory, in a database, or on a server.
 *
 * Records travel packed, many in one buffer, because allocating a `Uint8Array` for
 * each costs a microsecond. Indexes are consecutive within a batch. They may have
 * gaps between batches, so each batch carries the index that it follows (H15).
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { MaybePromise } from "../statemachine/types.ts";
import type { SnapshotInfo, SnapshotStore } from "../snapshot/store.ts";
import type { StoreLease } from "../store/lease.ts";
import type { Epoch, HistoryPoint } from "./history.ts";

/** Records packed into one buffer. The bytes must not be changed once they are passed to a log. */
export interface Records {
  /** Bytes of the records, concatenated. */
  readonly bytes: Uint8Array;
  /** End of each record in `bytes`; the first record starts at 0. */
  readonly ends: readonly number[];
}

/** Committed records with consecutive indexes. */
export interface LogBatch {
  /** Index of the record before this batch, 0 for the first batch (H15). */
  readonly follows: number;
  /** Index of the first record. */
  readonly first: number;
  /** Packed records, at least one. */
  readonly records: Records;
}

/** Options of `Log.read()`. */
export interface ReadOptions {
  /** Last epoch that the reader knows, at or before its start. `read()` fails if the log has another last epoch there. */
  readonly epoch?: Epoch | undefined;
  /** Closes the reader when aborted; a pending `next()` rejects with its reason. */
  readonly signal?: AbortSignal | undefined;
}

/** Stream of committed records in order: first those that exist, then each as it is committed. */
export interface LogReader {
  /**
   * Index of the last record that the log had when the reader was created. A
   * replica applies the records up to it before its start resolves.
   */
  readonly lastAtStart: number;
  /**
   * Returns the next batch, waiting until there is one. Must not be called again
   * before the previous call has settled.
   *
   * @throws ErrCompacted if the next records were compacted
   * @throws ErrDiverged if the log turns out to have another history
   */
  next(): MaybePromise<LogBatch>;
  /** Reports that all records up to `index` are applied, to a log that tracks the progress of its readers. */
  applied?(index: number): void;
  /** Closes the reader; idempotent. */
  close(): void;
}

/** Claim on records that the log must not compact (H7). */
export interface Retention {
  /** Narrows the claim to the records after `index`. */
  move(index: number): void;
  /** Ends the claim; idempotent. */
  release(): void;
}

/** State hashes of a replica at an agreed index, which replicas compare to detect divergence (H12). */
export interface Checkpoint {
  /** Node id of the replica. */
  readonly nodeID: bigint;
  /** Index of the last entry that the hashes cover. */
  readonly index: number;
  /** Hash of the state machine's state, undefined for a machine without `getHash()`. */
  readonly state: bigint | undefined;
  /** State version of the machine, 0 if undefined. Hashes of different state versions are never compared (H16). */
  readonly stateVersion?: number | undefined;
  /** Hash of the session table. */
  readonly sessions: bigint;
}

/** Read-only part of a snapshot store. */
export type SnapshotSource = Pick<SnapshotStore, "list" | "open">;

/** Optional part of a log: exchanges checkpoints between replicas (H12). */
export interface CheckpointBoard {
  /** Node id of the replica whose hashes are authoritative, if the log has one: the server's, for a page. */
  readonly trusted?: bigint | undefined;
  /** Publishes a checkpoint to the other replicas. */
  publish(checkpoint: Checkpoint): void;
  /** Calls `listener` with the recent checkpoints of other replicas and each new one; returns a function that ends the calls. */
  watch(nodeID: bigint, listener: (checkpoint: Checkpoint) => void): () => void;
  /**
   * Asks the trusted replica to replay the entries in (`after`, `upTo`] and returns
   * its hashes after each; undefined if it cannot.
   */
  explain?(
    after: number,
    upTo: number,
    signal: AbortSignal,
  ): Promise<readonly Omit<Checkpoint, "nodeID">[] | undefined>;
}

/** Servers with a live replica on a log that is known to lack a change of behaviour. */
export interface LackingServers {
  /** Names of the servers. */
  readonly servers: readonly string[];
  /** The servers in words, with the code and the changes that each has announced. */
  readonly detail: string;
}

/** Optional part of a log that several replicas append to: the changes of behaviour that the code of each live one knows. */
export interface Announcements {
  /** True if this replica announced itself first of all live ones. */
  readonly isFirst: boolean;
  /** Announces the changes that the code of this replica knows, until its log is closed; undefined while it starts. */
  announce(changes: readonly string[] | undefined): void;
  /** True if all live replicas have announced that they know a change. */
  isKnown(change: string): boolean;
  /** Servers that have announced their changes, and not this one; undefined if none is known. Missing if all are in this process. */
  lacking?(change: string): LackingServers | undefined;
  /** Calls `listener` after each change; returns a function that ends the calls. */
  watch(listener: () => void): () => void;
}

/**
 * Part of a process's turn to append to a log alone, in which everything in the log
 * is known here: what it appends meets exactly the state that it has seen.
 */
export interface LogTurn {
  /** Index up to which others may have appended before: a decision about what to append needs the entries up to it. */
  readonly index: number;
  /** True once something else was appended, or may have been. */
  readonly isOver: boolean;
  /** Appends records as `append()` of the log does, but only while the turn is not over: otherwise it rejects, and they never are in the log. */
  append(records: Records): MaybePromise<number>;
  /** Ends this use of the turn, which may then go to another process; idempotent. */
  leave(): void;
}

/** Wait of a process for its turn to append to a log. */
export interface LogOrderWait {
  /** Time for which it waits, in milliseconds. */
  readonly waitedMs: number;
  /** Name of the server that has the turn; absent while none is known to have it. */
  readonly holder?: string;
  /** Time for which that server is known to have it, in milliseconds. */
  readonly heldMs?: number;
}

/** Optional part of a log that several processes append to: turns in which one of them alone appends. */
export interface LogOrder {
  /** True if this process has the turn. */
  readonly isHeld: boolean;
  /** Wait of this process for its turn, as it is now; undefined while nothing waits for it. */
  readonly wait?: LogOrderWait | undefined;
  /**
   * Waits until this process alone appends, and everything that others have appended was
   * read here. `nodeID` is the replica on whose state the caller decides: one of a
   * process does.
   *
   * @throws ErrOrderShared if another replica decides about the appends, too
   */
  enter(nodeID: bigint): MaybePromise<LogTurn>;
}

/** Optional part of a log: reports whether appends can be stored. */
export interface LogStorage {
  /** Error of the last write, such as an `ErrStoreFull`, while nothing can be stored; undefined otherwise. */
  readonly trouble: unknown;
  /** Calls `listener` with `trouble` whenever it begins or ends; returns a function that ends the calls. */
  watch(listener: (trouble: unknown) => void): () => void;
}

/** Optional part of a LogDB: reports whether the engine that orders its logs can be reached. */
export interface LogQuorum {
  /** Time since which no quorum of the engine was reached, on the clock of the LogDB's `env`; undefined while one is. */
  readonly lostAt: number | undefined;
  /** Calls `listener` whenever the quorum is lost or reached again; returns a function that ends the calls. */
  watch(listener: () => void): () => void;
}

/** Extent of a log. */
export interface LogInfo {
  /** First index stored here, or the next one if the log is empty. */
  readonly first: number;
  /** Last index stored here. */
  readonly last: number;
  /** Last index known to be committed; it may be above `last` if this log is a copy of a remote one. */
  readonly committed: number;
  /** Size of the records stored here, in bytes, if the log knows it. */
  readonly bytes?: number | undefined;
}

/** Log of one cluster, opened for one replica. */
export interface Log {
  /**
   * Appends records; returns the index of the first once all are committed. Calls
   * take effect in the order in which they are made, or not at all. The first
   * append of a process adds an epoch record before them (H13). The log never
   * retries an append.
   *
   * @throws ErrUnknownOutcome if they may or may not be committed
   * @throws ErrRecordsRefused if some of them were rejected permanently; the others are committed
   * @throws ErrClusterClosed if the log was closed; any other error means that nothing was appended
   */
  append(records: Records): MaybePromise<number>;
  /**
   * Creates a reader of the records after index `after`, once it has checked that
   * the log has them.
   *
   * @throws ErrCompacted if some of them were compacted: recover from a snapshot instead
   * @throws ErrDiverged if `after` is beyond the last record (D13), or `epoch` is not in this log (H13)
   */
  read(after: number, options?: ReadOptions): MaybePromise<LogReader>;
  /**
   * Read index: an index at or above every entry committed anywhere before the
   * call. Waits for a connection if it needs one, until `signal` aborts (H2).
   */
  readIndex(
    options?: { signal?: AbortSignal | undefined },
  ): MaybePromise<number>;
  /** Keeps the records after `after` from being compacted until the retention is released. */
  retain(after: number): Retention;
  /**
   * Removes the records up to `upTo`, except those that are retained or that an
   * open reader has not read (H7). Missing if the log is not stored here.
   */
  compact?: ((upTo: number) => MaybePromise<void>) | undefined;
  /** Index from which the log asks for a snapshot, because it has to be compacted soon (H7); 0 if it does not. */
  readonly snapshotFrom?: number | undefined;
  /**
   * Lets an empty log continue after `index`, the index of an imported snapshot (D13).
   *
   * @throws ErrClusterAlreadyExist if the log is not empty
   */
  startAt(index: number, epoch: Epoch | undefined): MaybePromise<void>;
  /** True if nothing was ever appended. */
  isEmpty(): MaybePromise<boolean>;
  /** Extent of the log, read from memory. */
  info?(): LogInfo;
  /**
   * Checks that a remote log has a point of the history known here. Waits for a
   * connection, until `signal` aborts.
   *
   * @throws ErrOtherHistory if it does not
   */
  verify?(
    point: HistoryPoint,
    options?: { signal?: AbortSignal | undefined },
  ): MaybePromise<void>;
  /**
   * Calls `listener` whenever a remote log is reconnected; returns a function that
   * ends the calls. The remote log may since have been restored from an older
   * backup, so records that it acknowledged before may be lost.
   */
  onReopened?(listener: () => void): () => void;
  /**
   * Reports why the replica has stopped, or why submissions cannot be sent until
   * the user or the application acts; undefined once they can. A log with a status
   * includes it there.
   */
  block?(cause: unknown): void;
  /** Requests to the process that keeps this log and its snapshots, while that is another one: this replica takes none then. */
  readonly keeper?: LogKeeper | undefined;
  /**
   * True if a server orders the log.
   *
   * @default {true if the log has `snapshots`}
   */
  readonly isRemote?: boolean | undefined;
  /** Number of times that the log has moved to this process or to another one. */
  readonly turn?: number | undefined;
  /** Principal as which a server has last welcomed this client; null for the anonymous one, undefined before. */
  readonly principal?: string | null | undefined;
  /** Snapshots of the cluster at the remote log, from which a replica recovers that is behind the compacted part. */
  readonly snapshots?: SnapshotSource | undefined;
  /** Exchange of checkpoints, if the log has one. */
  readonly checkpoints?: CheckpointBoard | undefined;
  /** Announcements of the replicas on the log, if it is ordered in this process. */
  readonly announcements?: Announcements | undefined;
  /** Turns in which this process alone appends; missing if no other process does. */
  readonly order?: LogOrder | undefined;
  /** State of the storage, if the log is stored in this process. */
  readonly storage?: LogStorage | undefined;
  /** Closes the log; pending calls fail with `ErrClusterClosed`. Idempotent. */
  close(): MaybePromise<void>;
}

/** Request to a {@linkcode LogKeeper}. */
export interface KeeperRequest {
  /** Aborts the request. */
  readonly signal?: AbortSignal;
  /** Entries that the log keeps before the older of the two full snapshots. */
  readonly compactionOverhead?: number;
}

/** Requests to the process that keeps a log and its snapshots. */
export interface LogKeeper {
  /** Requests a snapshot, and resolves once it is stored. */
  requestSnapshot(options: KeeperRequest): Promise<SnapshotInfo>;
  /** Requests a compaction, and resolves with the index up to which it was requested. */
  requestCompaction(options: KeeperRequest): Promise<number>;
}

/** Snapshot in the store of this server, for another server. */
export interface HeldSnapshot {
  /** Size of the container, in bytes. */
  readonly size: number;
  /** Opens the container's bytes. */
  open(): MaybePromise<ReadableStream<Uint8Array>>;
}

/** Snapshot that this server is fetching from other servers. */
export interface SnapshotFetch {
  /** Id of the cluster. */
  readonly clusterID: bigint;
  /** Index of the last entry in the snapshot. */
  readonly index: number;
  /** Size of its container, in bytes. */
  readonly size: number;
  /** Bytes that have arrived. */
  readonly received: number;
  /** URL of the server that sends them; undefined while none does. */
  readonly from: string | undefined;
}

/** Exchange of snapshots between the servers on the same logs, each of which keeps its own. A snapshot is named by its SHA-256 in hexadecimal digits. */
export interface SnapshotPeers {
  /** True if the token of a request permits to fetch a snapshot. */
  permits(
    clusterID: bigint,
    name: string,
    token: string | undefined,
  ): MaybePromise<boolean>;
  /** Snapshot that this server has announced; undefined if it has not, or no longer has it. */
  find(
    clusterID: bigint,
    name: string,
  ): MaybePromise<HeldSnapshot | undefined>;
  /** Snapshots that this server is fetching. */
  readonly fetching: readonly SnapshotFetch[];
}

/** Logs of clusters. The code that creates a LogDB closes it; a host does not. */
export interface LogDB extends AsyncDisposable {
  /**
   * Opens the log of a cluster for one of its replicas.
   *
   * @throws ErrClusterAlreadyExist if that replica has it open already (H11)
   */
  open(clusterID: bigint, nodeID: bigint): MaybePromise<Log>;
  /**
   * Opens the log of a cluster for the host itself, which imports a snapshot or skips
   * an entry, under a node id that no replica has.
   *
   * @default {`open()`}
   */
  openForHost?(clusterID: bigint, nodeID: bigint): MaybePromise<Log>;
  /** Snapshot store shared by the hosts that share these logs, if there is one. */
  readonly snapshots?: SnapshotStore | undefined;
  /** Exchange of snapshots with the other servers on the same logs, if each keeps its own. */
  readonly peers?: SnapshotPeers | undefined;
  /** Reach of the engine that orders the logs, if it is outside of this process. */
  readonly quorum?: LogQuorum | undefined;
  /** True if the logs are stored remotely and only copied here. */
  readonly isCopy?: boolean;
  /**
   * Opens the local copy of a cluster's log without the remote log: no records
   * arrive, and none can be appended. The log must not be open.
   */
  openReadOnly?(clusterID: bigint): MaybePromise<Log>;
  /** Ids of the clusters that have data here, in ascending order. */
  clusters?(): MaybePromise<readonly bigint[]>;
  /**
   * Removes all data of a cluster's log. Does nothing if it has no data. Without
   * this method `NodeHost.removeData()` fails.
   *
   * @throws ErrClusterAlreadyExist if a replica has the log open; nothing is removed
   */
  removeData?(clusterID: bigint): MaybePromise<void>;
  /** Shares what is stored here between processes under a lease, of which only the holder opens logs; called before the first use. */
  share?(lease: StoreLease): void;
  /** Closes the logs; idempotent. */
  close(): Promise<void>;
}
