/**
 * How much a client may send: it is granted what it has sent again once that is
 * dealt with, and later if it sends more commands than it should.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../../env.ts";
import { SYNC_SLICE_MS } from "../../limits.ts";
import type { MaybePromise } from "../../statemachine/types.ts";

/**
 * How much of its time a server gives to what clients send. One that sends a lot
 * has its frames read many at a time, before one of anybody else: the server is
 * to have as much time for others as it has spent.
 */
export class Pace {
  readonly #env: Env;
  #freeAt = 0;

  /** A pace at which nothing was spent yet. */
  constructor(env: Env) {
    this.#env = env;
  }

  /** Takes note that so many milliseconds were spent. */
  spent(ms: number): void {
    this.#freeAt = Math.max(this.#freeAt, this.#env.now()) + ms;
  }

  /** How long nobody is to be granted more, in milliseconds. */
  get waitMs(): number {
    return Math.max(0, this.#freeAt - this.#env.now());
  }
}

/** So many of something in each second, and as many at once. */
export class Rate {
  readonly #env: Env;
  readonly #perSecond: number;
  #left: number;
  #filledAt: number;

  /** A rate of which all is left. */
  constructor(env: Env, perSecond: number) {
    this.#env = env;
    this.#left = this.#perSecond = perSecond;
    this.#filledAt = env.now();
  }

  /** What may still be taken now, less `count`; below 0 for what was taken too early. */
  take(count: number): number {
    const now = this.#env.now();
    const filled = this.#left + (now - this.#filledAt) * this.#perSecond / 1000;
    this.#filledAt = now;
    return this.#left = Math.min(this.#perSecond, filled) - count;
  }

  /** How long it takes until something is left, in milliseconds. */
  get waitMs(): number {
    // Several connections may share it, and one of them may have waited already.
    this.take(0);
    return Math.ceil(-this.#left * 1000 / this.#perSecond);
  }

  /** True if as much is left as there can be. */
  get isFull(): boolean {
    return this.take(0) >= this.#perSecond;
  }
}

/** One that waits for its turn, with what it is to do in order. */
type Waiting = (() => void)[];

/**
 * Gives connections turns once what they send takes more time than there is: one
 * message of each, over and over, and the event loop a turn in between. Without
 * it, frames of one connection that have arrived already would all be dealt with
 * before a single one of another connection is read from its socket.
 */
export class Turns {
  readonly #env: Env;
  readonly #pace: Pace;
  /** In the order of their turns. */
  readonly #waiting = new Map<object, Waiting>();
  #isRunning = false;
  /** Time that was spent, less the time that was left for others since, in milliseconds. */
  #debtMs = 0;
  #spentAt = 0;

  /** Turns that tell `pace` what was spent. */
  constructor(env: Env, pace: Pace) {
    this.#env = env;
    this.#pace = pace;
  }

  /** Calls `run` at once if there is time, else when it is the turn of `taker`; what one taker hands over is called in order. */
  take<T>(taker: object, run: () => MaybePromise<T>): MaybePromise<T> {
    if (!this.#isRunning && this.#owed() < SYNC_SLICE_MS) {
      return this.#timed(run);
    }
    return new Promise<T>((resolve, reject) => {
      const call = (): void => {
        try {
          resolve(this.#timed(run));
        } catch (error) {
          reject(error);
        }
      };
      const waiting = this.#waiting.get(taker);
      if (waiting !== undefined) waiting.push(call);
      else this.#waiting.set(taker, [call]);
      if (!this.#isRunning) {
        // Never rejects: calls settle the promises of their callers.
        void this.#run();
      }
    });
  }

  /** Time owed to others at a moment, in milliseconds. */
  #owed(now = this.#env.now()): number {
    return Math.max(0, this.#debtMs - (now - this.#spentAt));
  }

  #timed<T>(run: () => T): T {
    const from = this.#env.now();
    try {
      return run();
    } finally {
      const now = this.#env.now();
      this.#pace.spent(now - from);
      // A debt that is large already is paid by giving turns.
      this.#debtMs = Math.min(this.#owed(from) + now - from, 2 * SYNC_SLICE_MS);
      this.#spentAt = now;
    }
  }

  async #run(): Promise<void> {
    this.#isRunning = true;
    while (this.#waiting.size > 0) {
      await this.#env.turn();
      const until = this.#env.now() + SYNC_SLICE_MS;
      for (const [taker, waiting] of this.#waiting) {
        // It goes to the end of the line.
        this.#waiting.delete(taker);
        waiting.shift()!();
        if (waiting.length > 0) this.#waiting.set(taker, waiting);
        if (this.#env.now() >= until) break;
      }
    }
    this.#isRunning = false;
  }
}

/** The credit a server grants one client. */
export class Throttle {
  readonly #env: Env;
  readonly #pace: Pace;
  readonly #window: () => number;
  /** Commands that may be dealt with; set once it is known who sends them. */
  rate: Rate | undefined;
  readonly #grant: (bytes: number) => void;
  /** Bytes the client may still send. */
  #granted: number;
  /** Bytes that came and are not dealt with. */
  #taken = 0;
  #isOver = false;
  #cancel: (() => void) | undefined;

  /** Creates a throttle for `window` bytes at one time; the next window may be larger or smaller. */
  constructor(
    env: Env,
    pace: Pace,
    window: () => number,
    grant: (bytes: number) => void,
  ) {
    this.#env = env;
    this.#pace = pace;
    this.#window = window;
    this.#granted = window();
    this.#grant = grant;
  }

  /** Bytes the client may send as yet: what it is to be told first. */
  get granted(): number {
    return this.#granted;
  }

  /** A frame came; whether it was granted, be it by its first byte alone. */
  take(bytes: number): boolean {
    if (this.#granted <= 0) return false;
    this.#granted -= bytes;
    this.#taken += bytes;
    return true;
  }

  /** What came is dealt with. */
  consumed(bytes: number, commands: number): void {
    this.#taken -= bytes;
    this.rate?.take(commands);
    this.#settle();
  }

  /** Bytes that it is not granted and could be. */
  get #due(): number {
    return this.#window() - this.#granted - this.#taken;
  }

  #settle(): void {
    // Few messages are enough: the client has as much again in hand.
    if (this.#isOver || this.#cancel !== undefined) return;
    if (this.#due < this.#window() / 2) return;
    const wait = Math.max(
      this.rate?.waitMs ?? 0,
      // A moment is none: a timer takes longer than that.
      Math.floor(this.#pace.waitMs),
    );
    if (wait <= 0) return this.#pay();
    this.#cancel = this.#env.setTimer(() => {
      this.#cancel = undefined;
      this.#pay();
    }, wait);
  }

  #pay(): void {
    // There may be more of them now who have a share.
    const bytes = Math.floor(this.#due);
    if (bytes <= 0) return;
    this.#granted += bytes;
    this.#grant(bytes);
  }

  /** Grants no more. */
  stop(): void {
    this.#isOver = true;
    this.#cancel?.();
    this.#cancel = undefined;
  }
}
