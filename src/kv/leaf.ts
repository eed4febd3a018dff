/**
 * Packed rows of a B+tree leaf: one buffer holds them in key order, in the
 * format of a snapshot, so that saving copies whole leaves and rows cause no
 * garbage.
 *
 * A row is the key's length plus one (a length of 0 ends a snapshot), the
 * value's length, both as varints, the key and the value.
 *
 * Beside its offset and its hash, a leaf keeps the head of each row: the four
 * bytes of its key after the prefix that all keys of the leaf share. Heads are
 * contiguous in memory, while comparing keys costs a cache miss each. They are
 * hints: the result of a search is always decided by comparing keys.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { varintLength } from "../bytes.ts";
import {
  bytesOf,
  compareBytes,
  copyBytes,
  equalBytes,
  headOf,
  viewOf,
} from "./view.ts";

/** Capacity of a leaf, which is split when full, in rows. */
export const LEAF_ROWS = 64;

/** Size above which a leaf of several rows is split, in bytes. */
export const LEAF_BYTES: number = 16 * 1024;

// Layout of `Leaf.meta`: `WIDTH` numbers per row, and after the last row one
// more `OFFSET`, that of the end.
/** Numbers per row. */
export const WIDTH = 4;
/** Offset of the row. */
export const OFFSET = 0;
/** Four bytes of the key, if the leaf has heads. */
const HEAD = 1;
/** Low half of the hash of the row. */
export const LOW = 2;
/** High half of the hash of the row. */
export const HIGH = 3;

/** Buffers up to this size are not shrunk, in bytes. */
const SMALL_BYTES = 1024;

/** Writes a varint; returns the offset after it. */
function putVarint(view: DataView, at: number, value: number): number {
  for (; value >= 0x80; value >>>= 7) view.setUint8(at++, value | 0x80);
  view.setUint8(at++, value);
  return at;
}

/** Rows in key order. Only the owner of a leaf may change it; for every other reader it is immutable. */
export class Leaf {
  owner: object;
  /** Id of the leaf and its copies in the hash index. */
  id: number;
  /** Number of rows. */
  rows = 0;
  /** {@linkcode OFFSET}, {@linkcode HEAD}, {@linkcode LOW} and {@linkcode HIGH} of each row. */
  meta: Int32Array;
  view: DataView;
  /** Set while the hashes of some rows are postponed; those rows have hash 0. */
  isUnhashed = false;
  /** Length of the prefix that all keys share, as of the heads; -1 if there are no heads. */
  #common = -1;

  /** Creates a leaf with an initial capacity of `capacity` rows. */
  constructor(
    owner: object,
    id: number,
    view: DataView,
    capacity: number = LEAF_ROWS,
  ) {
    this.owner = owner;
    this.id = id;
    this.view = view;
    this.meta = new Int32Array(WIDTH * capacity + 1);
  }

  /** Bytes in use. */
  get used(): number {
    return this.offset(this.rows);
  }

  /** Offset of a row, and end of the row before it. */
  offset(row: number): number {
    return this.meta[row * WIDTH]!;
  }

  /** Offset of the key of a row. */
  keyAt(row: number): number {
    const { view } = this;
    let at = this.offset(row);
    while (view.getInt8(at++) < 0);
    while (view.getInt8(at++) < 0);
    return at;
  }

  /** Offset of the value of a row, and end of its key. */
  valueAt(row: number): number {
    const { view } = this;
    let at = this.offset(row);
    let byte = view.getUint8(at);
    let length = byte & 0x7f;
    for (let shift = 7; byte >= 0x80; shift += 7) {
      byte = view.getUint8(++at);
      length |= (byte & 0x7f) << shift;
    }
    return this.keyAt(row) + length - 1;
  }

  /** True if there is a row `row` with this key. */
  hasKey(row: number, key: DataView, start: number, end: number): boolean {
    if (row >= this.rows) return false;
    const { view } = this;
    let at = this.offset(row);
    let size = end - start + 1;
    for (; size >= 0x80; size >>>= 7) {
      if (view.getUint8(at++) !== (size & 0x7f | 0x80)) return false;
    }
    if (view.getUint8(at++) !== size) return false;
    while (view.getInt8(at++) < 0);
    return equalBytes(key, start, end, view, at);
  }

  /** Returns the row of a key, or -1; tries `hint` first. */
  find(view: DataView, start: number, end: number, hint: number): number {
    if (this.hasKey(hint, view, start, end)) return hint;
    const row = this.lowerBound(view, start, end);
    return this.hasKey(row, view, start, end) ? row : -1;
  }

  /** Returns the first row whose key is not less than the given one, or the number of rows. */
  lowerBound(view: DataView, start: number, end: number): number {
    if (this.#common < 0) this.#takeHeads();
    const { meta, rows } = this;
    const head = headOf(view, start + this.#common, end);
    let low = 0;
    for (let high = rows; low < high;) {
      const row = low + high >> 1;
      if (meta[row * WIDTH + HEAD]! < head) low = row + 1;
      else high = row;
    }
    if (low < rows) {
      const order = this.#compare(low, view, start, end);
      if (order === 0) return low;
      if (order < 0) return this.#search(view, start, end, low + 1, rows);
    }
    return low === 0 || this.#compare(low - 1, view, start, end) < 0
      ? low
      : this.#search(view, start, end, 0, low - 1);
  }

  /** Searches like {@linkcode lowerBound} in [low, high), by comparing keys. */
  #search(
    view: DataView,
    start: number,
    end: number,
    low: number,
    high: number,
  ): number {
    while (low < high) {
      const row = low + high >> 1;
      if (this.#compare(row, view, start, end) < 0) low = row + 1;
      else high = row;
    }
    return low;
  }

  /** Compares the key of a row with another. */
  #compare(row: number, view: DataView, start: number, end: number): number {
    const leaf = this.view;
    let at = this.meta[row * WIDTH]!;
    let size = leaf.getUint8(at++);
    if (size >= 0x80) {
      at = this.keyAt(row);
      size = this.valueAt(row) - at;
    } else {
      size--;
      while (leaf.getInt8(at++) < 0);
    }
    return compareBytes(leaf, at, at + size, view, start, end);
  }

  /** Takes the heads of all rows. */
  #takeHeads(): void {
    const { meta, rows, view } = this;
    let common = 0;
    if (rows > 0) {
      const first = this.keyAt(0);
      const last = this.keyAt(rows - 1);
      const size = Math.min(
        this.valueAt(0) - first,
        this.valueAt(rows - 1) - last,
      );
      while (
        common < size &&
        view.getUint8(first + common) === view.getUint8(last + common)
      ) common++;
    }
    this.#common = common;
    for (let row = 0; row < rows; row++) {
      const end = this.valueAt(row);
      meta[row * WIDTH + HEAD] = headOf(view, this.keyAt(row) + common, end);
    }
  }

  /** True if a key has the common prefix. */
  #shares(view: DataView, start: number, end: number): boolean {
    const common = this.#common;
    return common >= 0 && this.rows > 0 && end - start >= common &&
      equalBytes(view, start, start + common, this.view, this.keyAt(0));
  }

  /** Grows the metadata to a number of rows. */
  #reserve(rows: number): void {
    if (rows * WIDTH < this.meta.length) return;
    const { meta } = this;
    this.meta = new Int32Array(WIDTH * (rows + (rows >> 2)) + 1);
    this.meta.set(meta);
  }

  /** Replaces `drop` rows from `row` on by `take` rows (each 0 or 1) of `size` bytes; the caller writes them. */
  #makeRoom(row: number, drop: number, take: number, size: number): void {
    this.#reserve(this.rows + take);
    const { meta, view, used } = this;
    const at = this.offset(row);
    const next = this.offset(row + drop);
    const grow = at + size - next;
    const need = used + grow;
    const capacity = view.byteLength;
    if (need > capacity || capacity > SMALL_BYTES && need * 3 < capacity) {
      const spare = need > LEAF_BYTES ? need >> 3 : need >> 1;
      this.view = viewOf(new Uint8Array(need + spare));
      copyBytes(view, 0, at, this.view, 0);
      copyBytes(view, next, used, this.view, at + size);
    } else if (grow !== 0 && next < used) {
      bytesOf(view, 0, capacity).copyWithin(at + size, next, used);
    }
    if (take !== drop) {
      meta.copyWithin(
        (row + take) * WIDTH,
        (row + drop) * WIDTH,
        this.rows * WIDTH + 1,
      );
      this.rows += take - drop;
    }
    if (grow === 0) return;
    for (let i = row + take; i <= this.rows; i++) meta[i * WIDTH]! += grow;
  }

  /**
   * Writes a row in place of the one at `row`, or before it if `insert`. The
   * hash of a new row is 0 until the caller sets it.
   */
  write(
    row: number,
    insert: boolean,
    view: DataView,
    keyStart: number,
    keyEnd: number,
    valueStart: number,
    valueEnd: number,
  ): void {
    // A new first or last key may shorten the common prefix.
    if (
      insert && (row === 0 || row === this.rows) &&
      !this.#shares(view, keyStart, keyEnd)
    ) this.#common = -1;
    const key = keyEnd - keyStart;
    const value = valueEnd - valueStart;
    const head = varintLength(key + 1) + varintLength(value);
    const i = row * WIDTH;
    const start = this.meta[i]!;
    this.#makeRoom(row, insert ? 0 : 1, 1, head + key + value);
    const { meta } = this;
    if (insert) {
      meta[i] = start;
      meta[i + HEAD] = this.#common < 0
        ? 0
        : headOf(view, keyStart + this.#common, keyEnd);
      meta[i + LOW] = meta[i + HIGH] = 0;
    }
    let at = putVarint(this.view, start, key + 1);
    at = putVarint(this.view, at, value);
    copyBytes(view, keyStart, keyEnd, this.view, at);
    copyBytes(view, valueStart, valueEnd, this.view, at + key);
  }

  /** Writes a row behind the others, into a buffer that was made for more of them. Its hash is 0. */
  push(
    view: DataView,
    keyStart: number,
    keyEnd: number,
    valueStart: number,
    valueEnd: number,
  ): void {
    this.#common = -1;
    this.#reserve(this.rows + 1);
    const key = keyEnd - keyStart;
    const value = valueEnd - valueStart;
    const start = this.used;
    const end = start + varintLength(key + 1) + varintLength(value) + key +
      value;
    if (end > this.view.byteLength) {
      const { view } = this;
      this.view = viewOf(new Uint8Array(end + (end >> 1)));
      copyBytes(view, 0, start, this.view, 0);
    }
    const { meta } = this;
    const i = this.rows++ * WIDTH;
    meta[i + HEAD] = meta[i + LOW] = meta[i + HIGH] = 0;
    meta[i + WIDTH + OFFSET] = end;
    let at = putVarint(this.view, start, key + 1);
    at = putVarint(this.view, at, value);
    copyBytes(view, keyStart, keyEnd, this.view, at);
    copyBytes(view, valueStart, valueEnd, this.view, at + key);
  }

  /** Removes a row. */
  remove(row: number): void {
    this.#makeRoom(row, 1, 0, 0);
  }

  /** Shrinks the buffer to the bytes in use. */
  trim(): void {
    this.view = viewOf(bytesOf(this.view, 0, this.used).slice());
  }

  /** Removes the rows from `row` on. */
  cut(row: number): void {
    this.rows = row;
    this.#common = -1;
  }

  /** Appends rows of another leaf. */
  append(from: Leaf, start: number, end: number): void {
    this.#reserve(this.rows + end - start);
    const { meta, rows, used } = this;
    const isCopy = rows === 0 && start === 0 && end === from.rows;
    this.#common = isCopy ? from.#common : -1;
    const first = from.offset(start);
    const last = from.offset(end);
    const need = used + last - first;
    if (need > this.view.byteLength) {
      const view = viewOf(new Uint8Array(need));
      copyBytes(this.view, 0, used, view, 0);
      this.view = view;
    }
    copyBytes(from.view, first, last, this.view, used);
    meta.set(
      from.meta.subarray(start * WIDTH, end * WIDTH + 1),
      rows * WIDTH,
    );
    this.rows = rows + end - start;
    for (let i = rows; i <= this.rows; i++) meta[i * WIDTH]! += used - first;
  }
}
