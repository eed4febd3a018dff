/**
 * Pages: leaves of a packed store, their encoding as blocks, and the merge of
 * changes from the log.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  PACKED_FILL_BYTES,
  PACKED_PAGE_BYTES,
  PACKED_PAGE_ROWS,
} from "../../limits.ts";
import { Leaf, WIDTH } from "../leaf.ts";
import { bytesOf, compareBytes, copyBytes, viewOf } from "../view.ts";
import {
  BLOCK_HEAD_BYTES,
  checkBlock,
  corrupted,
  endBlock,
  PAGE,
} from "./block.ts";

const OWNER = {};

/** Leaf of a packed store, whose rows have no hash. */
export type Page = Leaf;

/** Creates an empty page. */
export function emptyPage(): Page {
  return new Leaf(OWNER, 0, viewOf(new Uint8Array()), 8);
}

/** Copies some rows of a page to a page of their own. */
export function part(from: Page, start: number, end: number): Page {
  const size = from.offset(end) - from.offset(start);
  const view = viewOf(new Uint8Array(size));
  const leaf = new Leaf(OWNER, 0, view, end - start);
  leaf.append(from, start, end);
  return leaf;
}

/** True if a page has to be split. */
export function isTooLarge(leaf: Page): boolean {
  return leaf.rows > 1 &&
    (leaf.used > PACKED_PAGE_BYTES || leaf.rows >= PACKED_PAGE_ROWS);
}

/** Memory of a page, in bytes. */
export function sizeOf(leaf: Page): number {
  return leaf.view.byteLength + leaf.meta.byteLength + 200;
}

/** Encodes a page as a block. */
export function pageBlock(leaf: Page): Uint8Array {
  const { used } = leaf;
  const bytes = new Uint8Array(BLOCK_HEAD_BYTES + used);
  bytes[BLOCK_HEAD_BYTES - 1] = PAGE;
  bytes.set(bytesOf(leaf.view, 0, used), BLOCK_HEAD_BYTES);
  return endBlock(bytes);
}

/** Reads a varint at `cursor`, which advances; -1 beyond the end. */
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
 * Decodes the page in a block, restricted to the keys in [from, to); reuses the
 * bytes of the block.
 *
 * @throws ErrStoreCorrupted if the block does not have that checksum
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
  const leaf = new Leaf(OWNER, 0, view, rows);
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

/** Offsets of the parts of a change in a log record. One shared object. */
export const change = {
  space: 0,
  isDelete: false,
  keyStart: 0,
  keyEnd: 0,
  /** Offset after the value, where the next change starts. */
  end: 0,
};

/** Parses the change at `at` into `change`; false at the end. */
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

/** Changes not yet merged into a page, oldest first: positions in log records. */
export interface Changes {
  readonly views: DataView[];
  readonly at: number[];
}

/** Fills pages with rows in key order. */
export class Packer {
  /** Completed pages. */
  pages: Page[] = [];
  #leaf: Page | undefined;

  /** Starts another page if this one would exceed its limits. */
  #page(bytes: number): Page {
    const leaf = this.#leaf;
    if (
      leaf && leaf.rows > 0 &&
      (leaf.used + bytes > PACKED_FILL_BYTES ||
        leaf.rows >= PACKED_PAGE_ROWS / 2)
    ) this.endPage();
    return this.#leaf ??= new Leaf(
      OWNER,
      0,
      viewOf(new Uint8Array(Math.max(bytes, PACKED_FILL_BYTES))),
      256,
    );
  }

  /** Appends rows of another leaf. */
  append(from: Leaf, start: number, end: number): void {
    while (start < end) {
      const first = from.offset(start);
      const leaf = this.#page(from.offset(start + 1) - first);
      const room = PACKED_FILL_BYTES - leaf.used;
      const rows = Math.min(end, start + PACKED_PAGE_ROWS / 2 - leaf.rows);
      let stop = start + 1;
      while (stop < rows && from.offset(stop + 1) - first <= room) stop++;
      leaf.append(from, start, stop);
      start = stop;
    }
  }

  /** Appends one row. */
  put(
    view: DataView,
    keyStart: number,
    keyEnd: number,
    valueStart: number,
    valueEnd: number,
  ): void {
    const leaf = this.#page(keyEnd - keyStart + valueEnd - valueStart + 8);
    leaf.push(view, keyStart, keyEnd, valueStart, valueEnd);
  }

  /** Completes the page in progress. */
  endPage(): void {
    if (!this.#leaf) return;
    this.#leaf.trim();
    this.pages.push(this.#leaf);
    this.#leaf = undefined;
  }
}

/** Applies changes in place while they only overwrite values of the same length; returns how many it applied. */
function overwrite(leaf: Page, { views, at }: Changes): number {
  for (let i = 0; i < at.length; i++) {
    const view = views[i]!;
    readChange(view, at[i]!);
    const { isDelete, keyStart, keyEnd, end } = change;
    const row = leaf.lowerBound(view, keyStart, keyEnd);
    if (isDelete || !leaf.hasKey(row, view, keyStart, keyEnd)) return i;
    const value = leaf.valueAt(row);
    if (leaf.offset(row + 1) - value !== end - keyEnd) return i;
    copyBytes(view, keyEnd, end, leaf.view, value);
  }
  return at.length;
}

/** Merges changes into a page; returns one or more pages. Consumes the page. */
export function mergeChanges(leaf: Page, changes: Changes): Page[] {
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
  // As after an import: each key once, in order.
  let isInOrder = true;
  for (let i = 1; i < size && isInOrder; i++) {
    isInOrder = compare(i - 1, i) < 0;
  }
  const order = isInOrder
    ? undefined
    : at.map((_, i) => i).sort((i, j) => compare(i, j) || i - j);
  const packer = new Packer();
  let row = 0;
  for (let n = 0; n < size; n++) {
    const i = order === undefined ? n : order[n]!;
    // Of several changes to one key, the last one counts.
    if (order && n + 1 < size && compare(i, order[n + 1]!) === 0) continue;
    const view = views[i]!;
    if (leaf.rows > 0) {
      const next = leaf.lowerBound(view, start[i]!, end[i]!);
      packer.append(leaf, row, next);
      row = next + (leaf.hasKey(next, view, start[i]!, end[i]!) ? 1 : 0);
    }
    readChange(view, at[i]!);
    if (!change.isDelete) {
      const { keyStart, keyEnd } = change;
      packer.put(view, keyStart, keyEnd, keyEnd, change.end);
    }
  }
  packer.append(leaf, row, leaf.rows);
  packer.endPage();
  return packer.pages.length > 0 ? packer.pages : [emptyPage()];
}
