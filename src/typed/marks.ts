/**
 * Marks of rows that pending commands have touched.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { decodeCommand } from "./command.ts";
import { LibraryQuery, type QueriedMachine, seedKey } from "./core.ts";
import type { TouchedRow } from "./state.ts";
import type { TableOf } from "./table.ts";

/** Command as marks see it. */
export interface MarkingEdit {
  /** Number of the submission. */
  readonly id: number;
  /** State of the submission. */
  readonly state: "queued" | "applied" | "refused" | "unknown";
}

/** Mark of a row, or of a plain value of the state. */
export interface Mark<E = MarkingEdit> {
  /**
   * State of the newest command that touched it and that needs attention: `refused`
   * and `unknown` until it is dismissed, else `queued`.
   */
  readonly state: "queued" | "refused" | "unknown";
  /** Commands that touched it, oldest first. */
  readonly edits: readonly E[];
}

/** Marks by part of the state: of a table by the keys of its rows, of a value one or none. */
export type Marks<S, E = MarkingEdit> = {
  readonly [K in keyof S]: S[K] extends TableOf<infer _V>
    ? ReadonlyMap<string, Mark<E>>
    : Mark<E> | undefined;
};

/** Marks of a state whose types are erased. */
type AnyMarks<E> = Readonly<
  Record<string, ReadonlyMap<string, Mark<E>> | Mark<E> | undefined>
>;

/** Command in the outbox, with what marks need. */
export interface MarkedSubmission<E extends MarkingEdit> {
  readonly cmd: Uint8Array;
  readonly edit: E;
}

/** Dependencies of marks. */
export interface MarksParts<E extends MarkingEdit> {
  /** Names of the tables. */
  readonly tables: readonly string[];
  /** Lists the pending commands. */
  pending(): readonly MarkedSubmission<E>[];
}

/** Creates the query of the marks: which rows of the optimistic view pending commands have touched. */
export function marksQuery<E extends MarkingEdit>(
  { tables, pending }: MarksParts<E>,
): LibraryQuery<AnyMarks<E>> {
  /** Rows by submission: what a refused one touched while it was queued. */
  let known = new Map<number, readonly TouchedRow[]>();
  const touchedBy = (
    machine: QueriedMachine,
    cmd: Uint8Array,
    { id, state }: E,
  ): readonly TouchedRow[] => {
    const before = known.get(id);
    if (state !== "queued" && before !== undefined) return before;
    const seed = decodeCommand(cmd)?.seed;
    const rows = seed && machine.touched.get(seedKey(seed));
    // A command that changes nothing is marked at the rows that it asked for.
    return rows !== undefined && rows.length > 0
      ? rows
      : before ?? machine.touchedBy(cmd);
  };
  return new LibraryQuery((machine) => {
    const marks: Record<string, Map<string, Mark<E>> | Mark<E>> = {};
    for (const name of tables) marks[name] = new Map();
    const next = new Map<number, readonly TouchedRow[]>();
    for (const { cmd, edit } of pending()) {
      const rows = touchedBy(machine, cmd, edit);
      next.set(edit.id, rows);
      for (const { part, key } of rows) {
        const of = marks[part];
        if (!(of instanceof Map)) marks[part] = withEdit(of, edit);
        else if (key !== undefined) of.set(key, withEdit(of.get(key), edit));
      }
    }
    known = next;
    return marks;
  });
}

function withEdit<E extends MarkingEdit>(
  mark: Mark<E> | undefined,
  edit: E,
): Mark<E> {
  const { edits = [], state = "queued" } = mark ?? {};
  if (edits.at(-1)?.id === edit.id) return mark!;
  const isSettled = edit.state === "refused" || edit.state === "unknown";
  return {
    state: isSettled ? edit.state as Mark["state"] : state,
    edits: [...edits, edit],
  };
}
