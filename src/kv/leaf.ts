/**
 * Packed rows of a B+tree leaf: one buffer holds them in key order, in the
 * format of a snapshot, so that saving copies whole leaves and rows cause no
 * garbage.
 *
 * A row is the key's length plus one (a length of 0 ends a snapshot), the
 * value's length, both as varints, the key and the value.
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
/** Hash of the key. */
export const TAG = 1;
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
  /** {@linkcode OFFSET}, {@linkcode TAG}, {@linkcode LOW} and {@linkcode HIGH} of each row. */
  meta: Int32Array;
  view: DataView;

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

  /** True if a row has this key. */
  #has(row: number, key: DataView, start: number, end: number): boolean {
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
  find(
    tag: number,
    view: DataView,
    start: number,
    end: number,
    hint = 0,
  ): number {
    const { meta, rows } = this;
    if (
      hint < rows && meta[hint * WIDTH + TAG] === tag &&
      this.#has(hint, view, start, end)
    ) return hint;
    for (let row = 0; row < rows; row++) {
      if (
        meta[row * WIDTH + TAG] === tag && this.#has(row, view, start, end)
      ) return row;
    }
    return -1;
  }

  /** Returns the first row in [low, high) whose key is not less than the given one, or `high`. */
  lowerBound(
    view: DataView,
    start: number,
    end: number,
    low = 0,
    high: number = this.rows,
  ): number {
    const leaf = this.view;
    const { meta } = this;
    while (low < high) {
      const row = low + high >> 1;
      let at = meta[row * WIDTH]!;
      let size = leaf.getUint8(at++);
      if (size >= 0x80) {
        at = this.keyAt(row);
        size = this.valueAt(row) - at;
      } else {
        size--;
        while (leaf.getInt8(at++) < 0);
      }
      const order = compareBytes(leaf, at, at + size, view, start, end);
      if (order < 0) low = row + 1;
      else high = row;
    }
    return low;
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
    if (need > capacity || capacity > SMALL_BYTES && need * 2 < capacity) {
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
    tag: number,
    view: DataView,
    keyStart: number,
    keyEnd: number,
    valueStart: number,
    valueEnd: number,
  ): void {
    const key = keyEnd - keyStart;
    const value = valueEnd - valueStart;
    const head = varintLength(key + 1) + varintLength(value);
    const i = row * WIDTH;
    const start = this.meta[i]!;
    this.#makeRoom(row, insert ? 0 : 1, 1, head + key + value);
    const { meta } = this;
    if (insert) {
      meta[i] = start;
      meta[i + TAG] = tag;
      meta[i + LOW] = meta[i + HIGH] = 0;
    }
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

  /** Appends rows of another leaf. */
  append(from: Leaf, start: number, end: number): void {
    this.#reserve(this.rows + end - start);
    const { meta, rows, used } = this;
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
