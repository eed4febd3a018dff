/**
 * Lease of this process in etcd, which keeps what is put under it for as long as the
 * process lives and reaches etcd.
 *
 * This module needs Deno.
 *
 * @module
 */

import { notify } from "../async.ts";
import type { Env } from "../env.ts";
import { ETCD_REVOKE_MS_MAX } from "../limits.ts";
import type { EtcdClient } from "./client.ts";
import {
  decodeLease,
  encodeKeepAlive,
  encodeLeaseGrant,
  Method,
} from "./messages.ts";

/** Times of a {@linkcode ProcessLease}. */
export interface LeaseTimes {
  /** Time after which etcd ends the lease unless it is kept, in seconds. */
  readonly seconds: number;
  /** Interval at which it is kept, in milliseconds. */
  readonly pingMs: number;
}

/** Lease that is granted when it is needed first, and then kept until it is closed. */
export class ProcessLease {
  readonly #client: EtcdClient;
  readonly #env: Env;
  readonly #times: LeaseTimes;
  readonly #listeners = new Set<() => void>();
  #granted: Promise<bigint> | undefined;
  #cancelPing: (() => void) | undefined;
  #isClosed = false;

  /** Creates a lease that is not granted yet. */
  constructor(client: EtcdClient, env: Env, times: LeaseTimes) {
    this.#client = client;
    this.#env = env;
    this.#times = times;
  }

  /** Id of the lease. */
  id(): Promise<bigint> {
    return this.#granted ??= this.#grant();
  }

  /** Calls a listener whenever the lease has ended while this process runs: what was put under it is gone. */
  watch(listener: () => void): () => void {
    const own = (): void => listener();
    this.#listeners.add(own);
    return () => void this.#listeners.delete(own);
  }

  async #grant(): Promise<bigint> {
    try {
      const { id } = decodeLease(
        await this.#client.request(
          Method.LeaseGrant,
          encodeLeaseGrant(this.#times.seconds),
        ),
      );
      this.#pingLater(id);
      return id;
    } catch (error) {
      this.#granted = undefined;
      throw error;
    }
  }

  #pingLater(id: bigint): void {
    if (this.#isClosed) return;
    this.#cancelPing = this.#env.setTimer(() => {
      // Never rejects: a failure is tried again.
      void this.#ping(id);
    }, this.#times.pingMs);
  }

  /** Keeps the lease, until etcd says that it has ended. */
  async #ping(id: bigint): Promise<void> {
    try {
      const { seconds } = decodeLease(
        await this.#client.call(Method.LeaseKeepAlive, encodeKeepAlive(id), {
          ms: this.#times.seconds * 1_000,
        }),
      );
      if (seconds === 0) {
        this.#granted = undefined;
        for (const listener of [...this.#listeners]) notify(listener);
        return;
      }
    } catch {
      // Tried again.
    }
    this.#pingLater(id);
  }

  /** Ends the lease, as far as etcd can be reached. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#cancelPing?.();
    const id = await this.#granted?.catch(() => undefined);
    if (id === undefined) return;
    await this.#client.call(Method.LeaseRevoke, encodeKeepAlive(id), {
      ms: ETCD_REVOKE_MS_MAX,
    }).catch(() => {
      // It ends by itself.
    });
  }
}
