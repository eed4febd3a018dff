/**
 * Token bucket for rate limits.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../../env.ts";

/** Token bucket that holds the tokens of one second; it may go into debt. */
export class TokenBucket {
  readonly #env: Env;
  readonly #perSecond: number;
  #tokens: number;
  #filledAt: number;

  /** Creates a full bucket that refills at `perSecond` tokens per second. */
  constructor(env: Env, perSecond: number) {
    this.#env = env;
    this.#tokens = this.#perSecond = perSecond;
    this.#filledAt = env.now();
  }

  /** Takes `count` tokens and returns the number that remain; a negative number is a debt. */
  take(count: number): number {
    const now = this.#env.now();
    const added = (now - this.#filledAt) * this.#perSecond / 1000;
    this.#filledAt = now;
    return this.#tokens = Math.min(this.#perSecond, this.#tokens + added) -
      count;
  }

  /** Time until the debt is paid, in milliseconds; not positive without a debt. */
  get waitMs(): number {
    // Connections of one principal share a bucket, and one of them may have waited.
    this.take(0);
    return Math.ceil(-this.#tokens * 1000 / this.#perSecond);
  }

  /** True if the bucket is full. */
  get isFull(): boolean {
    return this.take(0) >= this.#perSecond;
  }
}
