/**
 * What all blocks of a packed store have in common: a checksum over the rest,
 * and a byte that says what kind of block it is and of which version.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ByteReader, ByteWriter, crc32 } from "../../bytes.ts";
import { ErrStoreCorrupted } from "../../store/errors.ts";
import { viewOf } from "../view.ts";

/** The block all reading starts from. */
export const HEAD = 0x11;
/** The directory of pages. */
export const BASE = 0x12;
/** A record of the log. */
export const LOG = 0x13;
/** A page. */
export const PAGE = 0x14;

/** Bytes before the content. */
export const BLOCK_HEAD_BYTES = 5;

/** An error that names a block. */
export function corrupted(
  key: string,
  what?: string,
  options?: ErrorOptions,
): ErrStoreCorrupted {
  return new ErrStoreCorrupted(key, what ?? "Block is damaged", options);
}

/** Begins a block. */
export function beginBlock(kind: number, capacity?: number): ByteWriter {
  return new ByteWriter(capacity).u32(0).u8(kind);
}

/** Ends a block: sets its checksum. */
export function endBlock(bytes: Uint8Array): Uint8Array {
  viewOf(bytes).setUint32(0, crc32(bytes, 0, 4), true);
  return bytes;
}

/** Checks a block; returns its checksum. What is behind its head is as it was written. */
export function checkBlock(
  key: string,
  kind: number,
  bytes: Uint8Array | undefined,
): number {
  if (bytes === undefined) throw corrupted(key, "Block is missing");
  if (bytes.length < BLOCK_HEAD_BYTES || bytes[4] !== kind) {
    throw corrupted(key);
  }
  const crc = viewOf(bytes).getUint32(0, true);
  if (crc !== crc32(bytes, 0, 4)) throw corrupted(key);
  return crc;
}

/** Reads a block with `read`, which takes its content to the end. */
export function readBlock<T>(
  key: string,
  kind: number,
  bytes: Uint8Array | undefined,
  read: (r: ByteReader) => T,
): T {
  checkBlock(key, kind, bytes);
  try {
    return read(new ByteReader(bytes!, BLOCK_HEAD_BYTES));
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw corrupted(key, "Block is malformed", { cause });
  }
}
