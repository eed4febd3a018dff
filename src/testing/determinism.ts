/**
 * Properties of determinism: the state depends on the commands and their order
 * alone (R3, R12, C7, E1, E2).
 *
 * This module is browser compatible.
 *
 * @module
 */

import { RegularStateMachine, type Result } from "../statemachine/types.ts";
import { withSeededGlobals } from "./seeded_globals.ts";
import {
  compare,
  expectSame,
  type Property,
  runDifference,
  runOf,
} from "./property.ts";
import { entriesOf, type History } from "./history.ts";
import type { Fixture } from "./fixture.ts";
import { copyResult, equalResults } from "./result.ts";
import { Breach } from "./violation.ts";

/** Checks that the input of one instance does not show in another (R3, T4). */
async function isolation(fixture: Fixture, history: History): Promise<void> {
  const [busy, idle, spare] = [
    await fixture.fresh(),
    await fixture.fresh(),
    await fixture.fresh(),
  ];
  if (busy.subject.machine === idle.subject.machine) {
    throw new Breach("T4", "The factory returned the same machine twice");
  }
  const empty = await idle.observe(history);
  // A machine that changes when read, or differs by itself, breaks another
  // rule, whose own property reports it.
  const again = await idle.observe(history);
  const other = await spare.observe(history);
  if (
    fixture.difference(history, empty, again) ||
    fixture.difference(history, empty, other)
  ) return;
  await busy.apply(history, entriesOf(history, false));
  expectSame(
    fixture,
    history,
    "R3",
    "Commands given to one instance change another",
    empty,
    await idle.observe(history),
  );
  expectSame(
    fixture,
    history,
    "R3",
    "An instance made after commands were given to another is not empty",
    empty,
    await (await fixture.fresh()).observe(history),
  );
}

/** Checks that two replicas with different clocks and random numbers have equal results and states (R12). */
async function determinism(fixture: Fixture, history: History): Promise<void> {
  const one = await withSeededGlobals(
    history.salt,
    () => runOf(fixture, history, { gaps: false }),
  );
  const two = await withSeededGlobals(
    ~history.salt,
    () => runOf(fixture, history, { gaps: false, nodeID: fixture.otherNodeID }),
  );
  const difference = runDifference(fixture, history, one, two);
  if (difference === undefined) return;
  const rules = { answers: "R12", naAnswers: "E2", hash: "E1" };
  throw new Breach(
    rules[difference.seen],
    `Two replicas given the same commands, with other clocks and random numbers, differ: ${difference.text}`,
  );
}

/** Checks that a result stays unchanged after it was returned: the host stores it (T2). */
async function lasting(fixture: Fixture, history: History): Promise<void> {
  const probe = await fixture.fresh();
  const live: Result[] = [];
  const copies: Result[] = [];
  for (const entry of entriesOf(history, false)) {
    const [result] = await probe.update([entry]);
    if (result === undefined) continue;
    live.push(result);
    copies.push(copyResult(result));
  }
  live.forEach((result, i) => {
    const copy = copies[i];
    if (copy !== undefined && !equalResults(result, copy)) {
      throw new Breach(
        "T2",
        `The result of command ${i + 1} changed after it was returned`,
      );
    }
  });
}

/** Checks that gaps between indexes do not matter (C7). */
async function gaps(fixture: Fixture, history: History): Promise<void> {
  if (fixture.type === RegularStateMachine) return;
  const contiguous = await runOf(fixture, history, { gaps: false });
  const gapped = await runOf(fixture, history, { blame: "C7" });
  if (fixture.options.usesIndex) return;
  const difference = runDifference(fixture, history, contiguous, gapped);
  // A hash may cover the index, which an on-disk machine stores with its state.
  if (difference === undefined || difference.seen === "hash") return;
  throw new Breach(
    "C7",
    `A log with gaps in its indexes gives something else (option \`usesIndex\` allows it): ${difference.text}`,
  );
}

/** Checks that the division of the log into batches does not matter (C7). */
async function batches(fixture: Fixture, history: History): Promise<void> {
  if (fixture.type === RegularStateMachine) return;
  const control = { batching: "one by one" } as const;
  for (const batching of ["all at once", "as drawn"] as const) {
    await compare(
      fixture,
      history,
      "C7",
      "Commands given one by one and in batches give something else",
      { batching },
      control,
    );
  }
}

/** Properties of this module; each may rely on those before it. */
export const determinismProperties: readonly Property[] = [
  {
    name: "instances apart",
    run: (fixture, history) =>
      withSeededGlobals(history.salt, () => isolation(fixture, history)),
  },
  { name: "two replicas", run: determinism },
  { name: "lasting results", run: lasting },
  { name: "gaps", run: gaps },
  { name: "batches", run: batches },
];
