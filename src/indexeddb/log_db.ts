/**
 * Logs of clusters in IndexedDB.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { BlockLogDB, type BlockLogOptions } from "../log/block_log.ts";
import { IndexedDBBlockStore, type IndexedDBOptions } from "./block_store.ts";

/** What an {@linkcode IndexedDBLogDB} can be told. */
export interface IndexedDBLogOptions
  extends IndexedDBOptions, Pick<BlockLogOptions, "durability" | "snapshots"> {
  /** Time, random numbers and timers; by default the real ones. */
  readonly env?: NonNullable<IndexedDBOptions["env"]>;
}

/**
 * Logs of clusters in a database of their own: {@linkcode BlockLogDB} over
 * {@linkcode IndexedDBBlockStore}. An append that is answered survives a power
 * cut, unless `durability` is `normal`.
 */
export class IndexedDBLogDB extends BlockLogDB {
  /** The logs in the database of that name; nothing is opened yet. */
  constructor(name: string, options: IndexedDBLogOptions = {}) {
    super(() => new IndexedDBBlockStore(name, options), options);
  }
}
