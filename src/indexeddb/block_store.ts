/**
 * Blocks in an IndexedDB database: one object store of `Uint8Array` under
 * strings, one transaction for each write.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  checkOptions,
  isA,
  isEnv,
  isFunction,
  isText,
  optional,
  type OptionChecks,
} from "../options.ts";
import { copyOf } from "../bytes.ts";
import { promisifyRequest, type UseStore } from "../deps/idb_keyval.ts";
import { type Env, systemEnv } from "../env.ts";
import { ErrUnknownOutcome } from "../log/errors.ts";
import { ErrStoreCorrupted } from "../store/errors.ts";
import type {
  Block,
  BlockStore,
  Changes,
  Durability,
  ListOptions,
} from "../store/store.ts";
import { Connection, type StoreEvent } from "./connection.ts";
import { BLOCKS, isLoss, META } from "./open.ts";

/** What the stores in IndexedDB can be told. */
export interface IndexedDBOptions {
  /**
   * Where databases are.
   *
   * @default {the browser's}
   */
  readonly indexedDB?: IDBFactory;
  /** Time, random numbers and timers; by default the real ones. */
  readonly env?: Env;
  /**
   * By which one page at a time has the store: another one gets
   * `ErrStoreLocked`. Null where something else sees to that.
   *
   * @default {the browser's}
   */
  readonly locks?: LockManager | null;
  /**
   * The identity of the store, where it is known: if it is another one, or there
   * is none, that is an `ErrStoreVanished`, and nothing is made (U2).
   */
  readonly identity?: string;
  /** Is told what happens to the store. What it throws is ignored. */
  readonly onEvent?: (event: StoreEvent) => void;
}

/** Bytes that own their buffer: IndexedDB would store all of a larger one. */
function whole(bytes: Uint8Array): Uint8Array {
  const { buffer } = bytes;
  return buffer instanceof ArrayBuffer && buffer.byteLength === bytes.length
    ? bytes
    : copyOf(bytes);
}

/** A block as it was read. */
function checked(key: unknown, bytes: unknown): Uint8Array {
  if (bytes instanceof Uint8Array) return bytes;
  throw new ErrStoreCorrupted(`${key}`, "Block is damaged");
}

/**
 * Blocks under names in an IndexedDB database, opened with the first call. All
 * of the connection's life is seen to:
 *
 * - Opening waits for pages that hold an older version; a browser that does not
 *   answer is asked twice (U6, U7).
 * - A connection that the browser closed or lost is opened again, and what
 *   cannot have taken effect is done once more; what may have is an
 *   `ErrUnknownOutcome` (U4, U5).
 * - A database that is gone meanwhile is an `ErrStoreVanished`, never made anew
 *   by the same object (U2).
 * - When another page upgrades or deletes the database, this one closes it, and
 *   stays closed (U6, U14).
 * - One page at a time has the store; another one gets `ErrStoreLocked`.
 */
export class IndexedDBBlockStore implements BlockStore {
  readonly #connection: Connection;

  /** A store in the database of that name; nothing is opened yet. */
  constructor(name: string, options: IndexedDBOptions = {}) {
    const checks: OptionChecks<IndexedDBOptions> = {
      indexedDB: optional(isA("an IDBFactory", "open", "deleteDatabase")),
      env: optional(isEnv),
      locks: (name, value) => {
        if (value !== null) {
          optional(isA("a LockManager, or null", "request"))(name, value);
        }
      },
      identity: optional(isText),
      onEvent: optional(isFunction),
    };
    isText("Name of the database", name);
    checkOptions("Options of the database", options, checks);
    this.#connection = new Connection({
      name,
      factory: options.indexedDB ?? globalThis.indexedDB,
      env: options.env ?? systemEnv,
      locks: options.locks === undefined
        ? globalThis.navigator?.locks
        : options.locks,
      identity: options.identity,
      onEvent: options.onEvent,
    });
  }

  /** Transactions that read. */
  readonly #read: UseStore = (mode, use) =>
    this.#connection.run(
      false,
      async (db) => await use(db.transaction(BLOCKS, mode).objectStore(BLOCKS)),
    );

  /**
   * The name this store was made with.
   *
   * @throws ErrStoreVanished if it is there no more
   */
  identity(): Promise<string> {
    return this.#connection.identity();
  }

  /**
   * The contents of the blocks of those names.
   *
   * @throws ErrStoreCorrupted if one is damaged
   */
  get(keys: readonly string[]): Promise<(Uint8Array | undefined)[]> {
    if (keys.length === 0) return Promise.resolve([]);
    return this.#read("readonly", async (store) => {
      const found = await Promise.all(
        keys.map((key) => promisifyRequest<unknown>(store.get(key))),
      );
      return found.map((bytes, i) =>
        bytes === undefined ? bytes : checked(keys[i], bytes)
      );
    });
  }

  /**
   * The blocks of a range of names.
   *
   * @throws ErrStoreCorrupted if one is damaged
   */
  list(
    from: string,
    to: string,
    options: ListOptions = {},
  ): Promise<Block[]> {
    return this.#range(from, to, options, async (store, range, limit) => {
      const [keys, values] = await Promise.all([
        promisifyRequest(store.getAllKeys(range, limit)),
        promisifyRequest<unknown[]>(store.getAll(range, limit)),
      ]);
      return keys.map((key, i) => ({
        key: key as string,
        bytes: checked(key, values[i]),
      }));
    }, (cursor) => ({
      key: cursor.key as string,
      bytes: checked(cursor.key, (cursor as IDBCursorWithValue).value),
    }));
  }

  /** The names of a range. */
  keys(
    from: string,
    to: string,
    options: ListOptions = {},
  ): Promise<string[]> {
    return this.#range(
      from,
      to,
      options,
      (store, range, limit) =>
        promisifyRequest(store.getAllKeys(range, limit)) as Promise<string[]>,
      (cursor) => cursor.key as string,
    );
  }

  /** Reads a range in one request; the last few of many, which no request gives, one by one. */
  async #range<T>(
    from: string,
    to: string,
    { limit = Infinity, reverse = false }: ListOptions,
    all: (
      store: IDBObjectStore,
      range: IDBKeyRange,
      limit: number | undefined,
    ) => Promise<T[]>,
    one: (cursor: IDBCursor) => T,
  ): Promise<T[]> {
    if (!(from < to) || limit <= 0) return [];
    const range = IDBKeyRange.bound(from, to, false, true);
    const bounded = limit < Infinity;
    if (reverse && bounded) {
      return await this.#read(
        "readonly",
        (store) => last(store, range, limit, one),
      );
    }
    const found = await this.#read(
      "readonly",
      (store) => all(store, range, bounded ? limit : undefined),
    );
    return reverse ? found.reverse() : found;
  }

  /**
   * Makes changes in one transaction. A strict one without changes makes all
   * that was written before survive a power cut.
   *
   * @throws ErrStoreFull if there is no room; nothing was changed
   * @throws ErrUnknownOutcome if the connection was lost while the changes were being committed
   * @throws ErrStoreUnavailable if they cannot be made; nothing was changed
   * @throws ErrClusterClosed after `close()`
   */
  write(changes: Changes, durability: Durability): Promise<void> {
    return this.#connection.run(
      true,
      (db) => commit(db, changes, durability),
    );
  }

  /** Closes the store, after what is under way; idempotent. */
  close(): Promise<void> {
    return this.#connection.close();
  }

  /** As `close()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** The last `limit` of a range, from the last one down. */
function last<T>(
  store: IDBObjectStore,
  range: IDBKeyRange,
  limit: number,
  one: (cursor: IDBCursor) => T,
): Promise<T[]> {
  return new Promise((resolve, reject) => {
    const found: T[] = [];
    const request = store.openCursor(range, "prev");
    request.onerror = () => reject(request.error);
    request.onsuccess = () => {
      const cursor = request.result;
      try {
        if (cursor) found.push(one(cursor));
      } catch (error) {
        return reject(error);
      }
      if (cursor && found.length < limit) cursor.continue();
      else resolve(found);
    };
  });
}

/**
 * One write. Rejects with the browser's error if it has not taken effect. What
 * idb-keyval makes of a transaction would not do: of one that fails it gives the
 * error before there is one.
 */
function commit(
  db: IDBDatabase,
  { put = [], delete: remove = [], deleteRanges = [] }: Changes,
  durability: Durability,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const ranges = deleteRanges.filter(([from, to]) => from < to);
    const count = ranges.length + remove.length + put.length;
    // One object store costs less than two.
    const transaction = db.transaction(
      count > 0 ? BLOCKS : [BLOCKS, META],
      "readwrite",
      { durability },
    );
    let error: unknown;
    transaction.onerror = (event) =>
      error ??= (event.target as IDBRequest).error;
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => {
      error = transaction.error ?? error;
      // A connection lost says nothing of whether it was committed before.
      if (!isAsked || !isLoss(error)) return reject(error);
      reject(
        new ErrUnknownOutcome(
          "Connection to the store was lost during a write",
          { cause: error },
        ),
      );
    };
    const store = transaction.objectStore(BLOCKS);
    let isAsked = false;
    try {
      for (const [from, to] of ranges) {
        store.delete(IDBKeyRange.bound(from, to, false, true));
      }
      for (const key of remove) store.delete(key);
      for (const { key, bytes } of put) store.put(whole(bytes), key);
      // A transaction that changes nothing would make nothing durable.
      if (count === 0) transaction.objectStore(META).put(0, "synced");
      // Left to the browser, it would wait until this page had its answers: a
      // quarter of the time that one small write takes.
      transaction.commit();
      isAsked = true;
    } catch (thrown) {
      error = thrown;
      transaction.abort();
    }
  });
}
