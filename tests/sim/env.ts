/**
 * Driver of simulated time in a test: everything runs in one turn of the event
 * loop, with the microtasks drained after each event, so that a run is fast and a
 * pure function of its seed.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import type { SimulatedClock } from "../../src/testing/simulated_clock.ts";

interface Internal {
  readonly core: { runMicrotasks(): void };
}

const { internal } = Deno as unknown as { internal: symbol };
const { core } = (Deno as unknown as Record<symbol, Internal>)[internal]!;

/** Runs all microtasks. Works only where none runs: in a callback of the event loop. */
export function drain(): void {
  core.runMicrotasks();
}

/** Runs `work` in a turn of the event loop of its own, where `drain()` works. */
export function inTurn<T>(work: () => T): Promise<T> {
  return new Promise((resolve, reject) =>
    void setImmediate(() => {
      try {
        resolve(work());
      } catch (error) {
        reject(error);
      }
    })
  );
}

/** Advances the time by `ms`, and runs all that comes due. */
export function advance(clock: SimulatedClock, ms: number): void {
  const until = clock.now + ms;
  drain();
  while (clock.runNext(until)) drain();
}

/** Result of a promise that has settled. */
export type Settled<T> =
  | { readonly value: T }
  | { readonly error: unknown };

/** Advances the time until a promise has settled; undefined if it has not within `ms`. */
export function settle<T>(
  clock: SimulatedClock,
  promise: Promise<T>,
  ms: number,
): Settled<T> | undefined {
  let settled: Settled<T> | undefined;
  promise.then(
    (value) => settled = { value },
    (error) => settled = { error },
  );
  const until = clock.now + ms;
  drain();
  while (settled === undefined && clock.runNext(until)) drain();
  return settled;
}
