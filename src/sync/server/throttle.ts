/**
 * How much a client may send: it is granted what it has sent again once that is
 * dealt with, and later if it sends more commands than it should.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../../env.ts";

/** The credit a server grants one client. */
export class Throttle {
  readonly #env: Env;
  readonly #window: number;
  readonly #rate: number;
  readonly #grant: (bytes: number) => void;
  /** Bytes the client may still send. */
  #granted: number;
  /** Bytes that were dealt with and are not granted again. */
  #owed = 0;
  /** Commands that may still be dealt with now; below 0 for those that were too early. */
  #tokens: number;
  #filledAt: number;
  #cancel: (() => void) | undefined;

  /** A throttle for `window` bytes at one time, and `rate` commands per second. */
  constructor(
    env: Env,
    window: number,
    rate: number,
    grant: (bytes: number) => void,
  ) {
    this.#env = env;
    this.#granted = this.#window = window;
    this.#tokens = this.#rate = rate;
    this.#filledAt = env.now();
    this.#grant = grant;
  }

  /** A frame came; whether it was granted, be it by its first byte alone. */
  take(bytes: number): boolean {
    if (this.#granted <= 0) return false;
    this.#granted -= bytes;
    return true;
  }

  /** What came is dealt with. */
  consumed(bytes: number, commands: number): void {
    this.#owed += bytes;
    const now = this.#env.now();
    const filled = this.#tokens + (now - this.#filledAt) * this.#rate / 1000;
    this.#filledAt = now;
    this.#tokens = Math.min(this.#rate, filled) - commands;
    this.#settle();
  }

  #settle(): void {
    // Few messages are enough: the client has as much again in hand.
    if (this.#cancel !== undefined || this.#owed < this.#window / 2) return;
    if (this.#tokens < 0) {
      this.#cancel = this.#env.setTimer(() => {
        this.#cancel = undefined;
        this.#pay();
      }, Math.ceil(-this.#tokens * 1000 / this.#rate));
    } else this.#pay();
  }

  #pay(): void {
    const bytes = this.#owed;
    this.#owed = 0;
    this.#granted += bytes;
    this.#grant(bytes);
  }

  /** Grants no more. */
  stop(): void {
    this.#cancel?.();
    this.#cancel = undefined;
    this.#owed = 0;
  }
}
