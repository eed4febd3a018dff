/**
 * Clock, timers and random numbers that a test controls, and checks for
 * unhandled rejections and broken contracts.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { random32 } from "./random.ts";
import { assertEquals } from "@std/assert";
import type { Env } from "../../src/env.ts";
// All that load code when it is first needed.
import "../../src/nodehost/default_stores.ts";
import "../../src/nodehost/load.ts";
import "../../src/offline/block_outbox.ts";
import "../../src/offline/durable_session.ts";
import "../../src/snapshot/block_snapshot_store.ts";
import "../../src/sync/client/link.ts";
import "../../src/sync/client/remote_snapshots.ts";
import "../../src/tabs/shared_tabs.ts";
import "../../src/tabs/tab_outbox.ts";
import "../../src/typed/machine.ts";
import { preload } from "../../src/statemachine/load.ts";

// Loading takes real time, which no controlled clock waits for.
await preload();

const unhandled: unknown[] = [];
/** Violations of the contract that machines have observed. */
export const violations: string[] = [];

globalThis.addEventListener("unhandledrejection", (event) => {
  event.preventDefault();
  unhandled.push(event.reason);
});

/** Wraps a test so that it also fails on an unhandled rejection or a violation of the contract. */
export function checked(run: () => Promise<void>): () => Promise<void> {
  return async () => {
    unhandled.length = violations.length = 0;
    await run();
    // Rejections are reported after the event loop had a turn.
    await settle();
    assertEquals(unhandled.splice(0), []);
    assertEquals(violations.splice(0), []);
  };
}

/** Waits for a message on a new channel: several turns of the event loop, in which code that waits for one goes on. */
function longTurn(): Promise<void> {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = (): void => {
      port1.close();
      port2.close();
      resolve();
    };
    port2.postMessage(0);
  });
}

/** Waits some turns of the event loop: long enough for everything that needs no timer. */
export async function settle(turns = 3): Promise<void> {
  for (let i = 0; i < turns; i++) await longTurn();
}

/** Observes a promise for a few turns: its value, its error, or "pending". */
export async function peek<T>(
  promise: Promise<T>,
): Promise<{ value: T } | { error: unknown } | "pending"> {
  let state: { value: T } | { error: unknown } | "pending" = "pending";
  promise.then((value) => state = { value }, (error) => state = { error });
  await settle();
  return state;
}

/** Resolves to the reason a promise rejects with; fails if it resolves. */
export async function rejection(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error(
    "rejection() expected a promise that rejects, but it resolved",
  );
}

/** Environment whose clock advances only when a test says so. */
export class ManualEnv implements Env {
  readonly #random: () => number;
  readonly #timers = new Set<{ at: number; callback: () => void }>();
  #now = 0;

  constructor(seed = 1) {
    this.#random = random32(seed);
  }

  now(): number {
    return this.#now;
  }

  random64(): bigint {
    return BigInt(this.#random()) << 32n | BigInt(this.#random());
  }

  setTimer(callback: () => void, delay: number): () => void {
    const timer = { at: this.#now + delay, callback };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  turn(): Promise<void> {
    return Promise.resolve();
  }

  /** Number of pending timers. */
  get timers(): number {
    return this.#timers.size;
  }

  /** Advances the clock and runs the timers that come due. */
  async advance(ms: number): Promise<void> {
    const until = this.#now + ms;
    await settle(1);
    for (;;) {
      let next: { at: number; callback: () => void } | undefined;
      for (const timer of this.#timers) {
        if (timer.at <= until && !(next && next.at <= timer.at)) next = timer;
      }
      if (next === undefined) break;
      this.#timers.delete(next);
      this.#now = Math.max(this.#now, next.at);
      next.callback();
      await settle(1);
    }
    this.#now = until;
  }

  /** Advances the clock without running timers, as when the process was suspended. */
  jump(ms: number): void {
    this.#now += ms;
  }

  /** Advances the clock until a promise has settled. */
  async until<T>(promise: Promise<T>, step = 10_000): Promise<T> {
    let done = false;
    const end = (): void => {
      done = true;
    };
    promise.then(end, end);
    await settle();
    for (let i = 0; !done && i < 1000; i++) await this.advance(step);
    if (!done) throw new Error(`Promise is pending after ${1000 * step} ms`);
    return await promise;
  }
}

/** A promise that never settles. */
export function never<T>(): Promise<T> {
  return new Promise(() => {});
}

/** Promise that a test resolves by opening the gate. */
export class Gate {
  #open!: () => void;
  readonly opened: Promise<void> = new Promise((resolve) =>
    this.#open = resolve
  );

  open(): void {
    this.#open();
  }
}
