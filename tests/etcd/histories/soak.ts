/**
 * Soak on etcd: histories under faults, one after the other.
 *
 * This module needs Deno.
 *
 * @module
 */

import { type HistoryResult, runHistory } from "./world.ts";

/** Length of one history, of its longest fault, and of its loss of the quorum, in milliseconds. */
const HISTORY_MS = 210_000;
const FAULT_MS_MAX = 8_000;
const QUORUM_MS = 60_000;

/** Clients of each server's host, and clients of the servers. */
const DIRECT = 2;
const REMOTE = 8;

/** Options of {@linkcode soakHistories}. */
export interface SoakHistoriesOptions {
  /** Seed of the first history, from which those of the others follow. */
  readonly seed: number;
  /** Time after which no other history begins, in milliseconds. */
  readonly ms: number;
  /** Called with each line of progress. */
  readonly say: (line: string) => void;
}

/** Sums of all histories. */
export interface HistoriesResult {
  readonly operations: number;
  readonly acknowledged: number;
  readonly unknown: number;
  readonly faults: Readonly<Record<string, number>>;
  readonly events: Readonly<Record<string, number>>;
  readonly violations: readonly string[];
}

type Counts = Readonly<Record<string, number>>;

function added(all: Counts, more: Counts): Counts {
  const sums = { ...all };
  for (const [type, count] of Object.entries(more)) {
    sums[type] = (sums[type] ?? 0) + count;
  }
  return sums;
}

/** Adds the result of a history. */
function sum(all: HistoriesResult, one: HistoryResult): HistoriesResult {
  return {
    operations: all.operations + one.operations,
    acknowledged: all.acknowledged + one.acknowledged,
    unknown: all.unknown + one.unknown,
    faults: added(all.faults, one.faults),
    events: added(all.events, one.events),
    violations: [...all.violations, ...one.violations],
  };
}

/** Runs histories until the time is over. */
export async function soakHistories(
  { seed, ms, say }: SoakHistoriesOptions,
): Promise<HistoriesResult> {
  const from = performance.now();
  let all: HistoriesResult = {
    operations: 0,
    acknowledged: 0,
    unknown: 0,
    faults: {},
    events: {},
    violations: [],
  };
  for (let i = 0; performance.now() - from < ms; i++) {
    const one = await runHistory({
      seed: (seed + i) >>> 0,
      ms: HISTORY_MS,
      faultMsMax: FAULT_MS_MAX,
      quorumMs: QUORUM_MS,
      direct: DIRECT,
      remote: REMOTE,
      say,
    });
    all = sum(all, one);
    for (const text of one.violations) say(`Violation: ${text}`);
    say(`History ${(seed + i) >>> 0}; ${historiesLine(all)}`);
  }
  return all;
}

/** Last line of a soak on etcd. */
export function historiesLine(
  result: HistoriesResult,
): string {
  const { operations, acknowledged, unknown, faults, events, violations } =
    result;
  const listed = (counts: Counts): string =>
    Object.entries(counts).map(([type, n]) => `${type} ${n}`).join(", ");
  const total = Object.values(faults).reduce((a, b) => a + b, 0);
  return `${operations} operations, ${acknowledged} acknowledged, ${unknown} of unknown outcome, ${total} faults (${
    listed(faults)
  }), ${listed(events)}, ${violations.length} violations`;
}
