/**
 * Format of the blocks of a packed store: a checksum of the rest, and a byte
 * for the kind of block and its version.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ByteReader, ByteWriter, crc32 } from "../../bytes.ts";
import { ErrStoreCorrupted } from "../../store/errors.ts";
import { viewOf } from "../view.ts";

/** Kind of the head block, where opening starts. */
export const HEAD = 0x11;
/** Kind of the block with the directory of pages. */
export const BASE = 0x12;
/** Kind of a record of the write-ahead log. */
export const LOG = 0x13;
/** Kind of a page block. */
export const PAGE = 0x14;

/** Bytes before the content of a block. */
export const BLOCK_HEAD_BYTES = 5;

/** Creates an error that names a block. */
export function corrupted(
  key: string,
  what?: string,
  options?: ErrorOptions,
): ErrStoreCorrupted {
  return new ErrStoreCorrupted(key, what ?? "Block is damaged", options);
}

/** Starts a block of a kind. */
export function beginBlock(kind: number, capacity?: number): ByteWriter {
  return new ByteWriter(capacity).u32(0).u8(kind);
}

/** Completes a block with its checksum. */
export function endBlock(bytes: Uint8Array): Uint8Array {
  viewOf(bytes).setUint32(0, crc32(bytes, 0, 4), true);
  return bytes;
}

/** Checks a block and returns its checksum; afterwards its content is known to be intact. */
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

/** Checks a block and decodes its content with `read`, which must consume all of it. */
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
