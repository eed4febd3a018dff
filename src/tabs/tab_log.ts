/**
 * Log of one cluster in a tab: that of the leader, or this tab's own while it leads.
 *
 * A follower's replica reads the same records as the leader's, in the same order,
 * and appends through the leader, so that everything above the log is the same in
 * every tab.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { chain, isPromise, withResolvers } from "../async.ts";
import type { Replica } from "../nodehost/replica.ts";
import { copyOf } from "../bytes.ts";
import {
  ErrClusterClosed,
  ErrCompacted,
  ErrOtherHistory,
  ErrUnknownOutcome,
} from "../log/errors.ts";
import type { Epoch, HistoryPoint } from "../log/history.ts";
import type {
  Announcements,
  Checkpoint,
  CheckpointBoard,
  KeeperRequest,
  Log,
  LogBatch,
  LogInfo,
  LogKeeper,
  LogReader,
  LogStorage,
  ReadOptions,
  Records,
  Retention,
  SnapshotSource,
} from "../log/log.ts";
import { epochsIn } from "../log/epochs.ts";
import { lastOf } from "../log/records.ts";
import type { MaybePromise } from "../statemachine/types.ts";
import { ErrStoreCorrupted, ErrStoreLocked } from "../store/errors.ts";
import { formOf, type SentError } from "../worker/sent_error.ts";
import { LeaderSnapshots } from "./leader_snapshots.ts";
import type { Calls, ClusterMessage, LogMessage } from "./messages.ts";
import { compactBatch, RecentBatches } from "./recent_batches.ts";
import type { ServedLog } from "./serve_calls.ts";
import { LeadsHere, type TabCalls } from "./tab_calls.ts";
import { TabReader } from "./tab_reader.ts";

/** Dependencies of a {@linkcode TabLog}. */
export interface TabLogParts {
  readonly clusterID: bigint;
  readonly calls: TabCalls;
  /** Opens the log of this tab, while it leads. */
  readonly open: () => MaybePromise<Log>;
  /** True if logs are ordered on a server. */
  readonly isCopy: boolean;
  /** Sends a message to the other tabs. */
  readonly post: (message: ClusterMessage) => void;
  /** Called with the cause for which the leader sends no submissions, and with undefined if it does. */
  readonly blocked: (cause: SentError | undefined) => void;
  /** Resolves with the replica of this tab, once it has started. */
  readonly replica: () => Promise<Replica>;
  /** Returns a function whose promises resolve after pauses that get longer. */
  readonly pauses: () => () => Promise<void>;
  /** Resolves if this tab still leads. */
  readonly verify: () => Promise<unknown>;
  readonly onClose: () => void;
}

/** Retention while the log is another tab's, which retains what it needs. */
class TabRetention implements Retention {
  readonly #release: () => void;
  #after: number;
  #own: Retention | undefined;

  constructor(after: number, release: () => void) {
    this.#after = after;
    this.#release = release;
  }

  lead(log: Log | undefined): void {
    this.#own = log?.retain(this.#after);
  }

  move(index: number): void {
    this.#after = index;
    this.#own?.move(index);
  }

  release(): void {
    this.#own?.release();
    this.#release();
  }
}

/** Log of one cluster in a tab. */
export class TabLog implements Log {
  readonly #parts: TabLogParts;
  readonly #leaderSnapshots: LeaderSnapshots;
  /** Log of this tab, while it leads. */
  #own: Log | undefined;
  /** Number of changes of the leader that this log has seen. */
  #turns = 0;
  readonly #readers = new Set<TabReader>();
  readonly #retentions = new Set<TabRetention>();
  readonly #recent = new RecentBatches();
  readonly #reopened = new Set<() => void>();
  readonly #watching = new Set<(log: Log | undefined) => void>();
  #unwatch: (() => void) | undefined;
  #principal: string | null | undefined;
  /** Batches that were read in this turn, of which the other tabs are told at its end. */
  readonly #untold: LogBatch[] = [];
  /** Cause that was reported to the log of this tab last. */
  #blocked: unknown;
  #isRefilling = false;
  /** Extent of the leader's log when it was last asked. */
  #leaderInfo: LogInfo | undefined;
  /** Index after which the leader was last found to have not all records in memory. */
  #compactedAt: number | undefined;
  /** Index of the last record that has arrived from the present leader, also if those before it are missing. */
  #arrived = 0;
  /** Number of pauses so far. */
  #pauses = 0;
  /** Index up to which the replica was given records when the present pause began; undefined without one. */
  #pausedAt: number | undefined;
  #isClosed = false;
  /** Resolves in the turn in which the log of this tab is open, or another tab leads again. */
  #whenOpen = withResolvers<void>();

  /** Creates a log that has no source until `lead()` or `follow()`. */
  constructor(parts: TabLogParts) {
    this.#parts = parts;
    this.#leaderSnapshots = new LeaderSnapshots(parts.clusterID, parts.calls);
  }

  // ------------------------------------------------------------ change of leader

  /** True while the log of another tab is read. */
  get isFollower(): boolean {
    return this.#own === undefined;
  }

  /** Number of times that the log has moved to this tab or to another one. */
  get turn(): number {
    return this.#turns;
  }

  /** Opens the log of this tab; readers go on with it once they are resumed. */
  async lead(): Promise<void> {
    const turn = ++this.#turns;
    const own = await this.#openOwn(turn);
    if (turn !== this.#turns || this.#isClosed) {
      await own.close();
      throw this.#endedError;
    }
    this.#own = own;
    this.block(this.#blocked);
    for (const retention of this.#retentions) retention.lead(own);
    for (const listener of [...this.#watching]) listener(own);
    const learn = (): void => {
      const { principal } = own;
      if (principal === undefined) return;
      this.#principal = principal;
      this.#parts.post({ kind: "principal", principal });
    };
    this.#unwatch = own.onReopened?.(() => {
      learn();
      for (const listener of [...this.#reopened]) listener();
    });
    learn();
    this.#whenOpen.resolve();
    for (const reader of [...this.#readers]) {
      await this.#readOn(reader, own);
      if (turn !== this.#turns) throw this.#endedError;
    }
  }

  /** Opens the log of this tab; if that fails, readers report why. */
  async #openOwn(turn: number): Promise<Log> {
    try {
      return await this.#parts.open();
    } catch (error) {
      if (turn === this.#turns) {
        for (const reader of this.#readers) reader.fail(error);
      }
      throw error;
    }
  }

  /** Has a reader go on with the log of this tab. */
  async #readOn(reader: TabReader, own: Log): Promise<void> {
    const { at: after, epoch } = reader;
    try {
      const source = await own.read(after, { epoch });
      if (own === this.#own) reader.lead(source);
      else source.close();
    } catch (error) {
      if (own === this.#own) reader.fail(error);
    }
  }

  /** Reads the log of another tab from now on. */
  follow(): void {
    this.lost();
    this.#refill();
  }

  /** Closes the log of this tab, if it is open, in this turn. */
  lost(): void {
    if (this.#isClosed) return;
    this.#turns++;
    this.#arrived = 0;
    // What has waited for the log of this tab asks the leader again.
    this.#whenOpen.resolve();
    this.#whenOpen = withResolvers();
    const own = this.#own;
    if (own === undefined) return;
    this.#own = undefined;
    this.#unwatch?.();
    this.#unwatch = undefined;
    for (const retention of this.#retentions) retention.lead(undefined);
    for (const listener of [...this.#watching]) listener(undefined);
    for (const reader of this.#readers) reader.follow();
    (async () => await own.close())().catch(() => {
      // Another tab has the log.
    });
  }

  /** Index up to which the replica was given records. */
  get delivered(): number {
    let at = 0;
    for (const reader of this.#readers) at = Math.max(at, reader.at);
    return at;
  }

  /** Gives the replica no record it did not have; returns the number of the pause, with which `resume()` ends it. */
  pause(): number {
    this.#pausedAt = this.delivered;
    for (const reader of this.#readers) reader.pause();
    return ++this.#pauses;
  }

  /** Goes on after a pause; does nothing once another one has begun. */
  resume(pause: number): void {
    if (pause !== this.#pauses) return;
    this.#pausedAt = undefined;
    for (const reader of this.#readers) reader.resume();
  }

  // ------------------------------------------------------- messages of the leader

  /** Takes a message of the leader. */
  received(message: LogMessage): void {
    if (this.#own !== undefined) return;
    if (message.kind === "principal") {
      const isChanged = this.#principal !== message.principal;
      this.#principal = message.principal;
      if (isChanged) { for (const listener of [...this.#reopened]) listener(); }
      return;
    }
    if (message.kind === "entries") {
      for (const batch of message.batches) this.#offer(batch);
      return;
    }
    this.#arrived = Math.max(this.#arrived, message.index);
    if ([...this.#readers].some((one) => this.#isBehind(one))) this.#refill();
  }

  #offer(batch: LogBatch): void {
    this.#arrived = Math.max(this.#arrived, lastOf(batch));
    const { last } = this.#recent;
    if (batch.first <= last && !this.#isSameHistory(batch)) {
      const error = this.#otherHistory(last, undefined);
      for (const reader of [...this.#readers]) reader.fail(error);
      return;
    }
    this.#recent.add(batch);
    for (const reader of [...this.#readers]) reader.offer(batch);
  }

  /** False if a batch that is known in part has an epoch that this tab does not know there: the log was removed, and replaced by another one. */
  #isSameHistory(batch: LogBatch): boolean {
    return epochsIn(batch).every((epoch) =>
      this.#recent.agrees(epoch.index, epoch)
    );
  }

  /** True if a reader waits for records before one that has arrived. */
  #isBehind({ isFollowing, received, isFull }: TabReader): boolean {
    return isFollowing && received < this.#arrived && !isFull;
  }

  /** Asks the leader for the records that readers lack. */
  #refill(): void {
    if (this.#isRefilling || this.#readers.size === 0) return;
    this.#isRefilling = true;
    // Never rejects: what fails is asked again, or ends a reader.
    void this.#refillAll();
  }

  async #refillAll(): Promise<void> {
    let pause = this.#parts.pauses();
    for (let isMissing = true; isMissing;) {
      const turn = this.#turns;
      isMissing = false;
      for (const reader of [...this.#readers]) {
        try {
          await this.#refillOne(reader);
          pause = this.#parts.pauses();
          isMissing ||= this.#isBehind(reader);
        } catch (error) {
          // If this tab leads, its own log has them.
          isMissing = !(error instanceof LeadsHere);
          break;
        }
        if (this.#own !== undefined) break;
      }
      // The leader may have changed since.
      if (turn !== this.#turns) isMissing = true;
      else if (isMissing) await pause();
      if (this.#own !== undefined || this.#isClosed) break;
    }
    this.#isRefilling = false;
  }

  async #refillOne(reader: TabReader): Promise<void> {
    const { received, receivedEpoch: epoch } = reader;
    if (reader.isFull) return;
    const answer = await this.#ask(received, epoch, reader.isStored);
    if (this.#own !== undefined) return;
    if (answer.result === "read") {
      for (const batch of answer.batches) this.#offer(batch);
    } else reader.fail(this.#errorOf(answer, received, epoch));
  }

  async #ask(
    after: number,
    epoch: Epoch | undefined,
    isStored: boolean,
    signal?: AbortSignal,
  ): Promise<Calls["read"]["answer"]> {
    const { clusterID, calls } = this.#parts;
    const args = { after, epoch, isStored };
    const answer = await calls.call(clusterID, "read", args, { signal });
    if (answer.principal !== undefined) this.#principal = answer.principal;
    this.#leaderInfo = answer.log;
    this.#parts.blocked(answer.blocked);
    return answer;
  }

  #errorOf(
    { result, log }: Calls["read"]["answer"],
    after: number,
    epoch: Epoch | undefined,
  ): Error {
    return result === "compacted"
      ? new ErrCompacted(log.first)
      : this.#otherHistory(after, epoch);
  }

  #otherHistory(index: number, epoch: Epoch | undefined): ErrOtherHistory {
    return new ErrOtherHistory(
      `The leading tab has another history at index ${index}`,
      { known: { index, epoch } },
    );
  }

  // -------------------------------------------------------- calls of followers

  /** This log, as calls of followers use it. */
  get served(): ServedLog {
    return {
      recent: this.#recent,
      opened: async () => {
        await this.#whenOpen.promise;
        return this.#opened;
      },
      own: () => this.#opened,
      info: () => this.info(),
      principal: () => this.#principal,
      blocked: () => this.#sentCause,
      verify: () => this.#verify(),
    };
  }

  /** Resolves if this tab may order records: a tab that goes on after it was stopped does not know yet that it was replaced. */
  async #verify(): Promise<void> {
    // The server orders those of a copy.
    if (!this.#parts.isCopy) await this.#parts.verify();
  }

  get #endedError(): ErrClusterClosed {
    return new ErrClusterClosed(
      `This tab does not lead cluster ${this.#parts.clusterID} any more`,
    );
  }

  get #opened(): Log {
    if (this.#own === undefined) {
      throw this.#endedError;
    }
    return this.#own;
  }

  // ------------------------------------------------------------------- the port

  #check(): void {
    if (this.#isClosed) {
      throw new ErrClusterClosed(
        `Log of cluster ${this.#parts.clusterID} is closed`,
      );
    }
  }

  /** Has the leader do something with the stores of the device, or the replica of this tab once it leads. */
  #atKeeper<M extends "requestSnapshot" | "requestCompaction">(
    method: M,
    { signal, compactionOverhead }: KeeperRequest,
    own: (replica: Replica) => Promise<Calls[M]["answer"]>,
  ): Promise<Calls[M]["answer"]> {
    const { clusterID, calls } = this.#parts;
    const args = { compactionOverhead };
    return this.#through(
      () => calls.call(clusterID, method, args, { signal }),
      async () => await own(await this.#parts.replica()),
    );
  }

  /** Requests to the leader, while another tab leads. */
  get keeper(): LogKeeper | undefined {
    if (this.#own !== undefined) return undefined;
    return {
      requestSnapshot: (options) =>
        this.#atKeeper(
          "requestSnapshot",
          options,
          (replica) => replica.requestSnapshot(options),
        ),
      requestCompaction: (options) =>
        this.#atKeeper(
          "requestCompaction",
          options,
          (replica) => replica.requestCompaction(options),
        ),
    };
  }

  /** True if a server orders the log. */
  get isRemote(): boolean {
    return this.#parts.isCopy;
  }

  /** Calls the leader, or the log of this tab once it leads; calls that another leader has not answered are made again. */
  async #through<T>(
    call: () => Promise<T>,
    own: (log: Log) => MaybePromise<T>,
  ): Promise<T> {
    for (;;) {
      this.#check();
      const log = this.#own;
      try {
        return await (log === undefined ? call() : own(log));
      } catch (error) {
        if (log !== undefined && log !== this.#own && isEnd(error)) continue;
        if (!(error instanceof LeadsHere)) throw error;
        await this.#whenOpen.promise;
      }
    }
  }

  /** Appends records through the leader. */
  append(records: Records): MaybePromise<number> {
    this.#check();
    if (this.#own !== undefined) return this.#appendHere(this.#own, records);
    const { clusterID, calls } = this.#parts;
    const { bytes, ends } = records;
    // Copied now: a view would send its whole buffer.
    const args = { bytes: copyOf(bytes), ends: [...ends] };
    return this.#through(
      () => calls.call(clusterID, "append", args),
      (log) => this.#appendHere(log, args),
    );
  }

  /** Appends to the log of this tab; of unknown outcome if another tab takes the lead before it is committed. */
  #appendHere(log: Log, records: Records): MaybePromise<number> {
    const appended = log.append(records);
    if (!isPromise(appended)) return appended;
    return appended.catch((error) => {
      if (log === this.#own || this.#isClosed || !isEnd(error)) throw error;
      throw new ErrUnknownOutcome(
        `Another tab has taken the lead of cluster ${this.#parts.clusterID} during an append`,
        { cause: error },
      );
    });
  }

  /** Creates a reader of the records after an index. */
  async read(after: number, options: ReadOptions = {}): Promise<LogReader> {
    const { epoch, signal } = options;
    return await this.#through<LogReader>(
      async () => {
        const isStored = this.#compactedAt === after;
        const answer = await this.#ask(after, epoch, isStored, signal);
        if (this.#own !== undefined) throw new LeadsHere();
        if (answer.result !== "read") {
          if (answer.result === "compacted") this.#compactedAt = after;
          throw this.#errorOf(answer, after, epoch);
        }
        const reader = this.#reader(after, options, answer.last);
        reader.isStored = isStored;
        for (const batch of answer.batches) this.#offer(batch);
        // Records may have arrived before there was a reader.
        if (this.#isBehind(reader)) this.#refill();
        return reader;
      },
      (log) =>
        chain(log.read(after, options), (source) => {
          const reader = this.#reader(after, options, source.lastAtStart);
          reader.lead(source);
          return reader;
        }),
    );
  }

  #reader(
    after: number,
    { epoch, signal }: ReadOptions,
    last: number,
  ): TabReader {
    const reader = new TabReader({
      after,
      epoch,
      signal,
      lastAtStart: Math.max(after, last),
      read: (next) => {
        const batch = this.#recent.add(next);
        if (batch === undefined || this.#untold.push(compactBatch(batch)) > 1) {
          return;
        }
        queueMicrotask(() => {
          const batches = this.#untold.splice(0);
          if (this.#own === undefined) return;
          this.#parts.post({ kind: "entries", batches });
        });
      },
      offer: (batch) => this.#offer(batch),
      missing: () => this.#refill(),
      onClose: (reader) => this.#readers.delete(reader),
    });
    const isNew = this.#recent.begin(after, epoch);
    if (isNew && this.#own !== undefined) {
      this.#parts.post({ kind: "reached", index: after });
    }
    this.#readers.add(reader);
    // One that repeats what was given before must not wait.
    if (this.#pausedAt !== undefined && after >= this.#pausedAt) reader.pause();
    return reader;
  }

  /** Read index, of the leader's log. */
  readIndex(
    options: { signal?: AbortSignal | undefined } = {},
  ): MaybePromise<number> {
    this.#check();
    const { clusterID, calls } = this.#parts;
    return this.#through(
      () => calls.call(clusterID, "readIndex", undefined, options),
      (log) =>
        this.#parts.isCopy
          ? log.readIndex(options)
          : this.#verify().then(() => log.readIndex(options)),
    );
  }

  /** Keeps records from being compacted while this tab leads. */
  retain(after: number): Retention {
    const retention: TabRetention = new TabRetention(
      after,
      () => this.#retentions.delete(retention),
    );
    this.#retentions.add(retention);
    retention.lead(this.#own);
    return retention;
  }

  /** Compacts the log of this tab, if it leads and stores one. */
  get compact(): ((upTo: number) => MaybePromise<void>) | undefined {
    const own = this.#own;
    return own?.compact && ((upTo) => own.compact!(upTo));
  }

  /** Index from which the log of this tab asks for a snapshot. */
  get snapshotFrom(): number {
    return this.#own?.snapshotFrom ?? 0;
  }

  /** Lets the empty log of this tab continue after an index. */
  startAt(index: number, epoch: Epoch | undefined): MaybePromise<void> {
    return this.#opened.startAt(index, epoch);
  }

  /** True if nothing was ever appended, as far as this tab knows. */
  isEmpty(): MaybePromise<boolean> {
    return this.#own?.isEmpty() ?? false;
  }

  /** Extent of the log: of the leader's when it was last asked, with the records that have arrived since, if another tab leads. */
  info(): LogInfo {
    const info = this.#own?.info?.();
    if (info !== undefined) return info;
    const last = Math.max(this.#recent.last, this.delivered);
    const { first = last + 1, bytes = 0 } = this.#leaderInfo ?? {};
    return { first, last, committed: last, bytes };
  }

  /** Checks that the server has a point of the history; the leader does. */
  async verify(
    point: HistoryPoint,
    options: { signal?: AbortSignal | undefined } = {},
  ): Promise<void> {
    const own = this.#own;
    try {
      await own?.verify?.(point, options);
    } catch (error) {
      // Closed during the question: the tab that leads asks it.
      if (own === this.#own || !isEnd(error)) throw error;
    }
  }

  /** Calls `listener` whenever the log is connected again. */
  onReopened(listener: () => void): () => void {
    this.#reopened.add(listener);
    return () => void this.#reopened.delete(listener);
  }

  /** Reports why the replica has stopped, or sends nothing. */
  block(cause: unknown): void {
    this.#blocked = cause;
    if (this.#own === undefined) return;
    this.#own.block?.(cause);
    this.#parts.post({ kind: "blocked", cause: this.#sentCause });
  }

  get #sentCause(): SentError | undefined {
    return this.#blocked === undefined ? undefined : formOf(this.#blocked);
  }

  /** Principal as which the server has last welcomed the leader. */
  get principal(): string | null | undefined {
    return this.#own?.principal ?? this.#principal;
  }

  /** Snapshots of the server, or of the leading tab; undefined if this tab orders the log. */
  get snapshots(): SnapshotSource | undefined {
    return this.#own === undefined
      ? this.#leaderSnapshots
      : this.#own.snapshots;
  }

  /** Calls `begin` with the log of this tab whenever it leads, and what that returns when it leads no more. */
  #whileLeading(begin: (log: Log) => (() => void) | undefined): () => void {
    let end = this.#own && begin(this.#own);
    const changed = (log: Log | undefined): void => {
      end?.();
      end = log && begin(log);
    };
    this.#watching.add(changed);
    return () => {
      this.#watching.delete(changed);
      end?.();
    };
  }

  /** Exchange of checkpoints of the log of this tab: the leader's state is compared. */
  get checkpoints(): CheckpointBoard {
    const board = (): CheckpointBoard | undefined => this.#own?.checkpoints;
    const explain = board()?.explain;
    return {
      get trusted(): bigint | undefined {
        return board()?.trusted;
      },
      publish: (checkpoint: Checkpoint) => board()?.publish(checkpoint),
      watch: (nodeID, listener) =>
        this.#whileLeading((log) => log.checkpoints?.watch(nodeID, listener)),
      ...(explain === undefined ? {} : {
        explain: (after, upTo, signal) =>
          board()?.explain?.(after, upTo, signal) ?? Promise.resolve(undefined),
      }),
    };
  }

  /** Announcements of the log of this tab. */
  get announcements(): Announcements | undefined {
    return this.#own?.announcements;
  }

  /** State of the storage of this tab's log. */
  get storage(): LogStorage | undefined {
    if (this.#parts.isCopy) return undefined;
    const storage = (): LogStorage | undefined => this.#own?.storage;
    return {
      get trouble(): unknown {
        return storage()?.trouble;
      },
      watch: (listener) =>
        this.#whileLeading((log) => log.storage?.watch(listener)),
    };
  }

  /** Closes the log. */
  close(): MaybePromise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const own = this.#own;
    this.#turns++;
    this.#own = undefined;
    this.#unwatch?.();
    this.#whenOpen.promise.catch(() => {});
    this.#whenOpen.reject(
      new ErrClusterClosed(`Log of cluster ${this.#parts.clusterID} is closed`),
    );
    for (const reader of [...this.#readers]) reader.close();
    this.#parts.onClose();
    const closed = own?.close();
    return isPromise(closed) ? closed : undefined;
  }
}

/** True for an error of a log that was closed because this tab leads no more. */
function isEnd(error: unknown): boolean {
  return error instanceof ErrClusterClosed || error instanceof ErrStoreLocked ||
    error instanceof ErrStoreCorrupted;
}
