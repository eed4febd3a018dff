/**
 * Outbox in a SQLite database.
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
 * Outbox in a SQLite database, for one process at a time: a
 * {@linkcode BlockOutbox} on a {@linkcode SqliteBlockStore}. A submission survives
 * a process that is killed and, with `durability: "strict"`, a power cut.
 */
export class SqliteOutbox extends BlockOutbox {
  /** Creates an outbox in the database at `path`, which is created, with its directory, at the first use. */
  constructor(path: string | URL, options: BlockOutboxOptions = {}) {
    super(() => new SqliteBlockStore(path), options);
  }
}
