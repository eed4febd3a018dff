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
import { PackedStore } from "./packed/packed_store.ts";
import type { Rebuild } from "./packed/rebuild.ts";
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
import { bytesOf, compareBytes, copyOf, equalBytes, viewOf } from "./view.ts";

/** Options of an on-disk key-value machine. */
export interface OnDiskKVStateMachineOptions {
  /**
   * Memory budget for the pages of its rows, in bytes. One update may exceed it
   * by the pages of its largest command.
   *
   * @default {64 MiB}
   */
  readonly memoryBudgetBytes?: number | undefined;
  /**
   * Durability of writes between two calls of `sync()`. Either way, everything
   * before a `sync()` survives a power failure.
   *
   * @default {"relaxed"}
   */
  readonly durability?: Durability | undefined;
}

/** Space of the machine's rows in the store. */
const ROWS = 0;
/** Space of the host's rows in the store. */
const HOST = 1;

const VERSION = 1;

/** Context of `prepareSnapshot()`: a version of the state, until it is saved. */
interface SnapshotContext {
  version: Version | undefined;
  readonly count: number;
  readonly hash: bigint;
}

/** Rows of a packed store as a state that commands are applied to, with their number and hash. */
class Rows implements KVTarget, KVState {
  readonly #store: PackedStore;
  count = 0;
  low = 0;
  high = 0;

  /** Creates the state of an empty store. */
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

  copy(view: DataView, start: number, end: number): Uint8Array | undefined {
    const { table } = this.#store;
    if (!table.seek(ROWS, view, start, end)) return undefined;
    return copyOf(table.leaf.view, table.valueAt, table.valueEnd);
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

  /** Adds the row hash in the lanes, or subtracts it. */
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
      // Thrown if a page is not in memory; the caller then reads
      // asynchronously.
      if (!leaf) throw ABSENT;
      const start = from ? leaf.lowerBound(from, 0, from.byteLength) : 0;
      const end = to ? leaf.lowerBound(to, 0, to.byteLength) : leaf.rows;
      if (start < end) yield { leaf, start, end };
    }
  }
}

/** Thrown if a page is not in memory. */
const ABSENT: unknown = /* @__PURE__ */ Symbol("absent");

/**
 * On-disk key-value machine over a {@linkcode BlockStore}. Commands and queries
 * are made by `kv`; results, state hash and snapshots equal those of the
 * machines in memory. It stores the host's rows (`IHostState`) in the same
 * atomic step as state and index.
 *
 * `update()` changes memory, a background write follows once enough has
 * accumulated, and `sync()` makes it durable. A failed write is retried by the
 * next `update()` or `sync()`, which throws if it fails again: `ErrStoreFull`
 * leaves the state unchanged, and work continues once there is room. A missing
 * or damaged block is an `ErrStoreCorrupted` that names it.
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
  /** Index of the last entry in the state. */
  #index = 0;

  /**
   * Creates a machine on a store. A store passed as an object belongs to the
   * caller, who closes it after the last lookup. A store made by a function
   * belongs to the machine: `open()` makes it and `close()` closes it, and a
   * later lookup of a page that is not in memory throws `ErrClusterClosed`
   * (D7).
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
   * Opens the stored state, or creates an empty one. Removes unfinished writes
   * of a crash.
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

  /** Removes every block of the machine from the store. */
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
    const version = r.u8();
    if (version !== VERSION) {
      throw new RangeError(
        `State has format version ${version}; this code reads ${VERSION}`,
      );
    }
    this.#index = r.varint();
    this.#rows.count = r.varint();
    this.#rows.low = r.u32() | 0;
    this.#rows.high = r.u32() | 0;
  }

  /** Applies commands. A malformed command changes nothing and returns `kv.INVALID`. */
  update(entries: Entry[]): MaybePromise<Entry[]> {
    return this.#update(entries, undefined);
  }

  /** Applies commands like `update()`, in one atomic step with the host's rows. */
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

  /** Applies one atomic step; if it fails half-way, the store refuses every further change. */
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
      // At most once per entry: the pages of one entry may exceed the budget.
      const room = this.#makeRoom(spilled && i === from);
      const waits = isPromise(room) ? room : this.#prepare(entries, i);
      if (isPromise(waits)) {
        return waits.then(() => this.#apply(entries, i, true));
      }
      entry.result = applyCommand(this.#rows, entry.cmd);
    }
  }

  /** Spills pages if memory is far over its budget; a promise if that takes time. */
  #makeRoom(made: boolean): MaybePromise<void> {
    const store = this.#store;
    store.table.tick++;
    if (made || store.excess <= store.slack) return;
    return store.spill();
  }

  /** Loads the pages of an entry, and some of the following entries; a promise if that takes time. */
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
        // All pages of this entry, but only some of later ones.
        if (absent === 0 || absent >= store.ahead) break;
      }
      if (absent === 0) return;
      const loading = store.load([...wanted]);
      if (isPromise(loading)) return loading;
    }
  }

  /** Stores the host's rows and the index. */
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

  /** Returns the host's rows as last stored. */
  async readHostRows(): Promise<readonly HostRow[]> {
    const store = this.#store;
    const rows: HostRow[] = [];
    const decoder = new TextDecoder();
    for (;;) {
      const slots = store.slots(HOST);
      if (slots.every(({ content }) => content.leaf)) break;
      // All at once: pages in memory may be evicted to load others.
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

  /** Makes all applied entries durable. */
  sync(): MaybePromise<void> {
    return this.#store.sync();
  }

  /** Answers a query, synchronously if its pages are in memory; throws `ErrKVInvalidQuery` for an invalid one. */
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
    if (query.type === "getMany" && store.cold > 0) {
      const { keys } = query;
      const isCold = (key: Uint8Array): boolean =>
        store.missing(ROWS, viewOf(key), 0, key.length) !== undefined;
      if (keys.some(isCold)) return this.#getMany(keys);
    }
    try {
      return answer(this.#rows, query);
    } catch (error) {
      if (error !== ABSENT) throw error;
      return this.#range(query as KVRange);
    }
  }

  /** Answers from a version, so that all values are of one state however long the reads take. */
  async #getMany(
    keys: readonly Uint8Array[],
  ): Promise<(Uint8Array | undefined)[]> {
    const store = this.#store;
    const version = store.freeze();
    try {
      return await store.getMany(version, keys.map(viewOf));
    } finally {
      store.release(version);
    }
  }

  /** Answers from a version, so that all rows are of one state however long the read takes. */
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

  /** Answers an encoded query of `kv.encodeQuery()`, for `kv.decodeAnswer()`. */
  naLookup(query: Uint8Array): MaybePromise<Uint8Array> {
    const decoded = decodeQuery(query);
    return chain(
      this.#lookup(decoded),
      (answer) => encodeAnswer(decoded, answer),
    );
  }

  /** Returns the state hash in constant time. */
  getHash(): bigint {
    return this.#rows.hash;
  }

  /** Creates a fork: an overlay in memory on the present state. */
  fork(): Forked<IOnDiskStateMachine<KVQuery, KVAnswer>> {
    return new Overlay(this.#rows, {
      load: (entry) => this.#prepare([entry], 0),
      lookup: (query) => this.#lookup(query),
    });
  }

  /** Captures the present state in constant time. It stays readable until the context is saved. */
  prepareSnapshot(): unknown {
    const { count, hash } = this.#rows;
    const prepared: SnapshotContext = {
      version: this.#store.freeze(),
      count,
      hash,
    };
    return prepared;
  }

  /** Writes the rows of the context in chunks of 64 KiB, and releases it. */
  async saveSnapshot(
    context: unknown,
    w: WritableStream<Uint8Array>,
    stopped: AbortSignal,
  ): Promise<void> {
    const prepared = context as SnapshotContext;
    const { version, count, hash } = prepared;
    prepared.version = undefined;
    if (!version) {
      throw new TypeError(
        "saveSnapshot() was called before with this context; it is saved already",
      );
    }
    const spans = this.#store.spans(version);
    try {
      await writePayload({ count, hash, spans }, w, stopped);
    } finally {
      this.#store.release(version);
    }
  }

  /**
   * Replaces the state by a saved one. A payload has no index: a host that
   * knows it calls `recoverWithHost()`; this method leaves index and host rows
   * as they are.
   */
  async recoverFromSnapshot(
    r: ReadableStream<Uint8Array>,
    stopped: AbortSignal,
  ): Promise<void> {
    const rows = await this.readHostRows();
    await this.recoverWithHost(r, { index: this.#index, rows }, stopped);
  }

  /**
   * Replaces state, index and host rows by saved ones, in one step at the end.
   * Until then lookups see the old state, and a crash leaves it.
   *
   * @throws ErrKVInvalidSnapshot if the payload is invalid
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

  /** Waits for the write in progress, and writes what is pending. */
  async close(): Promise<void> {
    try {
      await this.#store?.close();
    } finally {
      await this.#blocks?.close();
    }
  }
}

/** Returns key and value of a row without copying. */
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

/** Sorts the host's rows by key, each as the length of its key with key and value in one view. */
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
