/**
 * Waiting with an end to it.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../env.ts";
import { RETRY_FIRST_MS, RETRY_LAST_MS } from "../limits.ts";

const listeners = new WeakMap<
  AbortSignal,
  Set<(reason: unknown) => void>
>();

/**
 * Calls `callback` once `signal` aborts, at once if it has; returns what ends
 * that. A signal gets one listener for all: thousands may wait on one, and to
 * take one listener out of thousands takes as many steps.
 */
export function onAbort(
  signal: AbortSignal | undefined,
  callback: (reason: unknown) => void,
): () => void {
  if (signal === undefined) return () => {};
  if (signal.aborted) {
    callback(signal.reason);
    return () => {};
  }
  const callbacks = listeners.get(signal) ?? listen(signal);
  callbacks.add(callback);
  return () => void callbacks.delete(callback);
}

function listen(signal: AbortSignal): Set<(reason: unknown) => void> {
  const callbacks = new Set<(reason: unknown) => void>();
  listeners.set(signal, callbacks);
  signal.addEventListener("abort", () => {
    listeners.delete(signal);
    for (const callback of callbacks) callback(signal.reason);
  }, { once: true });
  return callbacks;
}

/** What `promise` settles with, unless `signal` aborts first: then its reason. */
export function abortable<T>(
  promise: Promise<T>,
  signal: AbortSignal | undefined,
): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const ignore = onAbort(signal, reject);
    promise.then(resolve, reject).finally(ignore);
  });
}

/** Signal of several, with what ends its listening to them. */
export interface AnySignal {
  /** Aborts once one of them does, with its reason. */
  readonly signal: AbortSignal;
  /** Stops listening to them. */
  release(): void;
}

/**
 * Signal that aborts once one of `signals` does, until it is released:
 * `AbortSignal.any()`, which Safari has from 17.4.
 */
export function anySignal(
  ...signals: readonly (AbortSignal | undefined)[]
): AnySignal {
  const controller = new AbortController();
  const undo = signals.map((signal) =>
    onAbort(signal, (reason) => controller.abort(reason))
  );
  return {
    signal: controller.signal,
    release(): void {
      for (const step of undo) step();
    },
  };
}

/** Settles after `delay` milliseconds; rejects with the reason of `signal` if that aborts first. */
export function sleep(
  env: Env,
  delay: number,
  signal: AbortSignal,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const cancel = env.setTimer(() => {
      ignore();
      resolve();
    }, delay);
    const ignore = onAbort(signal, (reason) => {
      cancel();
      reject(reason);
    });
  });
}

/** Waits between tries that double, with jitter so that many do not try at once. */
export class Backoff {
  readonly #env: Env;
  readonly #firstMs: number;
  readonly #lastMs: number;
  #tries = 0;

  /** A backoff whose jitter comes from `env`, from a first wait to a longest one, in milliseconds. */
  constructor(
    env: Env,
    firstMs: number = RETRY_FIRST_MS,
    lastMs: number = RETRY_LAST_MS,
  ) {
    this.#env = env;
    this.#firstMs = firstMs;
    this.#lastMs = lastMs;
  }

  /** How long to wait before the next try, in milliseconds. */
  next(): number {
    const full = Math.min(this.#lastMs, this.#firstMs * 2 ** this.#tries);
    this.#tries = Math.min(this.#tries + 1, 32);
    return full * (0.5 + Number(this.#env.random64() & 0xffn) / 512);
  }

  /** Starts over, after something went well. */
  reset(): void {
    this.#tries = 0;
  }
}
