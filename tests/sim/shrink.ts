/**
 * Delta debugging: removes steps from a plan for as long as it still fails.
 *
 * @module
 */

/** Bounds of a search for fewer steps. */
export interface ShrinkOptions {
  /** Most runs. @default {400} */
  readonly runsMax?: number;
  /** Longest time, in milliseconds. @default {120_000} */
  readonly msMax?: number;
}

/**
 * Finds a small subset of `count` steps with which `fails` is still true; removing
 * any one of them, or any aligned part, makes it pass, if the bounds suffice.
 */
export async function shrinkSteps(
  count: number,
  fails: (steps: readonly number[]) => Promise<boolean>,
  { runsMax = 400, msMax = 120_000 }: ShrinkOptions = {},
): Promise<readonly number[]> {
  const end = performance.now() + msMax;
  let steps = Array.from({ length: count }, (_, i) => i);
  let runs = 0;
  let size = Math.ceil(count / 2);
  while (steps.length > 0) {
    let isSmaller = false;
    // From the end: later steps depend on earlier ones.
    const last = Math.floor((steps.length - 1) / size) * size;
    for (let from = last; from >= 0; from -= size) {
      if (++runs > runsMax || performance.now() > end) return steps;
      const fewer = steps.filter((_, i) => i < from || i >= from + size);
      if (!await fails(fewer)) continue;
      steps = fewer;
      isSmaller = true;
    }
    if (isSmaller) size = Math.max(1, Math.min(size, steps.length));
    else if (size === 1) break;
    else size = Math.ceil(size / 2);
  }
  return steps;
}
