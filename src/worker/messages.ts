/**
 * Calls of a machine in a worker, and what they answer.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type {
  Entry,
  Result,
  SnapshotFile,
  Type,
} from "../statemachine/types.ts";
import type { PackedCommands, PackedResults } from "./packing.ts";
import type { SentError } from "./sent_error.ts";

/** Optional methods of a machine that are called in the worker. */
export const ASKED = [
  "getHash",
  "getRecoveredHash",
  "naLookup",
  "fork",
  "removeData",
] as const;

/** Optional methods of a machine that are pure functions, and are called where the host is. */
export const PURE = ["refusal", "admit", "merge", "group"] as const;

/** Description of the machines that a worker makes. */
export interface Description {
  readonly type: Type;
  /** Optional methods that a machine has. */
  readonly methods: readonly string[];
  readonly stateVersion: number;
  /** Changes of behaviour; undefined for a machine without any. */
  readonly changes: readonly string[] | undefined;
  /** Commands from which on the changes count, for a new machine. */
  readonly activations: Activations | undefined;
}

/** Command of each change of behaviour that does not count yet, in the order of the changes. */
export type Activations = readonly (Uint8Array | undefined)[];

/** Signal of a call, which may be aborted. */
export interface Stoppable {
  /** Number of the signal. */
  readonly signal: number;
  /** Reason of a signal that was aborted before the call. */
  readonly aborted: SentError | undefined;
}

/** Batch of commands for a machine, or for one of its forks. */
export interface Batch extends PackedCommands {
  /** Number of the fork; undefined for the machine. */
  readonly fork: number | undefined;
}

/** Results of a batch, or what the machine returned in their place. */
export type Updated =
  & (
    | PackedResults & {
      /** Error of a regular machine at the command after those with results. */
      readonly failed?: SentError;
    }
    | { readonly returned: readonly (Entry | Result)[] }
  )
  & Advanced;

/** Part of the answer of each call that changes the state. */
export interface Advanced {
  /** Activations, if they are others than in the last answer. */
  readonly activations?: Activations;
}

/** Request to save a snapshot. */
export interface Save extends Stoppable {
  /** Number of the prepared context; undefined for a regular machine. */
  readonly context: number | undefined;
  readonly stream: number;
}

/** Answer of a snapshot that was saved. */
export interface Saved {
  /** True if the machine has left the stream locked. */
  readonly isLocked: boolean;
}

/** Request to recover from a snapshot. */
export interface Recover extends Stoppable {
  readonly stream: number;
  readonly files: readonly SnapshotFile[];
}

/** File that a machine adds to a snapshot. */
export interface AddedFile {
  readonly stream: number;
  readonly fileID: bigint;
  readonly path: string;
  readonly metadata: Uint8Array;
}
