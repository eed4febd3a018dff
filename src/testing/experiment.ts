/**
 * Controlled experiment: two instances get the same commands under treatments
 * that differ in one respect; if their observations differ, a rule is broken.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Result } from "../statemachine/types.ts";
import { type Batching, entriesOf, type History } from "./history.ts";
import { type Difference, type Lab, resultsDifference } from "./lab.ts";
import type { Observation, Probe } from "./probe.ts";
import { copyResult } from "./result.ts";
import { Breach } from "./violation.ts";

/** Experiment, run with many histories. */
export interface Trial {
  /** Subject of the experiment, in a few words. */
  readonly name: string;
  /** Throws a {@linkcode Breach} if a rule is broken. */
  run(lab: Lab, history: History): Promise<void>;
}

/** Treatment of an instance during a history. */
export interface Treatment {
  /** Rule that is broken if the treatment matters. */
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

/** Observations of an instance after a history. */
export interface Run {
  readonly probe: Probe;
  readonly results: readonly Result[];
  readonly end: Observation;
}

/** Runs a history on a new instance. */
export async function runOf(
  lab: Lab,
  history: History,
  treatment: Treatment = {},
): Promise<Run> {
  const { between, during } = treatment;
  const probe = await lab.fresh(treatment.nodeID);
  probe.blame = treatment.blame;
  treatment.setUp?.(probe);
  const results = await probe.apply(
    history,
    entriesOf(history, treatment.gaps),
    {
      batching: treatment.batching ?? "as drawn",
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
  lab: Lab,
  history: History,
  a: Run,
  b: Run,
): Difference | undefined {
  const text = resultsDifference(a.results, b.results);
  return text === undefined
    ? lab.difference(history, a.end, b.end)
    : { seen: "answers", text };
}

/** Runs a history on two instances; throws a breach of `rule` if the treatment of the second matters. */
export async function compare(
  lab: Lab,
  history: History,
  rule: string,
  what: string,
  treatment: Treatment,
  control: Treatment = {},
): Promise<void> {
  const plain = await runOf(lab, history, control);
  const treated = await runOf(lab, history, { blame: rule, ...treatment });
  const difference = runDifference(lab, history, plain, treated);
  if (difference !== undefined) {
    throw new Breach(rule, `${what}: ${difference.text}`);
  }
}

/** Throws a breach of `rule` if two observations differ. */
export function expectSame(
  lab: Lab,
  history: History,
  rule: string,
  what: string,
  expected: Observation,
  actual: Observation,
): void {
  const difference = lab.difference(history, expected, actual);
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
