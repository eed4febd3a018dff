/**
 * Overlay: changes in memory on top of a state that stays unchanged.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { chain, isPromise } from "../async.ts";
import type { Entry, MaybePromise } from "../statemachine/types.ts";
import { ChangedRows } from "./changed_rows.ts";
import { applyCommand, type KVTarget } from "./command.ts";
import {
  answer,
  checked,
  type KVAnswer,
  type KVQuery,
  type KVRange,
  type KVRow,
} from "./query.ts";
import type { Tree } from "./tree.ts";
import { compareBytes, viewOf } from "./view.ts";

/** Access to the state below, whose rows may not be in memory. */
export interface OverlayBase {
  /** Loads the rows of an entry into memory; after a promise it may have to be called again. */
  load(entry: Entry): MaybePromise<void>;
  /** Answers a query from the state below. */
  lookup(query: KVQuery): MaybePromise<KVAnswer>;
}

/** Key whose value differs from the state below; its value is undefined if it is deleted. */
interface Change {
  readonly key: Uint8Array;
  readonly value: Uint8Array | undefined;
}

/** True if the bytes of `view` in [start, end) equal `bytes`. Comparing costs less than creating a view. */
function isSame(
  view: DataView,
  start: number,
  end: number,
  bytes: Uint8Array,
): boolean {
  const { length } = bytes;
  if (length !== end - start) return false;
  for (let i = 0; i < length; i++) {
    if (view.getUint8(start + i) !== bytes[i]) return false;
  }
  return true;
}

/** State below with commands applied on top of it. Valid while that state stays unchanged. */
export class Overlay implements KVTarget {
  readonly #below: Pick<KVTarget, "get">;
  readonly #base: OverlayBase;
  readonly #changes = new ChangedRows();
  /** Number of deleted keys. */
  #deleted = 0;
  /** Number of keys in addition to those below. */
  #more = 0;

  /** Creates an empty overlay on `below`; rows must be loaded before they are read. */
  constructor(below: Pick<KVTarget, "get">, base: OverlayBase) {
    this.#below = below;
    this.#base = base;
  }

  /** Returns the value of a key, readable until the next call. */
  get(view: DataView, start: number, end: number): Uint8Array | undefined {
    const row = this.#changes.find(view, start, end);
    return row < 0
      ? this.#below.get(view, start, end)
      : this.#changes.value(row);
  }

  /** Sets the value of a key; false if it has it already. */
  put(
    view: DataView,
    keyStart: number,
    keyEnd: number,
    valueStart: number,
    valueEnd: number,
  ): boolean {
    const changes = this.#changes;
    let row = changes.find(view, keyStart, keyEnd);
    if (row >= 0) {
      if (changes.isDeleted(row)) {
        this.#deleted--;
        this.#more++;
      }
    } else {
      const present = this.#below.get(view, keyStart, keyEnd);
      if (present === undefined) this.#more++;
      else if (isSame(view, valueStart, valueEnd, present)) return false;
      row = changes.add(view, keyStart, keyEnd);
    }
    return changes.set(row, view, valueStart, valueEnd);
  }

  /** Removes a key; false if it is absent. */
  delete(view: DataView, start: number, end: number): boolean {
    const changes = this.#changes;
    let row = changes.find(view, start, end);
    if (row < 0) {
      if (this.#below.get(view, start, end) === undefined) return false;
      row = changes.add(view, start, end);
    } else if (changes.isDeleted(row)) return false;
    else changes.delete(row);
    this.#more--;
    this.#deleted++;
    return true;
  }

  /** Applies entries like the machine's `update()`. */
  update(entries: Entry[]): MaybePromise<Entry[]> {
    return chain(this.#apply(entries, 0), () => entries);
  }

  #apply(entries: Entry[], from: number): MaybePromise<void> {
    for (let i = from; i < entries.length; i++) {
      const entry = entries[i]!;
      const loading = this.#base.load(entry);
      if (isPromise(loading)) {
        return loading.then(() => this.#apply(entries, i));
      }
      entry.result = applyCommand(this, entry.cmd);
    }
  }

  /** Answers a query like the machine's `lookup()`. */
  lookup<Q extends KVQuery>(query: Q): MaybePromise<KVAnswer<Q>> {
    return this.#lookup(checked(query)) as MaybePromise<KVAnswer<Q>>;
  }

  #lookup(query: KVQuery): MaybePromise<KVAnswer> {
    const base = this.#base;
    switch (query.type) {
      case "get": {
        const row = this.#find(query.key);
        return row < 0 ? base.lookup(query) : this.#changes.copyOfValue(row);
      }
      case "getMany": {
        const rows = query.keys.map((key) => this.#find(key));
        return chain(
          base.lookup(query),
          (below) =>
            (below as (Uint8Array | undefined)[]).map((value, i) =>
              rows[i]! < 0 ? value : this.#changes.copyOfValue(rows[i]!)
            ),
        );
      }
      case "count":
        return chain(
          base.lookup(query),
          (count) => count as number + this.#more,
        );
      case "range": {
        const changes = this.#range(query);
        // Rows below may turn out to be deleted here.
        const limit = query.limit &&
          Math.min(query.limit + this.#deleted, Number.MAX_SAFE_INTEGER);
        return chain(
          base.lookup({ ...query, limit }),
          (below) => merge(below as KVRow[], changes, query),
        );
      }
    }
  }

  #find(key: Uint8Array): number {
    return this.#changes.find(viewOf(key), 0, key.length);
  }

  /** Lists the changes in a range, in the requested order. */
  #range({ start, end, reverse }: KVRange): Change[] {
    const changes = this.#changes.range(start, end).map((row) => ({
      key: this.#changes.copyOfKey(row),
      value: this.#changes.copyOfValue(row),
    }));
    return reverse ? changes.reverse() : changes;
  }
}

/** Merges rows and changes, both in the requested order. */
function merge(
  below: readonly KVRow[],
  changes: readonly Change[],
  { limit = Infinity, reverse }: KVRange,
): KVRow[] {
  const rows: KVRow[] = [];
  let i = 0;
  let at = 0;
  while (rows.length < limit) {
    const row = below[i];
    const change = changes[at];
    if (change === undefined) {
      if (row === undefined) break;
      rows.push(row);
      i++;
      continue;
    }
    const order = row === undefined ? -1 : compare(change.key, row.key);
    if (row !== undefined && (reverse ? -order : order) > 0) {
      rows.push(row);
      i++;
      continue;
    }
    if (order === 0) i++;
    at++;
    const { key, value } = change;
    if (value) rows.push({ key, value });
  }
  return rows;
}

function compare(one: Uint8Array, other: Uint8Array): number {
  return compareBytes(
    viewOf(one),
    0,
    one.length,
    viewOf(other),
    0,
    other.length,
  );
}

/** Creates an empty overlay on the present state of a tree. */
export function overTree(tree: Tree): Overlay {
  return new Overlay(tree, {
    load: () => {},
    lookup: (query) => answer(tree, query),
  });
}
