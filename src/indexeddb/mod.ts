/**
 * What keeps logs, snapshots, machines and files in a browser: the ports over
 * IndexedDB, external files in the Origin Private File System, and what a page
 * should know of its storage.
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
 * if (await storageMode() === "memory") console.log("Nothing is kept here");
 * console.log(await requestPersistence());
 * const host = new NodeHost({
 *   logDB: new IndexedDBLogDB("app-log"),
 *   snapshots: new IndexedDBSnapshotStore("app-snapshots"),
 * });
 * ```
 *
 * ## A store
 *
 * Each object here has a database of its own under the name it is given, opened
 * with the first call and never shared: while one page has it, another gets
 * `ErrStoreLocked`. (The lock is a Web Lock, which the browser takes back from a
 * page that ends in whatever way. Where there are none, which is only where the
 * page is not served securely, opening fails with `ErrStoreUnavailable`, and
 * `storageStatus()` says why.)
 *
 * A page that is left lets go of its stores. If it comes back from the
 * back/forward cache, it opens them again by itself, unless another page has used
 * them since: then they fail with `ErrStoreLocked`, and the page has to be reloaded.
 *
 * A store was given a random identity in the transaction that made it. That of
 * a store which vanished, by eviction or because the user cleared it, and was
 * made anew, is another one: whoever wrote down the identity and opens the store
 * with it gets `ErrStoreVanished`, not an empty store (U2). A store that vanishes
 * while it is open says so at the next call.
 *
 * ## Versions
 *
 * The version of a database is the version of its layout, 1 so far: an object
 * store of blocks, one of what describes them. What is in the blocks has
 * versions of its own. Code that changes the layout takes the next number and
 * converts in the upgrade, which waits until pages with older code have let go:
 * they are told, finish the transaction under way, close the database and fail
 * from then on with `ErrStoreVersion`, as does older code that opens it later.
 * So older code never writes to a newer store (U14). The page that upgrades is
 * told how long it waits (`onEvent`), and gives up with `ErrStoreBlocked`.
 *
 * ## Outcomes
 *
 * A write that fails with `ErrUnknownOutcome` may or may not have taken effect:
 * the connection was lost when the browser had all of it and had not said that
 * it is committed. After any other error nothing was changed, and the store can
 * be used again; after `ErrStoreFull` once there is room.
 *
 * ## Durability
 *
 * `relaxed` survives the end of the browser, however it comes; `strict` also a
 * power cut, in browsers that know of durability, which all that are current do.
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
// What these build on, and what the signatures above name.
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
} from "../store/store.ts";
