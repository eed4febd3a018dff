/**
 * Places for the snapshots that a server sends or takes at one time.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../../env.ts";
import { SYNC_TRANSFER_BYTES_PER_SECOND_MIN } from "../../limits.ts";

/** Place of one snapshot. */
export class Place {
  /** Ends the transfer in words; called once others need its place more. */
  cut: (reason: string) => void = () => {};
  readonly #env: Env;
  #left: (() => void) | undefined;
  #begun: number | undefined;
  #bytes = 0;

  /** A place; `left` is called once when it is given back. */
  constructor(env: Env, left: () => void) {
    this.#env = env;
    this.#left = left;
  }

  /** Notes that the snapshot is there, and content goes or comes from now on. */
  begin(): void {
    this.#begun ??= this.#env.now();
  }

  /** Notes that so many bytes have gone, or come. */
  moved(bytes: number): void {
    this.#bytes += bytes;
  }

  /** Mean rate in bytes per second, if it has been under way for `ms` milliseconds. */
  rateAfter(ms: number): number | undefined {
    const age = this.#env.now() - (this.#begun ?? Infinity);
    return age >= ms ? this.#bytes * 1000 / age : undefined;
  }

  /** Gives it back; idempotent. */
  free(): void {
    this.#left?.();
    this.#left = undefined;
  }
}

/**
 * Places for all snapshots at one time. Clients that take their snapshots as slowly
 * as possible keep no other out: once no place is left, the slowest loses its
 * place, unless it is fast enough.
 */
export class Places {
  readonly #env: Env;
  readonly #max: number;
  readonly #patienceMs: number;
  readonly #taken = new Set<Place>();

  /** So many places; none is lost in the first `patienceMs` milliseconds. */
  constructor(env: Env, max: number, patienceMs: number) {
    this.#env = env;
    this.#max = max;
    this.#patienceMs = patienceMs;
  }

  /** Number of places that are taken. */
  get size(): number {
    return this.#taken.size;
  }

  /** Takes the place of the slowest transfer if all are taken; true if a place is free then. */
  makeRoom(): boolean {
    if (this.#taken.size < this.#max) return true;
    let slowest: Place | undefined;
    let least = SYNC_TRANSFER_BYTES_PER_SECOND_MIN;
    for (const place of this.#taken) {
      const rate = place.rateAfter(this.#patienceMs);
      if (rate !== undefined && rate < least) [slowest, least] = [place, rate];
    }
    slowest?.cut("Transfer was too slow while others waited; try again later");
    slowest?.free();
    return slowest !== undefined;
  }

  /** Takes a place; `left` is called once when it is given back. */
  take(left: () => void): Place {
    const place = new Place(this.#env, () => {
      this.#taken.delete(place);
      left();
    });
    this.#taken.add(place);
    return place;
  }
}
