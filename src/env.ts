/**
 * Environment: clock, random numbers, timers and hashing. Passed in, so that a
 * simulation is a pure function of its seed. Replicated state never depends on it.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { MaybePromise } from "./statemachine/types.ts";

/** Clock, random numbers, timers and hashing. */
export interface Env {
  /** Time of a monotonic clock, in milliseconds; only differences have a meaning. */
  now(): number;
  /** Returns a random number in 0…2^64-1. */
  random64(): bigint;
  /** Calls `callback` once, after `delay` milliseconds; returns a function that cancels the timer. */
  setTimer(callback: () => void, delay: number): () => void;
  /** Resolves after a turn of the event loop. */
  turn(): Promise<void>;
  /** Returns the SHA-256 of bytes. @default {the hash of Web Crypto, which takes turns of the event loop} */
  sha256?(bytes: Uint8Array<ArrayBuffer>): MaybePromise<Uint8Array>;
}

/** Environment of the runtime. */
export const systemEnv: Env = {
  now: (): number => performance.now(),
  random64(): bigint {
    const [low, high] = crypto.getRandomValues(new Uint32Array(2));
    return BigInt(high as number) << 32n | BigInt(low as number);
  },
  setTimer(callback: () => void, delay: number): () => void {
    const id = setTimeout(callback, delay);
    return () => clearTimeout(id);
  },
  turn(): Promise<void> {
    return new Promise((resolve) => {
      // A timer of 0 ms takes 1 to 4 ms, a message a few microseconds.
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => {
        port1.close();
        port2.close();
        resolve();
      };
      port2.postMessage(0);
    });
  },
};
