/**
 * Log of one cluster on etcd, shared by its replicas in this process.
 *
 * The log is the history of one key. Each put says the index that it follows, and is
 * made only if the key is still at the revision that its writer has seen, so the
 * puts form a chain that every reader verifies: versions without a gap, and each put
 * at the index at which the one before it has ended.
 *
 * This module needs Deno.
 *
 * @module
 */

import { Backoff, withResolvers } from "../async.ts";
import { messageOf } from "../describe.ts";
import {
  ETCD_CALL_MS_MAX,
  ETCD_RETRY_FIRST_MS,
  ETCD_RETRY_LAST_MS,
  LOG_TAIL_BYTES,
  STORE_FULL_RETRY_MS,
} from "../limits.ts";
import { Batches, ClusterLog, type ReadAhead } from "../log/cluster_log.ts";
import type { AnnouncementBoard } from "../log/announcements.ts";
import { epochsIn } from "../log/epochs.ts";
import {
  ErrClusterAlreadyExist,
  ErrClusterClosed,
  ErrCompacted,
  ErrDiverged,
  ErrLogCorrupted,
  type ErrOtherHistory,
} from "../log/errors.ts";
import type { Epoch } from "../log/history.ts";
import type {
  CheckpointBoard,
  LogBatch,
  LogOrder,
  LogOrderWait,
  LogTurn,
  Records,
} from "../log/log.ts";
import { batchAfter, lastOf } from "../log/records.ts";
import { ErrOrderShared } from "../log/order_errors.ts";
import type { MaybePromise } from "../statemachine/types.ts";
import { ErrEtcdAccess, ErrEtcdUnavailable } from "./errors.ts";
import type { Keys } from "./keys.ts";
import {
  type Compare,
  decodeTxn,
  encodeTxn,
  type KeyValue,
  Method,
  type WatchEvent,
} from "./messages.ts";
import {
  type FoundPut,
  positionAfter,
  positionBefore,
  PutHistory,
  removedLog,
} from "./put_history.ts";
import type { ClusterOrder, Term } from "./order.ts";
import {
  costOf,
  type PutTarget,
  PutWriter,
  type PutWriterParts,
} from "./put_writer.ts";
import { decodeMeta, encodeMeta, type Position } from "./values.ts";

/** Put in memory: where it begins. */
interface Mark {
  readonly start: Position;
  /** Index of its last record. */
  readonly last: number;
}

/** Dependencies of an {@linkcode EtcdClusterLog}. */
export interface EtcdClusterLogParts
  extends Omit<PutWriterParts, "key" | "metaKey"> {
  readonly keys: Keys;
  /** Announcements of the live replicas. */
  readonly announcements: AnnouncementBoard;
  /** Exchange of checkpoints. */
  readonly board: CheckpointBoard;
  /** Returns the index up to which the log may be compacted, at most `upTo`. */
  readonly mayCompact: (upTo: number) => Promise<number>;
  /** Called when the start of the log has moved. */
  readonly compacted: () => void;
  /** Called when the last replica has closed the log, and its appends are settled. */
  readonly released: (log: EtcdClusterLog) => void;
}

const START: Position = {
  version: 0,
  revision: 0,
  index: 0,
  epoch: undefined,
};

/** Log of one cluster on etcd. */
export class EtcdClusterLog extends ClusterLog {
  readonly #parts: EtcdClusterLogParts;
  readonly #key: Uint8Array;
  readonly #metaKey: Uint8Array;
  readonly #history: PutHistory;
  /** Position after the last put that was read. */
  #end: Position = START;
  /** Revision at which the key of the log was created, 0 if it does not exist. */
  #created = 0;
  /** Position at which the log starts. */
  #base: Position = START;
  /** Revision of the metadata, 0 if there are none. */
  #metaRevision = 0;
  /** Newest batches in memory, and the puts that they are from. */
  readonly #tail = new Batches();
  #marks: Mark[] = [];
  #tailBytes = 0;
  #unwatch: (() => void) | undefined;
  /** Error after which nothing is read or written. */
  #failure: Error | undefined;
  /** Aborts when the log is not used any more. */
  readonly #ended = new AbortController();
  /** Cancels the next test put. */
  #cancelProbe: (() => void) | undefined;
  /** Number of times that puts were compacted before they were read. */
  #gaps = 0;
  /** Callbacks for each move of the end. */
  readonly #moved = new Set<() => void>();
  readonly #writer: PutWriter;
  readonly #order: ClusterOrder;
  /** Node id of the replica of this process that decides about appends. */
  #decider: bigint | undefined;
  override readonly order: LogOrder;
  override readonly announcements: AnnouncementBoard;
  override readonly board: CheckpointBoard;
  /** Positions of readers of older puts. */
  readonly #positions = new WeakMap<ReadAhead, Position>();

  private constructor(parts: EtcdClusterLogParts) {
    super();
    const { keys, clusterID } = parts;
    this.#parts = parts;
    this.announcements = parts.announcements;
    this.board = parts.board;
    this.#order = parts.order;
    const { order } = parts;
    this.order = {
      enter: (nodeID) => this.#enter(nodeID),
      get isHeld(): boolean {
        return order.isHeld;
      },
      get wait(): LogOrderWait | undefined {
        return order.wait;
      },
    };
    this.#key = keys.of("log", clusterID);
    this.#metaKey = keys.of("meta", clusterID);
    this.#history = new PutHistory(parts.client, clusterID, this.#key);
    this.#writer = new PutWriter(
      { ...parts, key: this.#key, metaKey: this.#metaKey },
      this.#target(),
    );
  }

  /** Opens the log as it is in etcd, and follows it. */
  static async open(parts: EtcdClusterLogParts): Promise<EtcdClusterLog> {
    const log = new EtcdClusterLog(parts);
    await log.#load();
    return log;
  }

  get last(): number {
    return this.#end.index;
  }

  get first(): number {
    return this.#base.index + 1;
  }

  get isEmpty(): boolean {
    return this.#end.version === 0;
  }

  get bytes(): number {
    return this.#tailBytes;
  }

  // ------------------------------------------------------------------ the end

  /** Reads the newest put and the metadata, and watches the puts after it. */
  async #load(): Promise<void> {
    const response = decodeTxn(
      await this.#parts.client.request(
        Method.Txn,
        encodeTxn([], [
          { range: { key: this.#key } },
          { range: { key: this.#metaKey } },
        ]),
      ),
    );
    const [[kv] = [], [meta] = []] = response.ranges;
    this.#setBase(meta);
    this.#tail.all = [];
    this.#marks = [];
    this.#tailBytes = 0;
    this.epochs = this.#base.epoch === undefined ? [] : [this.#base.epoch];
    this.#end = this.#base;
    if (kv !== undefined) {
      const found = this.#history.decode(kv);
      this.#created = kv.createRevision;
      this.#end = positionBefore(found);
      this.#addEpoch(this.#end.epoch);
      this.#advance(kv.modRevision, found.put.batches);
      this.#writer.read(found.put);
    } else if (this.#base.version > 0) {
      this.fail(this.#removed());
      throw this.#failure;
    }
    this.#unwatch?.();
    this.#unwatch = this.#parts.client.watches.add(
      { key: this.#key },
      response.header.revision + 1,
      {
        changed: (events) => this.#changed(events),
        // The chain of versions shows whether a put was among the compacted ones.
        compacted: () => {},
        failed: (error) => {
          if (error instanceof ErrDiverged) this.fail(error);
        },
      },
    );
  }

  #setBase(meta: KeyValue | undefined): void {
    if (meta === undefined) return;
    if (meta.modRevision <= this.#metaRevision) return;
    try {
      this.#base = decodeMeta(meta.value, this.#parts.clusterID);
    } catch (cause) {
      throw new ErrLogCorrupted(0, `metadata: ${messageOf(cause)}`, { cause });
    }
    this.#metaRevision = meta.modRevision;
    if (this.isEmpty && this.#base.version === 0) {
      this.#end = this.#base;
      this.#addEpoch(this.#base.epoch);
    }
  }

  #addEpoch(epoch: Epoch | undefined): void {
    if (epoch === undefined) return;
    const { epochs } = this;
    const at = epochs.findIndex(({ index }) => index >= epoch.index);
    if (at < 0) epochs.push(epoch);
    else if (epochs[at]!.index !== epoch.index) epochs.splice(at, 0, epoch);
  }

  #removed(): ErrOtherHistory {
    return removedLog(this.#parts.clusterID);
  }

  /** Handles puts of this or another process. */
  #changed(events: readonly WatchEvent[]): void {
    if (this.#failure !== undefined) return;
    try {
      for (const { isDelete, kv } of events) {
        if (isDelete) throw this.#removed();
        if (kv.version <= this.#end.version) {
          // The put of this process, whose response was first.
          if (
            kv.createRevision === this.#created &&
            kv.modRevision <= this.#end.revision
          ) continue;
          throw this.#removed();
        }
        if (kv.version !== this.#end.version + 1) {
          // A gap: the puts in it were compacted while the watch was interrupted.
          this.#reload();
          return;
        }
        if (this.#created !== 0 && kv.createRevision !== this.#created) {
          throw this.#removed();
        }
        const found = this.#history.decode(kv);
        this.#history.verify(found, this.#end);
        this.#created = kv.createRevision;
        this.#advance(kv.modRevision, found.put.batches);
        this.#writer.read(found.put);
      }
      this.wake();
    } catch (error) {
      this.fail(error as Error);
    }
  }

  /** Moves the end over a put. */
  #advance(revision: number, batches: readonly LogBatch[]): void {
    const start = this.#end;
    let { epoch } = start;
    for (const batch of batches) {
      for (const found of epochsIn(batch)) {
        this.#addEpoch(found);
        epoch = found;
      }
      this.#tail.all.push(batch);
      this.#tailBytes += costOf(batch.records);
    }
    const last = lastOf(batches.at(-1)!);
    this.#end = { version: start.version + 1, revision, index: last, epoch };
    this.#marks.push({ start, last });
    if (this.#tailBytes > 2 * LOG_TAIL_BYTES) this.#trim();
    for (const moved of [...this.#moved]) moved();
  }

  /** Removes the oldest puts from memory, down to `LOG_TAIL_BYTES`. */
  #trim(): void {
    const { all } = this.#tail;
    let from = all.length;
    let size = 0;
    while (from > 0 && size < LOG_TAIL_BYTES) {
      size += costOf(all[--from]!.records);
    }
    this.#forget(all[from]?.follows ?? this.last);
  }

  /** Removes puts from memory that end at or before an index. */
  #forget(upTo: number): void {
    this.#marks = this.#marks.filter(({ last }) => last > upTo);
    this.#tail.compact(this.#marks[0]?.start.index ?? this.last);
    this.#tailBytes = this.#tail.all.reduce(
      (sum, { records }) => sum + costOf(records),
      0,
    );
  }

  /** Continues at the newest put, after some were compacted that this process has not read. */
  #reload(): void {
    this.#gaps++;
    this.#unwatch?.();
    this.#unwatch = undefined;
    // Never rejects: a failure ends the log.
    void this.#reloaded();
  }

  async #reloaded(): Promise<void> {
    const { env } = this.#parts;
    const backoff = new Backoff(env, ETCD_RETRY_FIRST_MS, ETCD_RETRY_LAST_MS);
    while (this.#failure === undefined) {
      try {
        await this.#load();
        this.#order.disturb();
        for (const moved of [...this.#moved]) moved();
        return this.wake();
      } catch (error) {
        const mayPass = error instanceof ErrEtcdUnavailable ||
          error instanceof ErrEtcdAccess;
        if (!mayPass) return this.fail(error as Error);
      }
      await new Promise<void>((resolve) =>
        void env.setTimer(resolve, backoff.next())
      );
    }
  }

  /** Ends the log because of an error that no retry helps against. */
  fail(error: Error): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.stop();
    this.#writer.fail(error);
    for (const moved of [...this.#moved]) moved();
    this.wake();
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** True once the log has failed: it is opened again for the next replica. */
  get hasFailed(): boolean {
    return this.#failure !== undefined;
  }

  /** Waits until the put with a version was read. */
  async #until(version: number, signal?: AbortSignal): Promise<void> {
    if (this.#end.version >= version) return;
    const { promise, resolve, reject } = withResolvers<void>();
    const moved = (): void => {
      if (this.#failure !== undefined) reject(this.#failure);
      else if (this.#end.version >= version) resolve();
    };
    const aborted = (): void => reject(signal!.reason);
    const cancel = this.#parts.env.setTimer(
      () =>
        reject(
          new ErrEtcdUnavailable(
            `Put ${version} of cluster ${this.#parts.clusterID} did not arrive within ${ETCD_CALL_MS_MAX} ms`,
          ),
        ),
      ETCD_CALL_MS_MAX,
    );
    this.#moved.add(moved);
    signal?.addEventListener("abort", aborted);
    moved();
    try {
      await promise;
    } finally {
      cancel();
      this.#moved.delete(moved);
      signal?.removeEventListener("abort", aborted);
    }
  }

  /**
   * Reads from a quorum how far the log is, and waits until that was read here.
   * With `after`, the epochs at that index are known afterwards.
   */
  override async refresh(after?: number, signal?: AbortSignal): Promise<void> {
    this.#check();
    // The response may be older than what is read until it arrives.
    const { version } = this.#end;
    const created = this.#created;
    const { ranges } = decodeTxn(
      await this.#parts.client.request(
        Method.Txn,
        encodeTxn([], [
          { range: { key: this.#key, keysOnly: true } },
          { range: { key: this.#metaKey } },
        ]),
        signal,
      ),
    );
    this.#check();
    const [[kv] = [], [meta] = []] = ranges;
    if (
      kv === undefined
        ? version > 0
        : created !== 0 && kv.createRevision !== created
    ) {
      this.fail(this.#removed());
      this.#check();
    }
    this.#setBase(meta);
    if (kv !== undefined) await this.#until(kv.version, signal);
    if (after === undefined) return;
    const known = this.#marks[0]?.start.index ?? this.last;
    if (after < this.#base.index || after >= known) return;
    const { put } = await this.#locate(after, signal);
    this.#addEpoch(put.epoch);
    for (const epoch of put.batches.flatMap(epochsIn)) this.#addEpoch(epoch);
  }

  // ------------------------------------------------------------------- appends

  append(records: Records): Promise<number> {
    this.#check();
    return this.#writer.append(records);
  }

  /** Waits for the turn of this process to append, and reads what others have appended. */
  #enter(nodeID: bigint): MaybePromise<LogTurn> {
    if (nodeID !== this.#decider) this.#setDecider(nodeID);
    const { term } = this.#order;
    if (this.#failure === undefined && term !== undefined) {
      return this.#turn(term);
    }
    return this.#entered();
  }

  /** Lets a replica decide about appends, unless another one does that has the log open. */
  #setDecider(nodeID: bigint): void {
    const decider = this.#decider;
    if (decider !== undefined && this.nodes.has(decider)) {
      throw new ErrOrderShared(this.#parts.clusterID, nodeID, decider);
    }
    // What was decided on another state may be under way.
    this.#order.disturb();
    this.#decider = nodeID;
  }

  async #entered(): Promise<LogTurn> {
    const order = this.#order;
    for (;;) {
      this.#check();
      await order.acquire(this.#ended.signal, true);
      const { fence } = order;
      if (fence === undefined) continue;
      const gaps = this.#gaps;
      const known = order.term;
      if (known !== undefined) return this.#turn(known);
      await this.#writer.lapsed();
      await this.refresh();
      if (this.#gaps !== gaps) continue;
      const term = order.begin(fence, this.last);
      if (term !== undefined) return this.#turn(term);
    }
  }

  #turn(term: Term): LogTurn {
    const order = this.#order;
    order.use();
    let isLeft = false;
    return {
      index: term.index,
      get isOver(): boolean {
        return term.isOver;
      },
      append: (records) => {
        this.#check();
        return this.#writer.append(records, term);
      },
      leave: () => {
        if (isLeft) return;
        isLeft = true;
        order.unuse();
      },
    };
  }

  override settled(): Promise<void> {
    return this.#writer.settled;
  }

  override released(): void {
    // Never rejects: failures go to the appends.
    void this.#writer.settled.then(() => {
      if (this.nodes.size > 0) return;
      this.stop();
      this.#parts.released(this);
    });
  }

  /** Ends the watch, the turn and the test puts. */
  stop(): void {
    this.#ended.abort(
      this.#failure ?? new ErrClusterClosed(
        `Log of cluster ${this.#parts.clusterID} is closed`,
      ),
    );
    this.#order.close();
    this.#unwatch?.();
    this.#unwatch = undefined;
    this.#cancelProbe?.();
    this.#cancelProbe = undefined;
  }

  /** The log as its writer sees it. */
  #target(): PutTarget {
    const log = (): EtcdClusterLog => this;
    return {
      get end(): Position {
        return log().#end;
      },
      get failure(): Error | undefined {
        return log().#failure;
      },
      get gaps(): number {
        return log().#gaps;
      },
      comparisons: (at) => this.#comparisons(at),
      committed: (at, revision, batches) =>
        this.#committed(at, revision, batches),
      caughtUp: async (at, kv, meta) => {
        if (kv === undefined && at.version > 0) throw this.#removed();
        this.#setBase(meta);
        if (kv !== undefined) await this.#until(kv.version);
      },
      trouble: (error) => this.#trouble(error),
      fail: (error) => this.fail(error),
    };
  }

  #comparisons({ version, revision }: Position): Compare[] {
    const key = this.#key;
    if (version > 0) return [{ key, modRevision: revision }];
    // An import moves the start of an empty log.
    return [
      { key, modRevision: 0 },
      { key: this.#metaKey, modRevision: this.#metaRevision },
    ];
  }

  /** Adds a put of this process that was committed, unless it was read already. */
  #committed(
    at: Position,
    revision: number,
    records: readonly Records[],
  ): readonly LogBatch[] | undefined {
    if (this.#failure !== undefined || this.#end.version !== at.version) {
      return undefined;
    }
    if (this.#created === 0) this.#created = revision;
    let follows = at.index;
    const batches = records.map((records) => {
      const batch = { follows, first: follows + 1, records };
      follows += records.ends.length;
      return batch;
    });
    this.#advance(revision, batches);
    this.wake();
    return batches;
  }

  /** Notes that puts succeed, or the error with which they fail. */
  #trouble(error: unknown): void {
    if (error instanceof ErrDiverged) this.fail(error);
    if (this.#failure !== undefined || error instanceof ErrClusterClosed) {
      return;
    }
    this.storage.set(error);
    if (error !== undefined) this.#probeLater();
  }

  /** Schedules a test put, while puts fail: callers that wait for them to succeed put nothing themselves. */
  #probeLater(): void {
    this.#cancelProbe ??= this.#parts.env.setTimer(() => {
      this.#cancelProbe = undefined;
      // Never rejects: a failure is tried again.
      void this.#probe();
    }, STORE_FULL_RETRY_MS);
  }

  async #probe(): Promise<void> {
    const { client, keys } = this.#parts;
    const value = new Uint8Array(0);
    try {
      await client.request(
        Method.Txn,
        encodeTxn([], [{ put: keys.probe, value }]),
      );
      this.storage.set(undefined);
    } catch {
      if (this.#failure === undefined && this.nodes.size > 0) {
        this.#probeLater();
      }
    }
  }

  // ------------------------------------------------------------------- reading

  batch(after: number, ahead: ReadAhead): MaybePromise<LogBatch | undefined> {
    this.#check();
    if (after >= this.last) return undefined;
    if (after < this.#base.index) throw new ErrCompacted(this.first);
    return this.#tail.after(after) ?? takeAhead(ahead, after) ??
      this.#readAhead(after, ahead);
  }

  /** Reads puts that are not in memory. */
  async #readAhead(
    after: number,
    ahead: ReadAhead,
  ): Promise<LogBatch | undefined> {
    const position = this.#positions.get(ahead);
    try {
      if (position?.index === after) {
        await this.#follow(position, ahead);
      } else {
        const found = await this.#locate(after);
        ahead.batches = [...found.put.batches];
        this.#positions.set(ahead, positionAfter(found));
      }
    } catch (error) {
      if (!(error instanceof ErrCompacted)) throw error;
      // Another process has compacted the log: only etcd knows where it starts now.
      await this.refresh();
      throw new ErrCompacted(this.first);
    }
    return takeAhead(ahead, after) ?? this.#tail.after(after);
  }

  /** Reads the puts after a position until there are enough, or the rest is in memory. */
  async #follow(from: Position, ahead: ReadAhead): Promise<void> {
    let end: (error?: Error) => void = () => {};
    const failed = (): void => {
      if (this.#failure !== undefined) end(this.#failure);
    };
    this.#moved.add(failed);
    try {
      const found = await this.#history.follow(
        from,
        (index) => index >= (this.#marks[0]?.start.index ?? this.last),
        (stop) => {
          end = stop;
          // A reader that is closed gets nothing more.
          ahead.close = () => stop();
        },
      );
      if (found === undefined) throw new ErrCompacted(this.first);
      ahead.batches = found.batches;
      this.#positions.set(ahead, found.end);
    } finally {
      ahead.close = undefined;
      this.#moved.delete(failed);
    }
  }

  /**
   * Finds the put with the record after an index.
   *
   * @throws ErrCompacted if it was compacted
   */
  async #locate(after: number, signal?: AbortSignal): Promise<FoundPut> {
    const first = this.#marks[0]?.start;
    const { revision } = first !== undefined && after < first.index
      ? first
      : this.#end;
    const found = await this.#history.locate(
      after,
      this.#base.revision,
      revision,
      signal,
    );
    if (found === undefined) throw new ErrCompacted(this.first);
    return found;
  }

  // ---------------------------------------------------------------- compaction

  async compact(upTo: number): Promise<void> {
    this.#check();
    const allowed = await this.#parts.mayCompact(Math.min(upTo, this.last));
    for (;;) {
      const index = this.unneeded(allowed);
      if (index <= this.#base.index) return;
      const base = await this.#positionUpTo(index);
      // A reader may have begun in the meantime.
      if (this.unneeded(base.index) < base.index) continue;
      if (base.index <= this.#base.index) return;
      if (await this.#moveBase(base)) break;
    }
    this.#forget(this.#base.index);
    this.#forgetEpochs();
    this.#parts.compacted();
  }

  /** Moves the start of the log; returns false if another process has changed it. */
  async #moveBase(base: Position): Promise<boolean> {
    const { clusterID, client } = this.#parts;
    const before = this.#base;
    const modRevision = this.#metaRevision;
    // From now on no reader may begin before it.
    this.#base = base;
    try {
      const { succeeded, ranges, header } = decodeTxn(
        await client.request(
          Method.Txn,
          encodeTxn(
            [{ key: this.#metaKey, modRevision }],
            [{ put: this.#metaKey, value: encodeMeta(clusterID, base) }],
            [{ range: { key: this.#metaKey } }],
          ),
        ),
      );
      if (succeeded) {
        this.#metaRevision = Math.max(this.#metaRevision, header.revision);
        return true;
      }
      const [meta] = ranges[0] ?? [];
      if (meta === undefined) throw this.#removed();
      this.#base = before;
      this.#setBase(meta);
      return false;
    } catch (error) {
      if (this.#base === base) this.#base = before;
      throw error;
    }
  }

  /** Forgets the epochs before the last one at or before the start. */
  #forgetEpochs(): void {
    const later = this.epochs.findIndex(({ index }) =>
      index > this.#base.index
    );
    const before = later < 0 ? this.epochs.length : later;
    if (before > 1) this.epochs = this.epochs.slice(before - 1);
  }

  /** Last position between two puts at or before an index. */
  async #positionUpTo(index: number): Promise<Position> {
    if (index >= this.#end.index) return this.#end;
    const mark = this.#marks.findLast(({ start }) => start.index <= index);
    if (mark !== undefined) return mark.start;
    return positionBefore(await this.#locate(index));
  }

  async startAt(index: number, epoch: Epoch | undefined): Promise<void> {
    this.#check();
    const base: Position = { version: 0, revision: 0, index, epoch };
    const { clusterID } = this.#parts;
    const { succeeded, header } = decodeTxn(
      await this.#parts.client.request(
        Method.Txn,
        encodeTxn(
          [
            { key: this.#key, modRevision: 0 },
            { key: this.#metaKey, modRevision: this.#metaRevision },
          ],
          [{ put: this.#metaKey, value: encodeMeta(clusterID, base) }],
        ),
      ),
    );
    if (!succeeded) {
      throw new ErrClusterAlreadyExist(
        `Log of cluster ${clusterID} was changed by another process; import before the cluster is started`,
      );
    }
    this.#metaRevision = header.revision;
    this.#base = this.#end = base;
    this.epochs = epoch === undefined ? [] : [epoch];
  }

  /** Fails what waits, because the LogDB is closed. */
  close(): void {
    this.fail(
      new ErrClusterClosed(`Log of cluster ${this.#parts.clusterID} is closed`),
    );
  }
}

/** Returns the batch after index `after` from the batches read ahead. */
function takeAhead(ahead: ReadAhead, after: number): LogBatch | undefined {
  const { batches } = ahead;
  while (batches.length > 0 && lastOf(batches[0]!) <= after) batches.shift();
  const [next] = batches;
  return next === undefined ? undefined : batchAfter(next, after);
}
