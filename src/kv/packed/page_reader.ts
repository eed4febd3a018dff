/**
 * Reader of a packed store: loads pages into the table, and scans versions.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { chain, isPromise } from "../../async.ts";
import type { MaybePromise } from "../../statemachine/types.ts";
import type { BlockStore } from "../../store/store.ts";
import type { Span } from "../tree.ts";
import { copyOf } from "../view.ts";
import { indexOf } from "./directory.ts";
import type { BlockKeys } from "./keys.ts";
import { emptyPage, mergeChanges, type Page, readPage } from "./pages.ts";
import type { Content, Slot, Table, Version } from "./table.ts";

/** Maximum number of blocks read ahead in one request of a scan. */
const READ_AHEAD = 16;

/** Reads pages from their blocks and merges the changes of the log into them. */
export class PageReader {
  readonly #store: BlockStore;
  readonly #keys: BlockKeys;
  readonly #table: Table;

  constructor(store: BlockStore, keys: BlockKeys, table: Table) {
    this.#store = store;
    this.#keys = keys;
    this.#table = table;
  }

  /**
   * Loads pages into memory. They stay there until the next load.
   *
   * @throws ErrStoreCorrupted if a block is missing or damaged
   */
  load(slots: readonly Slot[]): MaybePromise<void> {
    const waits: Promise<void>[] = [];
    const wanted: Slot[] = [];
    const used = ++this.#table.tick;
    for (const slot of slots) {
      slot.used = used;
      if (slot.content.leaf || slot.isRemoved) continue;
      if (slot.loading) waits.push(slot.loading);
      else wanted.push(slot);
    }
    const own = wanted.length > 0 ? this.#read(wanted) : undefined;
    if (isPromise(own)) {
      for (const slot of wanted) slot.loading = own;
      waits.push(own);
    }
    if (waits.length === 0) return;
    // Concurrent loads must not evict them: a step that needs more pages than
    // the budget would never have all of them.
    const pinned = [...slots];
    for (const slot of pinned) slot.pins++;
    return Promise.all(waits).then(() => {}).finally(() => {
      for (const slot of pinned) {
        slot.pins--;
        slot.used = this.#table.tick;
      }
    });
  }

  #read(slots: readonly Slot[]): MaybePromise<void> {
    const table = this.#table;
    const done = (error?: unknown): void => {
      for (const slot of slots) slot.loading = undefined;
      if (error !== undefined) throw error;
    };
    const got = this.#get(slots.map(({ content }) => content));
    const place = (blocks: readonly (Uint8Array | undefined)[]): void => {
      slots.forEach((slot, i) => {
        // Removed by a recovery during the read.
        if (slot.isRemoved) return;
        const { first, content } = slot;
        const end = table.endOf(slot);
        table.place(slot, this.#pages(content, blocks[i], first, end));
      });
      table.evict();
    };
    if (!isPromise(got)) return place(got);
    return got.then(place).then(() => done(), done);
  }

  /** Reads the blocks of contents; undefined for those without a block. */
  #get(
    contents: readonly Content[],
  ): MaybePromise<(Uint8Array | undefined)[]> {
    const keys = contents.map(({ ref }) => ref!.id).filter((id) => id > 0)
      .map((id) => this.#keys.page(id));
    if (keys.length === 0) return [];
    const spread = (
      blocks: readonly (Uint8Array | undefined)[],
    ): (Uint8Array | undefined)[] => {
      let i = 0;
      return contents.map(({ ref }) => ref!.id > 0 ? blocks[i++] : undefined);
    };
    return chain(this.#store.get(keys), spread);
  }

  /** Decodes the pages of a content from its block and its changes. */
  #pages(
    { ref, changes }: Content,
    block: Uint8Array | undefined,
    from: DataView,
    to: DataView | undefined,
  ): Page[] {
    const { id, crc } = ref!;
    const leaf = id === 0
      ? emptyPage()
      : readPage(this.#keys.page(id), crc, block, from, to);
    return changes ? mergeChanges(leaf, changes) : [leaf];
  }

  /**
   * Iterates over the rows of a version whose keys are in [from, to), page by
   * page, in descending order if `reverse`.
   */
  async *spans(
    version: Version,
    from?: DataView,
    to?: DataView,
    reverse = false,
  ): AsyncGenerator<Span> {
    const { slots } = version;
    const low = from ? indexOf(slots, from, 0, from.byteLength) : 0;
    const high = to ? indexOf(slots, to, 0, to.byteLength) : slots.length - 1;
    let ahead = 1;
    for (let n = 0; n <= high - low;) {
      const count = Math.min(ahead, high - low + 1 - n);
      const at = reverse ? high - n - count + 1 : low + n;
      const wanted = Array.from({ length: count }, (_, i) => at + i);
      const pages = (await this.#readVersion(version, wanted)).flat();
      if (reverse) pages.reverse();
      for (const leaf of pages) {
        const start = from ? leaf.lowerBound(from, 0, from.byteLength) : 0;
        const end = to ? leaf.lowerBound(to, 0, to.byteLength) : leaf.rows;
        if (start < end) yield { leaf, start, end };
      }
      n += count;
      ahead = Math.min(2 * ahead, READ_AHEAD);
    }
  }

  /** Returns copies of the values of keys in a version, reading several pages in one request. */
  async getMany(
    version: Version,
    keys: readonly DataView[],
  ): Promise<(Uint8Array | undefined)[]> {
    const slotOf = (key: DataView): number =>
      indexOf(version.slots, key, 0, key.byteLength);
    const values: (Uint8Array | undefined)[] = keys.map(() => undefined);
    const bySlot = new Map<number, number[]>();
    keys.forEach((key, i) => {
      const slot = slotOf(key);
      const wanted = bySlot.get(slot);
      if (wanted) wanted.push(i);
      else bySlot.set(slot, [i]);
    });
    const slots = [...bySlot.keys()];
    for (let at = 0; at < slots.length; at += READ_AHEAD) {
      const some = slots.slice(at, at + READ_AHEAD);
      const pages = await this.#readVersion(version, some);
      for (const [n, slot] of some.entries()) {
        for (const i of bySlot.get(slot)!) {
          values[i] = valueOf(pages[n]!, keys[i]!);
        }
      }
    }
    return values;
  }

  /** Reads the pages of some slots of a version, for each slot one or more. */
  async #readVersion(
    { slots }: Version,
    wanted: readonly number[],
  ): Promise<Page[][]> {
    // Captured before the first await: pages may be evicted later.
    const leaves = wanted.map((i) => slots[i]!.content.leaf);
    // Copied: a page may get another block during the read.
    const contents = wanted.filter((_, n) => !leaves[n])
      .map((i) => ({ ...slots[i]!.content }));
    const blocks = await this.#get(contents);
    let at = 0;
    return wanted.map((i, n) => {
      const leaf = leaves[n];
      if (leaf) return [leaf];
      const to = slots[i + 1]?.first;
      return this.#pages(contents[at]!, blocks[at++], slots[i]!.first, to);
    });
  }
}

/** Returns a copy of the value of a key in some pages. */
function valueOf(
  pages: readonly Page[],
  key: DataView,
): Uint8Array | undefined {
  const size = key.byteLength;
  for (const leaf of pages) {
    const row = leaf.lowerBound(key, 0, size);
    if (leaf.hasKey(row, key, 0, size)) {
      return copyOf(leaf.view, leaf.valueAt(row), leaf.offset(row + 1));
    }
  }
  return undefined;
}
