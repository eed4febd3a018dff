/**
 * Format of the blocks in which a log is stored, and of their names.
 *
 * A block holds the batches of one write: checksum, format version and cluster
 * id, then each batch as the lengths of its records followed by their bytes. The
 * name of a block carries its indexes and size, so that listing the names finds a
 * missing block and shows how many blocks one read may fetch.
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
import type { LogBatch, Records } from "./log.ts";
import type { Epoch } from "./history.ts";

const VERSION = 1;
/** Size of checksum, version and cluster id, in bytes. */
const HEAD = 4 + 1 + 8;

/** Content of a block, as its name describes it. */
export interface BlockName {
  /** Index of the record before its first. */
  readonly follows: number;
  /** Index of its first record. */
  readonly first: number;
  /** Number of its records. */
  readonly count: number;
  /** Size of the block, in bytes. */
  readonly size: number;
}

/** Metadata of a log, stored beside its blocks. */
export interface LogMeta {
  /** Index after which the log starts. */
  readonly base: number;
  /** True if a record was ever appended. */
  readonly opened: boolean;
  /** Known epochs, oldest first. */
  readonly epochs: readonly Epoch[];
}

function hex(value: number | bigint, digits: number): string {
  return value.toString(16).padStart(digits, "0");
}

/** Prefix of the names of all blocks of a cluster's log. */
export function logPrefix(clusterID: bigint): string {
  return `log/${hex(clusterID, 16)}/`;
}

/** Prefix of the names of blocks whose first record has index `first`. */
export function blockStart(first: number): string {
  return `b/${hex(first, 14)}`;
}

/** Name of a block without the prefix of its log; with `hasGaps` it carries the index that the block follows. */
export function blockName(
  { follows, first, count, size }: BlockName,
  hasGaps: boolean,
): string {
  const name = `${blockStart(first)}-${hex(count, 6)}-${hex(size, 6)}`;
  return hasGaps ? `${name}-${hex(follows, 1)}` : name;
}

/** Parses a name without the prefix of its log; undefined if it does not name a block. */
export function parseBlockName(
  name: string,
  hasGaps: boolean,
): BlockName | undefined {
  const match =
    /^b\/([0-9a-f]{14})-([0-9a-f]{6})-([0-9a-f]{6})(?:-([0-9a-f]+))?$/.exec(
      name,
    );
  if (match === null || (match[4] !== undefined) !== hasGaps) return undefined;
  const number = (i: number): number => parseInt(match[i]!, 16);
  const first = number(1);
  const follows = hasGaps ? number(4) : first - 1;
  return { follows, first, count: number(2), size: number(3) };
}

/** Writes checksum, version and cluster id into the first bytes, which are reserved for them. */
function seal(bytes: Uint8Array, clusterID: bigint): Uint8Array {
  const view = new DataView(bytes.buffer);
  view.setUint8(4, VERSION);
  view.setBigUint64(5, clusterID, true);
  view.setUint32(0, crc32(bytes, 0, 4), true);
  return bytes;
}

/** Reader of the bytes after checksum, version and cluster id, which it verifies. */
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
 * Verifies a block of records or of metadata: that it is not damaged, and what its
 * name says. A store that has confused two blocks returns one that is not damaged.
 *
 * @throws ErrStoreCorrupted if it is damaged, or another block
 */
export function verifyBlock(
  bytes: Uint8Array,
  clusterID: bigint,
  name: string,
): void {
  const at = name.lastIndexOf("b/");
  const own = at < 0 ? "" : name.slice(at);
  const block = parseBlockName(own, false) ?? parseBlockName(own, true);
  if (block === undefined) decodeMeta(bytes, clusterID, name);
  else decodeBlock(bytes, clusterID, name, block);
}

/** Length of encoded batches, in bytes: of each its number of records, their lengths, and the records. */
export function batchesLength(batches: readonly Records[]): number {
  let size = 0;
  for (const { bytes, ends } of batches) {
    size += varintLength(ends.length) + bytes.length;
    let start = 0;
    for (const end of ends) {
      size += varintLength(end - start);
      start = end;
    }
  }
  return size;
}

/** Writes encoded batches at the end of `target`, from `at` on. */
export function putBatches(
  target: Uint8Array,
  at: number,
  batches: readonly Records[],
): void {
  for (const { bytes, ends } of batches) {
    at = putVarint(target, at, ends.length);
    let start = 0;
    for (const end of ends) {
      at = putVarint(target, at, end - start);
      start = end;
    }
    target.set(bytes, at);
    at += bytes.length;
  }
}

/** Encodes batches with consecutive indexes, the first record at index `first`. */
export function encodeBlock(
  clusterID: bigint,
  first: number,
  batches: readonly Records[],
): Uint8Array {
  const size = HEAD + varintLength(first) + varintLength(batches.length);
  const block = new Uint8Array(size + batchesLength(batches));
  putVarint(block, putVarint(block, HEAD, first), batches.length);
  putBatches(block, size, batches);
  return seal(block, clusterID);
}

/**
 * Decodes the batches of a block; their bytes are views of it.
 *
 * @throws ErrStoreCorrupted if the block is damaged, or does not match its name
 */
export function decodeBlock(
  bytes: Uint8Array,
  clusterID: bigint,
  name: string,
  { follows, first, count }: BlockName,
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
      batches.push({
        follows: next === first ? follows : next - 1,
        first: next,
        records,
      });
      next += ends.length;
    }
  } catch (cause) {
    throw cause instanceof RangeError ? damaged(name, { cause }) : cause;
  }
  if (next !== first + count || reader.remaining > 0) throw damaged(name);
  return batches;
}

/** Encodes the metadata of a log. */
export function encodeMeta(clusterID: bigint, meta: LogMeta): Uint8Array {
  const writer = new ByteWriter().raw(new Uint8Array(HEAD))
    .u8(Number(meta.opened)).varint(meta.base);
  for (const { index, id } of meta.epochs) {
    writer.varint(index).u64(id);
  }
  return seal(writer.finish(), clusterID);
}

/**
 * Decodes the metadata of a log.
 *
 * @throws ErrStoreCorrupted if it is damaged, or belongs to another cluster
 */
export function decodeMeta(
  bytes: Uint8Array,
  clusterID: bigint,
  name: string,
): LogMeta {
  const reader = unseal(bytes, clusterID, name);
  try {
    const flag = reader.u8();
    if (flag > 1) throw new RangeError(`Flag of the metadata is ${flag}`);
    const opened = flag === 1;
    const base = reader.varint();
    const epochs: Epoch[] = [];
    while (reader.remaining > 0) {
      epochs.push({ index: reader.varint(), id: reader.u64() });
    }
    return { opened, base, epochs };
  } catch (cause) {
    throw damaged(name, { cause });
  }
}
