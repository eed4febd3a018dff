/**
 * Linearizable reads: when the local state is new enough to answer (H2).
 *
 * This module is browser compatible.
 *
 * @module
 */

import { PENDING_READS_MAX } from "../limits.ts";
import type { Log } from "../log/log.ts";
import { abortable, isPromise, onAbort, withResolvers } from "../async.ts";
import type { MaybePromise } from "../statemachine/types.ts";
import { ErrSystemBusy } from "../rsm/errors.ts";

interface Waiter {
  readonly index: number;
  resolve(): void;
  reject(reason: unknown): void;
}

/** What waits for the state to be new enough. */
export class Reads {
  readonly #log: Log;
  readonly #stopped: AbortSignal;
  /** In the order of their indexes, which only grow. */
  #waiters: Waiter[] = [];
  /** Reads that wait for anything. */
  #count = 0;
  #asking: Promise<number> | undefined;
  #next: Promise<number> | undefined;

  /** Reads by the index of `log`; `stopped` ends those that wait for it. */
  constructor(log: Log, stopped: AbortSignal) {
    this.#log = log;
    this.#stopped = stopped;
  }

  /**
   * An index that covers everything answered before the call. Calls that come
   * while the log is being asked share the next question: the answer under way
   * may be older than they are.
   */
  readIndex(): MaybePromise<number> {
    if (this.#asking !== undefined) {
      return this.#next ??= this.#asking.then(() => {}, () => {}).then(() => {
        this.#next = undefined;
        return this.readIndex();
      });
    }
    const index = this.#log.readIndex({ signal: this.#stopped });
    if (!isPromise(index)) return index;
    this.#asking = index.finally(() => this.#asking = undefined);
    // Whoever asked may have left.
    this.#asking.catch(() => {});
    return this.#asking;
  }

  /**
   * Settles once all up to `index` is applied, which may have to be asked for
   * first. One that `signal` ends counts no more.
   *
   * @throws ErrSystemBusy if too many wait already
   */
  async upToDate(
    index: MaybePromise<number>,
    applied: () => number,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    if (this.#count >= PENDING_READS_MAX) {
      throw new ErrSystemBusy(`${PENDING_READS_MAX} reads wait already`);
    }
    this.#count++;
    try {
      // The log may never answer again once it is closed.
      const known = isPromise(index)
        ? await abortable(abortable(index, this.#stopped), signal)
        : index;
      if (known > applied()) await this.wait(known, signal);
    } finally {
      this.#count--;
    }
  }

  /** Settles once all up to `index` is applied; given `applied`, that is not yet so. */
  wait(index: number, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    const { promise, resolve, reject } = withResolvers<void>();
    const waiter = { index, resolve, reject };
    const waiters = this.#waiters;
    let at = waiters.length;
    while (at > 0 && waiters[at - 1]!.index > index) at--;
    waiters.splice(at, 0, waiter);
    const ignore = onAbort(signal, (reason) => {
      const at = this.#waiters.indexOf(waiter);
      if (at >= 0) this.#waiters.splice(at, 1);
      reject(reason);
    });
    return promise.finally(ignore);
  }

  /** All up to `index` is applied. */
  applied(index: number): void {
    const waiters = this.#waiters;
    if (waiters.length === 0 || waiters[0]!.index > index) return;
    let count = 0;
    while (count < waiters.length && waiters[count]!.index <= index) count++;
    for (const { resolve } of waiters.splice(0, count)) resolve();
  }

  /** Fails all that waits. */
  fail(reason: unknown): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const { reject } of waiters) reject(reason);
  }
}
