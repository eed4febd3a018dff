/**
 * What was committed last, for many readers at once.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  BATCH_BYTES_MAX,
  BATCH_RECORDS_MAX,
  SYNC_RING_BYTES,
} from "../../limits.ts";
import type { LogBatch, LogReader } from "../../log/log.ts";
import { batchAfter, lastOf } from "../../log/records.ts";
import { isPromise } from "../../async.ts";
import type { MaybePromise } from "../../statemachine/types.ts";

/** What a record costs beyond its bytes, in bytes, about. */
const RECORD_COST = 8;

function costOf({ records: { bytes, ends } }: LogBatch): number {
  return bytes.length + ends.length * RECORD_COST;
}

/** Recent batches, each following the one before it. */
export class Ring {
  #batches: LogBatch[] = [];
  #cost = 0;
  #position: number;

  /** A ring for what comes after index `after`. */
  constructor(after: number) {
    this.#position = after;
  }

  /** The index of the last record that was put in. */
  get position(): number {
    return this.#position;
  }

  /** The index after which all is here. */
  get base(): number {
    return this.#batches[0]?.follows ?? this.#position;
  }

  /** Puts in what follows. */
  push(batch: LogBatch): void {
    this.#batches.push(batch);
    this.#position = lastOf(batch);
    this.#cost += costOf(batch);
    if (this.#cost > 2 * SYNC_RING_BYTES) this.#trim();
  }

  #trim(): void {
    let from = this.#batches.length;
    this.#cost = 0;
    while (from > 0 && this.#cost < SYNC_RING_BYTES) {
      this.#cost += costOf(this.#batches[--from]!);
    }
    this.#batches = this.#batches.slice(from);
  }

  /** The batch with what comes after an index at or above the base, cut to that; undefined if there is nothing yet. */
  after(index: number): LogBatch | undefined {
    if (index >= this.#position) return undefined;
    let low = 0;
    let high = this.#batches.length - 1;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (lastOf(this.#batches[middle]!) > index) high = middle;
      else low = middle + 1;
    }
    const batch = this.#batches[low]!;
    // Between two batches there may be a gap of indexes.
    return index <= batch.follows ? batch : batchAfter(batch, index);
  }
}

/** Reads a log in batches as large as they may be: what was appended a record at a time is not to be sent a record at a time. */
export class Gatherer {
  readonly #reader: LogReader;
  #next: MaybePromise<LogBatch> | undefined;

  /** A gatherer over a reader, which stays the caller's to close. */
  constructor(reader: LogReader) {
    this.#reader = reader;
  }

  /** The next batch, with what is at hand behind it; waits until there is one. */
  next(): MaybePromise<LogBatch> {
    const next = this.#next ?? this.#reader.next();
    this.#next = undefined;
    return isPromise(next)
      ? next.then((batch) => this.#gather(batch))
      : this.#gather(next);
  }

  #gather(first: LogBatch): LogBatch {
    const batches = [first];
    let last = lastOf(first);
    let count = first.records.ends.length;
    let size = first.records.bytes.length;
    while (count < BATCH_RECORDS_MAX) {
      const next = this.#next = this.#read();
      if (isPromise(next)) break;
      const { bytes, ends } = next.records;
      count += ends.length;
      size += bytes.length;
      if (
        next.first !== last + 1 || count > BATCH_RECORDS_MAX ||
        size > BATCH_BYTES_MAX
      ) break;
      this.#next = undefined;
      batches.push(next);
      last = lastOf(next);
    }
    return batches.length === 1 ? first : merge(batches);
  }

  /** The next batch of the log; what fails, fails when it is asked for. */
  #read(): MaybePromise<LogBatch> {
    let next: MaybePromise<LogBatch>;
    try {
      next = this.#reader.next();
    } catch (error) {
      next = Promise.reject(error);
    }
    if (isPromise(next)) next.catch(() => {});
    return next;
  }
}

/** Batches with consecutive indexes as one. */
function merge(batches: readonly LogBatch[]): LogBatch {
  const { follows, first } = batches[0]!;
  const size = batches.reduce((sum, b) => sum + b.records.bytes.length, 0);
  const bytes = new Uint8Array(size);
  const ends: number[] = [];
  let at = 0;
  for (const { records } of batches) {
    bytes.set(records.bytes, at);
    for (const end of records.ends) ends.push(at + end);
    at += records.bytes.length;
  }
  return { follows, first, records: { bytes, ends } };
}
