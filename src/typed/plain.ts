/**
 * Plain data, and its encoding: the values of which commands, rows, results and
 * answers of a typed machine consist.
 *
 * Plain are null, booleans, finite numbers, well-formed strings, bytes, bigints
 * of −2^63 to 2^64−1, arrays without holes, and objects with no prototype of
 * their own. −0 becomes 0. Everything else is refused with its path, so that
 * decoding what was encoded gives the same value, the order of keys included
 * (Y4).
 *
 * The encoding of a value begins with one byte that names its kind:
 *
 * ```text
 * 0 null   1 false   2 true
 * 3 integer n ≥ 0: varint n               4 integer n < 0: varint −1 − n
 * 5 other number: 8 bytes, IEEE 754, little-endian
 * 6 string: varint length, UTF-8          7 bytes: varint length, bytes
 * 8 bigint n ≥ 0: 8 bytes, little-endian  9 bigint n < 0: 8 bytes of −1 − n
 * 10 array: varint count, values
 * 11 object: varint count, then of each property in order: varint length, UTF-8, value
 * ```
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  ByteReader,
  encodeShown,
  putVarint,
  U64_MAX,
  varintLength,
} from "../bytes.ts";
import { describe, isWellFormed } from "../describe.ts";
import { PLAIN_DEPTH_MAX } from "../limits.ts";
import { ErrNotPlain } from "./errors.ts";

/** Plain data: what commands, rows, results and answers consist of. */
export type Plain =
  | null
  | boolean
  | number
  | string
  | bigint
  | Uint8Array
  | readonly Plain[]
  | { readonly [key: string]: Plain };

// Kinds of values.
const NULL = 0;
const FALSE = 1;
const TRUE = 2;
const INTEGER = 3;
const NEGATIVE_INTEGER = 4;
const NUMBER = 5;
const STRING = 6;
const BYTES = 7;
const BIGINT = 8;
const NEGATIVE_BIGINT = 9;
const ARRAY = 10;
const OBJECT = 11;

const I64_MIN = -(1n << 63n);

const decoder = /* @__PURE__ */ new TextDecoder("utf-8", {
  fatal: true,
  ignoreBOM: true,
});

/** Longest string that is decoded without a decoder, in bytes. */
const SHORT_CHARS = 48;

/** Code units of the string being decoded, one array for each length: to change the length of an array costs more than to fill it. */
const units: number[][] = [];

/** Names that were decoded last, by {@link PlainReader.name}, at places that their code units give. */
const names: (string | undefined)[] = new Array(0x100).fill(undefined);

/** Capacity of a new buffer, in bytes. */
const CAPACITY = 256;

/** Array of a length for the code units of a short string. */
function unitsOf(length: number): number[] {
  return units[length] ??= new Array<number>(length).fill(0);
}

/** Path to a part of a value, as the code that reaches it. */
function pathOf(path: readonly (string | number)[]): string {
  return path.map((key, i) =>
    typeof key === "number"
      ? `[${key}]`
      : /^[A-Za-z_$][\w$]*$/.test(key)
      ? (i === 0 ? key : `.${key}`)
      : `[${JSON.stringify(key)}]`
  ).join("");
}

/** Encoder of plain values, which copies and freezes what it encodes. */
export class PlainWriter {
  #bytes = new Uint8Array(CAPACITY);
  #view = new DataView(this.#bytes.buffer);
  #length = 0;
  /** Path to the value being written, up to its depth. */
  readonly #path: (string | number)[] = [];
  #depth = 0;
  #hasBytes = false;

  /** True if the value written last has bytes in it. */
  get hasBytes(): boolean {
    return this.#hasBytes;
  }

  /** Number of bytes written. */
  get length(): number {
    return this.#length;
  }

  /** View of the buffer, whose first `length` bytes are written; valid until the next write. */
  get view(): DataView {
    return this.#view;
  }

  /** Starts over with an empty buffer. */
  reset(): this {
    this.#length = 0;
    return this;
  }

  /** Copy of the bytes written. */
  finish(): Uint8Array<ArrayBuffer> {
    return this.#bytes.slice(0, this.#length);
  }

  /**
   * Writes a value and returns a copy of it, frozen as a whole, that shares
   * nothing with it but strings. Bytes are copied and cannot be frozen.
   *
   * @param name name of the value in errors
   * @throws ErrNotPlain if a part of it is not plain
   */
  value<T>(value: T, name: string): T {
    this.#depth = 0;
    this.#hasBytes = false;
    this.#path[0] = name;
    return this.#value(value) as T;
  }

  /** Writes a varint. */
  varint(value: number): this {
    this.#room(varintLength(value));
    this.#length = putVarint(this.#bytes, this.#length, value);
    return this;
  }

  /** Writes one byte. */
  u8(value: number): this {
    this.#room(1);
    this.#bytes[this.#length++] = value;
    return this;
  }

  /** Writes bytes as they are. */
  raw(bytes: Uint8Array): this {
    this.#room(bytes.length);
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
    return this;
  }

  /** Writes the length of a well-formed string in UTF-8, then the string. */
  string(text: string): this {
    const { length } = text;
    // Short strings of ASCII, which nearly all are, cost less without an encoder.
    if (length < 0x80) {
      this.#room(length + 1);
      const bytes = this.#bytes;
      let at = this.#length;
      bytes[at++] = length;
      let i = 0;
      for (; i < length; i++) {
        const code = text.charCodeAt(i);
        if (code >= 0x80) break;
        bytes[at++] = code;
      }
      if (i === length) {
        this.#length = at;
        return this;
      }
    }
    if (!isWellFormed(text)) {
      throw this.#refuse(`${describe(text)}, which has a lone surrogate`);
    }
    const encoded = encodeShown(text);
    return this.varint(encoded.length).raw(encoded);
  }

  #room(count: number): void {
    const end = this.#length + count;
    if (end <= this.#bytes.length) return;
    const bytes = new Uint8Array(Math.max(end, this.#bytes.length * 2));
    bytes.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer);
  }

  #refuse(found: string): ErrNotPlain {
    return new ErrNotPlain(
      `${
        pathOf(this.#path.slice(0, this.#depth + 1))
      } is ${found}; plain data are null, booleans, numbers, strings, bytes, bigints, and arrays and objects of those`,
    );
  }

  #value(value: unknown): unknown {
    switch (typeof value) {
      case "string":
        this.u8(STRING).string(value);
        return value;
      case "number":
        return this.#number(value);
      case "boolean":
        this.u8(value ? TRUE : FALSE);
        return value;
      case "bigint":
        return this.#bigint(value);
      case "object":
        if (value === null) {
          this.u8(NULL);
          return value;
        }
        if (value instanceof Uint8Array) {
          this.#hasBytes = true;
          const copy = new Uint8Array(value);
          this.u8(BYTES).varint(copy.length).raw(copy);
          return copy;
        }
        if (this.#depth >= PLAIN_DEPTH_MAX) {
          throw this.#refuse(
            `nested over ${PLAIN_DEPTH_MAX} levels deep, or a cycle`,
          );
        }
        if (Array.isArray(value)) return this.#array(value);
        return this.#object(value);
      default:
        throw this.#refuse(describe(value));
    }
  }

  #number(value: number): number {
    if (Number.isSafeInteger(value)) {
      // Also makes 0 of −0.
      value += 0;
      if (value >= 0) this.u8(INTEGER).varint(value);
      else this.u8(NEGATIVE_INTEGER).varint(-1 - value);
      return value;
    }
    if (!Number.isFinite(value)) throw this.#refuse(String(value));
    this.u8(NUMBER).#room(8);
    this.#view.setFloat64(this.#length, value, true);
    this.#length += 8;
    return value;
  }

  #bigint(value: bigint): bigint {
    if (value < I64_MIN || value > U64_MAX) {
      throw this.#refuse(`${value}n, which has over 64 bits`);
    }
    this.u8(value >= 0n ? BIGINT : NEGATIVE_BIGINT).#room(8);
    this.#view.setBigUint64(
      this.#length,
      value >= 0n ? value : -1n - value,
      true,
    );
    this.#length += 8;
    return value;
  }

  #array(value: readonly unknown[]): readonly unknown[] {
    const { length } = value;
    if (
      Object.getPrototypeOf(value) !== Array.prototype ||
      Object.keys(value).length !== length
    ) {
      throw this.#refuse(
        "an array with holes, other properties, or of a subclass",
      );
    }
    this.u8(ARRAY).varint(length);
    const depth = ++this.#depth;
    const copy: unknown[] = new Array(length);
    for (let i = 0; i < length; i++) {
      this.#path[depth] = i;
      copy[i] = this.#value(value[i]);
    }
    this.#depth = depth - 1;
    return Object.freeze(copy);
  }

  #object(value: object): object {
    const prototype = Object.getPrototypeOf(value);
    if (
      prototype !== Object.prototype && prototype !== null ||
      Object.getOwnPropertySymbols(value).length > 0
    ) throw this.#refuse(describe(value));
    const keys = Object.keys(value);
    const depth = ++this.#depth;
    this.u8(OBJECT).varint(keys.length);
    // Faster than property by property. A getter is called once.
    const copy = Object.assign({}, value) as Record<string, unknown>;
    for (let i = 0; i < keys.length; i++) {
      const key = keys[i]!;
      this.#path[depth] = key;
      if (key === "__proto__") throw this.#refuse("a property of that name");
      this.string(key);
      const part = copy[key];
      const plain = this.#value(part);
      // Also −0, which becomes 0.
      if (!Object.is(part, plain)) copy[key] = plain;
    }
    this.#depth = depth - 1;
    return Object.freeze(copy);
  }
}

/** Decoder of plain values; throws a `RangeError` for bytes that are no value. */
export class PlainReader extends ByteReader {
  /** Reads a value, frozen as a whole. */
  value(): Plain {
    return this.#value(0) as Plain;
  }

  /** Reads a string with its length. */
  string(): string {
    return this.#string(this.varint());
  }

  #string(length: number): string {
    // Short strings of ASCII, which nearly all are, cost less without a decoder.
    if (length <= SHORT_CHARS) {
      const short = unitsOf(length);
      if (this.ascii(length, short)) {
        return String.fromCharCode.apply(null, short);
      }
    }
    const bytes = this.raw(length);
    try {
      return decoder.decode(bytes);
    } catch {
      throw this.#refuse("text");
    }
  }

  /** Reads a string that is one of few, mostly, such as the name of a property: an equal one is the same object, which is found faster. */
  name(): string {
    const length = this.varint();
    if (length === 0 || length > SHORT_CHARS) return this.#string(length);
    const short = unitsOf(length);
    if (!this.ascii(length, short)) return this.#string(length);
    const place = 7 * short[0]! + 31 * short[length - 1]! + length & 0xff;
    const known = names[place];
    if (known?.length === length) {
      let i = 0;
      while (i < length && known.charCodeAt(i) === short[i]) i++;
      if (i === length) return known;
    }
    return names[place] = String.fromCharCode.apply(null, short);
  }

  #refuse(found: string | number | bigint): RangeError {
    return new RangeError(`Found ${found} before ${this.offset}`);
  }

  #count(): number {
    const count = this.varint();
    // A value takes a byte at least: a count beyond that is damage, not a reason to allocate.
    if (count > this.remaining) {
      throw this.#refuse(`count of ${count}`);
    }
    return count;
  }

  #value(depth: number): unknown {
    const kind = this.u8();
    if (kind >= ARRAY && depth >= PLAIN_DEPTH_MAX) {
      throw this.#refuse(`nesting over ${PLAIN_DEPTH_MAX} levels deep`);
    }
    switch (kind) {
      case NULL:
        return null;
      case FALSE:
        return false;
      case TRUE:
        return true;
      case INTEGER:
        return this.varint();
      case NEGATIVE_INTEGER:
        return -1 - this.varint();
      case NUMBER: {
        const value = this.f64();
        if (!Number.isFinite(value)) {
          throw this.#refuse(value);
        }
        return value + 0;
      }
      case STRING:
        return this.string();
      case BYTES:
        return new Uint8Array(this.bytes());
      case BIGINT:
        return this.u64();
      case NEGATIVE_BIGINT: {
        const value = -1n - this.u64();
        if (value >= I64_MIN) return value;
        throw this.#refuse(value);
      }
      case ARRAY: {
        const count = this.#count();
        const array: unknown[] = new Array(count);
        for (let i = 0; i < count; i++) array[i] = this.#value(depth + 1);
        return Object.freeze(array);
      }
      case OBJECT: {
        const count = this.#count();
        const object: Record<string, unknown> = {};
        for (let i = 0; i < count; i++) {
          const key = this.name();
          if (key === "__proto__" || Object.hasOwn(object, key)) {
            throw this.#refuse(`wrong or second property ${describe(key)}`);
          }
          object[key] = this.#value(depth + 1);
        }
        return Object.freeze(object);
      }
      default:
        throw this.#refuse(`kind ${kind}`);
    }
  }
}

/** Writer of single values, used by one call at a time. */
const writer = /* @__PURE__ */ new PlainWriter();

/**
 * Encodes a plain value.
 *
 * @param name name of the value in errors
 * @throws ErrNotPlain if a part of it is not plain
 */
export function encodePlain(value: unknown, name = "value"): Uint8Array {
  writer.reset().value(value, name);
  return writer.finish();
}

/**
 * Frozen copy of a plain value.
 *
 * @param name name of the value in errors
 * @throws ErrNotPlain if a part of it is not plain
 */
export function plainCopy<T>(value: T, name: string): T {
  return writer.reset().value(value, name);
}

/** Decodes a plain value; throws a `RangeError` for anything else. */
export function decodePlain(bytes: Uint8Array): Plain {
  const reader = new PlainReader(bytes);
  const value = reader.value();
  if (reader.remaining > 0) {
    throw new RangeError(`Value is followed by ${reader.remaining} bytes`);
  }
  return value;
}
