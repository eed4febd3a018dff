/**
 * State of the leading tab, as the snapshot source from which a follower starts.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { SnapshotSource } from "../log/log.ts";
import { loadOnDemand } from "../nodehost/load.ts";
import { ErrSnapshotNotFound } from "../snapshot/errors.ts";
import type { SnapshotInfo, SnapshotStore } from "../snapshot/store.ts";
import { LeadsHere, type TabCalls } from "./tab_calls.ts";

/** Snapshots that the leader exports for this tab. */
export class LeaderSnapshots implements SnapshotSource {
  readonly #clusterID: bigint;
  readonly #calls: TabCalls;
  /** Store of the snapshot that was listed last: one store, so that each has another id. */
  #store: SnapshotStore | undefined;

  /** Creates the source of one cluster. */
  constructor(clusterID: bigint, calls: TabCalls) {
    this.#clusterID = clusterID;
    this.#calls = calls;
  }

  /** Asks the leader for its present state, and returns it as the only snapshot; none once this tab leads. */
  async list(clusterID: bigint): Promise<readonly SnapshotInfo[]> {
    if (clusterID !== this.#clusterID) return [];
    let parts: Uint8Array[] = [];
    try {
      await this.#calls.call(clusterID, "snapshot", undefined, {
        onPart: (bytes) => parts.push(bytes),
        onAgain: () => parts = [],
      });
    } catch (error) {
      if (error instanceof LeadsHere) return [];
      throw error;
    }
    const { copySnapshot, MemorySnapshotStore } = await loadOnDemand();
    const store = this.#store ??= new MemorySnapshotStore();
    for (const old of await store.list(clusterID)) await store.remove(old);
    const source = new ReadableStream<Uint8Array>({
      pull(controller): void {
        const next = parts.shift();
        if (next === undefined) controller.close();
        else controller.enqueue(next);
      },
    });
    return [await copySnapshot(source, store, () => {})];
  }

  /** Opens the snapshot that was listed last. */
  async open(info: SnapshotInfo): Promise<ReadableStream<Uint8Array>> {
    if (this.#store === undefined) throw new ErrSnapshotNotFound(info.id);
    return await this.#store.open(info);
  }
}
