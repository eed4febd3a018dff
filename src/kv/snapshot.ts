/**
 * The snapshot payload of the key-value machines: the same bytes for the same
 * rows, whatever machine writes them.
 *
 * ```text
 * "SKV" and the version of the format, 1
 * for each row, in byte order of keys:
 *   length of the key + 1, length of the value   (varints of the least length)
 *   key, value
 * 0, the number of rows (varint), the state hash (8 bytes, little-endian)
 * ```
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ByteReader, ByteWriter } from "../bytes.ts";
import {
  KV_KEY_BYTES_MAX,
  KV_VALUE_BYTES_MAX,
  SNAPSHOT_BLOCK_BYTES_MAX,
} from "../limits.ts";
import type { MaybePromise } from "../statemachine/types.ts";
import { ErrKVInvalidSnapshot } from "./errors.ts";
import { hashKey, hashValue, lanes } from "./hash.ts";
import { HIGH, Leaf, LEAF_BYTES, LEAF_ROWS, LOW, WIDTH } from "./leaf.ts";
import { separate, type Span, spans, Tree, type Version } from "./tree.ts";
import { bytesOf, compareBytes, viewOf } from "./view.ts";

const MAGIC = [0x53, 0x4b, 0x56, 1];

/** Maximum length of the end of a payload, after its last row, in bytes. */
const END_BYTES_MAX = 1 + 8 + 8;

/** Bytes written and read at a time. */
const CHUNK_BYTES = SNAPSHOT_BLOCK_BYTES_MAX;

/** Rows of a state, with the number and hash at the end of its payload. */
export interface PayloadSource {
  /** Number of rows. */
  readonly count: number;
  /** The state hash. */
  readonly hash: bigint;
  /** Rows in key order. */
  readonly spans: Iterable<Span> | AsyncIterable<Span>;
}

/** Receiver of the rows of a payload. */
export interface PayloadTarget {
  /** Number of rows received. */
  readonly count: number;
  /** Hash of the rows received. */
  readonly hash: bigint;
  /** Adds a leaf whose rows are above all those added before. */
  adopt(leaf: Leaf): void;
  /** Called after each chunk; reading continues once it has settled. */
  drain?(): MaybePromise<void>;
}

/** Writes a version in chunks; the caller closes the stream. */
export function savePayload(
  { root, count, hash }: Version,
  w: WritableStream<Uint8Array>,
  stopped: AbortSignal,
): Promise<void> {
  return writePayload({ count, hash, spans: spans(root) }, w, stopped);
}

/** Writes a payload in chunks; the caller closes the stream. */
export async function writePayload(
  source: PayloadSource,
  w: WritableStream<Uint8Array>,
  stopped: AbortSignal,
): Promise<void> {
  const writer = w.getWriter();
  try {
    stopped.throwIfAborted();
    for await (const chunk of chunks(source)) {
      stopped.throwIfAborted();
      await writer.write(chunk);
      stopped.throwIfAborted();
    }
  } finally {
    writer.releaseLock();
  }
}

/** Yields the payload in new buffers, which the reader may retain. */
async function* chunks(source: PayloadSource): AsyncGenerator<Uint8Array> {
  let chunk = new Uint8Array(CHUNK_BYTES);
  let length = 0;
  for await (const bytes of pieces(source)) {
    for (let at = 0; at < bytes.length;) {
      const part = bytes.subarray(at, at + CHUNK_BYTES - length);
      chunk.set(part, length);
      at += part.length;
      length += part.length;
      if (length === CHUNK_BYTES) {
        yield chunk;
        chunk = new Uint8Array(CHUNK_BYTES);
        length = 0;
      }
    }
  }
  if (length > 0) yield chunk.slice(0, length);
}

/** Yields the payload as views of leaves. */
async function* pieces(
  { spans, count, hash }: PayloadSource,
): AsyncGenerator<Uint8Array> {
  yield new Uint8Array(MAGIC);
  for await (const { leaf, start, end } of spans) {
    const first = leaf.offset(start);
    yield bytesOf(leaf.view, first, leaf.offset(end));
  }
  yield new ByteWriter().u8(0).varint(count).u64(hash).finish();
}

/** Builds a tree from a payload in chunks of any size, up to the end of the stream. */
export async function loadPayload(
  r: ReadableStream<Uint8Array>,
  stopped: AbortSignal,
): Promise<Tree> {
  const tree = new Tree();
  const separators: DataView[] = [];
  let last: Leaf | undefined;
  await readPayload(r, stopped, {
    get count(): number {
      return tree.count;
    },
    get hash(): bigint {
      return tree.hash;
    },
    adopt(leaf): void {
      tree.adopt(leaf);
      if (last) separators.push(separate(last, leaf));
      last = leaf;
    },
  });
  tree.plant(separators);
  return tree;
}

/** Reads a payload in chunks of any size, to the end of the stream. */
export async function readPayload(
  r: ReadableStream<Uint8Array>,
  stopped: AbortSignal,
  target: PayloadTarget,
): Promise<void> {
  const loader = new Loader(target);
  const reader = r.getReader();
  try {
    for (;;) {
      stopped.throwIfAborted();
      const { done, value } = await reader.read();
      if (done) break;
      // Bounds the copy made of a huge chunk.
      for (let at = 0; at < value.length; at += CHUNK_BYTES) {
        loader.add(value.subarray(at, at + CHUNK_BYTES));
        await target.drain?.();
      }
    }
  } finally {
    reader.releaseLock();
  }
  stopped.throwIfAborted();
  loader.finish();
}

function fail(message: string): never {
  throw new ErrKVInvalidSnapshot(`Key-value snapshot ${message}`);
}

/** Reads a varint at `cursor` of `view`; -1 if it extends beyond `end`. */
let cursor = 0;
function varint(view: DataView, end: number): number {
  let value = 0;
  for (let shift = 0; shift < 28; shift += 7) {
    if (cursor >= end) return -1;
    const byte = view.getUint8(cursor++);
    value |= (byte & 0x7f) << shift;
    if (byte < 0x80) {
      // Non-minimal varints are rejected: equal rows must have equal bytes.
      if (byte === 0 && shift > 0) break;
      return value;
    }
  }
  fail("has a malformed length");
}

/** Builds leaves from a payload as it arrives. */
class Loader {
  readonly #target: PayloadTarget;
  /** Leaf completed last. */
  #last: Leaf | undefined;
  /** Leaf in progress; its bytes are in `#bytes`. */
  #leaf: Leaf;

  /** Received bytes that are not in leaves yet. */
  #bytes: Uint8Array = new Uint8Array(2 * CHUNK_BYTES);
  #view: DataView = viewOf(this.#bytes);
  #length = 0;
  /** Offset of the leaf in progress in `#bytes`. */
  #start = 0;
  /** Offset of the next row in `#bytes`. */
  #at = 0;
  #began = false;
  #ended = false;

  constructor(target: PayloadTarget) {
    this.#target = target;
    this.#leaf = new Leaf(this, 0, this.#view);
  }

  /** Adds a chunk. */
  add(chunk: Uint8Array): void {
    const length = this.#length + chunk.length;
    if (length > this.#bytes.length) {
      const bytes = new Uint8Array(2 * length);
      bytes.set(this.#bytes.subarray(0, this.#length));
      this.#bytes = bytes;
      this.#leaf.view = this.#view = viewOf(bytes);
    }
    this.#bytes.set(chunk, this.#length);
    this.#length = length;
    if (!this.#began) this.#begin();
    if (this.#began) { while (!this.#ended && this.#row()); }
    if (this.#ended && this.#length - this.#at > END_BYTES_MAX) {
      fail("goes on after its end");
    }
    this.#drop();
  }

  /** Checks the end of the payload after the last chunk. */
  finish(): void {
    if (!this.#ended) fail("ends too early");
    if (this.#leaf.rows > 0) this.#close();
    let count: number;
    let hash: bigint;
    try {
      const r = new ByteReader(this.#bytes.subarray(this.#at, this.#length));
      r.u8();
      count = r.varint();
      hash = r.u64();
      if (r.remaining > 0) {
        throw new RangeError(`${r.remaining} bytes too many`);
      }
    } catch {
      fail("has a malformed end");
    }
    if (count !== this.#target.count || hash !== this.#target.hash) {
      fail("has not the rows it was saved with");
    }
  }

  #begin(): void {
    if (this.#length < MAGIC.length) return;
    if (MAGIC.some((byte, i) => this.#bytes[i] !== byte)) {
      fail("is of another format");
    }
    this.#began = true;
    this.#start = this.#at = MAGIC.length;
    this.#drop();
  }

  /** Makes room for the next chunk: moves pending bytes to the front. */
  #drop(): void {
    if (this.#start === 0) return;
    this.#bytes.copyWithin(0, this.#start, this.#length);
    this.#length -= this.#start;
    this.#at -= this.#start;
    this.#start = 0;
    this.#leaf.view = this.#view;
  }

  /** Parses the next row; false if it is incomplete. */
  #row(): boolean {
    const view = this.#view;
    cursor = this.#at;
    const key = varint(view, this.#length) - 1;
    if (key < 0) {
      this.#ended = key === -1;
      return false;
    }
    const value = varint(view, this.#length);
    if (key > KV_KEY_BYTES_MAX || value > KV_VALUE_BYTES_MAX) {
      fail("has a row over the limits");
    }
    const keyEnd = cursor + key;
    const end = keyEnd + value;
    if (value < 0 || end > this.#length) return false;
    if (
      this.#leaf.rows === LEAF_ROWS - 1 ||
      this.#leaf.rows > 0 && end - this.#start > LEAF_BYTES
    ) this.#close();
    const leaf = this.#leaf;
    const { meta, rows } = leaf;
    this.#checkOrder(cursor, keyEnd);
    const i = rows * WIDTH;
    hashKey(view, cursor, keyEnd);
    hashValue(view, keyEnd, end);
    meta[i + LOW] = lanes[0]!;
    meta[i + HIGH] = lanes[1]!;
    meta[i + WIDTH] = end - this.#start;
    leaf.rows++;
    this.#at = end;
    return true;
  }

  #checkOrder(start: number, end: number): void {
    const leaf = this.#leaf.rows > 0 ? this.#leaf : this.#last;
    if (!leaf) return;
    const row = leaf.rows - 1;
    const at = leaf.keyAt(row);
    const order = compareBytes(
      leaf.view,
      at,
      leaf.valueAt(row),
      this.#view,
      start,
      end,
    );
    if (order >= 0) fail("has rows out of order");
  }

  /** Completes the leaf with its own buffer and passes it to the target. */
  #close(): void {
    const leaf = this.#leaf;
    leaf.view = viewOf(this.#bytes.slice(this.#start, this.#at));
    this.#last = leaf;
    this.#target.adopt(leaf);
    this.#start = this.#at;
    this.#leaf = new Leaf(
      this,
      0,
      viewOf(this.#bytes.subarray(this.#start)),
    );
  }
}
