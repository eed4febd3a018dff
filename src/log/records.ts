/**
 * Packing of records into batches, and the epoch record, which the log itself writes.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ByteReader, ByteWriter } from "../bytes.ts";
import { BATCH_RECORDS_MAX, SLAB_BYTES, SLAB_FIRST_BYTES } from "../limits.ts";
import type { LogBatch, Records } from "./log.ts";

/** First byte of a record: format version 1 in the high four bits, the kind in the low four. */
export const RecordKind = {
  /** Epoch: a process opened the log for writing. u64 id. */
  Epoch: 0x10,
  /** Limits of the cluster, in its first record: varint sessions. */
  Config: 0x11,
  /** Opens a session: u64 client id, owner as bytes preceded by their length. */
  Register: 0x12,
  /** Closes a session: varint session. */
  Unregister: 0x13,
  /** Proposal without a session: u32 + u32 origin, varint sequence number, command. */
  Proposal: 0x14,
  /** Proposal of a session: varint session, varint series, varint number of unacknowledged series before it, command. */
  SessionProposal: 0x15,
  /** Skips a series of a session: varint session, varint series, varint number of unacknowledged series before it, and if it was rejected the reason, as text. */
  Skip: 0x16,
  /** Claims a session: varint session, u64 previous holder, u64 new holder. */
  Claim: 0x17,
  /** Skips an earlier entry, by an operator's decision: varint index, reason as text. */
  SkipEntry: 0x18,
} as const;

/** Record that begins an epoch (H13). */
export function epochRecord(epoch: bigint): Uint8Array {
  return new ByteWriter(9).u8(RecordKind.Epoch).u64(epoch).finish();
}

/** Id of the epoch in an epoch record; undefined for any other record. */
export function epochOf(record: Uint8Array): bigint | undefined {
  return record.length === 9 && record[0] === RecordKind.Epoch
    ? new ByteReader(record, 1).u64()
    : undefined;
}

/** Packs records into one buffer. */
export function packRecords(...records: readonly Uint8Array[]): Records {
  const writer = new ByteWriter(records.length === 1 ? records[0]!.length : 64);
  const ends = records.map((record) => writer.raw(record).length);
  return { bytes: writer.finish(), ends };
}

/** Record `i` of a pack, as a view. */
export function recordAt(records: Records, i: number): Uint8Array {
  const start = i === 0 ? 0 : records.ends[i - 1]!;
  return records.bytes.subarray(start, records.ends[i]);
}

/** Part of a batch after index `after`, which lies within it. */
export function batchAfter(batch: LogBatch, after: number): LogBatch {
  const skip = after - batch.first + 1;
  if (skip <= 0) return batch;
  const { bytes, ends } = batch.records;
  const start = ends[skip - 1]!;
  return {
    follows: after,
    first: after + 1,
    records: {
      bytes: bytes.subarray(start),
      ends: ends.slice(skip).map((end) => end - start),
    },
  };
}

/** Part of a batch up to index `upTo`, which must not be before its first index. */
export function batchUpTo(batch: LogBatch, upTo: number): LogBatch {
  if (lastOf(batch) <= upTo) return batch;
  const { follows, first, records: { bytes, ends } } = batch;
  const kept = ends.slice(0, upTo - first + 1);
  const records = { bytes: bytes.subarray(0, kept.at(-1)), ends: kept };
  return { follows, first, records };
}

/** Index of the last record of a batch. */
export function lastOf(batch: LogBatch): number {
  return batch.first + batch.records.ends.length - 1;
}

/** Position of the first item that ends after `index`, in items ordered by their last index. */
export function firstAfter<T>(
  items: readonly T[],
  lastOf: (item: T) => number,
  index: number,
): number {
  let low = 0;
  let high = items.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (lastOf(items[middle]!) > index) high = middle;
    else low = middle + 1;
  }
  return low;
}

/**
 * Packs records into batches within the limits of the log. Small records share a
 * buffer; the part of it that a sealed batch uses is never written again.
 */
export class RecordPacker {
  /** Buffer into which the caller writes the next record, at the offset returned by `begin()`. */
  bytes: Uint8Array = new Uint8Array(0);
  #slab: number = SLAB_FIRST_BYTES;
  #start = 0;
  #at = 0;
  #ends: number[] = [];

  /** Number of records in the current batch. */
  get length(): number {
    return this.#ends.length;
  }

  /** True if a record of `length` bytes fits into the current batch. */
  fits(length: number): boolean {
    if (this.#ends.length >= BATCH_RECORDS_MAX) return false;
    return this.#at + length <= this.bytes.length ||
      // A small buffer grows with its batch.
      this.#ends.length > 0 && this.bytes.length < SLAB_BYTES &&
        this.#at - this.#start + length <= SLAB_BYTES;
  }

  /** Reserves room for a record of `length` bytes, which must fit unless the batch is empty; returns its offset in `bytes`. */
  begin(length: number): number {
    if (this.#at + length > this.bytes.length) {
      const current = this.bytes.subarray(this.#start, this.#at);
      let size = Math.min(SLAB_BYTES, this.#slab);
      while (size < SLAB_BYTES && size < current.length + length) size *= 2;
      this.#slab = 2 * size;
      this.bytes = new Uint8Array(Math.max(size, current.length + length));
      this.bytes.set(current);
      this.#start = 0;
      this.#at = current.length;
    }
    const at = this.#at;
    this.#at += length;
    this.#ends.push(this.#at - this.#start);
    return at;
  }

  /** Ends the current batch and returns it. */
  seal(): Records {
    const records = {
      bytes: this.bytes.subarray(this.#start, this.#at),
      ends: this.#ends,
    };
    this.#start = this.#at;
    this.#ends = [];
    return records;
  }
}
