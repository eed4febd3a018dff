/**
 * Stores of a host that was given no others: in memory. Their code is loaded at the
 * first use, as most pages give a host stores that outlive it.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../env.ts";
import { ErrClusterClosed } from "../log/errors.ts";
import type { LogDB } from "../log/log.ts";
import { ErrSnapshotNotFound } from "../snapshot/errors.ts";
import type { FileStore } from "../snapshot/file_store.ts";
import type { SnapshotStore } from "../snapshot/store.ts";
import { loadOnce } from "../statemachine/load.ts";

/** Loads the stores. */
const loadStores = /* @__PURE__ */ loadOnce(
  "keeps logs and snapshots in memory",
  () => import("./memory_stores.ts"),
);

/** Store that is made at its first use. */
class Deferred<T extends { close(): Promise<void> }> {
  /** The store, once it is made. */
  made: T | undefined;
  readonly #what: string;
  readonly #make: () => Promise<T>;
  #isClosed = false;

  constructor(what: string, make: () => Promise<T>) {
    this.#what = what;
    this.#make = make;
  }

  /**
   * Returns the store, and makes it at the first call.
   *
   * @throws ErrClusterClosed after `close()`
   * @throws ErrCodeNotLoaded if its code could not be loaded
   */
  async get(): Promise<T> {
    const store = this.made ?? await this.#make();
    if (this.#isClosed) {
      throw new ErrClusterClosed(
        `${this.#what} of the host are closed; create another one`,
      );
    }
    return this.made ??= store;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await this.made?.close();
  }
}

/** Creates logs of clusters in memory. */
export function defaultLogDB(env: Env): LogDB {
  const logs = new Deferred(
    "Logs",
    async () => new (await loadStores()).MemoryLogDB({ env }),
  );
  const close = (): Promise<void> => logs.close();
  return {
    snapshots: snapshotStore(
      new Deferred("Snapshots", async () => (await logs.get()).snapshots),
    ),
    open: async (clusterID, nodeID) =>
      (await logs.get()).open(clusterID, nodeID),
    clusters: () => logs.made?.clusters() ?? [],
    removeData: (clusterID) => logs.made?.removeData(clusterID),
    close,
    [Symbol.asyncDispose]: close,
  };
}

/** Creates a snapshot store in memory. */
export function defaultSnapshots(): SnapshotStore {
  return snapshotStore(
    new Deferred(
      "Snapshots",
      async () => new (await loadStores()).MemorySnapshotStore(),
    ),
  );
}

function snapshotStore(store: Deferred<SnapshotStore>): SnapshotStore {
  const close = (): Promise<void> => store.close();
  return {
    create: async (header, options) =>
      await (await store.get()).create(header, options),
    list: (clusterID) => store.made?.list(clusterID) ?? [],
    open: (info) => {
      if (store.made === undefined) throw new ErrSnapshotNotFound(info.id);
      return store.made.open(info);
    },
    remove: (info) => store.made?.remove(info),
    clusters: () => store.made?.clusters?.() ?? [],
    close,
    [Symbol.asyncDispose]: close,
  };
}

/** Creates a file store in memory. */
export function defaultFiles(): FileStore {
  const files = new Deferred(
    "Files",
    async () => new (await loadStores()).MemoryFileStore(),
  );
  const close = (): Promise<void> => files.close();
  return {
    open: async (path) => (await files.get()).open(path),
    create: async (path) => (await files.get()).create(path),
    remove: (path) => files.made?.remove(path),
    list: (directory) => files.made?.list(directory) ?? [],
    close,
    [Symbol.asyncDispose]: close,
  };
}
