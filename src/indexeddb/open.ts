/**
 * Opening of a database: waits for other pages, creates the object stores, and
 * repeats an attempt that the browser does not answer.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { get, type UseStore } from "../deps/idb_keyval.ts";
import type { Env } from "../env.ts";
import {
  STORE_BLOCKED_MS_MAX,
  STORE_OPEN_MS_MAX,
  STORE_TICK_MS,
} from "../limits.ts";
import { SampanError } from "../statemachine/errors.ts";
import {
  ErrStoreBlocked,
  ErrStoreCorrupted,
  ErrStoreFull,
  ErrStoreVanished,
  ErrStoreVersion,
} from "../store/errors.ts";
import { ErrStoreUnavailable } from "./errors.ts";

/** Version of the layout: one object store for blocks and one for metadata. */
export const VERSION = 1;

/** Name of the object store of blocks. */
export const BLOCKS = "blocks";

/** Name of the object store of metadata. */
export const META = "meta";

const IDENTITY = "identity";

/** Key of the tenure token, written by the page that last had the store open. */
export const TENURE = "tenure";

/** Options of {@linkcode openDatabase}. */
export interface OpenOptions {
  readonly factory: IDBFactory;
  readonly name: string;
  readonly env: Env;
  /** Set to create a missing database; otherwise opening it fails with `ErrStoreVanished`. */
  readonly create: boolean;
  /** Called repeatedly with the time for which another page has blocked the opening, in milliseconds. */
  readonly onBlocked: (waitedMs: number) => void;
  /** Called with each opened database, before its first event. */
  readonly adopt: (db: IDBDatabase) => void;
}

/** Open database and its identity. */
export interface Opened {
  readonly db: IDBDatabase;
  readonly identity: string;
}

/** Name of a thrown error. */
export function nameOf(error: unknown): string {
  return (error as Error | null)?.name ?? "AbortError";
}

/** True if an error means that the connection was lost, rather than that the request was wrong. */
export function isLoss(error: unknown): boolean {
  return /^(Abort|InvalidState|TransactionInactive|Unknown)Error$/
    .test(nameOf(error));
}

/** Converts an error of the browser to one of this library. */
export function storeError(error: unknown): Error {
  if (error instanceof SampanError) return error;
  const cause = { cause: error };
  switch (nameOf(error)) {
    case "QuotaExceededError":
      return new ErrStoreFull(
        `No space left in the browser (${nameOf(error)})`,
        cause,
      );
    case "VersionError":
      return new ErrStoreVersion(
        VERSION,
        `Store was upgraded by newer code, and this code supports version ${VERSION}: reload the page`,
        cause,
      );
    // Errors of browsers for a missing or damaged file of the database.
    case "DataError":
    case "NotFoundError":
    case "NotReadableError":
      return new ErrStoreCorrupted(`${error}`, "Database is damaged", cause);
    default:
      return new ErrStoreUnavailable(`Store cannot be used: ${error}`, cause);
  }
}

/**
 * Opens a database, in a second attempt if the browser does not answer or loses the
 * connection.
 *
 * @throws ErrStoreBlocked if another page does not close an older version, or the browser does not answer
 * @throws ErrStoreVersion if the database has a newer version
 * @throws ErrStoreVanished if the database is missing and `create` is not set
 * @throws ErrStoreUnavailable if the browser refuses
 */
export function openDatabase(options: OpenOptions): Promise<Opened> {
  return new Promise((resolve, reject) => {
    new Attempts(options, resolve, reject).next();
  });
}

function isStore(db: IDBDatabase): boolean {
  const { objectStoreNames: names } = db;
  return names.contains(BLOCKS) && names.contains(META);
}

/** Error for a database of another application under the name of a store. */
function foreign(name: string): ErrStoreCorrupted {
  return new ErrStoreCorrupted(
    name,
    "Database belongs to another application and was not changed; give the store another name",
  );
}

/** Attempts to open one database; the first one that succeeds counts. */
class Attempts {
  readonly #options: OpenOptions;
  readonly #resolve: (opened: Opened) => void;
  readonly #reject: (error: Error) => void;
  readonly #began: number;
  #attempts = 0;
  #isEnded = false;
  #isMissing = false;
  #cancel: () => void = () => {};

  constructor(
    options: OpenOptions,
    resolve: (opened: Opened) => void,
    reject: (error: Error) => void,
  ) {
    this.#options = options;
    this.#resolve = resolve;
    this.#reject = reject;
    this.#began = options.env.now();
  }

  get #waited(): number {
    return Math.round(this.#options.env.now() - this.#began);
  }

  #timer(delay: number, callback: () => void): void {
    this.#cancel();
    this.#cancel = this.#options.env.setTimer(callback, delay);
  }

  /** Begins the next attempt, without cancelling earlier ones. */
  next(): void {
    const { factory, name } = this.#options;
    this.#attempts++;
    this.#timer(STORE_OPEN_MS_MAX, () => this.#late());
    try {
      const request = factory.open(name, VERSION);
      request.onupgradeneeded = (event) => this.#upgrade(request, event);
      request.onblocked = () => this.#blocked(0);
      request.onerror = () => this.#failed(request.error);
      request.onsuccess = () => this.#opened(request.result);
    } catch (error) {
      this.#end(storeError(error));
    }
  }

  #end(error: Error): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#cancel();
    this.#reject(error);
  }

  /** Handles an attempt without answer. Safari sometimes answers an open request only after another request. */
  #late(): void {
    if (this.#attempts === 1) {
      this.#options.factory.databases?.().catch(() => {});
      return this.next();
    }
    const waited = this.#waited;
    this.#end(
      new ErrStoreBlocked(
        waited,
        `Browser has not opened database ${this.#options.name} within ${waited} ms: reload the page`,
      ),
    );
  }

  #blocked(ticks: number): void {
    if (this.#isEnded) return;
    const waited = this.#waited;
    if (ticks * STORE_TICK_MS >= STORE_BLOCKED_MS_MAX) {
      return this.#end(
        new ErrStoreBlocked(
          waited,
          `Another page has had an older version of database ${this.#options.name} open for ${waited} ms: close or reload it`,
        ),
      );
    }
    this.#timer(STORE_TICK_MS, () => this.#blocked(ticks + 1));
    this.#options.onBlocked(waited);
  }

  #upgrade(request: IDBOpenDBRequest, event: IDBVersionChangeEvent): void {
    // An opening that has failed already must not upgrade or create a store.
    this.#isMissing = !this.#options.create && event.oldVersion === 0;
    if (this.#isEnded || this.#isMissing) {
      request.transaction?.abort();
      return request.result.close();
    }
    this.#timer(STORE_OPEN_MS_MAX, () => this.#late());
    if (event.oldVersion > 0) return;
    request.result.createObjectStore(BLOCKS);
    // In the transaction that creates the store, so that none is without an identity.
    const identity = this.#options.env.random64().toString(16) +
      this.#options.env.random64().toString(16);
    request.result.createObjectStore(META).put(identity, IDENTITY);
  }

  #failed(error: unknown): void {
    if (this.#isEnded) return;
    if (this.#isMissing) {
      return this.#end(
        new ErrStoreVanished(`Database ${this.#options.name} was deleted`),
      );
    }
    if (this.#attempts === 1 && isLoss(error)) return this.next();
    if (nameOf(error) === "VersionError") return this.#checkNewer(error);
    this.#end(storeError(error));
  }

  /** Finds out whether a newer version is a store of newer code, or a database of another application. */
  #checkNewer(error: unknown): void {
    const { factory, name } = this.#options;
    const request = factory.open(name);
    request.onerror = () => this.#end(storeError(error));
    // Deleted in the meantime: do not create it.
    request.onupgradeneeded = () => request.transaction?.abort();
    request.onsuccess = () => {
      const db = request.result;
      const isOwn = isStore(db);
      db.close();
      this.#end(isOwn ? storeError(error) : foreign(name));
    };
  }

  #opened(db: IDBDatabase): void {
    if (this.#isEnded) return db.close();
    if (!isStore(db)) {
      db.close();
      return this.#end(foreign(this.#options.name));
    }
    this.#options.adopt(db);
    const use: UseStore = async (mode, callback) =>
      await callback(db.transaction(META, mode).objectStore(META));
    get<unknown>(IDENTITY, use).then(
      (identity) => this.#identified(db, identity),
      (error) => this.#unread(db, error),
    );
  }

  #unread(db: IDBDatabase, error: unknown): void {
    db.close();
    this.#failed(error);
  }

  #identified(db: IDBDatabase, identity: unknown): void {
    if (this.#isEnded) return db.close();
    if (typeof identity !== "string") {
      db.close();
      return this.#end(
        new ErrStoreCorrupted(IDENTITY, "Database has no identity"),
      );
    }
    this.#isEnded = true;
    this.#cancel();
    this.#resolve({ db, identity });
  }
}
