/**
 * The list as commands and queries of the key-value machine: a row per item,
 * its key random, its value the item as JSON.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { kv, type KVRow } from "../../mod.ts";

/** The longest text an item may have, in characters; longer ones are refused by the server. */
export const TEXT_LENGTH_MAX: number = 120;

const PREFIX = "item/";

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

/** The items of an answer. */
export function itemsOf(rows: readonly KVRow[]): Item[] {
  const decoder = new TextDecoder();
  return rows.map(({ key, value }) => ({
    key: decoder.decode(key),
    ...JSON.parse(decoder.decode(value)) as { text: string; done: boolean },
  }));
}

/** Why the server refuses a command, if it does. */
export function refusalOf(cmd: Uint8Array): string | undefined {
  // The text of a put is all but its key and a few bytes around it.
  return cmd.length > TEXT_LENGTH_MAX + 100
    ? `An item may have at most ${TEXT_LENGTH_MAX} letters`
    : undefined;
}
