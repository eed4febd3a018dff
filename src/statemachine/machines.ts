/**
 * The three kinds of state machine, the optional interfaces, and the
 * functions that make machines.
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
 * A machine whose state is in memory and whose methods need not think about one
 * another: the host holds a writer lock for `update()`, `recoverFromSnapshot()`
 * and `close()`, and a reader lock for everything else (R2). Prefer this kind
 * unless snapshots of it take long.
 *
 * A new instance is empty; the host brings it up from the newest good snapshot
 * and the log after it (R3). `Q` and `A` are the types of its queries and
 * answers.
 */
export interface IStateMachine<Q = unknown, A = unknown> {
  /**
   * Applies one committed command. Called in log order, one at a time, each
   * command exactly once in the life of this instance's state (R1). Must be
   * deterministic: the state and `cmd` are its only inputs, never the clock,
   * random numbers or I/O (R12). `cmd` is the host's: read-only, and not to be kept
   * (R11). The result's data are the caller's from then on: copy what is also
   * state (R13).
   *
   * Throw only when the machine cannot go on: it is fatal to this replica, to it
   * alone (R5). A command that merely makes no sense is answered in the result.
   */
  update(cmd: Uint8Array): MaybePromise<Result>;
  /**
   * Answers a query and changes nothing. What it throws goes to the one who
   * asked (R4). The query is the host's: read-only, and not to be kept (R11). The
   * answer is the caller's, to keep and to change: a copy of what the machine goes
   * on using, never its own map, array or bytes (R13).
   */
  lookup(query: Q): MaybePromise<A>;
  /**
   * Writes the whole state to `w`, in chunks of any size, and names the external
   * files that belong to it. Reads only; no update runs at the same time (R2). Closes
   * `w`, or releases its lock on it and leaves the closing to the host, so that a
   * returned `source.pipeTo(w)` is a whole implementation (R6). A stream that is
   * still open and locked when this returns, or is written to afterwards, makes
   * the snapshot bad: await every write and every `pipeTo()` (H16).
   *
   * Throw `ErrSnapshotAborted` to drop this snapshot and go on (R7); the
   * signal's reason, `ErrSnapshotStopped`, once `stopped` has aborted (R8). What
   * a write to `w` fails with may be passed on. Anything else is fatal.
   */
  saveSnapshot(
    w: WritableStream<Uint8Array>,
    files: ISnapshotFileCollection,
    stopped: AbortSignal,
  ): MaybePromise<void>;
  /**
   * Replaces all state by a saved one: `r` gives exactly the bytes that were
   * saved, `files` every file with its metadata (R9). Called on a restart and
   * when the replica is far behind, so also on an instance that has state. An
   * instance whose recovery failed is closed and not used again.
   */
  recoverFromSnapshot(
    r: ReadableStream<Uint8Array>,
    files: readonly SnapshotFile[],
    stopped: AbortSignal,
  ): MaybePromise<void>;
  /**
   * Frees what the instance holds, and changes nothing that `lookup()` can see.
   * Called at most once, last; possibly never, so no data may depend on it (R10).
   */
  close(): MaybePromise<void>;
}

/**
 * A machine whose state is in memory and that allows more at once: `lookup()`,
 * `naLookup()`, `getHash()` and `saveSnapshot()` may overlap `update()`, and
 * `lookup()` may overlap `recoverFromSnapshot()`; `update()`,
 * `prepareSnapshot()`, `recoverFromSnapshot()` and `close()` exclude each other
 * (C2, C3). What overlaps are the awaits: between two of them a method has the
 * machine to itself.
 */
export interface IConcurrentStateMachine<Q = unknown, A = unknown> {
  /**
   * Applies a batch of committed entries in log order and returns those same
   * entries with `result` set on each; anything else is fatal to the replica
   * (C1). How the host cuts the log into batches must not show in state or
   * results (C7). Deterministic, as {@linkcode IStateMachine.update} is.
   */
  update(entries: Entry[]): MaybePromise<Entry[]>;
  /** As {@linkcode IStateMachine.lookup}; it may overlap `update()` and `recoverFromSnapshot()`. */
  lookup(query: Q): MaybePromise<A>;
  /**
   * Marks the present moment and returns something small that stands for it: a
   * version number, a root. Excludes `update()`. Throwing is fatal (R5).
   */
  prepareSnapshot(): MaybePromise<unknown>;
  /**
   * Writes the state as of the moment `context` stands for, never a later one,
   * whatever is applied meanwhile (C4). Called exactly once for each context,
   * with an aborted signal if the snapshot is no longer wanted, so what the
   * context holds can be freed here (C5). Otherwise as
   * {@linkcode IStateMachine.saveSnapshot}.
   */
  saveSnapshot(
    context: unknown,
    w: WritableStream<Uint8Array>,
    files: ISnapshotFileCollection,
    stopped: AbortSignal,
  ): MaybePromise<void>;
  /** As {@linkcode IStateMachine.recoverFromSnapshot}. */
  recoverFromSnapshot(
    r: ReadableStream<Uint8Array>,
    files: readonly SnapshotFile[],
    stopped: AbortSignal,
  ): MaybePromise<void>;
  /** As {@linkcode IStateMachine.close}. */
  close(): MaybePromise<void>;
}

/**
 * A machine that keeps its state on disk and knows how far it got. `update()`,
 * `sync()`, `prepareSnapshot()`, `recoverFromSnapshot()` and `close()` exclude
 * each other; `lookup()` may overlap any of them and may come after `close()`;
 * `saveSnapshot()` may overlap `update()` (D7).
 *
 * The host's periodic snapshots of such a machine hold no state, only the index
 * and the sessions (D10); `saveSnapshot()` is for bringing up another node.
 */
export interface IOnDiskStateMachine<Q = unknown, A = unknown> {
  /**
   * Opens or creates the state and returns the index of the last entry that is
   * durable in it, 0 for a new one. Called once, before anything else (D1). May
   * throw the signal's reason, `ErrOpenStopped`, once `stopped` has aborted (D2);
   * any other error refuses the start.
   */
  open(stopped: AbortSignal): MaybePromise<number>;
  /**
   * As {@linkcode IConcurrentStateMachine.update}. The index of the last entry is
   * persisted in the same atomic step as the state (D4). The data may stay in
   * core until `sync()` (D6), but after a crash what is found must be a prefix:
   * never an entry without all before it (D5). No entry at or below the opened
   * index is ever given (D3). Beyond the seed: an `ErrStoreFull` says that nothing
   * of the batch was applied, and the same batch is given again until there is
   * room (U8).
   */
  update(entries: Entry[]): MaybePromise<Entry[]>;
  /** As {@linkcode IStateMachine.lookup}; it may overlap anything and may come after `close()`. */
  lookup(query: Q): MaybePromise<A>;
  /**
   * Makes all that was applied durable. Called before a snapshot record is saved,
   * before log entries are let go, and from time to time (D6). Throwing is fatal,
   * but for an `ErrStoreFull`: it is called again until there is room (U8).
   */
  sync(): MaybePromise<void>;
  /** As {@linkcode IConcurrentStateMachine.prepareSnapshot}; also excludes `sync()`. */
  prepareSnapshot(): MaybePromise<unknown>;
  /**
   * Writes the whole state as of `context` for another node, deterministically:
   * two contexts prepared with no update between them give the same bytes (D8).
   * When the receiver is lost, writes to `w` fail with `ErrSnapshotStreaming`;
   * passed on, it ends this transfer and nothing else (D9). Called exactly once
   * for each context (C5).
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
  /** As {@linkcode IStateMachine.close}; `lookup()` may still come. */
  close(): MaybePromise<void>;
}

/** Optional: a machine that can say in one number what state it is in (E1). */
export interface IHash {
  /**
   * A number in 0…2^64-1 that is the same on every replica that has applied the
   * same entries. Reads only. It is stored with each full snapshot and compared
   * after a recovery (H16), so it should cost little.
   */
  getHash(): MaybePromise<bigint>;
}

/**
 * Optional, and Beyond the seed: the version of the form that a machine's state
 * has. Hashes of different versions are never compared (H16).
 */
export interface IStateVersion {
  /** A safe integer from 0 on; 0 is that of a machine without. Does not change while the instance lives. */
  readonly stateVersion: number;
}

/** Optional, and Beyond the seed: a machine with `getHash()` whose recovery turns the state of an older version into that of its own (H16). */
export interface IRecoveredHash {
  /**
   * Hash of the state as it stood in the snapshot, before the migration, the way
   * the version that saved it computed its own; undefined if nothing was migrated,
   * so that `getHash()` gives it. Called after `recoverFromSnapshot()` has
   * returned, and compared with the hash in the snapshot.
   */
  getRecoveredHash(): MaybePromise<bigint | undefined>;
}

/** Optional: a machine that answers queries from bytes to bytes (E2). */
export interface IExtended {
  /** As `lookup()`, for callers that have bytes and want bytes. Reads only. */
  naLookup(query: Uint8Array): MaybePromise<Uint8Array>;
}

/**
 * Optional, and Beyond the seed: a machine that can say which of its results are
 * refusals (R15). A command is then refused to its proposer like one that a
 * server has refused: `propose()` and the `result` of a submission reject with an
 * `ErrProposalRefused` that carries the reason and the result, and the submission
 * is kept until it is dismissed.
 */
export interface IRefusal {
  /**
   * Reason for which the command with this result is refused, for a person to
   * read; undefined for a result that is no refusal. It depends on the result
   * alone, gives the same answer each time, changes nothing, and neither keeps
   * nor writes into the result.
   */
  refusal(result: Result): string | undefined;
}

/** What a fork can be called with: what it shares with the kind of machine `M`. */
export type Forked<M extends { update: unknown; lookup: unknown }> =
  & Pick<M, "update" | "lookup">
  & {
    /** Frees what the fork holds, if it holds anything; called at most once, last. */
    close?(): MaybePromise<void>;
  };

/**
 * Optional, and Beyond the seed: a machine that can tell what it would be after
 * some commands more. That is how commands which are not committed yet are shown,
 * and how a server tries commands before it orders them (H17).
 * `M` is the kind of machine: `IStateMachine` and so on.
 */
export interface IFork<M extends { update: unknown; lookup: unknown }> {
  /**
   * The machine's present state, to go on from without it: what is done to the
   * fork never shows in the machine. It should cost little, whatever the size of
   * the state. Excludes `update()` and `recoverFromSnapshot()`; may be called
   * again at any time.
   *
   * A fork may read from its machine: its `update()` (deterministic, and given
   * entries whose indexes are guesses) and `lookup()` are called only while the
   * machine has not been updated since, and they and `close()` keep apart as
   * those of a regular machine do (R2). After an `update()` that throws, the fork
   * is closed.
   */
  fork(): MaybePromise<Forked<M>>;
}

/** Optional, and Beyond the seed: an on-disk machine that can remove all it keeps. */
export interface IRemoveData {
  /**
   * Removes everything the machine keeps on disk, durably, so that `open()` of
   * another instance returns 0. Called on an instance that was never opened, while
   * no other one is open. Harmless if there is nothing.
   */
  removeData(): MaybePromise<void>;
}

/** Makes a regular machine for a replica; called once per instance, possibly several times (T4). */
export type CreateStateMachineFunc = (
  clusterID: bigint,
  nodeID: bigint,
) => IStateMachine;

/** Makes a concurrent machine for a replica; called once per instance, possibly several times (T4). */
export type CreateConcurrentStateMachineFunc = (
  clusterID: bigint,
  nodeID: bigint,
) => IConcurrentStateMachine;

/** Makes an on-disk machine for a replica; called once per instance, possibly several times (T4). */
export type CreateOnDiskStateMachineFunc = (
  clusterID: bigint,
  nodeID: bigint,
) => IOnDiskStateMachine;
