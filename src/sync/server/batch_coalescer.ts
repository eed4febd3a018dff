/**
 * Coalescing of small log batches into large ones.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { BATCH_BYTES_MAX, BATCH_RECORDS_MAX } from "../../limits.ts";
import type { LogBatch, LogReader } from "../../log/log.ts";
import { lastOf } from "../../log/records.ts";
import { isPromise } from "../../async.ts";
import type { MaybePromise } from "../../statemachine/types.ts";

/** Reads a log in batches as large as allowed, so that records appended one at a time are not sent one at a time. */
export class BatchCoalescer {
  readonly #reader: LogReader;
  /** Read ahead and not returned yet. */
  #next: MaybePromise<LogBatch> | undefined;

  /** Creates a coalescer over a reader, which its caller closes. */
  constructor(reader: LogReader) {
    this.#reader = reader;
  }

  /** Next batch, merged with those behind it that are available without waiting. */
  next(): MaybePromise<LogBatch> {
    const next = this.#next ?? this.#reader.next();
    this.#next = undefined;
    return isPromise(next)
      ? next.then((batch) => this.#coalesce(batch))
      : this.#coalesce(next);
  }

  #coalesce(first: LogBatch): LogBatch {
    const batches = [first];
    let last = lastOf(first);
    let count = first.records.ends.length;
    let size = first.records.bytes.length;
    while (count < BATCH_RECORDS_MAX) {
      const next = this.#next = this.#readAhead();
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

  /** Next batch of the log; an error is thrown by the `next()` that returns it. */
  #readAhead(): MaybePromise<LogBatch> {
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

/** Merges batches with consecutive indexes. */
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
