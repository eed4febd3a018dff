/**
 * Faults that browsers cause in a page's databases, on demand: a factory of
 * databases in front of the real one, and a manual clock.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { type Env, systemEnv } from "../../src/env.ts";

/** Fault of a transaction that writes. */
export type TransactionFault =
  /** Cannot be begun: the connection is no more. */
  | "refused"
  /** Same, but later transactions can still be begun. */
  | "refused alone"
  /** Aborted after its first request, before it was committed, because the connection is gone; the page is not notified. */
  | "lost early"
  /** Committed, but the page is notified that the connection is gone. */
  | "lost late"
  /** Committed, but the page is never notified. */
  | "silent"
  /** Aborted as there is no room for its k-th put. */
  | { readonly full: number }
  | "fine";

const LOST = "Connection to Indexed Database server lost";

interface Handlers {
  oncomplete: (() => void) | null;
  onabort: (() => void) | null;
}

/** Databases with the faults to inject into them. */
export class Faults {
  /** Number of next opens that are never answered. */
  silentOpens = 0;
  /** Names of the errors with which the next opens fail. */
  readonly openErrors: string[] = [];
  /** Number of openings so far. */
  opens = 0;
  /** Number by which the version of the opening code is newer. */
  newer = 0;
  /** Fates of the next transactions that write; later ones succeed. */
  injected: TransactionFault[] = [];
  /** Transactions to come that read and cannot be begun. */
  refusedReads = 0;
  /** Durability of each transaction. */
  readonly durabilities: (string | undefined)[] = [];
  #killed = false;
  readonly #live = new Set<IDBDatabase>();
  readonly #real: IDBFactory;

  constructor(real: IDBFactory = globalThis.indexedDB) {
    this.#real = real;
  }

  /** Factory with the faults. */
  readonly factory: IDBFactory = {
    open: (name: string, version?: number) => this.#open(name, version),
    deleteDatabase: (name: string) => this.#real.deleteDatabase(name),
    cmp: (a: unknown, b: unknown) => this.#real.cmp(a, b),
    databases: () => this.#real.databases(),
  };

  #open(name: string, version?: number): IDBOpenDBRequest {
    this.opens++;
    if (this.silentOpens > 0) {
      this.silentOpens--;
      return new EventTarget() as IDBOpenDBRequest;
    }
    const error = this.#killed ? "AbortError" : this.openErrors.shift();
    if (error !== undefined) {
      const request = {
        error: new DOMException(error, error),
      } as IDBOpenDBRequest;
      setTimeout(() => request.onerror?.(new Event("error")));
      return request;
    }
    const request = this.#real.open(
      name,
      version === undefined ? undefined : version + this.newer,
    );
    request.addEventListener("success", () => {
      if (this.#killed) request.result.close();
      else this.#follow(request.result);
    });
    return request;
  }

  #follow(db: IDBDatabase): void {
    this.#live.add(db);
    const begin = db.transaction.bind(db);
    db.transaction = (stores, mode, options): IDBTransaction => {
      if (!this.#live.has(db)) {
        throw new DOMException(LOST, "InvalidStateError");
      }
      if (mode !== "readwrite") {
        if (this.refusedReads-- > 0) this.#refuse(db);
        return begin(stores, mode, options);
      }
      // The store's own write while it opens is not counted as a write of its owner.
      if (stores === "meta") return begin(stores, mode, options);
      const fault = this.injected.shift() ?? "fine";
      if (fault === "refused") this.#refuse(db);
      if (fault === "refused alone") {
        throw new DOMException(LOST, "InvalidStateError");
      }
      this.durabilities.push(options?.durability);
      const transaction = begin(stores, mode, options);
      if (fault !== "fine") this.#inject(db, transaction, fault);
      return transaction;
    };
  }

  #refuse(db: IDBDatabase): never {
    this.#live.delete(db);
    throw new DOMException(LOST, "InvalidStateError");
  }

  #inject(
    db: IDBDatabase,
    transaction: IDBTransaction,
    fault: TransactionFault,
  ): void {
    const handlers: Handlers = { oncomplete: null, onabort: null };
    let error: DOMException | null = null;
    for (const name of ["oncomplete", "onabort"] as const) {
      Object.defineProperty(transaction, name, {
        set: (handler) => handlers[name] = handler,
      });
    }
    Object.defineProperty(transaction, "error", { get: () => error });
    const abort = (name: string): void => {
      error = new DOMException(LOST, name);
      if (name !== "QuotaExceededError") this.#live.delete(db);
    };
    transaction.addEventListener("abort", () => handlers.onabort?.());
    transaction.addEventListener("complete", () => {
      if (fault === "silent") return;
      if (fault !== "lost late") return handlers.oncomplete?.();
      abort("UnknownError");
      handlers.onabort?.();
    });
    const full = typeof fault === "object" ? fault.full : Infinity;
    if (fault !== "lost early" && full === Infinity) return;
    // Not yet: what is being committed could not be aborted.
    transaction.commit = (): void => {};
    let count = 0;
    const objectStore = transaction.objectStore.bind(transaction);
    transaction.objectStore = (name): IDBObjectStore => {
      const store = objectStore(name);
      const put = store.put.bind(store);
      store.put = (value, key): IDBRequest<IDBValidKey> => {
        const request = put(value, key);
        const at = ++count;
        request.addEventListener("success", () => {
          if (at !== (fault === "lost early" ? 1 : full)) return;
          abort(fault === "lost early" ? "UnknownError" : "QuotaExceededError");
          transaction.abort();
        });
        return request;
      };
      return store;
    };
  }

  /** Closes every connection and notifies the page, as a browser does. */
  close(): void {
    for (const db of [...this.#live]) {
      this.#live.delete(db);
      db.close();
      db.onclose?.(new Event("close"));
    }
  }

  /** Ends the page: its later calls have no effect. */
  kill(): void {
    this.#killed = true;
    this.forget();
  }

  /** Drops every connection without notifying the page. */
  forget(): void {
    for (const db of this.#live) db.close();
    this.#live.clear();
  }
}

/** Environment whose clock advances only when a test says so. */
export class ManualEnv implements Env {
  #now = 1000;
  readonly #timers = new Set<{ readonly at: number; run(): void }>();

  /** Milliseconds. */
  now(): number {
    return this.#now;
  }

  /** A random number. */
  random64(): bigint {
    return systemEnv.random64();
  }

  /** Sets a timer on the manual clock. */
  setTimer(callback: () => void, delay: number): () => void {
    const timer = { at: this.#now + delay, run: callback };
    this.#timers.add(timer);
    return () => void this.#timers.delete(timer);
  }

  /** The event loop's. */
  turn(): Promise<void> {
    return systemEnv.turn();
  }

  /** True if a timer is set. */
  get waits(): boolean {
    return this.#timers.size > 0;
  }

  /** Advances the clock and runs the timers that are due. */
  advance(ms: number): void {
    const end = this.#now + ms;
    for (;;) {
      const due = [...this.#timers].filter(({ at }) => at <= end)
        .sort((a, b) => a.at - b.at)[0];
      if (!due) break;
      this.#timers.delete(due);
      this.#now = Math.max(this.#now, due.at);
      due.run();
    }
    this.#now = end;
  }
}

let made = 0;

/** A name that no database has yet. */
export function freshName(): string {
  return `test-${++made}-${systemEnv.random64().toString(36)}`;
}

/** Resolves with the result of a request. */
export function answer<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** Deletes a database. */
export async function drop(name: string): Promise<void> {
  await answer(globalThis.indexedDB.deleteDatabase(name));
}

/** Waits for a moment of the browser's. */
export async function until(
  what: string,
  condition: () => boolean,
): Promise<void> {
  for (let waited = 0; !condition(); waited += 5) {
    if (waited > 5_000) throw new Error(`${what}: does not happen`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Lock manager of one store, whose locks are released when the store crashes. */
export class Locks {
  readonly #held = new Map<string, () => void>();
  readonly #waiting: (() => void)[] = [];

  /** Lock manager for the stores. */
  readonly manager: LockManager = {
    query: () => Promise.resolve({}),
    request: (
      name: string,
      options: LockOptions | LockGrantedCallback<unknown>,
      callback?: LockGrantedCallback<unknown>,
    ) => this.#request(name, options as LockOptions, callback!),
  } as LockManager;

  #request(
    name: string,
    { signal }: LockOptions,
    callback: LockGrantedCallback<unknown>,
  ): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const take = (): void => {
        if (this.#held.has(name)) return void this.#waiting.push(take);
        if (signal?.aborted) return;
        this.#held.set(name, () => reject(new DOMException("", "AbortError")));
        Promise.resolve(callback(null)).then((value) => {
          this.#held.delete(name);
          resolve(value);
          for (const next of this.#waiting.splice(0)) next();
        });
      };
      signal?.addEventListener("abort", () => reject(signal.reason));
      take();
    });
  }

  /** Steals a lock from its holder. */
  steal(name: string): void {
    this.#held.get(name)?.();
    this.#held.delete(name);
  }
}
