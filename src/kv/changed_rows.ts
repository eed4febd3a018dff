/**
 * Rows that differ from a state below: a hash table over one growing buffer. A
 * view applies thousands of commands to one after each commit, so that no row is
 * an object.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { hashKey } from "./hash.ts";
import {
  bytesOf,
  compareBytes,
  copyBytes,
  copyOf,
  equalBytes,
  viewOf,
} from "./view.ts";

// Numbers of a row.
const HASH = 0;
const KEY = 1;
const KEY_BYTES = 2;
const VALUE = 3;
/** Size of the value; -1 for a deleted row. */
const VALUE_BYTES = 4;
/** Size up to which the value may grow where it is. */
const ROOM = 5;
const WIDTH = 6;

/** Values and deletions by key. */
export class ChangedRows {
  /** Row plus 1 by hash; 0 for a free slot. */
  #slots = new Int32Array(64);
  #numbers = new Int32Array(32 * WIDTH);
  #view = viewOf(new Uint8Array(1024));
  #used = 0;
  #count = 0;
  /** Rows in the order of their keys; undefined once one was added. */
  #sorted: number[] | undefined;
  // Hash and free slot of the key that was not found last.
  #hash = 0;
  #slot = 0;

  /** Returns the row of a key, or -1. */
  find(view: DataView, start: number, end: number): number {
    const hash = this.#hash = hashKey(view, start, end);
    const slots = this.#slots;
    const numbers = this.#numbers;
    const mask = slots.length - 1;
    for (let at = hash & mask;; at = at + 1 & mask) {
      const row = slots[at]! - 1;
      if (row < 0) {
        this.#slot = at;
        return -1;
      }
      const i = row * WIDTH;
      if (
        numbers[i + HASH] === hash && numbers[i + KEY_BYTES] === end - start &&
        equalBytes(view, start, end, this.#view, numbers[i + KEY]!)
      ) return row;
    }
  }

  /** Adds a deleted row for the key that `find()` has just not found, and returns it. */
  add(view: DataView, start: number, end: number): number {
    const row = this.#count++;
    const i = row * WIDTH;
    if (i === this.#numbers.length) {
      const numbers = new Int32Array(2 * i);
      numbers.set(this.#numbers);
      this.#numbers = numbers;
    }
    const key = this.#reserve(end - start);
    copyBytes(view, start, end, this.#view, key);
    const numbers = this.#numbers;
    numbers[i + HASH] = this.#hash;
    numbers[i + KEY] = key;
    numbers[i + KEY_BYTES] = end - start;
    numbers[i + VALUE_BYTES] = -1;
    numbers[i + ROOM] = 0;
    this.#slots[this.#slot] = row + 1;
    this.#sorted = undefined;
    if (2 * this.#count > this.#slots.length) this.#rehash();
    return row;
  }

  #rehash(): void {
    const slots = this.#slots = new Int32Array(2 * this.#slots.length);
    const mask = slots.length - 1;
    for (let row = 0; row < this.#count; row++) {
      let at = this.#numbers[row * WIDTH + HASH]! & mask;
      while (slots[at] !== 0) at = at + 1 & mask;
      slots[at] = row + 1;
    }
  }

  /** Returns the offset of that many free bytes. */
  #reserve(size: number): number {
    const at = this.#used;
    this.#used += size;
    const { byteLength } = this.#view;
    if (this.#used > byteLength) {
      const grown = new Uint8Array(Math.max(2 * byteLength, this.#used));
      grown.set(bytesOf(this.#view, 0, at));
      this.#view = viewOf(grown);
    }
    return at;
  }

  /** True if a row is deleted. */
  isDeleted(row: number): boolean {
    return this.#numbers[row * WIDTH + VALUE_BYTES]! < 0;
  }

  /** Deletes a row. */
  delete(row: number): void {
    this.#numbers[row * WIDTH + VALUE_BYTES] = -1;
  }

  /** Sets the value of a row; false if it has it already. */
  set(row: number, view: DataView, start: number, end: number): boolean {
    const i = row * WIDTH;
    const size = end - start;
    let numbers = this.#numbers;
    let at = numbers[i + VALUE]!;
    if (
      numbers[i + VALUE_BYTES] === size &&
      equalBytes(view, start, end, this.#view, at)
    ) return false;
    if (size > numbers[i + ROOM]!) {
      // Twice as much as before, so that a value that grows wastes no more than it has.
      const room = Math.max(size, 2 * numbers[i + ROOM]!);
      at = this.#reserve(room);
      numbers = this.#numbers;
      numbers[i + VALUE] = at;
      numbers[i + ROOM] = room;
    }
    numbers[i + VALUE_BYTES] = size;
    copyBytes(view, start, end, this.#view, at);
    return true;
  }

  /** Returns the value of a row, readable until the next change; undefined if it is deleted. */
  value(row: number): Uint8Array | undefined {
    const { start, end } = this.#valueOf(row);
    return end < start ? undefined : bytesOf(this.#view, start, end);
  }

  /** Returns a copy of the value of a row; undefined if it is deleted. */
  copyOfValue(row: number): Uint8Array | undefined {
    const { start, end } = this.#valueOf(row);
    return end < start ? undefined : copyOf(this.#view, start, end);
  }

  #valueOf(row: number): { start: number; end: number } {
    const start = this.#numbers[row * WIDTH + VALUE]!;
    return { start, end: start + this.#numbers[row * WIDTH + VALUE_BYTES]! };
  }

  /** Returns a copy of the key of a row. */
  copyOfKey(row: number): Uint8Array {
    const start = this.#numbers[row * WIDTH + KEY]!;
    const end = start + this.#numbers[row * WIDTH + KEY_BYTES]!;
    return copyOf(this.#view, start, end);
  }

  /** Lists the rows with keys from `from` up to `to`, without it, in order. */
  range(from: Uint8Array | undefined, to: Uint8Array | undefined): number[] {
    const sorted = this.#sorted ??= Array.from(
      { length: this.#count },
      (_, row) => row,
    ).sort((a, b) => this.#compare(a, b));
    const at = (key: Uint8Array | undefined, none: number): number => {
      if (key === undefined) return none;
      const view = viewOf(key);
      let low = 0;
      for (let high = sorted.length; low < high;) {
        const i = low + high >> 1;
        if (this.#compareKey(sorted[i]!, view) < 0) low = i + 1;
        else high = i;
      }
      return low;
    };
    return sorted.slice(at(from, 0), at(to, sorted.length));
  }

  #compare(a: number, b: number): number {
    const start = this.#numbers[b * WIDTH + KEY]!;
    const end = start + this.#numbers[b * WIDTH + KEY_BYTES]!;
    return this.#compareKey(a, this.#view, start, end);
  }

  /** Compares the key of a row with the bytes of a view. */
  #compareKey(
    row: number,
    view: DataView,
    start: number = 0,
    end: number = view.byteLength,
  ): number {
    const key = this.#numbers[row * WIDTH + KEY]!;
    const keyEnd = key + this.#numbers[row * WIDTH + KEY_BYTES]!;
    return compareBytes(this.#view, key, keyEnd, view, start, end);
  }
}
