/**
 * Timing and report lines shared by the benchmarks.
 *
 * @module
 */

/** Best of several runs, each prepared untimed, in milliseconds: what the code costs when nothing else runs. */
export async function best(
  runs: number,
  run: () => unknown,
  prepare: () => unknown = (): void => {},
): Promise<number> {
  let least = Infinity;
  for (let i = 0; i < runs; i++) {
    await prepare();
    const from = performance.now();
    await run();
    least = Math.min(least, performance.now() - from);
  }
  return least;
}

/** The value below which the share `p` of the samples lies. */
export function percentile(samples: readonly number[], p: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))]!;
}

/**
 * Prints a line of the report: the measurement, the figure, and its reference
 * value.
 */
export function report(
  what: string,
  figure: number,
  unit: string,
  aim: {
    readonly atMost?: number;
    readonly atLeast?: number;
    readonly of: string;
  },
): void {
  const { atMost, atLeast, of } = aim;
  const bound = atMost ?? atLeast;
  const met = bound === undefined
    ? ""
    : (atMost !== undefined ? figure <= atMost : figure >= atLeast!)
    ? "met"
    : "short";
  const digits = Math.abs(figure) < 10 ? 2 : 0;
  const shown = figure.toLocaleString("en", { maximumFractionDigits: digits });
  const beside = bound === undefined
    ? of
    : `${atMost !== undefined ? "≤" : "≥"} ${
      bound.toLocaleString("en")
    } (${of})`;
  // deno-lint-ignore no-console
  console.log(
    `${what.padEnd(58)} ${shown.padStart(11)} ${unit.padEnd(9)} ${
      beside.padEnd(34)
    } ${met}`,
  );
}
