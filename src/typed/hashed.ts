/**
 * Plain values of a state with their hashes: rows of tables, and values by name.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { describe } from "../describe.ts";
import { hashKey, hashValue, lanes } from "../kv/hash.ts";
import { STATE_FRAME_BYTES_MAX } from "../limits.ts";
import { ErrNotPlain } from "./errors.ts";
import { plainCopy, PlainWriter } from "./plain.ts";

/** Plain value with its hash. */
export interface Hashed<V = unknown> {
  /** The value, frozen. Bytes cannot be: a value with some is a copy at each access. */
  readonly value: V;
  /** Low half of the hash. */
  readonly low: number;
  /** High half of the hash. */
  readonly high: number;
}

const writer = /* @__PURE__ */ new PlainWriter();

/**
 * Copies a plain value of a state, and hashes it with the name of its part of the
 * state and, for a row, its key.
 *
 * @throws ErrNotPlain if a part of it is not plain, or a snapshot could not have it
 */
export function hashed<V>(value: V, part: string, key?: string): Hashed<V> {
  writer.reset().string(part);
  if (key !== undefined) writer.string(key);
  const end = writer.length;
  const copy = writer.value(value, part);
  const { length, view, hasBytes } = writer;
  // A frame has one byte before it.
  if (length >= STATE_FRAME_BYTES_MAX) {
    throw new ErrNotPlain(
      `${part} ${
        key === undefined ? "" : describe(key)
      } takes ${length} bytes, and the limit is ${STATE_FRAME_BYTES_MAX - 1}`,
    );
  }
  hashKey(view, 0, end);
  hashValue(view, end, length);
  const low = lanes[0]!;
  const high = lanes[1]!;
  if (!hasBytes) return { value: copy, low, high };
  // A handler or a page could change them in place.
  return {
    low,
    high,
    get value(): V {
      return plainCopy(copy, part);
    },
  };
}
