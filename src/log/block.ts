/**
 * How a log that is kept in blocks names and fills them.
 *
 * A block holds the batches of one write: behind a checksum, what it is a block
 * of, and then each batch with the lengths of its records before their bytes.
 * Its name says which indexes it holds and how long it is, so that the names
 * alone show whether one is missing, and how much may be read at once.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  ByteReader,
  ByteWriter,
  crc32,
  putVarint,
  varintLength,
} from "../bytes.ts";
import { ErrStoreCorrupted } from "../store/errors.ts";
import type { EpochMark, LogBatch, Records } from "./log.ts";

const VERSION = 1;
/** Checksum, version and cluster. */
const HEAD = 4 + 1 + 8;

/** A block as its name tells of it. */
export interface BlockName {
  /** The index of its first record. */
  readonly first: number;
  /** How many records it holds. */
  readonly count: number;
  /** Its size, in bytes. */
  readonly size: number;
}

/** What is kept of a log besides its blocks. */
export interface LogMeta {
  /** The index the log starts after. */
  readonly base: number;
  /** Whether anything was ever added. */
  readonly opened: boolean;
  /** The epochs it knows, oldest first. */
  readonly marks: readonly EpochMark[];
}

function hex(value: number | bigint, digits: number): string {
  return value.toString(16).padStart(digits, "0");
}

/** What the names of all that is kept of a cluster's log begin with. */
export function logPrefix(clusterID: bigint): string {
  return `log/${hex(clusterID, 16)}/`;
}

/** What the names of blocks that begin at index `first` begin with. */
export function blockStart(first: number): string {
  return `b/${hex(first, 14)}`;
}

/** The name of a block, behind the prefix of its log. */
export function blockName({ first, count, size }: BlockName): string {
  return `${blockStart(first)}-${hex(count, 6)}-${hex(size, 6)}`;
}

/** Reads a name behind the prefix of its log; undefined if it is none of a block. */
export function parseBlockName(name: string): BlockName | undefined {
  const match = /^b\/([0-9a-f]{14})-([0-9a-f]{6})-([0-9a-f]{6})$/.exec(name);
  if (match === null) return undefined;
  const [first, count, size] = match.slice(1).map((part) => parseInt(part, 16));
  return { first: first!, count: count!, size: size! };
}

/** Writes checksum, version and cluster before what is in `bytes` already. */
function seal(bytes: Uint8Array, clusterID: bigint): Uint8Array {
  const view = new DataView(bytes.buffer);
  view.setUint8(4, VERSION);
  view.setBigUint64(5, clusterID, true);
  view.setUint32(0, crc32(bytes, 0, 4), true);
  return bytes;
}

/** What is behind checksum, version and cluster, if those are right. */
function unseal(
  bytes: Uint8Array,
  clusterID: bigint,
  name: string,
): ByteReader {
  const reader = new ByteReader(bytes);
  if (
    bytes.length < HEAD || reader.u32() !== crc32(bytes, 0, 4) ||
    reader.u8() !== VERSION || reader.u64() !== clusterID
  ) throw damaged(name);
  return reader;
}

function damaged(name: string, options?: ErrorOptions): ErrStoreCorrupted {
  return new ErrStoreCorrupted(name, "Block of the log is damaged", options);
}

/**
 * Checks the checksum, version and cluster of a block without reading its records.
 *
 * @throws ErrStoreCorrupted if it is damaged, or one of another cluster
 */
export function verifyBlock(
  bytes: Uint8Array,
  clusterID: bigint,
  name: string,
): void {
  unseal(bytes, clusterID, name);
}

/** A block of batches that follow each other, the first record at index `first`. */
export function encodeBlock(
  clusterID: bigint,
  first: number,
  batches: readonly Records[],
): Uint8Array {
  let size = HEAD + varintLength(first) + varintLength(batches.length);
  for (const { bytes, ends } of batches) {
    size += varintLength(ends.length) + bytes.length;
    let start = 0;
    for (const end of ends) {
      size += varintLength(end - start);
      start = end;
    }
  }
  const block = new Uint8Array(size);
  let at = putVarint(block, HEAD, first);
  at = putVarint(block, at, batches.length);
  for (const { bytes, ends } of batches) {
    at = putVarint(block, at, ends.length);
    let start = 0;
    for (const end of ends) {
      at = putVarint(block, at, end - start);
      start = end;
    }
    block.set(bytes, at);
    at += bytes.length;
  }
  return seal(block, clusterID);
}

/**
 * The batches of a block; their bytes are views of it.
 *
 * @throws ErrStoreCorrupted if it is not the block of that name
 */
export function decodeBlock(
  bytes: Uint8Array,
  clusterID: bigint,
  name: string,
  { first, count }: BlockName,
): LogBatch[] {
  const reader = unseal(bytes, clusterID, name);
  const batches: LogBatch[] = [];
  let next = first;
  try {
    if (reader.varint() !== first) throw damaged(name);
    for (let left = reader.varint(); left > 0; left--) {
      const ends: number[] = [];
      let end = 0;
      for (let records = reader.varint(); records > 0; records--) {
        ends.push(end += reader.varint());
      }
      const records = { bytes: reader.raw(end), ends };
      batches.push({ follows: next - 1, first: next, records });
      next += ends.length;
    }
  } catch (cause) {
    throw cause instanceof RangeError ? damaged(name, { cause }) : cause;
  }
  if (next !== first + count || reader.remaining > 0) throw damaged(name);
  return batches;
}

/** The bytes of what is kept besides the blocks. */
export function encodeMeta(clusterID: bigint, meta: LogMeta): Uint8Array {
  const writer = new ByteWriter().raw(new Uint8Array(HEAD))
    .u8(Number(meta.opened)).varint(meta.base);
  for (const { index, epoch } of meta.marks) writer.varint(index).u64(epoch);
  return seal(writer.finish(), clusterID);
}

/**
 * Reads what {@linkcode encodeMeta} wrote.
 *
 * @throws ErrStoreCorrupted if it did not
 */
export function decodeMeta(
  bytes: Uint8Array,
  clusterID: bigint,
  name: string,
): LogMeta {
  const reader = unseal(bytes, clusterID, name);
  try {
    const opened = reader.u8() === 1;
    const base = reader.varint();
    const marks: EpochMark[] = [];
    while (reader.remaining > 0) {
      marks.push({ index: reader.varint(), epoch: reader.u64() });
    }
    return { opened, base, marks };
  } catch (cause) {
    throw damaged(name, { cause });
  }
}
