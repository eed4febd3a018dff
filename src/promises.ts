/**
 * What must be awaited and what must not: a method that may return a value or a
 * promise stays synchronous where it gives a value.
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

/** Goes on with a value as soon as it is there. */
export function chain<T, U>(
  value: MaybePromise<T>,
  next: (value: T) => MaybePromise<U>,
): MaybePromise<U> {
  return isPromise(value) ? value.then(next) : next(value);
}
