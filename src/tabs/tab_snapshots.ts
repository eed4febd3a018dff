/**
 * Snapshots of a host whose replicas tabs share: every tab reads those of the
 * device, and the leader changes them.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ErrSnapshotNotFound } from "../snapshot/errors.ts";
import type {
  SnapshotHeader,
  SnapshotInfo,
  SnapshotSink,
  SnapshotStore,
} from "../snapshot/store.ts";
import { ErrStoreLocked } from "../store/errors.ts";

/** Dependencies of {@linkcode TabSnapshots}. */
export interface TabSnapshotsParts {
  /** Returns the store of the device; undefined without one. */
  readonly store: () => SnapshotStore | undefined;
  /** Returns true while this tab leads. */
  readonly isLeading: () => boolean;
  /** Resolves once this tab leads. */
  readonly lead: () => Promise<void>;
}

/** Snapshot store of a tab. */
export class TabSnapshots implements SnapshotStore {
  readonly #parts: TabSnapshotsParts;

  /** Creates a store. */
  constructor(parts: TabSnapshotsParts) {
    this.#parts = parts;
  }

  /** Store of this tab, while it leads. */
  get #own(): SnapshotStore | undefined {
    return this.#parts.isLeading() ? this.#parts.store() : undefined;
  }

  /** Begins writing a snapshot, if this tab leads. */
  async create(
    header: SnapshotHeader,
    options?: { readonly imported?: boolean },
  ): Promise<SnapshotSink> {
    const own = this.#own;
    if (own === undefined) {
      throw new ErrStoreLocked(
        `Another tab leads, and takes the snapshots of cluster ${header.clusterID}`,
      );
    }
    return await own.create(header, options);
  }

  /** Lists the snapshots of the device. */
  async list(clusterID: bigint): Promise<readonly SnapshotInfo[]> {
    return await this.#parts.store()?.list(clusterID) ?? [];
  }

  /** Opens a snapshot of the device. */
  async open(info: SnapshotInfo): Promise<ReadableStream<Uint8Array>> {
    const store = this.#parts.store();
    if (store === undefined) throw new ErrSnapshotNotFound(info.id);
    return await store.open(info);
  }

  /** Removes a snapshot, if this tab leads: otherwise the leader does. */
  async remove(info: SnapshotInfo): Promise<void> {
    await this.#own?.remove(info);
  }

  /** Lists the clusters that have a snapshot on the device, once this tab leads. */
  async clusters(): Promise<readonly bigint[]> {
    await this.#parts.lead();
    return await this.#own?.clusters?.() ?? [];
  }

  /** Does nothing: the application closes its store. */
  close(): Promise<void> {
    return Promise.resolve();
  }

  /** Does nothing: the application closes its store. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
