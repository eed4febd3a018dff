/**
 * Bounded wait for a promise.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { withResolvers } from "../async.ts";
import type { MaybePromise } from "../statemachine/types.ts";

/** Number of microtasks to wait before a timer is set. */
const MICROTASKS_FIRST = 64;

function isPromiseLike(value: unknown): value is PromiseLike<unknown> {
  return typeof value === "object" && value !== null &&
    typeof (value as { then?: unknown }).then === "function";
}

/** Handle of a timer. */
export type Timer = ReturnType<typeof setTimeout>;

/**
 * Settles like `value`, or throws `late()` after `ms` milliseconds. A pending
 * timer is in `timers`; clearing it there abandons the wait.
 */
export async function settle<T>(
  value: MaybePromise<T>,
  ms: number,
  timers: Set<Timer>,
  late: () => Error,
): Promise<T> {
  if (!isPromiseLike(value)) return value;
  let settled = false;
  const note = (): void => void (settled = true);
  value.then(note, note);
  // Most promises of a machine settle at once, and a timer each would dominate
  // the cost.
  for (let i = 0; i < MICROTASKS_FIRST && !settled; i++) await undefined;
  if (settled) return await value;
  const { promise: deadline, reject } = withResolvers<never>();
  const timer = setTimeout(() => reject(late()), ms);
  timers.add(timer);
  try {
    return await Promise.race([value, deadline]);
  } finally {
    clearTimeout(timer);
    timers.delete(timer);
  }
}

/** Outcome of a call. */
export type Outcome<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly error: unknown };

/** True for an error that the contract allows a method to end with. */
export type Allowed = (error: unknown) => boolean;
