/**
 * The regular key-value machine.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type {
  Forked,
  IExtended,
  IFork,
  IHash,
  IStateMachine,
} from "../statemachine/machines.ts";
import type {
  ISnapshotFileCollection,
  Result,
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
import { Tree } from "./tree.ts";

/** A key-value machine in memory. Its commands and queries are made by `kv`. */
export class KVStateMachine
  implements
    IStateMachine<KVQuery, KVAnswer>,
    IHash,
    IExtended,
    IFork<IStateMachine<KVQuery, KVAnswer>> {
  #tree: Tree = new Tree();

  /** Applies a command. Bytes that are none change nothing and give `kv.INVALID`. */
  update(cmd: Uint8Array): Result {
    return applyCommand(this.#tree, cmd);
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

  /** Writes the rows in chunks of 64 KiB. */
  saveSnapshot(
    w: WritableStream<Uint8Array>,
    _files: ISnapshotFileCollection,
    stopped: AbortSignal,
  ): Promise<void> {
    return savePayload(this.#tree.present, w, stopped);
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
  fork(): Forked<IStateMachine<KVQuery, KVAnswer>> {
    const overlay = overTree(this.#tree);
    return {
      update: (cmd) => applyCommand(overlay, cmd),
      lookup: (query) => overlay.lookup(query),
    };
  }

  /** An independent machine in the same state. What neither of them has changed since is in memory once. */
  clone(): KVStateMachine {
    const machine = new KVStateMachine();
    machine.#tree = new Tree(this.#tree);
    return machine;
  }

  /** Does nothing: there is nothing to free. */
  close(): void {}
}
