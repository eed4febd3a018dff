/**
 * Random numbers for tests, with the seed that repeats them.
 *
 * @module
 */

import { makeRandom } from "../snapshot/container_fixtures.ts";

/** Random numbers that follow from a seed. */
export interface Random {
  /** The seed. */
  readonly seed: number;
  /** A number in 0…`limit`-1. */
  below(limit: number): number;
  /** True with this chance. */
  chance(of: number): boolean;
  /** One of `items`. */
  pick<T>(items: readonly T[]): T;
}

/** Random numbers from `seed`, or from one that is printed. */
export function random(seed?: number): Random {
  const from = seed ?? Math.floor(Math.random() * 2 ** 32);
  // deno-lint-ignore no-console
  if (seed === undefined) console.log(`seed ${from}`);
  const next = makeRandom(from);
  const below = (limit: number): number => Math.floor(next() * limit);
  return {
    seed: from,
    below,
    chance: (of) => next() < of,
    pick: (items) => items[below(items.length)]!,
  };
}

/** Lets what can go on do so. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}

/** Lets a few microtasks pass. */
export async function ticks(count = 10): Promise<void> {
  for (let i = 0; i < count; i++) await undefined;
}
