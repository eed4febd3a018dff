/**
 * Optional interface of an on-disk machine that stores the host's rows beside its
 * own state.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Entry, MaybePromise } from "../statemachine/types.ts";

/** Row of the host, stored by a machine beside its own state. */
export interface HostRow {
  /** Key of the row: short, ASCII, unique. */
  readonly key: string;
  /** Content of the row, undefined to delete it. Copy it: the host reuses the bytes. */
  readonly value: Uint8Array | undefined;
}

/** Host rows and applied index to store in one atomic step with the machine's own state. */
export interface HostState {
  /** Applied index of the state; at or above the index of every entry in the batch. */
  readonly index: number;
  /** Changed rows; after a recovery, all rows. */
  readonly rows: readonly HostRow[];
}

/**
 * Optional, for on-disk machines: storing the host's rows (the session table with
 * its results) in the same atomic step as state and index, so that exactly-once
 * semantics, results included, survive any crash (H6). Without it the host
 * rebuilds from the log which commands were applied, but not their results.
 *
 * A machine that implements it is called through these methods instead of
 * `update()` and `recoverFromSnapshot()`, whose rules apply to them.
 */
export interface IHostState {
  /** Returns the rows as last stored, in any order. Called once, after `open()`. */
  readHostRows(): MaybePromise<readonly HostRow[]>;
  /**
   * Applies a batch like `update()`, in one atomic step with the host's rows. Once
   * every entry has its result, and before the step is committed, call `host()`,
   * once and synchronously, and store the rows it returns: they contain the
   * results. `entries` may be empty; then only rows and index advance.
   */
  updateWithHost(
    entries: Entry[],
    host: () => HostState,
  ): MaybePromise<Entry[]>;
  /**
   * Recovers like `recoverFromSnapshot()`, and replaces all rows by those of
   * `host` in the same atomic step. From then on `open()` returns `host.index`,
   * which a payload written by a regular machine does not contain.
   */
  recoverWithHost(
    r: ReadableStream<Uint8Array>,
    host: HostState,
    stopped: AbortSignal,
  ): MaybePromise<void>;
}

/** True if a machine stores the host's rows. */
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
