/**
 * The pages of a packed store as they are in memory: which are there, which
 * have changes that are in no block yet, and which of them a version still
 * needs as they were. Nothing here reads or writes a block.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ByteWriter } from "../../bytes.ts";
import {
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
  type Changes,
  emptyPage,
  hasKey,
  isTooLarge,
  type Page,
  part,
  sizeOf,
} from "./pages.ts";

/** The rows of a page at one moment: in memory, in a block, or in a block and changes to it. */
export interface Content {
  /** The version after which this came to be. */
  readonly epoch: number;
  /** The rows, if they are in memory. */
  leaf: Page | undefined;
  /** The block that has them, but for `changes`; none if they were changed in memory. */
  ref: Ref | undefined;
  /** What is in the log and not in the block. */
  changes: Changes | undefined;
  /** Bytes of memory it is counted with. */
  bytes: number;
}

/** A range of keys and the page that has them. */
export interface Slot {
  readonly space: number;
  /** Keys from this one on, to before the next slot's. */
  readonly first: DataView;
  content: Content;
  /** The first record of the log with a change that is in no block; Infinity if there is none. */
  since: number;
  /** When it was last used. */
  used: number;
  /** The reading of its block that is under way. */
  loading: Promise<void> | undefined;
  /** How many wait for it and others, and need all of them in memory. */
  holds: number;
  /** Whether it is a slot no more. */
  gone: boolean;
}

/** The rows at one moment. */
export interface Version {
  readonly epoch: number;
  /** The pages of the first space, in order. */
  readonly slots: readonly { readonly first: DataView; content: Content }[];
}

/** Pages in memory. */
export class Table {
  spaces: Slot[][] = [];
  /** Slots whose rows are in memory. */
  readonly #warm = new Set<Slot>();
  /** Slots whose changes are not all in blocks. */
  readonly dirty: Set<Slot> = new Set();
  /** Contents that only a version needs and that have no block. */
  shadows: Content[] = [];
  /** Contents of versions that can leave memory once their block is written. */
  stale: Content[] = [];
  /** Memory that pages take, in bytes. */
  memory = 0;
  /** Slots whose rows are not in memory. */
  cold = 0;
  /** Changes since the last record of the log. */
  log: ByteWriter = new ByteWriter();
  /** Where in there a record ends and another one begins. */
  cuts: number[] = [];
  /** The record of the log that the next change will be in. */
  next = 1;
  /** Counts up with each version. */
  epoch = 0;
  /** Goes up with time; slots used at the same time are kept together. */
  tick = 0;
  readonly #versions = new Set<Version>();
  /** The newest version in use, 0 if there is none. */
  #newest = 0;

  // Where the last search ended.
  #slots: Slot[] = [];
  #index = 0;
  #row = 0;
  #found = false;

  constructor() {
    this.reset(
      Array.from(
        { length: SPACES },
        () => [{ first: LEAST, ref: emptyRef(0) }],
      ),
    );
    this.settle();
  }

  /** Forgets all pages, and begins with those of a directory. */
  reset(spaces: readonly (readonly DirectoryEntry[])[]): void {
    for (const slot of this.spaces.flat()) {
      slot.gone = true;
      this.retire(slot.content);
    }
    this.#warm.clear();
    this.dirty.clear();
    this.cut();
    this.cold = 0;
    this.spaces = spaces.map((entries, space) =>
      entries.map(({ first, ref }) =>
        this.#slot(space, first, this.#content(undefined, ref), Infinity)
      )
    );
  }

  /** Begins the log anew. */
  cut(): void {
    this.log = new ByteWriter(this.log.length);
    this.cuts = [];
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
      holds: 0,
      gone: false,
    };
    if (content.leaf) this.#warm.add(slot);
    else this.cold++;
    return slot;
  }

  /** Counts the memory of a content anew. */
  #count(content: Content): void {
    const bytes = content.leaf ? sizeOf(content.leaf) : 0;
    this.memory += bytes - content.bytes;
    content.bytes = bytes;
  }

  /** The slot a key is in. */
  slotOf(space: number, view: DataView, start: number, end: number): Slot {
    const slots = this.spaces[space]!;
    return slots[indexOf(slots, view, start, end)]!;
  }

  /** The first key after those of a slot; undefined if it is the last. */
  endOf(slot: Slot): DataView | undefined {
    const slots = this.spaces[slot.space]!;
    const { first } = slot;
    return slots[indexOf(slots, first, 0, first.byteLength) + 1]?.first;
  }

  /** The slots that keys in [from, to) may be in, in order. */
  slotsOf(space: number, from?: DataView, to?: DataView): Slot[] {
    const slots = this.spaces[space]!;
    return slots.slice(
      from ? indexOf(slots, from, 0, from.byteLength) : 0,
      to ? indexOf(slots, to, 0, to.byteLength) + 1 : slots.length,
    );
  }

  /** Looks for a key, whose page must be in memory; whether it is there. */
  seek(space: number, view: DataView, start: number, end: number): boolean {
    const slots = this.#slots = this.spaces[space]!;
    this.#index = indexOf(slots, view, start, end);
    const slot = slots[this.#index]!;
    slot.used = this.tick;
    const leaf = slot.content.leaf!;
    this.#row = leaf.lowerBound(view, start, end);
    return this.#found = hasKey(leaf, this.#row, view, start, end);
  }

  /** The page of the row that was found. */
  get leaf(): Page {
    return this.#slots[this.#index]!.content.leaf!;
  }

  /** Where the value of the row that was found starts. */
  get valueAt(): number {
    return this.leaf.valueAt(this.#row);
  }

  /** Where it ends. */
  get valueEnd(): number {
    return this.leaf.offset(this.#row + 1);
  }

  /** Sets the value of the key that was looked for. */
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
    leaf.set(
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

  /** Removes the row that was found. */
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

  /** Where the next change goes. */
  #change(): ByteWriter {
    const { log, cuts } = this;
    if (log.length - (cuts.at(-1) ?? 0) >= PACKED_RECORD_BYTES) {
      cuts.push(log.length);
    }
    return log;
  }

  /** Makes the rows of a slot the present's own, about to be changed. */
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

  /** Lets go of a content, unless a version needs it. */
  retire(content: Content): void {
    const { leaf, ref } = content;
    if (!leaf) return;
    if (content.epoch >= this.#newest || ref?.written) {
      content.leaf = undefined;
      this.#count(content);
    } else if (ref) this.stale.push(content);
    else this.shadows.push(content);
  }

  /** Lets those go whose block is written by now. */
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
    // Keys that come in ascending order leave full pages behind.
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

  /** Adds a slot with rows that were in `from`. */
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

  /** Adds the rows of the slot after `index` to those of the one there, if both are in memory and small enough. */
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
    right.gone = true;
    this.retire(right.content);
    return true;
  }

  /** Has the slots without rows in memory, which takes no reading. */
  settle(): void {
    for (const slot of this.spaces.flat()) this.#ready(slot);
  }

  /** Whether the rows of a slot are in memory; if there are none, now they are. */
  #ready(slot: Slot): boolean {
    const { leaf, ref, changes } = slot.content;
    if (!leaf && ref?.id === 0 && !changes) this.place(slot, [emptyPage()]);
    return slot.content.leaf !== undefined;
  }

  /** Gives a slot its rows; where it had changes, in all the pages they need. */
  place(slot: Slot, leaves: readonly Page[]): void {
    const { content } = slot;
    if (slot.gone || content.leaf) return;
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

  /** Lets pages that are in blocks go, those first that were not used for longest, until the memory is no more than this. */
  evict(bytes: number): void {
    const candidates = [...this.#warm].filter(({ content, used, holds }) =>
      content.ref?.written && used !== this.tick && holds === 0
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

  /** Marks the present rows; they stay readable until the version is released. */
  freeze(): Version {
    const version: Version = {
      epoch: ++this.epoch,
      slots: this.spaces[0]!.map(({ first, content }) => ({ first, content })),
    };
    this.#versions.add(version);
    this.#newest = version.epoch;
    return version;
  }

  /** Gives a version up; harmless if it was. */
  release(version: Version): void {
    this.#versions.delete(version);
    this.#newest = 0;
    for (const { epoch } of this.#versions) this.#newest = epoch;
    const { shadows, stale } = this;
    this.shadows = [];
    this.stale = [];
    for (const content of [...shadows, ...stale]) this.retire(content);
  }

  /** Whether there are pages in memory that could leave it if they were written. */
  get unwritten(): boolean {
    if (this.shadows.length > 0) return true;
    for (const { content } of this.dirty) if (content.leaf) return true;
    return false;
  }

  /** The oldest version in use; Infinity if there is none. */
  get oldest(): number {
    for (const { epoch } of this.#versions) return epoch;
    return Infinity;
  }
}
