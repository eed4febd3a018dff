/**
 * What a client has received and nobody has taken yet: bounded, and no bar to
 * others.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../../env.ts";
import { SYNC_CREDIT_BYTES, SYNC_STALL_MS } from "../../limits.ts";

/** One that holds some of what was received. */
export interface Holder {
  /** How much, in bytes. */
  readonly heldBytes: number;
  /** Asked to let go of all of it, as nothing was taken for `SYNC_STALL_MS`. */
  shed(): void;
}

/**
 * The bytes that were received and not taken, of all streams and connections
 * together. Credit is for all streams; so when what nobody takes has filled all
 * of it for a while, whoever holds most has to let go, that others may go on and
 * the server does not take the whole client for too slow.
 */
export class Inbox {
  readonly #env: Env;
  readonly #granted: (bytes: number) => void;
  readonly #holders = new Set<Holder>();
  #bytes = 0;
  #taken = 0;
  #cancel: (() => void) | undefined;

  /** An inbox that tells how much of it was taken. */
  constructor(env: Env, granted: (bytes: number) => void) {
    this.#env = env;
    this.#granted = granted;
  }

  /** What is held, in bytes. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Makes one known that may hold something; returns what ends that. */
  join(holder: Holder): () => void {
    this.#holders.add(holder);
    return () => void this.#holders.delete(holder);
  }

  /** Something was received. */
  add(bytes: number): void {
    this.#bytes += bytes;
    if (this.#isFull) this.#watch();
  }

  /** Something was taken, or dropped. */
  release(bytes: number): void {
    this.#bytes -= bytes;
    this.#taken += bytes;
    if (!this.#isFull) this.#unwatch();
    if (bytes > 0) this.#granted(bytes);
  }

  get #isFull(): boolean {
    return this.#bytes >= SYNC_CREDIT_BYTES / 4 * 3;
  }

  #watch(): void {
    if (this.#cancel !== undefined) return;
    const taken = this.#taken;
    this.#cancel = this.#env.setTimer(() => {
      this.#cancel = undefined;
      if (!this.#isFull) return;
      if (taken === this.#taken) this.#shed();
      if (this.#isFull) this.#watch();
    }, SYNC_STALL_MS);
  }

  #shed(): void {
    let most: Holder | undefined;
    for (const holder of this.#holders) {
      if (holder.heldBytes > (most?.heldBytes ?? 0)) most = holder;
    }
    most?.shed();
  }

  #unwatch(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }

  /** Ends the watching. */
  close(): void {
    this.#unwatch();
    this.#holders.clear();
  }
}
