/**
 * Share of the server's time that is spent on what clients send.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../../env.ts";

/**
 * Delays new credit in proportion to the time spent on client messages. Frames of
 * a busy connection are read from its socket many at a time, before one of any
 * other connection: for each millisecond spent, one is left for other work.
 */
export class LoadLimiter {
  readonly #env: Env;
  #freeAt = 0;

  /** Creates a limiter with no time spent. */
  constructor(env: Env) {
    this.#env = env;
  }

  /** Records time spent on client messages, in milliseconds. */
  spent(ms: number): void {
    this.#freeAt = Math.max(this.#freeAt, this.#env.now()) + ms;
  }

  /** Time until new credit may be granted, in milliseconds. */
  get waitMs(): number {
    return Math.max(0, this.#freeAt - this.#env.now());
  }
}
