/**
 * Storage for Deno and Node: logs, outboxes and on-disk machines in SQLite databases,
 * snapshots and external files in directories. Each is locked by one process at a
 * time; another process gets `ErrStoreLocked` until the first one ends.
 *
 * Durability has two levels. With `full`, acknowledged data survives a power cut.
 * With `normal`, it survives the end of the process, and a power cut once `sync()`
 * has resolved. A `normal` machine over a `full` log loses nothing, since it catches
 * up from the log.
 *
 * This module needs Deno or Node.
 *
 * @module
 */

export {
  BlockLogDB,
  type BlockLogOptions,
  type LogBackup,
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
  UpdateFound,
  UpdateReads,
} from "../store/store.ts";
export type { LeaseMember, StoreLease } from "../store/lease.ts";
export { type BackupOptions, type BackupProgress } from "./backup.ts";
export * from "./data_folder.ts";
export * from "./directory_file_store.ts";
export * from "./file_snapshot_store.ts";
export * from "./sqlite_block_store.ts";
export * from "./sqlite_kv_state_machine.ts";
export * from "./sqlite_log.ts";
export * from "./sqlite_outbox.ts";
