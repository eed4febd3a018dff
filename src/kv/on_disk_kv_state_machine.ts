/**
 * The on-disk key-value machine.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  checkOptions,
  isBlockStore,
  isCount,
  isOneOf,
  optional,
  type OptionChecks,
} from "../options.ts";
import { ByteReader, ByteWriter, encodeText } from "../bytes.ts";
import { chain, isPromise } from "../async.ts";
import type { HostRow, HostState, IHostState } from "../rsm/host_state.ts";
import type {
  Forked,
  IExtended,
  IFork,
  IHash,
  IOnDiskStateMachine,
  IRemoveData,
} from "../statemachine/machines.ts";
import type { Entry, MaybePromise } from "../statemachine/types.ts";
import { rangeOf } from "../store/names.ts";
import type { BlockStore, Durability } from "../store/store.ts";
import { applyCommand, forEachKey, type KVTarget } from "./command.ts";
import { hash64, hashKey, hashValue, lanes } from "./hash.ts";
import { HIGH, type Leaf, LOW, WIDTH } from "./leaf.ts";
import { PackedStore, type Rebuild } from "./packed/packed_store.ts";
import type { Slot, Version } from "./packed/table.ts";
import { Overlay } from "./overlay.ts";
import {
  answer,
  checked,
  collect,
  decodeQuery,
  encodeAnswer,
  type KVAnswer,
  type KVQuery,
  type KVRange,
  type KVRow,
  type KVState,
} from "./query.ts";
import { type PayloadTarget, readPayload, writePayload } from "./snapshot.ts";
import type { Span } from "./tree.ts";
import { bytesOf, compareBytes, equalBytes, viewOf } from "./view.ts";

/** How an on-disk key-value machine is to be. */
export interface OnDiskKVStateMachineOptions {
  /**
   * How much memory the pages of its rows may take, in bytes. One update may
   * pass it by the pages of its largest command.
   *
   * @default {64 MiB}
   */
  readonly memoryBudgetBytes?: number | undefined;
  /**
   * How safe what is written between two `sync()` is. Either way all of it
   * survives a power cut after `sync()`.
   *
   * @default {"relaxed"}
   */
  readonly durability?: Durability | undefined;
}

/** The space of the store that the machine's rows are in. */
const ROWS = 0;
/** The space that the host's rows are in. */
const HOST = 1;

const VERSION = 1;

/** What `prepareSnapshot()` gives: a state, until it is saved. */
interface Mark {
  version: Version | undefined;
  readonly count: number;
  readonly hash: bigint;
}

/** A packed store's rows as a state that commands are applied to, with number and hash. */
class Rows implements KVTarget, KVState {
  readonly #store: PackedStore;
  count = 0;
  low = 0;
  high = 0;

  /** The rows of a store that has none. */
  constructor(store: PackedStore) {
    this.#store = store;
  }

  get hash(): bigint {
    return hash64(this.low, this.high);
  }

  get(view: DataView, start: number, end: number): Uint8Array | undefined {
    const { table } = this.#store;
    if (!table.seek(ROWS, view, start, end)) return undefined;
    return bytesOf(table.leaf.view, table.valueAt, table.valueEnd);
  }

  put(
    view: DataView,
    keyStart: number,
    keyEnd: number,
    valueStart: number,
    valueEnd: number,
  ): boolean {
    const { table } = this.#store;
    const found = table.seek(ROWS, view, keyStart, keyEnd);
    hashKey(view, keyStart, keyEnd);
    const a = lanes[0]!;
    const b = lanes[1]!;
    if (found) {
      const old = table.leaf.view;
      const { valueAt, valueEnd: oldEnd } = table;
      if (
        oldEnd - valueAt === valueEnd - valueStart &&
        equalBytes(view, valueStart, valueEnd, old, valueAt)
      ) return false;
      hashValue(old, valueAt, oldEnd);
      this.#add(-1);
      lanes[0] = a;
      lanes[1] = b;
    } else this.count++;
    hashValue(view, valueStart, valueEnd);
    this.#add(1);
    table.set(view, keyStart, keyEnd, valueStart, valueEnd);
    return true;
  }

  delete(view: DataView, start: number, end: number): boolean {
    const { table } = this.#store;
    if (!table.seek(ROWS, view, start, end)) return false;
    hashKey(view, start, end);
    hashValue(table.leaf.view, table.valueAt, table.valueEnd);
    this.#add(-1);
    this.count--;
    table.remove(view, start, end);
    return true;
  }

  /** Counts the hash of a row, which is in the lanes, in or out. */
  #add(sign: number): void {
    this.low = this.low + sign * lanes[0]! | 0;
    this.high = this.high + sign * lanes[1]! | 0;
  }

  *spans(from?: DataView, to?: DataView, reverse?: boolean): Generator<Span> {
    const { table } = this.#store;
    const slots = table.slotsOf(ROWS, from, to);
    if (reverse) slots.reverse();
    for (const { content } of slots) {
      const { leaf } = content;
      // Thrown where not all is in memory; whoever asks then waits for it.
      if (!leaf) throw ABSENT;
      const start = from ? leaf.lowerBound(from, 0, from.byteLength) : 0;
      const end = to ? leaf.lowerBound(to, 0, to.byteLength) : leaf.rows;
      if (start < end) yield { leaf, start, end };
    }
  }
}

/** Not all that is asked for is in memory. */
const ABSENT: unknown = /* @__PURE__ */ Symbol("absent");

/**
 * A key-value machine over a {@linkcode BlockStore}. Its commands and queries
 * are made by `kv`, and so are those of the machines in memory: same commands,
 * same results, same state hash, same snapshots. It keeps the host's rows too
 * (`IHostState`), in the same atomic step as state and index.
 *
 * What `update()` does is in core, and is written in the background once there
 * is enough of it; `sync()` makes it durable. A write that fails is made again by
 * the next `update()` or `sync()`, which throws if it fails again: `ErrStoreFull`
 * leaves everything as it is, and work goes on when there is room. A block that
 * is missing or damaged is an `ErrStoreCorrupted` that names it.
 */
export class OnDiskKVStateMachine
  implements
    IOnDiskStateMachine<KVQuery, KVAnswer>,
    IHash,
    IExtended,
    IFork<IOnDiskStateMachine<KVQuery, KVAnswer>>,
    IHostState,
    IRemoveData {
  readonly #source: BlockStore | (() => BlockStore);
  readonly #options: OnDiskKVStateMachineOptions;
  #blocks: BlockStore | undefined;
  #store!: PackedStore;
  #rows!: Rows;
  /** The last entry that is in the state. */
  #index = 0;

  /**
   * A machine in a store. A store that is given stays the caller's, to close when
   * no lookup will come any more; one that is made belongs to the machine: it is
   * made by `open()` and closed by `close()`, and a lookup of what is not in memory
   * gets an `ErrClusterClosed` afterwards (D7).
   */
  constructor(
    store: BlockStore | (() => BlockStore),
    options: OnDiskKVStateMachineOptions = {},
  ) {
    const checks: OptionChecks<OnDiskKVStateMachineOptions> = {
      memoryBudgetBytes: optional(isCount(1)),
      durability: optional(isOneOf("strict", "relaxed")),
    };
    isBlockStore("Store of the machine", store);
    checkOptions("Options of the machine", options, checks);
    this.#source = store;
    this.#options = options;
  }

  /**
   * Opens what is there, or begins anew. Removes what a crash left unfinished.
   *
   * @throws ErrStoreCorrupted if a block is missing or damaged
   */
  async open(stopped: AbortSignal): Promise<number> {
    stopped.throwIfAborted();
    const source = this.#source;
    const made = typeof source === "function";
    const blocks = made ? source() : source;
    try {
      const store = new PackedStore(blocks, {
        ...this.#options,
        meta: () => this.#meta(this.#index, this.#rows.count, this.#rows.hash),
      });
      const meta = await store.open();
      stopped.throwIfAborted();
      this.#store = store;
      this.#rows = new Rows(store);
      if (meta) this.#setMeta(meta);
    } catch (error) {
      if (made) await blocks.close().catch(() => {});
      throw error;
    }
    if (made) this.#blocks = blocks;
    return this.#index;
  }

  /** Removes everything that is kept in the store under the names of the machine. */
  async removeData(): Promise<void> {
    const source = this.#source;
    const made = typeof source === "function";
    const blocks = made ? source() : source;
    try {
      await blocks.write({ deleteRanges: [rangeOf("kv/")] }, "strict");
    } finally {
      if (made) await blocks.close();
    }
  }

  #meta(index: number, count: number, hash: bigint): Uint8Array {
    return new ByteWriter().u8(VERSION).varint(index).varint(count).u64(hash)
      .finish();
  }

  #setMeta(meta: Uint8Array): void {
    const r = new ByteReader(meta);
    if (r.u8() !== VERSION) {
      throw new RangeError("State is of another version of the machine");
    }
    this.#index = r.varint();
    this.#rows.count = r.varint();
    this.#rows.low = r.u32() | 0;
    this.#rows.high = r.u32() | 0;
  }

  /** Applies commands. Bytes that are none change nothing and give `kv.INVALID`. */
  update(entries: Entry[]): MaybePromise<Entry[]> {
    return this.#update(entries, undefined);
  }

  /** As `update()`, in one atomic step with the host's rows. */
  updateWithHost(
    entries: Entry[],
    host: () => HostState,
  ): MaybePromise<Entry[]> {
    return this.#update(entries, host);
  }

  #update(
    entries: Entry[],
    host: (() => HostState) | undefined,
  ): MaybePromise<Entry[]> {
    const ready = this.#store.begin();
    return isPromise(ready)
      ? ready.then(() => this.#step(entries, host))
      : this.#step(entries, host);
  }

  /** One atomic step; if it cannot be finished, nothing can be done any more. */
  #step(
    entries: Entry[],
    host: (() => HostState) | undefined,
  ): MaybePromise<Entry[]> {
    const fail = (error: unknown): never => {
      this.#store.abandon(error);
      throw error;
    };
    const end = (): MaybePromise<Entry[]> => {
      const waits = this.#store.commit();
      return isPromise(waits) ? waits.then(() => entries) : entries;
    };
    let done: MaybePromise<void>;
    try {
      done = chain(this.#apply(entries, 0), () => this.#keep(entries, host));
    } catch (error) {
      return fail(error);
    }
    return isPromise(done) ? done.catch(fail).then(end) : end();
  }

  #apply(entries: Entry[], from: number, spilled = false): MaybePromise<void> {
    for (let i = from; i < entries.length; i++) {
      const entry = entries[i]!;
      // Once for each entry: its own pages may be more than there is room for.
      const room = this.#makeRoom(spilled && i === from);
      const waits = isPromise(room) ? room : this.#prepare(entries, i);
      if (isPromise(waits)) {
        return waits.then(() => this.#apply(entries, i, true));
      }
      entry.result = applyCommand(this.#rows, entry.cmd);
    }
  }

  /** Has pages leave memory if there are far too many; a promise if that takes time. */
  #makeRoom(made: boolean): MaybePromise<void> {
    const store = this.#store;
    store.table.tick++;
    if (made || store.excess <= store.slack) return;
    return store.spill();
  }

  /** Brings the pages of an entry into memory, and with them some of entries to come; a promise if that takes time. */
  #prepare(entries: Entry[], at: number): MaybePromise<void> {
    const store = this.#store;
    while (store.cold > 0) {
      const wanted = new Set<Slot>();
      let absent = 0;
      for (let i = at; i < entries.length; i++) {
        forEachKey(entries[i]!.cmd, (view, start, end) => {
          const slot = store.table.slotOf(ROWS, view, start, end);
          if (wanted.has(slot) || i > at && slot.content.leaf) return;
          wanted.add(slot);
          if (!slot.content.leaf) absent++;
        });
        // Of what this entry needs, all; of what comes after it, some.
        if (absent === 0 || absent >= store.ahead) break;
      }
      if (absent === 0) return;
      const loading = store.load([...wanted]);
      if (isPromise(loading)) return loading;
    }
  }

  /** Stores the host's rows, and the index. */
  #keep(
    entries: Entry[],
    host: (() => HostState) | undefined,
  ): MaybePromise<void> {
    const last = entries.at(-1)?.index ?? this.#index;
    if (!host) {
      this.#index = last;
      return;
    }
    const { index, rows } = host();
    return chain(this.#putHostRows(rows), () => {
      this.#index = Math.max(index, last);
    });
  }

  #putHostRows(rows: readonly HostRow[]): MaybePromise<void> {
    const store = this.#store;
    const keys = rows.map(({ key }) => viewOf(encodeText(key, "Key of a row")));
    const put = (): MaybePromise<void> => {
      const slots = new Set(
        keys.map((key) => store.table.slotOf(HOST, key, 0, key.byteLength)),
      );
      if ([...slots].some(({ content }) => !content.leaf)) {
        return chain(store.load([...slots]), put);
      }
      rows.forEach(({ value }, i) => this.#putHostRow(keys[i]!, value));
    };
    return put();
  }

  #putHostRow(key: DataView, value: Uint8Array | undefined): void {
    const { table } = this.#store;
    const size = key.byteLength;
    const found = table.seek(HOST, key, 0, size);
    if (value === undefined) {
      if (found) table.remove(key, 0, size);
      return;
    }
    const row = new Uint8Array(size + value.length);
    row.set(bytesOf(key, 0, size));
    row.set(value, size);
    table.set(viewOf(row), 0, size, size, row.length);
  }

  /** The host's rows as last stored. */
  async readHostRows(): Promise<readonly HostRow[]> {
    const store = this.#store;
    const rows: HostRow[] = [];
    const decoder = new TextDecoder();
    for (;;) {
      const slots = store.slots(HOST);
      if (slots.every(({ content }) => content.leaf)) break;
      // All of them: those that are there might have to make room for the others.
      await store.load(slots);
    }
    for (const { content } of store.slots(HOST)) {
      const leaf = content.leaf!;
      for (let row = 0; row < leaf.rows; row++) {
        const [key, value] = partsOf(leaf, row);
        rows.push({ key: decoder.decode(key), value: value.slice() });
      }
    }
    return rows;
  }

  /** Makes durable all that was applied. */
  sync(): MaybePromise<void> {
    return this.#store.sync();
  }

  /** Answers a query, at once if the rows are in memory; one that makes no sense is an `ErrKVInvalidQuery`. */
  lookup<Q extends KVQuery>(query: Q): MaybePromise<KVAnswer<Q>> {
    return this.#lookup(checked(query)) as MaybePromise<KVAnswer<Q>>;
  }

  #lookup(query: KVQuery): MaybePromise<KVAnswer> {
    const store = this.#store;
    store.table.tick++;
    if (query.type === "get" && store.cold > 0) {
      const { key } = query;
      const slot = store.missing(ROWS, viewOf(key), 0, key.length);
      if (slot) return chain(store.load([slot]), () => this.#lookup(query));
    }
    try {
      return answer(this.#rows, query);
    } catch (error) {
      if (error !== ABSENT) throw error;
      return this.#range(query as KVRange);
    }
  }

  /** Answers from a version: rows of one moment, however long it takes to read them. */
  async #range(query: KVRange): Promise<KVRow[]> {
    const store = this.#store;
    const rows: KVRow[] = [];
    const version = store.freeze();
    const { start, end, reverse } = query;
    try {
      for await (
        const span of store.spans(
          version,
          start && viewOf(start),
          end && viewOf(end),
          reverse,
        )
      ) if (collect(rows, span, query)) break;
    } finally {
      store.release(version);
    }
    return rows;
  }

  /** Answers a query from `kv.encodeQuery()`, for `kv.decodeAnswer()`. */
  naLookup(query: Uint8Array): MaybePromise<Uint8Array> {
    return chain(this.#lookup(decodeQuery(query)), encodeAnswer);
  }

  /** The state hash, kept up to date: asking costs nothing. */
  getHash(): bigint {
    return this.#rows.hash;
  }

  /** The present state, with what is done to the fork laid over it in memory. */
  fork(): Forked<IOnDiskStateMachine<KVQuery, KVAnswer>> {
    return new Overlay(this.#rows, {
      load: (entry) => this.#prepare([entry], 0),
      lookup: (query) => this.#lookup(query),
    });
  }

  /** Marks the present state, at once. What is changed from now on stays readable until the mark is given up. */
  prepareSnapshot(): unknown {
    const { count, hash } = this.#rows;
    const mark: Mark = { version: this.#store.freeze(), count, hash };
    return mark;
  }

  /** Writes the rows as of the mark in chunks of 64 KiB, and gives the mark up. */
  async saveSnapshot(
    context: unknown,
    w: WritableStream<Uint8Array>,
    stopped: AbortSignal,
  ): Promise<void> {
    const mark = context as Mark;
    const { version, count, hash } = mark;
    mark.version = undefined;
    if (!version) throw new TypeError("Snapshot context is used up");
    const spans = this.#store.spans(version);
    try {
      await writePayload({ count, hash, spans }, w, stopped);
    } finally {
      this.#store.release(version);
    }
  }

  /**
   * Replaces the state by a saved one. Of the index a payload says nothing: a
   * host that knows it calls `recoverWithHost()`, and here it stays as it is, as
   * do the host's rows.
   */
  async recoverFromSnapshot(
    r: ReadableStream<Uint8Array>,
    stopped: AbortSignal,
  ): Promise<void> {
    const rows = await this.readHostRows();
    await this.recoverWithHost(r, { index: this.#index, rows }, stopped);
  }

  /**
   * Replaces the state by a saved one, with index and host's rows, in one step at
   * the end. Until then lookups see the old state, and a crash leaves it.
   *
   * @throws ErrKVInvalidSnapshot if the payload is not as it was saved
   */
  async recoverWithHost(
    r: ReadableStream<Uint8Array>,
    host: HostState,
    stopped: AbortSignal,
  ): Promise<void> {
    const { index } = host;
    const hostRows = sorted(host.rows);
    const rebuild = await this.#store.rebuild();
    const target = new Target(rebuild);
    try {
      await readPayload(r, stopped, target);
      await rebuild.endSpace();
      for (const { key, value } of hostRows) {
        rebuild.packer.put(value, 0, key, key, value.byteLength);
        await rebuild.drain();
      }
      await rebuild.endSpace();
      stopped.throwIfAborted();
    } catch (error) {
      await rebuild.abort();
      throw error;
    }
    const { count, hash, low, high } = target;
    await rebuild.swap(this.#meta(index, count, hash), () => {
      this.#index = index;
      Object.assign(this.#rows, { count, low, high });
    });
  }

  /** Ends what is under way and writes what is in core. */
  async close(): Promise<void> {
    try {
      await this.#store?.close();
    } finally {
      await this.#blocks?.close();
    }
  }
}

/** Key and value of a row, not copied. */
function partsOf(
  leaf: Leaf,
  row: number,
): [key: Uint8Array, value: Uint8Array] {
  const value = leaf.valueAt(row);
  return [
    bytesOf(leaf.view, leaf.keyAt(row), value),
    bytesOf(leaf.view, value, leaf.offset(row + 1)),
  ];
}

/** The rows of the host in order of their keys: where the key ends, and key and value in one. */
function sorted(
  rows: readonly HostRow[],
): { key: number; value: DataView }[] {
  return rows.filter(({ value }) => value !== undefined).map((row) => {
    const key = encodeText(row.key, "Key of a row");
    const all = new Uint8Array(key.length + row.value!.length);
    all.set(key);
    all.set(row.value!, key.length);
    return { key: key.length, value: viewOf(all) };
  }).sort((a, b) => compareBytes(a.value, 0, a.key, b.value, 0, b.key));
}

/** Counts the rows of a payload on their way into a rebuild. */
class Target implements PayloadTarget {
  readonly #rebuild: Rebuild;
  count = 0;
  low = 0;
  high = 0;

  constructor(rebuild: Rebuild) {
    this.#rebuild = rebuild;
  }

  get hash(): bigint {
    return hash64(this.low, this.high);
  }

  adopt(leaf: Leaf): void {
    for (let row = 0; row < leaf.rows; row++) {
      this.low = this.low + leaf.meta[row * WIDTH + LOW]! | 0;
      this.high = this.high + leaf.meta[row * WIDTH + HIGH]! | 0;
    }
    this.count += leaf.rows;
    this.#rebuild.packer.append(leaf, 0, leaf.rows);
  }

  drain(): MaybePromise<void> {
    return this.#rebuild.drain();
  }
}
