/**
 * Checks of the return value of `update()`.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { isU64 } from "../bytes.ts";
import type { Entry, Result, Type } from "../statemachine/types.ts";
import { RegularStateMachine } from "../statemachine/types.ts";
import { Breach } from "./violation.ts";
import { equalBytes, show } from "./value.ts";

/**
 * Extracts and checks the results of a batch; `returned` is the return value of
 * `update()` for entries with these indexes.
 */
export function resultsOf(
  returned: unknown,
  indexes: readonly number[],
  type: Type,
): Result[] {
  if (!Array.isArray(returned)) {
    throw new Breach(
      "C1",
      `update() returned ${show(returned)} instead of its entries`,
    );
  }
  if (returned.length !== indexes.length) {
    throw new Breach(
      "C1",
      `update() got ${indexes.length} entries and returned ${returned.length}`,
    );
  }
  return indexes.map((index, i) => {
    const entry = returned[i] as Partial<Entry> | null | undefined;
    if (entry?.index !== index) {
      throw new Breach(
        "C1",
        `update() returned index ${show(entry?.index)} in place of ${index}`,
      );
    }
    return checked(entry.result, index, type);
  });
}

function checked(result: unknown, index: number, type: Type): Result {
  if (typeof result !== "object" || result === null) {
    throw new Breach(
      type === RegularStateMachine ? "T2" : "C1",
      `update() left entry ${index} without a result`,
    );
  }
  const { value, data } = result as { value?: unknown; data?: unknown };
  if (typeof value !== "bigint") {
    throw new Breach(
      "T2",
      `update() returned the value ${show(value)}, which is not a bigint`,
    );
  }
  if (!isU64(value)) {
    throw new Breach(
      "T3",
      `update() returned the value ${value}, outside of 0…2^64-1`,
    );
  }
  if (data !== undefined && !(data instanceof Uint8Array)) {
    throw new Breach(
      "T2",
      `update() returned the data ${show(data)}, which is not a Uint8Array`,
    );
  }
  return result as Result;
}

/** Copies a result, so that changes by the machine do not show. */
export function copyResult({ value, data }: Result): Result {
  return data === undefined ? { value } : { value, data: data.slice() };
}

/** True if two results are equal; missing and empty data differ. */
export function equalResults(a: Result, b: Result): boolean {
  if (a.value !== b.value) return false;
  if (a.data === undefined || b.data === undefined) return a.data === b.data;
  return equalBytes(a.data, b.data);
}
