/**
 * Promises, abortable waits, exponential backoff and paced streams. A method that
 * returns `MaybePromise` stays synchronous wherever it can.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "./env.ts";
import { RETRY_FIRST_MS, RETRY_LAST_MS } from "./limits.ts";
import type { MaybePromise } from "./statemachine/types.ts";

/** True if the value is a promise and must be awaited. */
export function isPromise<T>(value: MaybePromise<T>): value is Promise<T> {
  return typeof value === "object" && value !== null &&
    typeof (value as { then?: unknown }).then === "function";
}

/** Converts any thenable into a real promise and leaves other values alone: a state machine may return anything with a `then()`. */
export function settleable<T>(value: MaybePromise<T>): MaybePromise<T> {
  return isPromise(value) ? Promise.resolve(value) : value;
}

/** Calls `next` with the value: synchronously, or once the promise has resolved. */
export function chain<T, U>(
  value: MaybePromise<T>,
  next: (value: T) => MaybePromise<U>,
): MaybePromise<U> {
  return isPromise(value) ? value.then(next) : next(value);
}

/** Calls a listener and ignores what it throws, or what its promise rejects with. */
export function notify<A extends readonly unknown[]>(
  listener: (...args: A) => unknown,
  ...args: A
): void {
  try {
    const returned = listener(...args);
    if (isPromise(returned)) Promise.resolve(returned).catch(() => {});
  } catch {
    // A faulty listener must not change what the caller does.
  }
}

/** Promise and the functions that settle it. */
export interface Resolvers<T> {
  /** The promise. */
  readonly promise: Promise<T>;
  /** Resolves the promise. */
  readonly resolve: (value: T | PromiseLike<T>) => void;
  /** Rejects the promise. */
  readonly reject: (reason: unknown) => void;
}

/** Creates a promise that its caller settles: `Promise.withResolvers()`, which Safari has from 17.4 and Node from 22. */
export function withResolvers<T>(): Resolvers<T> {
  let resolve!: Resolvers<T>["resolve"];
  let reject!: Resolvers<T>["reject"];
  const promise = new Promise<T>((resolved, rejected) => {
    resolve = resolved;
    reject = rejected;
  });
  return { promise, resolve, reject };
}

const listeners = new WeakMap<
  AbortSignal,
  Set<(reason: unknown) => void>
>();

/**
 * Calls `callback` once `signal` aborts, at once if it has; returns a function
 * that removes the callback. Each signal gets one event listener for all its
 * callbacks: removing one of thousands of event listeners takes linear time.
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

/** Settles as `promise` does; if `signal` aborts first, rejects with its reason. */
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

/** Signal that is derived from others, or from a time limit. */
export interface AnySignal {
  /** Aborts once one of the signals does, with its reason, or when the time is over. */
  readonly signal: AbortSignal;
  /** Stops listening to the signals, or ends the time limit. */
  release(): void;
}

/**
 * Combines signals into one that aborts once any of them does, until it is
 * released: `AbortSignal.any()`, which Safari has from 17.4.
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

/**
 * Limits the time of a call: the signal aborts after `delay` milliseconds, unless it
 * is released before. `failure` says what was not done: `Log was not read`.
 */
export function timeLimit(
  env: Env,
  delay: number,
  failure: string,
): AnySignal {
  const controller = new AbortController();
  const release = env.setTimer(
    () => controller.abort(new Error(`${failure} within ${delay} ms`)),
    delay,
  );
  return { signal: controller.signal, release };
}

/** Resolves after `delay` milliseconds; if `signal` aborts first, rejects with its reason. */
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

/** Exponential backoff with jitter, so that many clients do not retry at once. */
export class Backoff {
  readonly #env: Env;
  readonly #firstMs: number;
  readonly #lastMs: number;
  #tries = 0;

  /** Creates a backoff between two delays in milliseconds; the jitter is drawn from `env`. */
  constructor(
    env: Env,
    firstMs: number = RETRY_FIRST_MS,
    lastMs: number = RETRY_LAST_MS,
  ) {
    this.#env = env;
    this.#firstMs = firstMs;
    this.#lastMs = lastMs;
  }

  /** Delay before the next try, in milliseconds; doubles with each call. */
  next(): number {
    const full = Math.min(this.#lastMs, this.#firstMs * 2 ** this.#tries);
    this.#tries = Math.min(this.#tries + 1, 32);
    return full * (0.5 + Number(this.#env.random64() & 0xffn) / 512);
  }

  /** Returns to the first delay, after a success. */
  reset(): void {
    this.#tries = 0;
  }
}

/**
 * Wraps a sink so that the event loop gets a turn after each chunk. Web Streams
 * pass chunks on in microtasks only: without this, a page would freeze while a
 * snapshot is written, and each step of a proposal would wait for a whole block.
 */
export function pacedSink(
  sink: WritableStream<Uint8Array>,
  env: Env,
): WritableStream<Uint8Array> {
  const writer = sink.getWriter();
  return new WritableStream({
    async write(chunk): Promise<void> {
      await writer.write(chunk);
      await env.turn();
    },
    close: () => writer.close(),
    abort: (reason) => writer.abort(reason),
  });
}

/** Wraps a source so that the event loop gets a turn after each chunk; see {@linkcode pacedSink}. */
export function pacedSource(
  source: ReadableStream<Uint8Array>,
  env: Env,
): ReadableStream<Uint8Array> {
  const reader = source.getReader();
  return new ReadableStream({
    async pull(controller): Promise<void> {
      const { done, value } = await reader.read();
      await env.turn();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    cancel: (reason) => reader.cancel(reason),
  }, { highWaterMark: 0 });
}

/** Creates a stream whose source is opened with its first read. */
export function deferredSource(
  open: () => Promise<ReadableStream<Uint8Array>>,
): ReadableStream<Uint8Array> {
  let reader: Promise<ReadableStreamDefaultReader<Uint8Array>> | undefined;
  return new ReadableStream({
    async pull(controller): Promise<void> {
      reader ??= open().then((source) => source.getReader());
      const { done, value } = await (await reader).read();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    cancel: async (reason) => await (await reader)?.cancel(reason),
  }, { highWaterMark: 0 });
}
