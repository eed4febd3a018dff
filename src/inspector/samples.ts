/**
 * Samples of throughput and latency over time, for a chart.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { INSPECTOR_LATENCIES_MAX, INSPECTOR_SAMPLES_MAX } from "../limits.ts";

/** Sample of one interval. */
export interface Sample {
  /** End of the interval, in milliseconds since 1970. */
  readonly at: number;
  /** Entries a second. */
  readonly rate: number;
  /** Median latency, in milliseconds; null without any. */
  readonly median: number | null;
  /** Latency below which 95 % are, in milliseconds; null without any. */
  readonly high: number | null;
}

/** Value below which a share of sorted values is. */
function quantile(sorted: readonly number[], share: number): number | null {
  if (sorted.length === 0) return null;
  return sorted[
    Math.min(sorted.length - 1, Math.floor(share * sorted.length))
  ]!;
}

/** Newest samples, and the latencies of the interval that has not ended. */
export class Samples {
  #samples: Sample[] = [];
  #latencies: number[] = [];
  #last: { readonly at: number; readonly index: number } | undefined;

  /** Samples in order, the newest last. */
  get list(): readonly Sample[] {
    return this.#samples;
  }

  /** Adds the latency of one command, in milliseconds. */
  took(ms: number): void {
    if (this.#latencies.length < INSPECTOR_LATENCIES_MAX) {
      this.#latencies.push(ms);
    }
  }

  /** Ends an interval: `index` is that of the last applied entry, `at` is in milliseconds since 1970. */
  tick(index: number, at: number): void {
    const last = this.#last;
    this.#last = { index, at };
    const latencies = this.#latencies.sort((a, b) => a - b);
    this.#latencies = [];
    if (last === undefined || at <= last.at) return;
    this.#samples.push({
      at,
      // A state that was replaced may be an older one.
      rate: Math.max(0, index - last.index) * 1000 / (at - last.at),
      median: quantile(latencies, 0.5),
      high: quantile(latencies, 0.95),
    });
    if (this.#samples.length > INSPECTOR_SAMPLES_MAX) this.#samples.shift();
  }
}
