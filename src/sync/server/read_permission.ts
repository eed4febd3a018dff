/**
 * Permission of one principal to read one cluster, renewed while data is sent.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../../env.ts";
import {
  SYNC_PERMISSION_MS_MAX,
  SYNC_PERMISSION_RENEW_MS,
} from "../../limits.ts";
import { chain, isPromise } from "../../async.ts";
import type { MaybePromise } from "../../statemachine/types.ts";
import type { Hooks, Identity } from "./hooks.ts";

/** Callbacks of a {@linkcode ReadPermission}. */
export interface ReadPermissionListener {
  /** Called when data may be sent again. */
  renewed(): void;
  /** Called when the principal may not read any more. */
  revoked(): void;
  /** Called when `authorize` has failed: no data is sent until it succeeds. */
  failed(error: unknown): void;
}

/** Dependencies of a {@linkcode ReadPermission}. */
export interface ReadPermissionOptions {
  /** Clock of the host. */
  readonly env: Env;
  /** Hooks of the application; without `authorize`, every principal may read. */
  readonly hooks: Hooks;
  /** Cluster to read. */
  readonly clusterID: bigint;
  /** Returns the current identity of the client. */
  readonly identity: () => Identity;
}

/** Lease on reading a cluster: data is sent only while the last permission by `authorize` is recent. */
export class ReadPermission {
  readonly #options: ReadPermissionOptions;
  readonly #isChecked: boolean;
  /** Time of the call of `authorize` that last permitted reading. */
  #permittedAt = -Infinity;
  #isRenewing = false;
  #retryAt = -Infinity;
  /** Listener for renewals while data is sent. */
  listener: ReadPermissionListener | undefined;

  /** Creates a permission that is not granted yet. */
  constructor(options: ReadPermissionOptions) {
    this.#options = options;
    this.#isChecked = options.hooks.authorizes;
  }

  /**
   * Calls `authorize`; resolves to true if the principal may read.
   *
   * @throws ErrHookFailed if `authorize` failed
   */
  check(): MaybePromise<boolean> {
    if (!this.#isChecked) return true;
    const { env, hooks, clusterID, identity } = this.#options;
    const { principal, signal } = identity();
    if (signal?.aborted) return false;
    const from = env.now();
    const may = hooks.authorize(principal, clusterID, "read");
    return chain(may, (may) => {
      this.#permittedAt = may ? Math.max(this.#permittedAt, from) : -Infinity;
      return may;
    });
  }

  /**
   * Same as `check()`, but accepts a recent permission.
   *
   * @throws ErrHookFailed if `authorize` failed
   */
  checkRecent(): MaybePromise<boolean> {
    return this.#ageMs() < SYNC_PERMISSION_RENEW_MS || this.check();
  }

  #ageMs(): number {
    return this.#isChecked ? this.#options.env.now() - this.#permittedAt : 0;
  }

  /** True if data may be sent now; starts a renewal if the last permission is not recent. */
  get isValid(): boolean {
    if (!this.#isChecked || this.#ageMs() < SYNC_PERMISSION_RENEW_MS) {
      return true;
    }
    this.#renew();
    return this.#ageMs() < SYNC_PERMISSION_MS_MAX;
  }

  #renew(): void {
    const { env } = this.#options;
    if (this.#isRenewing || env.now() < this.#retryAt) return;
    this.#isRenewing = true;
    const settled = (may: boolean): void => {
      this.#isRenewing = false;
      if (may) this.listener?.renewed();
      else this.listener?.revoked();
    };
    const failed = (error: unknown): void => {
      this.#isRenewing = false;
      this.#retryAt = env.now() + SYNC_PERMISSION_RENEW_MS / 2;
      this.listener?.failed(error);
    };
    try {
      const may = this.check();
      if (isPromise(may)) may.then(settled, failed);
      else if (may) this.#isRenewing = false;
      // The caller is sending: its channel must not be closed under it.
      else queueMicrotask(() => settled(false));
    } catch (error) {
      failed(error);
    }
  }
}
