/**
 * Fair scheduling of client messages across connections.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../../env.ts";
import { SYNC_SLICE_MS } from "../../limits.ts";
import type { MaybePromise } from "../../statemachine/types.ts";
import type { LoadLimiter } from "./load_limiter.ts";

/**
 * Round-robin scheduler for work of many connections. Work runs at once while the
 * server has time. Under load, one piece of each connection runs in turn, and the
 * event loop gets a turn between time slices: otherwise all frames of one
 * connection that have arrived would be handled before the first frame of another
 * is read from its socket.
 */
export class FairScheduler {
  readonly #env: Env;
  readonly #load: LoadLimiter;
  /** Queued work of each owner, in the order of their turns. */
  readonly #queues = new Map<object, (() => void)[]>();
  #isRunning = false;
  /** Time spent, less the time left for other work since, in milliseconds. */
  #debtMs = 0;
  #spentAt = 0;

  /** Creates a scheduler that reports the time of all work to `load`. */
  constructor(env: Env, load: LoadLimiter) {
    this.#env = env;
    this.#load = load;
  }

  /** Runs `work` at once if there is time, else when it is the owner's turn. Work of one owner runs in order. */
  run<T>(owner: object, work: () => MaybePromise<T>): MaybePromise<T> {
    if (!this.#isRunning && this.#debtAt() < SYNC_SLICE_MS) {
      return this.#timed(work);
    }
    return new Promise<T>((resolve, reject) => {
      const call = (): void => {
        try {
          resolve(this.#timed(work));
        } catch (error) {
          reject(error);
        }
      };
      const queue = this.#queues.get(owner);
      if (queue !== undefined) queue.push(call);
      else this.#queues.set(owner, [call]);
      if (this.#isRunning) return;
      // Never rejects: errors of `work` reject the promises of its callers.
      void this.#runQueues();
    });
  }

  /** Time debt at a moment, in milliseconds. */
  #debtAt(now = this.#env.now()): number {
    return Math.max(0, this.#debtMs - (now - this.#spentAt));
  }

  #timed<T>(work: () => T): T {
    const from = this.#env.now();
    try {
      return work();
    } finally {
      const now = this.#env.now();
      this.#load.spent(now - from);
      // Bounded: a large debt is already paid by taking turns.
      this.#debtMs = Math.min(
        this.#debtAt(from) + now - from,
        2 * SYNC_SLICE_MS,
      );
      this.#spentAt = now;
    }
  }

  async #runQueues(): Promise<void> {
    this.#isRunning = true;
    while (this.#queues.size > 0) {
      await this.#env.turn();
      const until = this.#env.now() + SYNC_SLICE_MS;
      for (const [owner, queue] of this.#queues) {
        // Deleting and setting moves the owner to the end of the line.
        this.#queues.delete(owner);
        queue.shift()!();
        if (queue.length > 0) this.#queues.set(owner, queue);
        if (this.#env.now() >= until) break;
      }
    }
    this.#isRunning = false;
  }
}
