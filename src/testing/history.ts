/**
 * What a machine is put through in one case: commands, where their batches end,
 * where it is synced and crashes, and what it is asked.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { fc } from "../deps/fast_check.ts";
import type { Samples } from "./options.ts";
import { showBytes } from "./value.ts";

/** What becomes of an on-disk machine after a step. */
export type Fate = "goes on" | "closes" | "crashes" | "crashes midway";

/** One command and what comes with and after it. */
export interface Step {
  readonly cmd: Uint8Array;
  /** Indexes left out before this one. */
  readonly gap: number;
  /** The snapshot is taken after the step of the highest rank; before all if none is over 0. */
  readonly rank: number;
  /** Whether a batch ends here. */
  readonly ends: boolean;
  /** Whether an on-disk machine is synced when this batch was applied. */
  readonly sync: boolean;
  /** What becomes of an on-disk machine when this batch was applied. */
  readonly fate: Fate;
}

/** One case. */
export interface History {
  readonly steps: readonly Step[];
  readonly queries: readonly unknown[];
  readonly naQueries: readonly Uint8Array[];
  /** How many commands come before the snapshot. */
  readonly cut: number;
  /** Where everything else that varies comes from: sizes of pieces, clocks. */
  readonly salt: number;
}

/** An entry before it is given to a machine. */
export interface LogEntry {
  readonly index: number;
  readonly cmd: Uint8Array;
}

/** The commands and queries a history is drawn from. */
export interface HistorySource {
  readonly commands: Samples<Uint8Array>;
  readonly queries: Samples<unknown>;
  readonly naQueries?: Samples<Uint8Array> | undefined;
  readonly maxCommands: number;
}

function isList<T>(given: Samples<T>): given is readonly T[] {
  return Array.isArray(given);
}

/** An arbitrary as fast-check declares it; {@linkcode Samples} asks only for what tells it from a list. */
function arbitraryOf<T>(
  given: Exclude<Samples<T>, readonly T[]>,
): fc.Arbitrary<T> {
  return given as fc.Arbitrary<T>;
}

/** All of a list in each case, or a few values of an arbitrary. */
function severalOf<T>(given: Samples<T>): fc.Arbitrary<readonly T[]> {
  return isList(given)
    ? fc.constant(given)
    : fc.array(arbitraryOf(given), { minLength: 1, maxLength: 8, size: "max" });
}

function stepOf(commands: Samples<Uint8Array>): fc.Arbitrary<Step> {
  return fc.record({
    cmd: isList(commands)
      ? fc.constantFrom(...commands)
      : arbitraryOf(commands),
    gap: fc.nat({ max: 3 }),
    // Without a bias to its ends: nothing special happens there.
    rank: fc.noBias(fc.nat({ max: 63 })),
    ends: fc.boolean(),
    sync: fc.constantFrom(false, false, true),
    fate: fc.constantFrom<Fate>(
      "goes on",
      "crashes",
      "closes",
      "crashes midway",
    ),
  });
}

/** Histories of up to `maxCommands` commands; they shrink to fewer and simpler ones. */
export function historyOf(from: HistorySource): fc.Arbitrary<History> {
  const { commands, queries, maxCommands } = from;
  return fc.record({
    steps: fc.array(stepOf(commands), {
      maxLength: maxCommands,
      size: "max",
    }),
    queries: severalOf(queries),
    naQueries: from.naQueries !== undefined
      ? severalOf(from.naQueries)
      : fc.constant(undefined),
    salt: fc.noBias(fc.nat()),
  }).map(({ naQueries, ...drawn }): History => ({
    ...drawn,
    cut: cutOf(drawn.steps),
    naQueries: naQueries ?? byteQueriesOf(drawn.queries, drawn.steps),
  }));
}

/**
 * Where the snapshot is taken. It goes with a step rather than with a position,
 * so that it stays where it is when other steps are taken out.
 */
function cutOf(steps: readonly Step[]): number {
  const highest = Math.max(0, ...steps.map(({ rank }) => rank));
  return highest === 0
    ? 0
    : steps.findIndex(({ rank }) => rank === highest) + 1;
}

/** Without queries of its own, `naLookup()` gets those of `lookup()` that are bytes, else a command: a refusal is an answer too. */
function byteQueriesOf(
  queries: readonly unknown[],
  steps: readonly Step[],
): Uint8Array[] {
  const bytes = queries.filter((query) => query instanceof Uint8Array);
  return bytes.length > 0 ? bytes : steps.slice(0, 1).map(({ cmd }) => cmd);
}

/** A history without one of its steps; the snapshot stays between the same others. */
export function without(history: History, at: number): History {
  return {
    ...history,
    steps: history.steps.toSpliced(at, 1),
    cut: at < history.cut ? history.cut - 1 : history.cut,
  };
}

/** The entries of a history: with the indexes it leaves out, or contiguous from 1. */
export function entriesOf(history: History, gaps = true): LogEntry[] {
  let index = 0;
  return history.steps.map(({ cmd, gap }) => ({
    index: index += 1 + (gaps ? gap : 0),
    cmd,
  }));
}

/** How a log is cut into batches. */
export type Batching = "as drawn" | "one by one" | "all at once";

/** `entries`, which begin at step `from` of the history, as batches. */
export function batchesOf(
  history: History,
  entries: readonly LogEntry[],
  batching: Batching,
  from = 0,
): LogEntry[][] {
  if (entries.length === 0) return [];
  if (batching === "all at once") return [[...entries]];
  const batches: LogEntry[][] = [[]];
  entries.forEach((entry, i) => {
    (batches.at(-1) as LogEntry[]).push(entry);
    const ends = batching === "one by one" || history.steps[from + i]?.ends;
    if (ends && i + 1 < entries.length) batches.push([]);
  });
  return batches;
}

/** The history in lines to read; a crash and its kin mean something to on-disk machines only. */
export function storyOf(history: History, onDisk: boolean): string {
  if (history.steps.length === 0) return "  no command at all";
  const entries = entriesOf(history);
  return history.steps.map((step, i) => {
    const marks = [`index ${entries[i]?.index}`];
    if (step.ends) marks.push("a batch ends");
    if (onDisk && step.sync) marks.push("synced");
    if (onDisk && step.fate !== "goes on") marks.push(step.fate);
    if (history.cut === i + 1) marks.push("a snapshot");
    return `  ${i + 1}. ${showBytes(step.cmd)}  (${marks.join(", ")})`;
  }).join("\n");
}
