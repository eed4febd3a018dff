/**
 * In-memory twin of the {@linkcode SnapshotStore}, for tests and for replicas that
 * need not outlive their process.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ErrClosed } from "../statemachine/errors.ts";
import { type Chunks, collectChunks, replayChunks } from "./memory_stream.ts";
import { ErrSnapshotNotFound, incompleteError } from "./errors.ts";
import {
  clustersOf,
  compareSnapshots,
  isSameSnapshot,
  type SnapshotHeader,
  type SnapshotInfo,
  type SnapshotSink,
  type SnapshotStore,
  type SnapshotTotals,
} from "./store.ts";

/** {@linkcode SnapshotStore} in memory. After `close()` its methods throw. */
export class MemorySnapshotStore implements SnapshotStore {
  /** Complete snapshots, the newest last. */
  readonly #snapshots = new Map<string, [SnapshotInfo, Chunks]>();
  #made = 0;
  #closed = false;

  #check(): void {
    if (this.#closed) {
      throw new ErrClosed("MemorySnapshotStore is closed; create another one");
    }
  }

  /** Begins writing a snapshot. */
  create(
    header: SnapshotHeader,
    options?: { readonly imported?: boolean },
  ): SnapshotSink {
    this.#check();
    let written: [Chunks, number] | undefined;
    let info: SnapshotInfo | undefined;
    const [writable, fail] = collectChunks((...all) => written = all);
    return {
      writable,
      commit: (totals: SnapshotTotals): SnapshotInfo => {
        this.#check();
        if (info) return info;
        if (!written) {
          throw incompleteError();
        }
        const id = `${++this.#made}`;
        const [chunks, size] = written;
        const imported = options?.imported ?? false;
        info = { ...header, id, size, files: totals.files, imported };
        for (const [other] of this.#snapshots.values()) {
          if (isSameSnapshot(other, info)) this.#snapshots.delete(other.id);
        }
        this.#snapshots.set(id, [info, chunks]);
        return info;
      },
      abort: (reason?: unknown): void => {
        written = undefined;
        fail(reason);
      },
    };
  }

  /** Complete snapshots of a cluster, in the order defined by the port. */
  list(clusterID: bigint): readonly SnapshotInfo[] {
    this.#check();
    return [...this.#snapshots.values()].map(([info]) => info)
      .filter((info) => info.clusterID === clusterID).reverse()
      .sort(compareSnapshots);
  }

  /**
   * Opens the container's bytes.
   *
   * @throws ErrSnapshotNotFound if it is not in the store, or was removed
   */
  open(info: SnapshotInfo): ReadableStream<Uint8Array> {
    this.#check();
    const snapshot = this.#snapshots.get(info.id);
    if (!snapshot) throw new ErrSnapshotNotFound(info.id);
    return replayChunks(snapshot[1]);
  }

  /** Removes a snapshot; does nothing if it was removed before. */
  remove(info: SnapshotInfo): void {
    this.#check();
    this.#snapshots.delete(info.id);
  }

  /** Ids of the clusters that have a snapshot here, in ascending order. */
  clusters(): readonly bigint[] {
    this.#check();
    return clustersOf([...this.#snapshots.values()].map(([info]) => info));
  }

  /** Closes the store and discards its snapshots; idempotent. */
  // deno-lint-ignore require-await
  async close(): Promise<void> {
    this.#closed = true;
    this.#snapshots.clear();
  }

  /** Closes the store. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
