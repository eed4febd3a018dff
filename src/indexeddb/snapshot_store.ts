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
 * Snapshots in their own database: {@linkcode BlockSnapshotStore} over
 * {@linkcode IndexedDBBlockStore}.
 */
export class IndexedDBSnapshotStore extends BlockSnapshotStore {
  /** Creates a snapshot store in the database `name`; opens nothing yet. */
  constructor(name: string, options: IndexedDBOptions = {}) {
    super(() => new IndexedDBBlockStore(name, options), options);
  }
}
