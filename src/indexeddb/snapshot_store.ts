/**
 * Snapshots in IndexedDB.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { BlockSnapshotStore } from "../snapshot/block_snapshot_store.ts";
import { IndexedDBBlockStore, type IndexedDBOptions } from "./block_store.ts";

/**
 * Snapshots in a database of their own: {@linkcode BlockSnapshotStore} over
 * {@linkcode IndexedDBBlockStore}.
 */
export class IndexedDBSnapshotStore extends BlockSnapshotStore {
  /** The snapshots in the database of that name; nothing is opened yet. */
  constructor(name: string, options: IndexedDBOptions = {}) {
    super(() => new IndexedDBBlockStore(name, options), options);
  }
}
