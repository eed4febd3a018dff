/**
 * Reader of a log that another tab keeps, or this one: it goes on from the index it
 * has reached when the leader changes.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { isPromise, onAbort } from "../async.ts";
import { TAB_EARLY_BATCHES_MAX, TAB_RECENT_BYTES } from "../limits.ts";
import { ErrClusterClosed } from "../log/errors.ts";
import { epochsIn } from "../log/epochs.ts";
import type { Epoch } from "../log/history.ts";
import type { LogBatch, LogReader } from "../log/log.ts";
import { batchAfter, lastOf } from "../log/records.ts";
import type { MaybePromise } from "../statemachine/types.ts";

/** Dependencies of a {@linkcode TabReader}. */
export interface TabReaderParts {
  readonly after: number;
  readonly epoch: Epoch | undefined;
  readonly signal: AbortSignal | undefined;
  readonly lastAtStart: number;
  /** Called with each batch that this tab has read from its own log. */
  readonly read: (batch: LogBatch) => void;
  /** Called with each batch that arrived early, once those before it are there. */
  readonly offer: (batch: LogBatch) => void;
  /** Called when batches are missing between the reached index and those that arrive. */
  readonly missing: () => void;
  readonly onClose: (reader: TabReader) => void;
}

/** Reader of one log. */
export class TabReader implements LogReader {
  readonly lastAtStart: number;
  readonly #parts: TabReaderParts;
  /** Index up to which batches were returned. */
  #at: number;
  #epoch: Epoch | undefined;
  #receivedEpoch: Epoch | undefined;
  /** Index up to which batches were returned or are in the queue. */
  #received: number;
  #queue: LogBatch[] = [];
  /** Bytes of the records in the queue. */
  #queuedBytes = 0;
  /** True if it reads records that the leader has in its store only. */
  isStored = false;
  /** Batches that arrived before those that they follow. */
  #early: LogBatch[] = [];
  /** Reader of the log of this tab, while it leads. */
  #source: LogReader | undefined;
  /** Source whose next batch is awaited. */
  #awaited: LogReader | undefined;
  #isPaused = false;
  #failure: { readonly error: unknown } | undefined;
  #isEnded = false;
  #waiting: {
    readonly resolve: (batch: MaybePromise<LogBatch>) => void;
    readonly reject: (reason: unknown) => void;
  } | undefined;
  readonly #ignore: () => void;

  /** Creates a reader without a source. */
  constructor(parts: TabReaderParts) {
    this.#parts = parts;
    this.#at = this.#received = parts.after;
    this.#epoch = this.#receivedEpoch = parts.epoch;
    this.lastAtStart = parts.lastAtStart;
    this.#ignore = onAbort(parts.signal, (reason) => this.#end(reason));
  }

  /** Index up to which batches were returned. */
  get at(): number {
    return this.#at;
  }

  /** Index up to which batches are known. */
  get received(): number {
    return this.#received;
  }

  /** Last known epoch at or before the index up to which batches were returned. */
  get epoch(): Epoch | undefined {
    return this.#epoch;
  }

  /** Last known epoch at or before the index up to which batches are known. */
  get receivedEpoch(): Epoch | undefined {
    return this.#receivedEpoch;
  }

  /** True if it waits for batches of another tab. */
  get isFollowing(): boolean {
    return this.#source === undefined && this.#failure === undefined;
  }

  /** True if it has enough records from the leader's store, until they are read. */
  get isFull(): boolean {
    return this.isStored && this.#queuedBytes >= TAB_RECENT_BYTES;
  }

  /** Reads from a log of this tab from now on. */
  lead(source: LogReader): void {
    this.#source?.close();
    this.#queue = [];
    this.#queuedBytes = 0;
    this.#early = [];
    this.#received = this.#at;
    this.#receivedEpoch = this.#epoch;
    this.#source = source;
    source.applied?.(this.#at);
    this.#serve();
  }

  /** Waits for batches of another tab from now on. */
  follow(): void {
    this.#source?.close();
    this.#source = undefined;
  }

  /** Returns no batch until `resume()`. */
  pause(): void {
    this.#isPaused = true;
  }

  /** Goes on after `pause()`. */
  resume(): void {
    this.#isPaused = false;
    this.#serve();
  }

  /** Takes a batch of the leader. */
  offer(batch: LogBatch): void {
    if (!this.isFollowing) return;
    if (lastOf(batch) <= this.#received) return;
    if (batch.follows > this.#received) {
      this.#early.push(batch);
      if (this.#early.length > TAB_EARLY_BATCHES_MAX) this.#early = [];
      return this.#parts.missing();
    }
    this.#push(
      batch.first <= this.#received ? batchAfter(batch, this.#received) : batch,
    );
    this.#serve();
    const early = this.#early;
    if (early.length === 0) return;
    this.#early = [];
    for (const one of early) this.#parts.offer(one);
  }

  #push(batch: LogBatch): void {
    this.#queue.push(batch);
    this.#queuedBytes += batch.records.bytes.length;
    this.#received = lastOf(batch);
    this.#receivedEpoch = epochsIn(batch).at(-1) ?? this.#receivedEpoch;
  }

  /** Ends with an error, once the batches that arrived were returned. */
  fail(error: unknown): void {
    this.#failure ??= { error };
    this.#serve();
  }

  /** Reports progress to the log of this tab. */
  applied(index: number): void {
    this.#source?.applied?.(index);
  }

  /** Returns the next batch. */
  next(): MaybePromise<LogBatch> {
    if (!this.#isPaused) {
      const batch = this.#queue.shift();
      if (batch !== undefined) return this.#dequeued(batch);
      if (this.#failure !== undefined) throw this.#failure.error;
      const source = this.#source;
      if (source !== undefined && source !== this.#awaited) {
        const next = source.next();
        if (!isPromise(next)) return this.#read(next);
        this.#await(source, next);
      }
    } else if (this.#failure !== undefined) throw this.#failure.error;
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
    });
  }

  #dequeued(batch: LogBatch): LogBatch {
    const { isFull } = this;
    this.#queuedBytes -= batch.records.bytes.length;
    if (isFull && !this.isFull) this.#parts.missing();
    return this.#took(batch);
  }

  /** Passes on what a log of this tab returns, unless the reader has left it. */
  #await(source: LogReader, next: Promise<LogBatch>): void {
    this.#awaited = source;
    next.then(
      (batch) => {
        if (source !== this.#source) return;
        this.#awaited = undefined;
        if (!this.#isPaused && this.#waiting !== undefined) {
          const { resolve } = this.#waiting;
          this.#waiting = undefined;
          return resolve(this.#read(batch));
        }
        // Returned after the pause.
        this.#parts.read(batch);
        this.#push(batch);
      },
      (error) => {
        if (source === this.#source) this.fail(error);
      },
    );
  }

  /** Answers a pending `next()`, if it can be. */
  #serve(): void {
    const waiting = this.#waiting;
    if (waiting === undefined) return;
    if (
      this.#isPaused && this.#failure === undefined ||
      this.#queue.length === 0 && this.#failure === undefined &&
        this.#source === undefined
    ) return;
    this.#waiting = undefined;
    try {
      waiting.resolve(this.next());
    } catch (error) {
      waiting.reject(error);
    }
  }

  #read(batch: LogBatch): LogBatch {
    this.#parts.read(batch);
    return this.#took(batch);
  }

  #took(batch: LogBatch): LogBatch {
    this.#at = lastOf(batch);
    this.#received = Math.max(this.#received, this.#at);
    this.#epoch = epochsIn(batch).at(-1) ?? this.#epoch;
    if (this.#received === this.#at) this.#receivedEpoch = this.#epoch;
    return batch;
  }

  #end(reason: unknown): void {
    this.#isEnded = true;
    this.#failure = { error: reason };
    this.#queue = [];
    this.#early = [];
    this.#ignore?.();
    this.#source?.close();
    this.#source = undefined;
    this.#parts.onClose(this);
    this.#serve();
  }

  /** Closes the reader. */
  close(): void {
    if (this.#isEnded) return;
    this.#end(
      new ErrClusterClosed(`Reader at index ${this.#at} of the log is closed`),
    );
  }
}
