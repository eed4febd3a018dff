/**
 * Plan of the next write of a packed store: the pages to write, and the blocks
 * of everything pending.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  PACKED_CLOSE_BYTES,
  PACKED_FLUSH_BYTES,
  PACKED_LOG_BLOCK_BYTES,
  PACKED_LOG_BYTES,
  PACKED_PAGE_BYTES,
  PACKED_WRITE_BYTES_MAX,
} from "../../limits.ts";
import type { Durability } from "../../store/store.ts";
import type { Install, Ref } from "./directory.ts";
import type { BlockKeys } from "./keys.ts";
import type { NewPage, PageBlocks } from "./page_blocks.ts";
import type { Slot, Table } from "./table.ts";
import type { WriteAheadLog } from "./write_ahead_log.ts";
import type { Job } from "./writer.ts";

/** Selects pages to write and builds the jobs that write them. */
export class WritePlanner {
  readonly #table: Table;
  readonly #blocks: PageBlocks;
  readonly #log: WriteAheadLog;
  readonly #keys: BlockKeys;
  /** Pages written ahead of the record that will refer to them. */
  #installs: Install[] = [];
  /** Bytes of pages that may be written for the growth of the log. */
  #credit = 0;

  constructor(
    keys: BlockKeys,
    table: Table,
    blocks: PageBlocks,
    log: WriteAheadLog,
  ) {
    this.#keys = keys;
    this.#table = table;
    this.#blocks = blocks;
    this.#log = log;
  }

  /** Selects the pages to write next, to shorten the log or to free memory. */
  select(): Slot[] {
    const { log, excess, budget } = this.#table;
    const limit = Math.min(
      budget / 2,
      Math.max(PACKED_LOG_BYTES, this.#log.directory.bytes / 4),
    );
    // From half the limit on, the longer the log, the more pages.
    const pressure = Math.min(2 * this.#log.bytes / limit - 1, 2);
    const grown = log.length + PACKED_LOG_BLOCK_BYTES;
    this.#credit = pressure > 0 ? this.#credit + 4 * pressure * grown : 0;
    const slots = excess > 0 ? this.#leastRecentlyUsed() : [];
    // At least as much as the log grows, or the oldest changes would never be
    // reached.
    const most = Math.max(PACKED_WRITE_BYTES_MAX, 3 * log.length);
    let bytes = Math.min(this.#credit, most);
    if (bytes < PACKED_PAGE_BYTES) return slots;
    for (const slot of this.#oldestFirst()) {
      if (bytes <= 0) break;
      const size = slot.content.leaf?.used ?? PACKED_PAGE_BYTES;
      bytes -= size;
      this.#credit -= size;
      if (!slots.includes(slot)) slots.push(slot);
    }
    return slots;
  }

  /** Selects the pages to write before the store is closed: those in memory whose changes are oldest in the log; none if the log is short. */
  selectAtClose(): Slot[] {
    const slots: Slot[] = [];
    if (this.#log.bytes + this.#table.log.length < PACKED_FLUSH_BYTES) {
      return slots;
    }
    let bytes = 0;
    for (const slot of this.#oldestFirst()) {
      const { leaf } = slot.content;
      if (!leaf) continue;
      bytes += leaf.used;
      if (bytes > PACKED_CLOSE_BYTES) break;
      slots.push(slot);
    }
    return slots;
  }

  #oldestFirst(): Slot[] {
    return [...this.#table.dirty].sort((a, b) => a.since - b.since);
  }

  /** Selects least recently used pages to write, so that they can be evicted. */
  #leastRecentlyUsed(): Slot[] {
    const { dirty, tick, excess, budget } = this.#table;
    const slots = [...dirty].filter(({ content, used }) =>
      content.leaf && used !== tick
    ).sort((a, b) => a.used - b.used);
    let bytes = Math.min(excess + budget / 8, PACKED_WRITE_BYTES_MAX);
    const end = slots.findIndex(({ content }) => (bytes -= content.bytes) < 0);
    return end < 0 ? slots : slots.slice(0, end + 1);
  }

  /** Builds the block of a page, and the change of the directory. */
  #writePage(slot: Slot, seq: number, pages: NewPage[]): Install {
    const { space, first: from, content } = slot;
    const to = this.#table.endOf(slot);
    const ref = this.#blocks.encode(content.leaf!, seq, pages);
    content.ref = ref;
    content.changes = undefined;
    slot.since = Infinity;
    this.#table.dirty.delete(slot);
    return { space, from, to, ref };
  }

  /** Builds blocks for contents that only versions need, if memory is over budget. */
  #shadowRefs(pages: NewPage[]): Ref[] {
    const table = this.#table;
    const refs: Ref[] = [];
    let bytes = table.excess > 0 ? PACKED_WRITE_BYTES_MAX : 0;
    while (bytes > 0 && table.shadows.length > 0) {
      const content = table.shadows.pop()!;
      bytes -= content.bytes;
      content.ref = this.#blocks.encode(content.leaf!, this.#log.seq, pages);
      refs.push(content.ref);
      table.stale.push(content);
    }
    return refs;
  }

  /** Builds a write of everything pending and of these pages. */
  build(
    slots: readonly Slot[],
    meta: () => Uint8Array,
    durability: Durability,
  ): Job {
    const table = this.#table;
    const log = this.#log;
    const blocks = this.#blocks;
    const pages: NewPage[] = [];
    const shadows = this.#shadowRefs(pages);
    let keep = log.seq + 1;
    const last = keep + table.recordEnds.length;
    for (const slot of slots) {
      if (slot.isRemoved || slot.since === Infinity || !slot.content.leaf) {
        continue;
      }
      this.#installs.push(this.#writePage(slot, last, pages));
    }
    const installs = this.#installs;
    for (const install of installs) log.directory.install(install);
    const free = blocks.collectGarbage();
    const put = blocks.put(pages, free);
    for (const ref of shadows) blocks.discard(ref);
    if (table.log.length > 0 || installs.length > 0) {
      log.putRecords(put, table, installs);
      this.#installs = [];
    }
    // Not the records of this write: deletions are applied before puts.
    for (const { since } of table.dirty) keep = Math.min(keep, since);
    const deleteRanges = log.trim(keep, put);
    log.putHead(put, meta(), durability);
    const unused = free.map((id) => this.#keys.page(id));
    return { writes: { put, delete: unused, deleteRanges }, durability, pages };
  }

  /**
   * Builds a write of least recently used pages in the middle of a step, into
   * blocks that no record refers to yet; undefined if no page can be written.
   */
  buildAhead(): Job | undefined {
    const pages: NewPage[] = [];
    for (const slot of this.#leastRecentlyUsed()) {
      // The page may have some but not all changes of the current record.
      this.#installs.push(this.#writePage(slot, this.#log.seq, pages));
    }
    if (pages.length === 0) return undefined;
    const put = this.#blocks.put(pages);
    this.#log.putFirstHead(put);
    return { writes: { put }, durability: "relaxed", pages };
  }

  /** Discards the pages written ahead, because the state is being replaced. */
  discardAhead(): void {
    for (const { ref } of this.#installs.splice(0)) this.#blocks.discard(ref);
  }
}
