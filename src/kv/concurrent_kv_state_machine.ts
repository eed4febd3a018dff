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

/** Context of `prepareSnapshot()`: a version of the state, until it is saved. */
interface SnapshotContext {
  version: Version | undefined;
}

/**
 * Concurrent key-value machine: in memory, and saved while updates continue.
 * Commands and queries are made by `kv`; results, state hash and snapshots
 * equal those of the regular machine.
 */
export class ConcurrentKVStateMachine
  implements
    IConcurrentStateMachine<KVQuery, KVAnswer>,
    IHash,
    IExtended,
    IFork<IConcurrentStateMachine<KVQuery, KVAnswer>> {
  #tree: Tree = new Tree();

  /** Applies commands. A malformed command changes nothing and returns `kv.INVALID`. */
  update(entries: Entry[]): Entry[] {
    for (let i = 0; i < entries.length; i++) {
      const entry = entries[i]!;
      entry.result = applyCommand(this.#tree, entry.cmd);
    }
    return entries;
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

  /** Captures the present state in constant time. Later changes copy their leaves until the context is saved. */
  prepareSnapshot(): unknown {
    const prepared: SnapshotContext = { version: this.#tree.freeze() };
    return prepared;
  }

  /** Writes the rows of the context in chunks of 64 KiB, and releases it. */
  async saveSnapshot(
    context: unknown,
    w: WritableStream<Uint8Array>,
    _files: ISnapshotFileCollection,
    stopped: AbortSignal,
  ): Promise<void> {
    const prepared = context as SnapshotContext;
    const { version } = prepared;
    prepared.version = undefined;
    if (!version) {
      throw new TypeError(
        "saveSnapshot() was called before with this context; it is saved already",
      );
    }
    await savePayload(version, w, stopped);
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
  fork(): Forked<IConcurrentStateMachine<KVQuery, KVAnswer>> {
    return overTree(this.#tree);
  }

  /** Creates an independent machine with the same state. Leaves that neither has changed since are shared. */
  clone(): ConcurrentKVStateMachine {
    const machine = new ConcurrentKVStateMachine();
    machine.#tree = new Tree(this.#tree);
    return machine;
  }

  /** Does nothing: the machine has no resources to free. */
  close(): void {}
}
