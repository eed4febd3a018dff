/**
 * Values passed between a host and a state machine.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** Value, or a promise of one. A plain value is never awaited. */
export type MaybePromise<T> = T | Promise<T>;

/** Kind of a state machine (T1). */
export type Type =
  | typeof RegularStateMachine
  | typeof ConcurrentStateMachine
  | typeof OnDiskStateMachine;

/** Kind of an {@linkcode IStateMachine}. */
export const RegularStateMachine = 1 as const;

/** Kind of an {@linkcode IConcurrentStateMachine}. */
export const ConcurrentStateMachine = 2 as const;

/** Kind of an {@linkcode IOnDiskStateMachine}. */
export const OnDiskStateMachine = 3 as const;

/** Result of one command (T2). */
export interface Result {
  /** Number in 0…2^64-1 with a meaning that the machine defines; a value outside that range is fatal to the replica (T3). */
  value: bigint;
  /**
   * Additional bytes, such as the present value that failed a compare-and-swap. The
   * caller owns them and may overwrite them: never return bytes of the state, and
   * do not change them afterwards (R13).
   */
  data?: Uint8Array;
}

/** Committed command in a batch for `update()` of a concurrent or an on-disk machine (T2). */
export interface Entry {
  /** Log index; strictly increasing, possibly with gaps. Set by the host. */
  readonly index: number;
  /** Command bytes. They belong to the host: do not write into them or keep a reference to them (R11, R13). */
  readonly cmd: Uint8Array;
  /** Result of the command; `update()` sets it on every entry of the batch (C1). */
  result?: Result | undefined;
}

/** External file of a snapshot, as passed to `recoverFromSnapshot()` (F3). */
export interface SnapshotFile {
  /** Id that the file was added with, in 0…2^64-1. */
  readonly fileID: bigint;
  /**
   * Path of the file in the host's file store. The host removes it when
   * `recoverFromSnapshot()` has returned: copy the content you need.
   */
  readonly filepath: string;
  /** Metadata that the file was added with. */
  readonly metadata: Uint8Array;
}

/** Collection of the external files of the snapshot being saved. */
export interface ISnapshotFileCollection {
  /**
   * Adds a file that is complete and will not change. The host copies its content
   * before the snapshot is committed (F1). A repeated id, a path that does not
   * exist, a directory, or a path in the host's own directory "sampan-host" fails
   * the snapshot with an error that names the file (F2, F4).
   *
   * @param fileID id of the file in this snapshot, in 0…2^64-1
   * @param path path of the file in the host's file store
   * @param metadata bytes to return with the file on recovery
   */
  addFile(fileID: bigint, path: string, metadata: Uint8Array): void;
}
