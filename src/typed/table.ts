/**
 * Tables of a typed machine: ordered collections of rows with declared indexes.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { describe, isWellFormed } from "../describe.ts";
import { hashKey, hashValue, lanes } from "../kv/hash.ts";
import { TABLE_KEY_CHARS_MAX } from "../limits.ts";
import { ErrInvalidDefinition, ErrNotPlain } from "./errors.ts";
import { PlainWriter } from "./plain.ts";
import { SortedMap } from "./sorted_map.ts";

/** One part of an index key. */
export type IndexScalar = string | number | boolean | null;

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
 * another `set()`. An iteration sees the table as it was when it began.
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
   * @throws ErrNotPlain if the row is not plain data
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

/** Row with its hash. */
interface Row<V> {
  readonly value: V;
  readonly low: number;
  readonly high: number;
}

/** Key in an index: the parts of the index key, then the key of the row. */
type Parts = readonly IndexScalar[];

interface Index<V> {
  readonly name: string;
  readonly keyOf: (row: V) => IndexKey;
  readonly map: SortedMap<Parts, string>;
}

/** State that a table belongs to. */
export interface TableOwner {
  /** Notes the row that a change replaces; throws if nothing may be changed now. */
  changing(table: TableCore, key: string, old: unknown): void;
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
    found: readonly unknown[],
  ): void;
}

/** Number of changes of all tables, so that each version has a number of its own. */
let versions = 0;

/** Rank of a scalar's type in the order of index keys. */
function rank(value: IndexScalar): number {
  if (value === null) return 0;
  const type = typeof value;
  return type === "boolean" ? 1 : type === "number" ? 2 : 3;
}

function compareParts(one: Parts, other: Parts): number {
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

/** Writer of rows for their hash. */
const writer = /* @__PURE__ */ new PlainWriter();

/** Names that an index cannot have. */
const RESERVED = /* @__PURE__ */ new Set([
  "size",
  "has",
  "get",
  "set",
  "delete",
  "keys",
  "values",
  "entries",
  "constructor",
]);

/** Table as its state uses it. */
export class TableCore<V = unknown> implements TableOf<V> {
  /** Name of the table in its state; empty until it belongs to one. */
  name = "";
  /** State that the table belongs to. */
  owner: TableOwner | undefined;
  readonly #indexKeys: Readonly<Record<string, (row: V) => IndexKey>>;
  readonly #rows: SortedMap<string, Row<V>>;
  readonly #indexes: Index<V>[] = [];
  #low = 0;
  #high = 0;
  #version = 0;

  /** Creates an empty table, or a copy of another one. */
  constructor(
    indexKeys: Readonly<Record<string, (row: V) => IndexKey>>,
    from?: TableCore<V>,
  ) {
    this.#indexKeys = indexKeys;
    this.#rows = from === undefined ? new SortedMap() : from.#rows.clone();
    if (from !== undefined) {
      this.name = from.name;
      this.#low = from.#low;
      this.#high = from.#high;
      this.#version = from.#version;
    }
    let i = 0;
    for (const name of Object.keys(indexKeys)) {
      const keyOf = indexKeys[name]!;
      const map = from === undefined
        ? new SortedMap<Parts, string>(compareParts)
        : from.#indexes[i++]!.map.clone();
      const index: Index<V> = { name, keyOf, map };
      this.#indexes.push(index);
      Object.defineProperty(this, name, {
        value: (...parts: IndexScalar[]) => {
          const found = this.#lookup(index, parts);
          this.owner?.reads?.lookup(this as TableCore, name, parts, found);
          return found;
        },
      });
    }
  }

  /** Names of the indexes. */
  get indexNames(): readonly string[] {
    return Object.keys(this.#indexKeys);
  }

  /** Creates a copy, which changes independently. */
  clone(): TableCore<V> {
    return new TableCore(this.#indexKeys, this);
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

  /** Returns the row of a key as it is stored: the same object until the row is set again. */
  find(key: string): object | undefined {
    return this.#rows.get(key);
  }

  /** Returns the rows that an index has for a key. */
  rowsAt(name: string, parts: readonly IndexScalar[]): readonly V[] {
    const index = this.#indexes.find((index) => index.name === name);
    return index === undefined ? [] : this.#lookup(index, parts);
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
    if (typeof key !== "string" || key.length > TABLE_KEY_CHARS_MAX) {
      throw new ErrNotPlain(
        `Key ${
          describe(key)
        } of table ${this.name} is not a string of at most ${TABLE_KEY_CHARS_MAX} characters`,
      );
    }
    if (!isWellFormed(key)) {
      throw new ErrNotPlain(
        `Key ${describe(key)} of table ${this.name} has a lone surrogate`,
      );
    }
    writer.reset().string(this.name).string(key);
    const end = writer.length;
    const value = writer.value(row, this.name);
    hashKey(writer.view, 0, end);
    hashValue(writer.view, end, writer.length);
    this.replace(key, { value, low: lanes[0]!, high: lanes[1]! });
  }

  delete(key: string): boolean {
    if (this.#rows.get(key) === undefined) return false;
    this.replace(key, undefined);
    return true;
  }

  /** Replaces the row of a key, or removes it, and notes the one before. */
  replace(key: string, row: Row<V> | undefined): void {
    const old = this.#rows.get(key);
    // Index functions run before anything is changed: they may throw.
    let moves: [Index<V>, IndexKey, IndexKey][] | undefined;
    for (const index of this.#indexes) {
      const before = old && index.keyOf(old.value);
      const after = row && index.keyOf(row.value);
      // Also one that is undefined before and after.
      if (before !== after) (moves ??= []).push([index, before, after]);
    }
    this.owner?.changing(this as TableCore, key, old);
    this.#put(key, row, old);
    if (moves === undefined) return;
    for (const [{ map }, before, after] of moves) {
      const from = partsOf(before, key);
      const to = partsOf(after, key);
      if (from && to && compareParts(from, to) === 0) continue;
      if (from) map.delete(from);
      if (to) map.set(to, key);
    }
  }

  #put(key: string, row: Row<V> | undefined, old: Row<V> | undefined): void {
    this.#version = ++versions;
    if (row === undefined) this.#rows.delete(key);
    else this.#rows.set(key, row);
    this.#low = this.#low - (old?.low ?? 0) + (row?.low ?? 0) | 0;
    this.#high = this.#high - (old?.high ?? 0) + (row?.high ?? 0) | 0;
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

  #lookup({ map }: Index<V>, parts: readonly IndexScalar[]): V[] {
    const found: V[] = [];
    for (const [key, rowKey] of map.entries(parts)) {
      if (compareParts(key.slice(0, parts.length), parts) !== 0) break;
      found.push(this.#rows.get(rowKey)!.value);
    }
    return found;
  }
}

function* limited<V>(
  rows: Iterable<[string, Row<V>]>,
  to: string | undefined,
): Generator<[string, V]> {
  for (const [key, { value }] of rows) {
    if (to !== undefined && key >= to) return;
    yield [key, value];
  }
}

/** Parts of the key of a row in an index; undefined if the row is not in it. */
function partsOf(key: IndexKey, rowKey: string): Parts | undefined {
  if (key === undefined) return undefined;
  if (typeof key !== "object" || key === null) return [key, rowKey];
  return [...key as Parts, rowKey];
}

/**
 * Creates a table with indexes, for the state of a machine. A row's index key is
 * a value, or an array of values of which a lookup gives the first ones:
 *
 * ```ts ignore
 * table({ indexes: { byList: (card: Card) => [card.list, card.position] } })
 * ```
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
  for (const name of Object.keys(indexes)) {
    if (RESERVED.has(name)) {
      throw new ErrInvalidDefinition(
        `Index ${
          describe(name)
        } of a table has the name of a method; call it byX`,
      );
    }
  }
  return new TableCore<V>(indexes) as unknown as Table<V, K>;
}
