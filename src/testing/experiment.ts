/**
 * A controlled experiment: the same commands are given to two instances that are
 * treated differently in one respect, and the rule that says that this must not
 * matter is broken if anything that can be seen differs.
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

/** One experiment, tried with many histories. */
export interface Trial {
  /** What it is about, in a few words. */
  readonly name: string;
  /** Throws a {@linkcode Breach} if a rule is seen to be broken. */
  run(lab: Lab, history: History): Promise<void>;
}

/** How an instance is treated while it is given a history. */
export interface Treatment {
  /** The rule that is broken if the treatment matters. */
  readonly blame?: string;
  /** Whether indexes have gaps; by default they do. */
  readonly gaps?: boolean;
  readonly batching?: Batching;
  readonly nodeID?: bigint;
  /** Sets the probe up. */
  readonly setUp?: (probe: Probe) => void;
  /** Runs before each batch and after the last. */
  readonly between?: (probe: Probe) => Promise<void>;
  /** Runs beside each update. */
  readonly meanwhile?: (probe: Probe) => Promise<void>;
}

/** What was seen of an instance that was given a history. */
export interface Run {
  readonly probe: Probe;
  readonly results: readonly Result[];
  readonly end: Observation;
}

/** Gives a history to a new instance. */
export async function runOf(
  lab: Lab,
  history: History,
  treatment: Treatment = {},
): Promise<Run> {
  const { between, meanwhile } = treatment;
  const probe = await lab.fresh(treatment.nodeID);
  probe.blame = treatment.blame;
  treatment.setUp?.(probe);
  const results = await probe.apply(
    history,
    entriesOf(history, treatment.gaps),
    {
      batching: treatment.batching ?? "as drawn",
      ...(between && { between: (): Promise<void> => between(probe) }),
      ...(meanwhile && { meanwhile: (): Promise<void> => meanwhile(probe) }),
    },
  );
  return {
    probe,
    results: results.map(copyResult),
    end: await probe.observe(history),
  };
}

/** How two runs differ, in words; undefined if they do not. */
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

/** Gives a history to two instances; `rule` is broken if the treatment of the second matters. */
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

/** Throws a breach of `rule` if results differ; they are those of the commands after the first `from`. */
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
