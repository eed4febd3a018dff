/**
 * Watches: answers to queries that are kept up to date.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { isPromise, notify, onAbort } from "../async.ts";
import type { Env } from "../env.ts";
import { WATCH_PAUSE_MS_MAX, WATCH_PAUSE_ROUNDS } from "../limits.ts";
import {
  checkOptions,
  isFunction,
  isOneOf,
  isSignal,
  optional,
  type OptionChecks,
} from "../options.ts";
import { ErrSystemBusy } from "../rsm/errors.ts";
import type { MaybePromise } from "../statemachine/types.ts";
import { isSameAnswer } from "./same_answer.ts";

/** Options of `Replica.watch()`. */
export interface WatchOptions<A = unknown> {
  /**
   * State that is queried: with pending submissions of this device applied, or
   * without. The two are the same when nothing is pending.
   *
   * @default {"optimistic"}
   */
  view?: "committed" | "optimistic";
  /**
   * Compares two answers; equal answers are reported once.
   *
   * @default {deep equality of bytes, arrays, maps, plain objects and primitives}
   */
  equal?: (one: A, other: A) => boolean;
  /** Ends the watch when it aborts. */
  signal?: AbortSignal;
}

/** Checks the options of a watch. */
export function checkWatch(options: WatchOptions<never>): void {
  // Created in the function, so that a bundle without watches leaves it out.
  const checks: OptionChecks<WatchOptions<never>> = {
    view: optional(isOneOf("committed", "optimistic")),
    equal: optional(isFunction),
    signal: optional(isSignal),
  };
  checkOptions("Options of a watch", options, checks);
}

/**
 * Answer to a query, kept up to date while it has subscribers or iterators. The
 * state machine is queried at most once in a turn of the event loop, and not
 * without subscribers. An answer that equals the one before is the same object.
 *
 * As an async iterable it yields the present answer, then each that differs from
 * the one yielded before; a slow consumer gets the newest and misses those
 * between. The iteration ends when the signal aborts. It throws what the query
 * throws, and `ErrClusterClosed` once the replica is stopped or has failed.
 *
 * `subscribe` and `getSnapshot` are the arguments of React's
 * `useSyncExternalStore`; both may be called without their object.
 */
export interface Watch<A = unknown> extends AsyncIterable<A> {
  /**
   * Calls `listener` after each change of the answer, until the returned function
   * is called. Errors of the listener are ignored. No listener is called after
   * the replica or the signal has ended.
   */
  readonly subscribe: (listener: () => void) => () => void;
  /**
   * Returns the answer: the same object until it changes, undefined until it is
   * known. Throws what the query throws, until a later query succeeds. Without
   * subscribers it queries if something has changed. After the end it is the last
   * known answer.
   */
  readonly getSnapshot: () => A | undefined;
}

/** Answer or error of the last query. */
type Known<A> = { readonly answer: A } | { readonly error: unknown };

interface Listener {
  /** Called when the answer has changed. */
  readonly changed: () => void;
  /** Called when a query has settled. */
  readonly settled?: () => void;
}

/** Watch of one query; it queries again when its replica has changed. */
class QueryWatch<A> implements Watch<A> {
  readonly #watches: Watches;
  readonly #query: () => MaybePromise<A>;
  readonly #equal: (one: A, other: A) => boolean;
  readonly #signal: AbortSignal | undefined;
  readonly #listeners = new Set<Listener>();
  #ignoreAbort: (() => void) | undefined;
  #known: Known<A> | undefined;
  /** Version of the replica at the last query. */
  #queried = -1;
  /** Version of the replica at the query that returned the known answer. */
  #answered = -1;
  #isQuerying = false;

  constructor(
    watches: Watches,
    query: () => MaybePromise<A>,
    { equal = isSameAnswer, signal }: WatchOptions<A>,
  ) {
    this.#watches = watches;
    this.#query = query;
    this.#equal = equal;
    this.#signal = signal;
  }

  readonly subscribe = (changed: () => void): () => void => {
    if (this.#isOver) return () => {};
    const listener = { changed };
    this.#add(listener);
    return () => this.#delete(listener);
  };

  readonly getSnapshot = (): A | undefined => {
    if (this.#listeners.size === 0) this.refresh();
    const known = this.#known;
    if (known === undefined) return undefined;
    if ("error" in known) throw known.error;
    return known.answer;
  };

  get #isOver(): boolean {
    return this.#signal?.aborted === true || this.#watches.ended !== undefined;
  }

  #add(listener: Listener): void {
    if (this.#listeners.size === 0) {
      this.#watches.add(this);
      this.#ignoreAbort = onAbort(this.#signal, () => {
        for (const listener of this.#listeners) this.#delete(listener);
      });
    }
    this.#listeners.add(listener);
    // The known answer may be from before the first listener.
    if (this.#queried !== this.#watches.version) this.#watches.schedule();
  }

  #delete(listener: Listener): void {
    if (!this.#listeners.delete(listener) || this.#listeners.size > 0) return;
    this.#watches.delete(this);
    this.#ignoreAbort?.();
  }

  /** Queries again if something has changed since the last query. */
  refresh(): void {
    const { version } = this.#watches;
    if (this.#isOver || this.#isQuerying || this.#queried === version) return;
    this.#queried = version;
    try {
      const begun = this.#watches.now;
      const answer = this.#query();
      if (!isPromise(answer)) return this.#succeeded(answer, version);
      this.#isQuerying = true;
      answer.then(
        (answer) =>
          this.#settled(begun, () => this.#succeeded(answer, version)),
        (error) => this.#settled(begun, () => this.#failed(error, version)),
      );
    } catch (error) {
      this.#failed(error, version);
    }
  }

  #settled(begun: number, report: () => void): void {
    this.#isQuerying = false;
    this.#watches.took(begun);
    if (this.#isOver) return;
    report();
    // The replica has changed during the query.
    if (this.#listeners.size > 0 && this.#queried !== this.#watches.version) {
      this.#watches.schedule();
    }
  }

  #succeeded(answer: A, version: number): void {
    const known = this.#known;
    try {
      const isSame = known !== undefined && "answer" in known &&
        this.#equal(known.answer, answer);
      this.#report(isSame ? known : { answer }, version);
    } catch (error) {
      this.#failed(error, version);
    }
  }

  #failed(error: unknown, version: number): void {
    // The known answer stays while the replica recovers.
    if (error instanceof ErrSystemBusy || this.#isOver) return;
    const known = this.#known;
    const isSame = known !== undefined && "error" in known &&
      known.error === error;
    this.#report(isSame ? known : { error }, version);
  }

  #report(known: Known<A>, version: number): void {
    const isChanged = known !== this.#known;
    this.#known = known;
    this.#answered = version;
    for (const listener of [...this.#listeners]) {
      // An earlier listener may have removed it.
      if (!this.#listeners.has(listener)) continue;
      if (isChanged) notify(listener.changed);
      listener.settled?.();
    }
  }

  [Symbol.asyncIterator](): AsyncIterator<A, undefined> {
    let yielded: Known<A> | undefined;
    let isBegun = false;
    let isDone = false;
    let waiting: (() => void)[] = [];
    const wake = (): void => {
      const all = waiting;
      waiting = [];
      for (const resume of all) resume();
    };
    const listener = { changed: wake, settled: wake };
    let since = 0;
    let ignoreEnd = (): void => {};
    let ignoreAbort = (): void => {};
    const end = (): void => {
      isDone = true;
      this.#delete(listener);
      ignoreAbort();
      ignoreEnd();
      wake();
    };
    // Called by the first `next()`, so that an unused iterator costs nothing.
    const begin = (): void => {
      isBegun = true;
      // The known answer may be older than the iterator.
      since = this.#watches.version;
      ignoreEnd = this.#watches.onEnd(wake);
      ignoreAbort = onAbort(this.#signal, wake);
      if (!this.#isOver) this.#add(listener);
    };
    const next = (): IteratorResult<A, undefined> | undefined => {
      if (isDone || this.#signal?.aborted) {
        end();
        return { done: true, value: undefined };
      }
      const { ended } = this.#watches;
      if (ended !== undefined) {
        end();
        throw ended.reason;
      }
      const known = this.#known;
      if (
        known === undefined || known === yielded || this.#answered < since
      ) return undefined;
      yielded = known;
      if ("answer" in known) return { done: false, value: known.answer };
      end();
      throw known.error;
    };
    return {
      next: async () => {
        if (!isBegun && !isDone) begin();
        for (;;) {
          const result = next();
          if (result !== undefined) return result;
          await new Promise<void>((resolve) => waiting.push(resolve));
        }
      },
      return: () => {
        end();
        return Promise.resolve({ done: true, value: undefined });
      },
    };
  }
}

/** Watches of one replica. */
export class Watches {
  readonly #env: Env;
  readonly #isPaced: () => boolean;
  /** Watches that have subscribers or iterators. */
  readonly #active = new Set<{ refresh(): void }>();
  readonly #atEnd = new Set<() => void>();
  #isScheduled = false;
  /** Set from a refresh until the next turn of the event loop. */
  #isRefreshed = false;
  /** Time that the queries since the last schedule have taken, in milliseconds. */
  #tookMs = 0;
  #cancelTimer: (() => void) | undefined;
  /** Number of changes so far that may affect an answer. */
  version = 0;
  /** Reason for which all watches have ended; undefined before. */
  ended: { readonly reason: unknown } | undefined;

  /** Creates an empty set of watches; `isPaced` is true while the state that they query may have to be made first, from many commands. */
  constructor(env: Env, isPaced: () => boolean) {
    this.#env = env;
    this.#isPaced = isPaced;
  }

  /** Creates a watch of the answers of `query`. */
  watch<A>(query: () => MaybePromise<A>, options: WatchOptions<A>): Watch<A> {
    return new QueryWatch(this, query, options);
  }

  /** Notes a change that may affect answers. */
  wake(): void {
    this.version++;
    if (this.#active.size > 0) this.schedule();
  }

  /** Time of the clock, in milliseconds. */
  get now(): number {
    return this.#env.now();
  }

  /** Notes that a query has ended that began at that time. */
  took(begun: number): void {
    this.#tookMs = Math.max(this.#tookMs, this.now - begun);
  }

  /**
   * Refreshes active watches: at once if they were not refreshed in this turn of the
   * event loop, else in the next one. While they are paced, a multiple of the time
   * that the last queries took is left to other work of the page.
   */
  schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    const pause = this.#isPaced()
      ? Math.min(WATCH_PAUSE_ROUNDS * this.#tookMs, WATCH_PAUSE_MS_MAX)
      : 0;
    if (pause >= 1) {
      this.#cancelTimer = this.#env.setTimer(() => this.#refresh(), pause);
    } else if (this.#isRefreshed) {
      // Never rejects: a watch passes what its query throws to its subscribers.
      void this.#env.turn().then(() => this.#refresh());
    } else queueMicrotask(() => this.#refresh());
  }

  #refresh(): void {
    this.#isScheduled = false;
    this.#isRefreshed = true;
    // Never rejects: it only clears a flag.
    void this.#env.turn().then(() => this.#isRefreshed = false);
    this.#tookMs = 0;
    const begun = this.now;
    for (const watch of [...this.#active]) watch.refresh();
    this.took(begun);
  }

  /** Adds a watch that has its first subscriber. */
  add(watch: { refresh(): void }): void {
    this.#active.add(watch);
  }

  /** Removes a watch that has lost its last subscriber. */
  delete(watch: { refresh(): void }): void {
    this.#active.delete(watch);
  }

  /** Calls `callback` at the end, until the returned function is called. */
  onEnd(callback: () => void): () => void {
    this.#atEnd.add(callback);
    return () => void this.#atEnd.delete(callback);
  }

  /** Ends all watches with `reason`. */
  end(reason: unknown): void {
    this.ended = { reason };
    this.#cancelTimer?.();
    this.#active.clear();
    for (const callback of [...this.#atEnd]) callback();
  }
}
