/**
 * Random numbers that repeat.
 *
 * @module
 */

/** Random numbers that follow from a seed (mulberry32). */
export class Random {
  #state: number;

  /** Numbers that follow from the low 32 bits of `seed`. */
  constructor(seed: number) {
    this.#state = seed | 0;
  }

  /** A number in 0…`limit`-1, for a `limit` of at most 2^32. */
  below(limit: number): number {
    this.#state = this.#state + 0x6d2b79f5 | 0;
    let word = this.#state;
    word = Math.imul(word ^ word >>> 15, word | 1);
    word ^= word + Math.imul(word ^ word >>> 7, word | 61);
    return Math.floor(((word ^ word >>> 14) >>> 0) / 0x100000000 * limit);
  }

  /** True once in `times`. */
  oneIn(times: number): boolean {
    return this.below(times) === 0;
  }

  /** One of `items`. */
  pick<T>(items: ArrayLike<T>): T {
    return items[this.below(items.length)] as T;
  }
}
