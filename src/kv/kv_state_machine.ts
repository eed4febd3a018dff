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

/** Regular key-value machine, in memory. Commands and queries are made by `kv`. */
export class KVStateMachine
  implements
    IStateMachine<KVQuery, KVAnswer>,
    IHash,
    IExtended,
    IFork<IStateMachine<KVQuery, KVAnswer>> {
  #tree: Tree = new Tree();

  /** Applies a command. A malformed command changes nothing and returns `kv.INVALID`. */
  update(cmd: Uint8Array): Result {
    return applyCommand(this.#tree, cmd);
  }

  /** Answers a query; throws `ErrKVInvalidQuery` for an invalid one. */
  lookup<Q extends KVQuery>(query: Q): KVAnswer<Q> {
    return answer(this.#tree, query) as KVAnswer<Q>;
  }

  /** Answers an encoded query of `kv.encodeQuery()`, for `kv.decodeAnswer()`. */
  naLookup(query: Uint8Array): Uint8Array {
    const decoded = decodeQuery(query);
    return encodeAnswer(decoded, answer(this.#tree, decoded));
  }

  /** Returns the state hash; takes the hashes of rows changed since the last call, of a bounded number. */
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
   * Replaces the state by a saved one in one step at the end. An invalid
   * payload throws `ErrKVInvalidSnapshot` and changes nothing.
   */
  async recoverFromSnapshot(
    r: ReadableStream<Uint8Array>,
    _files: readonly SnapshotFile[],
    stopped: AbortSignal,
  ): Promise<void> {
    this.#tree = await loadPayload(r, stopped);
  }

  /**
   * Creates a fork: an overlay on the present state, whose cost depends only on
   * its own changes. Valid until the next `update()`.
   */
  fork(): Forked<IStateMachine<KVQuery, KVAnswer>> {
    const overlay = overTree(this.#tree);
    return {
      update: (cmd) => applyCommand(overlay, cmd),
      lookup: (query) => overlay.lookup(query),
    };
  }

  /** Creates an independent machine with the same state. Leaves that neither has changed since are shared. */
  clone(): KVStateMachine {
    const machine = new KVStateMachine();
    machine.#tree = new Tree(this.#tree);
    return machine;
  }

  /** Does nothing: the machine has no resources to free. */
  close(): void {}
}
