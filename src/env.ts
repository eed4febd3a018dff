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

/** Callers that wait for a turn of the event loop. */
let waiting: (() => void)[] = [];
/** Set while a message is on its way to `onTurn()`. */
let channel: MessageChannel | undefined;

/** Function of Deno and Node that takes a tenth of the time of a message if nothing else happens. */
const { setImmediate } = globalThis as {
  setImmediate?: (callback: () => void) => void;
};

/** Resolves after a turn of the event loop: a timer of 0 ms takes 1 to 4 ms, a message a few microseconds. */
function turn(): Promise<void> {
  return new Promise((resolve) => {
    if (setImmediate !== undefined) {
      setImmediate(resolve);
      return;
    }
    waiting.push(resolve);
    if (channel !== undefined) return;
    channel = new MessageChannel();
    channel.port1.onmessage = onTurn;
    channel.port2.postMessage(0);
  });
}

/** Lets the callers go on; the channel is used again by those that wait for another turn, and closed otherwise: an open one keeps the process alive. */
function onTurn(): void {
  const { port1, port2 } = channel!;
  const callers = waiting;
  waiting = [];
  if (callers.length === 0) {
    port1.close();
    port2.close();
    channel = undefined;
    return;
  }
  port2.postMessage(0);
  for (const resolve of callers) resolve();
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
  turn,
};
