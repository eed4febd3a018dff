/**
 * The values that cross the line between a host and a state machine.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** A value, or a promise of one. What is not a promise is never awaited. */
export type MaybePromise<T> = T | Promise<T>;

/** The kind of a state machine (T1). */
export type Type =
  | typeof RegularStateMachine
  | typeof ConcurrentStateMachine
  | typeof OnDiskStateMachine;

/** The kind of an {@linkcode IStateMachine}. */
export const RegularStateMachine = 1 as const;

/** The kind of an {@linkcode IConcurrentStateMachine}. */
export const ConcurrentStateMachine = 2 as const;

/** The kind of an {@linkcode IOnDiskStateMachine}. */
export const OnDiskStateMachine = 3 as const;

/** The outcome of one command (T2). */
export interface Result {
  /** A number in 0…2^64-1 whose meaning is the machine's; outside of it the replica fails (T3). */
  value: bigint;
  /**
   * Bytes that go with it, say the present value a compare-and-swap has met. They
   * are given to the host and its caller, who may overwrite them: never a part of
   * the machine's state, and not changed by the machine afterwards (R13).
   */
  data?: Uint8Array;
}

/** One committed command on its way through `update()` of a concurrent or an on-disk machine (T2). */
export interface Entry {
  /** Place in the log; strictly increasing, possibly with gaps. Set by the host. */
  readonly index: number;
  /** The command. It belongs to the host: read it, never write into it, and keep no reference to it (R11, R13). */
  readonly cmd: Uint8Array;
  /** The outcome; `update()` sets it on every entry it was given (C1). */
  result?: Result | undefined;
}

/** An external file that came with a snapshot, as `recoverFromSnapshot()` gets it (F3). */
export interface SnapshotFile {
  /** The id the file was added under, in 0…2^64-1. */
  readonly fileID: bigint;
  /**
   * Where the file is now, in the host's file store. It is the host's and goes
   * when `recoverFromSnapshot()` has returned: copy what is to stay.
   */
  readonly filepath: string;
  /** What was recorded with it. */
  readonly metadata: Uint8Array;
}

/** Collects the external files that belong to the snapshot being saved. */
export interface ISnapshotFileCollection {
  /**
   * Adds a file that is finished and will not change. The host takes its content
   * before the snapshot counts as made (F1). The same id twice, a path that does
   * not exist, a directory, or a path in the host's own directory "sampan-host"
   * fails the snapshot with an error that names the file (F2, F4).
   *
   * @param fileID identifies the file in this snapshot, in 0…2^64-1
   * @param path where the file is, in the host's file store
   * @param metadata anything to be handed back with the file
   */
  addFile(fileID: bigint, path: string, metadata: Uint8Array): void;
}
