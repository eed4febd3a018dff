/**
 * The outbox in a SQLite database.
 *
 * This module needs Deno or Node.
 *
 * @module
 */

import {
  BlockOutbox,
  type BlockOutboxOptions,
} from "../offline/block_outbox.ts";
import { SqliteBlockStore } from "./sqlite_block_store.ts";

/**
 * An outbox in a SQLite database, for one process at a time:
 * {@linkcode BlockOutbox} over {@linkcode SqliteBlockStore}. A command that was
 * submitted survives a process that is killed and, with `durability: "strict"`,
 * a power cut.
 */
export class SqliteOutbox extends BlockOutbox {
  /** The outbox in the database at `path`, which is made, with its directory, when it is first needed. */
  constructor(path: string | URL, options: BlockOutboxOptions = {}) {
    super(() => new SqliteBlockStore(path), options);
  }
}
