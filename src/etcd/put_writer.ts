/**
 * Puts of one log by this process: group commit of appends, one put under way at a
 * time, each at the end of the log that this process has read.
 *
 * A put is repeated until it has an answer. It is made only if the key still has the
 * revision that it was encoded for, so it cannot be committed twice; and if another
 * put was first, it never will be, and its appends go into another one.
 *
 * This module needs Deno.
 *
 * @module
 */

import { withResolvers } from "../async.ts";
import { messageOf } from "../describe.ts";
import type { Env } from "../env.ts";
import { ETCD_PUT_BYTES, TIMER_MS_MAX } from "../limits.ts";
import { ErrRecordsRefused, ErrUnknownOutcome } from "../log/errors.ts";
import type { LogBatch, Records } from "../log/log.ts";
import { ErrOrderLost } from "../log/order_errors.ts";
import { epochRecord, packRecords } from "../log/records.ts";
import type { EtcdClient } from "./client.ts";
import { CallError } from "./connection.ts";
import { ErrEtcdUnavailable } from "./errors.ts";
import {
  type Compare,
  decodeTxn,
  encodeTxn,
  type KeyValue,
  Method,
} from "./messages.ts";
import type { ClusterOrder, Term } from "./order.ts";
import type { PutLimiter } from "./put_limiter.ts";
import { encodePut, type LogPut, type Position } from "./values.ts";

/** Append that waits for its put. */
interface Append {
  readonly records: Records;
  /** Term that its decision rests on; undefined if it may follow anything. */
  readonly term: Term | undefined;
  /** Time at which it fails unless it is committed. */
  readonly end: number;
  readonly resolve: (first: number) => void;
  readonly reject: (error: unknown) => void;
}

/** Put under way. */
interface Put {
  /** Number among the puts of this process, by which it is recognized. */
  readonly sequence: number;
  readonly value: Uint8Array;
  readonly appends: readonly Append[];
  /** Batches of the put: those of the appends, and before them that of an epoch, if there is one. */
  readonly batches: readonly Records[];
}

/** Log that the puts go to, as it was read here. */
export interface PutTarget {
  /** Position after the last put that was read. */
  readonly end: Position;
  /** Error after which nothing is put. */
  readonly failure: Error | undefined;
  /** Number of times that puts were compacted before they were read. */
  readonly gaps: number;
  /** Comparisons that hold while the log ends at a position. */
  comparisons(at: Position): readonly Compare[];
  /** Adds a put of this process that was committed at a position, unless it was read already. */
  committed(
    at: Position,
    revision: number,
    batches: readonly Records[],
  ): readonly LogBatch[] | undefined;
  /** Waits until all puts up to a version of the key were read; `meta` are the present metadata. */
  caughtUp(
    at: Position,
    kv: KeyValue | undefined,
    meta: KeyValue | undefined,
  ): Promise<void>;
  /** Notes that puts succeed, or the error with which they fail. */
  trouble(error: unknown): void;
  /** Ends the log because of an error that no retry helps against. */
  fail(error: Error): void;
}

/** Dependencies of a {@linkcode PutWriter}. */
export interface PutWriterParts {
  readonly clusterID: bigint;
  readonly key: Uint8Array;
  readonly metaKey: Uint8Array;
  readonly client: EtcdClient;
  readonly env: Env;
  /** Random number of this process. */
  readonly writer: bigint;
  /** Bounds the puts of all clusters under way. */
  readonly limiter: PutLimiter;
  /** Longest wait of an append, in milliseconds. */
  readonly appendMs: number;
  /** Order of the appends of all processes. */
  readonly order: ClusterOrder;
}

/** Size of a batch with the overhead of its records, in bytes. */
export function costOf({ bytes, ends }: Records): number {
  return bytes.length + 8 * ends.length;
}

/** Puts appends into one log. */
export class PutWriter {
  readonly #parts: PutWriterParts;
  readonly #log: PutTarget;
  /** Appends that wait for a put. */
  #queue: Append[] = [];
  #put: Put | undefined;
  #isWriting = false;
  #sequence = 0;
  /** Size of the appends that share a put, in bytes; 0 once etcd has refused such a put as too large. */
  #putBytes = ETCD_PUT_BYTES;
  /** Ends the wait for the turn, while there is one. */
  #waiting: AbortController | undefined;
  /** True while a put is being made. */
  #isPutting = false;
  /** True once this process has written an epoch record. */
  #hasEpoch = false;
  /** Appends with a term that are not settled. */
  readonly #decided = new Map<Promise<number>, Term>();
  /** Settles once nothing is being written. */
  #settled: Promise<void> = Promise.resolve();

  /** Creates the writer of a log. */
  constructor(parts: PutWriterParts, log: PutTarget) {
    this.#parts = parts;
    this.#log = log;
    parts.order.isWriting = () => this.#isPutting || this.#hasDecided;
  }

  /** True if appends wait that rest on the present term. */
  get #hasDecided(): boolean {
    return this.#queue.some(({ term }) => term?.isOver === false);
  }

  /** Resolves once nothing is being written. */
  get settled(): Promise<void> {
    return this.#settled;
  }

  /** Appends records, only while `term` is not over if there is one; resolves to the index of the first. */
  append(records: Records, term?: Term): Promise<number> {
    const { promise, resolve, reject } = withResolvers<number>();
    const end = this.#parts.env.now() + this.#parts.appendMs;
    this.#queue.push({ records, term, end, resolve, reject });
    if (term !== undefined) {
      this.#waiting?.abort();
      this.#decided.set(promise, term);
      const settled = (): void => void this.#decided.delete(promise);
      promise.then(settled, settled);
    }
    if (!this.#isWriting) {
      this.#isWriting = true;
      // Never rejects: failures go to the appends.
      this.#settled = this.#write();
    }
    return promise;
  }

  /** Resolves once every append whose term is over is settled: until then, those who decide may count on it. */
  async lapsed(): Promise<void> {
    const { env } = this.#parts;
    for (;;) {
      const lapsed = [...this.#decided]
        .filter(([, { isOver }]) => isOver)
        .map(([promise]) => promise);
      if (lapsed.length === 0) return;
      await Promise.allSettled(lapsed);
      // Their callers have heard of it after a turn of the event loop.
      await env.turn();
    }
  }

  /** Fails the appends that wait for a put. */
  fail(error: Error): void {
    for (const { reject } of this.#queue) reject(error);
    this.#queue = [];
  }

  /** Puts what is queued, one put after the other, until the queue is empty. */
  async #write(): Promise<void> {
    const { env, limiter } = this.#parts;
    try {
      // Appends of one turn of the event loop share a put.
      await env.turn();
      while (this.#queue.length > 0) {
        this.#queue = this.#standing(this.#queue);
        if (this.#queue.length === 0) break;
        if (this.#parts.order.mustWait && !this.#hasDecided) {
          await this.#awaitTurn();
        }
        const appends = this.#take();
        if (appends.length === 0) continue;
        const size = appends.reduce(
          (sum, { records }) => sum + records.bytes.length,
          0,
        );
        this.#isPutting = true;
        const release = await limiter.enter(size);
        try {
          await this.#commit(appends);
        } catch (error) {
          for (const { reject } of appends) reject(error);
          throw error;
        } finally {
          release();
          this.#isPutting = false;
          this.#parts.order.settle();
        }
      }
    } catch (error) {
      this.#log.fail(error as Error);
    } finally {
      this.#isWriting = false;
    }
  }

  /** Waits for the turn to append, until the oldest append fails, or one that was decided in the present turn has come. */
  async #awaitTurn(): Promise<void> {
    const { env, order } = this.#parts;
    const waiting = this.#waiting = new AbortController();
    const left = this.#queue[0]!.end - env.now();
    const cancel = left < Infinity
      ? env.setTimer(
        () => waiting.abort(),
        Math.min(Math.max(1, left), TIMER_MS_MAX),
      )
      : undefined;
    try {
      await order.acquire(waiting.signal, false);
    } catch (error) {
      // Otherwise the next step sees what has changed.
      if (!waiting.signal.aborted) throw error;
    } finally {
      cancel?.();
      this.#waiting = undefined;
    }
  }

  /** Rejects the appends whose term is over; returns the others. */
  #standing(appends: readonly Append[]): Append[] {
    return appends.filter(({ term, reject }) => {
      if (term?.isOver !== true) return true;
      reject(
        new ErrOrderLost(
          `Append to the log of cluster ${this.#parts.clusterID} was decided before other records were appended; nothing was appended, so decide and append again`,
        ),
      );
      return false;
    });
  }

  /** Takes the appends of the next put; those that have waited too long fail. */
  #take(): Append[] {
    const { env, appendMs, clusterID } = this.#parts;
    const now = env.now();
    const appends: Append[] = [];
    for (let size = 0; this.#queue.length > 0;) {
      if (this.#queue[0]!.end <= now) {
        // Later ones may rest on it.
        this.#parts.order.disturb();
        this.#queue.shift()!.reject(
          new ErrEtcdUnavailable(
            `Log of cluster ${clusterID} could not be appended to within ${appendMs} ms; nothing was appended`,
          ),
        );
        continue;
      }
      size += costOf(this.#queue[0]!.records);
      if (appends.length > 0 && size > this.#putBytes) break;
      appends.push(this.#queue.shift()!);
    }
    return appends;
  }

  /** Makes appends one put, and repeats it at the new end if another process was first. */
  async #commit(appends: readonly Append[]): Promise<void> {
    let left = appends;
    const { order } = this.#parts;
    while (this.#log.failure === undefined) {
      left = this.#standing(left);
      if (left.length === 0) return;
      if (order.mustWait && left.every(({ term }) => term === undefined)) {
        this.#queue.unshift(...left);
        return;
      }
      const at = this.#log.end;
      const put = this.#encode(left, at);
      this.#put = put;
      if (await this.#try(put, at)) return;
    }
    for (const { reject } of left) reject(this.#log.failure);
  }

  #encode(appends: readonly Append[], at: Position): Put {
    const { clusterID, writer, env } = this.#parts;
    const batches = appends.map(({ records }) => records);
    if (!this.#hasEpoch) {
      batches.unshift(packRecords(epochRecord(env.random64())));
    }
    const sequence = ++this.#sequence;
    const { index: follows, epoch } = at;
    const header = { writer, sequence, follows, epoch };
    const value = encodePut(clusterID, header, batches);
    return { sequence, value, appends, batches };
  }

  /**
   * Makes a put if the log still ends at `at`. Returns false if another put was
   * first, so that this one will never be in the log; otherwise its appends are settled.
   */
  async #try(put: Put, at: Position): Promise<boolean> {
    const gaps = this.#log.gaps;
    /** Attempts that may have had an effect. */
    let attempts = 0;
    try {
      const left = put.appends[0]!.end - this.#parts.env.now();
      const response = await this.#parts.client.call(
        Method.Txn,
        this.#encodeTxn(put, at),
        {
          ms: Math.min(Math.max(1, left), TIMER_MS_MAX),
          onAttempt: () => attempts++,
          onRefused: () => attempts--,
        },
      );
      const { succeeded, header, ranges } = decodeTxn(response);
      this.#log.trouble(undefined);
      if (succeeded) {
        this.#committed(put, at, header.revision);
        return true;
      }
      // Another put was first: of another process, or of an earlier attempt.
      const [[kv] = [], [meta] = [], [turn] = []] = ranges;
      this.#parts.order.found(turn, header.revision);
      await this.#log.caughtUp(at, kv, meta);
      // All puts up to that one were read: this one is not among them, and is void.
      if (this.#log.gaps === gaps) return this.#put !== put;
      throw new Error(`Puts after version ${at.version} were compacted`);
    } catch (error) {
      if (this.#put === put) this.#failed(put, error, attempts > 0);
      return true;
    } finally {
      if (this.#put === put) this.#put = undefined;
    }
  }

  /** Request of a put if the log ends at a position; otherwise it returns the newest put. */
  #encodeTxn({ value }: Put, at: Position): Uint8Array {
    const { key, metaKey } = this.#parts;
    const { order } = this.#parts;
    return encodeTxn(
      [...this.#log.comparisons(at), order.comparison],
      [{ put: key, value }],
      [
        { range: { key, keysOnly: true } },
        { range: { key: metaKey } },
        order.range,
      ],
    );
  }

  /** Handles the response to a put, which may be before or after its change on the watch. */
  #committed(put: Put, at: Position, revision: number): void {
    if (this.#put !== put) return;
    const batches = this.#log.committed(at, revision, put.batches);
    if (batches !== undefined) this.#resolve(put, batches);
  }

  /** Settles the put under way if a put that was read is that one; otherwise nothing may rest any more on what was read before. */
  read(found: LogPut): void {
    const put = this.#put;
    if (
      put === undefined || found.writer !== this.#parts.writer ||
      found.sequence !== put.sequence
    ) return this.#parts.order.disturb();
    this.#resolve(put, found.batches);
  }

  #resolve(put: Put, batches: readonly LogBatch[]): void {
    this.#put = undefined;
    this.#hasEpoch = true;
    const own = batches.length - put.appends.length;
    for (const [i, { resolve }] of put.appends.entries()) {
      resolve(batches[i + own]!.first);
    }
  }

  /** Reports a put that has failed, or may be in the log later. */
  #failed(put: Put, error: unknown, isUnknown: boolean): void {
    const { clusterID, order } = this.#parts;
    // Later appends may rest on these.
    order.disturb();
    if (!isUnknown && error instanceof CallError && error.isTooLarge) {
      return this.#tooLarge(put, error);
    }
    let reason = error instanceof CallError ? error.toError() : error;
    this.#log.trouble(reason);
    if (isUnknown) {
      reason = new ErrUnknownOutcome(
        `Put ${put.sequence} to the log of cluster ${clusterID} may or may not be committed: ${
          messageOf(reason)
        }`,
        { cause: reason },
      );
    }
    for (const { reject } of put.appends) reject(reason);
  }

  /** Puts the appends of a put that etcd refuses as too large one by one, or refuses the only one. */
  #tooLarge({ appends, value }: Put, { message }: CallError): void {
    if (appends.length > 1) {
      this.#putBytes = 0;
      this.#queue.unshift(...appends);
      return;
    }
    const [{ records, reject }] = appends as [Append];
    const reason =
      `Put of ${value.length} bytes to the log of cluster ${this.#parts.clusterID} was refused: ${message}. Start the etcd nodes with the default of --max-request-bytes, 1572864, or a higher one`;
    reject(
      new ErrRecordsRefused(records.ends.map((_, at) => ({ at, reason }))),
    );
  }
}
