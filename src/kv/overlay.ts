/**
 * Overlay: changes in memory on top of a state that stays unchanged.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { chain, isPromise } from "../async.ts";
import type { Entry, MaybePromise } from "../statemachine/types.ts";
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
import { bytesOf, compareBytes, viewOf } from "./view.ts";

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

/** Converts a key to text, one character per byte: texts sort like their keys. */
function nameOf(view: DataView, start: number, end: number): string {
  let name = "";
  for (; start < end; start += 4096) {
    const part = bytesOf(view, start, Math.min(end, start + 4096));
    name += String.fromCharCode.apply(null, part as unknown as number[]);
  }
  return name;
}

/** Converts such a text back to its key. */
function keyOf(name: string): Uint8Array {
  const key = new Uint8Array(name.length);
  for (let i = 0; i < key.length; i++) key[i] = name.charCodeAt(i);
  return key;
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
  /** Values of changed keys by name; undefined for a deleted key. */
  readonly #changes = new Map<string, Uint8Array | undefined>();
  /** Names of changed keys; those added since the last sort are at the end. */
  readonly #names: string[] = [];
  #sorted = 0;
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
    const name = nameOf(view, start, end);
    const value = this.#changes.get(name);
    return value !== undefined || this.#changes.has(name)
      ? value
      : this.#below.get(view, start, end);
  }

  /** Sets the value of a key; false if it has it already. */
  put(
    view: DataView,
    keyStart: number,
    keyEnd: number,
    valueStart: number,
    valueEnd: number,
  ): boolean {
    const name = nameOf(view, keyStart, keyEnd);
    const changed = this.#changes.get(name);
    const isChanged = changed !== undefined || this.#changes.has(name);
    const present = isChanged
      ? changed
      : this.#below.get(view, keyStart, keyEnd);
    if (present === undefined) this.#more++;
    else if (isSame(view, valueStart, valueEnd, present)) return false;
    if (!isChanged) this.#names.push(name);
    else if (changed === undefined) this.#deleted--;
    this.#changes.set(name, bytesOf(view, valueStart, valueEnd).slice());
    return true;
  }

  /** Removes a key; false if it is absent. */
  delete(view: DataView, start: number, end: number): boolean {
    if (this.get(view, start, end) === undefined) return false;
    this.#more--;
    this.#deleted++;
    const name = nameOf(view, start, end);
    if (!this.#changes.has(name)) this.#names.push(name);
    this.#changes.set(name, undefined);
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
        const name = nameOf(viewOf(query.key), 0, query.key.length);
        return this.#changes.has(name)
          ? this.#changes.get(name)?.slice()
          : base.lookup(query);
      }
      case "getMany": {
        const names = query.keys.map((key) =>
          nameOf(viewOf(key), 0, key.length)
        );
        return chain(
          base.lookup(query),
          (below) =>
            (below as (Uint8Array | undefined)[]).map((value, i) =>
              this.#changes.has(names[i]!)
                ? this.#changes.get(names[i]!)?.slice()
                : value
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

  /** Lists the changes in a range, in the requested order. */
  #range({ start, end, reverse }: KVRange): Change[] {
    const names = this.#names;
    if (this.#sorted < names.length) this.#sorted = names.sort().length;
    const at = (key: Uint8Array | undefined, none: number): number => {
      if (key === undefined) return none;
      const name = nameOf(viewOf(key), 0, key.length);
      let low = 0;
      for (let high = names.length; low < high;) {
        const i = low + high >> 1;
        if (names[i]! < name) low = i + 1;
        else high = i;
      }
      return low;
    };
    const changes = names.slice(at(start, 0), at(end, names.length))
      .map((name) => ({ key: keyOf(name), value: this.#changes.get(name) }));
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
    if (value) rows.push({ key: key.slice(), value: value.slice() });
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
