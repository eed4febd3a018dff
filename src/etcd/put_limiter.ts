/**
 * Bound of the puts of all clusters under way: more of them would only wait in etcd,
 * and its watches would fall behind.
 *
 * This module needs Deno.
 *
 * @module
 */

import {
  ETCD_PUTS_IN_FLIGHT_BYTES,
  ETCD_PUTS_IN_FLIGHT_MAX,
} from "../limits.ts";

/** Counts the puts under way; further ones wait in the order in which they came. */
export class PutLimiter {
  #count = 0;
  #bytes = 0;
  readonly #waiting: { size: number; enter: (release: () => void) => void }[] =
    [];

  /** Waits until a put of `size` bytes may begin; resolves with a function to call at its end. */
  enter(size: number): Promise<() => void> {
    return new Promise((enter) => {
      this.#waiting.push({ size, enter });
      this.#next();
    });
  }

  #next(): void {
    while (
      this.#waiting.length > 0 && this.#count < ETCD_PUTS_IN_FLIGHT_MAX &&
      this.#bytes < ETCD_PUTS_IN_FLIGHT_BYTES
    ) {
      const { size, enter } = this.#waiting.shift()!;
      this.#count++;
      this.#bytes += size;
      enter(() => {
        this.#count--;
        this.#bytes -= size;
        this.#next();
      });
    }
  }
}
