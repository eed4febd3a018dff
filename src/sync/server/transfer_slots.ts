/**
 * Slots for the snapshot transfers of a server.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../../env.ts";
import { SYNC_TRANSFER_BYTES_PER_SECOND_MIN } from "../../limits.ts";

/** Slot of one snapshot transfer, which measures its rate. */
export class TransferSlot {
  /** Called with a reason when another transfer needs the slot; ends this one. */
  evict: (reason: string) => void = () => {};
  readonly #env: Env;
  #released: (() => void) | undefined;
  #startedAt: number | undefined;
  #bytes = 0;

  /** Creates a slot; `released` is called once, on its release. */
  constructor(env: Env, released: () => void) {
    this.#env = env;
    this.#released = released;
  }

  /** Starts measuring the rate: the snapshot exists and its content is sent or received from now on. */
  start(): void {
    this.#startedAt ??= this.#env.now();
  }

  /** Counts bytes sent or received. */
  transferred(bytes: number): void {
    this.#bytes += bytes;
  }

  /** Mean rate in bytes per second; undefined for a transfer younger than `ms` milliseconds. */
  rateAfter(ms: number): number | undefined {
    const age = this.#env.now() - (this.#startedAt ?? Infinity);
    return age >= ms ? this.#bytes * 1000 / age : undefined;
  }

  /** Releases the slot; idempotent. */
  release(): void {
    this.#released?.();
    this.#released = undefined;
  }
}

/**
 * Bounded number of slots for simultaneous snapshot transfers. When all are used,
 * the slowest transfer is evicted if its rate is below a minimum: so clients that
 * read as slowly as possible cannot keep others out.
 */
export class TransferSlots {
  readonly #env: Env;
  readonly #max: number;
  readonly #graceMs: number;
  readonly #used = new Set<TransferSlot>();

  /** Creates `max` slots; no transfer is evicted in its first `graceMs` milliseconds. */
  constructor(env: Env, max: number, graceMs: number) {
    this.#env = env;
    this.#max = max;
    this.#graceMs = graceMs;
  }

  /** Number of slots in use. */
  get size(): number {
    return this.#used.size;
  }

  /** Evicts the slowest transfer if all slots are in use; true if a slot is free after that. */
  makeRoom(): boolean {
    if (this.#used.size < this.#max) return true;
    let slowest: TransferSlot | undefined;
    let least = SYNC_TRANSFER_BYTES_PER_SECOND_MIN;
    for (const slot of this.#used) {
      const rate = slot.rateAfter(this.#graceMs);
      if (rate !== undefined && rate < least) [slowest, least] = [slot, rate];
    }
    slowest?.evict(
      "Transfer was too slow while others waited; try again later",
    );
    slowest?.release();
    return slowest !== undefined;
  }

  /** Takes a slot; `released` is called once, on its release. */
  take(released: () => void): TransferSlot {
    const slot = new TransferSlot(this.#env, () => {
      this.#used.delete(slot);
      released();
    });
    this.#used.add(slot);
    return slot;
  }
}
