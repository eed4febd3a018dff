/**
 * Outbox in IndexedDB.
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

/** Options of {@linkcode IndexedDBOutbox}. */
export interface IndexedDBOutboxOptions
  extends IndexedDBOptions, Pick<BlockOutboxOptions, "durability"> {
  /**
   * Time, random numbers and timers.
   *
   * @default {the real ones}
   */
  readonly env?: NonNullable<IndexedDBOptions["env"]>;
}

/**
 * Outbox in an IndexedDB database of its own: a {@linkcode BlockOutbox} on an
 * {@linkcode IndexedDBBlockStore}. A submission survives the end of the browser
 * and, with `durability: "strict"`, a power cut.
 */
export class IndexedDBOutbox extends BlockOutbox {
  /** Creates an outbox in the database of that name, which is opened at the first use. */
  constructor(name: string, options: IndexedDBOutboxOptions = {}) {
    super(() => new IndexedDBBlockStore(name, options), options);
  }
}
