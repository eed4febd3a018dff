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
  PACKED_LOG_BLOCK_BYTES,
  PACKED_LOG_BYTES,
  PACKED_MEMORY_BYTES,
  PACKED_PAGE_BYTES,
  PACKED_PENDING_BYTES,
  PACKED_PENDING_BYTES_MAX,
  PACKED_PENDING_MS,
  PACKED_WRITE_BYTES_MAX,
} from "../../limits.ts";
import { type Env, systemEnv } from "../../env.ts";
import { chain, isPromise } from "../../async.ts";
import type { MaybePromise } from "../../statemachine/types.ts";
import type {
  Block,
  BlockStore,
  Changes as Writes,
  Durability,
} from "../../store/store.ts";
import type { Span } from "../tree.ts";
import { viewOf } from "../view.ts";
import {
  BASE,
  beginBlock,
  corrupted,
  endBlock,
  HEAD,
  LOG,
  readBlock,
} from "./block.ts";
import {
  Directory,
  type DirectoryEntry,
  emptyRef,
  indexOf,
  type Install,
  readInstalls,
  type Ref,
  writeInstalls,
} from "./directory.ts";
import {
  change,
  emptyPage,
  mergeChanges,
  type Page,
  pageBlock,
  readChange,
  readPage,
} from "./pages.ts";
import { Rebuild } from "./rebuild.ts";
import { type Content, type Slot, Table, type Version } from "./table.ts";

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

/** Write of the store; a failed one is retried unchanged. */
interface Job {
  readonly writes: Writes;
  durability: Durability;
  /** Pages whose blocks the write contains. */
  readonly pages: readonly NewPage[];
}

/** Page that gets a new block. */
interface NewPage {
  readonly ref: Ref;
  readonly bytes: Uint8Array;
}

/** Record of the write-ahead log. */
interface LogRecord {
  readonly seq: number;
  readonly bytes: number;
}

/** Maximum number of blocks read ahead in one request of a scan. */
const READ_AHEAD = 16;

function hex(value: number): string {
  return value.toString(16).padStart(13, "0");
}

/** Sorted rows in pages over a {@linkcode BlockStore}. */
export class PackedStore {
  readonly table: Table = new Table();
  readonly #store: BlockStore;
  readonly #prefix: string;
  readonly #budget: number;
  readonly #durability: Durability;
  readonly #env: Env;
  readonly #meta: () => Uint8Array;
  #directory: Directory;

  /** Number of the last record made. */
  #seq = 0;
  /** Records in the store, oldest first. */
  #records: LogRecord[] = [];
  #logBytes = 0;
  /** Record as of which the directory was written; -1 if it was not. */
  #base = -1;
  /** Size of that directory block, in bytes. */
  #baseBytes = 0;
  #nextID = 1;
  /** Pages written ahead of the record that will refer to them. */
  #installs: Install[] = [];
  /** Blocks that only versions of this epoch or older still read. */
  #garbage: { readonly id: number; readonly epoch: number }[] = [];

  /** Write in progress; never rejects. */
  #writing: Promise<void> | undefined;
  /** Write that failed, with its error; retried before every other write. */
  #failed:
    | { readonly job: Job | undefined; readonly error: unknown }
    | undefined;
  /** Error after which the store refuses every change. */
  #broken: { readonly error: unknown } | undefined;
  /** Set while a rebuild prepares a state to replace this one. */
  #isRebuilding = false;
  /** Set during a step, whose changes must not be written before it ends. */
  #isInStep = false;
  /** Bytes of pending log when the step began. */
  #stepStart = 0;
  /** Set if a completed step is in no record or head yet. */
  #isUnrecorded = false;
  /** Set once head and base are in the store. */
  #isCreated = false;
  /** Set if a write may not survive a power failure. */
  #unsynced = false;
  /** Bytes of pages that may be written for the growth of the log. */
  #credit = 0;

  /** Creates a store of rows in `store`, which belongs to the caller. */
  constructor(store: BlockStore, options: PackedStoreOptions) {
    this.#store = store;
    this.#prefix = options.prefix ?? "kv/";
    this.#budget = options.memoryBudgetBytes ?? PACKED_MEMORY_BYTES;
    this.#durability = options.durability ?? "relaxed";
    this.#env = options.env ?? systemEnv;
    this.#meta = options.meta;
    this.#directory = this.#newDirectory();
  }

  #newDirectory(): Directory {
    return new Directory(({ id }) => this.#discard(id));
  }

  /** Schedules a block for deletion once no version needs it. */
  #discard(id: number): void {
    if (id > 0) this.#garbage.push({ id, epoch: this.table.epoch });
  }

  #key(id: number): string {
    return `${this.#prefix}page/${hex(id)}`;
  }

  #logKey(seq: number): string {
    return `${this.#prefix}log/${hex(seq)}`;
  }

  /** Range of keys of a kind of block. */
  #range(name: string): [from: string, to: string] {
    // "0" is the character after "/".
    return [`${this.#prefix}${name}/`, `${this.#prefix}${name}0`];
  }

  /** Number of pages not in memory. */
  get cold(): number {
    return this.table.cold;
  }

  /** Memory over budget, in bytes. */
  get excess(): number {
    return this.table.memory - this.#budget;
  }

  /** Number of pages to read ahead for coming changes. */
  get ahead(): number {
    return Math.max(1, Math.min(256, this.slack / PACKED_PAGE_BYTES));
  }

  /** Memory over budget at which a step has to spill, in bytes. */
  get slack(): number {
    return this.#budget / 4;
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
    const headKey = `${this.#prefix}head`;
    const baseKey = `${this.#prefix}base`;
    // Concurrent, so that both errors are handled: a locked store rejects each
    // call.
    const [pages, [head, base]] = await Promise.all([
      store.keys(...this.#range("page")),
      store.get([headKey, baseKey]),
    ]);
    const [logStart, logEnd] = this.#range("log");
    if (!head && !base && pages.length === 0) {
      const logs = await store.keys(logStart, logEnd, { limit: 1 });
      if (logs.length === 0) return;
    }
    let first = 0;
    let meta: Uint8Array | undefined;
    let durable = false;
    readBlock(headKey, HEAD, head, (r) => {
      durable = r.u8() === 1;
      this.#seq = r.varint();
      first = r.varint();
      this.#base = r.varint();
      this.#nextID = r.varint();
      meta = r.raw(r.remaining).slice();
    });
    readBlock(baseKey, BASE, base, (r) => {
      if (r.varint() !== this.#base) throw corrupted(baseKey);
      this.#directory.read(r);
    });
    this.#isCreated = true;
    // Not from the start of the log: browsers may scan deleted keys.
    const logs = await store.list(this.#logKey(first), logEnd);
    const changes = this.#readLog(first, logs);
    const put: Block[] = [];
    // A state that was not synced becomes durable before its index is reported
    // as such.
    if (!durable) this.#putHead(put, meta!, "strict");
    const stray = this.#expectPages(pages);
    if (put.length + stray.length > 0) {
      await store.write({ put, delete: stray }, durable ? "relaxed" : "strict");
    }
    this.#garbage = [];
    this.table.next = this.#seq + 1;
    this.table.reset(this.#directory.spaces);
    for (const { seq, view, at } of changes) this.#assign(seq, view, at);
    this.table.settle();
    return meta!.length === 0 ? undefined : meta;
  }

  /** Applies the directory changes of the log; returns the positions of its row changes. */
  #readLog(
    first: number,
    blocks: readonly Block[],
  ): { seq: number; view: DataView; at: number }[] {
    const changes: { seq: number; view: DataView; at: number }[] = [];
    for (let seq = first; seq <= this.#seq; seq++) {
      const key = this.#logKey(seq);
      const block = blocks[seq - first];
      const found = block?.key === key ? block.bytes : undefined;
      readBlock(key, LOG, found, (r) => {
        if (r.varint() !== seq) throw corrupted(key);
        for (const install of readInstalls(r)) {
          if (seq > this.#base) this.#directory.install(install);
        }
        changes.push({ seq, view: viewOf(found!), at: r.offset });
      });
      this.#addRecord(seq, found!.length);
    }
    if (blocks.length > changes.length) {
      throw corrupted(
        blocks.at(-1)!.key,
        "Record is beyond the end of the log",
      );
    }
    return changes;
  }

  #addRecord(seq: number, size: number): void {
    const bytes = size + PACKED_LOG_BLOCK_BYTES;
    this.#records.push({ seq, bytes });
    this.#logBytes += bytes;
  }

  /** Checks that all pages exist; returns the keys of blocks that nothing refers to. */
  #expectPages(keys: readonly string[]): string[] {
    const left = new Set(keys);
    for (const { id } of this.#directory.refs()) {
      if (id > 0 && !left.delete(this.#key(id))) {
        throw corrupted(this.#key(id), "Block is missing");
      }
    }
    return [...left];
  }

  /** Assigns the changes of a record to their pages, which merge them when loaded. */
  #assign(seq: number, view: DataView, start: number): void {
    const { table } = this;
    let at = start;
    while (readChange(view, at)) {
      const { space, keyStart, keyEnd } = change;
      const slot = table.slotOf(space, view, keyStart, keyEnd);
      if (slot.content.ref!.seq < seq) {
        const changes = slot.content.changes ??= { views: [], at: [] };
        changes.views.push(view);
        changes.at.push(at);
        slot.since = Math.min(slot.since, seq);
        table.dirty.add(slot);
      }
      at = change.end;
    }
    if (at !== view.byteLength) throw corrupted(this.#logKey(seq));
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
    const waits: Promise<void>[] = [];
    const wanted: Slot[] = [];
    const used = ++this.table.tick;
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
        slot.used = this.table.tick;
      }
    });
  }

  #read(slots: readonly Slot[]): MaybePromise<void> {
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
        const end = this.table.endOf(slot);
        this.table.place(slot, this.#pages(content, blocks[i], first, end));
      });
      if (this.excess > 0) this.table.evict(this.#budget * 7 / 8);
    };
    if (!isPromise(got)) return place(got);
    return got.then(place).then(() => done(), done);
  }

  /** Reads the blocks of contents; undefined for those without a block. */
  #get(
    contents: readonly Content[],
  ): MaybePromise<(Uint8Array | undefined)[]> {
    const keys = contents.map(({ ref }) => ref!.id).filter((id) => id > 0)
      .map((id) => this.#key(id));
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
      : readPage(this.#key(id), crc, block, from, to);
    return changes ? mergeChanges(leaf, changes) : [leaf];
  }

  // Versions.

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
      const pages = await this.#readVersion(version, at, at + count);
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

  /** Reads the pages of some slots of a version. */
  async #readVersion(
    { slots }: Version,
    start: number,
    end: number,
  ): Promise<Page[]> {
    const some = slots.slice(start, end);
    // Captured before the first await: pages may be evicted later.
    const leaves = some.map(({ content }) => content.leaf);
    // Copied: a page may get another block during the read.
    const contents = some.filter((_, i) => !leaves[i]).map(({ content }) => ({
      ...content,
    }));
    const blocks = await this.#get(contents);
    let n = 0;
    return some.flatMap(({ first }, i) => {
      const to = slots[start + i + 1]?.first;
      return leaves[i] ?? this.#pages(contents[n]!, blocks[n++], first, to);
    });
  }

  // Changing.

  /**
   * Starts a step; await it first. Retries a failed background write.
   *
   * @throws the error of that write if it fails again
   */
  begin(): MaybePromise<void> {
    if (this.#broken) throw this.#broken.error;
    this.table.tick++;
    if (this.#failed === undefined) {
      this.#isInStep = true;
      this.#stepStart = this.table.log.length;
      return;
    }
    if (this.#writing) return this.#writing.then(() => this.begin());
    return chain(this.#retry(), () => this.begin());
  }

  /**
   * Abandons a step that cannot be completed: if it changed anything, neither
   * it nor any later change is ever written.
   */
  abandon(error: unknown): void {
    this.#isInStep = false;
    if (this.table.log.length > this.#stepStart) this.#broken ??= { error };
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
    const crowded = this.#evict() > 0 && table.unwritten;
    if (table.log.length < PACKED_FLUSH_BYTES && !crowded) return;
    if (this.#failed || this.#broken) return;
    if (!this.#writing) this.#start(this.#durability);
    const waiting = table.log.length;
    if (rounds === 0 || !this.#writing) return;
    if (crowded || waiting > PACKED_PENDING_BYTES_MAX) {
      return this.#writing.then(() => this.#applyBackpressure(rounds - 1));
    }
    if (waiting > PACKED_PENDING_BYTES) return this.#pause(this.#writing);
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
    if (this.excess > 0) this.table.evict(this.#budget * 7 / 8);
    return this.excess;
  }

  /**
   * Spills pages in the middle of a step that changes more than fits in memory:
   * into blocks that no record refers to until the step ends.
   */
  spill(): MaybePromise<void> {
    if (this.#evict() <= 0 || this.#failed) return;
    if (this.#writing) return this.#writing.then(() => this.spill());
    const pages: NewPage[] = [];
    for (const slot of this.#leastRecentlyUsed()) {
      // The page may have some but not all changes of the current record.
      this.#installs.push(this.#writePage(slot, this.#seq, pages));
    }
    if (pages.length === 0) return;
    const put = this.#putPages(pages);
    this.#putFirstHead(put);
    this.#launch({ writes: { put }, durability: "relaxed", pages });
    return chain(this.#writing, () => void this.#evict());
  }

  /**
   * Makes all completed steps durable.
   *
   * @throws the error of a write, which the next call retries
   */
  sync(): MaybePromise<void> {
    if (this.#broken) throw this.#broken.error;
    if (this.#writing) return this.#writing.then(() => this.sync());
    if (this.#failed) {
      return chain(this.#retry("strict"), () => this.sync());
    }
    const waits = this.table.log.length > 0 || this.#isUnrecorded;
    if (!waits && !this.#unsynced && !this.#hasGarbage) return;
    this.#start("strict");
    return chain(this.#writing, () => this.#report());
  }

  /** Throws the error of the last write, if it failed. */
  #report(): void {
    if (this.#broken) throw this.#broken.error;
    if (this.#failed) throw this.#failed.error;
  }

  /** Waits for the write in progress, and writes what is pending. */
  async close(): Promise<void> {
    while (this.#writing) await this.#writing;
    if (this.#broken || this.#failed) return;
    if (this.table.log.length === 0 && !this.#isUnrecorded) return;
    this.#start(this.#durability);
    while (this.#writing) await this.#writing;
    this.#report();
  }

  // Writing.

  /** Retries the failed write. */
  #retry(durability?: Durability): MaybePromise<void> {
    const { job, error } = this.#failed!;
    this.#failed = undefined;
    if (!job) throw error;
    job.durability = durability ?? job.durability;
    this.#launch(job);
    return chain(this.#writing, () => this.#report());
  }

  /** Starts a write of everything pending and of some pages, which are loaded first if necessary. */
  #start(durability: Durability): void {
    const slots = this.#selectPages();
    const begin = (): void => {
      this.#writing = undefined;
      // Without block and changes they are not evicted before they are written.
      for (const { content } of slots) {
        if (content.leaf && content.changes) {
          content.ref = content.changes = undefined;
        }
      }
      // A step began while pages were loaded; its end starts the write again.
      if (this.#isInStep || this.#broken) return;
      let job: Job;
      try {
        job = this.#build(slots, durability);
      } catch (error) {
        // Half built: a retry is impossible.
        this.#broken ??= { error };
        return;
      }
      this.#launch(job);
    };
    const fail = (error: unknown): void => {
      this.#writing = undefined;
      this.#failed = { job: undefined, error };
    };
    try {
      const loaded = this.load(slots);
      if (!isPromise(loaded)) return begin();
      this.#writing = loaded.then(begin).then(() => this.#writing, fail);
    } catch (error) {
      fail(error);
    }
  }

  /** Executes a write; its failure is recorded in `#failed`. */
  #launch(job: Job): void {
    const failed = (error: unknown): void => {
      this.#writing = undefined;
      this.#failed = { job, error };
    };
    const written = (): void => {
      this.#writing = undefined;
      this.#isCreated = true;
      this.#unsynced = job.durability === "relaxed";
      for (const { ref } of job.pages) ref.written = true;
      this.table.sweep();
      // Enough may be pending for the next write.
      if (!this.#isWriteDue) return;
      // Callers that wait for this write run first, because building the next
      // one takes time.
      // Never rejects: failures are recorded by `#launch()`.
      void this.#env.turn().then(() => {
        if (this.#isWriteDue && !this.#writing && !this.#failed) {
          this.#start(this.#durability);
        }
      });
    };
    try {
      const done = this.#store.write(job.writes, job.durability);
      if (!isPromise(done)) return written();
      this.#writing = done.then(written, failed);
    } catch (error) {
      failed(error);
    }
  }

  /**
   * True if enough is pending for a background write, and none of it belongs to
   * a step in progress or to a state about to be replaced.
   */
  get #isWriteDue(): boolean {
    return !this.#isInStep && !this.#broken && !this.#isRebuilding &&
      this.table.log.length >= PACKED_FLUSH_BYTES;
  }

  /** Selects the pages to write next, to shorten the log or to free memory. */
  #selectPages(): Slot[] {
    const { dirty, log } = this.table;
    const limit = Math.min(
      this.#budget / 2,
      Math.max(PACKED_LOG_BYTES, this.#directory.bytes / 4),
    );
    // From half the limit on, the longer the log, the more pages.
    const pressure = Math.min(2 * this.#logBytes / limit - 1, 2);
    const grown = log.length + PACKED_LOG_BLOCK_BYTES;
    this.#credit = pressure > 0 ? this.#credit + 4 * pressure * grown : 0;
    const slots = this.excess > 0 ? this.#leastRecentlyUsed() : [];
    // At least as much as the log grows, or the oldest changes would never be
    // reached.
    const most = Math.max(PACKED_WRITE_BYTES_MAX, 3 * log.length);
    let bytes = Math.min(this.#credit, most);
    if (bytes < PACKED_PAGE_BYTES) return slots;
    const oldest = [...dirty].sort((a, b) => a.since - b.since);
    for (const slot of oldest) {
      if (bytes <= 0) break;
      const size = slot.content.leaf?.used ?? PACKED_PAGE_BYTES;
      bytes -= size;
      this.#credit -= size;
      if (!slots.includes(slot)) slots.push(slot);
    }
    return slots;
  }

  /** Selects least recently used pages to write, so that they can be evicted. */
  #leastRecentlyUsed(): Slot[] {
    const { dirty, tick } = this.table;
    const slots = [...dirty].filter(({ content, used }) =>
      content.leaf && used !== tick
    ).sort((a, b) => a.used - b.used);
    let bytes = Math.min(
      this.excess + this.#budget / 8,
      PACKED_WRITE_BYTES_MAX,
    );
    const end = slots.findIndex(({ content }) => (bytes -= content.bytes) < 0);
    return end < 0 ? slots : slots.slice(0, end + 1);
  }

  /** Builds the block of a page, and the change of the directory. */
  #writePage(slot: Slot, seq: number, pages: NewPage[]): Install {
    const { space, first: from, content } = slot;
    const to = this.table.endOf(slot);
    const ref = this.#newRef(content.leaf!, seq, pages);
    content.ref = ref;
    content.changes = undefined;
    slot.since = Infinity;
    this.table.dirty.delete(slot);
    return { space, from, to, ref };
  }

  #newRef(leaf: Page, seq: number, pages: NewPage[]): Ref {
    if (leaf.rows === 0) return emptyRef(seq);
    const bytes = pageBlock(leaf);
    const crc = viewOf(bytes).getUint32(0, true);
    const size = bytes.length;
    const ref = { id: -1, crc, size, seq, uses: 0, written: false };
    pages.push({ ref, bytes });
    return ref;
  }

  /** Assigns blocks to pages: first those of `free`, because overwriting costs less than deleting. */
  #putPages(pages: readonly NewPage[], free: number[] = []): Block[] {
    return pages.map(({ ref, bytes }) => {
      ref.id = free.pop() ?? this.#nextID++;
      return { key: this.#key(ref.id), bytes };
    });
  }

  /** Builds blocks for contents that only versions need, if memory is over budget. */
  #shadowRefs(pages: NewPage[]): Ref[] {
    const { table } = this;
    const refs: Ref[] = [];
    let bytes = this.excess > 0 ? PACKED_WRITE_BYTES_MAX : 0;
    while (bytes > 0 && table.shadows.length > 0) {
      const content = table.shadows.pop()!;
      bytes -= content.bytes;
      content.ref = this.#newRef(content.leaf!, this.#seq, pages);
      refs.push(content.ref);
      table.stale.push(content);
    }
    return refs;
  }

  /** Builds a write of everything pending and of these pages. */
  #build(slots: readonly Slot[], durability: Durability): Job {
    const { table } = this;
    const pages: NewPage[] = [];
    const shadows = this.#shadowRefs(pages);
    const first = this.#seq + 1;
    const last = first + table.recordEnds.length;
    for (const slot of slots) {
      if (slot.isRemoved || slot.since === Infinity || !slot.content.leaf) {
        continue;
      }
      this.#installs.push(this.#writePage(slot, last, pages));
    }
    for (const install of this.#installs) this.#directory.install(install);
    const free = this.#collectGarbage();
    const put = this.#putPages(pages, free);
    for (const { id } of shadows) this.#discard(id);
    if (table.log.length > 0 || this.#installs.length > 0) this.#putLog(put);
    const deleteRanges = this.#trimLog(first, put);
    this.#putHead(put, this.#meta(), durability);
    this.#isUnrecorded = false;
    const unused = free.map((id) => this.#key(id));
    return { writes: { put, delete: unused, deleteRanges }, durability, pages };
  }

  /** Builds log records of the changes of directory and rows. */
  #putLog(put: Block[]): void {
    const { table } = this;
    const log = table.log.finish();
    let from = 0;
    for (const to of [...table.recordEnds, log.length]) {
      const seq = ++this.#seq;
      const w = beginBlock(LOG, to - from + 1024).varint(seq);
      writeInstalls(w, this.#installs);
      const bytes = endBlock(w.raw(log.subarray(from, to)).finish());
      put.push({ key: this.#logKey(seq), bytes });
      this.#addRecord(seq, bytes.length);
      this.#installs = [];
      from = to;
    }
    table.clearLog();
    table.next = this.#seq + 1;
  }

  /** True if there are blocks to delete. */
  get #hasGarbage(): boolean {
    const [oldest] = this.#garbage;
    return oldest !== undefined && oldest.epoch < this.table.oldest;
  }

  /** Removes and returns the blocks that no version reads any more. */
  #collectGarbage(): number[] {
    const { oldest } = this.table;
    const keep = this.#garbage.findIndex(({ epoch }) => epoch >= oldest);
    const gone = this.#garbage.splice(0, keep < 0 ? Infinity : keep);
    return gone.map(({ id }) => id);
  }

  /**
   * Returns the range of records before `keep` that are no longer needed;
   * writes the directory if they contain changes of it.
   */
  #trimLog(keep: number, put: Block[]): [from: string, to: string][] {
    const records = this.#records;
    // Not the records of this write: deletions are applied before puts.
    for (const { since } of this.table.dirty) keep = Math.min(keep, since);
    let count = 0;
    let bytes = 0;
    for (const record of records) {
      if (record.seq >= keep) break;
      if (record.seq > this.#base) bytes += record.bytes;
      count++;
    }
    if (
      this.#base < 0 ||
      bytes > Math.max(PACKED_FLUSH_BYTES / 2, this.#baseBytes)
    ) {
      this.#putBase(put);
    } else {
      const end = records.findIndex(({ seq }) => seq > this.#base);
      if (end >= 0) count = Math.min(count, end);
    }
    const gone = records.splice(0, count);
    for (const { bytes } of gone) this.#logBytes -= bytes;
    if (gone.length === 0) return [];
    return [[this.#logKey(gone[0]!.seq), this.#logKey(gone.at(-1)!.seq + 1)]];
  }

  #putBase(put: Block[]): void {
    const w = beginBlock(BASE).varint(this.#seq);
    this.#directory.write(w);
    const bytes = endBlock(w.finish());
    put.push({ key: `${this.#prefix}base`, bytes });
    this.#base = this.#seq;
    this.#baseBytes = bytes.length;
  }

  #putHead(put: Block[], meta: Uint8Array, durability: Durability): void {
    const first = this.#records[0]?.seq ?? this.#seq + 1;
    const strict = durability === "strict" ? 1 : 0;
    const w = beginBlock(HEAD).u8(strict).varint(this.#seq).varint(first)
      .varint(this.#base).varint(this.#nextID).raw(meta);
    put.push({ key: `${this.#prefix}head`, bytes: endBlock(w.finish()) });
  }

  /** Before the first record there may already be pages: an empty head and base make the store consistent. */
  #putFirstHead(put: Block[]): void {
    if (this.#isCreated) return;
    const base = beginBlock(BASE).varint(0);
    new Directory(() => {}).write(base);
    const head = beginBlock(HEAD).u8(0).varint(0).varint(1).varint(0).varint(1);
    for (const [name, w] of [["base", base], ["head", head]] as const) {
      put.push({ key: this.#prefix + name, bytes: endBlock(w.finish()) });
    }
  }

  // Replacing everything.

  /** Starts a rebuild: another state beside the present one. Nothing may change until it is swapped in or aborted. */
  async rebuild(): Promise<Rebuild> {
    if (this.#broken) throw this.#broken.error;
    // Failed and pending writes belong to the state being replaced.
    this.#isRebuilding = true;
    while (this.#writing) await this.#writing;
    const first = this.#nextID;
    return new Rebuild({
      write: async (pages): Promise<Ref[]> => {
        const fresh: NewPage[] = [];
        const refs = pages.map((leaf) => this.#newRef(leaf, this.#seq, fresh));
        const put = this.#putPages(fresh);
        this.#putFirstHead(put);
        await this.#store.write({ put }, "relaxed");
        this.#isCreated = true;
        for (const ref of refs) ref.written = true;
        return refs;
      },
      swap: (spaces, meta, swapped) => this.#swap(first, spaces, meta, swapped),
      abort: () => {
        this.#isRebuilding = false;
        return this.#clear(this.#key(first), this.#key(this.#nextID));
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
    const old = this.#directory;
    const base = this.#base;
    const directory = this.#newDirectory();
    directory.replace(spaces);
    this.#directory = directory;
    const seq = this.#seq++;
    const put: Block[] = [];
    this.#putBase(put);
    const records = this.#records;
    this.#records = [];
    this.#putHead(put, meta, this.#durability);
    const deleteRanges = [this.#range("log")];
    try {
      await this.#store.write({ put, deleteRanges }, this.#durability);
    } catch (error) {
      // Either state may be stored now.
      this.#broken ??= { error };
      this.#directory = old;
      this.#seq = seq;
      this.#base = base;
      this.#records = records;
      throw error;
    }
    // Including pages written ahead.
    for (const { ref } of this.#installs.splice(0)) this.#discard(ref.id);
    for (const { id } of old.refs()) this.#discard(id);
    this.#isCreated = true;
    this.#logBytes = 0;
    this.#failed = undefined;
    this.#isUnrecorded = false;
    this.#unsynced = true;
    table.next = this.#seq + 1;
    table.reset(directory.spaces);
    table.settle();
    this.#isRebuilding = false;
    swapped();
    // Readers of the old pages may still be active.
    if (table.oldest < Infinity) return;
    if (await this.#clear(this.#key(0), this.#key(first))) this.#garbage = [];
  }

  /** Deletes unused pages; true if it succeeded. */
  async #clear(from: string, to: string): Promise<boolean> {
    try {
      await this.#store.write({ deleteRanges: [[from, to]] }, "relaxed");
      return true;
    } catch {
      // Left for a later write, at the latest when the store is opened.
      return false;
    }
  }
}
