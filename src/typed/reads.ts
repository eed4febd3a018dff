/**
 * Reads of a query, to find out without asking again that its answer is the same.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Found, IndexScalar } from "./lookups.ts";
import { keepChanges, type TableChange, type TableCore } from "./table.ts";

/** State in which reads are looked up again. */
export interface ReadState {
  /** Table of a name. */
  tableOf(name: string): TableCore | undefined;
  /** Plain values in the order of the definition. */
  values(): readonly { readonly now: unknown }[];
}

/** Lookup in an index, with the rows that were found. */
interface Lookup {
  readonly index: string;
  readonly parts: readonly IndexScalar[];
  readonly found: Found;
}

/** Reads of one table. */
interface TableReads {
  /** Version of a table in which they are the same. */
  version: number;
  /** Newest change of that. */
  newest: TableChange | undefined;
  /** True if a query has iterated over the table, or asked for its size. */
  isWhole: boolean;
  /** Rows by key, as they were. */
  readonly rows: Map<string, unknown>;
  readonly lookups: Lookup[];
}

/** True if the same rows are read from a table. */
function isSameTable(
  table: TableCore,
  { version, newest, isWhole, rows, lookups }: TableReads,
): boolean {
  if (table.version === version) return true;
  if (isWhole) return false;
  const changed = table.changedSince(newest);
  for (const key of changed ?? rows.keys()) {
    if (rows.has(key) && table.find(key) !== rows.get(key)) return false;
  }
  return lookups.every(({ index, parts, found }) =>
    isSameRows(found, table.rowsAt(index, parts))
  );
}

function isSameRows({ rows: one }: Found, { rows: other }: Found): boolean {
  return one === other ||
    one.length === other.length && one.every((row, i) => row === other[i]);
}

/** Reads of one query. Every query reads all plain values. */
export class Reads {
  readonly #tables = new Map<string, TableReads>();
  readonly #values: readonly unknown[];

  /** Starts without reads. */
  constructor(state: ReadState) {
    keepChanges();
    this.#values = state.values().map(({ now }) => now);
  }

  #of({ name, version, newest }: TableCore): TableReads {
    let reads = this.#tables.get(name);
    if (reads === undefined) {
      reads = { version, newest, isWhole: false, rows: new Map(), lookups: [] };
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
    found: Found,
  ): void {
    this.#of(table).lookups.push({ index, parts, found });
  }

  /** True if the query would read the same from a state. */
  isSame(state: ReadState): boolean {
    if (!state.values().every(({ now }, i) => now === this.#values[i])) {
      return false;
    }
    for (const [name, reads] of this.#tables) {
      const table = state.tableOf(name);
      if (table === undefined || !isSameTable(table, reads)) return false;
      reads.version = table.version;
      reads.newest = table.newest;
    }
    return true;
  }
}
