/**
 * Keys of the blocks of a packed store.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** Range of keys: from the first up to, but not including, the second. */
export type KeyRange = [from: string, to: string];

function hex(value: number): string {
  return value.toString(16).padStart(13, "0");
}

/** Keys of the blocks of one packed store, all of which start with its prefix. */
export class BlockKeys {
  /** Key of the head block. */
  readonly head: string;
  /** Key of the block with the directory of pages. */
  readonly base: string;
  readonly #prefix: string;

  constructor(prefix: string) {
    this.#prefix = prefix;
    this.head = `${prefix}head`;
    this.base = `${prefix}base`;
  }

  /** Key of a page block. */
  page(id: number): string {
    return `${this.#prefix}page/${hex(id)}`;
  }

  /** Key of a log record. */
  log(seq: number): string {
    return `${this.#prefix}log/${hex(seq)}`;
  }

  /** Keys of all page blocks. */
  get pages(): KeyRange {
    return this.#range("page");
  }

  /** Keys of all log records. */
  get logs(): KeyRange {
    return this.#range("log");
  }

  #range(name: string): KeyRange {
    // "0" is the character after "/".
    return [`${this.#prefix}${name}/`, `${this.#prefix}${name}0`];
  }
}
