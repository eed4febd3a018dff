/**
 * What the suite is told of a machine.
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

/**
 * An arbitrary of fast-check 4, from whatever copy of it: the part of its type
 * that tells what it makes.
 */
export interface Arbitrary<T> {
  /** Makes one value. */
  generate(
    random: never,
    biasFactor: number | undefined,
  ): { readonly value: T };
}

/** Values to draw from: a list, or a fast-check arbitrary of one. */
export type Samples<T> = readonly T[] | Arbitrary<T>;

/** What the three checks have in common. */
export interface CheckOptions {
  /**
   * Commands to draw histories from: samples, or a fast-check arbitrary of one.
   * Good samples touch the same state more than once, and some are refused. The
   * simplest come first: counterexamples are made of those if they can be.
   */
  readonly commands: Samples<Uint8Array>;
  /**
   * Queries that see the state: samples, all asked each time, or an arbitrary
   * of one. What no query shows, and no hash, the suite cannot compare. A query
   * that `lookup()` refuses is welcome: the refusal is taken as the answer.
   */
  readonly queries: Samples<unknown>;
  /**
   * Queries for `naLookup()`, if the machine has it.
   *
   * @default those of `queries` that are a `Uint8Array`, else the first command
   */
  readonly naQueries?: Samples<Uint8Array>;
  /**
   * The cluster id factories are called with.
   *
   * @default 1n
   */
  readonly clusterID?: bigint;
  /**
   * The node id factories are called with. One run of each pair that is compared
   * for determinism gets the next one: it stands for another replica.
   *
   * @default 1n
   */
  readonly nodeID?: bigint;
  /**
   * Repeats a run: the seed of a {@linkcode ContractViolation}.
   *
   * @default a random one
   */
  readonly seed?: number;
  /** With `seed`, repeats one case alone: the path of a {@linkcode ContractViolation}. */
  readonly path?: string;
  /**
   * Histories each rule is tried with.
   *
   * @default 25
   */
  readonly runs?: number;
  /**
   * The most commands of one history.
   *
   * @default 12
   */
  readonly maxCommands?: number;
  /**
   * Whether two answers of `lookup()` are the same.
   *
   * @default structural equality, of bytes, bigints, maps and sets too; `NaN` is itself, `-0` is not `0`
   */
  readonly equals?: (a: unknown, b: unknown) => boolean;
  /**
   * Where the machine's external files are. The suite then does what a host
   * does: takes a file's content when `saveSnapshot()` has returned, gives it
   * back under another path, and removes that once `recoverFromSnapshot()` has
   * returned. Without a store a file is given back under the path it was added by.
   */
  readonly files?: FileStore;
  /**
   * How long a promise of the machine may take, in milliseconds.
   *
   * @default 5000
   */
  readonly settleTimeoutMs?: number;
  /**
   * Whether results or answers show the index of an entry, say as a version.
   * The suite does not then expect the same of a log with gaps as of one
   * without (C7).
   *
   * @default false
   */
  readonly usesIndex?: boolean;
}

/** What {@linkcode checkStateMachine} is told. */
export interface CheckStateMachineOptions extends CheckOptions {
  /** Makes a machine. */
  readonly create: CreateStateMachineFunc;
}

/** What {@linkcode checkConcurrentStateMachine} is told. */
export interface CheckConcurrentStateMachineOptions extends CheckOptions {
  /** Makes a machine. */
  readonly create: CreateConcurrentStateMachineFunc;
}

/**
 * One place that an on-disk machine keeps its state in: a directory, a database.
 *
 * The suite opens a machine in it, and after each crash, loss or close another
 * one in the same place. At most one is in use at a time.
 */
export interface Disk {
  /** Makes a machine that opens this place. */
  readonly create: CreateOnDiskStateMachineFunc;
  /**
   * Makes the place look as it would after a power cut at this moment: what was
   * not made durable is gone, open handles are gone, and whatever the machines
   * made so far still try to write fails or goes nowhere. The machine is not
   * told, and not closed. May be called while a call of the machine is pending.
   *
   * Without it a crash is an instance that is no longer used and was not closed,
   * and only happens between calls: unsynced data is then not lost, so far less
   * is checked, and the next `open()` must be able to take over from an
   * abandoned instance.
   */
  crash?(): MaybePromise<void>;
  /** Takes the place away for good, when the suite has no more use for it; no machine in it is open then, though some were never closed. */
  remove?(): MaybePromise<void>;
}

/** What {@linkcode checkOnDiskStateMachine} is told. */
export interface CheckOnDiskStateMachineOptions extends CheckOptions {
  /** Makes a fresh, empty place. Called once per case and replica: several are in use at once. */
  readonly disk: () => MaybePromise<Disk>;
}
