/**
 * Format of the snapshot container: preamble, block types, header and tail.
 * `format.md` in this folder specifies every byte.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ByteReader, ByteWriter, crc32 } from "../bytes.ts";
import { SNAPSHOT_BLOCK_BYTES_MAX } from "../limits.ts";
import type { Type } from "../statemachine/types.ts";
import { ErrSnapshotCorrupted } from "./errors.ts";
import type { SnapshotHeader } from "./store.ts";

/** Version of the format that is written. */
export const VERSION = 2;

/** First 16 bytes of every container of this version: magic, version and their checksum. */
export const PREAMBLE: Uint8Array<ArrayBuffer> = /* @__PURE__ */ preamble();

function preamble(): Uint8Array<ArrayBuffer> {
  // As in PNG: the bytes are not valid text, and a transfer in text mode damages them.
  const bytes = [0x89, 0x53, 0x4d, 0x50, 0x4e, 0x0d, 0x0a, 0x1a];
  const writer = new ByteWriter().raw(new Uint8Array(bytes)).u32(VERSION);
  return writer.u32(crc32(writer.finish())).finish();
}

/** Bytes before the data of each block: checksum (4), length (3) and type (1). */
export const BLOCK_HEAD = 8;

/** Size of the largest block with its head, in bytes. */
export const BLOCK_BYTES_MAX: number = BLOCK_HEAD + SNAPSHOT_BLOCK_BYTES_MAX;

/** Types of blocks. */
export const BlockType = {
  /** Stands for the preamble, which is no block. */
  Preamble: 0,
  /** Header of the snapshot. */
  Header: 1,
  /** Part of the session section. */
  Sessions: 2,
  /** Part of the payload that the state machine wrote. */
  Payload: 3,
  /** Id and metadata of an external file. */
  File: 4,
  /** Part of the content of the last external file. */
  Content: 5,
  /** Totals, which prove the container complete. */
  Tail: 6,
} as const;

/** For each block type the types that it may follow, as a bit set. */
export const FOLLOWS: readonly number[] = [
  0,
  0b1,
  0b110,
  0b1110,
  0b111110,
  0b110000,
  0b111110,
];

/** Bit of a header that carries an epoch. */
const HAS_EPOCH = 1;
/** Bit of a header that carries a state hash. */
const HAS_STATE_HASH = 2;

const KINDS = ["full", "metadata"] as const;
const COMPRESSIONS = ["none", "gzip", "deflate-raw"] as const;

/** Encodes the data of the header block. */
export function encodeHeader(header: SnapshotHeader): Uint8Array {
  const { epoch, stateHash } = header;
  const writer = new ByteWriter().u64(header.clusterID).u64(header.nodeID)
    .u8(header.type).u8(KINDS.indexOf(header.kind))
    .u8(COMPRESSIONS.indexOf(header.compression)).varint(header.index)
    .u8((epoch ? HAS_EPOCH : 0) | (stateHash ? HAS_STATE_HASH : 0));
  if (epoch) writer.varint(epoch.index).u64(epoch.id);
  if (stateHash) writer.u64(stateHash.hash).varint(stateHash.version);
  return writer.finish();
}

/**
 * Decodes the data of the header block of a container of `version`.
 *
 * @throws ErrSnapshotCorrupted if the header is invalid
 */
export function decodeHeader(
  data: Uint8Array,
  version: number,
): SnapshotHeader {
  try {
    const reader = new ByteReader(data);
    const fixed = {
      clusterID: reader.u64(),
      nodeID: reader.u64(),
      type: reader.u8() as Type,
      kind: KINDS[reader.u8()],
      compression: COMPRESSIONS[reader.u8()],
      index: reader.varint(),
    };
    // In version 1 the rest of the header, if there is any, is the epoch.
    const parts = version > 1 ? reader.u8() : reader.remaining ? HAS_EPOCH : 0;
    const epoch = parts & HAS_EPOCH
      ? { index: reader.varint(), id: reader.u64() }
      : undefined;
    const stateHash = parts & HAS_STATE_HASH
      ? { hash: reader.u64(), version: reader.varint() }
      : undefined;
    const { type, kind, compression } = fixed;
    if (
      type > 0 && type < 4 && kind && compression && !reader.remaining &&
      parts <= (HAS_EPOCH | HAS_STATE_HASH)
    ) {
      const header = { ...fixed, kind, compression, epoch };
      return stateHash ? { ...header, stateHash } : header;
    }
  } catch { /* Too short: damage. */ }
  throw new ErrSnapshotCorrupted(
    `Header of ${data.length} bytes is invalid`,
    PREAMBLE.length,
  );
}

/**
 * Running checksum and totals, kept by writer and parser alike: a block that is
 * lost, moved or repeated shows in the checksum of the next one, and in the tail.
 */
export class BlockChain {
  /** Checksum of the last block, from which that of the next one continues. */
  crc = 0;
  /** Size of the container so far, in bytes. */
  length: number = PREAMBLE.length;
  /** Number of blocks so far. */
  blocks = 0;
  /** Size of the payload so far, in bytes. */
  payload = 0;
  /** Number of external files so far. */
  files = 0;

  /** Adds a block, given with its head. */
  add(block: Uint8Array, type: number, crc: number): void {
    this.crc = crc;
    this.length += block.length;
    this.blocks++;
    if (type === BlockType.Payload) this.payload += block.length - BLOCK_HEAD;
    if (type === BlockType.File) this.files++;
  }

  /** Data of the tail block after the blocks so far. */
  tail(): Uint8Array {
    return new ByteWriter().varint(this.length).varint(this.blocks)
      .varint(this.payload).varint(this.files).finish();
  }
}
