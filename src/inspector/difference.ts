/**
 * Difference between two states: the places at which they have other values.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { isSameBytes } from "../bytes.ts";
import {
  INSPECTOR_DEPTH_MAX,
  INSPECTOR_ROWS_MAX,
  INSPECTOR_VALUES_MAX,
} from "../limits.ts";

/** Place at which two states differ. */
export interface Difference {
  /** Names on the way to the place, from the outermost. */
  readonly path: readonly string[];
  /** Change from the earlier state to the later one. */
  readonly change: "added" | "removed" | "changed";
  /** Value of the earlier state; undefined if it was added. */
  readonly before: unknown;
  /** Value of the later state; undefined if it was removed. */
  readonly after: unknown;
}

/** Differences between two states. */
export interface Differences {
  /** Places in order, up to a bound. */
  readonly places: readonly Difference[];
  /** Number of all places that were found. */
  readonly count: number;
  /** True if every value was compared; false if there were too many. */
  readonly isComplete: boolean;
}

/** Parts of a value by name; undefined for a value that is compared as a whole. */
function partsOf(value: unknown): ReadonlyMap<string, unknown> | undefined {
  if (value instanceof Map) {
    return new Map([...value].map(([key, part]) => [String(key), part]));
  }
  if (value instanceof Set) {
    return new Map([...value].map((part) => [String(part), part]));
  }
  if (typeof value !== "object" || value === null) return undefined;
  if (value instanceof Uint8Array) return undefined;
  return new Map(Object.entries(value));
}

/** Comparison of two states within bounds. */
class Comparison {
  readonly places: Difference[] = [];
  count = 0;
  /** Number of values that may still be compared. */
  room: number;

  constructor(room: number) {
    this.room = room;
  }

  compare(before: unknown, after: unknown, path: readonly string[]): void {
    // A row that was not changed is often the same object.
    if (Object.is(before, after)) return;
    if (this.room-- <= 0) return;
    const [old, now] = path.length < INSPECTOR_DEPTH_MAX
      ? [partsOf(before), partsOf(after)]
      : [];
    if (old === undefined || now === undefined) {
      if (isSameValue(before, after)) return;
      return this.#add({ path, change: "changed", before, after });
    }
    for (const [name, part] of old) {
      if (this.room <= 0) return;
      if (now.has(name)) this.compare(part, now.get(name), [...path, name]);
      else {
        this.room--;
        this.#add({
          path: [...path, name],
          change: "removed",
          before: part,
          after: undefined,
        });
      }
    }
    for (const [name, part] of now) {
      if (this.room <= 0) return;
      if (old.has(name)) continue;
      this.room--;
      this.#add({
        path: [...path, name],
        change: "added",
        before: undefined,
        after: part,
      });
    }
  }

  #add(difference: Difference): void {
    this.count++;
    if (this.places.length < INSPECTOR_ROWS_MAX) this.places.push(difference);
  }
}

function isSameValue(one: unknown, other: unknown): boolean {
  return one instanceof Uint8Array && other instanceof Uint8Array &&
    isSameBytes(one, other);
}

/** Compares two states of plain values, objects, arrays, maps and bytes. */
export function differencesOf(
  before: unknown,
  after: unknown,
  valuesMax: number = INSPECTOR_VALUES_MAX,
): Differences {
  const comparison = new Comparison(valuesMax);
  comparison.compare(before, after, []);
  const { places, count, room } = comparison;
  return { places, count, isComplete: room > 0 };
}
