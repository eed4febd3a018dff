/**
 * Pages: leaves whose rows are looked up by comparing keys, as blocks and back,
 * and with changes from the log worked in.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { PACKED_PAGE_BYTES, PACKED_PAGE_ROWS } from "../../limits.ts";
import { Leaf, TAG, WIDTH } from "../leaf.ts";
import {
  bytesOf,
  compareBytes,
  copyBytes,
  equalBytes,
  viewOf,
} from "../view.ts";
import {
  BLOCK_HEAD_BYTES,
  checkBlock,
  corrupted,
  endBlock,
  PAGE,
} from "./block.ts";

/** Pages that are filled in order are left with room for rows to grow. */
const FILL_BYTES: number = PACKED_PAGE_BYTES * 7 / 8;

const OWNER = {};

/** Four bytes of a key from `at` on, zeros beyond its end, as a signed number in the same order. */
function tagAt(view: DataView, at: number, end: number): number {
  if (at + 4 <= end) return view.getInt32(at) ^ 0x80000000;
  let tag = 0;
  for (let i = 0; i < 4; i++) {
    tag = tag << 8 | (at + i < end ? view.getUint8(at + i) : 0);
  }
  return tag ^ 0x80000000;
}

/**
 * Rows whose keys are looked for by four of their bytes first: those after what
 * all of them begin with. These are next to each other, while the keys are all
 * over the page, each of them a miss of the processor's cache. They are a hint:
 * whatever they say, it is keys that are compared in the end.
 */
export class Page extends Leaf {
  /** Bytes that the keys had in common when they got their tags; -1 if they have none. */
  #common = -1;

  override lowerBound(view: DataView, start: number, end: number): number {
    if (this.#common < 0) this.#tag();
    const { meta, rows } = this;
    const tag = tagAt(view, start + this.#common, end);
    let low = 0;
    for (let high = rows; low < high;) {
      const row = low + high >> 1;
      if (meta[row * WIDTH + TAG]! < tag) low = row + 1;
      else high = row;
    }
    if (low < rows) {
      const order = this.#compare(low, view, start, end);
      if (order === 0) return low;
      if (order < 0) return super.lowerBound(view, start, end, low + 1);
    }
    return low === 0 || this.#compare(low - 1, view, start, end) < 0
      ? low
      : super.lowerBound(view, start, end, 0, low - 1);
  }

  #compare(row: number, view: DataView, start: number, end: number): number {
    const at = this.keyAt(row);
    return compareBytes(this.view, at, this.valueAt(row), view, start, end);
  }

  #tag(): void {
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
      meta[row * WIDTH + TAG] = tagAt(view, this.keyAt(row) + common, end);
    }
  }

  /** Whether a key begins as the others do. */
  #shares(view: DataView, start: number, end: number): boolean {
    const common = this.#common;
    return common >= 0 && this.rows > 0 && end - start >= common &&
      equalBytes(view, start, start + common, this.view, this.keyAt(0));
  }

  /** Sets the value of a key: of the one at `row`, or of a new one before it if `insert`. */
  set(
    row: number,
    insert: boolean,
    view: DataView,
    keyStart: number,
    keyEnd: number,
    valueStart: number,
    valueEnd: number,
  ): void {
    // A first or a last key may have less in common with the others.
    if (insert && (row === 0 || row === this.rows)) {
      if (!this.#shares(view, keyStart, keyEnd)) this.#common = -1;
    }
    this.write(
      row,
      insert,
      this.#common < 0 ? 0 : tagAt(view, keyStart + this.#common, keyEnd),
      view,
      keyStart,
      keyEnd,
      valueStart,
      valueEnd,
    );
  }

  override append(from: Leaf, start: number, end: number): void {
    super.append(from, start, end);
    this.#common = -1;
  }
}

/** A page without rows. */
export function emptyPage(): Page {
  return new Page(OWNER, 0, viewOf(new Uint8Array()), 8);
}

/** A page of its own of some rows of another. */
export function part(from: Page, start: number, end: number): Page {
  const size = from.offset(end) - from.offset(start);
  const view = viewOf(new Uint8Array(size));
  const leaf = new Page(OWNER, 0, view, end - start);
  leaf.append(from, start, end);
  return leaf;
}

/** Whether a page is to be split. */
export function isTooLarge(leaf: Page): boolean {
  return leaf.rows > 1 &&
    (leaf.used > PACKED_PAGE_BYTES || leaf.rows >= PACKED_PAGE_ROWS);
}

/** What a page takes in memory, in bytes. */
export function sizeOf(leaf: Page): number {
  return leaf.view.byteLength + leaf.meta.byteLength + 200;
}

/** Whether the row has this key. */
export function hasKey(
  leaf: Page,
  row: number,
  view: DataView,
  start: number,
  end: number,
): boolean {
  if (row >= leaf.rows) return false;
  const at = leaf.keyAt(row);
  return leaf.valueAt(row) - at === end - start &&
    equalBytes(view, start, end, leaf.view, at);
}

/** A page as a block. */
export function pageBlock(leaf: Page): Uint8Array {
  const { used } = leaf;
  const bytes = new Uint8Array(BLOCK_HEAD_BYTES + used);
  bytes[BLOCK_HEAD_BYTES - 1] = PAGE;
  bytes.set(bytesOf(leaf.view, 0, used), BLOCK_HEAD_BYTES);
  return endBlock(bytes);
}

/** What is read at a place: a varint at `cursor`, which moves on; -1 beyond the end. */
let cursor = 0;
function varint(view: DataView): number {
  let value = 0;
  for (let shift = 0; shift < 28; shift += 7) {
    if (cursor >= view.byteLength) return -1;
    const byte = view.getUint8(cursor++);
    value |= (byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
  return -1;
}

/**
 * The page in a block, cut to the keys in [from, to); it takes the block's
 * bytes for its own.
 *
 * @throws ErrStoreCorrupted if it is not the block with that checksum
 */
export function readPage(
  key: string,
  crc: number,
  bytes: Uint8Array | undefined,
  from: DataView,
  to: DataView | undefined,
): Page {
  if (checkBlock(key, PAGE, bytes) !== crc) throw corrupted(key);
  const view = viewOf(bytes!.subarray(BLOCK_HEAD_BYTES));
  let rows = 0;
  const next = (): void => {
    const key = varint(view);
    const value = varint(view);
    cursor += key - 1 + value;
    if (key < 1 || value < 0 || cursor > view.byteLength) cursor = -1;
  };
  for (cursor = 0; cursor >= 0 && cursor < view.byteLength; rows++) next();
  if (cursor < 0) throw corrupted(key, "Page is malformed");
  const leaf = new Page(OWNER, 0, view, rows);
  leaf.rows = rows;
  cursor = 0;
  for (let row = 1; row <= rows; row++) {
    next();
    leaf.meta[row * WIDTH] = cursor;
  }
  const start = leaf.lowerBound(from, 0, from.byteLength);
  const end = to ? leaf.lowerBound(to, 0, to.byteLength) : rows;
  return start === 0 && end === rows ? leaf : part(leaf, start, end);
}

/** A change in a record of the log: where its parts are. One object for all. */
export const change = {
  space: 0,
  isDelete: false,
  keyStart: 0,
  keyEnd: 0,
  /** Where the value ends, and the next change begins. */
  end: 0,
};

/** Reads the change at `at` into `change`; false if there is none. */
export function readChange(view: DataView, at: number): boolean {
  if (at >= view.byteLength) return false;
  const kind = view.getUint8(at);
  cursor = at + 1;
  const key = varint(view) - 1;
  const value = kind & 1 ? 0 : varint(view);
  change.space = kind >> 1;
  change.isDelete = (kind & 1) === 1;
  change.keyStart = cursor;
  change.keyEnd = cursor + key;
  change.end = change.keyEnd + value;
  return kind < 4 && key >= 0 && value >= 0 && change.end <= view.byteLength;
}

/** Changes that are not worked into a page yet, oldest first: places in records of the log. */
export interface Changes {
  readonly views: DataView[];
  readonly at: number[];
}

/** Fills pages one after the other with rows in order of their keys. */
export class Packer {
  /** The pages that are full. */
  pages: Page[] = [];
  #leaf: Page | undefined;

  /** Begins another page if this one would pass the limits. */
  #page(bytes: number): Page {
    const leaf = this.#leaf;
    if (
      leaf && leaf.rows > 0 &&
      (leaf.used + bytes > FILL_BYTES || leaf.rows >= PACKED_PAGE_ROWS / 2)
    ) this.cut();
    return this.#leaf ??= new Page(
      OWNER,
      0,
      viewOf(new Uint8Array(Math.max(bytes, FILL_BYTES))),
      256,
    );
  }

  /** Adds rows of another leaf. */
  append(from: Leaf, start: number, end: number): void {
    while (start < end) {
      const first = from.offset(start);
      const leaf = this.#page(from.offset(start + 1) - first);
      const room = FILL_BYTES - leaf.used;
      const rows = Math.min(end, start + PACKED_PAGE_ROWS / 2 - leaf.rows);
      let stop = start + 1;
      while (stop < rows && from.offset(stop + 1) - first <= room) stop++;
      leaf.append(from, start, stop);
      start = stop;
    }
  }

  /** Adds a row. */
  put(
    view: DataView,
    keyStart: number,
    keyEnd: number,
    valueStart: number,
    valueEnd: number,
  ): void {
    const leaf = this.#page(keyEnd - keyStart + valueEnd - valueStart + 8);
    leaf.set(
      leaf.rows,
      true,
      view,
      keyStart,
      keyEnd,
      valueStart,
      valueEnd,
    );
  }

  /** Ends the page that is being filled. */
  cut(): void {
    if (!this.#leaf) return;
    this.#leaf.trim();
    this.pages.push(this.#leaf);
    this.#leaf = undefined;
  }
}

/**
 * Makes changes that leave all rows where they are, which is quick; gives the
 * number of those before the first that does not.
 */
function overwrite(leaf: Page, { views, at }: Changes): number {
  for (let i = 0; i < at.length; i++) {
    const view = views[i]!;
    readChange(view, at[i]!);
    const { isDelete, keyStart, keyEnd, end } = change;
    const row = leaf.lowerBound(view, keyStart, keyEnd);
    if (isDelete || !hasKey(leaf, row, view, keyStart, keyEnd)) return i;
    const value = leaf.valueAt(row);
    if (leaf.offset(row + 1) - value !== end - keyEnd) return i;
    copyBytes(view, keyEnd, end, leaf.view, value);
  }
  return at.length;
}

/** The pages that come of a page and changes to it; at least one. The page is used up. */
export function workIn(leaf: Page, changes: Changes): Page[] {
  const done = overwrite(leaf, changes);
  if (done === changes.at.length) return [leaf];
  const views = changes.views.slice(done);
  const at = changes.at.slice(done);
  const size = at.length;
  const start = new Int32Array(size);
  const end = new Int32Array(size);
  for (let i = 0; i < size; i++) {
    readChange(views[i]!, at[i]!);
    start[i] = change.keyStart;
    end[i] = change.keyEnd;
  }
  const compare = (i: number, j: number): number =>
    compareBytes(views[i]!, start[i]!, end[i]!, views[j]!, start[j]!, end[j]!);
  const order = at.map((_, i) => i).sort((i, j) => compare(i, j) || i - j);
  const packer = new Packer();
  let row = 0;
  for (let n = 0; n < size; n++) {
    const i = order[n]!;
    // Of the changes to one key the last counts.
    if (n + 1 < size && compare(i, order[n + 1]!) === 0) continue;
    const view = views[i]!;
    const next = leaf.lowerBound(view, start[i]!, end[i]!);
    packer.append(leaf, row, next);
    row = next + (hasKey(leaf, next, view, start[i]!, end[i]!) ? 1 : 0);
    readChange(view, at[i]!);
    if (!change.isDelete) {
      const { keyStart, keyEnd } = change;
      packer.put(view, keyStart, keyEnd, keyEnd, change.end);
    }
  }
  packer.append(leaf, row, leaf.rows);
  packer.cut();
  return packer.pages.length > 0 ? packer.pages : [emptyPage()];
}
