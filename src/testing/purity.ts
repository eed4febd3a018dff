/**
 * Properties of operations that must not change the state: reads, saves, and changes
 * of buffers that were passed to the machine (R4, R6, R11, C3, E1, E2); and merging,
 * which must not change their effect (E3).
 *
 * This module is browser compatible.
 *
 * @module
 */

import { isSameBytes } from "../bytes.ts";
import { RegularStateMachine, type Result } from "../statemachine/types.ts";
import { withSeededGlobals } from "./seeded_globals.ts";
import {
  compare,
  expectSame,
  type Property,
  runOf,
  type RunOptions,
} from "./property.ts";
import { entriesOf, type History, type LogEntry } from "./history.ts";
import type { Fixture } from "./fixture.ts";
import type { Probe } from "./probe.ts";
import { copyResult, equalResults } from "./result.ts";
import { show } from "./value.ts";
import { Breach } from "./violation.ts";

/** Operation that must not change the state. */
type Reader = (probe: Probe, history: History) => Promise<unknown>;

/** Creates a property: calls of `reader` between all updates make no difference. */
function unchanged(
  rule: string,
  method: string,
  reader: Reader,
): Property["run"] {
  return (fixture, history) =>
    compare(fixture, history, rule, `${method} changes the state`, {
      between: async (probe): Promise<void> => {
        // Failing reads break a rule of their own, not this one.
        const { blame } = probe;
        probe.blame = undefined;
        await reader(probe, history);
        probe.blame = blame;
      },
    });
}

const lookups: Reader = (probe, history) => probe.lookups(history);

/** Checks that lookups during an update change nothing (C3). */
async function overlapping(fixture: Fixture, history: History): Promise<void> {
  if (fixture.type === RegularStateMachine) return;
  await compare(
    fixture,
    history,
    "C3",
    "lookup() beside update() changes the state",
    {
      during: async (probe): Promise<void> => {
        await probe.lookups(history);
      },
    },
  );
}

/** Options of a run with queries between all updates, so that retained queries and answers make a difference. */
function queryingBetween(
  history: History,
  setUp: (probe: Probe) => void = () => {},
): RunOptions {
  return {
    setUp,
    between: async (probe): Promise<void> => {
      await probe.lookups(history);
      await probe.naLookups(history);
    },
  };
}

/** Checks that the machine retains no argument: they are overwritten once it has returned (R11). */
function references(fixture: Fixture, history: History): Promise<void> {
  return compare(
    fixture,
    history,
    "R11",
    "Overwriting commands, entries and queries after the machine has returned changes it",
    queryingBetween(history, (probe) => probe.overwritesArguments = true),
    queryingBetween(history),
  );
}

/** Checks that answers of `lookup()` and results of `update()` may be overwritten by the caller (R13). */
function answers(fixture: Fixture, history: History): Promise<void> {
  return compare(
    fixture,
    history,
    "R13",
    "Overwriting an answer or the data of a result, which are the caller's, changes the machine",
    queryingBetween(history, (probe) => probe.overwritesAnswers = true),
    queryingBetween(history),
  );
}

/** Checks that an answer stays unchanged after it was returned (R13). */
async function lastingAnswers(
  fixture: Fixture,
  history: History,
): Promise<void> {
  const probe = await fixture.fresh();
  probe.retainsAnswers = true;
  await probe.apply(history, entriesOf(history), {
    between: async (): Promise<void> => {
      probe.expectUnchanged();
      await probe.lookups(history);
      await probe.naLookups(history);
    },
  });
}

/** Requests the refusal of a result twice; it must not change the result (R15). */
function refusalOf(probe: Probe, result: Result): string | undefined {
  const { refusal } = probe.subject;
  const ask = (): string | undefined => {
    const given = copyResult(result);
    let reason: unknown;
    try {
      reason = refusal!(given);
    } catch (cause) {
      throw new Breach("R15", `refusal() threw ${show(cause)}`, { cause });
    }
    if (!equalResults(given, result)) {
      throw new Breach("R15", "refusal() changes the result it is given");
    }
    if (reason === undefined || typeof reason === "string") return reason;
    throw new Breach(
      "R15",
      `refusal() returned ${show(reason)}, neither a string nor undefined`,
    );
  };
  const reason = ask();
  const again = ask();
  if (reason !== again) {
    throw new Breach(
      "R15",
      `refusal() gives ${show(reason)} and ${show(again)} for one result`,
    );
  }
  return reason;
}

/** Checks that the refusal of a result is a pure function of the result (R15). */
async function refusals(fixture: Fixture, history: History): Promise<void> {
  const probe = await fixture.fresh();
  if (probe.subject.refusal === undefined) return;
  const results = (await runOf(fixture, history)).results;
  // After a reload another instance, without state, is asked.
  const other = await fixture.fresh(fixture.otherNodeID);
  await probe.apply(history, entriesOf(history, true));
  const before = await probe.observe(history);
  for (const result of results) {
    const ask = (of: Probe): Promise<string | undefined> =>
      Promise.resolve().then(() => refusalOf(of, result));
    const one = await withSeededGlobals(history.salt, () => ask(probe));
    const two = await withSeededGlobals(~history.salt, () => ask(other));
    if (one === two) continue;
    throw new Breach(
      "R15",
      `refusal() depends on more than the result: it gives ${show(one)} and ${
        show(two)
      } on two replicas`,
    );
  }
  expectSame(
    fixture,
    history,
    "R15",
    "refusal() changes the state",
    before,
    await probe.observe(history),
  );
}

/** Merges two commands twice; it must not change them (E3). */
function mergeOf(
  { subject: { merge } }: Probe,
  commands: readonly [Uint8Array, Uint8Array],
): Uint8Array | undefined {
  const ask = (): Uint8Array | undefined => {
    const [first, second] = [commands[0].slice(), commands[1].slice()];
    let merged: unknown;
    try {
      merged = merge!(first, second);
    } catch (cause) {
      throw new Breach("E3", `merge() threw ${show(cause)}`, { cause });
    }
    if (merged !== undefined && !(merged instanceof Uint8Array)) {
      throw new Breach(
        "E3",
        `merge() returned ${show(merged)}, neither a Uint8Array nor undefined`,
      );
    }
    if (!isSameBytes(first, commands[0]) || !isSameBytes(second, commands[1])) {
      throw new Breach("E3", "merge() changes the commands it is given");
    }
    return merged?.slice();
  };
  const merged = ask();
  const again = ask();
  const isSame = merged === undefined || again === undefined
    ? merged === again
    : isSameBytes(merged, again);
  if (isSame) return merged;
  throw new Breach(
    "E3",
    `merge() gives ${show(merged)} and ${show(again)} for the same commands`,
  );
}

/** Checks that a merged command has the effect of its two (E3). */
async function merges(fixture: Fixture, history: History): Promise<void> {
  const apart = await fixture.fresh();
  if (apart.subject.merge === undefined || fixture.options.usesIndex) return;
  const entries = entriesOf(history);
  const merged: LogEntry[] = [];
  for (const entry of entries) {
    const before = merged.at(-1);
    const cmd = before && mergeOf(apart, [before.cmd, entry.cmd]);
    if (cmd === undefined) merged.push(entry);
    else merged[merged.length - 1] = { index: entry.index, cmd };
  }
  if (merged.length === entries.length) return;
  await apart.apply(history, entries);
  const together = await fixture.fresh();
  await together.apply(history, merged);
  expectSame(
    fixture,
    history,
    "E3",
    "Commands that merge() returned do something else than those in whose place they are",
    await apart.observe(history),
    await together.observe(history),
  );
}

/** Properties of this module. */
export const purityProperties: readonly Property[] = [
  { name: "lookup()", run: unchanged("R4", "lookup()", lookups) },
  {
    name: "getHash()",
    run: unchanged("E1", "getHash()", (probe) => probe.hash()),
  },
  {
    name: "naLookup()",
    run: unchanged(
      "E2",
      "naLookup()",
      (probe, history) => probe.naLookups(history),
    ),
  },
  { name: "lookup() beside update()", run: overlapping },
  {
    name: "saveSnapshot()",
    run: unchanged("R6", "saveSnapshot()", (probe) => probe.save()),
  },
  { name: "references", run: references },
  { name: "answers", run: answers },
  { name: "lasting answers", run: lastingAnswers },
  { name: "refusals", run: refusals },
  { name: "merges", run: merges },
];
