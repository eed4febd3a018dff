/**
 * Binary encoding: little-endian fixed-width numbers, unsigned varints and
 * length-prefixed byte strings, written into a growing buffer and read back
 * with every bound checked.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { describe, isWellFormed } from "./describe.ts";

/** Largest unsigned 64-bit number. */
export const U64_MAX: bigint = (1n << 64n) - 1n;

/** True if `value` is in 0…2^64-1. */
export function isU64(value: bigint): boolean {
  return value >= 0n && value <= U64_MAX;
}

const encoder = /* @__PURE__ */ new TextEncoder();

/**
 * Encodes a text in UTF-8, where different texts must give different bytes.
 *
 * @throws TypeError that starts with `name` if the text has a lone surrogate
 */
export function encodeText(
  text: string,
  name: string,
): Uint8Array<ArrayBuffer> {
  if (isWellFormed(text)) return encoder.encode(text);
  throw new TypeError(
    `${name} ${
      describe(text)
    } has a lone surrogate, which cannot be told from others in UTF-8; give a well-formed string, or bytes`,
  );
}

/** Encodes a text in UTF-8 that is only displayed: a lone surrogate becomes U+FFFD. */
export function encodeShown(text: string): Uint8Array<ArrayBuffer> {
  return encoder.encode(text);
}

/**
 * Encodes a text in UTF-8; returns bytes as they are.
 *
 * @throws TypeError that starts with `name` if it is neither, or an ill-formed string
 */
export function toUint8Array(
  text: string | Uint8Array,
  name: string,
): Uint8Array {
  if (typeof text === "string") return encodeText(text, name);
  if (text instanceof Uint8Array) return text;
  throw new TypeError(
    `${name} is ${describe(text)}; give a string or a Uint8Array`,
  );
}

/** Copies bytes. `slice()` of a Node buffer would not: it returns a view. */
export function copyOf(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return new Uint8Array(bytes);
}

/** True if two arrays contain the same bytes. */
export function isSameBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  // Much faster than `every()`, which calls a function for each byte.
  for (let i = 0; i < a.length; i++) {
    if (a[i] !== b[i]) return false;
  }
  return true;
}

/** Length of the unsigned varint of `value`, a safe integer, in bytes: 1 to 8. */
export function varintLength(value: number): number {
  let length = 1;
  while (value >= 0x80) {
    value = value < 0x80000000 ? value >>> 7 : Math.floor(value / 0x80);
    length++;
  }
  return length;
}

/** Writes an unsigned varint at `offset` of `bytes`; returns the offset after it. */
export function putVarint(
  bytes: Uint8Array,
  offset: number,
  value: number,
): number {
  while (value >= 0x80) {
    bytes[offset++] = (value & 0x7f) | 0x80;
    value = value < 0x80000000 ? value >>> 7 : Math.floor(value / 0x80);
  }
  bytes[offset++] = value;
  return offset;
}

/** Returns `buffer`, or a larger copy of its first `length` bytes, with room for `count` more; at most `max` bytes in all. */
export function grown(
  buffer: Uint8Array<ArrayBuffer>,
  length: number,
  count: number,
  max: number,
): Uint8Array<ArrayBuffer> {
  const needed = length + count;
  if (needed <= buffer.length) return buffer;
  const larger = new Uint8Array(
    Math.min(max, Math.max(needed, 2 * buffer.length)),
  );
  larger.set(buffer.subarray(0, length));
  return larger;
}

/** Writer into a buffer that grows. */
export class ByteWriter {
  #bytes: Uint8Array<ArrayBuffer>;
  /** View for numbers of fixed size, which few writers need; created with the first of them. */
  #view: DataView | undefined;
  #length = 0;

  /** Creates a writer with a buffer of `capacity` bytes. */
  constructor(capacity = 64) {
    this.#bytes = new Uint8Array(capacity);
  }

  /** Number of bytes written. */
  get length(): number {
    return this.#length;
  }

  #room(count: number): number {
    const at = this.#length;
    const end = at + count;
    if (end > this.#bytes.length) {
      const bytes = new Uint8Array(Math.max(end, this.#bytes.length * 2));
      bytes.set(this.#bytes.subarray(0, at));
      this.#bytes = bytes;
      this.#view = undefined;
    }
    this.#length = end;
    return at;
  }

  #numbers(): DataView {
    return this.#view ??= new DataView(this.#bytes.buffer);
  }

  /** Writes one byte. */
  u8(value: number): this {
    const at = this.#room(1);
    this.#bytes[at] = value;
    return this;
  }

  /** Writes an unsigned 32-bit number. */
  u32(value: number): this {
    const at = this.#room(4);
    this.#numbers().setUint32(at, value, true);
    return this;
  }

  /** Writes an unsigned 64-bit number. */
  u64(value: bigint): this {
    const at = this.#room(8);
    this.#numbers().setBigUint64(at, value, true);
    return this;
  }

  /** Writes a safe integer as an unsigned varint. */
  varint(value: number): this {
    const at = this.#room(varintLength(value));
    putVarint(this.#bytes, at, value);
    return this;
  }

  /** Writes bytes as they are. */
  raw(bytes: Uint8Array): this {
    const at = this.#room(bytes.length);
    this.#bytes.set(bytes, at);
    return this;
  }

  /** Writes the length of bytes, then the bytes. */
  bytes(bytes: Uint8Array): this {
    return this.varint(bytes.length).raw(bytes);
  }

  /** Bytes written so far, as a view that is valid until the next write. */
  view(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  /** Copy of the bytes written. */
  finish(): Uint8Array<ArrayBuffer> {
    return this.#bytes.slice(0, this.#length);
  }
}

/**
 * Reader with bounds checks: a read past the end throws a `RangeError`, which the
 * caller converts into the error of the format it reads.
 */
export class ByteReader {
  readonly #bytes: Uint8Array;
  /** View for numbers of fixed size, created with the first of them: it costs more than a short text. */
  #view: DataView | undefined;
  #offset: number;

  /** Creates a reader that starts at `offset` of `bytes`. */
  constructor(bytes: Uint8Array, offset = 0) {
    this.#bytes = bytes;
    this.#offset = offset;
  }

  /** Offset of the next read. */
  get offset(): number {
    return this.#offset;
  }

  /** Number of bytes that were not read. */
  get remaining(): number {
    return this.#bytes.length - this.#offset;
  }

  #take(count: number): number {
    const at = this.#offset;
    if (count > this.#bytes.length - at) {
      throw new RangeError(
        `Bytes end at ${this.#bytes.length}, ${count} wanted at ${at}`,
      );
    }
    this.#offset = at + count;
    return at;
  }

  get #numbers(): DataView {
    const { buffer, byteOffset, byteLength } = this.#bytes;
    return this.#view ??= new DataView(buffer, byteOffset, byteLength);
  }

  /** Reads one byte. */
  u8(): number {
    return this.#bytes[this.#take(1)]!;
  }

  /** Skips `count` bytes; returns their offset. */
  skip(count: number): number {
    return this.#take(count);
  }

  /** Reads an unsigned 32-bit number. */
  u32(): number {
    return this.#numbers.getUint32(this.#take(4), true);
  }

  /** Reads an unsigned 64-bit number. */
  u64(): bigint {
    return this.#numbers.getBigUint64(this.#take(8), true);
  }

  /** Reads a 64-bit floating-point number. */
  f64(): number {
    return this.#numbers.getFloat64(this.#take(8), true);
  }

  /** Reads an unsigned varint; throws a `RangeError` if it is not a safe integer. */
  varint(): number {
    let value = 0;
    let scale = 1;
    for (let i = 0; i < 8; i++) {
      const byte = this.u8();
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) {
        if (!Number.isSafeInteger(value)) break;
        return value;
      }
      scale *= 0x80;
    }
    throw new RangeError(`Varint at ${this.#offset} is too large`);
  }

  /** Reads `count` bytes as a view. */
  raw(count: number): Uint8Array {
    const at = this.#take(count);
    return this.#bytes.subarray(at, at + count);
  }

  /**
   * Reads `count` bytes as code units into an array of that length, if all are
   * ASCII; otherwise reads nothing and returns false.
   */
  ascii(count: number, units: number[]): boolean {
    const bytes = this.#bytes;
    const at = this.#take(count);
    for (let i = 0; i < count; i++) {
      const byte = bytes[at + i]!;
      if (byte >= 0x80) {
        this.#offset = at;
        return false;
      }
      units[i] = byte;
    }
    return true;
  }

  /** Reads a length of at most `max`, then that many bytes as a view. */
  bytes(max: number = Number.MAX_SAFE_INTEGER): Uint8Array {
    const length = this.varint();
    if (length > max) {
      throw new RangeError(`Length ${length} is over the limit of ${max}`);
    }
    return this.raw(length);
  }
}

const CRC = /* @__PURE__ */ crcTables();

/** Eight tables of CRC-32 (IEEE 802.3, reflected 0xEDB88320), for eight bytes a step. */
function crcTables(): Int32Array {
  const tables = new Int32Array(8 * 256);
  for (let i = 0; i < 256; i++) {
    let crc = i;
    for (let bit = 0; bit < 8; bit++) {
      crc = crc & 1 ? (crc >>> 1) ^ 0xEDB88320 : crc >>> 1;
    }
    tables[i] = crc;
  }
  for (let i = 256; i < tables.length; i++) {
    const previous = tables[i - 256] as number;
    tables[i] = (previous >>> 8) ^ (tables[previous & 0xff] as number);
  }
  return tables;
}

/** CRC-32 of `bytes[start..end)` as an unsigned number; `crc` is that of the bytes before, 0 for none. */
export function crc32(
  bytes: Uint8Array,
  crc = 0,
  start = 0,
  end: number = bytes.length,
): number {
  const t = CRC;
  const b = bytes;
  let c = ~crc;
  let i = start;
  for (const last = end - 8; i <= last; i += 8) {
    const low = c ^
      (b[i]! | b[i + 1]! << 8 | b[i + 2]! << 16 | b[i + 3]! << 24);
    c = t[1792 + (low & 0xff)]! ^ t[1536 + (low >>> 8 & 0xff)]! ^
      t[1280 + (low >>> 16 & 0xff)]! ^ t[1024 + (low >>> 24)]! ^
      t[768 + b[i + 4]!]! ^ t[512 + b[i + 5]!]! ^
      t[256 + b[i + 6]!]! ^ t[b[i + 7]!]!;
  }
  for (; i < end; i++) c = t[(c ^ b[i]!) & 0xff]! ^ (c >>> 8);
  return ~c >>> 0;
}

/** Truncates a text to at most `bytesMax` bytes of UTF-8, between two characters. */
export function clipText(text: string, bytesMax: number): string {
  // A UTF-16 code unit takes three bytes at most.
  if (3 * text.length <= bytesMax) return text;
  const bytes = encoder.encode(text);
  if (bytes.length <= bytesMax) return text;
  let end = bytesMax;
  while ((bytes[end]! & 0xc0) === 0x80) end--;
  return new TextDecoder().decode(bytes.subarray(0, end));
}
