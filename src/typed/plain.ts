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

const Kind = {
  Null: 0,
  False: 1,
  True: 2,
  Integer: 3,
  NegativeInteger: 4,
  Number: 5,
  String: 6,
  Bytes: 7,
  Bigint: 8,
  NegativeBigint: 9,
  Array: 10,
  Object: 11,
} as const;

const I64_MIN = -(1n << 63n);

const decoder = /* @__PURE__ */ new TextDecoder("utf-8", {
  fatal: true,
  ignoreBOM: true,
});

/** Longest string that is decoded without a decoder, in bytes. */
const SHORT_CHARS = 48;

/** Character codes of the string being decoded. */
const codes: number[] = [];

/** Capacity of a new buffer, in bytes. */
const CAPACITY = 256;

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
  readonly #path: (string | number)[] = [];

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
    this.#path.length = 0;
    this.#path.push(name);
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
        pathOf(this.#path)
      } is ${found}; plain data are null, booleans, finite numbers, well-formed strings, bytes, bigints of 64 bits, arrays without holes and plain objects`,
    );
  }

  #value(value: unknown): unknown {
    switch (typeof value) {
      case "string":
        this.u8(Kind.String).string(value);
        return value;
      case "number":
        return this.#number(value);
      case "boolean":
        this.u8(value ? Kind.True : Kind.False);
        return value;
      case "bigint":
        return this.#bigint(value);
      case "object":
        if (value === null) {
          this.u8(Kind.Null);
          return value;
        }
        if (this.#path.length > PLAIN_DEPTH_MAX) {
          throw this.#refuse(
            `nested over ${PLAIN_DEPTH_MAX} levels deep, or a cycle`,
          );
        }
        if (Array.isArray(value)) return this.#array(value);
        if (value instanceof Uint8Array) {
          const copy = new Uint8Array(value);
          this.u8(Kind.Bytes).varint(copy.length).raw(copy);
          return copy;
        }
        return this.#object(value);
      default:
        throw this.#refuse(describe(value));
    }
  }

  #number(value: number): number {
    if (Number.isSafeInteger(value)) {
      // Also makes 0 of −0.
      value += 0;
      if (value >= 0) this.u8(Kind.Integer).varint(value);
      else this.u8(Kind.NegativeInteger).varint(-1 - value);
      return value;
    }
    if (!Number.isFinite(value)) throw this.#refuse(String(value));
    this.u8(Kind.Number).#room(8);
    this.#view.setFloat64(this.#length, value, true);
    this.#length += 8;
    return value;
  }

  #bigint(value: bigint): bigint {
    if (value < I64_MIN || value > U64_MAX) {
      throw this.#refuse(`${value}n, which has over 64 bits`);
    }
    this.u8(value >= 0n ? Kind.Bigint : Kind.NegativeBigint).#room(8);
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
    const depth = this.#path.length;
    if (
      Object.getPrototypeOf(value) !== Array.prototype ||
      Object.keys(value).length !== length
    ) {
      throw this.#refuse(
        "an array with holes, other properties, or of a subclass",
      );
    }
    this.u8(Kind.Array).varint(length);
    const copy: unknown[] = new Array(length);
    for (let i = 0; i < length; i++) {
      this.#path[depth] = i;
      copy[i] = this.#value(value[i]);
    }
    this.#path.length = depth;
    return Object.freeze(copy);
  }

  #object(value: object): object {
    const prototype = Object.getPrototypeOf(value);
    if (
      prototype !== Object.prototype && prototype !== null ||
      Object.getOwnPropertySymbols(value).length > 0
    ) throw this.#refuse(describe(value));
    const keys = Object.keys(value);
    const depth = this.#path.length;
    this.u8(Kind.Object).varint(keys.length);
    const copy: Record<string, unknown> = {};
    for (let i = 0; i < keys.length; i++) {
      const key = keys[i]!;
      this.#path[depth] = key;
      if (key === "__proto__") throw this.#refuse("a property of that name");
      this.string(key);
      copy[key] = this.#value((value as Record<string, unknown>)[key]);
    }
    this.#path.length = depth;
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
    const bytes = this.bytes();
    const { length } = bytes;
    // Short strings of ASCII, which nearly all are, cost less without a decoder.
    if (length <= SHORT_CHARS) {
      let i = 0;
      while (i < length && bytes[i]! < 0x80) {
        codes[i] = bytes[i]!;
        i++;
      }
      if (i === length) {
        codes.length = length;
        return String.fromCharCode.apply(null, codes);
      }
    }
    try {
      return decoder.decode(bytes);
    } catch {
      throw new RangeError(`String before ${this.offset} is not UTF-8`);
    }
  }

  #count(): number {
    const count = this.varint();
    // A value takes a byte at least: a count beyond that is damage, not a reason to allocate.
    if (count > this.remaining) {
      throw new RangeError(
        `Count ${count} before ${this.offset} is over the ${this.remaining} bytes after it`,
      );
    }
    return count;
  }

  #value(depth: number): unknown {
    if (depth > PLAIN_DEPTH_MAX) {
      throw new RangeError(
        `Value is nested over ${PLAIN_DEPTH_MAX} levels deep`,
      );
    }
    const kind = this.u8();
    switch (kind) {
      case Kind.Null:
        return null;
      case Kind.False:
        return false;
      case Kind.True:
        return true;
      case Kind.Integer:
        return this.varint();
      case Kind.NegativeInteger:
        return -1 - this.varint();
      case Kind.Number: {
        const value = this.f64();
        if (!Number.isFinite(value)) {
          throw new RangeError(`Number before ${this.offset} is ${value}`);
        }
        return value + 0;
      }
      case Kind.String:
        return this.string();
      case Kind.Bytes:
        return new Uint8Array(this.bytes());
      case Kind.Bigint:
        return this.u64();
      case Kind.NegativeBigint:
        return -1n - this.u64();
      case Kind.Array: {
        const count = this.#count();
        const array: unknown[] = new Array(count);
        for (let i = 0; i < count; i++) array[i] = this.#value(depth + 1);
        return Object.freeze(array);
      }
      case Kind.Object: {
        const count = this.#count();
        const object: Record<string, unknown> = {};
        for (let i = 0; i < count; i++) {
          const key = this.string();
          if (key === "__proto__" || Object.hasOwn(object, key)) {
            throw new RangeError(
              `Property ${
                describe(key)
              } before ${this.offset} is not allowed, or stands there twice`,
            );
          }
          object[key] = this.#value(depth + 1);
        }
        return Object.freeze(object);
      }
      default:
        throw new RangeError(`Kind ${kind} before ${this.offset} is not known`);
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

/** Decodes a plain value; throws a `RangeError` for anything else. */
export function decodePlain(bytes: Uint8Array): Plain {
  const reader = new PlainReader(bytes);
  const value = reader.value();
  if (reader.remaining > 0) {
    throw new RangeError(`Value is followed by ${reader.remaining} bytes`);
  }
  return value;
}
