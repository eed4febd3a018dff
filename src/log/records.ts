/**
 * Packing records into batches, and the one record a log itself writes.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ByteReader, ByteWriter } from "../bytes.ts";
import { BATCH_RECORDS_MAX, SLAB_BYTES, SLAB_FIRST_BYTES } from "../limits.ts";
import type { LogBatch, Records } from "./log.ts";

/** The first byte of a record: version 1 in the high half, the kind in the low. */
export const RecordKind = {
  /** Somebody opened the log for writing: u64 epoch. */
  Epoch: 0x10,
  /** Limits of the cluster, valid as its first record: varint sessions. */
  Config: 0x11,
  /** Opens a session: u64 client id, owner bytes behind their length. */
  Register: 0x12,
  /** Closes a session: varint session. */
  Unregister: 0x13,
  /** A proposal outside of any session: u32 + u32 origin, varint sequence number, command. */
  Proposal: 0x14,
  /** A proposal of a session: varint session, varint series, varint series not acknowledged before it, command. */
  SessionProposal: 0x15,
  /** Skips a series of a session: varint session, varint series, varint series not acknowledged before it, and if it was refused why, as text. */
  Skip: 0x16,
  /** Takes a session over: varint session, u64 holder it is taken from, u64 holder it goes to. */
  Claim: 0x17,
  /** Skips an entry before it, by an operator's decision: varint index, reason as text. */
  SkipEntry: 0x18,
} as const;

/** The record that opens a log for writing (H13). */
export function epochRecord(epoch: bigint): Uint8Array {
  return new ByteWriter(9).u8(RecordKind.Epoch).u64(epoch).finish();
}

/** The epoch in a record, if it is an epoch record. */
export function epochOf(record: Uint8Array): bigint | undefined {
  return record.length === 9 && record[0] === RecordKind.Epoch
    ? new ByteReader(record, 1).u64()
    : undefined;
}

/** One record, or several, as a batch would carry them. */
export function packRecords(...records: readonly Uint8Array[]): Records {
  const writer = new ByteWriter(records.length === 1 ? records[0]!.length : 64);
  const ends = records.map((record) => writer.raw(record).length);
  return { bytes: writer.finish(), ends };
}

/** The `i`th record of a pack, as a view. */
export function recordAt(records: Records, i: number): Uint8Array {
  const start = i === 0 ? 0 : records.ends[i - 1]!;
  return records.bytes.subarray(start, records.ends[i]);
}

/** What of a batch comes after index `after`, which lies within it. */
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
 * Packs records into batches within the bounds of the log. Small records share
 * a buffer, which is handed on and never written again below what was sealed.
 */
export class RecordPacker {
  /** The buffer the next record is written into, at the offset `begin()` gave. */
  bytes: Uint8Array = new Uint8Array(0);
  #slab: number = SLAB_FIRST_BYTES;
  #start = 0;
  #at = 0;
  #ends: number[] = [];

  /** Records in the open batch. */
  get length(): number {
    return this.#ends.length;
  }

  /** Whether a record of `length` bytes still goes into the open batch. */
  fits(length: number): boolean {
    if (this.#ends.length >= BATCH_RECORDS_MAX) return false;
    return this.#at + length <= this.bytes.length ||
      // A small buffer grows with its batch.
      this.#ends.length > 0 && this.bytes.length < SLAB_BYTES &&
        this.#at - this.#start + length <= SLAB_BYTES;
  }

  /** Makes room for a record of `length` bytes, in a batch that it fits or an empty one; returns its offset in `bytes`. */
  begin(length: number): number {
    if (this.#at + length > this.bytes.length) {
      const open = this.bytes.subarray(this.#start, this.#at);
      let size = Math.min(SLAB_BYTES, this.#slab);
      while (size < SLAB_BYTES && size < open.length + length) size *= 2;
      this.#slab = 2 * size;
      this.bytes = new Uint8Array(Math.max(size, open.length + length));
      this.bytes.set(open);
      this.#start = 0;
      this.#at = open.length;
    }
    const at = this.#at;
    this.#at += length;
    this.#ends.push(this.#at - this.#start);
    return at;
  }

  /** Takes the open batch out. */
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
