/**
 * Packed store: ordered key-value rows over a block store, changed in atomic
 * steps, far more of them than fit in memory.
 *
 * The cost of a block store is per request and per transaction, hardly per
 * byte: one block per row would be 10 to 60 times slower. Hence:
 *
 * - **Rows are packed into pages** in key order, in the format of a snapshot. A
 *   page in memory is the content of its block, searched and changed in place
 *   without decoding. Small pages (8 KiB) make a cold row cheap to read, about
 *   1.5 times a block of its own, and reduce the bytes written by random updates
 *   of a large state; large ones would save requests if all rows are in memory.
 * - **Changes go to a write-ahead log first**, with all others since the last
 *   write (group commit): a batch of a thousand rows is three blocks, none large
 *   enough for a browser to store it in a separate file. A page is written when
 *   its changes in the log are old, so that many changes share one page write.
 * - **There are no stop-the-world checkpoints.** Every write includes some of the
 *   pages with the oldest changes; their number depends on the bytes added to the
 *   log and on its length, never on a count of records, so that large updates do
 *   not delay small ones. A record is deleted once its changes are in pages. One
 *   write is in progress while the next is filled, so that the stored state is
 *   always a prefix. Where writes are slower than updates, backpressure delays
 *   each update briefly; only far beyond the bound it waits for the write.
 * - **A page is stored in any free block.** The directory maps ranges of keys to
 *   blocks; it is in memory, on disk as a whole, and as changes in log records. So
 *   a version of the rows is a copy of the list of pages. A block is free once
 *   neither the directory nor a version in use refers to it, from the write on
 *   that reuses or deletes it. A page without a block is copied on write.
 * - **Memory is bounded.** Pages with a block are evicted in LRU order; others
 *   are written first. Opening reads head, directory and log; pages are read on
 *   demand, with the changes from the log merged in. Unless changed again, such a
 *   page can be evicted without a write: block and log still have its rows.
 * - **Every block has a checksum and is expected**: the head names the records
 *   and the directory, the directory names the pages. A missing or damaged block
 *   is an error that names it.
 *
 * ```text
 * head            durable or not, last and first record, record of the directory, next page number, metadata
 * base            directory as of a record
 * log/<record>    changes of the directory, changes of rows
 * page/<number>   rows: length of the key + 1, length of the value, key, value
 * ```
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  PACKED_FLUSH_BYTES,
  PACKED_PAGE_BYTES,
  PACKED_PENDING_BYTES,
  PACKED_PENDING_BYTES_MAX,
  PACKED_PENDING_MS,
} from "../../limits.ts";
import { type Env, systemEnv } from "../../env.ts";
import { chain } from "../../async.ts";
import type { MaybePromise } from "../../statemachine/types.ts";
import type { Block, BlockStore, Durability } from "../../store/store.ts";
import type { Span } from "../tree.ts";
import { corrupted } from "./block.ts";
import type { DirectoryEntry, Ref } from "./directory.ts";
import { BlockKeys, type KeyRange } from "./keys.ts";
import { type NewPage, PageBlocks } from "./page_blocks.ts";
import { PageReader } from "./page_reader.ts";
import { Rebuild } from "./rebuild.ts";
import { type Slot, Table, type Version } from "./table.ts";
import { WriteAheadLog } from "./write_ahead_log.ts";
import { WritePlanner } from "./write_planner.ts";
import { Writer } from "./writer.ts";

/** Options of a packed store. */
export interface PackedStoreOptions {
  /** Prefix of the keys of its blocks. @default {"kv/"} */
  readonly prefix?: string | undefined;
  /** Memory budget for pages, in bytes. @default {64 MiB} */
  readonly memoryBudgetBytes?: number | undefined;
  /** Durability of background writes. @default {"relaxed"} */
  readonly durability?: Durability | undefined;
  /** Clock and timers. @default {those of the system} */
  readonly env?: Env | undefined;
  /** Returns the metadata to store atomically with the rows. */
  readonly meta: () => Uint8Array;
}

/** Sorted rows in pages over a {@linkcode BlockStore}. */
export class PackedStore {
  readonly table: Table;
  readonly #store: BlockStore;
  readonly #keys: BlockKeys;
  readonly #durability: Durability;
  readonly #env: Env;
  readonly #meta: () => Uint8Array;
  readonly #blocks: PageBlocks;
  readonly #log: WriteAheadLog;
  readonly #reader: PageReader;
  readonly #planner: WritePlanner;
  readonly #writer: Writer;

  /** Set while a rebuild prepares a state to replace this one. */
  #isRebuilding = false;
  /** Set during a step, whose changes must not be written before it ends. */
  #isInStep = false;
  /** Bytes of pending log when the step began. */
  #stepStart = 0;
  /** Set if a completed step is in no record or head yet. */
  #isUnrecorded = false;

  /** Creates a store of rows in `store`, which belongs to the caller. */
  constructor(store: BlockStore, options: PackedStoreOptions) {
    this.#store = store;
    this.#durability = options.durability ?? "relaxed";
    this.#env = options.env ?? systemEnv;
    this.#meta = options.meta;
    const table = this.table = new Table(options.memoryBudgetBytes);
    const keys = this.#keys = new BlockKeys(options.prefix ?? "kv/");
    const blocks = this.#blocks = new PageBlocks(keys, table);
    const log = this.#log = new WriteAheadLog(store, keys, blocks);
    this.#reader = new PageReader(store, keys, table);
    this.#planner = new WritePlanner(keys, table, blocks, log);
    this.#writer = new Writer(store, () => this.#written());
  }

  /** Number of pages not in memory. */
  get cold(): number {
    return this.table.cold;
  }

  /** Memory over budget, in bytes. */
  get excess(): number {
    return this.table.excess;
  }

  /** Number of pages to read ahead for coming changes. */
  get ahead(): number {
    return Math.max(1, Math.min(256, this.slack / PACKED_PAGE_BYTES));
  }

  /** Memory over budget at which a step has to spill, in bytes. */
  get slack(): number {
    return this.table.budget / 4;
  }

  /** Memory of pages and of the pending log, in bytes. */
  get memoryBytes(): number {
    return this.table.memory + this.table.log.length;
  }

  // Opening.

  /**
   * Opens the stored state; returns its metadata, or undefined for a new store.
   * Removes blocks that an earlier instance left unfinished.
   *
   * @throws ErrStoreCorrupted if a block is missing or damaged
   */
  async open(): Promise<Uint8Array | undefined> {
    const store = this.#store;
    const keys = this.#keys;
    const { table } = this;
    // Concurrent, so that both errors are handled: a locked store rejects each
    // call.
    const [pages, [head, base]] = await Promise.all([
      store.keys(...keys.pages),
      store.get([keys.head, keys.base]),
    ]);
    if (!head && !base && pages.length === 0) {
      const logs = await store.keys(...keys.logs, { limit: 1 });
      if (logs.length === 0) return;
    }
    const log = this.#log;
    const { meta, durable, changes } = await log.open(head, base);
    const put: Block[] = [];
    // A state that was not synced becomes durable before its index is reported
    // as such.
    if (!durable) log.putHead(put, meta, "strict");
    const stray = this.#expectPages(pages);
    if (put.length + stray.length > 0) {
      await store.write({ put, delete: stray }, durable ? "relaxed" : "strict");
    }
    this.#blocks.forgetGarbage();
    table.next = log.seq + 1;
    table.reset(log.directory.spaces);
    for (const { seq, view, at } of changes) {
      if (!table.assign(seq, view, at)) throw corrupted(keys.log(seq));
    }
    table.settle();
    return meta.length === 0 ? undefined : meta;
  }

  /** Checks that all pages exist; returns the keys of blocks that nothing refers to. */
  #expectPages(keys: readonly string[]): string[] {
    const left = new Set(keys);
    for (const { id } of this.#log.directory.refs()) {
      const key = this.#keys.page(id);
      if (id > 0 && !left.delete(key)) {
        throw corrupted(key, "Block is missing");
      }
    }
    return [...left];
  }

  // Reading.

  /** Returns the slot of a key if its page has to be loaded first. */
  missing(
    space: number,
    view: DataView,
    start: number,
    end: number,
  ): Slot | undefined {
    const slot = this.table.slotOf(space, view, start, end);
    return slot.content.leaf ? undefined : slot;
  }

  /** Slots of a space. */
  slots(space: number): readonly Slot[] {
    return this.table.spaces[space]!;
  }

  /**
   * Loads pages into memory. They stay there until the next load.
   *
   * @throws ErrStoreCorrupted if a block is missing or damaged
   */
  load(slots: readonly Slot[]): MaybePromise<void> {
    return this.#reader.load(slots);
  }

  /** Captures the rows of the first space as a version. */
  freeze(): Version {
    return this.table.freeze();
  }

  /** Releases a version; a later write deletes its blocks. */
  release(version: Version): void {
    this.table.release(version);
  }

  /**
   * Iterates over the rows of a version whose keys are in [from, to), page by
   * page, in descending order if `reverse`.
   */
  spans(
    version: Version,
    from?: DataView,
    to?: DataView,
    reverse?: boolean,
  ): AsyncGenerator<Span> {
    return this.#reader.spans(version, from, to, reverse);
  }

  /** Returns copies of the values of keys in a version. */
  getMany(
    version: Version,
    keys: readonly DataView[],
  ): Promise<(Uint8Array | undefined)[]> {
    return this.#reader.getMany(version, keys);
  }

  // Changing.

  /**
   * Starts a step; await it first. Retries a failed background write.
   *
   * @throws the error of that write if it fails again
   */
  begin(): MaybePromise<void> {
    const writer = this.#writer;
    writer.check();
    this.table.tick++;
    if (!writer.hasFailed) {
      this.#isInStep = true;
      this.#stepStart = this.table.log.length;
      return;
    }
    if (writer.writing) return writer.writing.then(() => this.begin());
    return chain(writer.retry(), () => this.begin());
  }

  /**
   * Abandons a step that cannot be completed: if it changed anything, neither
   * it nor any later change is ever written.
   */
  abandon(error: unknown): void {
    this.#isInStep = false;
    if (this.table.log.length > this.#stepStart) this.#writer.break(error);
  }

  /**
   * Completes a step: its changes are written as a whole or not at all. Waits
   * only if too much is pending (backpressure).
   */
  commit(): MaybePromise<void> {
    this.#isInStep = false;
    this.#isUnrecorded = true;
    return this.#applyBackpressure(8);
  }

  /** Applies backpressure: keeps pending writes and memory within bounds. */
  #applyBackpressure(rounds: number): MaybePromise<void> {
    const { table } = this;
    const writer = this.#writer;
    const crowded = this.#evict() > 0 && table.unwritten;
    if (table.log.length < PACKED_FLUSH_BYTES && !crowded) return;
    if (writer.hasFailed || writer.isBroken) return;
    if (!writer.writing) this.#start(this.#durability);
    const waiting = table.log.length;
    if (rounds === 0 || !writer.writing) return;
    if (crowded || waiting > PACKED_PENDING_BYTES_MAX) {
      return writer.writing.then(() => this.#applyBackpressure(rounds - 1));
    }
    if (waiting > PACKED_PENDING_BYTES) return this.#pause(writer.writing);
  }

  /** Waits for a write up to a bound, so that a slow write slows updates down but does not stop them. */
  #pause(writing: Promise<void>): Promise<void> {
    return new Promise((resolve) => {
      const cancel = this.#env.setTimer(resolve, PACKED_PENDING_MS);
      // Never rejects: the next call on the store throws the error of a write.
      writing.then(() => {
        cancel();
        resolve();
      });
    });
  }

  /** Evicts pages if memory is over budget; returns the memory still over budget, in bytes. */
  #evict(): number {
    this.table.tick++;
    this.table.evict();
    return this.excess;
  }

  /**
   * Spills pages in the middle of a step that changes more than fits in memory:
   * into blocks that no record refers to until the step ends.
   */
  spill(): MaybePromise<void> {
    const writer = this.#writer;
    if (this.#evict() <= 0 || writer.hasFailed) return;
    if (writer.writing) return writer.writing.then(() => this.spill());
    const job = this.#planner.buildAhead();
    if (!job) return;
    writer.launch(job);
    return chain(writer.writing, () => void this.#evict());
  }

  /**
   * Makes all completed steps durable.
   *
   * @throws the error of a write, which the next call retries
   */
  sync(): MaybePromise<void> {
    const writer = this.#writer;
    writer.check();
    if (writer.writing) return writer.writing.then(() => this.sync());
    if (writer.hasFailed) {
      return chain(writer.retry("strict"), () => this.sync());
    }
    if (
      !this.#hasPending && !writer.unsynced && !this.#blocks.hasGarbage
    ) return;
    this.#start("strict");
    return chain(writer.writing, () => writer.report());
  }

  /**
   * Waits for the write in progress, and writes what is pending, with pages of
   * the log, so that the next start need not merge their changes (checkpoint).
   */
  async close(): Promise<void> {
    const writer = this.#writer;
    await writer.settled();
    if (writer.isBroken || writer.hasFailed) return;
    const slots = this.#planner.selectAtClose();
    if (slots.length === 0 && !this.#hasPending) return;
    this.#start(this.#durability, slots);
    await writer.settled();
    writer.report();
  }

  /** True if a completed step is not in a write yet. */
  get #hasPending(): boolean {
    return this.table.log.length > 0 || this.#isUnrecorded;
  }

  // Writing.

  /** Starts a write of everything pending and of some pages, which are loaded first if necessary. */
  #start(durability: Durability, slots: Slot[] = this.#planner.select()): void {
    this.#writer.start(() => this.load(slots), () => {
      // Without block and changes they are not evicted before they are written.
      for (const { content } of slots) {
        if (content.leaf && content.changes) {
          content.ref = content.changes = undefined;
        }
      }
      // A step began while pages were loaded; its end starts the write again.
      if (this.#isInStep || this.#writer.isBroken) return undefined;
      const job = this.#planner.build(slots, this.#meta, durability);
      this.#isUnrecorded = false;
      return job;
    });
  }

  /** Continues after a write: enough may be pending for the next one. */
  #written(): void {
    this.#log.isCreated = true;
    this.table.sweep();
    if (!this.#isWriteDue) return;
    // Callers that wait for this write run first, because building the next
    // one takes time.
    // Never rejects: failures are kept by the writer.
    void this.#env.turn().then(() => {
      const { writing, hasFailed } = this.#writer;
      if (this.#isWriteDue && !writing && !hasFailed) {
        this.#start(this.#durability);
      }
    });
  }

  /**
   * True if enough is pending for a background write, and none of it belongs to
   * a step in progress or to a state about to be replaced.
   */
  get #isWriteDue(): boolean {
    return !this.#isInStep && !this.#writer.isBroken && !this.#isRebuilding &&
      this.table.log.length >= PACKED_FLUSH_BYTES;
  }

  // Replacing everything.

  /** Starts a rebuild: another state beside the present one. Nothing may change until it is swapped in or aborted. */
  async rebuild(): Promise<Rebuild> {
    this.#writer.check();
    // Failed and pending writes belong to the state being replaced.
    this.#isRebuilding = true;
    await this.#writer.settled();
    const log = this.#log;
    const blocks = this.#blocks;
    const first = blocks.nextID;
    return new Rebuild({
      write: async (pages): Promise<Ref[]> => {
        const fresh: NewPage[] = [];
        const refs = pages.map((leaf) => blocks.encode(leaf, log.seq, fresh));
        const put = blocks.put(fresh);
        log.putFirstHead(put);
        await this.#store.write({ put }, "relaxed");
        log.isCreated = true;
        for (const ref of refs) ref.written = true;
        return refs;
      },
      swap: (spaces, meta, swapped) => this.#swap(first, spaces, meta, swapped),
      abort: () => {
        this.#isRebuilding = false;
        return this.#clear(this.#pagesBetween(first, blocks.nextID));
      },
    });
  }

  /** Replaces the present state by another. */
  async #swap(
    first: number,
    spaces: DirectoryEntry[][],
    meta: Uint8Array,
    swapped: () => void,
  ): Promise<void> {
    const { table } = this;
    const log = this.#log;
    const writer = this.#writer;
    const durability = this.#durability;
    const old = log.directory;
    const put: Block[] = [];
    const undo = log.restart(spaces, put, meta, durability);
    const deleteRanges = [this.#keys.logs];
    try {
      await this.#store.write({ put, deleteRanges }, durability);
    } catch (error) {
      // Either state may be stored now.
      writer.break(error);
      undo();
      throw error;
    }
    this.#planner.discardAhead();
    for (const ref of old.refs()) this.#blocks.discard(ref);
    log.isCreated = true;
    writer.forgetFailure();
    this.#isUnrecorded = false;
    writer.unsynced = true;
    table.next = log.seq + 1;
    table.reset(log.directory.spaces);
    table.settle();
    this.#isRebuilding = false;
    swapped();
    // Readers of the old pages may still be active.
    if (table.oldest < Infinity) return;
    if (await this.#clear(this.#pagesBetween(0, first))) {
      this.#blocks.forgetGarbage();
    }
  }

  #pagesBetween(first: number, end: number): KeyRange {
    return [this.#keys.page(first), this.#keys.page(end)];
  }

  /** Deletes unused pages; true if it succeeded. */
  async #clear(range: KeyRange): Promise<boolean> {
    try {
      await this.#store.write({ deleteRanges: [range] }, "relaxed");
      return true;
    } catch {
      // Left for a later write, at the latest when the store is opened.
      return false;
    }
  }
}
