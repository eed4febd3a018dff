/**
 * Port of a block store (named blocks of bytes in durable storage) and its
 * in-memory twin.
 *
 * This module is browser compatible.
 *
 * ```ts
 * import { MemoryBlockStore } from "./mod.ts";
 *
 * await using store = new MemoryBlockStore();
 * store.write({ put: [{ key: "a/1", bytes: new Uint8Array([1]) }] }, "strict");
 * console.log(store.keys("a/", "a0")); // [ "a/1" ]
 * ```
 *
 * @module
 */

export {
  ErrStoreBlocked,
  ErrStoreCorrupted,
  ErrStoreFailed,
  ErrStoreFull,
  ErrStoreLocked,
  ErrStoreVanished,
  ErrStoreVersion,
} from "./errors.ts";
export * from "./memory_block_store.ts";
export * from "./store.ts";
