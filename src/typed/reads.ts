/**
 * Reads of a query, to find out without asking again that its answer is the same.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { IndexScalar, TableCore } from "./table.ts";

/** State in which reads are looked up again. */
export interface ReadState {
  /** Table of a name. */
  tableOf(name: string): TableCore | undefined;
  /** Plain values by name. */
  values(): Iterable<readonly [string, unknown]>;
}

/** Lookup in an index, with the rows that were found. */
interface Lookup {
  readonly index: string;
  readonly parts: readonly IndexScalar[];
  readonly found: readonly unknown[];
}

/** Reads of one table. */
interface TableReads {
  /** Version of the table. */
  readonly version: number;
  /** True if a query has iterated over the table, or asked for its size. */
  isWhole: boolean;
  /** Rows by key, as they were. */
  readonly rows: Map<string, unknown>;
  readonly lookups: Lookup[];
}

/** Reads of one query. Every query reads all plain values. */
export class Reads {
  readonly #tables = new Map<string, TableReads>();
  readonly #values: readonly (readonly [string, unknown])[];

  /** Starts without reads. */
  constructor(state: ReadState) {
    this.#values = [...state.values()];
  }

  #of({ name, version }: TableCore): TableReads {
    let reads = this.#tables.get(name);
    if (reads === undefined) {
      reads = { version, isWhole: false, rows: new Map(), lookups: [] };
      this.#tables.set(name, reads);
    }
    return reads;
  }

  /** Notes a row that is asked for by its key. */
  row(table: TableCore, key: string): void {
    this.#of(table).rows.set(key, table.find(key));
  }

  /** Notes that a whole table is read. */
  whole(table: TableCore): void {
    this.#of(table).isWhole = true;
  }

  /** Notes the rows that an index has for a key. */
  lookup(
    table: TableCore,
    index: string,
    parts: readonly IndexScalar[],
    found: readonly unknown[],
  ): void {
    this.#of(table).lookups.push({ index, parts, found });
  }

  /** True if the query would read the same from a state. */
  isSame(state: ReadState): boolean {
    const values = [...state.values()];
    if (!values.every(([, value], i) => value === this.#values[i]?.[1])) {
      return false;
    }
    for (const [name, { version, isWhole, rows, lookups }] of this.#tables) {
      const table = state.tableOf(name);
      if (table === undefined) return false;
      if (table.version === version) continue;
      if (isWhole) return false;
      for (const [key, row] of rows) {
        if (table.find(key) !== row) return false;
      }
      for (const { index, parts, found } of lookups) {
        const now = table.rowsAt(index, parts);
        if (
          now.length !== found.length || now.some((row, i) => row !== found[i])
        ) return false;
      }
    }
    return true;
  }
}
