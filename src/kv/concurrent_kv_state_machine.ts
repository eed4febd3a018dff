/**
 * The concurrent key-value machine.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type {
  Forked,
  IConcurrentStateMachine,
  IExtended,
  IFork,
  IHash,
} from "../statemachine/machines.ts";
import type {
  Entry,
  ISnapshotFileCollection,
  SnapshotFile,
} from "../statemachine/types.ts";
import { applyCommand } from "./command.ts";
import { overTree } from "./overlay.ts";
import {
  answer,
  decodeQuery,
  encodeAnswer,
  type KVAnswer,
  type KVQuery,
} from "./query.ts";
import { loadPayload, savePayload } from "./snapshot.ts";
import { Tree, type Version } from "./tree.ts";

/** What `prepareSnapshot()` gives: a state, until it is saved. */
interface Mark {
  version: Version | undefined;
}

/**
 * A key-value machine in memory that is saved while it goes on. Its commands and queries are made by
 * `kv`, and so are those of the regular machine: same commands, same results,
 * same state hash, same snapshots.
 */
export class ConcurrentKVStateMachine
  implements
    IConcurrentStateMachine<KVQuery, KVAnswer>,
    IHash,
    IExtended,
    IFork<IConcurrentStateMachine<KVQuery, KVAnswer>> {
  #tree: Tree = new Tree();

  /** Applies commands. Bytes that are none change nothing and give `kv.INVALID`. */
  update(entries: Entry[]): Entry[] {
    for (let i = 0; i < entries.length; i++) {
      const entry = entries[i]!;
      entry.result = applyCommand(this.#tree, entry.cmd);
    }
    return entries;
  }

  /** Answers a query; one that makes no sense is an `ErrKVInvalidQuery`. */
  lookup<Q extends KVQuery>(query: Q): KVAnswer<Q> {
    return answer(this.#tree, query) as KVAnswer<Q>;
  }

  /** Answers a query from `kv.encodeQuery()`, for `kv.decodeAnswer()`. */
  naLookup(query: Uint8Array): Uint8Array {
    return encodeAnswer(answer(this.#tree, decodeQuery(query)));
  }

  /** The state hash, kept up to date: asking costs nothing. */
  getHash(): bigint {
    return this.#tree.hash;
  }

  /** Marks the present state, at once. What is changed from now on is copied before, until the mark is given up. */
  prepareSnapshot(): unknown {
    const mark: Mark = { version: this.#tree.freeze() };
    return mark;
  }

  /** Writes the rows as of the mark in chunks of 64 KiB, and gives the mark up. */
  async saveSnapshot(
    context: unknown,
    w: WritableStream<Uint8Array>,
    _files: ISnapshotFileCollection,
    stopped: AbortSignal,
  ): Promise<void> {
    const mark = context as Mark;
    const { version } = mark;
    mark.version = undefined;
    if (!version) throw new TypeError("Snapshot context is used up");
    await savePayload(version, w, stopped);
  }

  /**
   * Replaces the state by a saved one in one step, at the end. A payload that is
   * not as it was saved is an `ErrKVInvalidSnapshot` and replaces nothing.
   */
  async recoverFromSnapshot(
    r: ReadableStream<Uint8Array>,
    _files: readonly SnapshotFile[],
    stopped: AbortSignal,
  ): Promise<void> {
    this.#tree = await loadPayload(r, stopped);
  }

  /** The present state, with what is done to the fork laid over it: it costs what is done to it, and is of use until the next `update()`. */
  fork(): Forked<IConcurrentStateMachine<KVQuery, KVAnswer>> {
    return overTree(this.#tree);
  }

  /** An independent machine in the same state. What neither of them has changed since is in memory once. */
  clone(): ConcurrentKVStateMachine {
    const machine = new ConcurrentKVStateMachine();
    machine.#tree = new Tree(this.#tree);
    return machine;
  }

  /** Does nothing: there is nothing to free. */
  close(): void {}
}
