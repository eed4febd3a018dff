/**
 * State of a typed machine: tables and plain values by name, changed by one
 * command at a time, completely or not at all.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { describe } from "../describe.ts";
import { hashKey, hashValue, lanes } from "../kv/hash.ts";
import { ErrInvalidDefinition } from "./errors.ts";
import { PlainWriter } from "./plain.ts";
import { TableCore, type TableOwner, type TableReader } from "./table.ts";

/** Change of a table's row, with the row before it. */
interface Change {
  readonly table: TableCore;
  readonly key: string;
  readonly old: unknown;
}

/** Row that a command touched, or plain value of the state; a value has the key undefined. */
export interface TouchedRow {
  /** Name of the table, or of the value. */
  readonly part: string;
  /** Key of the row. */
  readonly key: string | undefined;
}

/** Plain value of a state, with its hash. */
interface Value {
  value: unknown;
  low: number;
  high: number;
}

const writer = /* @__PURE__ */ new PlainWriter();

/** State of a typed machine. */
export class TypedState implements TableOwner {
  /** Object that handlers and queries get: tables, and plain values that a handler may assign. */
  readonly root: Record<string, unknown> = {};
  readonly #tables: TableCore[] = [];
  readonly #values = new Map<string, Value>();
  /** Changes of the running command; undefined outside of one. */
  #changes: Change[] | undefined;
  /** Receiver of reads, while they are noted. */
  reads: TableReader | undefined;

  /**
   * Creates the state of a definition, or a copy of another one.
   *
   * @throws ErrInvalidDefinition if a part is neither a table nor plain data
   */
  constructor(parts: Readonly<Record<string, unknown>> | TypedState) {
    if (parts instanceof TypedState) {
      this.#copy(parts);
      return;
    }
    for (const name of Object.keys(parts)) {
      const part = parts[name];
      if (part instanceof TableCore) {
        if (part.owner !== undefined) {
          throw new ErrInvalidDefinition(
            `Table ${
              describe(name)
            } belongs to another state: create it in the definition's state()`,
          );
        }
        part.name = name;
        this.#addTable(part);
      } else this.#addValue(name, part);
    }
    Object.seal(this.root);
  }

  #copy(from: TypedState): void {
    for (const table of from.#tables) this.#addTable(table.clone());
    for (const [name, value] of from.#values) {
      this.#values.set(name, { ...value });
      this.root[name] = value.value;
    }
    Object.seal(this.root);
  }

  #addTable(table: TableCore): void {
    table.owner = this;
    this.#tables.push(table);
    Object.defineProperty(this.root, table.name, {
      value: table,
      enumerable: true,
    });
  }

  #addValue(name: string, value: unknown): void {
    const hashed = hashOf(name, value);
    this.#values.set(name, hashed);
    this.root[name] = hashed.value;
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
  *values(): Generator<[string, unknown]> {
    for (const [name, { value }] of this.#values) yield [name, value];
  }

  /** Sums of the hashes of all rows and values: low half, then high half. */
  get sums(): readonly [number, number] {
    let low = 0;
    let high = 0;
    for (const part of this.#tables) {
      low = low + part.low | 0;
      high = high + part.high | 0;
    }
    for (const part of this.#values.values()) {
      low = low + part.low | 0;
      high = high + part.high | 0;
    }
    return [low, high];
  }

  changing(table: TableCore, key: string, old: unknown): void {
    if (this.#changes === undefined) {
      throw new TypeError(
        `Row ${
          describe(key)
        } of table ${table.name} was changed outside of a command: propose one`,
      );
    }
    this.#changes.push({ table, key, old });
  }

  /**
   * Runs a command. Everything it changed is undone if it throws, or if `keep` is
   * false of what it returns. `touched`, if given, gets what it changed, also if
   * that is undone.
   */
  run<R>(
    command: () => R,
    keep: (returned: R) => boolean,
    touched?: TouchedRow[],
  ): R {
    const changes: Change[] = this.#changes = [];
    try {
      const returned = command();
      if (touched !== undefined) this.#note(changes, touched);
      if (keep(returned)) this.#assignValues();
      else this.#undo(changes);
      return returned;
    } catch (error) {
      if (touched !== undefined) this.#note(changes, touched);
      this.#undo(changes);
      throw error;
    } finally {
      this.#changes = undefined;
    }
  }

  #note(changes: readonly Change[], touched: TouchedRow[]): void {
    if (touched.length > 0) return;
    for (const { table, key } of changes) {
      touched.push({ part: table.name, key });
    }
    for (const [part, { value }] of this.#values) {
      if (!Object.is(this.root[part], value)) {
        touched.push({ part, key: undefined });
      }
    }
  }

  /** Returns the rows that a command would change, or those it asks for by key if it changes none. Changes nothing. */
  touchedBy(command: () => unknown): readonly TouchedRow[] {
    const touched: TouchedRow[] = [];
    const asked: TouchedRow[] = [];
    try {
      this.noting({
        row: ({ name }, key) => asked.push({ part: name, key }),
        whole: () => {},
        lookup: () => {},
      }, () => this.run(command, () => false, touched));
    } catch {
      // A command that throws has touched rows before.
    }
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

  /** Sets a plain value and rows while the state is loaded. */
  load(apply: () => void): void {
    this.#changes = [];
    try {
      apply();
      this.#assignValues();
    } finally {
      this.#changes = undefined;
    }
  }

  /** Takes in the plain values that a handler has assigned; all of them, or none. */
  #assignValues(): void {
    let assigned: [Value, string, Value][] | undefined;
    for (const [name, value] of this.#values) {
      const now = this.root[name];
      if (Object.is(now, value.value)) continue;
      (assigned ??= []).push([value, name, hashOf(name, now)]);
    }
    for (const [value, name, hashed] of assigned ?? []) {
      Object.assign(value, hashed);
      this.root[name] = hashed.value;
    }
  }

  #undo(changes: readonly Change[]): void {
    for (let i = changes.length - 1; i >= 0; i--) {
      const { table, key, old } = changes[i]!;
      table.replace(key, old as Parameters<TableCore["replace"]>[1]);
    }
    for (const [name, { value }] of this.#values) this.root[name] = value;
  }
}

function hashOf(name: string, value: unknown): Value {
  writer.reset().string(name);
  const end = writer.length;
  const copy = writer.value(value, name);
  hashKey(writer.view, 0, end);
  hashValue(writer.view, end, writer.length);
  return { value: copy, low: lanes[0]!, high: lanes[1]! };
}
