/**
 * The in-memory twin of a log.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { type Env, systemEnv } from "../env.ts";
import {
  BATCH_BYTES_MAX,
  BATCH_RECORDS_MAX,
  CHECKPOINTS_KEPT,
} from "../limits.ts";
import { MemorySnapshotStore } from "../snapshot/memory_snapshot_store.ts";
import type { MaybePromise } from "../statemachine/types.ts";
import {
  ErrClusterAlreadyExist,
  ErrClusterClosed,
  ErrCompacted,
  ErrDiverged,
} from "./errors.ts";
import type {
  Checkpoint,
  CheckpointBoard,
  EpochMark,
  Log,
  LogBatch,
  LogDB,
  LogReader,
  ReadOptions,
  Records,
  Retention,
} from "./log.ts";
import { batchAfter, epochRecord, lastOf, packRecords } from "./records.ts";

/** What the replicas of one cluster share: the batches, and who still needs them. */
class ClusterLog {
  readonly nodes = new Set<bigint>();
  readonly needs = new Set<{ readonly after: number }>();
  readonly waiting = new Set<() => void>();
  readonly board = new MemoryCheckpointBoard();
  readonly #env: Env;
  #batches: LogBatch[] = [];
  #marks: EpochMark[] = [];
  /** The index the log starts after, as a whole. */
  #base = 0;
  #opened = false;

  constructor(env: Env) {
    this.#env = env;
  }

  get last(): number {
    const batch = this.#batches.at(-1);
    return batch === undefined ? this.#base : lastOf(batch);
  }

  get first(): number {
    return this.#batches[0]?.first ?? this.#base + 1;
  }

  get isEmpty(): boolean {
    return !this.#opened;
  }

  append(records: Records): number {
    const { bytes, ends } = records;
    if (
      ends.length === 0 || ends.length > BATCH_RECORDS_MAX ||
      bytes.length > BATCH_BYTES_MAX || ends.at(-1) !== bytes.length
    ) {
      throw new RangeError(
        `Batch of ${ends.length} records and ${bytes.length} bytes is out of bounds`,
      );
    }
    if (!this.#opened) {
      this.#opened = true;
      const epoch = this.#env.random64();
      this.#marks.push({ index: this.last + 1, epoch });
      this.#push(packRecords(epochRecord(epoch)));
    }
    const first = this.#push(records);
    // Those who wake may wait again, so the set is emptied first.
    const waiting = [...this.waiting];
    this.waiting.clear();
    for (const wake of waiting) wake();
    return first;
  }

  #push(records: Records): number {
    const follows = this.last;
    this.#batches.push({ follows, first: follows + 1, records });
    return follows + 1;
  }

  check(after: number, mark: EpochMark | undefined): void {
    if (after > this.last) {
      throw new ErrDiverged(
        `Log ends at ${this.last}, before ${after}: it lost its tail or is another one`,
        { upTo: this.last + 1 },
      );
    }
    if (
      mark !== undefined &&
      !this.#marks.some((m) => m.index === mark.index && m.epoch === mark.epoch)
    ) {
      throw new ErrDiverged(
        `Log was not opened with epoch ${mark.epoch} at ${mark.index}: it is another one`,
        { upTo: mark.index },
      );
    }
    if (after + 1 < this.first) throw new ErrCompacted(this.first);
  }

  /** The batch after index `after`, if there is one; `after` is at or above what was cut. */
  batch(after: number): LogBatch | undefined {
    if (after >= this.last) return undefined;
    if (after + 1 < this.first) throw new ErrCompacted(this.first);
    // A reader that keeps up wants the newest one.
    const newest = this.#batches.at(-1)!;
    if (newest.first <= after + 1) return batchAfter(newest, after);
    let low = 0;
    let high = this.#batches.length - 1;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (lastOf(this.#batches[middle]!) > after) high = middle;
      else low = middle + 1;
    }
    return batchAfter(this.#batches[low]!, after);
  }

  compact(upTo: number): void {
    for (const need of this.needs) upTo = Math.min(upTo, need.after);
    let cut = 0;
    while (cut < this.#batches.length && lastOf(this.#batches[cut]!) <= upTo) {
      cut++;
    }
    if (cut === 0) return;
    this.#base = lastOf(this.#batches[cut - 1]!);
    this.#batches = this.#batches.slice(cut);
  }

  startAt(index: number, mark: EpochMark | undefined): void {
    if (this.#opened) {
      throw new ErrClusterAlreadyExist("Log of the cluster is not empty");
    }
    this.#base = index;
    this.#marks = mark === undefined ? [] : [mark];
  }
}

class MemoryCheckpointBoard implements CheckpointBoard {
  #checkpoints: Checkpoint[] = [];
  readonly #watchers = new Set<
    { nodeID: bigint; listener: (checkpoint: Checkpoint) => void }
  >();

  publish(checkpoint: Checkpoint): void {
    this.#checkpoints.push(checkpoint);
    if (this.#checkpoints.length > CHECKPOINTS_KEPT) this.#checkpoints.shift();
    for (const watcher of [...this.#watchers]) {
      if (watcher.nodeID !== checkpoint.nodeID) watcher.listener(checkpoint);
    }
  }

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

class MemoryLogReader implements LogReader {
  readonly held: number;
  readonly #cluster: ClusterLog;
  readonly #need: { after: number };
  readonly #signal: AbortSignal | undefined;
  readonly #onEnd: (reader: MemoryLogReader) => void;
  readonly #closed = new ErrClusterClosed("Reader of the log is closed");
  #reject: ((reason: unknown) => void) | undefined;
  #over = false;
  readonly #aborted = (): void => this.#end(this.#signal!.reason);

  constructor(
    cluster: ClusterLog,
    after: number,
    signal: AbortSignal | undefined,
    onEnd: (reader: MemoryLogReader) => void,
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
    const batch = this.#cluster.batch(this.#need.after);
    if (batch === undefined) return this.#wait();
    this.#need.after = lastOf(batch);
    return batch;
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
    this.#reject?.(reason);
  }

  close(): void {
    this.#end(this.#closed);
  }
}

class MemoryLog implements Log {
  readonly #cluster: ClusterLog;
  readonly #nodeID: bigint;
  readonly #onClose: (log: MemoryLog) => void;
  readonly #readers = new Set<MemoryLogReader>();
  readonly #retentions = new Set<() => void>();
  #closed = false;

  constructor(
    cluster: ClusterLog,
    nodeID: bigint,
    onClose: (log: MemoryLog) => void,
  ) {
    this.#cluster = cluster;
    this.#nodeID = nodeID;
    this.#onClose = onClose;
    cluster.nodes.add(nodeID);
  }

  get checkpoints(): CheckpointBoard {
    return this.#cluster.board;
  }

  #check(): ClusterLog {
    if (this.#closed) throw new ErrClusterClosed("Log is closed");
    return this.#cluster;
  }

  append(records: Records): number {
    return this.#check().append(records);
  }

  read(after: number, options: ReadOptions = {}): LogReader {
    const cluster = this.#check();
    cluster.check(after, options.mark);
    const reader = new MemoryLogReader(
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

  compact(upTo: number): void {
    this.#check().compact(upTo);
  }

  startAt(index: number, mark: EpochMark | undefined): void {
    this.#check().startAt(index, mark);
  }

  isEmpty(): boolean {
    return this.#check().isEmpty;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const reader of [...this.#readers]) reader.close();
    for (const release of [...this.#retentions]) release();
    this.#cluster.nodes.delete(this.#nodeID);
    this.#onClose(this);
  }
}

/**
 * Logs of clusters in memory, for tests and for what need not outlive the
 * program. Several hosts may share one: that is how several replicas come to be
 * in one process.
 *
 * ```ts
 * import { MemoryLogDB, NodeHost } from "../../mod.ts";
 *
 * await using logDB = new MemoryLogDB();
 * await using one = new NodeHost({ logDB });
 * await using two = new NodeHost({ logDB });
 * ```
 */
export class MemoryLogDB implements LogDB {
  /** Where the hosts that share these logs share their snapshots. */
  readonly snapshots: MemorySnapshotStore = new MemorySnapshotStore();
  readonly #env: Env;
  readonly #clusters = new Map<bigint, ClusterLog>();
  readonly #open = new Set<MemoryLog>();
  #closed = false;

  /** Logs that are empty. `env` gives the random numbers of their epochs. */
  constructor(options: { readonly env?: Env } = {}) {
    this.#env = options.env ?? systemEnv;
  }

  /**
   * Opens the log of a cluster for one of its replicas.
   *
   * @throws ErrClusterAlreadyExist if that replica has it open already
   * @throws ErrClusterClosed after `close()`
   */
  open(clusterID: bigint, nodeID: bigint): Log {
    if (this.#closed) throw new ErrClusterClosed("LogDB is closed");
    let cluster = this.#clusters.get(clusterID);
    if (cluster === undefined) {
      this.#clusters.set(clusterID, cluster = new ClusterLog(this.#env));
    }
    if (cluster.nodes.has(nodeID)) {
      throw new ErrClusterAlreadyExist(
        `Replica ${nodeID} of cluster ${clusterID} has the log open already`,
      );
    }
    const log = new MemoryLog(
      cluster,
      nodeID,
      (log) => this.#open.delete(log),
    );
    this.#open.add(log);
    return log;
  }

  /** Closes every open log; idempotent. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const log of [...this.#open]) log.close();
    await this.snapshots.close();
  }

  /** As `close()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
