/**
 * Numbers that come again with their seed.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** Numbers in [0, 1) from a seed. */
export function random(seed: number): () => number {
  let x = seed >>> 0;
  return () => {
    x = (x + 0x6d2b79f5) >>> 0;
    let t = Math.imul(x ^ (x >>> 15), x | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A seed drawn from such numbers, for what draws numbers of its own. */
export function seedFrom(next: () => number): number {
  return Math.floor(next() * 2 ** 32);
}

/** A seed drawn at random. */
export function newSeed(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0]!;
}
