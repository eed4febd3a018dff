/**
 * Parser of snapshot containers, shared by everything that reads one.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ByteReader, crc32 } from "../bytes.ts";
import {
  SNAPSHOT_BLOCK_BYTES_MAX,
  SNAPSHOT_FILES_MAX,
  SNAPSHOT_SESSIONS_BYTES_MAX,
} from "../limits.ts";
import { ErrSnapshotCorrupted, ErrSnapshotVersion } from "./errors.ts";
import {
  BLOCK_HEAD,
  BlockChain,
  BlockType,
  FOLLOWS,
  PREAMBLE,
  VERSION,
} from "./format.ts";
import type { SnapshotTotals } from "./store.ts";

/** Block of a container, verified. */
export interface ParsedBlock {
  /** One of `BlockType`. */
  readonly type: number;
  /** Position of the block in the container, in bytes. */
  readonly offset: number;
  /** Head and data, as they are in the container. */
  readonly raw: Uint8Array;
  /** Data without the head. */
  readonly data: Uint8Array;
}

/**
 * Parses a container. Yields each block once it is verified, the preamble first,
 * and `undefined` when it needs the next chunk, which is passed to `next()`; no
 * chunk means the end of the stream. A block is a view of the chunk if it lies
 * within one.
 *
 * @throws ErrSnapshotCorrupted if the container is damaged, or the stream is not one
 * @throws ErrSnapshotVersion if its format version is not supported
 */
export function* parseSnapshot(): Generator<
  ParsedBlock | undefined,
  SnapshotTotals,
  Uint8Array | undefined
> {
  const chain = new BlockChain();
  const files = new Set<bigint>();
  let sessions = 0;
  let rest: Uint8Array = new Uint8Array();
  let offset = 0;

  function check(good: unknown, what: string): asserts good {
    if (!good) throw new ErrSnapshotCorrupted(what, offset);
  }

  /** Reads the next `count` bytes; returns them appended to `before`. */
  function* read(
    count: number,
    before: Uint8Array,
  ): Generator<undefined, Uint8Array, Uint8Array | undefined> {
    const end = before.length + count;
    if (
      rest.length >= count && before.buffer === rest.buffer &&
      before.byteOffset + before.length === rest.byteOffset
    ) {
      rest = rest.subarray(count);
      return new Uint8Array(before.buffer, before.byteOffset, end);
    }
    const bytes = new Uint8Array(end);
    bytes.set(before);
    for (let at = before.length;;) {
      const part = rest.subarray(0, end - at);
      bytes.set(part, at);
      rest = rest.subarray(part.length);
      at += part.length;
      if (at === end) return bytes;
      const chunk = yield;
      check(chunk, "Snapshot is truncated");
      rest = chunk;
    }
  }

  let raw = yield* read(PREAMBLE.length, rest.subarray(0, 0));
  check(
    raw.every((byte, i) => i > 7 || byte === PREAMBLE[i]),
    "Data is not a snapshot",
  );
  const preamble = new ByteReader(raw, 8);
  const version = preamble.u32();
  check(
    preamble.u32() === crc32(raw, 0, 0, 12),
    "Checksum of the preamble is wrong",
  );
  if (version < 1 || version > VERSION) {
    throw new ErrSnapshotVersion(version, VERSION);
  }

  for (let type: number = BlockType.Preamble;;) {
    yield { type, offset, raw, data: raw.subarray(BLOCK_HEAD) };
    offset = chain.length;
    if (type === BlockType.Tail) break;
    raw = yield* read(BLOCK_HEAD, rest.subarray(0, 0));
    const head = new ByteReader(raw);
    const crc = head.u32();
    const word = head.u32();
    const length = word & 0xffffff;
    const previous = type;
    type = word >>> 24;
    check(
      length > 0 && length <= SNAPSHOT_BLOCK_BYTES_MAX,
      "Length of the block is wrong",
    );
    raw = yield* read(length, raw);
    check(
      crc32(raw, chain.crc, 4) === crc,
      "Checksum of the block is wrong",
    );
    // The checksum is right: the checks below fail only if the writer was wrong.
    check((FOLLOWS[type] ?? 0) >> previous & 1, "Block is out of place");
    if (type === BlockType.Sessions) sessions += length;
    check(sessions <= SNAPSHOT_SESSIONS_BYTES_MAX, "Sessions are too large");
    if (type === BlockType.File) {
      check(length >= 8, "Block of a file is too short");
      files.add(new ByteReader(raw, BLOCK_HEAD).u64());
      check(
        files.size > chain.files && files.size <= SNAPSHOT_FILES_MAX,
        "File id is repeated, or there are more than SNAPSHOT_FILES_MAX files",
      );
    }
    if (type === BlockType.Tail) {
      const tail = chain.tail();
      check(
        tail.length === length &&
          tail.every((byte, i) => byte === raw[BLOCK_HEAD + i]),
        "Snapshot does not match its tail",
      );
    }
    chain.add(raw, type, crc);
  }
  for (let chunk: Uint8Array | undefined = rest; chunk; chunk = yield) {
    check(!chunk.length, "There are bytes after the tail");
  }
  return { files: chain.files };
}
