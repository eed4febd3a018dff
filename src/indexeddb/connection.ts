/**
 * A connection to a database that outlives what browsers do to connections.
 *
 * Operations begin in the order they were made, also those that begin anew on
 * another connection: while one has no answer yet from the connection before,
 * none begins on the next; and a write that would come after a later one, which
 * has or may have taken effect, is given up instead.
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
import { ErrStoreUnavailable, insecureReason } from "./errors.ts";
import {
  isLoss,
  META,
  openDatabase,
  storeError,
  TENURE,
  VERSION,
} from "./open.ts";

/** What happens to a store that its owner may want to tell the user. */
export type StoreEvent =
  | {
    /** Another page holds an older version of the store open; it was told to let go (U6). */
    readonly type: "blocked";
    /** How long that has been so, in milliseconds. */
    readonly waitedMs: number;
  }
  | {
    /** The browser closed or lost the connection; the next operation opens another one (U4). */
    readonly type: "lost";
    /** What the browser said, if anything. */
    readonly error: unknown;
  }
  | {
    /** The store is closed for this page and stays so: another page upgraded or deleted it, or took it over (U6). */
    readonly type: "ended";
    /** What every operation fails with from now on. */
    readonly error: Error;
  };

/** What a {@linkcode Connection} is told. */
export interface ConnectionInit {
  readonly name: string;
  readonly factory: IDBFactory | undefined;
  readonly env: Env;
  /** The lock manager by which one page has the store; null to share it. */
  readonly locks: LockManager | null | undefined;
  /** The identity the store must have, if that is known. */
  readonly identity: string | undefined;
  readonly onEvent: ((event: StoreEvent) => void) | undefined;
}

/** Something asked of the database. */
interface Operation {
  /** Its place among all that was asked. */
  readonly order: number;
  readonly writes: boolean;
  /** Begins it: opens a transaction and makes its first request before it returns. */
  readonly begin: (db: IDBDatabase) => Promise<unknown>;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
  /** The connection it is under way on. */
  on: IDBDatabase | undefined;
  retried: boolean;
}

/** Names of the stores that this page has. */
const held = new Set<string>();

function lockOf(name: string): string {
  return `sampan/${name}`;
}

/** Error for a store whose lock was not to be had: says who has it, as far as the browser tells. */
async function lockedError(
  locks: LockManager,
  name: string,
  env: Env,
): Promise<ErrStoreLocked> {
  const probe = `${lockOf(name)}/${env.random64()}`;
  if (held.has(name) || await isHeldHere(locks, lockOf(name), probe)) {
    return new ErrStoreLocked(
      `This page has the store ${name} open already: close that object, or stop its host, before another one opens it, also when code is reloaded in the running page`,
    );
  }
  return new ErrStoreLocked(
    `Another page or worker has the store ${name} open: close it, or share one replica between tabs`,
  );
}

/** True if the browser says that another copy of this code holds a lock in this page, as after its modules were loaded again. */
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

/** Puts another token in place of the one that is expected; false, and no change, if there is a different one. */
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
      // A store without room for a token has no room for much else.
      if (transaction.error?.name === "QuotaExceededError") resolve(isFree);
      else reject(transaction.error);
    };
  });
}

/** One database, opened when it is needed, opened again when it was lost. */
export class Connection {
  readonly #init: ConnectionInit;
  #db: IDBDatabase | undefined;
  #identity: string | undefined;
  /** What ended the connection for good. */
  #ended: Error | undefined;
  #opening = false;
  #closing: Promise<void> | undefined;
  #idle: (() => void) | undefined;
  #unlock: (() => void) | undefined;
  /** Token that was written when the lock was last had: another one says that another page has used the store since. */
  #tenure: string | undefined;
  /** Set while the page may be frozen, so that the store is left to others. */
  #isHidden = false;
  #unwatch: (() => void) | undefined;
  /** Operations made so far. */
  #made = 0;
  /** The place of the last write that took effect, or may have. */
  #written = 0;
  readonly #running = new Set<Operation>();
  #waiting: Operation[] = [];
  #silentTicks = 0;
  #cancelTick: (() => void) | undefined;

  constructor(init: ConnectionInit) {
    this.#init = init;
    this.#identity = init.identity;
  }

  /** The name the store was given when it was made. */
  async identity(): Promise<string> {
    await this.run(false, () => Promise.resolve());
    return this.#identity as string;
  }

  /**
   * Runs an operation. What is lost without having taken effect is run once
   * more, on another connection.
   */
  run<T>(
    writes: boolean,
    begin: (db: IDBDatabase) => Promise<T>,
  ): Promise<T> {
    if (this.#closing) {
      return Promise.reject(new ErrClusterClosed("Store is closed"));
    }
    return new Promise<unknown>((resolve, reject) => {
      const order = ++this.#made;
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

  /** Whether the operation was still under way on that connection. */
  #leave(operation: Operation, db: IDBDatabase): boolean {
    if (operation.on !== db) return false;
    operation.on = undefined;
    this.#running.delete(operation);
    this.#silentTicks = 0;
    return true;
  }

  /** Notes that no write made before this one may begin any more, if this is one. */
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

  /** Lets go of a connection that is of no use any more. */
  #drop(db: IDBDatabase, error: unknown): void {
    db.close();
    if (this.#db !== db) return;
    this.#db = undefined;
    if (!this.#ended) this.#tell({ type: "lost", error });
  }

  /** Begins what waits, once it may. */
  #pump(): void {
    if (this.#waiting.length === 0) {
      if (this.#running.size > 0) return;
      this.#cancelTick?.();
      this.#cancelTick = undefined;
      return this.#idle?.();
    }
    if (this.#ended) return this.#failWaiting(this.#ended);
    const db = this.#db;
    // What ran on the connection before is to end before anything begins anew.
    if (!db) {
      if (this.#running.size === 0 && !this.#opening) {
        // Never rejects: fails what waits with the error it catches.
        this.#open();
      }
      return;
    }
    const waiting = this.#waiting.sort((a, b) => a.order - b.order);
    this.#waiting = [];
    for (const operation of waiting) {
      if (operation.writes && operation.order < this.#written) {
        operation.reject(
          new ErrStoreUnavailable("Connection to the store was lost"),
        );
      } else this.#launch(operation, db);
    }
    // All may have been given up.
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
        // Lost at once, before anything was asked of it.
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
    const { factory, name, env, locks } = this.#init;
    if (!factory) {
      throw new ErrStoreUnavailable("There is no IndexedDB here");
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
        throw new ErrStoreVanished("Store is no longer there, but another one");
      }
      if (await this.#lock()) await this.#begin(db);
    } catch (error) {
      db.close();
      throw error;
    }
    this.#identity = identity;
    return db;
  }

  /** Notes that this page has the store from now on, if no other has had it since this one let go of it. */
  async #begin(db: IDBDatabase): Promise<void> {
    const tenure = this.#init.env.random64().toString(16);
    try {
      if (!await replaceTenure(db, this.#tenure, tenure)) {
        throw new ErrStoreLocked(
          `Another page has used the store ${this.#init.name} while this one was in the back/forward cache: reload the page`,
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
   * Lets go of the store while the page may be frozen: a browser ends the lock of
   * such a page, or keeps the next page waiting for it. What is under way comes
   * to its end, or to nothing with the page.
   */
  #hide(): void {
    if (this.#unlock === undefined || this.#ended) return;
    this.#isHidden = true;
    this.#db?.close();
    this.#db = undefined;
    this.#release();
  }

  /** The page is back: opens the store again, unless the next operation has. */
  #show(): void {
    if (!this.#isHidden) return;
    this.#isHidden = false;
    // The next use of the store reports the fault.
    if (!this.#closing) this.identity().catch(() => {});
  }

  #release(): void {
    if (this.#unlock === undefined) return;
    held.delete(this.#init.name);
    this.#unlock();
    this.#unlock = undefined;
  }

  #adopt(db: IDBDatabase): void {
    db.onversionchange = ({ newVersion }) => {
      db.close();
      this.#end(
        newVersion === null
          ? new ErrStoreVanished("Another page deleted the store")
          : new ErrStoreVersion(
            VERSION,
            "Another page upgraded the store: reload the page",
          ),
      );
    };
    db.onclose = () => {
      if (this.#db !== db) return;
      // What is under way is told that it failed; if not, it has a moment left.
      this.#silentTicks = STORE_TICKS_MAX - 1;
      this.#drop(db, undefined);
    };
  }

  /** Ends it for good; what is under way comes to its end. */
  #end(error: Error): void {
    if (this.#ended) return;
    this.#ended = error;
    this.#db?.close();
    this.#db = undefined;
    this.#release();
    this.#unwatch?.();
    this.#unwatch = undefined;
    // Its own end is no news to its owner.
    if (!this.#closing && !(error instanceof ErrClusterClosed)) {
      this.#tell({ type: "ended", error });
    }
    this.#pump();
  }

  /** Keeps other pages out, from the first opening to the end. True if it had not until now. */
  async #lock(): Promise<boolean> {
    const { locks, name, env } = this.#init;
    if (!locks || this.#unlock) return false;
    for (const ms of [STORE_LOCK_MS_MAX, STORE_LOCK_AGAIN_MS_MAX]) {
      if (await this.#request(locks, ms)) return true;
      // The holder may be a page that was left: browsers grant its locks to the
      // next request, and not always to a request that waits.
    }
    throw await lockedError(locks, name, env);
  }

  /** Asks for the lock, for so long; true if it was had. */
  #request(locks: LockManager, ms: number): Promise<boolean> {
    const { name, env } = this.#init;
    return new Promise((resolve, reject) => {
      const waiting = new AbortController();
      const cancel = env.setTimer(() => waiting.abort(), ms);
      let release: (() => void) | undefined;
      locks.request(lockOf(name), { signal: waiting.signal }, () => {
        cancel();
        resolve(true);
        held.add(name);
        return new Promise<void>((done) => this.#unlock = release = done);
      }).catch((cause) => {
        cancel();
        if (release === undefined) {
          return waiting.signal.aborted ? resolve(false) : reject(cause);
        }
        // It was let go of before.
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

  /** Looks whether an operation under way has come to nothing without a word (U5). */
  #tick(): () => void {
    return this.#init.env.setTimer(() => {
      // Looks are counted, not time: a page that was frozen gets one for all of it.
      this.#silentTicks++;
      this.#cancelTick = this.#tick();
      if (this.#silentTicks < STORE_TICKS_MAX) return;
      const error = new DOMException("Browser does not answer", "AbortError");
      for (const operation of [...this.#running]) {
        const db = operation.on as IDBDatabase;
        this.#drop(db, error);
        this.#leave(operation, db);
        this.#failed(
          operation,
          db,
          operation.writes
            ? new ErrUnknownOutcome("Write was not answered", { cause: error })
            : error,
        );
      }
      this.#pump();
    }, STORE_TICK_MS);
  }

  #tell(event: StoreEvent): void {
    const { onEvent } = this.#init;
    if (onEvent !== undefined) notify(onEvent, event);
  }

  /** Closes it, after what is under way; idempotent. */
  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<void> {
    if (this.#running.size + this.#waiting.length > 0) {
      await new Promise<void>((resolve) => this.#idle = resolve);
    }
    this.#end(new ErrClusterClosed("Store is closed"));
  }
}
