/**
 * Storage for browsers: logs, snapshots, outboxes and key-value machines in
 * IndexedDB, external files in the Origin Private File System, and the storage mode
 * of a page.
 *
 * This module is browser compatible.
 *
 * ```ts ignore
 * import { kv, NodeHost } from "../../mod.ts";
 * import {
 *   IndexedDBLogDB,
 *   IndexedDBSnapshotStore,
 *   requestPersistence,
 *   storageMode,
 * } from "./mod.ts";
 *
 * if (await storageMode() === "memory") console.log("Nothing is stored");
 * console.log(await requestPersistence());
 * const host = new NodeHost({
 *   logDB: new IndexedDBLogDB("app-log"),
 *   snapshots: new IndexedDBSnapshotStore("app-snapshots"),
 * });
 * ```
 *
 * ## A store
 *
 * Each object has its own database under the name it is given, opened by the first
 * call. While one page has it open, another page gets `ErrStoreLocked`. (The lock is
 * a Web Lock, which the browser releases when the page ends. Pages that are not in a
 * secure context have no Web Locks: opening fails with `ErrStoreUnavailable`, and
 * `storageStatus()` returns the reason.)
 *
 * A page that enters the back/forward cache releases its stores. When it is shown
 * again it opens them, unless another page has used them since: then they fail with
 * `ErrStoreLocked`, and the page has to be reloaded.
 *
 * A store gets a random identity in the transaction that creates it. If it is lost,
 * because the browser evicted it or the user cleared it, and created again, its
 * identity is another one: opening it with the recorded identity fails with
 * `ErrStoreVanished` instead of returning an empty store (U2). If a store is deleted
 * while it is open, the next call fails.
 *
 * ## Versions
 *
 * The version of a database is the version of its layout, 1 so far: one object store
 * for blocks and one for metadata. The content of the blocks has its own versions.
 * Code that changes the layout uses the next version and converts the data in the
 * upgrade. The upgrade waits until pages with older code have closed the database:
 * they finish their transactions, close it, and later calls fail with
 * `ErrStoreVersion`, as does older code that opens it later. So older code never
 * writes to a newer store (U14). The upgrading page gets events while it waits
 * (`onEvent`), and fails with `ErrStoreBlocked` if it waits too long.
 *
 * ## Outcomes
 *
 * A write that fails with `ErrUnknownOutcome` may or may not have taken effect: the
 * connection was lost while it was being committed. After any other error nothing
 * was changed, and the store can be used again; after `ErrStoreFull`, once there is
 * room.
 *
 * ## Durability
 *
 * `relaxed` writes survive the end of the browser, `strict` ones also a power cut, in
 * all current browsers.
 *
 * @module
 */

export { IndexedDBBlockStore, type IndexedDBOptions } from "./block_store.ts";
export type { StoreEvent } from "./connection.ts";
export * from "./device_id.ts";
export { ErrStoreUnavailable } from "./errors.ts";
export * from "./kv_state_machine.ts";
export * from "./log_db.ts";
export * from "./opfs_file_store.ts";
export * from "./outbox.ts";
export * from "./snapshot_store.ts";
export * from "./storage.ts";
// Base classes and types of the exports above.
export { BlockLogDB, type BlockLogOptions } from "../log/block_log.ts";
export {
  BlockOutbox,
  type BlockOutboxOptions,
} from "../offline/block_outbox.ts";
export {
  BlockSnapshotStore,
  type BlockSnapshotStoreOptions,
} from "../snapshot/block_snapshot_store.ts";
export {
  ErrStoreBlocked,
  ErrStoreCorrupted,
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
