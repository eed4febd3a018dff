/**
 * Options of the contract suite.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type {
  CreateConcurrentStateMachineFunc,
  CreateOnDiskStateMachineFunc,
  CreateStateMachineFunc,
} from "../statemachine/machines.ts";
import type { MaybePromise } from "../statemachine/types.ts";
import type { FileStore } from "../snapshot/file_store.ts";

/** Arbitrary of fast-check 4, of any copy of it: the part of its type that determines its values. */
export interface Arbitrary<T> {
  /** Generates one value. */
  generate(
    random: never,
    biasFactor: number | undefined,
  ): { readonly value: T };
}

/** Values to draw from: a list, or a fast-check arbitrary of one. */
export type Samples<T> = readonly T[] | Arbitrary<T>;

/** Options of all three checks. */
export interface CheckOptions {
  /**
   * Commands to draw histories from: samples, or a fast-check arbitrary of one.
   * Good samples touch the same state more than once, and some are refused. The
   * simplest come first: counterexamples are made of those if they can be.
   */
  readonly commands: Samples<Uint8Array>;
  /**
   * Queries that reveal the state: samples, all used each time, or an arbitrary
   * of one. The suite cannot compare state that neither a query nor a hash
   * shows. A query that `lookup()` rejects is useful too: the error is its
   * answer.
   */
  readonly queries: Samples<unknown>;
  /**
   * Queries for `naLookup()`, if the machine has it.
   *
   * @default those of `queries` that are a `Uint8Array`, else the first command
   */
  readonly naQueries?: Samples<Uint8Array>;
  /**
   * Cluster id for factories.
   *
   * @default 1n
   */
  readonly clusterID?: bigint;
  /**
   * Node id for factories. One run of each pair that is compared for
   * determinism gets the next id and stands for another replica.
   *
   * @default 1n
   */
  readonly nodeID?: bigint;
  /**
   * Seed of a {@linkcode ContractViolation}, which repeats its run.
   *
   * @default a random one
   */
  readonly seed?: number;
  /** Path of a {@linkcode ContractViolation}; with `seed` it repeats that case alone. */
  readonly path?: string;
  /**
   * Number of histories per rule.
   *
   * @default 25
   */
  readonly runs?: number;
  /**
   * Maximum number of commands per history.
   *
   * @default 12
   */
  readonly maxCommands?: number;
  /**
   * Compares two answers of `lookup()`.
   *
   * @default structural equality, of bytes, bigints, maps and sets too; `NaN`
   * equals itself, `-0` differs from `0`
   */
  readonly equals?: (a: unknown, b: unknown) => boolean;
  /**
   * Store of the machine's external files. The suite then does what a host
   * does: copies a file's content once `saveSnapshot()` has returned, lays it
   * out at another path for a recovery, and removes it once
   * `recoverFromSnapshot()` has returned. Without a store a file is passed at
   * the path it was added by.
   */
  readonly files?: FileStore;
  /**
   * Timeout of the machine's promises, in milliseconds.
   *
   * @default 5000
   */
  readonly settleTimeoutMs?: number;
  /**
   * True if results or answers depend on the index of an entry, for example as
   * a version. The suite then does not compare logs with and without gaps (C7).
   *
   * @default false
   */
  readonly usesIndex?: boolean;
  /**
   * Formats a command in the report of a violation.
   *
   * @default {its bytes}
   */
  readonly showCommand?: (cmd: Uint8Array) => string;
}

/** Options of {@linkcode checkStateMachine}. */
export interface CheckStateMachineOptions extends CheckOptions {
  /** Creates a machine. */
  readonly create: CreateStateMachineFunc;
}

/** Options of {@linkcode checkConcurrentStateMachine}. */
export interface CheckConcurrentStateMachineOptions extends CheckOptions {
  /** Creates a machine. */
  readonly create: CreateConcurrentStateMachineFunc;
}

/**
 * Place of the state of an on-disk machine: a directory, a database.
 *
 * The suite opens a machine in it, and after each crash, data loss or close
 * another one in the same place. At most one is in use at a time.
 */
export interface Disk {
  /** Creates a machine that opens this place. */
  readonly create: CreateOnDiskStateMachineFunc;
  /**
   * Makes the place look as after a power failure at this moment: data that was
   * not made durable and open handles are gone, and later writes of existing
   * machines fail or have no effect. The machine is neither notified nor
   * closed. May be called during a call of the machine.
   *
   * Without it a crash is an instance that is no longer used and was not
   * closed, and happens only between calls. Unsynced data is then not lost, so
   * that far less is checked, and the next `open()` must be able to take over
   * from an abandoned instance.
   */
  crash?(): MaybePromise<void>;
  /** Removes the place at the end; no machine in it is open then, though some were never closed. */
  remove?(): MaybePromise<void>;
}

/** Options of {@linkcode checkOnDiskStateMachine}. */
export interface CheckOnDiskStateMachineOptions extends CheckOptions {
  /** Creates an empty place. Called once per case and replica: several are in use at once. */
  readonly disk: () => MaybePromise<Disk>;
}
