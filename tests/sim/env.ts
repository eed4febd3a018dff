/**
 * Simulated time: it goes on only when it is told to, and random numbers come
 * from a seed.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import type { Env } from "../../src/env.ts";
import { random32 } from "../support/random.ts";

/**
 * Resolves once everything has happened that needs no time. A message to oneself
 * is not enough: now and then it arrives before what was queued earlier.
 */
function settled(): Promise<void> {
  return new Promise((resolve) => void setImmediate(resolve));
}

/** Environment in simulated time, in whole milliseconds as real timers have. */
export class SimulatedEnv implements Env {
  readonly #random: () => number;
  readonly #timers = new Set<{ at: number; callback: () => void }>();
  #now = 0;

  constructor(seed: number) {
    this.#random = random32(seed);
  }

  now(): number {
    return this.#now;
  }

  random64(): bigint {
    return BigInt(this.#random()) << 32n | BigInt(this.#random());
  }

  setTimer(callback: () => void, delay: number): () => void {
    const timer = { at: this.#now + Math.ceil(delay), callback };
    this.#timers.add(timer);
    return () => void this.#timers.delete(timer);
  }

  turn(): Promise<void> {
    return Promise.resolve();
  }

  /** Number of timers that are set. */
  get timers(): number {
    return this.#timers.size;
  }

  /** Advances the time, and runs the timers that fall due in it one by one. */
  async advance(ms: number): Promise<void> {
    const until = this.#now + ms;
    await settled();
    for (;;) {
      let next: { at: number; callback: () => void } | undefined;
      for (const timer of this.#timers) {
        if (timer.at <= until && !(next && next.at <= timer.at)) next = timer;
      }
      if (next === undefined) break;
      this.#timers.delete(next);
      this.#now = Math.max(this.#now, next.at);
      next.callback();
      await settled();
    }
    this.#now = until;
  }

  /** Advances the time in steps until a promise has settled; rejects if a thousand steps do not suffice. */
  async until<T>(promise: Promise<T>, step: number): Promise<T> {
    let isDone = false;
    const end = (): void => void (isDone = true);
    promise.then(end, end);
    await settled();
    for (let i = 0; !isDone && i < 1000; i++) await this.advance(step);
    if (!isDone) throw new Error(`Did not settle in ${1000 * step} ms`);
    return await promise;
  }
}
