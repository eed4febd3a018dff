/**
 * Histories: the commands of one case, their batches, syncs, crashes and
 * queries.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { fc } from "../deps/fast_check.ts";
import type { Samples } from "./options.ts";
import { showBytes } from "./value.ts";

/** Fault of an on-disk machine after a batch. */
export type Fault = "none" | "close" | "crash" | "crash midway";

/** Command with the events during and after it. */
export interface Step {
  readonly cmd: Uint8Array;
  /** Number of indexes left out before the command. */
  readonly gap: number;
  /** Rank of the step; the snapshot is taken after the highest, or before all steps if none is above 0. */
  readonly rank: number;
  /** True if a batch ends with this step. */
  readonly ends: boolean;
  /** True if an on-disk machine is synced after the batch. */
  readonly sync: boolean;
  /** Fault of an on-disk machine after the batch. */
  readonly fault: Fault;
}

/** History of one case. */
export interface History {
  readonly steps: readonly Step[];
  readonly queries: readonly unknown[];
  readonly naQueries: readonly Uint8Array[];
  /** Number of commands before the snapshot. */
  readonly cut: number;
  /** Seed of everything else that varies, such as sizes of pieces and clocks. */
  readonly salt: number;
}

/** Entry before it is passed to a machine. */
export interface LogEntry {
  readonly index: number;
  readonly cmd: Uint8Array;
}

/** Commands and queries that histories are drawn from. */
export interface HistorySource {
  readonly commands: Samples<Uint8Array>;
  readonly queries: Samples<unknown>;
  readonly naQueries?: Samples<Uint8Array> | undefined;
  readonly maxCommands: number;
}

function isList<T>(given: Samples<T>): given is readonly T[] {
  return Array.isArray(given);
}

/** Casts to the type that fast-check declares; {@linkcode Samples} requires only the part that identifies it. */
function arbitraryOf<T>(
  given: Exclude<Samples<T>, readonly T[]>,
): fc.Arbitrary<T> {
  return given as fc.Arbitrary<T>;
}

/** Draws all values of a list, or a few values of an arbitrary. */
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
    // Unbiased: the ends of the range have no special meaning.
    rank: fc.noBias(fc.nat({ max: 63 })),
    ends: fc.boolean(),
    sync: fc.constantFrom(false, false, true),
    fault: fc.constantFrom<Fault>(
      "none",
      "crash",
      "close",
      "crash midway",
    ),
  });
}

/** Creates an arbitrary of histories of up to `maxCommands` commands, which shrink to fewer and simpler ones. */
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
 * Position of the snapshot. It belongs to a step rather than to a position, so
 * that it stays in place when other steps are removed.
 */
function cutOf(steps: readonly Step[]): number {
  const highest = Math.max(0, ...steps.map(({ rank }) => rank));
  return highest === 0
    ? 0
    : steps.findIndex(({ rank }) => rank === highest) + 1;
}

/**
 * Queries of `naLookup()`: by default those of `lookup()` that are bytes, else
 * a command, because a refusal is an answer too.
 */
function byteQueriesOf(
  queries: readonly unknown[],
  steps: readonly Step[],
): Uint8Array[] {
  const bytes = queries.filter((query) => query instanceof Uint8Array);
  return bytes.length > 0 ? bytes : steps.slice(0, 1).map(({ cmd }) => cmd);
}

/** Removes one step from a history; the snapshot stays between the same other steps. */
export function without(history: History, at: number): History {
  return {
    ...history,
    steps: history.steps.toSpliced(at, 1),
    cut: at < history.cut ? history.cut - 1 : history.cut,
  };
}

/** Entries of a history: with its gaps, or contiguous from 1. */
export function entriesOf(history: History, gaps = true): LogEntry[] {
  let index = 0;
  return history.steps.map(({ cmd, gap }) => ({
    index: index += 1 + (gaps ? gap : 0),
    cmd,
  }));
}

/** Division of a log into batches. */
export type Batching = "as drawn" | "one by one" | "all at once";

/** Divides `entries`, which start at step `from` of the history, into batches. */
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

/** Describes a history, one step a line; syncs and faults only for on-disk machines. */
export function describeHistory(
  history: History,
  onDisk: boolean,
  showCommand: (cmd: Uint8Array) => string = showBytes,
): string {
  if (history.steps.length === 0) return "  no command at all";
  const entries = entriesOf(history);
  return history.steps.map((step, i) => {
    const details = [`index ${entries[i]?.index}`];
    if (step.ends) details.push("a batch ends");
    if (onDisk && step.sync) details.push("synced");
    if (onDisk && step.fault !== "none") details.push(step.fault);
    if (history.cut === i + 1) details.push("a snapshot");
    return `  ${i + 1}. ${showCommand(step.cmd)}  (${details.join(", ")})`;
  }).join("\n");
}
