/**
 * Logs of clusters in IndexedDB.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { BlockLogDB, type BlockLogOptions } from "../log/block_log.ts";
import { IndexedDBBlockStore, type IndexedDBOptions } from "./block_store.ts";

/** Options of {@linkcode IndexedDBLogDB}. */
export interface IndexedDBLogOptions
  extends IndexedDBOptions, Pick<BlockLogOptions, "durability" | "snapshots"> {
  /** Clock, random numbers and timers. @default {systemEnv} */
  readonly env?: NonNullable<IndexedDBOptions["env"]>;
}

/**
 * Logs of clusters in their own database: {@linkcode BlockLogDB} over
 * {@linkcode IndexedDBBlockStore}. A resolved append survives a power cut, unless
 * `durability` is `normal`.
 */
export class IndexedDBLogDB extends BlockLogDB {
  /** Creates logs in the database `name`; opens nothing yet. */
  constructor(name: string, options: IndexedDBLogOptions = {}) {
    super(() => new IndexedDBBlockStore(name, options), options);
  }
}
