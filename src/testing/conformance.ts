/**
 * What the conformance suites of the ports have in common: cases that run
 * anywhere, whatever runs the tests there.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { MaybePromise } from "../statemachine/types.ts";

/** One thing to try; fails by throwing. */
export interface ConformanceCase {
  /** What is shown, beginning with the rule. */
  readonly name: string;
  /** Tries it on a store of its own. */
  run(): Promise<void>;
}

/** A port that is tried. */
interface Closable {
  close(): MaybePromise<void>;
}

/**
 * A case that is given a port of its own, closed in the end, and what closes it
 * and opens it anew; for a port that keeps nothing, that leaves it as it is.
 */
export function caseOf<T extends Closable>(
  name: string,
  { create, reopen }: {
    create(): MaybePromise<T>;
    reopen?: ((port: T) => MaybePromise<T>) | undefined;
  },
  body: (port: T, again: () => Promise<T>) => Promise<void>,
): ConformanceCase {
  return {
    name,
    async run(): Promise<void> {
      let port = await create();
      const again = async (): Promise<T> => {
        if (reopen === undefined) return port;
        await port.close();
        return port = await reopen(port);
      };
      try {
        await body(port, again);
      } finally {
        await port.close();
      }
    },
  };
}

/** Throws an error that says `what` unless the condition holds. */
export function check(condition: unknown, what: string): asserts condition {
  if (!condition) throw new Error(what);
}

/** Throws unless `body` does, with an error that `is` the one expected. */
export async function checkThrows(
  what: string,
  is: (error: unknown) => boolean,
  body: () => unknown,
): Promise<void> {
  try {
    await body();
  } catch (error) {
    check(is(error), `${what}: threw ${error}`);
    return;
  }
  throw new Error(`${what}: did not throw`);
}

/** Bytes that differ by `seed` and by place. */
export function makeBytes(
  length: number,
  seed: number,
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = seed + i * 31 + (i >> 8);
  return bytes;
}
