/**
 * The outbox in IndexedDB.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  BlockOutbox,
  type BlockOutboxOptions,
} from "../offline/block_outbox.ts";
import { IndexedDBBlockStore, type IndexedDBOptions } from "./block_store.ts";

/** What an {@linkcode IndexedDBOutbox} can be told. */
export interface IndexedDBOutboxOptions
  extends IndexedDBOptions, Pick<BlockOutboxOptions, "durability"> {
  /** Time, random numbers and timers; by default the real ones. */
  readonly env?: NonNullable<IndexedDBOptions["env"]>;
}

/**
 * An outbox in a database of its own: {@linkcode BlockOutbox} over
 * {@linkcode IndexedDBBlockStore}. A command that was submitted survives the end
 * of the browser and, with `durability: "strict"`, a power cut.
 */
export class IndexedDBOutbox extends BlockOutbox {
  /** The outbox in the database of that name; nothing is opened yet. */
  constructor(name: string, options: IndexedDBOutboxOptions = {}) {
    super(() => new IndexedDBBlockStore(name, options), options);
  }
}
