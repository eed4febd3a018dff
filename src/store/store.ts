/**
 * Port of a block store: named blocks of bytes in durable storage, in which the
 * log, the key-value machines, the snapshots and the outbox are stored.
 *
 * Storage costs per request and per transaction rather than per byte, so callers
 * pack many small items into a block and write the blocks of one step in one
 * transaction.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { MaybePromise } from "../statemachine/types.ts";
import type { StoreLease } from "./lease.ts";

/** Named block of bytes. */
export interface Block {
  /** Name in ASCII, ordered by character: `log/0000000001`. */
  readonly key: string;
  /** Content. A store copies the bytes it is given, and the caller owns the bytes it returns. */
  readonly bytes: Uint8Array;
}

/** Changes of one atomic step. Deletions take effect before puts. */
export interface Changes {
  /** Blocks to write; each replaces the block of the same name. */
  readonly put?: readonly Block[];
  /** Names of blocks to delete; names without a block are ignored. */
  readonly delete?: readonly string[];
  /** Ranges of names to delete, each including its first name and excluding its second. */
  readonly deleteRanges?: readonly (readonly [from: string, to: string])[];
}

/**
 * Durability of a settled write. `relaxed` survives the end of the process or
 * browser; `strict` survives a power cut, and makes all writes before it survive
 * one too.
 */
export type Durability = "relaxed" | "strict";

/** Options for reading a range of names. */
export interface ListOptions {
  /**
   * Most blocks to return.
   *
   * @default {Infinity}
   */
  readonly limit?: number;
  /**
   * Set to read from the last name to the first.
   *
   * @default {false}
   */
  readonly reverse?: boolean;
}

/** Blocks that `BlockStore.update()` reads. */
export interface UpdateReads {
  /** Names of blocks. */
  readonly keys: readonly string[];
  /** Range of names of which all blocks are read, or the first ones. */
  readonly range?: readonly [from: string, to: string];
  /**
   * Most blocks of the range that are read.
   *
   * @default {Infinity}
   */
  readonly limit?: number;
}

/** Blocks that `BlockStore.update()` has read. */
export interface UpdateFound {
  /** Contents of the named blocks, undefined for each name without a block. */
  readonly blocks: readonly (Uint8Array | undefined)[];
  /** Blocks of the range, in order of their names. */
  readonly inRange: readonly Block[];
}

/**
 * Named blocks in durable storage, opened by the first call that needs it. Calls
 * may overlap: writes take effect in the order of the calls, each completely or
 * not at all, and a read sees every write that settled before the read began.
 */
export interface BlockStore extends AsyncDisposable {
  /**
   * Random name given to the store when it was created. A different name where
   * the same one was expected means that the store was lost and created again.
   */
  identity(): MaybePromise<string>;
  /** Contents of the named blocks, undefined for each name without a block. */
  get(keys: readonly string[]): MaybePromise<(Uint8Array | undefined)[]>;
  /** Blocks whose names are at or after `from` and before `to`, in order of their names. */
  list(
    from: string,
    to: string,
    options?: ListOptions,
  ): MaybePromise<Block[]>;
  /** Names of the blocks that `list()` would return. */
  keys(
    from: string,
    to: string,
    options?: ListOptions,
  ): MaybePromise<string[]>;
  /**
   * Makes changes in one atomic step.
   *
   * @throws ErrStoreFull if there is no room; nothing was changed
   * @throws ErrUnknownOutcome if the changes may or may not have been made, which is settled before the next call is; any other error means that nothing was changed
   * @throws ErrClusterClosed after `close()`
   */
  write(changes: Changes, durability: Durability): MaybePromise<void>;
  /**
   * Reads blocks and makes the changes that `decide` returns for them, in one atomic
   * step; resolves with false if it returned none. With `isShared`, a process may
   * call it that does not hold the lease of the store (`share()`).
   *
   * @throws as `write()`
   */
  update?(
    reads: UpdateReads,
    decide: (found: UpdateFound) => Changes | undefined,
    durability: Durability,
    isShared: boolean,
  ): MaybePromise<boolean>;
  /** Shares the store between processes under a lease; called before its first use. */
  share?(lease: StoreLease): void;
  /**
   * Checks that written data is still in place, for stores whose data can change
   * while they are open, such as files. Does nothing if the store is not open.
   *
   * @throws ErrStoreCorrupted if it is not in place; later writes are refused
   */
  verify?(): MaybePromise<void>;
  /** Closes the store after the calls under way; idempotent. */
  close(): Promise<void>;
}
