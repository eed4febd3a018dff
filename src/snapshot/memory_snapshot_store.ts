/**
 * Snapshots kept in memory: the twin of every {@linkcode SnapshotStore}, for
 * tests, and for replicas that need not outlive their process.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { type Chunks, collectChunks, replayChunks } from "./memory_stream.ts";
import { ErrSnapshotNotFound } from "./errors.ts";
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

/** A {@linkcode SnapshotStore} in memory. After `close()` its methods throw. */
export class MemorySnapshotStore implements SnapshotStore {
  /** The complete ones, the latest made last. */
  readonly #snapshots = new Map<string, [SnapshotInfo, Chunks]>();
  #made = 0;
  #closed = false;

  #check(): void {
    if (this.#closed) throw new Error("Snapshot store is closed");
  }

  /** Begins a snapshot. */
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
          throw new Error("Snapshot is not written to its end");
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

  /** The complete snapshots of a cluster, as the port orders them. */
  list(clusterID: bigint): readonly SnapshotInfo[] {
    this.#check();
    return [...this.#snapshots.values()].map(([info]) => info)
      .filter((info) => info.clusterID === clusterID).reverse()
      .sort(compareSnapshots);
  }

  /**
   * The container's bytes.
   *
   * @throws ErrSnapshotNotFound if it is not, or no longer, there
   */
  open(info: SnapshotInfo): ReadableStream<Uint8Array> {
    this.#check();
    const snapshot = this.#snapshots.get(info.id);
    if (!snapshot) throw new ErrSnapshotNotFound(info.id);
    return replayChunks(snapshot[1]);
  }

  /** Removes a snapshot; harmless when it is gone already. */
  remove(info: SnapshotInfo): void {
    this.#check();
    this.#snapshots.delete(info.id);
  }

  /** Clusters that have a snapshot here, in order of their ids. */
  clusters(): readonly bigint[] {
    this.#check();
    return clustersOf([...this.#snapshots.values()].map(([info]) => info));
  }

  /** Lets go of all snapshots; idempotent. */
  // deno-lint-ignore require-await
  async close(): Promise<void> {
    this.#closed = true;
    this.#snapshots.clear();
  }

  /** As `close()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
