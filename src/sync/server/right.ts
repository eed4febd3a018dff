/**
 * The permission of one principal to read one cluster, asked for again and again
 * while data is sent.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { SYNC_RIGHT_ASK_MS, SYNC_RIGHT_MS_MAX } from "../../limits.ts";
import { chain, isPromise } from "../../async.ts";
import type { MaybePromise } from "../../statemachine/types.ts";
import type { Core } from "./core.ts";
import type { Identity } from "./hooks.ts";

/** Callbacks of a {@linkcode ReadRight}. */
export interface ReadRightListener {
  /** Called when data may be sent again. */
  renewed(): void;
  /** Called when the principal may not read any more. */
  withdrawn(): void;
  /** Called when `authorize` has failed: nothing is sent until it has answered. */
  failed(error: unknown): void;
}

/** Permission to read a cluster. Data is sent only while the last yes of `authorize` is recent. */
export class ReadRight {
  readonly #core: Core;
  readonly #identity: () => Identity;
  readonly #clusterID: bigint;
  readonly #isChecked: boolean;
  /** When `authorize` was asked that said yes last. */
  #askedAt = -Infinity;
  #isAsking = false;
  #retryAt = -Infinity;
  /** Listener for answers that come while data is sent. */
  listener: ReadRightListener | undefined;

  /** Permission that is not known yet. */
  constructor(core: Core, identity: () => Identity, clusterID: bigint) {
    this.#core = core;
    this.#identity = identity;
    this.#clusterID = clusterID;
    this.#isChecked = core.options.authorize !== undefined;
  }

  /**
   * Asks whether the principal may read.
   *
   * @throws ErrHookFailed if `authorize` failed
   */
  ask(): MaybePromise<boolean> {
    if (!this.#isChecked) return true;
    const { hooks, env } = this.#core;
    const { principal, signal } = this.#identity();
    if (signal?.aborted) return false;
    const from = env.now();
    const may = hooks.authorize(principal, this.#clusterID, "read");
    return chain(may, (may) => {
      this.#askedAt = may ? Math.max(this.#askedAt, from) : -Infinity;
      return may;
    });
  }

  /**
   * Same as `ask()`, but accepts a recent permission.
   *
   * @throws ErrHookFailed if `authorize` failed
   */
  recent(): MaybePromise<boolean> {
    return this.#ageMs() < SYNC_RIGHT_ASK_MS || this.ask();
  }

  #ageMs(): number {
    return this.#isChecked ? this.#core.env.now() - this.#askedAt : 0;
  }

  /** True if data may be sent now; asks again if the last yes is not recent. */
  get holds(): boolean {
    if (!this.#isChecked || this.#ageMs() < SYNC_RIGHT_ASK_MS) return true;
    this.#renew();
    return this.#ageMs() < SYNC_RIGHT_MS_MAX;
  }

  #renew(): void {
    if (this.#isAsking || this.#core.env.now() < this.#retryAt) return;
    this.#isAsking = true;
    const answered = (may: boolean): void => {
      this.#isAsking = false;
      if (may) this.listener?.renewed();
      else this.listener?.withdrawn();
    };
    const failed = (error: unknown): void => {
      this.#isAsking = false;
      this.#retryAt = this.#core.env.now() + SYNC_RIGHT_ASK_MS / 2;
      this.listener?.failed(error);
    };
    try {
      const may = this.ask();
      if (isPromise(may)) may.then(answered, failed);
      // Not in the middle of sending.
      else if (may) this.#isAsking = false;
      else queueMicrotask(() => answered(false));
    } catch (error) {
      failed(error);
    }
  }
}
