/**
 * Most recently committed records of a log, shared by all readers that follow it.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { SYNC_RECENT_BYTES } from "../../limits.ts";
import type { LogBatch } from "../../log/log.ts";
import { batchAfter, lastOf } from "../../log/records.ts";

/** Approximate memory of a record besides its bytes, in bytes. */
const RECORD_COST = 8;

function costOf({ records: { bytes, ends } }: LogBatch): number {
  return bytes.length + ends.length * RECORD_COST;
}

/** Bounded window of consecutive batches at the end of a log; the oldest are dropped first. */
export class RecentBatches {
  #batches: LogBatch[] = [];
  #cost = 0;
  #last: number;

  /** Creates an empty window at index `after`. */
  constructor(after: number) {
    this.#last = after;
  }

  /** Index of the last record. */
  get last(): number {
    return this.#last;
  }

  /** Index after which every record is in the window. */
  get base(): number {
    return this.#batches[0]?.follows ?? this.#last;
  }

  /** Adds the batch that follows the last one. */
  push(batch: LogBatch): void {
    this.#batches.push(batch);
    this.#last = lastOf(batch);
    this.#cost += costOf(batch);
    if (this.#cost > 2 * SYNC_RECENT_BYTES) this.#trim();
  }

  #trim(): void {
    let from = this.#batches.length;
    this.#cost = 0;
    while (from > 0 && this.#cost < SYNC_RECENT_BYTES) {
      this.#cost += costOf(this.#batches[--from]!);
    }
    this.#batches = this.#batches.slice(from);
  }

  /** Batch of the records after `index`, which must be at or above the base; undefined if there are none. */
  after(index: number): LogBatch | undefined {
    if (index >= this.#last) return undefined;
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
