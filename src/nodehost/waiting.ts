/**
 * Waiting with an end to it.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../env.ts";
import { RETRY_FIRST_MS, RETRY_LAST_MS } from "../limits.ts";

/** What `promise` settles with, unless `signal` aborts first: then its reason. */
export function abortable<T>(
  promise: Promise<T>,
  signal: AbortSignal | undefined,
): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason);
    if (signal.aborted) abort();
    else signal.addEventListener("abort", abort);
    promise.then(resolve, reject).finally(() => {
      signal.removeEventListener("abort", abort);
    });
  });
}

/** Settles after `delay` milliseconds; rejects with the reason of `signal` if that aborts first. */
export function sleep(
  env: Env,
  delay: number,
  signal: AbortSignal,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = (): void => {
      cancel();
      reject(signal.reason);
    };
    const cancel = env.setTimer(() => {
      signal.removeEventListener("abort", abort);
      resolve();
    }, delay);
    if (signal.aborted) abort();
    else signal.addEventListener("abort", abort, { once: true });
  });
}

/** Waits between tries that double, with jitter so that many do not try at once. */
export class Backoff {
  readonly #env: Env;
  #tries = 0;

  /** A backoff whose jitter comes from `env`. */
  constructor(env: Env) {
    this.#env = env;
  }

  /** How long to wait before the next try, in milliseconds. */
  next(): number {
    const full = Math.min(RETRY_LAST_MS, RETRY_FIRST_MS * 2 ** this.#tries);
    this.#tries = Math.min(this.#tries + 1, 32);
    return full * (0.5 + Number(this.#env.random64() & 0xffn) / 512);
  }

  /** Starts over, after something went well. */
  reset(): void {
    this.#tries = 0;
  }
}
