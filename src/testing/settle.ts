/**
 * Waiting for somebody else's promise, but not for ever.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { withResolvers } from "../async.ts";
import type { MaybePromise } from "../statemachine/types.ts";

/** How long a promise is waited for before a timer is set, in microtasks. */
const MICROTASKS_FIRST = 64;

function isPromiseLike(value: unknown): value is PromiseLike<unknown> {
  return typeof value === "object" && value !== null &&
    typeof (value as { then?: unknown }).then === "function";
}

/** A timer that has been set. */
export type Timer = ReturnType<typeof setTimeout>;

/**
 * What `value` settles to; `late()` is thrown when it has not after `ms`
 * milliseconds. A timer is in `timers` while it is set: whoever clears it there
 * takes no more interest in the outcome.
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
  // Most promises of a machine settle at once: a timer each would cost more
  // than all the rest.
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

/** How a call ended. */
export type Outcome<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly error: unknown };

/** Whether an error out of a method is the end the contract allows for it. */
export type Allowed = (error: unknown) => boolean;
