/**
 * Commands and queries of the key-value machines.
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
  mergeCommands,
  PUT,
  SWAP,
} from "./command.ts";
import type { KVCount, KVGet, KVGetMany, KVRange } from "./query.ts";

export { decodeAnswer, encodeQuery } from "./query.ts";
export { remove as delete };

/** `Result.value` of a malformed command; the reason is in its data, in UTF-8. */
export const INVALID: bigint = U64_MAX;

/** Makes the command that sets the value of a key. Its result's value is 1, or 0 if the key has that value already. */
export function put(
  key: string | Uint8Array,
  value: string | Uint8Array,
): Uint8Array<ArrayBuffer> {
  return encodeCommand(PUT, key, value);
}

/** Makes the command that removes a key, as `kv.delete()`. Its result's value is 1, or 0 if the key is absent. */
function remove(key: string | Uint8Array): Uint8Array<ArrayBuffer> {
  return encodeCommand(DELETE, key);
}

/**
 * Merges two neighbouring commands of an outbox that were never sent: returns the
 * second if both set or remove one key, undefined otherwise. A key-value machine
 * offers it (`IMerge`) if it is made its method: `class Notes extends KVStateMachine
 * { merge = kv.merge; }`.
 */
export function merge(
  first: Uint8Array,
  second: Uint8Array,
): Uint8Array | undefined {
  return mergeCommands(first, second);
}

/**
 * Makes the command that sets the value of a key if its present value is
 * `expected`, or, if that is undefined, if the key is absent. Its result's
 * value is 1 if the state changed. Otherwise it is 0: with the present value as
 * data if that differs from `expected`; without data if the key is absent, or
 * already has `value`.
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
 * Makes an atomic batch of commands. First every compare-and-swap is checked
 * against the state before the batch; if any fails, the result is that of the
 * first to fail, and nothing changes. Then all commands are applied in order.
 * The result's value is 1 if any of them changed the state. Batches do not
 * nest.
 */
export function batch(
  commands: readonly Uint8Array[],
): Uint8Array<ArrayBuffer> {
  return encodeBatch(commands);
}

/** Makes the query for the value of a key; undefined if it is absent. */
export function get(key: string | Uint8Array): KVGet {
  return { type: "get", key: toUint8Array(key, "Key") };
}

/** Makes the query for the values of several keys as of one state, in the order of the keys; undefined for each that is absent. */
export function getMany(keys: readonly (string | Uint8Array)[]): KVGetMany {
  if (!Array.isArray(keys)) {
    throw new TypeError(
      `Keys of kv.getMany() are ${describe(keys)}; give an array`,
    );
  }
  return {
    type: "getMany",
    keys: keys.map((key, i) => toUint8Array(key, `Key ${i}`)),
  };
}

/** Range of rows to query. */
export interface KVRangeOptions {
  /** First key of the range. @default {the first key} */
  start?: string | Uint8Array | undefined;
  /** End of the range, exclusive. @default {after the last key} */
  end?: string | Uint8Array | undefined;
  /** Maximum number of rows. @default {all} */
  limit?: number | undefined;
  /** True to return rows in descending order. @default {false} */
  reverse?: boolean | undefined;
}

/** Makes the query for the rows whose keys are in [start, end), in byte order. */
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

/** Makes the query for the number of keys. */
export function count(): KVCount {
  return { type: "count" };
}
