/**
 * Page table of a packed store: pages in memory, their unwritten changes, and
 * contents that versions still need. Performs no I/O.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ByteWriter } from "../../bytes.ts";
import {
  PACKED_MEMORY_BYTES,
  PACKED_PAGE_BYTES,
  PACKED_PAGE_ROWS,
  PACKED_RECORD_BYTES,
} from "../../limits.ts";
import { separate } from "../tree.ts";
import { bytesOf } from "../view.ts";
import {
  type DirectoryEntry,
  emptyRef,
  indexOf,
  LEAST,
  type Ref,
  SPACES,
} from "./directory.ts";
import {
  change,
  type Changes,
  emptyPage,
  isTooLarge,
  type Page,
  part,
  readChange,
  sizeOf,
} from "./pages.ts";

/** Rows of a page in one state: in memory, in a block, or in a block with later changes from the log. */
export interface Content {
  /** Number of versions that existed before it, so that only later ones can refer to it. */
  readonly epoch: number;
  /** Rows, if they are in memory. */
  leaf: Page | undefined;
  /** Block with the rows, without `changes`; undefined if the rows were changed in memory since. */
  ref: Ref | undefined;
  /** Changes from the log to apply to the rows of the block when it is loaded. */
  changes: Changes | undefined;
  /** Memory accounted for its rows, in bytes. */
  bytes: number;
}

/** Range of keys, with the page that has its rows. */
export interface Slot {
  readonly space: number;
  /** First key; the range ends before the next slot. */
  readonly first: DataView;
  content: Content;
  /** Oldest log record with a change of the page that is in no block yet; `Infinity` if all are. */
  since: number;
  /** Value of `Table.tick` at the last use. */
  used: number;
  /** Read of the block in progress. */
  loading: Promise<void> | undefined;
  /** Number of loads that need this page and others at once. */
  pins: number;
  /** True once the slot is no longer in the table: merged into another, or replaced by a reset. */
  isRemoved: boolean;
}

/** Immutable view of the rows when it was captured. */
export interface Version {
  readonly epoch: number;
  /** Pages of the first space, in key order. */
  readonly slots: readonly { readonly first: DataView; content: Content }[];
}

/**
 * Pages of the present state, and contents that versions still read.
 *
 * Versions are copy-on-write: a version refers to the contents of its time. A
 * content that a version may refer to, because it is older than the newest version
 * in use, is replaced by a copy before it changes, and retired: it stays in memory
 * until it has a block or its versions are released.
 */
export class Table {
  spaces: Slot[][] = [];
  /** Memory that pages may use, in bytes. */
  readonly budget: number;
  /** Slots whose rows are in memory. */
  readonly #warm = new Set<Slot>();
  /** Slots with changes that are in no block. */
  readonly dirty: Set<Slot> = new Set();
  /** Retired contents without a block. */
  shadows: Content[] = [];
  /** Retired contents whose block is being written; they leave memory afterwards. */
  stale: Content[] = [];
  /** Memory of all rows, in bytes. */
  memory = 0;
  /** Number of slots whose rows are not in memory. */
  cold = 0;
  /** Encoded changes since the last log record. */
  log: ByteWriter = new ByteWriter();
  /** Offsets in `log` where records end. */
  recordEnds: number[] = [];
  /** Number of the log record of the next change. */
  next = 1;
  /** Number of versions created so far. */
  epoch = 0;
  /** Logical clock for LRU; slots of one tick are evicted together. */
  tick = 0;
  readonly #versions = new Set<Version>();
  /** `epoch` of the newest version in use; 0 without one. */
  #newest = 0;

  // Result of the last `seek()`: `set()` and `remove()` change that row.
  #slots: Slot[] = [];
  #index = 0;
  #row = 0;
  #found = false;

  /** Creates the table of an empty store. */
  constructor(budget: number = PACKED_MEMORY_BYTES) {
    this.budget = budget;
    this.reset(
      Array.from(
        { length: SPACES },
        () => [{ first: LEAST, ref: emptyRef(0) }],
      ),
    );
    this.settle();
  }

  /** Replaces all pages by those of a directory. */
  reset(spaces: readonly (readonly DirectoryEntry[])[]): void {
    for (const slot of this.spaces.flat()) {
      slot.isRemoved = true;
      this.retire(slot.content);
    }
    this.#warm.clear();
    this.dirty.clear();
    this.clearLog();
    this.cold = 0;
    this.spaces = spaces.map((entries, space) =>
      entries.map(({ first, ref }) =>
        this.#slot(space, first, this.#content(undefined, ref), Infinity)
      )
    );
  }

  /** Memory over budget, in bytes. */
  get excess(): number {
    return this.memory - this.budget;
  }

  /**
   * Assigns the changes of a record to their pages, which merge them when
   * loaded; false if the record is malformed.
   */
  assign(seq: number, view: DataView, start: number): boolean {
    let at = start;
    while (readChange(view, at)) {
      const { space, keyStart, keyEnd } = change;
      const slot = this.slotOf(space, view, keyStart, keyEnd);
      if (slot.content.ref!.seq < seq) {
        const changes = slot.content.changes ??= { views: [], at: [] };
        changes.views.push(view);
        changes.at.push(at);
        slot.since = Math.min(slot.since, seq);
        this.dirty.add(slot);
      }
      at = change.end;
    }
    return at === view.byteLength;
  }

  /** Clears the pending log once it was encoded in log records. */
  clearLog(): void {
    this.log = new ByteWriter(this.log.length);
    this.recordEnds = [];
  }

  #content(leaf: Page | undefined, ref: Ref | undefined): Content {
    const bytes = leaf ? sizeOf(leaf) : 0;
    this.memory += bytes;
    return { epoch: this.epoch, leaf, ref, changes: undefined, bytes };
  }

  #slot(space: number, first: DataView, content: Content, since: number): Slot {
    const slot: Slot = {
      space,
      first,
      content,
      since,
      used: this.tick,
      loading: undefined,
      pins: 0,
      isRemoved: false,
    };
    if (content.leaf) this.#warm.add(slot);
    else this.cold++;
    return slot;
  }

  /** Updates the memory accounted for a content. */
  #count(content: Content): void {
    const bytes = content.leaf ? sizeOf(content.leaf) : 0;
    this.memory += bytes - content.bytes;
    content.bytes = bytes;
  }

  /** Returns the slot whose range contains a key. */
  slotOf(space: number, view: DataView, start: number, end: number): Slot {
    const slots = this.spaces[space]!;
    return slots[indexOf(slots, view, start, end)]!;
  }

  /** Returns the end of a slot's range; undefined for the last slot. */
  endOf(slot: Slot): DataView | undefined {
    const slots = this.spaces[slot.space]!;
    const { first } = slot;
    return slots[indexOf(slots, first, 0, first.byteLength) + 1]?.first;
  }

  /** Returns the slots that may contain keys in [from, to), in order. */
  slotsOf(space: number, from?: DataView, to?: DataView): Slot[] {
    const slots = this.spaces[space]!;
    return slots.slice(
      from ? indexOf(slots, from, 0, from.byteLength) : 0,
      to ? indexOf(slots, to, 0, to.byteLength) + 1 : slots.length,
    );
  }

  /** Searches a key, whose page must be in memory; true if it exists. */
  seek(space: number, view: DataView, start: number, end: number): boolean {
    const slots = this.#slots = this.spaces[space]!;
    this.#index = indexOf(slots, view, start, end);
    const slot = slots[this.#index]!;
    slot.used = this.tick;
    const leaf = slot.content.leaf!;
    this.#row = leaf.lowerBound(view, start, end);
    return this.#found = leaf.hasKey(this.#row, view, start, end);
  }

  /** Page of the row that `seek()` found. */
  get leaf(): Page {
    return this.#slots[this.#index]!.content.leaf!;
  }

  /** Offset of the value of the row that `seek()` found. */
  get valueAt(): number {
    return this.leaf.valueAt(this.#row);
  }

  /** Offset after the value of the row that `seek()` found. */
  get valueEnd(): number {
    return this.leaf.offset(this.#row + 1);
  }

  /** Sets the value of the key that `seek()` searched for, and logs the change. */
  set(
    view: DataView,
    keyStart: number,
    keyEnd: number,
    valueStart: number,
    valueEnd: number,
  ): void {
    const slot = this.#slots[this.#index]!;
    const leaf = this.#own(slot);
    const row = this.#row;
    leaf.write(
      row,
      !this.#found,
      view,
      keyStart,
      keyEnd,
      valueStart,
      valueEnd,
    );
    const start = leaf.offset(row);
    this.#change().u8(slot.space << 1)
      .raw(bytesOf(leaf.view, start, leaf.offset(row + 1)));
    this.#count(slot.content);
    if (isTooLarge(leaf)) {
      this.#split(this.#slots, this.#index, row === leaf.rows - 1);
    }
  }

  /** Removes the row that `seek()` found, and logs the change. */
  remove(view: DataView, start: number, end: number): void {
    const slot = this.#slots[this.#index]!;
    const leaf = this.#own(slot);
    leaf.remove(this.#row);
    this.#change().u8(slot.space << 1 | 1).varint(end - start + 1)
      .raw(bytesOf(view, start, end));
    this.#count(slot.content);
    if (leaf.used <= PACKED_PAGE_BYTES / 4) {
      if (!this.#join(this.#slots, this.#index)) {
        this.#join(this.#slots, this.#index - 1);
      }
    }
  }

  /** Returns the writer of the pending log, where the next change begins; ends the present record if it is full. */
  #change(): ByteWriter {
    const { log, recordEnds } = this;
    if (log.length - (recordEnds.at(-1) ?? 0) >= PACKED_RECORD_BYTES) {
      recordEnds.push(log.length);
    }
    return log;
  }

  /** Returns the rows of a slot for a change; copies them first if a version refers to them. */
  #own(slot: Slot): Page {
    const old = slot.content;
    if (slot.since === Infinity) {
      slot.since = this.next;
      this.dirty.add(slot);
    }
    if (old.epoch >= this.#newest) {
      old.ref = old.changes = undefined;
      return old.leaf!;
    }
    const leaf = part(old.leaf!, 0, old.leaf!.rows);
    slot.content = this.#content(leaf, undefined);
    this.retire(old);
    return leaf;
  }

  /** Drops a replaced content from memory, at once or when no version needs it there. */
  retire(content: Content): void {
    const { leaf, ref } = content;
    if (!leaf) return;
    if (content.epoch >= this.#newest || ref?.written) {
      content.leaf = undefined;
      this.#count(content);
    } else if (ref) this.stale.push(content);
    else this.shadows.push(content);
  }

  /** Drops retired contents whose block has been written. */
  sweep(): void {
    const { stale } = this;
    this.stale = [];
    for (const content of stale) this.retire(content);
  }

  #split(slots: Slot[], index: number, ascending: boolean): void {
    const slot = slots[index]!;
    const leaf = slot.content.leaf!;
    if (!isTooLarge(leaf)) return;
    const { rows, used } = leaf;
    // Ascending inserts fill each page before the next one: nothing is inserted before the cut later.
    let cut = rows - 1;
    if (!ascending) {
      for (cut = 1; cut < rows - 1; cut++) {
        if (leaf.offset(cut) * 2 >= used) break;
      }
    }
    const left = part(leaf, 0, cut);
    const right = part(leaf, cut, rows);
    slot.content.leaf = left;
    this.#count(slot.content);
    this.#insert(slots, index + 1, separate(left, right), right, slot);
    this.#split(slots, index + 1, false);
    this.#split(slots, index, false);
  }

  /** Inserts a slot for rows that were split off from the slot `from`. */
  #insert(
    slots: Slot[],
    index: number,
    first: DataView,
    leaf: Page,
    from: Slot,
  ): void {
    const content = this.#content(leaf, undefined);
    const slot = this.#slot(from.space, first, content, from.since);
    slots.splice(index, 0, slot);
    this.dirty.add(slot);
  }

  /** Merges the slots at `index` and `index + 1` if both are in memory and small enough; true if it did. */
  #join(slots: Slot[], index: number): boolean {
    const left = slots[index];
    const right = slots[index + 1];
    if (!left || !right || !this.#ready(left) || !this.#ready(right)) {
      return false;
    }
    const { leaf } = right.content;
    const { rows, used } = left.content.leaf!;
    if (
      leaf!.used + used > PACKED_PAGE_BYTES * 3 / 4 ||
      leaf!.rows + rows > PACKED_PAGE_ROWS * 3 / 4
    ) return false;
    this.#own(left).append(leaf!, 0, leaf!.rows);
    this.#count(left.content);
    left.since = Math.min(left.since, right.since);
    slots.splice(index + 1, 1);
    this.dirty.delete(right);
    this.#warm.delete(right);
    right.isRemoved = true;
    this.retire(right.content);
    return true;
  }

  /** Creates the pages of slots without rows, which need no read. */
  settle(): void {
    for (const slot of this.spaces.flat()) this.#ready(slot);
  }

  /** True if the rows of a slot are in memory; creates the page if it has no rows. */
  #ready(slot: Slot): boolean {
    const { leaf, ref, changes } = slot.content;
    if (!leaf && ref?.id === 0 && !changes) this.place(slot, [emptyPage()]);
    return slot.content.leaf !== undefined;
  }

  /** Places loaded rows in a slot; splits the slot if there are several pages. */
  place(slot: Slot, leaves: readonly Page[]): void {
    const { content } = slot;
    if (slot.isRemoved || content.leaf) return;
    this.cold--;
    this.#warm.add(slot);
    if (leaves.length === 1) {
      content.leaf = leaves[0];
      this.#count(content);
      return;
    }
    slot.content = this.#content(leaves[0], undefined);
    const slots = this.spaces[slot.space]!;
    const { first } = slot;
    let at = indexOf(slots, first, 0, first.byteLength);
    for (let i = 1; i < leaves.length; i++) {
      const key = separate(leaves[i - 1]!, leaves[i]!);
      this.#insert(slots, ++at, key, leaves[i]!, slot);
    }
  }

  /** Evicts pages that have a block, in LRU order, if memory is over budget. */
  evict(): void {
    if (this.excess <= 0) return;
    const bytes = this.budget * 7 / 8;
    const candidates = [...this.#warm].filter(({ content, used, pins }) =>
      content.ref?.written && used !== this.tick && pins === 0
    ).sort((a, b) => a.used - b.used);
    for (const slot of candidates) {
      if (this.memory <= bytes) return;
      const { content } = slot;
      this.#warm.delete(slot);
      content.leaf = undefined;
      this.#count(content);
      this.cold++;
    }
  }

  /** Captures the present rows of the first space as a version, readable until it is released. */
  freeze(): Version {
    const version: Version = {
      epoch: ++this.epoch,
      slots: this.spaces[0]!.map(({ first, content }) => ({ first, content })),
    };
    this.#versions.add(version);
    this.#newest = version.epoch;
    return version;
  }

  /** Releases a version; idempotent. */
  release(version: Version): void {
    this.#versions.delete(version);
    this.#newest = 0;
    for (const { epoch } of this.#versions) this.#newest = epoch;
    const { shadows, stale } = this;
    this.shadows = [];
    this.stale = [];
    for (const content of [...shadows, ...stale]) this.retire(content);
  }

  /** True if there are rows in memory that no block has: writing them makes them evictable. */
  get unwritten(): boolean {
    if (this.shadows.length > 0) return true;
    for (const { content } of this.dirty) if (content.leaf) return true;
    return false;
  }

  /** `epoch` of the oldest version in use; `Infinity` without one. */
  get oldest(): number {
    for (const { epoch } of this.#versions) return epoch;
    return Infinity;
  }
}
