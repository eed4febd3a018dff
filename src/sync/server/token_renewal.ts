/**
 * Schedule for renewing the token of one connection.
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

/** Dependencies of a {@linkcode TokenRenewal}. */
export interface TokenRenewalOptions {
  /** Time and timers. */
  readonly env: Env;
  /** Asks the client for a new token within a time in milliseconds; undefined if the client cannot send one. */
  readonly request: ((withinMs: number) => void) | undefined;
  /** Called when the principal has expired. */
  readonly expired: () => void;
}

/** Requests a new token before the principal expires. Only the server's clock counts. */
export class TokenRenewal {
  readonly #options: TokenRenewalOptions;
  #expiresAt = Infinity;
  /** Time before the expiry at which the first request is sent, in milliseconds. */
  #leadMs = 0;
  #cancel: (() => void) | undefined;

  /** Creates a renewal of a principal that does not expire. */
  constructor(options: TokenRenewalOptions) {
    this.#options = options;
  }

  /** True if the client can send a new token. */
  get isSupported(): boolean {
    return this.#options.request !== undefined;
  }

  /** Starts over: the principal is valid for a time from now on, in milliseconds. */
  start(validMs: number = Infinity): void {
    this.#expiresAt = this.#options.env.now() + validMs;
    this.#leadMs = Math.min(SYNC_RENEW_MS, validMs / 2);
    this.#schedule();
  }

  /** Shortens the time to the grace period, as the principal was revoked. */
  expireSoon(): void {
    const { env } = this.#options;
    const soon = env.now() + SYNC_RENEW_GRACE_MS;
    this.#expiresAt = Math.min(this.#expiresAt, soon);
    this.#leadMs = Infinity;
    this.#schedule();
  }

  #schedule(): void {
    this.#cancel?.();
    this.#cancel = undefined;
    if (this.#expiresAt === Infinity) return;
    const { env, request, expired } = this.#options;
    const left = this.#expiresAt - env.now();
    // A timer of less than a millisecond may end before the clock has moved.
    if (left < 1) return expired();
    let wait = left;
    if (request !== undefined) {
      if (left >= this.#leadMs + 1) wait = left - this.#leadMs;
      else {
        // Requested repeatedly: a token may be rejected, or a hook fail.
        wait = Math.min(left, Math.max(left / 2, SYNC_RENEW_AGAIN_MS));
        request(Math.floor(left));
      }
    }
    this.#cancel = env.setTimer(
      () => this.#schedule(),
      Math.min(wait, TIMER_MS_MAX),
    );
  }

  /** Sends no more requests, and does not expire. */
  stop(): void {
    this.#cancel?.();
    this.#cancel = undefined;
    this.#expiresAt = Infinity;
  }
}
