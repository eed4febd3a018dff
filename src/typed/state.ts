/**
 * State of a typed machine: tables and plain values by name, changed by one
 * command at a time, completely or not at all.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { describe } from "../describe.ts";
import { ErrInvalidDefinition } from "./errors.ts";
import { type Hashed, hashed } from "./hashed.ts";
import { TableCore, type TableOwner, type TableReader } from "./table.ts";

/** Change of a table's row, with the row before it. */
interface Change {
  readonly table: TableCore;
  readonly key: string;
  readonly old: Hashed | undefined;
  /** Change before this one; undefined for the first of a command. */
  readonly before: Change | undefined;
}

/** Row that a command touched, or plain value of the state; a value has the key undefined. */
export interface TouchedRow {
  /** Name of the table, or of the value. */
  readonly part: string;
  /** Key of the row. */
  readonly key: string | undefined;
}

/** Plain value of a state. */
interface Value {
  readonly name: string;
  now: Hashed;
  /** Value that the running command was given, by which an assignment is noticed. */
  given: unknown;
}

/** State of a typed machine. */
export class TypedState implements TableOwner {
  /** Object that handlers get: tables, and plain values that they may assign. */
  readonly root: Record<string, unknown> = {};
  readonly #tables: TableCore[] = [];
  readonly #values: Value[] = [];
  /** Frozen copy of `root`; undefined until it is asked for, and once a value is assigned. */
  #view: Readonly<Record<string, unknown>> | undefined;
  /** True while a command is run, which may change the state. */
  #isOpen = false;
  /** Newest change of the running command. */
  #newest: Change | undefined;
  /** Receiver of reads, while they are noted. */
  reads: TableReader | undefined;

  /**
   * Creates the state of a definition, or a copy of another one.
   *
   * @throws ErrInvalidDefinition if a part is neither a table nor plain data
   */
  constructor(parts: Readonly<Record<string, unknown>> | TypedState) {
    if (parts instanceof TypedState) {
      // In the order of the definition, in which a handler meets them.
      const values = parts.#values.values();
      for (const [name, part] of Object.entries(parts.root)) {
        if (part instanceof TableCore) this.#addTable(part.clone());
        else this.#addValue(name, values.next().value!.now);
      }
    } else {
      for (const name of Object.keys(parts)) this.#define(name, parts[name]);
    }
    Object.seal(this.root);
  }

  /** Adds a part of a definition. */
  #define(name: string, part: unknown): void {
    if (!(part instanceof TableCore)) {
      this.#addValue(name, hashed(part, name));
      return;
    }
    if (part.owner !== undefined) {
      throw new ErrInvalidDefinition(
        `Table ${
          describe(name)
        } belongs to another state: create it in the definition's state()`,
      );
    }
    part.rename(name);
    this.#addTable(part);
  }

  #addTable(table: TableCore): void {
    table.owner = this;
    this.#tables.push(table);
    Object.defineProperty(this.root, table.name, {
      value: table,
      enumerable: true,
    });
  }

  #addValue(name: string, now: Hashed): void {
    this.#values.push({ name, now, given: undefined });
    // Set when a command begins.
    this.root[name] = undefined;
  }

  /** Object that queries and inverses get: what handlers get, frozen. */
  get view(): Readonly<Record<string, unknown>> {
    if (this.#view === undefined) {
      this.#resetValues();
      this.#view = Object.freeze({ ...this.root });
    }
    return this.#view;
  }

  /** Creates a copy, which changes independently; costs the same whatever the size of the tables. */
  clone(): TypedState {
    return new TypedState(this);
  }

  /** Tables in the order of the definition. */
  get tables(): readonly TableCore[] {
    return this.#tables;
  }

  /** Plain values by name, in the order of the definition. */
  values(): readonly { readonly name: string; readonly now: Hashed }[] {
    return this.#values;
  }

  /** Sums of the hashes of all rows and values: low half, then high half. */
  get sums(): readonly [number, number] {
    let low = 0;
    let high = 0;
    const values = this.#values.map(({ now }) => now);
    for (const part of [...this.#tables, ...values]) {
      low = low + part.low | 0;
      high = high + part.high | 0;
    }
    return [low, high];
  }

  changing(table: TableCore, key: string, old: Hashed | undefined): void {
    if (!this.#isOpen) {
      throw new TypeError(
        `Row ${
          describe(key)
        } of table ${table.name} was changed outside of a command: propose one`,
      );
    }
    this.#newest = { table, key, old, before: this.#newest };
  }

  /** Begins a command, which may change the state until it is committed or rolled back. */
  begin(): void {
    // Also what was assigned outside of a command, as a handler does after an await.
    this.#resetValues();
    this.#isOpen = true;
    this.#newest = undefined;
  }

  #resetValues(): void {
    for (const value of this.#values) {
      this.root[value.name] = value.given = value.now.value;
    }
  }

  /**
   * Keeps what the command has changed, and takes in the plain values that it has
   * assigned: all of them, or none.
   *
   * @throws ErrNotPlain if one of those is not plain data: the caller rolls the command back
   */
  commit(): void {
    let assigned: [Value, Hashed][] | undefined;
    for (const value of this.#values) {
      const now = this.root[value.name];
      if (Object.is(now, value.given)) continue;
      (assigned ??= []).push([value, hashed(now, value.name)]);
    }
    if (assigned !== undefined) {
      for (const [value, now] of assigned) {
        value.now = now;
        this.root[value.name] = value.given = now.value;
      }
      this.#view = undefined;
    }
    this.#isOpen = false;
    this.#newest = undefined;
  }

  /** Undoes everything that the command has changed. */
  rollback(): void {
    let change = this.#newest;
    while (change !== undefined) {
      change.table.replace(change.key, change.old);
      change = change.before;
    }
    this.#resetValues();
    this.#isOpen = false;
    this.#newest = undefined;
  }

  /** Rows and values that the running command has changed so far. */
  get touched(): TouchedRow[] {
    const touched: TouchedRow[] = [];
    for (let at = this.#newest; at !== undefined; at = at.before) {
      touched.unshift({ part: at.table.name, key: at.key });
    }
    for (const { name, given } of this.#values) {
      if (!Object.is(this.root[name], given)) {
        touched.push({ part: name, key: undefined });
      }
    }
    return touched;
  }

  /** Returns the rows that a command would change, or those it asks for by key if it changes none. Changes nothing. */
  touchedBy(command: () => unknown): readonly TouchedRow[] {
    const asked: TouchedRow[] = [];
    this.begin();
    try {
      this.noting({
        row: ({ name }, key) => asked.push({ part: name, key }),
        whole: () => {},
        lookup: () => {},
      }, command);
    } catch {
      // A command that throws has touched rows before.
    }
    const { touched } = this;
    this.rollback();
    return touched.length > 0 ? touched : asked;
  }

  /** Calls a function and notes what it reads. */
  noting<R>(reads: TableReader, read: () => R): R {
    this.reads = reads;
    try {
      return read();
    } finally {
      this.reads = undefined;
    }
  }

  /** Table of a name. */
  tableOf(name: string): TableCore | undefined {
    return this.#tables.find((table) => table.name === name);
  }

  /** Sets plain values and rows while the state is loaded. */
  load(apply: () => void): void {
    this.begin();
    apply();
    this.commit();
  }
}
