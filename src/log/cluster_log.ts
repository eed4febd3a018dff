/**
 * Common part of the logs that are stored in this process: handles, readers and
 * the records they retain, epochs, and the exchange of checkpoints.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  BATCH_BYTES_MAX,
  BATCH_RECORDS_MAX,
  CHECKPOINTS_KEPT,
} from "../limits.ts";
import { chain, isPromise } from "../async.ts";
import type { MaybePromise } from "../statemachine/types.ts";
import {
  ErrClusterAlreadyExist,
  ErrClusterClosed,
  ErrCompacted,
  ErrOtherHistory,
} from "./errors.ts";
import {
  type AnnouncementBoard,
  SharedAnnouncements,
} from "./announcements.ts";
import type {
  Announcements,
  Checkpoint,
  CheckpointBoard,
  Log,
  LogBatch,
  LogInfo,
  LogOrder,
  LogReader,
  LogStorage,
  ReadOptions,
  Records,
  Retention,
} from "./log.ts";
import type { Epoch } from "./history.ts";
import { batchAfter, firstAfter, lastOf } from "./records.ts";

/**
 * Checks that records fit into one batch of a log (H11).
 *
 * @throws RangeError if they do not
 */
export function checkRecords({ bytes, ends }: Records): void {
  if (
    ends.length === 0 || ends.length > BATCH_RECORDS_MAX ||
    bytes.length > BATCH_BYTES_MAX || ends.at(-1) !== bytes.length
  ) {
    throw new RangeError(
      `Batch of ${ends.length} records and ${bytes.length} bytes is outside the limits of ${BATCH_RECORDS_MAX} records and ${BATCH_BYTES_MAX} bytes`,
    );
  }
}

/** Batches in memory, in order of their indexes. */
export class Batches {
  /** Batches, oldest first. */
  all: LogBatch[] = [];

  /** Part after index `after` of the batch that contains the next record; undefined if there is no such batch. */
  after(after: number): LogBatch | undefined {
    const { all } = this;
    // A reader that keeps up needs the newest batch.
    const newest = all.at(-1);
    if (newest === undefined || after >= lastOf(newest)) return undefined;
    if (newest.first <= after + 1) return batchAfter(newest, after);
    const found = all[firstAfter(all, lastOf, after)]!;
    return found.first <= after + 1 ? batchAfter(found, after) : undefined;
  }

  /** Removes the batches that end at or below `upTo`; returns the last index removed, if any. */
  compact(upTo: number): number | undefined {
    const count = firstAfter(this.all, lastOf, upTo);
    if (count === 0) return undefined;
    const last = lastOf(this.all[count - 1]!);
    this.all = this.all.slice(count);
    return last;
  }
}

/** Batches that were read ahead for a reader. */
export interface ReadAhead {
  /** Consecutive batches. */
  batches: LogBatch[];
  /** Ends the reading ahead; set while it is under way. */
  close?: (() => void) | undefined;
}

/** Storage state of one log, reported to its replicas. */
export class StorageState implements LogStorage {
  #trouble: unknown;
  readonly #listeners = new Set<(trouble: unknown) => void>();

  /** Error of the last write while nothing can be stored; undefined otherwise. */
  get trouble(): unknown {
    return this.#trouble;
  }

  /** Records the error of the last write, or that it succeeded. */
  set(trouble: unknown): void {
    const isChange = (trouble === undefined) !== (this.#trouble === undefined);
    this.#trouble = trouble;
    if (!isChange) return;
    for (const listener of [...this.#listeners]) listener(trouble);
  }

  /** Implements {@linkcode LogStorage.watch}. */
  watch(listener: (trouble: unknown) => void): () => void {
    const own = (trouble: unknown): void => listener(trouble);
    this.#listeners.add(own);
    return () => void this.#listeners.delete(own);
  }
}

/** Log of one cluster, shared by its replicas in this process. */
export abstract class ClusterLog {
  /** Node ids of the replicas that have the log open. */
  readonly nodes: Set<bigint> = new Set();
  /** Claims of readers and retentions: records after the lowest index are not compacted. */
  readonly needs: Set<{ readonly after: number }> = new Set();
  /** Callbacks of readers that wait for the next append. */
  readonly waiting: Set<() => void> = new Set();
  /** Exchange of checkpoints between replicas. */
  readonly board: CheckpointBoard = new MemoryCheckpointBoard();
  /** Announcements of the replicas. */
  readonly announcements: AnnouncementBoard = new SharedAnnouncements();
  /** Turns in which this process alone appends, if others may append, too. */
  declare readonly order: LogOrder | undefined;
  /** Reports whether appends can be stored. */
  readonly storage: StorageState = new StorageState();
  /** Known epochs, oldest first. */
  protected epochs: Epoch[] = [];

  /** Index of the last record. */
  abstract get last(): number;
  /** First index that the log has, or will have next. */
  abstract get first(): number;
  /** True if nothing was ever appended. */
  abstract get isEmpty(): boolean;
  /** Size of the records, in bytes. */
  abstract get bytes(): number;
  /** Implements {@linkcode Log.append}. */
  abstract append(records: Records): MaybePromise<number>;
  /**
   * Returns the batch after index `after`, undefined if it does not exist yet.
   *
   * @throws ErrCompacted if it was compacted
   */
  abstract batch(
    after: number,
    ahead: ReadAhead,
  ): MaybePromise<LogBatch | undefined>;
  /** Implements {@linkcode Log.compact}. */
  abstract compact(upTo: number): MaybePromise<void>;
  /** Implements {@linkcode Log.startAt}. */
  abstract startAt(
    index: number,
    epoch: Epoch | undefined,
  ): MaybePromise<void>;
  /** Waits for the writes under way. */
  settled(): MaybePromise<void> {}
  /**
   * Called before the extent of the log is looked at: brings it up to date, if
   * other processes append to the log, and the epochs that are known at `after`.
   */
  refresh(
    _after?: number,
    _signal?: AbortSignal,
  ): MaybePromise<void> {}
  /** Called when the last replica has closed the log. */
  released(): void {}

  /**
   * Checks that the log continues the history of a reader at index `after` whose
   * last epoch is `epoch` (D13, H13).
   *
   * @throws ErrOtherHistory if it does not
   * @throws ErrCompacted if the next record was compacted
   */
  check(after: number, epoch: Epoch | undefined): void {
    if (after > this.last) {
      throw new ErrOtherHistory(
        `Log ends at index ${this.last}, before index ${after}, which was applied here`,
        { upTo: this.last + 1, known: { index: after, epoch } },
      );
    }
    const isCompacted = after + 1 < this.first;
    // Compare with the last epoch, not with any: a log that was restored and has
    // grown since has all earlier epochs, and one more (U33).
    const known = this.epochs.findLast(({ index }) => index <= after);
    if (
      epoch !== undefined &&
      !(known?.index === epoch.index && known.id === epoch.id) &&
      // Epochs of the compacted part may have been dropped with it.
      !(isCompacted && epoch.index < (this.epochs[0]?.index ?? 0))
    ) {
      throw new ErrOtherHistory(
        `Log does not have epoch ${epoch.id} at ${epoch.index} as its last one at or before ${after}`,
        { upTo: epoch.index, known: { index: after, epoch } },
      );
    }
    if (isCompacted) throw new ErrCompacted(this.first);
  }

  /** True if the empty log starts at its beginning, or already at `index` and `epoch`. */
  mayStartAt(index: number, epoch: Epoch | undefined): boolean {
    const [known] = this.epochs;
    return this.last === 0 ||
      (this.last === index && known?.index === epoch?.index &&
        known?.id === epoch?.id);
  }

  /** Wakes the waiting readers. */
  protected wake(): void {
    // A reader that wakes may wait again, so the set is emptied first.
    const waiting = [...this.waiting];
    this.waiting.clear();
    for (const wake of waiting) wake();
  }

  /** Highest index at or below `upTo` whose record no reader or retention needs. */
  protected unneeded(upTo: number): number {
    for (const need of this.needs) upTo = Math.min(upTo, need.after);
    return upTo;
  }
}

/** Newest checkpoints of one cluster, in memory. */
export class MemoryCheckpointBoard implements CheckpointBoard {
  #checkpoints: Checkpoint[] = [];
  readonly #watchers = new Set<
    { nodeID: bigint; listener: (checkpoint: Checkpoint) => void }
  >();

  /** Publishes a checkpoint. */
  publish(checkpoint: Checkpoint): void {
    this.#checkpoints.push(checkpoint);
    if (this.#checkpoints.length > CHECKPOINTS_KEPT) this.#checkpoints.shift();
    for (const watcher of [...this.#watchers]) {
      if (watcher.nodeID !== checkpoint.nodeID) watcher.listener(checkpoint);
    }
  }

  /** Calls `listener` with the checkpoints of other replicas; returns a function that ends the calls. */
  watch(
    nodeID: bigint,
    listener: (checkpoint: Checkpoint) => void,
  ): () => void {
    const watcher = { nodeID, listener };
    this.#watchers.add(watcher);
    for (const checkpoint of [...this.#checkpoints]) {
      if (checkpoint.nodeID !== nodeID) listener(checkpoint);
    }
    return () => this.#watchers.delete(watcher);
  }
}

function closedReader(): ErrClusterClosed {
  return new ErrClusterClosed("LogReader is closed");
}

class ClusterLogReader implements LogReader {
  readonly lastAtStart: number;
  readonly #cluster: ClusterLog;
  readonly #need: { after: number };
  readonly #ahead: ReadAhead = { batches: [] };
  readonly #signal: AbortSignal | undefined;
  readonly #onEnd: (reader: ClusterLogReader) => void;
  #reject: ((reason: unknown) => void) | undefined;
  #isEnded = false;
  readonly #aborted = (): void => this.#end(this.#signal!.reason);

  constructor(
    cluster: ClusterLog,
    after: number,
    signal: AbortSignal | undefined,
    onEnd: (reader: ClusterLogReader) => void,
  ) {
    this.lastAtStart = cluster.last;
    this.#onEnd = onEnd;
    this.#cluster = cluster;
    this.#need = { after };
    this.#signal = signal;
    cluster.needs.add(this.#need);
    signal?.addEventListener("abort", this.#aborted);
    if (signal?.aborted) this.#aborted();
  }

  next(): MaybePromise<LogBatch> {
    if (this.#isEnded) throw this.#signal?.reason ?? closedReader();
    const batch = this.#cluster.batch(this.#need.after, this.#ahead);
    if (batch === undefined) return this.#wait();
    return isPromise(batch) ? this.#fetch(batch) : this.#deliver(batch);
  }

  #deliver(batch: LogBatch): LogBatch {
    this.#need.after = lastOf(batch);
    if (this.#cluster.nodes.size < 2) return batch;
    // A machine that modifies its commands must not modify those of other replicas.
    const { bytes, ends } = batch.records;
    return { ...batch, records: { bytes: bytes.slice(), ends } };
  }

  #fetch(batch: Promise<LogBatch | undefined>): Promise<LogBatch> {
    return new Promise((resolve, reject) => {
      this.#reject = reject;
      batch.then(
        (batch) => {
          if (!this.#isEnded) {
            resolve(batch ? this.#deliver(batch) : this.#wait());
          }
        },
        reject,
      );
    });
  }

  #wait(): Promise<LogBatch> {
    return new Promise((resolve, reject) => {
      const wake = (): void => {
        this.#reject = undefined;
        try {
          resolve(this.next());
        } catch (error) {
          // The next record was compacted: fail the reader, not the append that woke it.
          reject(error);
        }
      };
      this.#reject = (reason) => {
        this.#cluster.waiting.delete(wake);
        reject(reason);
      };
      this.#cluster.waiting.add(wake);
    });
  }

  /** Ends the reader; without a reason it was closed. */
  #end(reason?: unknown): void {
    this.#isEnded = true;
    this.#onEnd(this);
    this.#cluster.needs.delete(this.#need);
    this.#signal?.removeEventListener("abort", this.#aborted);
    this.#ahead.close?.();
    this.#ahead.batches = [];
    this.#reject?.(reason ?? closedReader());
  }

  close(): void {
    this.#end();
  }
}

class LogHandle implements Log {
  readonly #cluster: ClusterLog;
  readonly #nodeID: bigint;
  readonly #onClose: (log: LogHandle) => void;
  readonly #readers = new Set<ClusterLogReader>();
  readonly #retentions = new Set<() => void>();
  #announcements: Announcements | undefined;
  #closed = false;

  constructor(
    cluster: ClusterLog,
    nodeID: bigint,
    onClose: (log: LogHandle) => void,
  ) {
    this.#cluster = cluster;
    this.#nodeID = nodeID;
    this.#onClose = onClose;
    cluster.nodes.add(nodeID);
  }

  get checkpoints(): CheckpointBoard {
    return this.#cluster.board;
  }

  get storage(): LogStorage {
    return this.#cluster.storage;
  }

  get order(): LogOrder | undefined {
    return this.#cluster.order;
  }

  get announcements(): Announcements {
    return this.#announcements ??= this.#cluster.announcements.of(this);
  }

  #check(): ClusterLog {
    if (this.#closed) {
      throw new ErrClusterClosed("Log is closed; call open() again");
    }
    return this.#cluster;
  }

  append(records: Records): MaybePromise<number> {
    checkRecords(records);
    return this.#check().append(records);
  }

  read(after: number, options: ReadOptions = {}): MaybePromise<LogReader> {
    const refreshed = this.#check().refresh(after, options.signal);
    return chain(refreshed, () => this.#read(after, options));
  }

  #read(after: number, options: ReadOptions): LogReader {
    const cluster = this.#check();
    cluster.check(after, options.epoch);
    const reader = new ClusterLogReader(
      cluster,
      after,
      options.signal,
      (reader) => this.#readers.delete(reader),
    );
    if (!options.signal?.aborted) this.#readers.add(reader);
    return reader;
  }

  readIndex(
    options: { signal?: AbortSignal | undefined } = {},
  ): MaybePromise<number> {
    const refreshed = this.#check().refresh(undefined, options.signal);
    return chain(refreshed, () => this.#check().last);
  }

  retain(after: number): Retention {
    const { needs } = this.#check();
    const need = { after };
    const release = (): void => {
      needs.delete(need);
      this.#retentions.delete(release);
    };
    needs.add(need);
    this.#retentions.add(release);
    return { move: (index) => void (need.after = index), release };
  }

  compact(upTo: number): MaybePromise<void> {
    return this.#check().compact(upTo);
  }

  startAt(index: number, epoch: Epoch | undefined): MaybePromise<void> {
    const refreshed = this.#check().refresh();
    return chain(refreshed, () => this.#startAt(index, epoch));
  }

  #startAt(index: number, epoch: Epoch | undefined): MaybePromise<void> {
    const cluster = this.#check();
    // The start must not move under a reader, nor a second time.
    if (
      !cluster.isEmpty || cluster.nodes.size > 1 ||
      !cluster.mayStartAt(index, epoch)
    ) {
      throw new ErrClusterAlreadyExist(
        `Log has records up to ${cluster.last}, or another replica has it open; import before the cluster is started`,
      );
    }
    return cluster.startAt(index, epoch);
  }

  isEmpty(): MaybePromise<boolean> {
    const cluster = this.#check();
    return chain(cluster.refresh(), () => cluster.isEmpty);
  }

  info(): LogInfo {
    const { first, last, bytes } = this.#cluster;
    return { first, last, committed: last, bytes };
  }

  close(): MaybePromise<void> {
    if (!this.#closed) {
      this.#closed = true;
      this.#cluster.announcements.remove(this);
      for (const reader of [...this.#readers]) reader.close();
      for (const release of [...this.#retentions]) release();
      this.#cluster.nodes.delete(this.#nodeID);
      this.#onClose(this);
      if (this.#cluster.nodes.size === 0) this.#cluster.released();
    }
    return this.#cluster.settled();
  }
}

/**
 * Checks that no replica has a log open, before its data is removed.
 *
 * @throws ErrClusterAlreadyExist if one has
 */
export function checkUnused(
  clusterID: bigint,
  nodes: Iterable<unknown> = [],
): void {
  const open = [...nodes];
  if (open.length === 0) return;
  throw new ErrClusterAlreadyExist(
    `Replica ${
      open.join(" and ")
    } of cluster ${clusterID} has the log open: stop it before its data is removed`,
  );
}

/** Open logs of a LogDB. */
export class OpenLogs {
  readonly #open = new Set<LogHandle>();

  /**
   * Opens the log of a cluster for one of its replicas.
   *
   * @throws ErrClusterAlreadyExist if that replica has it open already
   */
  add(cluster: ClusterLog, clusterID: bigint, nodeID: bigint): Log {
    if (cluster.nodes.has(nodeID)) {
      throw new ErrClusterAlreadyExist(
        `Replica ${nodeID} of cluster ${clusterID} has the log open already`,
      );
    }
    const log = new LogHandle(cluster, nodeID, (log) => this.#open.delete(log));
    this.#open.add(log);
    return log;
  }

  /** Closes every open log. */
  async close(): Promise<void> {
    await Promise.all([...this.#open].map((log) => log.close()));
  }
}
