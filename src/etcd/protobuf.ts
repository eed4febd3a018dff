/**
 * Protocol Buffers wire format, as far as the messages of etcd need it: varints,
 * length-delimited fields and nested messages.
 *
 * This module needs Deno.
 *
 * @module
 */

import { encodeShown } from "../bytes.ts";

/** Field of a message: its number and value. A list of fields is a nested message. */
export type Field = readonly [
  number: number,
  value: number | bigint | boolean | string | Uint8Array | Fields,
];

/** Fields of a message, in the order in which they are written. */
export type Fields = readonly Field[];

const VARINT = 0;
const FIXED64 = 1;
const DELIMITED = 2;
const FIXED32 = 5;

function lengthOf(value: number | bigint): number {
  let length = 1;
  for (let rest = BigInt(value); rest >= 0x80n; rest >>= 7n) length++;
  return length;
}

function smallLengthOf(value: number): number {
  return value < 0x80 ? 1 : value < 0x4000 ? 2 : lengthOf(value);
}

/** Field whose size is known, ready to be written. */
type Sized =
  | { readonly tag: number; readonly varint: number | bigint }
  | { readonly tag: number; readonly bytes: Uint8Array }
  | {
    readonly tag: number;
    readonly message: readonly Sized[];
    readonly size: number;
  };

/** Measures the fields of a message, so that it is written in one pass. */
function measure(fields: Fields): { sized: Sized[]; size: number } {
  const sized: Sized[] = [];
  let size = 0;
  for (const [number, value] of fields) {
    if (typeof value === "number" || typeof value === "bigint") {
      const tag = number << 3 | VARINT;
      sized.push({ tag, varint: value });
      size += smallLengthOf(tag) +
        (typeof value === "number" ? smallLengthOf(value) : lengthOf(value));
      continue;
    }
    if (typeof value === "boolean") {
      const tag = number << 3 | VARINT;
      sized.push({ tag, varint: Number(value) });
      size += smallLengthOf(tag) + 1;
      continue;
    }
    const tag = number << 3 | DELIMITED;
    let length: number;
    if (typeof value === "string" || value instanceof Uint8Array) {
      const bytes = typeof value === "string" ? encodeShown(value) : value;
      length = bytes.length;
      sized.push({ tag, bytes });
    } else {
      const inner = measure(value);
      length = inner.size;
      sized.push({ tag, message: inner.sized, size: length });
    }
    size += smallLengthOf(tag) + smallLengthOf(length) + length;
  }
  return { sized, size };
}

function putVarint(
  bytes: Uint8Array,
  at: number,
  value: number | bigint,
): number {
  if (typeof value === "number" && value < 0x80) {
    bytes[at] = value;
    return at + 1;
  }
  let rest = BigInt(value);
  while (rest >= 0x80n) {
    bytes[at++] = Number(rest & 0x7fn) | 0x80;
    rest >>= 7n;
  }
  bytes[at] = Number(rest);
  return at + 1;
}

function put(bytes: Uint8Array, at: number, sized: readonly Sized[]): number {
  for (const field of sized) {
    at = putVarint(bytes, at, field.tag);
    if ("varint" in field) {
      at = putVarint(bytes, at, field.varint);
    } else if ("bytes" in field) {
      at = putVarint(bytes, at, field.bytes.length);
      bytes.set(field.bytes, at);
      at += field.bytes.length;
    } else {
      at = putVarint(bytes, at, field.size);
      at = put(bytes, at, field.message);
    }
  }
  return at;
}

/** Encodes a message. */
export function encodeMessage(fields: Fields): Uint8Array<ArrayBuffer> {
  const { sized, size } = measure(fields);
  const bytes = new Uint8Array(size);
  put(bytes, 0, sized);
  return bytes;
}

/**
 * Reader of a message: `next()` moves to the next field, then one of the other
 * methods returns its value.
 */
export class MessageReader {
  /** Number of the field. */
  field = 0;
  readonly #bytes: Uint8Array;
  #at = 0;
  #wire = VARINT;
  #value = 0n;
  #start = 0;

  /** Creates a reader before the first field. */
  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  /**
   * Moves to the next field; returns false at the end of the message.
   *
   * @throws RangeError if the message is damaged
   */
  next(): boolean {
    if (this.#at >= this.#bytes.length) return false;
    const tag = Number(this.#varint());
    this.field = tag >>> 3;
    this.#wire = tag & 7;
    switch (this.#wire) {
      case VARINT:
        this.#value = this.#varint();
        return true;
      case DELIMITED:
        return this.#skip(Number(this.#varint()));
      case FIXED64:
        return this.#skip(8);
      case FIXED32:
        return this.#skip(4);
      default:
        throw new RangeError(`Field ${this.field} has wire type ${this.#wire}`);
    }
  }

  #skip(length: number): true {
    this.#start = this.#at;
    this.#at += length;
    if (this.#at > this.#bytes.length) {
      throw new RangeError(
        `Field ${this.field} ends at ${this.#at}, after its message`,
      );
    }
    return true;
  }

  #varint(): bigint {
    const bytes = this.#bytes;
    let byte = bytes[this.#at++]!;
    if (byte < 0x80) return BigInt(byte);
    // Up to 28 bits without big integers.
    let low = byte & 0x7f;
    for (let shift = 7; shift < 28; shift += 7) {
      byte = bytes[this.#at++]!;
      low |= (byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt(low);
    }
    let value = BigInt(low);
    for (let shift = 28n; shift < 70n; shift += 7n) {
      const next = bytes[this.#at++];
      if (next === undefined) break;
      value |= BigInt(next & 0x7f) << shift;
      if (next < 0x80) return BigInt.asUintN(64, value);
    }
    throw new RangeError(`Varint at ${this.#at} is damaged`);
  }

  /** Value of an unsigned 64-bit field. */
  u64(): bigint {
    return this.#value;
  }

  /** Value of an integer that is not negative. */
  int(): number {
    return Number(this.#value);
  }

  /** Value of a Boolean field. */
  bool(): boolean {
    return this.#value !== 0n;
  }

  /** Bytes of a field, or a nested message, as a view. */
  bytes(): Uint8Array {
    return this.#wire === DELIMITED
      ? this.#bytes.subarray(this.#start, this.#at)
      : this.#bytes.subarray(0, 0);
  }

  /** Text of a field. */
  text(): string {
    return new TextDecoder().decode(this.bytes());
  }
}
