/**
 * Lookups in an index of a table, which are kept up to date row by row: a query that
 * is asked again after a change costs what has changed, and not the list that it shows.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { TABLE_LOOKUPS_MAX } from "../limits.ts";
import type { Hashed } from "./hashed.ts";

/** One part of an index key. */
export type IndexScalar = string | number | boolean | null;

/** Key in an index: the parts of the index key, then the key of the row. */
export type Parts = readonly IndexScalar[];

/** Rank of a scalar's type in the order of index keys. */
function rank(value: IndexScalar): number {
  if (value === null) return 0;
  const type = typeof value;
  return type === "boolean" ? 1 : type === "number" ? 2 : 3;
}

/** Order of two keys of an index, of which a shorter one is below those that begin with it: negative, 0, or positive. */
export function compareParts(one: Parts, other: Parts): number {
  const length = Math.min(one.length, other.length);
  for (let i = 0; i < length; i++) {
    const a = one[i]!;
    const b = other[i]!;
    if (a === b) continue;
    const order = rank(a) - rank(b);
    if (order !== 0) return order;
    return a! < b! ? -1 : 1;
  }
  return one.length - other.length;
}

/** True if a key of an index begins with some parts. */
export function beginsWith(key: Parts, parts: Parts): boolean {
  return parts.every((part, i) => part === key[i]);
}

/** Rows that an index has for the first parts of its keys, in its order. It does not change. */
export interface Found<V = unknown> {
  /** Keys in the index. */
  readonly keys: readonly Parts[];
  /** Rows of these keys. */
  readonly rows: readonly Hashed<V>[];
}

/** Lookup that is kept up to date. */
interface Known<V> {
  readonly parts: Parts;
  found: Found<V>;
}

/** Lookups in one index that are kept up to date. */
export class Lookups<V = unknown> {
  readonly #known: Known<V>[];

  /** Keeps lookups up to date; at first none. */
  constructor(known: readonly Known<V>[] = []) {
    this.#known = known.map((one) => ({ ...one }));
  }

  /** Creates a copy, which changes independently. */
  clone(): Lookups<V> {
    return new Lookups(this.#known);
  }

  /** Number of lookups that are kept up to date. */
  get size(): number {
    return this.#known.length;
  }

  /** Returns the rows for some parts; `find` finds those of a lookup that is not known. */
  get(parts: Parts, find: () => Iterable<[Parts, Hashed<V>]>): Found<V> {
    const all = this.#known;
    let known = all.find((known) => compareParts(known.parts, parts) === 0);
    if (known === undefined) {
      const pairs = [...find()];
      const found = {
        keys: pairs.map(([key]) => key),
        rows: pairs.map(([, row]) => row),
      };
      known = { parts: [...parts], found };
      // The oldest one makes room.
      if (all.push(known) > TABLE_LOOKUPS_MAX) all.shift();
    }
    return known.found;
  }

  /** Notes the row of a key: another one than before, or undefined if the index has none any more. */
  set(key: Parts, row: Hashed<V> | undefined): void {
    for (const known of this.#known) {
      if (!beginsWith(key, known.parts)) continue;
      const { keys, rows } = known.found;
      // From the end, where rows are added mostly.
      let at = keys.length;
      while (at > 0 && compareParts(keys[at - 1]!, key) >= 0) at--;
      const next = keys[at];
      const old = next && compareParts(next, key) === 0 ? 1 : 0;
      // What was handed out does not change.
      known.found = {
        keys: keys.toSpliced(at, old, ...row ? [key] : []),
        rows: rows.toSpliced(at, old, ...row ? [row] : []),
      };
    }
  }
}
