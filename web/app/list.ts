/**
 * The list as commands and queries of the key-value machine: a row per item,
 * its key random, its value the item as JSON.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { kv, type KVRow, KVStateMachine } from "../../mod.ts";

/** The longest text an item may have, in characters; longer ones are refused by the server. */
export const TEXT_LENGTH_MAX: number = 120;

const PREFIX = "item/";
const KEY_LENGTH_MAX = 64;

/** Item of the list. */
export interface Item {
  /** Key of its row. */
  readonly key: string;
  /** Text that a person entered. */
  readonly text: string;
  /** True if it is checked off. */
  readonly done: boolean;
}

/** Creates a key that sorts after earlier ones, by this device's clock; only the order of the list depends on it. */
export function newKey(): string {
  const time = Date.now().toString(36).padStart(9, "0");
  return `${PREFIX}${time}-${crypto.randomUUID()}`;
}

/** Command that writes an item. */
export function write({ key, text, done }: Item): Uint8Array {
  return kv.put(key, JSON.stringify({ text, done }));
}

/** Command that removes an item. */
export function remove({ key }: Item): Uint8Array {
  return kv.delete(key);
}

/** Query for the list. */
export const ALL: ReturnType<typeof kv.range> = kv.range({
  start: PREFIX,
  end: "item0",
});

/** Items of an answer; rows that are not items are left out. */
export function itemsOf(rows: readonly KVRow[]): Item[] {
  return rows.flatMap((row) => itemOf(row) ?? []);
}

function itemOf(row: KVRow): Item | undefined {
  const decoder = new TextDecoder();
  try {
    const key = decoder.decode(row.key);
    const { text, done } = JSON.parse(decoder.decode(row.value));
    return typeof text === "string" && typeof done === "boolean"
      ? { key, text, done }
      : undefined;
  } catch {
    return undefined;
  }
}

/** Reason to refuse a command, undefined to accept it: every page has to be able to show what is in the log. */
export function refusalOf(cmd: Uint8Array): string | undefined {
  const machine = new KVStateMachine();
  machine.update(cmd);
  const [item] = itemsOf(machine.lookup(kv.range()) as KVRow[]);
  // A command that is equal to the one a page makes of this item holds nothing else.
  const isWrite = item !== undefined && isSame(write(item), cmd);
  const key = isWrite ? item.key : new TextDecoder().decode(cmd.subarray(2));
  if (
    !key.startsWith(PREFIX) || key.length > KEY_LENGTH_MAX ||
    !isWrite && !isSame(kv.delete(key), cmd)
  ) return "This is no edit of the list";
  return isWrite && [...item.text].length > TEXT_LENGTH_MAX
    ? `An item may have at most ${TEXT_LENGTH_MAX} letters`
    : undefined;
}

function isSame(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
