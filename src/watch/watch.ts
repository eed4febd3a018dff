/**
 * Answers that are kept up to date.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  checkOptions,
  isFunction,
  isOneOf,
  isSignal,
  optional,
  type OptionChecks,
} from "../options.ts";
import type { Env } from "../env.ts";
import { isPromise, notify, onAbort } from "../async.ts";
import { ErrSystemBusy } from "../rsm/errors.ts";
import type { MaybePromise } from "../statemachine/types.ts";

/** How a query is to be watched. */
export interface WatchOptions<A = unknown> {
  /**
   * Whether what is submitted here and not committed yet shows. The two are the
   * same when nothing is.
   *
   * @default {"optimistic"}
   */
  view?: "committed" | "optimistic";
  /**
   * Whether two answers are the same.
   *
   * @default {deep equality of bytes, arrays, maps, plain objects and primitives}
   */
  equal?: (one: A, other: A) => boolean;
  /** Ends the watching. */
  signal?: AbortSignal;
}

const WATCH: OptionChecks<WatchOptions<never>> = {
  view: optional(isOneOf("committed", "optimistic")),
  equal: optional(isFunction),
  signal: optional(isSignal),
};

/** Refuses options of a watch that cannot be. */
export function checkWatch(options: WatchOptions<never>): void {
  checkOptions("Options of a watch", options, WATCH);
}

/**
 * The answer to a query, kept up to date while somebody watches. The machine is
 * asked at most once in a turn of the event loop, and not at all while nobody
 * watches. An answer that equals the one before is that same object.
 *
 * As an async iterable it gives the present answer, then each one that differs
 * from what was given before; who is slow gets the newest. The iteration ends
 * when the signal aborts. It throws what the query throws, and `ErrClusterClosed`
 * once the replica is stopped or has failed.
 *
 * `subscribe` and `getSnapshot` are what React's `useSyncExternalStore` takes;
 * both may be passed on without their object.
 */
export interface Watch<A = unknown> extends AsyncIterable<A> {
  /**
   * Calls `listener` when the answer has become another one; returns what ends
   * that. What it throws is ignored. Nobody is called any more once the replica
   * or the signal has ended.
   */
  readonly subscribe: (listener: () => void) => () => void;
  /**
   * The answer: the same object until it changes, undefined as long as it is not
   * known. It throws what the query throws, until an answer comes again. Without
   * subscribers it asks, if something has changed. After the end it is the last
   * one there was.
   */
  readonly getSnapshot: () => A | undefined;
}

function isPlain(value: object): boolean {
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

function sameBytes(one: Uint8Array, other: Uint8Array): boolean {
  if (one.length !== other.length) return false;
  for (let i = 0; i < one.length; i++) {
    if (one[i] !== other[i]) return false;
  }
  return true;
}

/** Whether two answers without cycles say the same. */
export function sameAnswer(one: unknown, other: unknown): boolean {
  if (Object.is(one, other)) return true;
  if (
    typeof one !== "object" || typeof other !== "object" || one === null ||
    other === null ||
    Object.getPrototypeOf(one) !== Object.getPrototypeOf(other)
  ) return false;
  if (one instanceof Uint8Array) return sameBytes(one, other as Uint8Array);
  if (Array.isArray(one)) {
    const others = other as unknown[];
    return one.length === others.length &&
      one.every((value, i) => sameAnswer(value, others[i]));
  }
  if (one instanceof Map) {
    const others = other as Map<unknown, unknown>;
    return one.size === others.size &&
      [...one].every(([key, value]) =>
        others.has(key) && sameAnswer(value, others.get(key))
      );
  }
  if (!isPlain(one)) return false;
  const keys = Object.keys(one);
  const a = one as Record<string, unknown>;
  const b = other as Record<string, unknown>;
  return keys.length === Object.keys(other).length &&
    keys.every((key) =>
      Object.hasOwn(other, key) && sameAnswer(a[key], b[key])
    );
}

/** What is known of an answer. */
type Known<A> = { readonly answer: A } | { readonly error: unknown };

interface Listener {
  /** The answer is another one. */
  readonly changed: () => void;
  /** It was asked for. */
  readonly asked?: () => void;
}

class QueryWatch<A> implements Watch<A> {
  readonly #watches: Watches;
  readonly #ask: () => MaybePromise<A>;
  readonly #equal: (one: A, other: A) => boolean;
  readonly #signal: AbortSignal | undefined;
  readonly #listeners = new Set<Listener>();
  #ignore: (() => void) | undefined;
  #known: Known<A> | undefined;
  /** What had happened at the replica when the answer was last asked for … */
  #seen = -1;
  /** … and when that was asked for which is known. */
  #told = -1;
  #asking = false;

  constructor(
    watches: Watches,
    ask: () => MaybePromise<A>,
    { equal = sameAnswer, signal }: WatchOptions<A>,
  ) {
    this.#watches = watches;
    this.#ask = ask;
    this.#equal = equal;
    this.#signal = signal;
  }

  readonly subscribe = (changed: () => void): () => void => {
    if (this.#over) return () => {};
    const listener = { changed };
    this.#join(listener);
    return () => this.#leave(listener);
  };

  readonly getSnapshot = (): A | undefined => {
    if (this.#listeners.size === 0) this.refresh();
    const known = this.#known;
    if (known === undefined) return undefined;
    if ("error" in known) throw known.error;
    return known.answer;
  };

  get #over(): boolean {
    return this.#signal?.aborted === true || this.#watches.ended !== undefined;
  }

  #join(listener: Listener): void {
    if (this.#listeners.size === 0) {
      this.#watches.add(this);
      this.#ignore = onAbort(this.#signal, () => {
        for (const listener of this.#listeners) this.#leave(listener);
      });
    }
    this.#listeners.add(listener);
    // What happened before it came.
    if (this.#seen !== this.#watches.version) this.#watches.schedule();
  }

  #leave(listener: Listener): void {
    if (!this.#listeners.delete(listener) || this.#listeners.size > 0) return;
    this.#watches.delete(this);
    this.#ignore?.();
  }

  /** Asks again, if something has happened since. */
  refresh(): void {
    const { version } = this.#watches;
    if (this.#over || this.#asking || this.#seen === version) return;
    this.#seen = version;
    try {
      const answer = this.#ask();
      if (!isPromise(answer)) return this.#answered(answer, version);
      this.#asking = true;
      answer.then(
        (answer) => this.#settled(() => this.#answered(answer, version)),
        (error) => this.#settled(() => this.#failed(error, version)),
      );
    } catch (error) {
      this.#failed(error, version);
    }
  }

  #settled(tell: () => void): void {
    this.#asking = false;
    if (this.#over) return;
    tell();
    // What happened while it was asked.
    if (this.#listeners.size > 0 && this.#seen !== this.#watches.version) {
      this.#watches.schedule();
    }
  }

  #answered(answer: A, version: number): void {
    const known = this.#known;
    try {
      const same = known !== undefined && "answer" in known &&
        this.#equal(known.answer, answer);
      this.#tell(same ? known : { answer }, version);
    } catch (error) {
      this.#failed(error, version);
    }
  }

  #failed(error: unknown, version: number): void {
    // It is being brought up anew: what is known stays until it is there again.
    if (error instanceof ErrSystemBusy || this.#over) return;
    const known = this.#known;
    const same = known !== undefined && "error" in known &&
      known.error === error;
    this.#tell(same ? known : { error }, version);
  }

  #tell(known: Known<A>, version: number): void {
    const changed = known !== this.#known;
    this.#known = known;
    this.#told = version;
    for (const listener of [...this.#listeners]) {
      // Whoever left while others were told hears no more.
      if (!this.#listeners.has(listener)) continue;
      if (changed) notify(listener.changed);
      listener.asked?.();
    }
  }

  [Symbol.asyncIterator](): AsyncIterator<A, undefined> {
    let given: Known<A> | undefined;
    let begun = false;
    let done = false;
    let waiting: (() => void)[] = [];
    const wake = (): void => {
      const all = waiting;
      waiting = [];
      for (const go of all) go();
    };
    const listener = { changed: wake, asked: wake };
    let since = 0;
    let ignoreEnd = (): void => {};
    let ignore = (): void => {};
    const end = (): void => {
      done = true;
      this.#leave(listener);
      ignore();
      ignoreEnd();
      wake();
    };
    // One that is made and never iterated is asked for nothing.
    const begin = (): void => {
      begun = true;
      // What is known may be from before anybody watched.
      since = this.#watches.version;
      ignoreEnd = this.#watches.onEnd(wake);
      ignore = onAbort(this.#signal, wake);
      if (!this.#over) this.#join(listener);
    };
    const next = (): IteratorResult<A, undefined> | undefined => {
      if (done || this.#signal?.aborted) {
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
        known === undefined || known === given || this.#told < since
      ) return undefined;
      given = known;
      if ("answer" in known) return { done: false, value: known.answer };
      end();
      throw known.error;
    };
    return {
      next: async () => {
        if (!begun && !done) begin();
        for (;;) {
          const result = next();
          if (result !== undefined) return result;
          await new Promise<void>((go) => waiting.push(go));
        }
      },
      return: () => {
        end();
        return Promise.resolve({ done: true, value: undefined });
      },
    };
  }
}

/** All that is watched at one replica. */
export class Watches {
  readonly #env: Env;
  /** Those that somebody watches. */
  readonly #active = new Set<{ refresh(): void }>();
  readonly #atEnd = new Set<() => void>();
  #scheduled = false;
  /** Grows with all that may change an answer. */
  version = 0;
  /** Why nothing is watched any more, once that is so. */
  ended: { readonly reason: unknown } | undefined;

  /** None so far. */
  constructor(env: Env) {
    this.#env = env;
  }

  /** Watches what `ask` answers. */
  watch<A>(ask: () => MaybePromise<A>, options: WatchOptions<A>): Watch<A> {
    return new QueryWatch(this, ask, options);
  }

  /** Something happened that may change answers. */
  wake(): void {
    this.version++;
    if (this.#active.size > 0) this.schedule();
  }

  /** Has those asked for again that somebody watches, once in this turn. */
  schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    // Never rejects: a watch hands what its query threw to its subscribers.
    this.#env.turn().then(() => {
      this.#scheduled = false;
      for (const watch of [...this.#active]) watch.refresh();
    });
  }

  /** Somebody watches. */
  add(watch: { refresh(): void }): void {
    this.#active.add(watch);
  }

  /** Nobody watches it any more. */
  delete(watch: { refresh(): void }): void {
    this.#active.delete(watch);
  }

  /** Calls `callback` at the end; returns what ends that. */
  onEnd(callback: () => void): () => void {
    this.#atEnd.add(callback);
    return () => void this.#atEnd.delete(callback);
  }

  /** Ends all of them with `reason`. */
  end(reason: unknown): void {
    this.ended = { reason };
    this.#active.clear();
    for (const callback of [...this.#atEnd]) callback();
  }
}
