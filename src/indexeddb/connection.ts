/**
 * Connection to a database that is reopened when the browser closes or loses it.
 *
 * Operations begin in the order of their calls, also those that are repeated on
 * another connection: none begins there while one has no result from the previous
 * connection. A write that would follow a later write, which has or may have taken
 * effect, fails instead.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { notify } from "../async.ts";
import type { Env } from "../env.ts";
import {
  STORE_LOCK_AGAIN_MS_MAX,
  STORE_LOCK_MS_MAX,
  STORE_TICK_MS,
  STORE_TICKS_MAX,
} from "../limits.ts";
import { ErrClusterClosed, ErrUnknownOutcome } from "../log/errors.ts";
import {
  ErrStoreLocked,
  ErrStoreVanished,
  ErrStoreVersion,
} from "../store/errors.ts";
import type { StoreLease } from "../store/lease.ts";
import { ErrStoreUnavailable, insecureReason } from "./errors.ts";
import {
  BLOCKS,
  isLoss,
  META,
  openDatabase,
  storeError,
  TENURE,
  VERSION,
} from "./open.ts";

/** Event of a store that its owner may show to the user. */
export type StoreEvent =
  | {
    /** Another page has an older version of the store open, and was asked to close it (U6). */
    readonly type: "blocked";
    /** Time since the opening began, in milliseconds. */
    readonly waitedMs: number;
  }
  | {
    /** Connection was closed or lost by the browser; the next operation opens another one (U4). */
    readonly type: "lost";
    /** Error of the browser, if any. */
    readonly error: unknown;
  }
  | {
    /** Store is closed permanently for this page: another page upgraded or deleted it, or took it over (U6). */
    readonly type: "ended";
    /** Error of every later operation. */
    readonly error: Error;
  };

/** Options of {@linkcode Connection}. */
export interface ConnectionOptions {
  readonly name: string;
  readonly factory: IDBFactory | undefined;
  readonly env: Env;
  /** Web Locks, with which one page has the store open; null to share the store. */
  readonly locks: LockManager | null | undefined;
  /** Expected identity of the store, if it is known. */
  readonly identity: string | undefined;
  readonly onEvent: ((event: StoreEvent) => void) | undefined;
}

/** Operation on the database, pending or under way. */
interface Operation {
  /** Position in the order of all calls. */
  readonly order: number;
  readonly writes: boolean;
  /** Begins the operation: opens a transaction and makes its first request before it returns. */
  readonly begin: (db: IDBDatabase) => Promise<unknown>;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
  /** Connection on which it is under way. */
  on: IDBDatabase | undefined;
  retried: boolean;
}

/** Names of the stores whose lock this page holds. */
const lockedHere = new Set<string>();

function lockOf(name: string): string {
  return `sampan/${name}`;
}

/** Error for a store whose lock is taken, with its holder as far as the browser reveals it. */
async function lockedError(
  locks: LockManager,
  name: string,
  env: Env,
): Promise<ErrStoreLocked> {
  const probe = `${lockOf(name)}/${env.random64()}`;
  if (lockedHere.has(name) || await isHeldHere(locks, lockOf(name), probe)) {
    return new ErrStoreLocked(
      `This page has the store ${name} open already: close that object, or stop its host, before another one opens it, also in a hot reload`,
    );
  }
  return new ErrStoreLocked(
    `Another page or worker has the store ${name} open: close it, or share one replica between tabs`,
  );
}

/** True if another copy of this code holds the lock in this page, as after a hot reload. */
async function isHeldHere(
  locks: LockManager,
  name: string,
  probe: string,
): Promise<boolean> {
  try {
    return await locks.request(probe, { ifAvailable: true }, async () => {
      const { held: all = [] } = await locks.query();
      const own = all.find((lock) => lock.name === probe)?.clientId;
      return own !== undefined &&
        all.some((lock) => lock.name === name && lock.clientId === own);
    });
  } catch {
    return false;
  }
}

/** Replaces the token by the one that `next` returns for it; what that throws is thrown, and nothing is changed. */
function replaceToken(
  db: IDBDatabase,
  next: (token: string | undefined) => string,
): Promise<void> {
  return new Promise((resolve, reject) => {
    // Over all stores: it begins once every write of an earlier holder has ended.
    const transaction = db.transaction([BLOCKS, META], "readwrite", {
      durability: "relaxed",
    });
    let refusal: unknown;
    const meta = transaction.objectStore(META);
    const request = meta.get(TENURE);
    request.onsuccess = () => {
      try {
        meta.put(next(request.result as string | undefined), TENURE);
        transaction.commit();
      } catch (error) {
        refusal = error;
        transaction.abort();
      }
    };
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(refusal ?? transaction.error);
  });
}

/** Token of the store; a transaction that reads it. */
function tokenOf(db: IDBDatabase): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    const transaction = db.transaction(META, "readonly");
    const request = transaction.objectStore(META).get(TENURE);
    transaction.oncomplete = () => resolve(request.result);
    transaction.onabort = () => reject(transaction.error);
  });
}

/** Replaces the expected tenure token; returns false and changes nothing if the stored token is another one. */
function replaceTenure(
  db: IDBDatabase,
  expected: string | undefined,
  tenure: string,
): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const transaction = db.transaction(META, "readwrite", {
      durability: "relaxed",
    });
    const meta = transaction.objectStore(META);
    const request = meta.get(TENURE);
    let isFree = false;
    request.onsuccess = () => {
      isFree = expected === undefined || request.result === expected;
      if (isFree) meta.put(tenure, TENURE);
    };
    transaction.oncomplete = () => resolve(isFree);
    transaction.onabort = () => {
      // Without room for the token, the next write reports that the store is full.
      if (transaction.error?.name === "QuotaExceededError") resolve(isFree);
      else reject(transaction.error);
    };
  });
}

/** Connection to one database, opened on demand and reopened when it is lost. */
export class Connection {
  readonly #options: ConnectionOptions;
  #db: IDBDatabase | undefined;
  #identity: string | undefined;
  /** Error that ended the connection permanently. */
  #ended: Error | undefined;
  #opening = false;
  #closing: Promise<void> | undefined;
  #idle: (() => void) | undefined;
  #unlock: (() => void) | undefined;
  /** Tenure token written when this page last acquired the lock; another token in the store means that another page has used it since. */
  #tenure: string | undefined;
  /** Set while the page may be frozen in the back/forward cache and has released the store. */
  #isHidden = false;
  #unwatch: (() => void) | undefined;
  /** Lease under which pages share the store; undefined if one page has it. */
  #lease: StoreLease | undefined;
  /** Number of calls so far. */
  #calls = 0;
  /** Order of the last write that has or may have taken effect. */
  #written = 0;
  readonly #running = new Set<Operation>();
  #waiting: Operation[] = [];
  #silentTicks = 0;
  #cancelTick: (() => void) | undefined;

  constructor(options: ConnectionOptions) {
    this.#options = options;
    this.#identity = options.identity;
  }

  /** Shares the store with other pages under a lease, instead of locking it. */
  share(lease: StoreLease): void {
    this.#lease = lease;
    lease.add({
      claim: (next) => this.run(true, (db) => replaceToken(db, next)),
      verify: async () => {
        const check = lease.guard(false);
        const refusal = check(await this.run(false, tokenOf));
        if (refusal !== undefined) throw refusal;
      },
      release: () => this.#hide(),
    });
  }

  /** Random name given to the store when it was created. */
  async identity(): Promise<string> {
    await this.run(false, () => Promise.resolve());
    return this.#identity as string;
  }

  /**
   * Runs an operation. If the connection is lost before it has taken effect, it is
   * repeated once on another connection.
   */
  run<T>(
    writes: boolean,
    begin: (db: IDBDatabase) => Promise<T>,
  ): Promise<T> {
    if (this.#closing) {
      return Promise.reject(
        new ErrClusterClosed(`Database ${this.#options.name} is closed`),
      );
    }
    return new Promise<unknown>((resolve, reject) => {
      const order = ++this.#calls;
      const operation: Operation = {
        order,
        writes,
        begin,
        resolve,
        reject,
        on: undefined,
        retried: false,
      };
      if (this.#db && this.#waiting.length === 0) {
        return this.#launch(operation, this.#db);
      }
      this.#waiting.push(operation);
      this.#pump();
    }) as Promise<T>;
  }

  #launch(operation: Operation, db: IDBDatabase): void {
    operation.on = db;
    if (this.#running.size === 0) this.#silentTicks = 0;
    this.#running.add(operation);
    this.#cancelTick ??= this.#tick();
    let result: Promise<unknown>;
    try {
      result = operation.begin(db);
    } catch (error) {
      result = Promise.reject(error);
    }
    result.then((value) => {
      if (!this.#leave(operation, db)) return;
      this.#passed(operation);
      operation.resolve(value);
      this.#pump();
    }, (error) => {
      if (!this.#leave(operation, db)) return;
      this.#failed(operation, db, error);
      this.#pump();
    });
  }

  /** Removes an operation from those under way; false if it was not under way on that connection. */
  #leave(operation: Operation, db: IDBDatabase): boolean {
    if (operation.on !== db) return false;
    operation.on = undefined;
    this.#running.delete(operation);
    this.#silentTicks = 0;
    return true;
  }

  /** Records that a write has or may have taken effect: no earlier write may begin afterwards. */
  #passed({ writes, order }: Operation): void {
    if (writes && order > this.#written) this.#written = order;
  }

  #failed(operation: Operation, db: IDBDatabase, error: unknown): void {
    if (error instanceof ErrUnknownOutcome) this.#passed(operation);
    const lost = isLoss(error);
    if (lost) this.#drop(db, error);
    if (!lost || operation.retried) return operation.reject(storeError(error));
    operation.retried = true;
    this.#waiting.push(operation);
  }

  /** Closes a lost connection. */
  #drop(db: IDBDatabase, error: unknown): void {
    db.close();
    if (this.#db !== db) return;
    this.#db = undefined;
    if (!this.#ended) this.#tell({ type: "lost", error });
  }

  /** Begins the pending operations, once they may begin. */
  #pump(): void {
    if (this.#waiting.length === 0) {
      if (this.#running.size > 0) return;
      this.#cancelTick?.();
      this.#cancelTick = undefined;
      return this.#idle?.();
    }
    if (this.#ended) return this.#failWaiting(this.#ended);
    const db = this.#db;
    // Operations on the previous connection must end before any is repeated.
    if (!db) {
      if (this.#running.size === 0 && !this.#opening) {
        // Never rejects: pending operations fail with the error instead.
        this.#open();
      }
      return;
    }
    const waiting = this.#waiting.sort((a, b) => a.order - b.order);
    this.#waiting = [];
    for (const operation of waiting) {
      if (operation.writes && operation.order < this.#written) {
        operation.reject(
          new ErrStoreUnavailable(
            `Connection to database ${this.#options.name} was lost before the write`,
          ),
        );
      } else this.#launch(operation, db);
    }
    // All of them may have failed at once.
    if (this.#running.size === 0) this.#pump();
  }

  #failWaiting(error: Error): void {
    for (const operation of this.#waiting.splice(0)) operation.reject(error);
    this.#pump();
  }

  async #open(): Promise<void> {
    this.#opening = true;
    try {
      const db = await this.#connect().catch((error) => {
        // Lost at once: connect again.
        if (!isLoss(error)) throw error;
        return this.#connect();
      });
      if (this.#ended) {
        db.close();
        this.#release();
        throw this.#ended;
      }
      this.#db = db;
    } catch (error) {
      this.#failWaiting(storeError(error));
    }
    this.#opening = false;
    this.#pump();
  }

  async #connect(): Promise<IDBDatabase> {
    const { factory, name, env, locks } = this.#options;
    if (!factory) {
      throw new ErrStoreUnavailable(
        "globalThis.indexedDB is missing; use the in-memory stores",
      );
    }
    if (locks === undefined) throw new ErrStoreUnavailable(insecureReason());
    const { db, identity } = await openDatabase({
      factory,
      name,
      env,
      create: this.#identity === undefined,
      onBlocked: (waitedMs) => this.#tell({ type: "blocked", waitedMs }),
      adopt: (db) => this.#adopt(db),
    });
    try {
      if (this.#identity !== undefined && this.#identity !== identity) {
        throw new ErrStoreVanished(
          `Database ${name} was replaced by another store`,
        );
      }
      if (await this.#lock()) await this.#begin(db);
    } catch (error) {
      db.close();
      throw error;
    }
    this.#identity = identity;
    return db;
  }

  /** Writes a new tenure token, unless another page has used the store since this page released it. */
  async #begin(db: IDBDatabase): Promise<void> {
    // Pages that share the store write their token when they take the lease.
    if (this.#lease !== undefined) return;
    const tenure = this.#options.env.random64().toString(16);
    try {
      if (!await replaceTenure(db, this.#tenure, tenure)) {
        throw new ErrStoreLocked(
          `Another page has used the store ${this.#options.name} while this one was in the back/forward cache: reload the page`,
        );
      }
    } catch (error) {
      this.#release();
      if (error instanceof ErrStoreLocked) this.#end(error);
      throw error;
    }
    this.#tenure = tenure;
    this.#watchPage();
  }

  #watchPage(): void {
    if (this.#unwatch !== undefined) return;
    const hide = (): void => this.#hide();
    const show = (): void => this.#show();
    globalThis.addEventListener("pagehide", hide);
    globalThis.addEventListener("pageshow", show);
    this.#unwatch = () => {
      globalThis.removeEventListener("pagehide", hide);
      globalThis.removeEventListener("pageshow", show);
    };
  }

  /**
   * Releases the store while the page may be frozen: a browser breaks the lock of a
   * frozen page, or lets the next page wait for it. Operations under way complete,
   * or end with the page.
   */
  #hide(): void {
    if (this.#unlock === undefined || this.#ended) return;
    this.#isHidden = true;
    this.#db?.close();
    this.#db = undefined;
    this.#release();
  }

  /** Opens the store again when the page is shown, unless an operation has. */
  #show(): void {
    if (!this.#isHidden) return;
    this.#isHidden = false;
    // The next operation reports the error.
    if (!this.#closing) this.identity().catch(() => {});
  }

  #release(): void {
    if (this.#unlock === undefined) return;
    lockedHere.delete(this.#options.name);
    this.#unlock();
    this.#unlock = undefined;
  }

  #adopt(db: IDBDatabase): void {
    db.onversionchange = ({ newVersion }) => {
      db.close();
      this.#end(
        newVersion === null
          ? new ErrStoreVanished(`Another page deleted database ${db.name}`)
          : new ErrStoreVersion(
            VERSION,
            `Another page upgraded database ${db.name}: reload the page`,
          ),
      );
    };
    db.onclose = () => {
      if (this.#db !== db) return;
      // Operations under way usually fail by events; allow one more check for that.
      this.#silentTicks = STORE_TICKS_MAX - 1;
      this.#drop(db, undefined);
    };
  }

  /** Ends the connection permanently; operations under way complete. */
  #end(error: Error): void {
    if (this.#ended) return;
    this.#ended = error;
    this.#db?.close();
    this.#db = undefined;
    this.#release();
    this.#unwatch?.();
    this.#unwatch = undefined;
    // The owner knows of its own close().
    if (!this.#closing && !(error instanceof ErrClusterClosed)) {
      this.#tell({ type: "ended", error });
    }
    this.#pump();
  }

  /** Acquires the lock at the first opening and keeps it to the end; true if it was acquired now. */
  async #lock(): Promise<boolean> {
    const { locks, name, env } = this.#options;
    if (!locks || this.#unlock) return false;
    for (const ms of [STORE_LOCK_MS_MAX, STORE_LOCK_AGAIN_MS_MAX]) {
      if (await this.#request(locks, ms)) return true;
      // The holder may be a page that has ended: browsers grant its lock to the next
      // request, but not always to a waiting one.
    }
    throw await lockedError(locks, name, env);
  }

  /** Requests the lock for up to `ms`; true if it was granted. */
  #request(locks: LockManager, ms: number): Promise<boolean> {
    const { name, env } = this.#options;
    return new Promise((resolve, reject) => {
      const waiting = new AbortController();
      const cancel = env.setTimer(() => waiting.abort(), ms);
      let release: (() => void) | undefined;
      // Pages that share the store share its lock, which keeps others out.
      const mode = this.#lease === undefined ? "exclusive" : "shared";
      const { signal } = waiting;
      locks.request(lockOf(name), { mode, signal }, () => {
        cancel();
        resolve(true);
        lockedHere.add(name);
        return new Promise<void>((done) => this.#unlock = release = done);
      }).catch((cause) => {
        cancel();
        if (release === undefined) {
          return waiting.signal.aborted ? resolve(false) : reject(cause);
        }
        // The lock was released before.
        if (this.#unlock !== release) return;
        this.#end(
          new ErrStoreLocked(
            `Another page has taken over the store ${name}: reload the page`,
            { cause },
          ),
        );
      });
    });
  }

  /** Checks periodically whether operations under way make progress (U5). */
  #tick(): () => void {
    return this.#options.env.setTimer(() => {
      // Counts checks rather than time: while the page is frozen, none is counted.
      this.#silentTicks++;
      this.#cancelTick = this.#tick();
      if (this.#silentTicks < STORE_TICKS_MAX) return;
      const error = new DOMException("IndexedDB does not answer", "AbortError");
      for (const operation of [...this.#running]) {
        const db = operation.on as IDBDatabase;
        this.#drop(db, error);
        this.#leave(operation, db);
        this.#failed(
          operation,
          db,
          operation.writes
            ? new ErrUnknownOutcome(
              `Write to database ${this.#options.name} got no answer`,
              { cause: error },
            )
            : error,
        );
      }
      this.#pump();
    }, STORE_TICK_MS);
  }

  #tell(event: StoreEvent): void {
    const { onEvent } = this.#options;
    if (onEvent !== undefined) notify(onEvent, event);
  }

  /** Closes the connection after the operations under way; idempotent. */
  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<void> {
    if (this.#running.size + this.#waiting.length > 0) {
      await new Promise<void>((resolve) => this.#idle = resolve);
    }
    this.#end(new ErrClusterClosed(`Database ${this.#options.name} is closed`));
  }
}
