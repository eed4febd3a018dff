/**
 * What to propose to a key-value machine, and what to ask it.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { toUint8Array, U64_MAX } from "../bytes.ts";
import { describe } from "../describe.ts";
import {
  CREATE,
  DELETE,
  encodeBatch,
  encodeCommand,
  PUT,
  SWAP,
} from "./command.ts";
import type { KVCount, KVGet, KVRange } from "./query.ts";

export { decodeAnswer, encodeQuery } from "./query.ts";
export { remove as delete };

/** `Result.value` of bytes that are no command; the reason is in its data, in UTF-8. */
export const INVALID: bigint = U64_MAX;

/**
 * The command that sets the value of a key. Its result's value is 1, or 0 if
 * the key has that value already.
 */
export function put(
  key: string | Uint8Array,
  value: string | Uint8Array,
): Uint8Array<ArrayBuffer> {
  return encodeCommand(PUT, key, value);
}

/**
 * The command that removes a key, as `kv.delete()`. Its result's value is 1, or
 * 0 if there is no such key.
 */
function remove(key: string | Uint8Array): Uint8Array<ArrayBuffer> {
  return encodeCommand(DELETE, key);
}

/**
 * The command that sets the value of a key if its present value is `expected`,
 * or, when that is undefined, if the key is absent. Its result's value is 1 if
 * that changed the state. It is 0 otherwise: with the present value as data
 * when that is not the one expected, and without data when the key is absent,
 * or when `value` is what the key has and is expected to have.
 */
export function compareAndSwap(
  key: string | Uint8Array,
  expected: string | Uint8Array | undefined,
  value: string | Uint8Array,
): Uint8Array<ArrayBuffer> {
  return expected === undefined
    ? encodeCommand(CREATE, key, value)
    : encodeCommand(SWAP, key, expected, value);
}

/**
 * The command that does all of these, or none. First every compare-and-swap
 * looks at the state as it is before the batch; if one of them fails, the result
 * is that of the first which does, and nothing is changed. Then all is done in
 * order. The result's value is 1 if any part changed something. A batch in a
 * batch is an error.
 */
export function batch(
  commands: readonly Uint8Array[],
): Uint8Array<ArrayBuffer> {
  return encodeBatch(commands);
}

/** The query for the value of a key; undefined if it is absent. */
export function get(key: string | Uint8Array): KVGet {
  return { type: "get", key: toUint8Array(key, "Key") };
}

/** Which rows a range query asks for. */
export interface KVRangeOptions {
  /** The least key wanted. @default {the first there is} */
  start?: string | Uint8Array | undefined;
  /** The least key that is too large. @default {none} */
  end?: string | Uint8Array | undefined;
  /** How many rows are wanted at most. @default {all} */
  limit?: number | undefined;
  /** Whether to begin with the last row and go back. @default {false} */
  reverse?: boolean | undefined;
}

/** The query for the rows whose keys are in [start, end), in byte order. */
export function range(options: KVRangeOptions = {}): KVRange {
  if (typeof options !== "object" || options === null) {
    throw new TypeError(
      `Options of a range are ${describe(options)}; give an object`,
    );
  }
  const { start, end, limit, reverse } = options;
  if (limit !== undefined) {
    if (typeof limit !== "number") {
      throw new TypeError(
        `limit is ${describe(limit)}; give a number of rows`,
      );
    }
    if (!Number.isSafeInteger(limit) || limit < 0) {
      throw new RangeError(
        `limit is ${limit}; give a whole number of rows, 0 or more`,
      );
    }
  }
  if (reverse !== undefined && typeof reverse !== "boolean") {
    throw new TypeError(
      `reverse is ${describe(reverse)}; give true or false`,
    );
  }
  return {
    type: "range",
    start: start === undefined ? undefined : toUint8Array(start, "start"),
    end: end === undefined ? undefined : toUint8Array(end, "end"),
    limit,
    reverse,
  };
}

/** The query for the number of keys. */
export function count(): KVCount {
  return { type: "count" };
}
