/**
 * Rows of keys and values over a block store: ordered, changed in atomic steps,
 * far more of them than fit in memory.
 *
 * A store of blocks is paid for by the request and the transaction, hardly by
 * the byte: a block per row would be ten to sixty times as slow. So:
 *
 * - **Rows are packed into pages**, in key order, just as they are in a
 *   snapshot. A page in memory is its block's content, to be looked up and
 *   changed in place without any decoding. Small pages make a row that is not
 *   in memory cheap to read, at 8 KiB about half more than a block of its own
 *   would be, and where far more rows than fit in memory are changed at random,
 *   they write fewer bytes; large ones save requests where all rows are in memory.
 * - **A change goes to a log first**, with all others since the last write: a
 *   batch of a thousand rows is three blocks, none so large that a browser would
 *   give it a file of its own. A page is written when its share in the log has
 *   become old, so that many changes share one writing. What is written bounds
 *   the rate, and the longer the log, the less that is.
 * - **There are no checkpoints.** Every write takes some of the pages with it
 *   whose changes are in the log for longest; how many depends on the bytes the
 *   log has grown by and on how long it is, never on a count of records, so that
 *   small updates are not held up by large ones. A record is deleted once all
 *   its changes are in blocks; one write is under way at a time, and the next
 *   one is being filled meanwhile, so that what is written always is a prefix.
 *   Where writes are slower than updates, each update waits a moment, and only
 *   if far too much waits for the end of the write under way.
 * - **A page is in whichever block was free.** The directory says in which; it is
 *   in memory, on disk as a whole, and as changes to it in the log's records. So
 *   a version of the rows is a copy of that list. A block is free once neither
 *   the directory nor a version in use names it, as of the write that puts
 *   another page there or deletes it. What has no block yet is copied only when
 *   it changes, and then written.
 * - **Memory is bounded.** Pages that are in blocks leave it when they were not
 *   used for long; others are written first. Opening reads the head, the
 *   directory and the log; pages are read when they are wanted, and the changes
 *   from the log worked in then. Until it is changed again, such a page may leave
 *   memory without being written: its block and the log still have it.
 * - **Every block has a checksum, and is expected**: the head tells the records
 *   and the directory, the directory the pages. One that is missing or damaged
 *   is an error that names it.
 *
 * ```text
 * head            whether it is durable, last and first record, the directory's record, what is kept beside the rows
 * base            the directory as of a record
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
import { separate, type Span } from "../tree.ts";
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
  LEAST,
  readInstalls,
  type Ref,
  writeInstalls,
} from "./directory.ts";
import {
  change,
  emptyPage,
  Packer,
  type Page,
  pageBlock,
  readChange,
  readPage,
  workIn,
} from "./pages.ts";
import { type Content, type Slot, Table, type Version } from "./table.ts";

/** How a packed store is to be. */
export interface PackedStoreOptions {
  /** What the names of its blocks begin with. @default {"kv/"} */
  readonly prefix?: string | undefined;
  /** How much memory its pages may take, in bytes. @default {64 MiB} */
  readonly memoryBudgetBytes?: number | undefined;
  /** How safe what is written in the background is. @default {"relaxed"} */
  readonly durability?: Durability | undefined;
  /** Its timers. @default {the real ones} */
  readonly env?: Env | undefined;
  /** Gives what is kept beside the rows, in one step with them. */
  readonly meta: () => Uint8Array;
}

/** A write, from its making to its end; one that failed is made again as it was. */
interface Job {
  readonly writes: Writes;
  durability: Durability;
  /** Pages whose blocks it writes. */
  readonly pages: readonly Fresh[];
}

/** A page that gets a block. */
interface Fresh {
  readonly ref: Ref;
  readonly bytes: Uint8Array;
}

/** A record of the log. */
interface LogRecord {
  readonly seq: number;
  readonly bytes: number;
}

/** Blocks read in one request when many are wanted one after the other. */
const READ_AHEAD = 16;

/** Pages that a rebuild gathers before it writes them, in bytes. */
const REBUILD_BYTES: number = PACKED_WRITE_BYTES_MAX / 2;

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

  /** The last record that was made. */
  #seq = 0;
  /** Records that are in the store, oldest first. */
  #records: LogRecord[] = [];
  #logBytes = 0;
  /** The record as of which the directory is written; -1 if it is not. */
  #base = -1;
  /** How large it was when it was written, in bytes. */
  #baseBytes = 0;
  #nextID = 1;
  /** Pages written ahead of the record that will name them. */
  #installs: Install[] = [];
  /** Blocks that nobody but a version of this epoch or before it reads. */
  #garbage: { readonly id: number; readonly epoch: number }[] = [];

  /** The write under way; it never rejects. */
  #writing: Promise<void> | undefined;
  /** The write that failed, and why; it is made again before anything else. */
  #failed:
    | { readonly job: Job | undefined; readonly error: unknown }
    | undefined;
  /** Why nothing can be changed any more. */
  #broken: { readonly error: unknown } | undefined;
  /** Whether another state is being built, to take the place of this one. */
  #isRebuilding = false;
  /** Whether a step is being made: what is in memory then is not to be seen after a crash. */
  #open = false;
  /** How much waited to be written when it began, in bytes. */
  #began = 0;
  /** Whether a step was made that is in no record or head. */
  #touched = false;
  /** Whether head and base are in the store. */
  #born = false;
  /** Whether something was written that may not survive a power cut. */
  #unsynced = false;
  /** Pages that may still be written for what the log has grown by, in bytes. */
  #credit = 0;

  /** A store of rows in `store`, which stays the caller's. */
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

  /** Has a block deleted once no version needs it. */
  #discard(id: number): void {
    if (id > 0) this.#garbage.push({ id, epoch: this.table.epoch });
  }

  #key(id: number): string {
    return `${this.#prefix}page/${hex(id)}`;
  }

  #logKey(seq: number): string {
    return `${this.#prefix}log/${hex(seq)}`;
  }

  /** The names of a kind of block: those that begin with it. */
  #range(name: string): [from: string, to: string] {
    // "0" is the character after "/".
    return [`${this.#prefix}${name}/`, `${this.#prefix}${name}0`];
  }

  /** How many pages are not in memory. */
  get cold(): number {
    return this.table.cold;
  }

  /** How much more memory is taken than there should be, in bytes. */
  get excess(): number {
    return this.table.memory - this.#budget;
  }

  /** Pages worth reading for changes to come, in pages. */
  get ahead(): number {
    return Math.max(1, Math.min(256, this.slack / PACKED_PAGE_BYTES));
  }

  /** How much more memory a step may take before it has to spill, in bytes. */
  get slack(): number {
    return this.#budget / 4;
  }

  /** What memory is taken by pages and what waits to be written, in bytes. */
  get memoryBytes(): number {
    return this.table.memory + this.table.log.length;
  }

  // Opening.

  /**
   * Reads what there is; gives what was kept beside the rows, undefined for a
   * new store. What an earlier instance left unfinished is removed.
   *
   * @throws ErrStoreCorrupted if a block is missing or damaged
   */
  async open(): Promise<Uint8Array | undefined> {
    const store = this.#store;
    const headKey = `${this.#prefix}head`;
    const baseKey = `${this.#prefix}base`;
    // Both at once, and seen to fail both: a store that is locked refuses each.
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
    this.#born = true;
    // Not from the start: a browser may walk through all that was deleted there.
    const logs = await store.list(this.#logKey(first), logEnd);
    const changes = this.#readLog(first, logs);
    const put: Block[] = [];
    // What was found may be in core alone, and is to be given as durable.
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

  /** Works the log's changes into the directory; gives where those of rows begin. */
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
      this.#remember(seq, found!.length);
    }
    if (blocks.length > changes.length) {
      throw corrupted(
        blocks.at(-1)!.key,
        "Record is beyond the end of the log",
      );
    }
    return changes;
  }

  #remember(seq: number, size: number): void {
    const bytes = size + PACKED_LOG_BLOCK_BYTES;
    this.#records.push({ seq, bytes });
    this.#logBytes += bytes;
  }

  /** Makes sure that all pages are there; gives the names of those nobody names. */
  #expectPages(keys: readonly string[]): string[] {
    const left = new Set(keys);
    for (const { id } of this.#directory.refs()) {
      if (id > 0 && !left.delete(this.#key(id))) {
        throw corrupted(this.#key(id), "Block is missing");
      }
    }
    return [...left];
  }

  /** Has the changes of a record worked in by the pages they belong to, once those are read. */
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

  /** The slot of a key if its page is not in memory: what is to be loaded before the key can be looked for. */
  missing(
    space: number,
    view: DataView,
    start: number,
    end: number,
  ): Slot | undefined {
    const slot = this.table.slotOf(space, view, start, end);
    return slot.content.leaf ? undefined : slot;
  }

  /** All slots of a space. */
  slots(space: number): readonly Slot[] {
    return this.table.spaces[space]!;
  }

  /**
   * Brings pages into memory. When that is done all of them are there, and stay
   * until something else is loaded.
   *
   * @throws ErrStoreCorrupted if a block is missing or damaged
   */
  load(slots: readonly Slot[]): MaybePromise<void> {
    const waits: Promise<void>[] = [];
    const wanted: Slot[] = [];
    const used = ++this.table.tick;
    for (const slot of slots) {
      slot.used = used;
      if (slot.content.leaf || slot.gone) continue;
      if (slot.loading) waits.push(slot.loading);
      else wanted.push(slot);
    }
    const own = wanted.length > 0 ? this.#read(wanted) : undefined;
    if (isPromise(own)) {
      for (const slot of wanted) slot.loading = own;
      waits.push(own);
    }
    if (waits.length === 0) return;
    // What is loaded meanwhile must not take the place of those that are there: a
    // step that needs more than memory may take would never have all of them.
    const held = [...slots];
    for (const slot of held) slot.holds++;
    return Promise.all(waits).then(() => {}).finally(() => {
      for (const slot of held) {
        slot.holds--;
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
        // Recovered meanwhile: its block may be gone, and nobody wants it.
        if (slot.gone) return;
        const { first, content } = slot;
        const end = this.table.endOf(slot);
        this.table.place(slot, this.#pages(content, blocks[i], first, end));
      });
      if (this.excess > 0) this.table.evict(this.#budget * 7 / 8);
    };
    if (!isPromise(got)) return place(got);
    return got.then(place).then(() => done(), done);
  }

  /** The blocks of contents that are not in memory; undefined for those without one. */
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

  /** The rows of a content from its block, in as many pages as they need. */
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
    return changes ? workIn(leaf, changes) : [leaf];
  }

  // Versions.

  /** Marks the present rows of the first space. */
  freeze(): Version {
    return this.table.freeze();
  }

  /** Gives a version up; its blocks are deleted with a later write. */
  release(version: Version): void {
    this.table.release(version);
  }

  /** The rows of a version whose keys are in [from, to), page by page, in descending order if `reverse`. */
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

  /** The pages of some slots of a version. */
  async #readVersion(
    { slots }: Version,
    start: number,
    end: number,
  ): Promise<Page[]> {
    const some = slots.slice(start, end);
    // Before anything is awaited: they may leave memory meanwhile.
    const leaves = some.map(({ content }) => content.leaf);
    // As they are: a page may get another block meanwhile.
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
   * To be awaited before a step begins: makes a write again that has failed in
   * the background.
   *
   * @throws what it fails with now
   */
  begin(): MaybePromise<void> {
    if (this.#broken) throw this.#broken.error;
    this.table.tick++;
    if (this.#failed === undefined) {
      this.#open = true;
      this.#began = this.table.log.length;
      return;
    }
    if (this.#writing) return this.#writing.then(() => this.begin());
    return chain(this.#retry(), () => this.begin());
  }

  /** To be called when a step cannot be finished: if it has changed anything, nothing of it is ever written, nor anything after it. */
  abandon(error: unknown): void {
    this.#open = false;
    if (this.table.log.length > this.#began) this.#broken ??= { error };
  }

  /**
   * Ends a step: what was changed since `begin()` is written as a whole, or not
   * at all. Has to wait only if what waits to be written is too much.
   */
  commit(): MaybePromise<void> {
    this.#open = false;
    this.#touched = true;
    return this.#press(8);
  }

  /** Sees to it that what waits to be written, and memory, stay within bounds. */
  #press(rounds: number): MaybePromise<void> {
    const { table } = this;
    const crowded = this.#relieve() > 0 && table.unwritten;
    if (table.log.length < PACKED_FLUSH_BYTES && !crowded) return;
    if (this.#failed || this.#broken) return;
    if (!this.#writing) this.#start(this.#durability);
    const waiting = table.log.length;
    if (rounds === 0 || !this.#writing) return;
    if (crowded || waiting > PACKED_PENDING_BYTES_MAX) {
      return this.#writing.then(() => this.#press(rounds - 1));
    }
    if (waiting > PACKED_PENDING_BYTES) return this.#pause(this.#writing);
  }

  /** Waits for a write, but not for long: a slow one has all updates slow down, and none stand still. */
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

  /** Has pages leave memory if they take too much; gives what is still too much, in bytes. */
  #relieve(): number {
    this.table.tick++;
    if (this.excess > 0) this.table.evict(this.#budget * 7 / 8);
    return this.excess;
  }

  /**
   * Has room made in the middle of a step that changes more pages than memory
   * may take: they go into blocks that no record names until the step ends.
   */
  spill(): MaybePromise<void> {
    if (this.#relieve() <= 0 || this.#failed) return;
    if (this.#writing) return this.#writing.then(() => this.spill());
    const pages: Fresh[] = [];
    for (const slot of this.#recede()) {
      // Of the record at hand it may have some changes and lack others.
      this.#installs.push(this.#writePage(slot, this.#seq, pages));
    }
    if (pages.length === 0) return;
    const put = this.#putPages(pages);
    this.#putBirth(put);
    this.#launch({ writes: { put }, durability: "relaxed", pages });
    return chain(this.#writing, () => void this.#relieve());
  }

  /**
   * Makes durable all steps that were made.
   *
   * @throws what a write failed with; it is made again the next time
   */
  sync(): MaybePromise<void> {
    if (this.#broken) throw this.#broken.error;
    if (this.#writing) return this.#writing.then(() => this.sync());
    if (this.#failed) {
      return chain(this.#retry("strict"), () => this.sync());
    }
    const waits = this.table.log.length > 0 || this.#touched;
    if (!waits && !this.#unsynced && !this.#rubbish) return;
    this.#start("strict");
    return chain(this.#writing, () => this.#report());
  }

  /** Throws what the last write has failed with. */
  #report(): void {
    if (this.#broken) throw this.#broken.error;
    if (this.#failed) throw this.#failed.error;
  }

  /** Ends what is under way, and writes what waits. */
  async close(): Promise<void> {
    while (this.#writing) await this.#writing;
    if (this.#broken || this.#failed) return;
    if (this.table.log.length === 0 && !this.#touched) return;
    this.#start(this.#durability);
    while (this.#writing) await this.#writing;
    this.#report();
  }

  // Writing.

  /** Makes the write again that failed. */
  #retry(durability?: Durability): MaybePromise<void> {
    const { job, error } = this.#failed!;
    this.#failed = undefined;
    if (!job) throw error;
    job.durability = durability ?? job.durability;
    this.#launch(job);
    return chain(this.#writing, () => this.#report());
  }

  /** Begins a write of what waits, and of some pages; those that have to be read first are. */
  #start(durability: Durability): void {
    const slots = this.#due();
    const begin = (): void => {
      this.#writing = undefined;
      // They are not to leave memory again before they are written.
      for (const { content } of slots) {
        if (content.leaf && content.changes) {
          content.ref = content.changes = undefined;
        }
      }
      // A step has begun while pages were read; its end comes back to this.
      if (this.#open || this.#broken) return;
      let job: Job;
      try {
        job = this.#build(slots, durability);
      } catch (error) {
        // Half of it is made: it cannot be made again.
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

  /** Makes a write; how it ends shows in `#failed`. */
  #launch(job: Job): void {
    const failed = (error: unknown): void => {
      this.#writing = undefined;
      this.#failed = { job, error };
    };
    const written = (): void => {
      this.#writing = undefined;
      this.#born = true;
      this.#unsynced = job.durability === "relaxed";
      for (const { ref } of job.pages) ref.written = true;
      this.table.sweep();
      // What was added meanwhile may be enough for another one.
      if (!this.#isEnough) return;
      // Whoever waits for this one goes on first: to make one takes a while.
      // Never rejects: a write that fails is handled where it is launched.
      void this.#env.turn().then(() => {
        if (this.#isEnough && !this.#writing && !this.#failed) {
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

  /** Whether enough waits for a write in the background, and none of it is of a step that is being made, or of a state that is to be replaced. */
  get #isEnough(): boolean {
    return !this.#open && !this.#broken && !this.#isRebuilding &&
      this.table.log.length >= PACKED_FLUSH_BYTES;
  }

  /** Pages to be written next, for the log's sake or for memory's. */
  #due(): Slot[] {
    const { dirty, log } = this.table;
    const limit = Math.min(
      this.#budget / 2,
      Math.max(PACKED_LOG_BYTES, this.#directory.bytes / 4),
    );
    // From half the limit on, the longer the log the more.
    const pressure = Math.min(2 * this.#logBytes / limit - 1, 2);
    const grown = log.length + PACKED_LOG_BLOCK_BYTES;
    this.#credit = pressure > 0 ? this.#credit + 4 * pressure * grown : 0;
    const slots = this.excess > 0 ? this.#recede() : [];
    // More than may have become old meanwhile, or the oldest would never be reached.
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

  /** Pages to be written so that they can leave memory: those not used for longest. */
  #recede(): Slot[] {
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

  /** Makes a block of a page, and what is to be changed in the directory. */
  #writePage(slot: Slot, seq: number, pages: Fresh[]): Install {
    const { space, first: from, content } = slot;
    const to = this.table.endOf(slot);
    const ref = this.#fresh(content.leaf!, seq, pages);
    content.ref = ref;
    content.changes = undefined;
    slot.since = Infinity;
    this.table.dirty.delete(slot);
    return { space, from, to, ref };
  }

  #fresh(leaf: Page, seq: number, pages: Fresh[]): Ref {
    if (leaf.rows === 0) return emptyRef(seq);
    const bytes = pageBlock(leaf);
    const crc = viewOf(bytes).getUint32(0, true);
    const size = bytes.length;
    const ref = { id: -1, crc, size, seq, uses: 0, written: false };
    pages.push({ ref, bytes });
    return ref;
  }

  /** Gives pages their blocks: in the place of those that are `free`, which costs less than to delete them, and then of no others. */
  #putPages(pages: readonly Fresh[], free: number[] = []): Block[] {
    return pages.map(({ ref, bytes }) => {
      ref.id = free.pop() ?? this.#nextID++;
      return { key: this.#key(ref.id), bytes };
    });
  }

  /** Makes pages of contents that only versions need, if memory is short. */
  #freshShadows(pages: Fresh[]): Ref[] {
    const { table } = this;
    const refs: Ref[] = [];
    let bytes = this.excess > 0 ? PACKED_WRITE_BYTES_MAX : 0;
    while (bytes > 0 && table.shadows.length > 0) {
      const content = table.shadows.pop()!;
      bytes -= content.bytes;
      content.ref = this.#fresh(content.leaf!, this.#seq, pages);
      refs.push(content.ref);
      table.stale.push(content);
    }
    return refs;
  }

  /** Makes a write of all that waits and of these pages. */
  #build(slots: readonly Slot[], durability: Durability): Job {
    const { table } = this;
    const pages: Fresh[] = [];
    const shadows = this.#freshShadows(pages);
    const first = this.#seq + 1;
    const last = first + table.cuts.length;
    for (const slot of slots) {
      if (slot.gone || slot.since === Infinity || !slot.content.leaf) continue;
      this.#installs.push(this.#writePage(slot, last, pages));
    }
    for (const install of this.#installs) this.#directory.install(install);
    const free = this.#collect();
    const put = this.#putPages(pages, free);
    for (const { id } of shadows) this.#discard(id);
    if (table.log.length > 0 || this.#installs.length > 0) this.#putLog(put);
    const deleteRanges = this.#trim(first, put);
    this.#putHead(put, this.#meta(), durability);
    this.#touched = false;
    const trash = free.map((id) => this.#key(id));
    return { writes: { put, delete: trash, deleteRanges }, durability, pages };
  }

  /** Makes records of what changed in the directory and in rows. */
  #putLog(put: Block[]): void {
    const { table } = this;
    const log = table.log.finish();
    let from = 0;
    for (const to of [...table.cuts, log.length]) {
      const seq = ++this.#seq;
      const w = beginBlock(LOG, to - from + 1024).varint(seq);
      writeInstalls(w, this.#installs);
      const bytes = endBlock(w.raw(log.subarray(from, to)).finish());
      put.push({ key: this.#logKey(seq), bytes });
      this.#remember(seq, bytes.length);
      this.#installs = [];
      from = to;
    }
    table.cut();
    table.next = this.#seq + 1;
  }

  /** Whether there are blocks to be deleted. */
  get #rubbish(): boolean {
    const [oldest] = this.#garbage;
    return oldest !== undefined && oldest.epoch < this.table.oldest;
  }

  /** The blocks that nobody reads any more. */
  #collect(): number[] {
    const { oldest } = this.table;
    const keep = this.#garbage.findIndex(({ epoch }) => epoch >= oldest);
    const gone = this.#garbage.splice(0, keep < 0 ? Infinity : keep);
    return gone.map(({ id }) => id);
  }

  /** The range of names of records before `keep` that nobody needs any more; writes the directory if it was them who had it. */
  #trim(keep: number, put: Block[]): [from: string, to: string][] {
    const records = this.#records;
    // Not those that are being written: deletions come before puts.
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

  /** Before the first record there may be pages: head and base of no rows tell that all is as it should be. */
  #putBirth(put: Block[]): void {
    if (this.#born) return;
    const base = beginBlock(BASE).varint(0);
    new Directory(() => {}).write(base);
    const head = beginBlock(HEAD).u8(0).varint(0).varint(1).varint(0).varint(1);
    for (const [name, w] of [["base", base], ["head", head]] as const) {
      put.push({ key: this.#prefix + name, bytes: endBlock(w.finish()) });
    }
  }

  // Replacing everything.

  /** Begins another state beside the present one. Nothing is to be changed until it is swapped in or given up. */
  async rebuild(): Promise<Rebuild> {
    if (this.#broken) throw this.#broken.error;
    // What failed, or waits, is of the state that is to be replaced.
    this.#isRebuilding = true;
    while (this.#writing) await this.#writing;
    const first = this.#nextID;
    return new Rebuild({
      write: async (pages): Promise<Ref[]> => {
        const fresh: Fresh[] = [];
        const refs = pages.map((leaf) => this.#fresh(leaf, this.#seq, fresh));
        const put = this.#putPages(fresh);
        this.#putBirth(put);
        await this.#store.write({ put }, "relaxed");
        this.#born = true;
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

  /** Puts another state in the place of the present one. */
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
      // Nobody knows which of the two states is there now.
      this.#broken ??= { error };
      this.#directory = old;
      this.#seq = seq;
      this.#base = base;
      this.#records = records;
      throw error;
    }
    // Pages that were written ahead, too.
    for (const { ref } of this.#installs.splice(0)) this.#discard(ref.id);
    for (const { id } of old.refs()) this.#discard(id);
    this.#born = true;
    this.#logBytes = 0;
    this.#failed = undefined;
    this.#touched = false;
    this.#unsynced = true;
    table.next = this.#seq + 1;
    table.reset(directory.spaces);
    table.settle();
    this.#isRebuilding = false;
    swapped();
    // Not before: whoever asked while that was written reads the old pages.
    if (table.oldest < Infinity) return;
    if (await this.#clear(this.#key(0), this.#key(first))) this.#garbage = [];
  }

  /** Deletes pages that nobody needs; whether it did. */
  async #clear(from: string, to: string): Promise<boolean> {
    try {
      await this.#store.write({ deleteRanges: [[from, to]] }, "relaxed");
      return true;
    } catch {
      // They are in nobody's way, and deleted later, when the store is opened at the latest.
      return false;
    }
  }
}

/** What a rebuild needs of its store. */
interface RebuildInit {
  readonly write: (pages: readonly Page[]) => Promise<Ref[]>;
  readonly swap: (
    spaces: DirectoryEntry[][],
    meta: Uint8Array,
    swapped: () => void,
  ) => Promise<void>;
  readonly abort: () => Promise<unknown>;
}

/** Another state of a packed store, built beside the present one from rows in order of their keys. */
export class Rebuild {
  readonly #init: RebuildInit;
  readonly #spaces: DirectoryEntry[][] = [];
  #entries: DirectoryEntry[] = [];
  #packer = new Packer();
  #last: Page | undefined;

  /** A state without rows. */
  constructor(init: RebuildInit) {
    this.#init = init;
  }

  /** Where the rows of the present space go. */
  get packer(): Packer {
    return this.#packer;
  }

  /** Writes pages if there are enough of them. */
  drain(): MaybePromise<void> {
    const bytes = this.#packer.pages.length * PACKED_PAGE_BYTES;
    if (bytes >= REBUILD_BYTES) return this.#write();
  }

  async #write(): Promise<void> {
    const { pages } = this.#packer;
    this.#packer.pages = [];
    const refs = await this.#init.write(pages);
    pages.forEach((leaf, i) => {
      const first = this.#last ? separate(this.#last, leaf) : LEAST;
      this.#entries.push({ first, ref: refs[i]! });
      this.#last = leaf;
    });
  }

  /** Ends a space; the next row is of the next one. */
  async endSpace(): Promise<void> {
    this.#packer.cut();
    if (this.#packer.pages.length > 0) await this.#write();
    if (this.#entries.length === 0) {
      this.#entries.push({ first: LEAST, ref: emptyRef(0) });
    }
    this.#spaces.push(this.#entries);
    this.#entries = [];
    this.#last = undefined;
  }

  /** Puts it in the place of the present state, in one step with what is kept beside the rows; calls `swapped` in the moment of it. */
  swap(meta: Uint8Array, swapped: () => void): Promise<void> {
    return this.#init.swap(this.#spaces, meta, swapped);
  }

  /** Gives it up: what was written of it is deleted, now or when the store is opened next. */
  async abort(): Promise<void> {
    await this.#init.abort();
  }
}
