/**
 * What the system takes from the world around it: time, random numbers and
 * timers. Passed in, so that simulated time can drive everything. Nothing here
 * is ever an input to replicated state.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** Time, random numbers and timers. */
export interface Env {
  /** Milliseconds on a clock that never goes back; only ever subtracted. */
  now(): number;
  /** A random number in 0…2^64-1. */
  random64(): bigint;
  /** Calls `callback` once, after `delay` milliseconds; returns what cancels it. */
  setTimer(callback: () => void, delay: number): () => void;
  /** Settles after the event loop had a turn. */
  turn(): Promise<void>;
}

/** The real world. */
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
