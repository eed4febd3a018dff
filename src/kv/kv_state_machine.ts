/**
 * The regular key-value machine.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type {
  IExtended,
  IHash,
  IStateMachine,
} from "../statemachine/machines.ts";
import type {
  ISnapshotFileCollection,
  Result,
  SnapshotFile,
} from "../statemachine/types.ts";
import { applyCommand } from "./command.ts";
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
  implements IStateMachine<KVQuery, KVAnswer>, IHash, IExtended {
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

  /** An independent machine in the same state. What neither of them has changed since is in memory once. */
  fork(): KVStateMachine {
    const machine = new KVStateMachine();
    machine.#tree = new Tree(this.#tree);
    return machine;
  }

  /** Does nothing: there is nothing to free. */
  close(): void {}
}
