/**
 * Mutual exclusion of the appends to one cluster, in turns.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { isPromise } from "../async.ts";
import type { Env } from "../env.ts";
import { REHEARSAL_PAUSE_MS_MAX, REHEARSAL_TURNS_MAX } from "../limits.ts";
import type { MaybePromise } from "../statemachine/types.ts";

/** Runs one piece of work at a time, in the order in which it arrives. */
export class Turns {
  readonly #env: Env;
  /** True while more work should be gathered before a turn begins. */
  readonly #isEarly: () => boolean;
  #isTaken = false;
  #waiting: (() => MaybePromise<void>)[] = [];
  /** Time before which a free turn is not taken at once. */
  #freeAt = 0;

  /** Creates turns, which wait a few turns of the event loop while `isEarly()`. */
  constructor(env: Env, isEarly: () => boolean) {
    this.#env = env;
    this.#isEarly = isEarly;
  }

  /** Leaves the next `ms` milliseconds to other work of the process. */
  pauseFor(ms: number): void {
    this.#freeAt = this.#env.now() + ms;
  }

  /** Runs `work` after all that came before: at once and without a promise if nothing waits. */
  run<T>(work: () => MaybePromise<T>): MaybePromise<T> {
    if (!this.#isTaken) {
      this.#isTaken = true;
      const pause = this.#freeAt - this.#env.now();
      if (pause >= 1) {
        // Work that arrives until then shares the next fork.
        this.#env.setTimer(
          () => this.#next(),
          Math.min(pause, REHEARSAL_PAUSE_MS_MAX),
        );
      } else if (this.#isEarly()) this.#gather(REHEARSAL_TURNS_MAX);
      else return this.#begin(work);
    }
    return new Promise<T>((resolve, reject) => {
      this.#waiting.push(() => {
        try {
          const done = work();
          if (isPromise(done)) return done.then(resolve, reject);
          return resolve(done);
        } catch (error) {
          return reject(error);
        }
      });
    });
  }

  #gather(turns: number): void {
    if (turns === 0 || !this.#isEarly()) return this.#next();
    const again = (): void => this.#gather(turns - 1);
    this.#env.turn().then(again, again);
  }

  #begin<T>(work: () => MaybePromise<T>): MaybePromise<T> {
    let done: MaybePromise<T>;
    try {
      done = work();
    } catch (error) {
      this.#next();
      throw error;
    }
    if (!isPromise(done)) this.#next();
    else done.then(() => this.#next(), () => this.#next());
    return done;
  }

  /** Runs waiting work, in one go as long as it completes synchronously: it shares a fork, and a write of the log. */
  #next(): void {
    for (let i = 0; i < this.#waiting.length; i++) {
      const done = this.#waiting[i]!();
      if (!isPromise(done)) continue;
      this.#waiting.splice(0, i + 1);
      // Never rejects: the caller of the work gets its error.
      done.then(() => this.#next(), () => this.#next());
      return;
    }
    this.#waiting = [];
    this.#isTaken = false;
  }
}
