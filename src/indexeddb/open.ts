/**
 * Opening a database: the waits for other pages, the upgrade, the opens that
 * browsers never answer.
 *
 * This module is browser compatible.
 *
 * @module
 */

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

/** The version of the layout: an object store of blocks, and one for what describes them. */
export const VERSION = 1;

/** The object store of the blocks. */
export const BLOCKS = "blocks";

/** The object store that says which store this is. */
export const META = "meta";

const IDENTITY = "identity";

/** Key of the token of the page that had the store last. */
export const TENURE = "tenure";

/** What {@linkcode openDatabase} is told. */
export interface Opening {
  readonly factory: IDBFactory;
  readonly name: string;
  readonly env: Env;
  /** Whether a database that is not there is made; if not, it has vanished. */
  readonly create: boolean;
  /** Is told, again and again, for how long another page has been in the way. */
  readonly onBlocked: (waitedMs: number) => void;
  /** Is given each database that opens, before anything can happen to it. */
  readonly adopt: (db: IDBDatabase) => void;
}

/** A database that is open, and the name it was given when it was made. */
export interface Opened {
  readonly db: IDBDatabase;
  readonly identity: string;
}

/** The name of whatever was thrown. */
export function nameOf(error: unknown): string {
  return (error as Error | null)?.name ?? "AbortError";
}

/** Whether the error tells of a connection that is no more, rather than of what was asked. */
export function isLoss(error: unknown): boolean {
  return /^(Abort|InvalidState|TransactionInactive|Unknown)Error$/
    .test(nameOf(error));
}

/** The error of this project that says what one of the browser's means. */
export function storeError(error: unknown): Error {
  if (error instanceof SampanError) return error;
  const cause = { cause: error };
  switch (nameOf(error)) {
    case "QuotaExceededError":
      return new ErrStoreFull("There is no room left in the browser", cause);
    case "VersionError":
      return new ErrStoreVersion(
        VERSION,
        "Store was upgraded by newer code: reload the page",
        cause,
      );
    // What browsers say when a file behind the database is gone or damaged.
    case "DataError":
    case "NotFoundError":
    case "NotReadableError":
      return new ErrStoreCorrupted(`${error}`, "Database is damaged", cause);
    default:
      return new ErrStoreUnavailable(`Store cannot be used: ${error}`, cause);
  }
}

/**
 * Opens a database; one attempt more if the browser does not answer, or has lost
 * the connection to where databases are.
 *
 * @throws ErrStoreBlocked if a page does not let go of an older version, or the browser never answers
 * @throws ErrStoreVersion if it is of a newer version
 * @throws ErrStoreVanished if it is not there, and not to be made
 * @throws ErrStoreUnavailable if the browser refuses
 */
export function openDatabase(opening: Opening): Promise<Opened> {
  return new Promise((resolve, reject) => {
    new Attempts(opening, resolve, reject).next();
  });
}

function isStore(db: IDBDatabase): boolean {
  const { objectStoreNames: names } = db;
  return names.contains(BLOCKS) && names.contains(META);
}

/** Error for a database that another program made under the name of a store. */
function foreign(name: string): ErrStoreCorrupted {
  return new ErrStoreCorrupted(
    name,
    "Database was not made by this library, and is left alone; give the store another name",
  );
}

class Attempts {
  readonly #opening: Opening;
  readonly #resolve: (opened: Opened) => void;
  readonly #reject: (error: Error) => void;
  readonly #began: number;
  #attempts = 0;
  #over = false;
  #vanished = false;
  #cancel: () => void = () => {};

  constructor(
    opening: Opening,
    resolve: (opened: Opened) => void,
    reject: (error: Error) => void,
  ) {
    this.#opening = opening;
    this.#resolve = resolve;
    this.#reject = reject;
    this.#began = opening.env.now();
  }

  get #waited(): number {
    return Math.round(this.#opening.env.now() - this.#began);
  }

  #timer(delay: number, callback: () => void): void {
    this.#cancel();
    this.#cancel = this.#opening.env.setTimer(callback, delay);
  }

  /** Whatever answers first counts, also if it is an attempt given up before. */
  next(): void {
    const { factory, name } = this.#opening;
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
    if (this.#over) return;
    this.#over = true;
    this.#cancel();
    this.#reject(error);
  }

  /** Safari sometimes answers no open until it is asked for something else. */
  #late(): void {
    if (this.#attempts === 1) {
      this.#opening.factory.databases?.().catch(() => {});
      return this.next();
    }
    const waited = this.#waited;
    this.#end(
      new ErrStoreBlocked(
        waited,
        `Browser has not opened the store within ${waited} ms`,
      ),
    );
  }

  #blocked(ticks: number): void {
    if (this.#over) return;
    const waited = this.#waited;
    if (ticks * STORE_TICK_MS >= STORE_BLOCKED_MS_MAX) {
      return this.#end(
        new ErrStoreBlocked(
          waited,
          `Another page has held an older version of the store open for ${waited} ms`,
        ),
      );
    }
    this.#timer(STORE_TICK_MS, () => this.#blocked(ticks + 1));
    this.#opening.onBlocked(waited);
  }

  #upgrade(request: IDBOpenDBRequest, event: IDBVersionChangeEvent): void {
    // What nobody waits for any more must not take a store from other pages.
    this.#vanished = !this.#opening.create && event.oldVersion === 0;
    if (this.#over || this.#vanished) {
      request.transaction?.abort();
      return request.result.close();
    }
    this.#timer(STORE_OPEN_MS_MAX, () => this.#late());
    if (event.oldVersion > 0) return;
    request.result.createObjectStore(BLOCKS);
    // In the transaction that makes the store: there is none without a name.
    const identity = this.#opening.env.random64().toString(16) +
      this.#opening.env.random64().toString(16);
    request.result.createObjectStore(META).put(identity, IDENTITY);
  }

  #failed(error: unknown): void {
    if (this.#over) return;
    if (this.#vanished) {
      return this.#end(new ErrStoreVanished("Store is no longer there"));
    }
    if (this.#attempts === 1 && isLoss(error)) return this.next();
    if (nameOf(error) === "VersionError") return this.#checkNewer(error);
    this.#end(storeError(error));
  }

  /** Tells a store of newer code from a database of another program. */
  #checkNewer(error: unknown): void {
    const { factory, name } = this.#opening;
    const request = factory.open(name);
    request.onerror = () => this.#end(storeError(error));
    // Deleted since then: it is not created again.
    request.onupgradeneeded = () => request.transaction?.abort();
    request.onsuccess = () => {
      const db = request.result;
      const isOwn = isStore(db);
      db.close();
      this.#end(isOwn ? storeError(error) : foreign(name));
    };
  }

  #opened(db: IDBDatabase): void {
    if (this.#over) return db.close();
    if (!isStore(db)) {
      db.close();
      return this.#end(foreign(this.#opening.name));
    }
    this.#opening.adopt(db);
    try {
      const request = db.transaction(META).objectStore(META).get(IDENTITY);
      request.onerror = () => this.#unread(db, request.error);
      request.onsuccess = () => this.#identified(db, request.result);
    } catch (error) {
      this.#unread(db, error);
    }
  }

  #unread(db: IDBDatabase, error: unknown): void {
    db.close();
    this.#failed(error);
  }

  #identified(db: IDBDatabase, identity: unknown): void {
    if (this.#over) return db.close();
    if (typeof identity !== "string") {
      db.close();
      return this.#end(
        new ErrStoreCorrupted(IDENTITY, "Store has lost its name"),
      );
    }
    this.#over = true;
    this.#cancel();
    this.#resolve({ db, identity });
  }
}
