/**
 * The in-memory twin of an outbox.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { MemoryBlockStore } from "../store/memory_block_store.ts";
import { BlockOutbox, type BlockOutboxOptions } from "./block_outbox.ts";

/** An outbox in memory, for tests and for pages that may keep nothing: a command is lost with its process. */
export class MemoryOutbox extends BlockOutbox {
  /** An empty outbox. */
  constructor(options: BlockOutboxOptions = {}) {
    super(() => new MemoryBlockStore(), options);
  }
}
