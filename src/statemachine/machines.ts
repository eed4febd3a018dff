/**
 * Three kinds of state machine, their optional interfaces, and the types of
 * functions that create them.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type {
  Entry,
  ISnapshotFileCollection,
  MaybePromise,
  Result,
  SnapshotFile,
} from "./types.ts";

/**
 * Regular state machine: its state is in memory, and its methods never overlap.
 * The host takes a writer lock for `update()`, `recoverFromSnapshot()` and
 * `close()`, and a reader lock for every other method (R2). Prefer this kind
 * unless saving a snapshot takes long.
 *
 * A new instance is empty; the host recovers it from the newest intact snapshot
 * and the log after it (R3). `Q` and `A` are the types of its queries and
 * answers.
 */
export interface IStateMachine<Q = unknown, A = unknown> {
  /**
   * Applies one committed command. Called in log order, one at a time, each
   * command exactly once in the life of this instance's state (R1). Must be
   * deterministic: state and `cmd` are the only inputs, never the clock, random
   * numbers or I/O (R12). `cmd` belongs to the host: do not write into it or keep a
   * reference to it (R11). The result's data belong to the caller afterwards: copy
   * bytes that are also part of the state (R13).
   *
   * Throw only if the machine cannot continue: an error is fatal to this replica,
   * and to no other (R5). Report an invalid command in the result instead.
   */
  update(cmd: Uint8Array): MaybePromise<Result>;
  /**
   * Answers a query and changes nothing. Its errors reject the caller's read (R4).
   * The query belongs to the host: do not write into it or keep a reference to it
   * (R11). The answer belongs to the caller, who may change it: return a copy,
   * never a map, array or bytes of the state (R13).
   */
  lookup(query: Q): MaybePromise<A>;
  /**
   * Writes the whole state to `w`, in chunks of any size, and names the external
   * files that belong to it. Reads only; no update runs at the same time (R2).
   * Closes `w`, or releases its lock and lets the host close it, so that
   * `return source.pipeTo(w)` is a complete implementation (R6). A stream that is
   * still locked when the method returns, or is written to afterwards, invalidates
   * the snapshot: await every write and every `pipeTo()` (H16).
   *
   * Throw `ErrSnapshotAborted` to drop this snapshot and continue (R7), or the
   * signal's reason, `ErrSnapshotStopped`, once `stopped` has aborted (R8). Errors
   * of writes to `w` may be rethrown. Any other error is fatal.
   */
  saveSnapshot(
    w: WritableStream<Uint8Array>,
    files: ISnapshotFileCollection,
    stopped: AbortSignal,
  ): MaybePromise<void>;
  /**
   * Replaces the whole state by a saved one: `r` yields exactly the bytes that were
   * saved, `files` lists every file with its metadata (R9). Called on a restart,
   * and when the replica is far behind: then on an instance that has state. An
   * instance whose recovery failed is closed and not used again.
   */
  recoverFromSnapshot(
    r: ReadableStream<Uint8Array>,
    files: readonly SnapshotFile[],
    stopped: AbortSignal,
  ): MaybePromise<void>;
  /**
   * Frees the resources of the instance, without changing what `lookup()` answers.
   * Called at most once, last; possibly never, so no data may depend on it (R10).
   */
  close(): MaybePromise<void>;
}

/**
 * Concurrent state machine: its state is in memory, and its methods may overlap.
 * `lookup()`, `naLookup()`, `getHash()` and `saveSnapshot()` may overlap
 * `update()`, and `lookup()` may overlap `recoverFromSnapshot()`; `update()`,
 * `prepareSnapshot()`, `recoverFromSnapshot()` and `close()` exclude each other
 * (C2, C3). Methods interleave only where they await.
 */
export interface IConcurrentStateMachine<Q = unknown, A = unknown> {
  /**
   * Applies a batch of committed entries in log order and returns those same
   * entries with `result` set on each; any other return value is fatal to the
   * replica (C1). State and results must not depend on how the host divides the
   * log into batches (C7). Deterministic, as {@linkcode IStateMachine.update} is.
   */
  update(entries: Entry[]): MaybePromise<Entry[]>;
  /** Answers a query like {@linkcode IStateMachine.lookup}; may overlap `update()` and `recoverFromSnapshot()`. */
  lookup(query: Q): MaybePromise<A>;
  /**
   * Captures the present state and returns a small context for it, such as a
   * version number or the root of a tree. Excludes `update()`. An error is fatal
   * (R5).
   */
  prepareSnapshot(): MaybePromise<unknown>;
  /**
   * Writes the state that `context` was prepared for, without entries applied since
   * (C4). Called exactly once for each context, with an aborted signal if the
   * snapshot was dropped, so that the resources of the context can be freed here
   * (C5). Otherwise like {@linkcode IStateMachine.saveSnapshot}.
   */
  saveSnapshot(
    context: unknown,
    w: WritableStream<Uint8Array>,
    files: ISnapshotFileCollection,
    stopped: AbortSignal,
  ): MaybePromise<void>;
  /** Recovers from a snapshot like {@linkcode IStateMachine.recoverFromSnapshot}. */
  recoverFromSnapshot(
    r: ReadableStream<Uint8Array>,
    files: readonly SnapshotFile[],
    stopped: AbortSignal,
  ): MaybePromise<void>;
  /** Closes the machine like {@linkcode IStateMachine.close}. */
  close(): MaybePromise<void>;
}

/**
 * On-disk state machine: its state is on disk, together with its applied index.
 * `update()`, `sync()`, `prepareSnapshot()`, `recoverFromSnapshot()` and `close()`
 * exclude each other; `lookup()` may overlap any of them and may follow `close()`;
 * `saveSnapshot()` may overlap `update()` (D7).
 *
 * The host's periodic snapshots of such a machine contain only index and sessions
 * (D10); `saveSnapshot()` is called to transfer the state to another node.
 */
export interface IOnDiskStateMachine<Q = unknown, A = unknown> {
  /**
   * Opens or creates the state and returns the index of the last durable entry in
   * it, 0 for a new state. Called once, before every other method (D1). May throw
   * the signal's reason, `ErrOpenStopped`, once `stopped` has aborted (D2); any
   * other error fails the start.
   */
  open(stopped: AbortSignal): MaybePromise<number>;
  /**
   * Applies a batch like {@linkcode IConcurrentStateMachine.update}. The index of
   * the last entry is persisted in the same atomic step as the state (D4). The data may stay in
   * memory until `sync()` (D6), but a crash must leave a prefix of the entries:
   * never an entry without all before it (D5). Entries at or below the opened index
   * are never passed (D3). Beyond Dragonboat's contract: `ErrStoreFull` means that
   * nothing of the batch was applied; the batch is retried until there is room (U8).
   */
  update(entries: Entry[]): MaybePromise<Entry[]>;
  /** Answers a query like {@linkcode IStateMachine.lookup}; may overlap any call, and may follow `close()`. */
  lookup(query: Q): MaybePromise<A>;
  /**
   * Makes all applied entries durable. Called before a metadata snapshot is saved,
   * before the log is compacted, and periodically (D6). An error is fatal, except
   * `ErrStoreFull`: the call is retried until there is room (U8).
   */
  sync(): MaybePromise<void>;
  /** Prepares a snapshot like {@linkcode IConcurrentStateMachine.prepareSnapshot}; also excludes `sync()`. */
  prepareSnapshot(): MaybePromise<unknown>;
  /**
   * Writes the whole state as of `context` for another node, deterministically:
   * two contexts prepared with no update between them give the same bytes (D8).
   * When the receiver is lost, writes to `w` fail with `ErrSnapshotStreaming`;
   * rethrown, it ends only this transfer (D9). Called exactly once for each context
   * (C5).
   */
  saveSnapshot(
    context: unknown,
    w: WritableStream<Uint8Array>,
    stopped: AbortSignal,
  ): MaybePromise<void>;
  /**
   * Replaces the whole state by that of another node. Excludes everything but
   * `lookup()`. A crash in the middle leaves the old state or the new one, never
   * a mix; it need not be durable on return (D11).
   */
  recoverFromSnapshot(
    r: ReadableStream<Uint8Array>,
    stopped: AbortSignal,
  ): MaybePromise<void>;
  /** Closes the machine like {@linkcode IStateMachine.close}; `lookup()` may follow. */
  close(): MaybePromise<void>;
}

/** Optional: state hash of a machine (E1). */
export interface IHash {
  /**
   * Returns a hash of the state in 0…2^64-1, equal on all replicas that have
   * applied the same entries. Reads only. It is stored in each full snapshot and
   * compared after a recovery (H16), so it should be cheap.
   */
  getHash(): MaybePromise<bigint>;
}

/**
 * Optional, beyond Dragonboat's contract: version of the representation of a
 * machine's state. Hashes of different versions are never compared (H16).
 */
export interface IStateVersion {
  /** Version, a safe integer of at least 0; a machine without this property has version 0. Constant for an instance. */
  readonly stateVersion: number;
}

/** Optional, beyond Dragonboat's contract: state hash of a machine whose recovery migrates the state of an older version (H16). */
export interface IRecoveredHash {
  /**
   * Returns the hash of the state in the snapshot before the migration, computed
   * as the saving version computes its `getHash()`; undefined if nothing was
   * migrated, so that `getHash()` applies. Called after `recoverFromSnapshot()`,
   * and compared with the hash in the snapshot.
   */
  getRecoveredHash(): MaybePromise<bigint | undefined>;
}

/** Optional: queries from bytes to bytes (E2). */
export interface IExtended {
  /** Answers a query like `lookup()`, from bytes to bytes. Reads only. */
  naLookup(query: Uint8Array): MaybePromise<Uint8Array>;
}

/**
 * Optional, beyond Dragonboat's contract: results that are refusals (R15). Such a
 * command is reported to its proposer like one that a server has rejected:
 * `propose()` and the `result` of a submission reject with `ErrProposalRefused`,
 * which has reason and result, and the submission stays until it is dismissed.
 */
export interface IRefusal {
  /**
   * Returns the reason for which the command with this result is refused, in words
   * for people; undefined for a result that is not a refusal. A pure function of
   * the result, which it neither changes nor retains.
   */
  refusal(result: Result): string | undefined;
}

/**
 * Optional, beyond Dragonboat's contract: admission of commands before they are
 * ordered, by their bytes alone.
 */
export interface IAdmit {
  /**
   * Decides about a command before this process orders it: a server about each
   * command of its clients, a host whose log is its own about its proposals. Returns
   * the reason to refuse it, or undefined to accept it. Throws `ErrNewerCode` if only
   * newer code knows the command, or `ErrOtherAuthor` if the principal is not its
   * author: then it is not refused, but waits, and with it what the client has queued
   * behind it; other clients are unaffected. A pure function of its arguments.
   *
   * @param principal id of the principal that sends the command; null for the anonymous one; undefined for a proposal of the host itself
   */
  admit(
    cmd: Uint8Array,
    principal: string | null | undefined,
  ): string | undefined;
}

/**
 * Optional, beyond Dragonboat's contract: merging of neighbouring commands in the
 * outbox of a device, such as two overwrites of one row. A command that may have been
 * sent is never merged.
 */
export interface IMerge {
  /**
   * Returns one command in the place of two, of which `second` was submitted directly
   * after `first`; undefined to leave both. On every state it must have the effect
   * of both, one after the other. It is decided as one: its result is that of both
   * submissions, and if it is refused, both are. A pure function of its arguments,
   * which it neither changes nor retains; it may return one of them.
   */
  merge(first: Uint8Array, second: Uint8Array): Uint8Array | undefined;
}

/** Group of commands of one device of which each makes sense only if those before it were not refused. */
export interface CommandGroup {
  /** Key of the group. */
  readonly key: string;
  /** Refusal of a command after a refused one of its group. */
  readonly refusal: { readonly reason: string; readonly result: Result };
}

/**
 * Optional, beyond Dragonboat's contract: groups of commands, such as an edit, the
 * undoing of it, and that done once more. The outbox of a device sends a command once
 * those of its group before it are decided, and refuses it if one of them was refused.
 */
export interface IGroup {
  /** Returns the group of a command; undefined if it is in none. A pure function. */
  group(cmd: Uint8Array): CommandGroup | undefined;
}

/**
 * Optional, beyond Dragonboat's contract: changes of behaviour, each of which counts
 * from a command in the log on, which the host that orders the cluster appends.
 */
export interface IActivation {
  /** Names of the changes that this code knows. Constant for an instance. */
  readonly changes: readonly string[];
  /**
   * Returns the command from which on a change counts; undefined if it counts
   * already. A host whose log is its own appends that of each change once every
   * live replica on its log knows the change.
   */
  activation(change: string): Uint8Array | undefined;
}

/** Fork of a machine of kind `M`: its `update()` and `lookup()`. */
export type Forked<M extends { update: unknown; lookup: unknown }> =
  & Pick<M, "update" | "lookup">
  & {
    /** Frees the resources of the fork; called at most once, last. */
    close?(): MaybePromise<void>;
  };

/**
 * Optional, beyond Dragonboat's contract: forks, which apply commands to a copy of
 * the state. They make optimistic views cheap, and let a server rehearse commands
 * before it appends them (H17). `M` is the kind of machine, such as
 * `IStateMachine`.
 */
export interface IFork<M extends { update: unknown; lookup: unknown }> {
  /**
   * Creates a fork of the present state: changes to the fork never show in the
   * machine. Should be cheap whatever the size of the state. Excludes `update()` and
   * `recoverFromSnapshot()`; may be called any number of times.
   *
   * A fork may read from its machine: its `update()` (deterministic; the indexes of
   * its entries are provisional) and `lookup()` are called only until the machine
   * is updated, and with `close()` they exclude each other like those of a regular
   * machine (R2). A fork whose `update()` has thrown is closed.
   */
  fork(): MaybePromise<Forked<M>>;
}

/** Optional, beyond Dragonboat's contract: removal of the data of an on-disk machine. */
export interface IRemoveData {
  /**
   * Durably removes everything the machine has on disk, so that `open()` of the
   * next instance returns 0. Called on an instance that was never opened, while no
   * other instance is open. Does nothing if there is no data.
   */
  removeData(): MaybePromise<void>;
}

/** Creates a regular machine for a replica; called once per instance, possibly several times (T4). */
export type CreateStateMachineFunc<Q = unknown, A = unknown> = (
  clusterID: bigint,
  nodeID: bigint,
) => IStateMachine<Q, A>;

/** Creates a concurrent machine for a replica; called once per instance, possibly several times (T4). */
export type CreateConcurrentStateMachineFunc<Q = unknown, A = unknown> = (
  clusterID: bigint,
  nodeID: bigint,
) => IConcurrentStateMachine<Q, A>;

/** Creates an on-disk machine for a replica; called once per instance, possibly several times (T4). */
export type CreateOnDiskStateMachineFunc<Q = unknown, A = unknown> = (
  clusterID: bigint,
  nodeID: bigint,
) => IOnDiskStateMachine<Q, A>;
