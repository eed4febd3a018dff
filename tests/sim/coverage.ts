/**
 * Coverage table of the simulated worlds: everything that a run must have met to
 * count as a search, and the worlds that meet it together.
 *
 * @module
 */

import type { Job } from "./worker.ts";

/** Items that must be met: faults, errors, transitions and events, as `History.met()` records them. */
export const COVERAGE: readonly string[] = [];

/** Worlds that together meet everything in the table; `--cover` finds them. */
export const FIXED_WORLDS: readonly Job[] = [];

/** Formats how often each item was met, the rarest first. */
export function tableOf(
  counts: ReadonlyMap<string, number>,
  items: readonly string[],
): string {
  return [...items]
    .map((item) => ({ item, count: counts.get(item) ?? 0 }))
    .sort((a, b) => a.count - b.count || (a.item < b.item ? -1 : 1))
    .map(({ item, count }) => `${`${count}`.padStart(10)}  ${item}`)
    .join("\n");
}
