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

import { tell } from "../promises.ts";
import type { Env } from "../env.ts";
import {
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
import { ErrStoreUnavailable } from "./errors.ts";
import { isLoss, openDatabase, storeError, VERSION } from "./open.ts";

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
      const db = await this.#connect();
      if (this.#ended) {
        db.close();
        this.#unlock?.();
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
    const { factory, name, env } = this.#init;
    if (!factory) {
      throw new ErrStoreUnavailable("There is no IndexedDB here");
    }
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
      await this.#lock();
    } catch (error) {
      db.close();
      throw error;
    }
    this.#identity = identity;
    return db;
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
    this.#unlock?.();
    if (!this.#closing) this.#tell({ type: "ended", error });
    this.#pump();
  }

  /** Keeps other pages out, from the first opening to the end. */
  #lock(): Promise<void> | undefined {
    const { locks, name, env } = this.#init;
    if (locks === null || this.#unlock) return;
    if (!locks) {
      throw new ErrStoreLocked(
        "Store cannot be kept to one page: there are no Web Locks here",
      );
    }
    return new Promise((resolve, reject) => {
      const waiting = new AbortController();
      const cancel = env.setTimer(() => waiting.abort(), STORE_LOCK_MS_MAX);
      locks.request(`sampan/${name}`, { signal: waiting.signal }, () => {
        cancel();
        resolve();
        return new Promise<void>((release) => this.#unlock = release);
      }).catch((cause) => {
        cancel();
        const error = new ErrStoreLocked(
          "Another page has the store open",
          { cause },
        );
        // It was had, and another page took it over.
        if (this.#unlock) this.#end(error);
        reject(error);
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
    if (onEvent !== undefined) tell(onEvent, event);
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
