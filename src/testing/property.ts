/**
 * Properties that the suite checks with many random histories, most by comparison:
 * two machines get the same commands in runs that differ in one option; if they can
 * be told apart afterwards, a rule is broken.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Result } from "../statemachine/types.ts";
import { type Batching, entriesOf, type History } from "./history.ts";
import { type Difference, type Fixture, resultsDifference } from "./fixture.ts";
import type { Observation, Probe } from "./probe.ts";
import { copyResult } from "./result.ts";
import { Breach } from "./violation.ts";

/** Property of a machine, checked with many histories. */
export interface Property {
  /** Subject of the property, in a few words. */
  readonly name: string;
  /** Throws a {@linkcode Breach} if a rule is broken. */
  run(fixture: Fixture, history: History): Promise<void>;
}

/** Options of a run. */
export interface RunOptions {
  /** Rule that is broken if these options make a difference. */
  readonly blame?: string;
  /** True for indexes with gaps. @default {true} */
  readonly gaps?: boolean;
  readonly batching?: Batching;
  readonly nodeID?: bigint;
  /** Called with the probe before the history. */
  readonly setUp?: (probe: Probe) => void;
  /** Called before each batch and after the last. */
  readonly between?: (probe: Probe) => Promise<void>;
  /** Called during each update. */
  readonly during?: (probe: Probe) => Promise<void>;
}

/** Machine after a run, with results and observations. */
export interface Run {
  readonly probe: Probe;
  readonly results: readonly Result[];
  readonly end: Observation;
}

/** Runs a history on a new instance. */
export async function runOf(
  fixture: Fixture,
  history: History,
  options: RunOptions = {},
): Promise<Run> {
  const { between, during } = options;
  const probe = await fixture.fresh(options.nodeID);
  probe.blame = options.blame;
  options.setUp?.(probe);
  const results = await probe.apply(
    history,
    entriesOf(history, options.gaps),
    {
      batching: options.batching ?? "as drawn",
      ...(between && { between: (): Promise<void> => between(probe) }),
      ...(during && { during: (): Promise<void> => during(probe) }),
    },
  );
  return {
    probe,
    results: results.map(copyResult),
    end: await probe.observe(history),
  };
}

/** Describes the difference of two runs; undefined if they are equal. */
export function runDifference(
  fixture: Fixture,
  history: History,
  a: Run,
  b: Run,
): Difference | undefined {
  const text = resultsDifference(a.results, b.results);
  return text === undefined
    ? fixture.difference(history, a.end, b.end)
    : { seen: "answers", text };
}

/** Runs a history on two machines, with `options` and with `control`; throws a breach of `rule` if they differ. */
export async function compare(
  fixture: Fixture,
  history: History,
  rule: string,
  what: string,
  options: RunOptions,
  control: RunOptions = {},
): Promise<void> {
  const plain = await runOf(fixture, history, control);
  const changed = await runOf(fixture, history, { blame: rule, ...options });
  const difference = runDifference(fixture, history, plain, changed);
  if (difference !== undefined) {
    throw new Breach(rule, `${what}: ${difference.text}`);
  }
}

/** Throws a breach of `rule` if two observations differ. */
export function expectSame(
  fixture: Fixture,
  history: History,
  rule: string,
  what: string,
  expected: Observation,
  actual: Observation,
): void {
  const difference = fixture.difference(history, expected, actual);
  if (difference !== undefined) {
    throw new Breach(rule, `${what}: ${difference.text}`);
  }
}

/** Throws a breach of `rule` if results differ, those of the commands after the first `from`. */
export function expectSameResults(
  rule: string,
  what: string,
  expected: readonly Result[],
  actual: readonly Result[],
  from = 0,
): void {
  const text = resultsDifference(expected, actual, from);
  if (text !== undefined) throw new Breach(rule, `${what}: ${text}`);
}
