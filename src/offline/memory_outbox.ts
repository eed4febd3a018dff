/**
 * In-memory twin of an outbox.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { MemoryBlockStore } from "../store/memory_block_store.ts";
import { BlockOutbox, type BlockOutboxOptions } from "./block_outbox.ts";

/** Outbox in memory, for tests and for pages that may store nothing: submissions end with the process. */
export class MemoryOutbox extends BlockOutbox {
  /** Creates an empty outbox. */
  constructor(options: BlockOutboxOptions = {}) {
    super(() => new MemoryBlockStore(), options);
  }
}
