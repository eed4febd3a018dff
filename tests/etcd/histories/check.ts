/**
 * Checks of a history: linearizability of each key, and that no acknowledged command
 * is lost, none is applied twice, and none that was rejected is applied.
 *
 * This module needs Deno.
 *
 * @module
 */

import {
  checkLinearizability,
  ErrCheckUndecided,
  type RecordedCall,
  type SequentialModel,
} from "../../../src/testing/linearizability.ts";
import { apply } from "./ledger.ts";
import type { HistoryLine, Input, Output, State } from "./record.ts";

/** Most steps of the model for one key. */
const STEPS_MAX = 3_000_000;

/** Sequential specification of one key. */
const model: SequentialModel<string | null, Input, Output> = {
  init: () => null,
  step: apply,
  isSame: (one, other) =>
    one.value === other.value && one.swapped === other.swapped,
  isReadOnly: ({ op }) => op === "get",
};

/** Reads the file of a history. */
export async function readHistory(path: string): Promise<HistoryLine[]> {
  const text = await Deno.readTextFile(path);
  return text.split("\n").filter((line) => line !== "")
    .map((line) => JSON.parse(line) as HistoryLine);
}

function callOf(line: HistoryLine): RecordedCall<Input, Output> {
  const { client, key, input, call: start } = line;
  return line.ok === null ? { client, key, input, start } : {
    client,
    key,
    input,
    start,
    end: line.return!,
    output: line.output!,
  };
}

/** Finds what is wrong in a history; with the state at its end, also what was lost or applied twice. */
export function violationsIn(
  lines: readonly HistoryLine[],
  state?: State,
): string[] {
  const violations: string[] = [];
  const keys = Map.groupBy(
    lines.filter(({ ok }) => ok !== false),
    ({ key }) => key,
  );
  const end = lines.reduce(
    (last, line) => Math.max(last, line.call, line.return ?? 0),
    0,
  );
  for (const [key, ofKey] of keys) {
    const calls = ofKey.map(callOf);
    if (state !== undefined) {
      // What is found at the end is a read after everything else.
      const output = { value: state.values[key] ?? null };
      const input = { op: "get" } as const;
      const [start, last] = [end + 1, end + 2];
      calls.push({ client: "end", key, input, start, end: last, output });
    }
    try {
      const found = checkLinearizability(model, calls, { stepsMax: STEPS_MAX });
      if (found !== undefined) violations.push(found.text);
    } catch (error) {
      if (!(error instanceof ErrCheckUndecided)) throw error;
      violations.push(error.message);
    }
  }
  if (state !== undefined) violations.push(...lostOrDoubled(lines, state));
  return violations;
}

function lostOrDoubled(
  lines: readonly HistoryLine[],
  { ids }: State,
): string[] {
  const violations: string[] = [];
  const applied = new Set<string>();
  for (const id of ids) {
    if (applied.has(id)) violations.push(`${id} was applied twice`);
    applied.add(id);
  }
  const called = new Set<string>();
  for (const { input: { id }, ok } of lines) {
    if (id === undefined) continue;
    called.add(id);
    if (ok === true && !applied.has(id)) {
      violations.push(`${id} was acknowledged, and is lost`);
    }
    if (ok === false && applied.has(id)) {
      violations.push(`${id} was rejected, and is applied`);
    }
  }
  for (const id of applied) {
    if (!called.has(id)) violations.push(`${id} was never called`);
  }
  return violations;
}
