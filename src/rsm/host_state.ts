/**
 * The optional interface by which an on-disk machine keeps the host's rows.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Entry, MaybePromise } from "../statemachine/types.ts";

/** One row of the host, kept by a machine beside its own state. */
export interface HostRow {
  /** Names the row; short, ASCII, unique. */
  readonly key: string;
  /** Its content, or undefined to delete the row. Not to be kept by reference. */
  readonly value: Uint8Array | undefined;
}

/** What the host wants stored in one step with the machine's own state. */
export interface HostState {
  /** The index of the last entry of the log this state contains; at or above the index of every entry given. */
  readonly index: number;
  /** The rows that changed; after a recovery, all of them. */
  readonly rows: readonly HostRow[];
}

/**
 * Optional, for on-disk machines (H6): a machine that stores the host's rows
 * (the session table with its results) in the same atomic step as its own state
 * and index makes exactly-once, results included, survive any crash. Without it
 * the host rebuilds from the log who has been applied, but not with what result.
 *
 * A machine that implements it is called through these methods instead of
 * `update()` and `recoverFromSnapshot()`; the rules for those hold for these.
 */
export interface IHostState {
  /** The rows as last stored, in any order; called once, after `open()`. */
  readHostRows(): MaybePromise<readonly HostRow[]>;
  /**
   * As `update()`, in one atomic step with the host's rows. Once every entry
   * given has its result, and before the step is committed, call `host()`, once
   * and synchronously, and store what it returns: the rows hold those results.
   * `entries` may be empty: then only the host's rows and index move on.
   */
  updateWithHost(
    entries: Entry[],
    host: () => HostState,
  ): MaybePromise<Entry[]>;
  /**
   * As `recoverFromSnapshot()`, and replaces all rows by those of `host` in the
   * same atomic step. `open()` gives `host.index` from then on, which a payload
   * written by a regular machine does not contain.
   */
  recoverWithHost(
    r: ReadableStream<Uint8Array>,
    host: HostState,
    stopped: AbortSignal,
  ): MaybePromise<void>;
}

/** Whether a machine keeps the host's rows. */
export function isHostState<T extends object>(
  machine: T,
): machine is T & IHostState {
  const { readHostRows, updateWithHost, recoverWithHost } = machine as Partial<
    IHostState
  >;
  return typeof readHostRows === "function" &&
    typeof updateWithHost === "function" &&
    typeof recoverWithHost === "function";
}
