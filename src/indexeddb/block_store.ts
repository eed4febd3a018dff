/**
 * Block store in an IndexedDB database: one object store of `Uint8Array` by name,
 * and one transaction for each write.
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
  UpdateFound,
  UpdateReads,
} from "../store/store.ts";
import type { StoreLease } from "../store/lease.ts";
import { Connection, type StoreEvent } from "./connection.ts";
import { BLOCKS, isLoss, META, TENURE } from "./open.ts";

/** Options of the stores in IndexedDB. */
export interface IndexedDBOptions {
  /**
   * Factory of databases.
   *
   * @default {globalThis.indexedDB}
   */
  readonly indexedDB?: IDBFactory;
  /** Clock, random numbers and timers. @default {systemEnv} */
  readonly env?: Env;
  /**
   * Web Locks, with which one page at a time has the store open; another page gets
   * `ErrStoreLocked`. Null if the application ensures that itself.
   *
   * @default {navigator.locks}
   */
  readonly locks?: LockManager | null;
  /**
   * Expected identity of the store. If the store is missing or has another identity,
   * opening it fails with `ErrStoreVanished`, and no store is created (U2).
   */
  readonly identity?: string;
  /** Called with events of the store; its errors are ignored. */
  readonly onEvent?: (event: StoreEvent) => void;
}

/** Bytes that fill their buffer: IndexedDB would store the whole buffer of a view. */
function whole(bytes: Uint8Array): Uint8Array {
  const { buffer } = bytes;
  return buffer instanceof ArrayBuffer && buffer.byteLength === bytes.length
    ? bytes
    : copyOf(bytes);
}

/** Checks that a stored value is a block. */
function checked(key: unknown, bytes: unknown): Uint8Array {
  if (bytes instanceof Uint8Array) return bytes;
  throw new ErrStoreCorrupted(`${key}`, "Block is not a Uint8Array");
}

/**
 * {@linkcode BlockStore} in an IndexedDB database, opened by the first call. It
 * handles the whole life cycle of the connection:
 *
 * - Opening waits for pages that have an older version open, and is repeated once if
 *   the browser does not answer (U6, U7).
 * - If the browser closes or loses the connection, another one is opened. Operations
 *   without effect are repeated; writes that may have taken effect fail with
 *   `ErrUnknownOutcome` (U4, U5).
 * - If the database is deleted while the store is open, calls fail with
 *   `ErrStoreVanished`; the same object never creates it again (U2).
 * - If another page upgrades or deletes the database, this store closes it, and
 *   remains closed (U6, U14).
 * - One page at a time has the store open; another page gets `ErrStoreLocked`.
 */
export class IndexedDBBlockStore implements BlockStore {
  readonly #connection: Connection;
  #lease: StoreLease | undefined;

  /** Creates a store in the database `name`; opens nothing yet. */
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

  /** Runs transactions that read. */
  readonly #read: UseStore = (mode, use) =>
    this.#connection.run(
      false,
      async (db) => await use(db.transaction(BLOCKS, mode).objectStore(BLOCKS)),
    );

  /**
   * Random name given to the store when it was created.
   *
   * @throws ErrStoreVanished if the store was deleted
   */
  identity(): Promise<string> {
    return this.#connection.identity();
  }

  /**
   * Contents of the named blocks.
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
   * Blocks of a range of names.
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

  /** Names of the blocks of a range. */
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

  /** Reads a range in one request, or with a cursor for the last `limit` blocks, which no request returns. */
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
   * Makes changes in one transaction. A strict write without changes makes all
   * earlier writes survive a power cut.
   *
   * @throws ErrStoreFull if there is no room; nothing was changed
   * @throws ErrUnknownOutcome if the connection was lost while the changes were being committed
   * @throws ErrStoreUnavailable if they cannot be made; nothing was changed
   * @throws ErrClusterClosed after `close()`
   */
  async write(changes: Changes, durability: Durability): Promise<void> {
    await this.#commit(() => changes, undefined, durability, false);
  }

  /**
   * Reads blocks and makes the changes that `decide` returns for them, in one
   * transaction; resolves with false if it returned none.
   *
   * @throws as `write()`
   */
  update(
    reads: UpdateReads,
    decide: (found: UpdateFound) => Changes | undefined,
    durability: Durability,
    isShared: boolean,
  ): Promise<boolean> {
    return this.#commit(decide, reads, durability, isShared);
  }

  #commit(
    decide: (found: UpdateFound) => Changes | undefined,
    reads: UpdateReads | undefined,
    durability: Durability,
    isShared: boolean,
  ): Promise<boolean> {
    let guard: WriteGuard | undefined;
    try {
      guard = this.#lease?.guard(isShared);
    } catch (error) {
      return Promise.reject(error);
    }
    return this.#connection.run(
      true,
      (db) => commit(db, { decide, reads, guard, durability }),
    );
  }

  /** Shares the store with other pages under a lease. */
  share(lease: StoreLease): void {
    this.#lease = lease;
    this.#connection.share(lease);
  }

  /** Closes the store after the operations under way; idempotent. */
  close(): Promise<void> {
    return this.#connection.close();
  }

  /** Closes the store. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Reads the last `limit` blocks of a range, in descending order. */
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

/** Check of the token that the store has. */
type WriteGuard = (token: string | undefined) => Error | undefined;

/** Write to the store, with what it depends on. */
interface Write {
  readonly decide: (found: UpdateFound) => Changes | undefined;
  /** Blocks that are read first, if any. */
  readonly reads: UpdateReads | undefined;
  /** Checks the token, if the store is under a lease. */
  readonly guard: WriteGuard | undefined;
  readonly durability: Durability;
}

const NOTHING: UpdateFound = { blocks: [], inRange: [] };

/**
 * Writes one transaction; resolves with false if nothing was to be changed. Rejects
 * with the browser's error if it has not taken effect. `promisifyRequest()` would
 * read the error of a failed transaction before it is set.
 */
function commit(
  db: IDBDatabase,
  { decide, reads, guard, durability }: Write,
): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const isBlind = reads === undefined && guard === undefined;
    const changes = isBlind ? decide(NOTHING)! : undefined;
    // One object store costs less than two.
    const transaction = db.transaction(
      changes !== undefined && countOf(changes) > 0 ? BLOCKS : [BLOCKS, META],
      "readwrite",
      { durability },
    );
    let error: unknown;
    let isCommitting = false;
    let isChanged = true;
    transaction.onerror = (event) =>
      error ??= (event.target as IDBRequest).error;
    transaction.oncomplete = () => resolve(isChanged);
    transaction.onabort = () => {
      error = transaction.error ?? error;
      // If the connection was lost, the transaction may have been committed before.
      if (!isCommitting || !isLoss(error)) return reject(error);
      reject(
        new ErrUnknownOutcome(
          `Connection to database ${db.name} was lost during a write`,
          { cause: error },
        ),
      );
    };
    const attempt = (work: () => void): void => {
      try {
        work();
      } catch (thrown) {
        error = thrown;
        transaction.abort();
      }
    };
    const write = (changes: Changes | undefined): void => {
      isChanged = changes !== undefined;
      if (changes !== undefined) putAll(transaction, changes);
      // Without this, the browser commits only after it has delivered the results of
      // all requests, which takes a quarter of the time of a small write.
      transaction.commit();
      isCommitting = true;
    };
    attempt(() => {
      if (changes !== undefined) return write(changes);
      const found = requestAll(transaction, reads);
      const token = transaction.objectStore(META).get(TENURE);
      // Requests of a transaction settle in order: all others have by now.
      token.onsuccess = () =>
        attempt(() => {
          const refusal = guard?.(token.result as string | undefined);
          if (refusal !== undefined) throw refusal;
          write(decide(found()));
        });
    });
  });
}

function countOf(
  { put = [], delete: remove = [], deleteRanges = [] }: Changes,
): number {
  const ranges = deleteRanges.filter(([from, to]) => from < to);
  return ranges.length + remove.length + put.length;
}

function putAll(transaction: IDBTransaction, changes: Changes): void {
  const { put = [], delete: remove = [], deleteRanges = [] } = changes;
  const store = transaction.objectStore(BLOCKS);
  for (const [from, to] of deleteRanges) {
    if (from < to) store.delete(IDBKeyRange.bound(from, to, false, true));
  }
  for (const key of remove) store.delete(key);
  for (const { key, bytes } of put) store.put(whole(bytes), key);
  // A transaction without changes would not sync earlier ones.
  if (countOf(changes) === 0) transaction.objectStore(META).put(0, "synced");
}

/** Requests blocks; the returned function reads them once the requests have settled. */
function requestAll(
  transaction: IDBTransaction,
  reads: UpdateReads | undefined,
): () => UpdateFound {
  if (reads === undefined) return () => NOTHING;
  const store = transaction.objectStore(BLOCKS);
  const { keys, range, limit } = reads;
  const requests = keys.map((key) => store.get(key));
  const bound = range && IDBKeyRange.bound(...range, false, true);
  const names = bound && store.getAllKeys(bound, limit);
  const values = bound && store.getAll(bound, limit);
  return () => ({
    blocks: requests.map(({ result }, i) =>
      result === undefined ? result : checked(keys[i], result)
    ),
    inRange: (names?.result ?? []).map((key, i) => ({
      key: key as string,
      bytes: checked(key, values!.result[i]),
    })),
  });
}
