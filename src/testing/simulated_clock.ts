/**
 * Simulated time: one clock that advances only when it is told to, and an
 * environment for each simulated process, with a rate and an offset of its own.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../env.ts";
import { sha256 } from "./sha256.ts";

/** Callback that is due at a simulated time. */
export interface Timer {
  /** Time of the clock, in milliseconds. */
  at: number;
  /** Order among timers that are due at the same time. */
  order: number;
  /** Undefined once the timer has run or was cancelled. */
  callback: (() => void) | undefined;
  readonly env: SimulatedEnv;
}

/** Creates a generator of 32-bit numbers from a seed (mulberry32). */
export function generator(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (t ^ (t >>> 14)) >>> 0;
  };
}

/** Derives the seed of one part of a simulation, so that what another part draws does not change it. */
export function derivedSeed(seed: number, name: string): number {
  let hash = 2166136261 ^ seed;
  for (let i = 0; i < name.length; i++) {
    hash = Math.imul(hash ^ name.charCodeAt(i), 16777619);
  }
  return generator(hash)();
}

/** Differences between the clock of one simulated process and the simulated time. */
export interface SimulatedEnvOptions {
  /** Milliseconds that the clock of the process advances in one millisecond of simulated time. @default {1} */
  readonly rate?: number | undefined;
  /** Time on the clock of the process when the simulated time is 0. @default {0} */
  readonly offset?: number | undefined;
}

/** Clock of a simulation. Callbacks that are due at the same time run in an order drawn from its seed. */
export class SimulatedClock {
  readonly #seed: number;
  readonly #random: () => number;
  /** Binary heap: no timer is due before its parent. */
  readonly #heap: Timer[] = [];
  #now = 0;
  #run = 0;

  /** Creates a clock at time 0. */
  constructor(seed: number) {
    this.#seed = seed;
    this.#random = generator(derivedSeed(seed, "clock"));
  }

  /** Simulated time, in whole milliseconds. */
  get now(): number {
    return this.#now;
  }

  /** Number of callbacks that have run. */
  get events(): number {
    return this.#run;
  }

  /** Creates the environment of a process; its random numbers follow from the seed and `name`. */
  env(name: string, options: SimulatedEnvOptions = {}): SimulatedEnv {
    const random = generator(derivedSeed(this.#seed, name));
    return new SimulatedEnv(this, random, options);
  }

  /** Time at which the next callback is due, `Infinity` without one. */
  get nextAt(): number {
    this.#prune();
    return this.#heap[0]?.at ?? Infinity;
  }

  /** Runs the next callback that is due at or before `until`; without one, sets the time to `until` and returns false. */
  runNext(until: number): boolean {
    this.#prune();
    const timer = this.#heap[0];
    if (timer === undefined || timer.at > until) {
      this.#now = Math.max(this.#now, until);
      return false;
    }
    this.#pop();
    this.#now = Math.max(this.#now, timer.at);
    this.#run++;
    timer.env.fire(timer);
    return true;
  }

  /** Schedules a callback after `delay` milliseconds of simulated time. */
  schedule(env: SimulatedEnv, callback: () => void, delay: number): () => void {
    const timer: Timer = {
      at: this.#now + delay,
      order: this.#random(),
      callback,
      env,
    };
    this.#push(timer);
    return () => {
      if (timer.callback === undefined) return;
      timer.callback = undefined;
      env.cancelled();
    };
  }

  /** Has a timer that came due run again, as soon as possible. */
  reschedule(timer: Timer): void {
    timer.at = this.#now;
    timer.order = this.#random();
    this.#push(timer);
  }

  #prune(): void {
    const heap = this.#heap;
    while (heap.length > 0) {
      const { callback, env } = heap[0]!;
      if (callback !== undefined && !env.isDead) return;
      this.#pop();
    }
  }

  #push(timer: Timer): void {
    const heap = this.#heap;
    let i = heap.length;
    while (i > 0) {
      const up = (i - 1) >> 1;
      if (!isBefore(timer, heap[up]!)) break;
      heap[i] = heap[up]!;
      i = up;
    }
    heap[i] = timer;
  }

  /** Removes the first timer. */
  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop()!;
    const { length } = heap;
    if (length === 0) return;
    let i = 0;
    for (;;) {
      let down = 2 * i + 1;
      if (down >= length) break;
      if (down + 1 < length && isBefore(heap[down + 1]!, heap[down]!)) down++;
      if (!isBefore(heap[down]!, last)) break;
      heap[i] = heap[down]!;
      i = down;
    }
    heap[i] = last;
  }
}

function isBefore(a: Timer, b: Timer): boolean {
  return a.at < b.at || a.at === b.at && a.order < b.order;
}

/** Environment of one simulated process, which can be suspended and killed. */
export class SimulatedEnv implements Env {
  readonly #clock: SimulatedClock;
  readonly #random: () => number;
  readonly #rate: number;
  #offset: number;
  #timers = 0;
  #isDead = false;
  /** Timers that came due while the process is suspended. */
  #held: Timer[] | undefined;
  #suspendedAt = 0;
  #onKill: (() => void)[] = [];

  /** Creates an environment; see {@linkcode SimulatedClock.env}. */
  constructor(
    clock: SimulatedClock,
    random: () => number,
    { rate = 1, offset = 0 }: SimulatedEnvOptions,
  ) {
    this.#clock = clock;
    this.#random = random;
    this.#rate = rate;
    this.#offset = offset;
  }

  /** Time on the clock of the process, in milliseconds. */
  now(): number {
    return this.#offset + this.#clock.now * this.#rate;
  }

  /** Returns the next random number of the process. */
  random64(): bigint {
    return BigInt(this.#random()) << 32n | BigInt(this.#random());
  }

  /** Calls `callback` after `delay` milliseconds on the clock of the process. */
  setTimer(callback: () => void, delay: number): () => void {
    if (this.#isDead) return () => {};
    this.#timers++;
    return this.#clock.schedule(
      this,
      callback,
      Math.max(0, Math.ceil(delay / this.#rate)),
    );
  }

  /** Resolves at the same simulated time, after other callbacks or before them. */
  turn(): Promise<void> {
    return new Promise((resolve) => void this.setTimer(resolve, 0));
  }

  /** Returns the SHA-256 of bytes at once. */
  sha256(bytes: Uint8Array): Uint8Array {
    return sha256(bytes);
  }

  /** Number of timers that are set. */
  get timers(): number {
    return this.#timers;
  }

  /** True once the process was killed. */
  get isDead(): boolean {
    return this.#isDead;
  }

  /** True while the process is suspended. */
  get isSuspended(): boolean {
    return this.#held !== undefined;
  }

  /** Ends the process: none of its callbacks run any more. */
  kill(): void {
    this.#isDead = true;
    this.#timers = 0;
    this.#held = undefined;
    for (const callback of this.#onKill.splice(0)) callback();
  }

  /** Calls `callback` when the process is killed: its peers lose it. */
  onKill(callback: () => void): void {
    this.#onKill.push(callback);
  }

  /** Stops the process until `resume()`: callbacks that come due wait. */
  suspend(): void {
    if (this.#isDead || this.#held !== undefined) return;
    this.#held = [];
    this.#suspendedAt = this.#clock.now;
  }

  /** Continues a suspended process; with `lost`, its clock has not advanced in between. */
  resume(lost = false): void {
    const held = this.#held;
    if (held === undefined) return;
    this.#held = undefined;
    if (lost) {
      this.#offset -= (this.#clock.now - this.#suspendedAt) * this.#rate;
    }
    for (const timer of held) this.#clock.reschedule(timer);
  }

  /** Runs a timer that is due; called by the clock. */
  fire(timer: Timer): void {
    if (this.#held !== undefined) {
      this.#held.push(timer);
      return;
    }
    this.#timers--;
    const { callback } = timer;
    timer.callback = undefined;
    callback!();
  }

  /** Counts a timer that was cancelled; called by the clock. */
  cancelled(): void {
    if (!this.#isDead) this.#timers--;
  }
}
