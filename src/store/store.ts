/**
 * Blocks of bytes under names, kept for good, as a port: the one thing the log,
 * the key-value machine, the snapshots and the outbox need of a browser's or a
 * server's storage. What they have in common is that storage is paid for by the
 * request and the transaction, not by the byte; so each packs many small things
 * into a block, and writes the blocks of one step in one transaction.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { MaybePromise } from "../statemachine/types.ts";

/** A block and its name. */
export interface Block {
  /** Its name: ASCII, ordered by character; `log/0000000001`. */
  readonly key: string;
  /** Its content. A store neither keeps nor changes what it is given, and what it gives is the caller's. */
  readonly bytes: Uint8Array;
}

/** What one step changes; all of it, or nothing. Deletions come before puts. */
export interface Changes {
  /** Blocks to be put, in place of those of the same name. */
  readonly put?: readonly Block[];
  /** Names of blocks to be deleted; harmless where there is none. */
  readonly delete?: readonly string[];
  /** Ranges of names to be deleted, each from the first name on to before the second. */
  readonly deleteRanges?: readonly (readonly [from: string, to: string])[];
}

/**
 * How safe a write is once it has settled. `relaxed` survives a process or
 * browser that is killed; `strict` a power cut, and so does then everything
 * written before.
 */
export type Durability = "relaxed" | "strict";

/** What a range of names is read by. */
export interface ListOptions {
  /** The most blocks to give. */
  readonly limit?: number;
  /** From the last name down. */
  readonly reverse?: boolean;
}

/**
 * Blocks under names. Opened with the first call that needs it. Calls may be
 * made while others are under way: writes take effect in the order they were
 * made, each wholly or not at all, and a read sees every write that settled
 * before it began.
 */
export interface BlockStore extends AsyncDisposable {
  /**
   * A random name the store was given when it was made: another one, where the
   * same was expected, means that the store vanished meanwhile and was made anew.
   */
  identity(): MaybePromise<string>;
  /** The contents of the blocks of those names, undefined where there is none. */
  get(keys: readonly string[]): MaybePromise<(Uint8Array | undefined)[]>;
  /** The blocks whose names are at or after `from` and before `to`, in order of their names. */
  list(
    from: string,
    to: string,
    options?: ListOptions,
  ): MaybePromise<Block[]>;
  /** As `list()`, the names alone. */
  keys(
    from: string,
    to: string,
    options?: ListOptions,
  ): MaybePromise<string[]>;
  /**
   * Makes changes in one atomic step.
   *
   * @throws ErrStoreFull if there is no room; nothing was changed
   * @throws ErrUnknownOutcome if they may or may not be made, which is settled before the next call is; anything else thrown means that nothing was changed
   * @throws ErrClusterClosed after `close()`
   */
  write(changes: Changes, durability: Durability): MaybePromise<void>;
  /**
   * Looks whether what was written is still in place, where that can change while
   * the store is open, as files can. Harmless if the store is not open.
   *
   * @throws ErrStoreCorrupted if it is not; nothing is written any more
   */
  verify?(): MaybePromise<void>;
  /** Closes the store, after what is under way; idempotent. */
  close(): Promise<void>;
}
