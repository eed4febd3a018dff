/**
 * For Deno and Node: logs and on-disk machines in SQLite databases, snapshots and
 * external files in directories. Each belongs to one process at a time; another
 * one is refused with `ErrStoreLocked`, and may have it when that ends, however
 * it ends.
 *
 * Durability goes by name. `full`: what was answered survives a power cut.
 * `normal`: it survives a process that is killed, and `sync()` makes all of it
 * survive a power cut. A log that is `full` under a machine that is `normal`
 * loses nothing: the machine is brought up from the log.
 *
 * This module needs Deno or Node.
 *
 * @module
 */

export {
  BlockLogDB,
  type BlockLogOptions,
  type LogCopy,
} from "../log/block_log.ts";
export {
  BlockOutbox,
  type BlockOutboxOptions,
} from "../offline/block_outbox.ts";
export {
  ErrStoreBlocked,
  ErrStoreCorrupted,
  ErrStoreFailed,
  ErrStoreFull,
  ErrStoreLocked,
  ErrStoreVanished,
  ErrStoreVersion,
} from "../store/errors.ts";
export type {
  Block,
  BlockStore,
  Changes,
  Durability,
  ListOptions,
} from "../store/store.ts";
export { type BackupOptions, type BackupProgress } from "./backup.ts";
export * from "./data_folder.ts";
export * from "./directory_file_store.ts";
export * from "./file_snapshot_store.ts";
export * from "./sqlite_block_store.ts";
export * from "./sqlite_kv_state_machine.ts";
export * from "./sqlite_log.ts";
export * from "./sqlite_outbox.ts";
