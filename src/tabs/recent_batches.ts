/**
 * Newest batches of a log in memory, from which other tabs continue.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { copyOf } from "../bytes.ts";
import { TAB_RECENT_BYTES } from "../limits.ts";
import { epochsIn } from "../log/epochs.ts";
import type { Epoch } from "../log/history.ts";
import type { LogBatch } from "../log/log.ts";
import { batchAfter, lastOf } from "../log/records.ts";

/** Newest batches of one log. */
export class RecentBatches {
  #batches: LogBatch[] = [];
  #bytes = 0;
  /** Index after which it has all records; undefined before the first. */
  #base: number | undefined;
  #last = 0;
  /** Epochs of the log that are known here, in order. */
  #epochs: Epoch[] = [];

  /** Index of the last record. */
  get last(): number {
    return this.#last;
  }

  /** Begins after an index, unless it has records up to there; returns true if it has not. */
  begin(after: number, epoch: Epoch | undefined): boolean {
    if (this.#base !== undefined && after <= this.#last) return false;
    this.#batches = [];
    this.#bytes = 0;
    this.#base = this.#last = after;
    this.#epochs = epoch === undefined ? [] : [epoch];
    return true;
  }

  /** Adds the next batch, and returns what was not known of it; undefined for one that is known, or does not follow. */
  add(next: LogBatch): LogBatch | undefined {
    if (
      this.#base === undefined || next.follows > this.#last ||
      lastOf(next) <= this.#last
    ) return undefined;
    const batch = next.first <= this.#last
      ? batchAfter(next, this.#last)
      : next;
    this.#batches.push(batch);
    this.#bytes += batch.records.bytes.length;
    this.#last = lastOf(batch);
    this.#epochs.push(...epochsIn(batch));
    while (this.#bytes > TAB_RECENT_BYTES && this.#batches.length > 1) {
      const oldest = this.#batches.shift()!;
      this.#bytes -= oldest.records.bytes.length;
      this.#base = lastOf(oldest);
    }
    const { length } = this.#epochs;
    if (length > 1 && this.#epochs[1]!.index <= this.#base) {
      this.#forgetEpochs();
    }
    return batch;
  }

  /** Forgets the epochs before the last one at or before the first record in memory. */
  #forgetEpochs(): void {
    const base = this.#base!;
    const at = this.#epochs.findLastIndex(({ index }) => index <= base);
    this.#epochs.splice(0, at);
  }

  /** Batches after an index; undefined if some are not in memory. */
  after(index: number): LogBatch[] | undefined {
    if (this.#base === undefined || index < this.#base) return undefined;
    return this.#batches.filter((batch) => lastOf(batch) > index)
      .map((batch) => batch.first <= index ? batchAfter(batch, index) : batch);
  }

  /** True if an epoch may be the last one at or before an index, as far as it is known here. */
  agrees(index: number, epoch: Epoch | undefined): boolean {
    if (epoch === undefined || index > this.#last) return true;
    const known = this.#epochs.findLast((one) => one.index <= index);
    return known === undefined ||
      known.index === epoch.index && known.id === epoch.id;
  }
}

/** Batch whose bytes fill their buffer: a view would send the whole buffer. */
export function compactBatch(batch: LogBatch): LogBatch {
  const { bytes, ends } = batch.records;
  return { ...batch, records: { bytes: copyOf(bytes), ends } };
}
