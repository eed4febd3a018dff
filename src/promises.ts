/**
 * Promises: which values must be awaited, as a method that may return a value or
 * a promise stays synchronous where it returns a value; and promises that their
 * caller settles.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { MaybePromise } from "./statemachine/types.ts";

/** Whether a value must be awaited. */
export function isPromise<T>(value: MaybePromise<T>): value is Promise<T> {
  return typeof value === "object" && value !== null &&
    typeof (value as { then?: unknown }).then === "function";
}

/** A real promise for whatever must be awaited: a machine may return anything that has a `then()`. */
export function settleable<T>(value: MaybePromise<T>): MaybePromise<T> {
  return isPromise(value) ? Promise.resolve(value) : value;
}

/** Calls a listener whose errors are its own: what it throws, or its promise rejects with, is ignored. */
export function tell<A extends readonly unknown[]>(
  listener: (...args: A) => unknown,
  ...args: A
): void {
  try {
    const told = listener(...args);
    if (isPromise(told)) Promise.resolve(told).catch(() => {});
  } catch {
    // What happens must not depend on what a listener does.
  }
}

/** Goes on with a value as soon as it is there. */
export function chain<T, U>(
  value: MaybePromise<T>,
  next: (value: T) => MaybePromise<U>,
): MaybePromise<U> {
  return isPromise(value) ? value.then(next) : next(value);
}

/** A promise and the functions that settle it. */
export interface Resolvers<T> {
  /** The promise. */
  readonly promise: Promise<T>;
  /** Resolves it. */
  readonly resolve: (value: T | PromiseLike<T>) => void;
  /** Rejects it. */
  readonly reject: (reason: unknown) => void;
}

/** A promise that its caller settles: `Promise.withResolvers()`, which Safari has from 17.4 and Node from 22. */
export function withResolvers<T>(): Resolvers<T> {
  let resolve!: Resolvers<T>["resolve"];
  let reject!: Resolvers<T>["reject"];
  const promise = new Promise<T>((resolved, rejected) => {
    resolve = resolved;
    reject = rejected;
  });
  return { promise, resolve, reject };
}
