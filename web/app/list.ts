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

/** One thing on the list. */
export interface Item {
  /** The key of its row. */
  readonly key: string;
  /** What it says. */
  readonly text: string;
  /** Whether it is done. */
  readonly done: boolean;
}

/** A key that sorts behind those made before, as far as this device's clock goes; nothing but the order of the list depends on it. */
export function newKey(): string {
  const time = Date.now().toString(36).padStart(9, "0");
  return `${PREFIX}${time}-${crypto.randomUUID()}`;
}

/** The command that writes an item. */
export function write({ key, text, done }: Item): Uint8Array {
  return kv.put(key, JSON.stringify({ text, done }));
}

/** The command that removes an item. */
export function remove({ key }: Item): Uint8Array {
  return kv.delete(key);
}

/** The query for the list. */
export const ALL: ReturnType<typeof kv.range> = kv.range({
  start: PREFIX,
  end: "item0",
});

/** The items of an answer; what is none is left out. */
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

/** Why the server refuses a command, if it does: what is in the log, every page has to show. */
export function refusalOf(cmd: Uint8Array): string | undefined {
  const machine = new KVStateMachine();
  machine.update(cmd);
  const [item] = itemsOf(machine.lookup(kv.range()) as KVRow[]);
  // What comes out as it went in is what a page has made, and nothing else.
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
