/**
 * Snapshots of the server, as the source from which a replica far behind recovers.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { SnapshotSource } from "../../log/log.ts";
import type { MaybePromise } from "../../statemachine/types.ts";
import { loadOnce } from "../../statemachine/load.ts";
import { ErrSnapshotNotFound } from "../../snapshot/errors.ts";
import type { SnapshotInfo } from "../../snapshot/store.ts";
import type { Connection } from "./connection.ts";
import type { SnapshotFetch, SnapshotsParts } from "./snapshot_fetch.ts";

/** Loads what receives a snapshot. */
const loadFetch = /* @__PURE__ */ loadOnce(
  "receives snapshots of the server",
  () => import("./snapshot_fetch.ts"),
);

/** Newest snapshot of the server, while connected. */
export class RemoteSnapshots implements SnapshotSource {
  readonly #parts: SnapshotsParts;
  #offered: SnapshotFetch | undefined;
  readonly #active = new Set<SnapshotFetch>();
  #count = 0;

  /** Creates the snapshot source of one log. */
  constructor(parts: SnapshotsParts) {
    this.#parts = parts;
  }

  /** Requests the newest snapshot, which can be opened for `SYNC_SNAPSHOT_OFFER_MS`; empty without a connection. */
  list(clusterID: bigint): MaybePromise<readonly SnapshotInfo[]> {
    const connection = this.#parts.connection();
    if (clusterID !== this.#parts.clusterID || connection === undefined) {
      return [];
    }
    return this.#fetch(connection).then((fetch) => fetch ? [fetch.info] : []);
  }

  async #fetch(connection: Connection): Promise<SnapshotFetch | undefined> {
    const { SnapshotFetch } = await loadFetch();
    // It may have been lost while the code was loaded.
    if (this.#parts.connection() !== connection) return undefined;
    this.#offered?.end(new ErrSnapshotNotFound(this.#offered.id));
    const fetch: SnapshotFetch = new SnapshotFetch(
      `${++this.#count}`,
      this.#parts,
      connection,
      () => this.#active.delete(fetch),
    );
    this.#active.add(this.#offered = fetch);
    return await fetch.ready ? fetch : undefined;
  }

  /**
   * Streams the bytes of the container as they are received.
   *
   * @throws ErrSnapshotNotFound if the server has another snapshot now
   */
  async open(info: SnapshotInfo): Promise<ReadableStream<Uint8Array>> {
    let fetch = this.#offered;
    if (fetch?.id !== info.id || fetch.isOver) {
      const connection = this.#parts.connection();
      fetch = connection && await this.#fetch(connection);
    }
    if (fetch?.info.index !== info.index) {
      throw new ErrSnapshotNotFound(info.id);
    }
    this.#offered = undefined;
    return fetch.open();
  }

  /** Ends the transfers after a lost connection; one that is complete stays valid. */
  lost(error: unknown): void {
    for (const fetch of [...this.#active]) fetch.lost(error);
  }

  /** Ends all transfers, as the log is closed. */
  close(error: unknown): void {
    for (const fetch of [...this.#active]) fetch.end(error);
    this.#offered = undefined;
  }
}
