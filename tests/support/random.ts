/**
 * Pseudo-random numbers with a seed that repeats them (mulberry32).
 *
 * This module is browser compatible.
 *
 * @module
 */

/** Creates a generator of 32-bit numbers. */
export function random32(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (t ^ (t >>> 14)) >>> 0;
  };
}

/** Creates a generator of numbers in [0, 1). */
export function random(seed: number): () => number {
  const next = random32(seed);
  return () => next() / 2 ** 32;
}

/** Draws a seed from a generator of numbers in [0, 1). */
export function seedFrom(next: () => number): number {
  return Math.floor(next() * 2 ** 32);
}

/** Draws a seed at random. */
export function newSeed(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0]!;
}

/** Draws that follow from a seed. */
export interface Random {
  /** Seed that repeats the draws. */
  readonly seed: number;
  /** Draws an integer in 0…`limit`-1, for a `limit` of at most 2^32. */
  below(limit: number): number;
  /** True with this probability. */
  chance(of: number): boolean;
  /** True once in `times`. */
  oneIn(times: number): boolean;
  /** Draws one of the items. */
  pick<T>(items: ArrayLike<T>): T;
}

/** Creates draws from a seed; without one, from a random seed that is printed. */
export function seeded(seed?: number): Random {
  const from = seed ?? newSeed();
  // deno-lint-ignore no-console
  if (seed === undefined) console.log(`seed ${from}`);
  const next = random(from);
  const below = (limit: number): number => Math.floor(next() * limit);
  return {
    seed: from,
    below,
    chance: (of) => next() < of,
    oneIn: (times) => below(times) === 0,
    pick: <T>(items: ArrayLike<T>): T => items[below(items.length)] as T,
  };
}
