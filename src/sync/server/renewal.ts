/**
 * Validity of the principal of one connection: when its client is asked for
 * another token, and when the connection ends because none came.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../../env.ts";
import {
  SYNC_RENEW_AGAIN_MS,
  SYNC_RENEW_GRACE_MS,
  SYNC_RENEW_MS,
  TIMER_MS_MAX,
} from "../../limits.ts";

/** Dependencies of a {@linkcode Renewal}. */
export interface RenewalOptions {
  /** Time and timers. */
  readonly env: Env;
  /** Asks the client for another token, to come within that many milliseconds; undefined if it brings none. */
  readonly ask: ((withinMs: number) => void) | undefined;
  /** Called once the time is over. */
  readonly expired: () => void;
}

/** Plans the questions for another token. Only the server's clock counts. */
export class Renewal {
  readonly #options: RenewalOptions;
  #expiresAt = Infinity;
  /** Time before that at which it is first asked for a token, in milliseconds. */
  #leadMs = 0;
  #cancel: (() => void) | undefined;

  /** A renewal of a principal that does not expire. */
  constructor(options: RenewalOptions) {
    this.#options = options;
  }

  /** True if the client can be asked for another token. */
  get isAsking(): boolean {
    return this.#options.ask !== undefined;
  }

  /** Notes that the principal is valid for a time from now on. */
  start(validMs: number = Infinity): void {
    this.#expiresAt = this.#options.env.now() + validMs;
    this.#leadMs = Math.min(SYNC_RENEW_MS, validMs / 2);
    this.#plan();
  }

  /** Notes that the principal is valid no more: another token has to come soon. */
  hurry(): void {
    const { env } = this.#options;
    const soon = env.now() + SYNC_RENEW_GRACE_MS;
    this.#expiresAt = Math.min(this.#expiresAt, soon);
    this.#leadMs = Infinity;
    this.#plan();
  }

  #plan(): void {
    this.#cancel?.();
    this.#cancel = undefined;
    if (this.#expiresAt === Infinity) return;
    const { env, ask, expired } = this.#options;
    const left = this.#expiresAt - env.now();
    // Less than a millisecond may be too little for a clock to move on.
    if (left < 1) return expired();
    let wait = left;
    if (ask !== undefined) {
      if (left >= this.#leadMs + 1) wait = left - this.#leadMs;
      else {
        // A token that is not good, or a hook that fails, is no reason to wait for the end.
        wait = Math.min(left, Math.max(left / 2, SYNC_RENEW_AGAIN_MS));
        ask(Math.floor(left));
      }
    }
    this.#cancel = env.setTimer(
      () => this.#plan(),
      Math.min(wait, TIMER_MS_MAX),
    );
  }

  /** Asks no more. */
  stop(): void {
    this.#cancel?.();
    this.#cancel = undefined;
    this.#expiresAt = Infinity;
  }
}
