/**
 * What every log kept in this process has in common, wherever its batches are:
 * handles and readers, what they still need of it, epochs, and the board of
 * checkpoints.
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
import { isPromise } from "../async.ts";
import type { MaybePromise } from "../statemachine/types.ts";
import {
  ErrClusterAlreadyExist,
  ErrClusterClosed,
  ErrCompacted,
  ErrOtherHistory,
} from "./errors.ts";
import type {
  Checkpoint,
  CheckpointBoard,
  Log,
  LogBatch,
  LogInfo,
  LogReader,
  LogStorage,
  ReadOptions,
  Records,
  Retention,
} from "./log.ts";
import type { Epoch } from "./history.ts";
import { batchAfter, firstAfter, lastOf } from "./records.ts";

/** Refuses, with a `RangeError`, records no log may take in one batch (H11). */
export function checkRecords({ bytes, ends }: Records): void {
  if (
    ends.length === 0 || ends.length > BATCH_RECORDS_MAX ||
    bytes.length > BATCH_BYTES_MAX || ends.at(-1) !== bytes.length
  ) {
    throw new RangeError(
      `Batch of ${ends.length} records and ${bytes.length} bytes is out of bounds`,
    );
  }
}

/** Batches in memory, each following the one before it. */
export class Batches {
  /** The batches, oldest first. */
  all: LogBatch[] = [];

  /** The batch that holds what comes after index `after`, cut to that; undefined if none here does. */
  after(after: number): LogBatch | undefined {
    const { all } = this;
    // A reader that keeps up wants the newest one.
    const newest = all.at(-1);
    if (newest === undefined || after >= lastOf(newest)) return undefined;
    if (newest.first <= after + 1) return batchAfter(newest, after);
    const found = all[firstAfter(all, lastOf, after)]!;
    return found.first <= after + 1 ? batchAfter(found, after) : undefined;
  }

  /** Lets go of the batches that end at or below `upTo`; returns where the last of them ended, if there was one. */
  cut(upTo: number): number | undefined {
    const count = firstAfter(this.all, lastOf, upTo);
    if (count === 0) return undefined;
    const last = lastOf(this.all[count - 1]!);
    this.all = this.all.slice(count);
    return last;
  }
}

/** Batches a reader has at hand before it asks for them. */
export interface ReadAhead {
  /** They follow each other. */
  batches: LogBatch[];
}

/** Storage of one log as its replicas see it. */
export class StorageState implements LogStorage {
  #trouble: unknown;
  readonly #listeners = new Set<(trouble: unknown) => void>();

  /** Error of the last write while nothing can be stored; undefined otherwise. */
  get trouble(): unknown {
    return this.#trouble;
  }

  /** Takes in how the last write went. */
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

/** What the replicas of one cluster share of its log. */
export abstract class ClusterLog {
  /** The replicas that have it open. */
  readonly nodes: Set<bigint> = new Set();
  /** What must not be cut: of each that holds some of it, the index after which. */
  readonly needs: Set<{ readonly after: number }> = new Set();
  /** Readers to be told when there is more. */
  readonly waiting: Set<() => void> = new Set();
  /** Where replicas compare their hashes. */
  readonly board: CheckpointBoard = new MemoryCheckpointBoard();
  /** Tells whether appends can be stored. */
  readonly storage: StorageState = new StorageState();
  /** The epochs it knows, oldest first. */
  protected epochs: Epoch[] = [];

  /** The index of the last record. */
  abstract get last(): number;
  /** The first index it has, or will have next. */
  abstract get first(): number;
  /** Whether nothing was ever added. */
  abstract get isEmpty(): boolean;
  /** Size of what is kept, in bytes. */
  abstract get bytes(): number;
  /** As {@linkcode Log.append}. */
  abstract append(records: Records): MaybePromise<number>;
  /** The batch after index `after`, if there is one; what was cut is `ErrCompacted`. */
  abstract batch(
    after: number,
    ahead: ReadAhead,
  ): MaybePromise<LogBatch | undefined>;
  /** As {@linkcode Log.compact}. */
  abstract compact(upTo: number): MaybePromise<void>;
  /** As {@linkcode Log.startAt}. */
  abstract startAt(
    index: number,
    epoch: Epoch | undefined,
  ): MaybePromise<void>;
  /** Waits for what is under way. */
  settled(): MaybePromise<void> {}

  /** Refuses to read after `after` for one whose last epoch is `epoch` (D13, H13). */
  check(after: number, epoch: Epoch | undefined): void {
    if (after > this.last) {
      throw new ErrOtherHistory(
        `Log ends at ${this.last}, before index ${after}, which is known here`,
        { upTo: this.last + 1, known: { index: after, epoch } },
      );
    }
    const isCut = after + 1 < this.first;
    // The last one there is, not any: a log that was set back and has grown again
    // has all its epochs from before, and one more (U33).
    const known = this.epochs.findLast(({ index }) => index <= after);
    if (
      epoch !== undefined &&
      !(known?.index === epoch.index && known.id === epoch.id) &&
      // An epoch from before what is kept may have been forgotten with it.
      !(isCut && epoch.index < (this.epochs[0]?.index ?? 0))
    ) {
      throw new ErrOtherHistory(
        `Log does not have epoch ${epoch.id} at ${epoch.index} as its last one at or before ${after}`,
        { upTo: epoch.index, known: { index: after, epoch } },
      );
    }
    if (isCut) throw new ErrCompacted(this.first);
  }

  /** Whether the log, to which nothing was added, starts at its beginning or after that very index already. */
  mayStartAt(index: number, epoch: Epoch | undefined): boolean {
    const [known] = this.epochs;
    return this.last === 0 ||
      (this.last === index && known?.index === epoch?.index &&
        known?.id === epoch?.id);
  }

  /** Wakes the readers that wait. */
  protected wake(): void {
    // Those who wake may wait again, so the set is emptied first.
    const waiting = [...this.waiting];
    this.waiting.clear();
    for (const wake of waiting) wake();
  }

  /** How much of what comes up to `upTo` nobody needs any more. */
  protected unneeded(upTo: number): number {
    for (const need of this.needs) upTo = Math.min(upTo, need.after);
    return upTo;
  }
}

/** The checkpoints of one cluster in memory, the newest of them. */
export class MemoryCheckpointBoard implements CheckpointBoard {
  #checkpoints: Checkpoint[] = [];
  readonly #watchers = new Set<
    { nodeID: bigint; listener: (checkpoint: Checkpoint) => void }
  >();

  /** Puts up a checkpoint. */
  publish(checkpoint: Checkpoint): void {
    this.#checkpoints.push(checkpoint);
    if (this.#checkpoints.length > CHECKPOINTS_KEPT) this.#checkpoints.shift();
    for (const watcher of [...this.#watchers]) {
      if (watcher.nodeID !== checkpoint.nodeID) watcher.listener(checkpoint);
    }
  }

  /** Tells of the checkpoints of other replicas; returns what ends that. */
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

class ClusterLogReader implements LogReader {
  readonly held: number;
  readonly #cluster: ClusterLog;
  readonly #need: { after: number };
  readonly #ahead: ReadAhead = { batches: [] };
  readonly #signal: AbortSignal | undefined;
  readonly #onEnd: (reader: ClusterLogReader) => void;
  readonly #closed = new ErrClusterClosed("Reader of the log is closed");
  #reject: ((reason: unknown) => void) | undefined;
  #over = false;
  readonly #aborted = (): void => this.#end(this.#signal!.reason);

  constructor(
    cluster: ClusterLog,
    after: number,
    signal: AbortSignal | undefined,
    onEnd: (reader: ClusterLogReader) => void,
  ) {
    this.held = cluster.last;
    this.#onEnd = onEnd;
    this.#cluster = cluster;
    this.#need = { after };
    this.#signal = signal;
    cluster.needs.add(this.#need);
    signal?.addEventListener("abort", this.#aborted);
    if (signal?.aborted) this.#aborted();
  }

  next(): MaybePromise<LogBatch> {
    if (this.#over) throw this.#signal?.reason ?? this.#closed;
    const batch = this.#cluster.batch(this.#need.after, this.#ahead);
    if (batch === undefined) return this.#wait();
    return isPromise(batch) ? this.#fetch(batch) : this.#take(batch);
  }

  #take(batch: LogBatch): LogBatch {
    this.#need.after = lastOf(batch);
    if (this.#cluster.nodes.size < 2) return batch;
    // A machine that writes into its commands must not change those of others.
    const { bytes, ends } = batch.records;
    return { ...batch, records: { bytes: bytes.slice(), ends } };
  }

  #fetch(batch: Promise<LogBatch | undefined>): Promise<LogBatch> {
    return new Promise((resolve, reject) => {
      this.#reject = reject;
      batch.then(
        (batch) => {
          if (!this.#over) resolve(batch ? this.#take(batch) : this.#wait());
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
          // What comes next was cut; whoever appends is not to hear of it.
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

  #end(reason: unknown): void {
    this.#over = true;
    this.#onEnd(this);
    this.#cluster.needs.delete(this.#need);
    this.#signal?.removeEventListener("abort", this.#aborted);
    this.#ahead.batches = [];
    this.#reject?.(reason);
  }

  close(): void {
    this.#end(this.#closed);
  }
}

class LogHandle implements Log {
  readonly #cluster: ClusterLog;
  readonly #nodeID: bigint;
  readonly #onClose: (log: LogHandle) => void;
  readonly #readers = new Set<ClusterLogReader>();
  readonly #retentions = new Set<() => void>();
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

  #check(): ClusterLog {
    if (this.#closed) throw new ErrClusterClosed("Log is closed");
    return this.#cluster;
  }

  append(records: Records): MaybePromise<number> {
    checkRecords(records);
    return this.#check().append(records);
  }

  read(after: number, options: ReadOptions = {}): LogReader {
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

  readIndex(): number {
    return this.#check().last;
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
    const cluster = this.#check();
    // What others read from, or was moved on before, must not move.
    if (
      !cluster.isEmpty || cluster.nodes.size > 1 ||
      !cluster.mayStartAt(index, epoch)
    ) {
      throw new ErrClusterAlreadyExist("Log of the cluster is not empty");
    }
    return cluster.startAt(index, epoch);
  }

  isEmpty(): boolean {
    return this.#check().isEmpty;
  }

  info(): LogInfo {
    const { first, last, bytes } = this.#cluster;
    return { first, last, committed: last, bytes };
  }

  close(): MaybePromise<void> {
    if (!this.#closed) {
      this.#closed = true;
      for (const reader of [...this.#readers]) reader.close();
      for (const release of [...this.#retentions]) release();
      this.#cluster.nodes.delete(this.#nodeID);
      this.#onClose(this);
    }
    return this.#cluster.settled();
  }
}

/**
 * Refuses to remove a log that a replica has open.
 *
 * @throws ErrClusterAlreadyExist if one does
 */
export function checkUnused(
  clusterID: bigint,
  cluster: ClusterLog | undefined,
): void {
  if (cluster === undefined || cluster.nodes.size === 0) return;
  throw new ErrClusterAlreadyExist(
    `Replica ${
      [...cluster.nodes].join(" and ")
    } of cluster ${clusterID} has the log open: stop it before its data is removed`,
  );
}

/** The logs a LogDB has open. */
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

  /** Closes every one that is open. */
  async close(): Promise<void> {
    await Promise.all([...this.#open].map((log) => log.close()));
  }
}
