/**
 * Tables of a typed machine: ordered collections of rows with declared indexes.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { describe, isWellFormed } from "../describe.ts";
import { TABLE_CHANGES_MAX, TABLE_KEY_CHARS_MAX } from "../limits.ts";
import { ErrInvalidDefinition, ErrNotPlain } from "./errors.ts";
import { type Hashed, hashed } from "./hashed.ts";
import {
  beginsWith,
  compareParts,
  type Found,
  type IndexScalar,
  Lookups,
  type Parts,
} from "./lookups.ts";
import { SortedMap } from "./sorted_map.ts";

export type { IndexScalar };

/** Key of a row in an index; undefined if the row is not in it. */
export type IndexKey = IndexScalar | readonly IndexScalar[] | undefined;

/** Leading parts of an index key. */
export type Prefix<K> = K extends readonly [infer First, ...infer Rest]
  ? [] | [First, ...Prefix<Rest>]
  : K extends readonly (infer Part)[] ? Part[]
  : [] | [Exclude<K, undefined>];

/**
 * Lookups by index: `byList(list)` returns the rows whose index key is `list`, or
 * begins with the given parts, in the order of their index keys; `byList()` all.
 */
export type Indexes<V, K> = {
  readonly [Name in keyof K]: (...parts: Prefix<K[Name]>) => readonly V[];
};

/** Part of a table to iterate over. */
export interface TableRange {
  /** First key of the part. */
  readonly from?: string;
  /** Key after the last of the part. */
  readonly to?: string;
}

/**
 * Ordered collection of rows by key. Keys are strings, ordered by their UTF-16
 * code units; rows are plain data, frozen: `set()` stores a copy, and a change is
 * another `set()`. Bytes cannot be frozen: a row with some is a copy at each access.
 * An iteration sees the table as it was when it began.
 */
export interface TableOf<V> {
  /** Number of rows. */
  readonly size: number;
  /** True if there is a row of this key. */
  has(key: string): boolean;
  /** Returns the row of a key. */
  get(key: string): V | undefined;
  /**
   * Sets the row of a key. Throws outside of a command.
   *
   * @throws ErrNotPlain if the row is not plain data, or takes over 4 MiB
   */
  set(key: string, row: V): void;
  /** Removes the row of a key; false if the table has no such row. Throws outside of a command. */
  delete(key: string): boolean;
  /** Iterates over keys in order. */
  keys(range?: TableRange): IterableIterator<string>;
  /** Iterates over rows in the order of their keys. */
  values(range?: TableRange): IterableIterator<V>;
  /** Iterates over keys and rows in order. */
  entries(range?: TableRange): IterableIterator<[string, V]>;
  /** Iterates over keys and rows in order. */
  [Symbol.iterator](): IterableIterator<[string, V]>;
}

/** Table with its indexes as methods. */
export type Table<V, K = Record<never, never>> = TableOf<V> & Indexes<V, K>;

/** Indexes of a table, for {@linkcode table}. */
export interface TableIndexes<V, K> {
  /** Functions from a row to its key in an index: pure, of the row alone. */
  readonly indexes: { readonly [Name in keyof K]: (row: V) => K[Name] };
}

/** Row that index functions take. */
export type RowOf<I> = I[keyof I] extends (row: infer V) => unknown ? V : never;

interface Index<V> {
  readonly name: string;
  readonly keyOf: (row: V) => IndexKey;
  readonly map: SortedMap<Parts, string>;
  readonly lookups: Lookups<V>;
}

/** State that a table belongs to. */
export interface TableOwner {
  /** Notes the row that a change replaces; throws if nothing may be changed now. */
  changing(table: TableCore, key: string, old: Hashed | undefined): void;
  /** Reads to be noted, if any. */
  readonly reads: TableReader | undefined;
}

/** Receiver of the reads of a query or a command. */
export interface TableReader {
  /** Notes a row that is asked for by its key. */
  row(table: TableCore, key: string): void;
  /** Notes that a whole table is read. */
  whole(table: TableCore): void;
  /** Notes the rows that an index has for a key. */
  lookup(
    table: TableCore,
    index: string,
    parts: readonly IndexScalar[],
    found: Found,
  ): void;
}

/** Number of changes of all tables, so that each version has a number of its own. */
let versions = 0;

/** True once a query is watched: until then, no table keeps its changes, which costs a tenth of an update. */
let keepsChanges = false;

/** Has all tables keep their changes from now on. */
export function keepChanges(): void {
  keepsChanges = true;
}

/** Change of a table. Its copies share the changes before they were made. */
export interface TableChange {
  /** Number of the version after it, above those before. */
  readonly version: number;
  /** Key of the row. */
  readonly key: string;
  /** Change before; undefined for the first one, and where older ones are forgotten. */
  readonly before: TableChange | undefined;
  /** Number of changes before it that are known. */
  readonly depth: number;
}

/** True for what can be a part of an index key. */
function isScalar(value: unknown): value is IndexScalar {
  return value === null || !Number.isNaN(value) &&
      ["string", "number", "boolean"].includes(typeof value);
}

/** Functions from a row to its key in an index, by the name of the index. */
type IndexKeys<V> = Readonly<Record<string, (row: V) => IndexKey>>;

/** Table as its state uses it. A table with indexes is of a subclass, which has a method for each. */
export class TableCore<V = unknown> implements TableOf<V> {
  /** Name of the table in its state; empty until it belongs to one. */
  name = "";
  /** State that the table belongs to. */
  owner: TableOwner | undefined;
  readonly #rows: SortedMap<string, Hashed<V>>;
  readonly #indexes: readonly Index<V>[];
  #low = 0;
  #high = 0;
  #version = 0;
  #newest: TableChange | undefined;

  /** Creates an empty table, or a copy of another one. */
  constructor(from: IndexKeys<V> | TableCore<V>) {
    if (from instanceof TableCore) {
      this.name = from.name;
      this.#rows = from.#rows.clone();
      this.#indexes = from.#indexes.map((index) => ({
        ...index,
        map: index.map.clone(),
        lookups: index.lookups.clone(),
      }));
      this.#low = from.#low;
      this.#high = from.#high;
      this.#version = from.#version;
      this.#newest = from.#newest;
    } else {
      this.#rows = new SortedMap();
      this.#indexes = Object.entries(from).map(([name, keyOf]) => ({
        name,
        keyOf,
        map: new SortedMap(compareParts),
        lookups: new Lookups(),
      }));
    }
  }

  /** Gives a table its name in a state, with which its rows are hashed. */
  rename(name: string): void {
    this.name = name;
    for (const [key, row] of this.entries()) this.set(key, row);
  }

  /** Names of the indexes. */
  get indexNames(): readonly string[] {
    return this.#indexes.map(({ name }) => name);
  }

  /** Creates a copy, which changes independently. */
  clone(): TableCore<V> {
    return new (this.constructor as typeof TableCore<V>)(this);
  }

  /** Low half of the sum of the hashes of all rows. */
  get low(): number {
    return this.#low;
  }

  /** High half of the sum of the hashes of all rows. */
  get high(): number {
    return this.#high;
  }

  /** Number of this version of the table: a copy has the same until one of the two changes. */
  get version(): number {
    return this.#version;
  }

  /** Newest change that was kept. */
  get newest(): TableChange | undefined {
    return this.#newest;
  }

  /** Returns the keys of rows that may differ from those of a table with another newest change, such as a copy; undefined if that is not known. */
  changedSince(then: TableChange | undefined): readonly string[] | undefined {
    let now: TableChange | undefined = this.#newest;
    // Tables of which no change is known may have nothing in common.
    if (now === undefined) return undefined;
    const keys: string[] = [];
    while (now !== then) {
      if (now === undefined || then === undefined) return undefined;
      const later: TableChange = now.version > then.version ? now : then;
      keys.push(later.key);
      if (later === now) now = now.before;
      else then = then.before;
    }
    return keys;
  }

  /** Returns the row of a key as it is stored: the same object until the row is set again. */
  find(key: string): object | undefined {
    return this.#rows.get(key);
  }

  /** Returns the rows that an index has for a key, in its order. */
  rowsAt(name: string, parts: readonly IndexScalar[]): Found<V> {
    const index = this.#indexes.find((index) => index.name === name)!;
    return index.lookups.get(parts, () => this.#rowsAt(index, parts));
  }

  *#rowsAt(
    { map }: Index<V>,
    parts: readonly IndexScalar[],
  ): Generator<[Parts, Hashed<V>]> {
    for (const [key, rowKey] of map.entries(parts)) {
      if (!beginsWith(key, parts)) return;
      yield [key, this.#rows.get(rowKey)!];
    }
  }

  get size(): number {
    this.owner?.reads?.whole(this as TableCore);
    return this.#rows.size;
  }

  has(key: string): boolean {
    this.owner?.reads?.row(this as TableCore, key);
    return this.#rows.get(key) !== undefined;
  }

  get(key: string): V | undefined {
    this.owner?.reads?.row(this as TableCore, key);
    return this.#rows.get(key)?.value;
  }

  set(key: string, row: V): void {
    if (
      typeof key !== "string" || key.length > TABLE_KEY_CHARS_MAX ||
      !isWellFormed(key)
    ) {
      throw new ErrNotPlain(
        `Key ${
          describe(key)
        } of table ${this.name} is not a well-formed string of at most ${TABLE_KEY_CHARS_MAX} characters`,
      );
    }
    this.replace(key, hashed(row, this.name, key));
  }

  delete(key: string): boolean {
    if (this.#rows.get(key) === undefined) return false;
    this.replace(key, undefined);
    return true;
  }

  /**
   * Replaces the row of a key, or removes it, and notes the one before.
   *
   * @throws ErrNotPlain if an index function returns what is no index key: nothing is changed then
   */
  replace(key: string, row: Hashed<V> | undefined): void {
    const old = this.#rows.get(key);
    // Index functions run before anything is changed: they may throw.
    let moves:
      | [Index<V>, boolean, Parts | undefined, Parts | undefined][]
      | undefined;
    for (const index of this.#indexes) {
      const before = old && index.keyOf(old.value);
      const after = row && index.keyOf(row.value);
      const isAlone = index.lookups.size === 0;
      // Also one that is undefined before and after.
      if (before === after && (isAlone || before === undefined)) continue;
      const from = partsOf(index, before, key);
      const to = partsOf(index, after, key);
      const isMoved = !from || !to || compareParts(from, to) !== 0;
      if (isMoved || !isAlone) (moves ??= []).push([index, isMoved, from, to]);
    }
    this.owner?.changing(this as TableCore, key, old);
    this.#put(key, row, old);
    if (moves === undefined) return;
    for (const [{ map, lookups }, isMoved, from, to] of moves) {
      if (from && isMoved) {
        map.delete(from);
        lookups.set(from, undefined);
      }
      if (to) {
        if (isMoved) map.set(to, key);
        lookups.set(to, row);
      }
    }
  }

  #put(
    key: string,
    row: Hashed<V> | undefined,
    old: Hashed<V> | undefined,
  ): void {
    this.#version = ++versions;
    if (keepsChanges) this.#keep(key);
    if (row === undefined) this.#rows.delete(key);
    else this.#rows.set(key, row);
    this.#low = this.#low - (old?.low ?? 0) + (row?.low ?? 0) | 0;
    this.#high = this.#high - (old?.high ?? 0) + (row?.high ?? 0) | 0;
  }

  #keep(key: string): void {
    const { depth = TABLE_CHANGES_MAX } = this.#newest ?? {};
    const isKnown = depth < TABLE_CHANGES_MAX;
    this.#newest = {
      version: this.#version,
      key,
      before: isKnown ? this.#newest : undefined,
      depth: isKnown ? depth + 1 : 0,
    };
  }

  *keys(range: TableRange = {}): Generator<string> {
    for (const [key] of this.entries(range)) yield key;
  }

  *values(range: TableRange = {}): Generator<V> {
    for (const [, row] of this.entries(range)) yield row;
  }

  entries({ from, to }: TableRange = {}): Generator<[string, V]> {
    this.owner?.reads?.whole(this as TableCore);
    return limited(this.#rows.entries(from), to);
  }

  [Symbol.iterator](): Generator<[string, V]> {
    return this.entries();
  }
}

/** Class of tables that have a method for each of some indexes. */
function classWith<V>(indexes: readonly string[]): typeof TableCore<V> {
  if (indexes.length === 0) return TableCore;
  class IndexedTable extends TableCore<V> {}
  for (const name of indexes) {
    Object.defineProperty(IndexedTable.prototype, name, {
      value(this: TableCore<V>, ...parts: IndexScalar[]): readonly V[] {
        const found = this.rowsAt(name, parts);
        this.owner?.reads?.lookup(this as TableCore, name, parts, found);
        return found.rows.map(({ value }) => value);
      },
    });
  }
  return IndexedTable;
}

function* limited<V>(
  rows: Iterable<[string, Hashed<V>]>,
  to: string | undefined,
): Generator<[string, V]> {
  for (const [key, { value }] of rows) {
    if (to !== undefined && key >= to) return;
    yield [key, value];
  }
}

/**
 * Parts of the key of a row in an index; undefined if the row is not in it.
 *
 * @throws ErrNotPlain if a part cannot be compared with others
 */
function partsOf(
  { name }: { readonly name: string },
  key: IndexKey,
  rowKey: string,
): Parts | undefined {
  if (key === undefined) return undefined;
  const parts = [...(Array.isArray(key) ? key : [key]) as Parts, rowKey];
  if (parts.every(isScalar)) return parts;
  throw new ErrNotPlain(
    `Index ${name} has the key ${describe(key)} for row ${
      describe(rowKey)
    }; return strings, numbers, booleans or null`,
  );
}

/**
 * Creates a table with indexes, for the state of a machine. A row's index key is
 * a value, or an array of values of which a lookup gives the first ones:
 *
 * ```ts ignore
 * table({ indexes: { byList: (card: Card) => [card.list, card.position] } })
 * ```
 *
 * Give the type of the rows at the parameter of an index function, as here: with one
 * type argument, as in `table<Card>({ indexes })`, TypeScript infers no other one, and
 * the names of the indexes would not be known.
 *
 * @throws ErrInvalidDefinition if an index has the name of a method
 */
export function table<I extends Record<string, (row: never) => IndexKey>>(
  options: { readonly indexes: I },
): Table<RowOf<I>, { [Name in keyof I]: ReturnType<I[Name]> }>;
/** Creates a table with indexes, given the types of its rows and of the index keys. */
export function table<V, K>(options: TableIndexes<V, K>): Table<V, K>;
/** Creates a table without indexes, for the state of a machine. */
export function table<V>(): Table<V>;
export function table<V, K>(
  options?: TableIndexes<V, K>,
): Table<V, K> {
  const indexes = (options?.indexes ?? {}) as Record<
    string,
    (row: V) => IndexKey
  >;
  // Also what only the library calls.
  const plain = new TableCore({});
  for (const name of Object.keys(indexes)) {
    if (name in plain) {
      throw new ErrInvalidDefinition(
        `Index ${
          describe(name)
        } of a table has the name of a method; call it byX`,
      );
    }
  }
  const Class = classWith<V>(Object.keys(indexes));
  return new Class(indexes) as unknown as Table<V, K>;
}
