/**
 * Page with a store, for tests that navigate away from it and back.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  IndexedDBBlockStore,
  type StorageStatus,
  storageStatus,
} from "../../src/indexeddb/mod.ts";

const NAME = "left";

let store: IndexedDBBlockStore | undefined;
let restored = 0;
globalThis.addEventListener("pageshow", (event) => {
  if ((event as PageTransitionEvent).persisted) restored++;
});

/** Writes a block; opens the store if the page has none open. */
export async function put(value: number): Promise<void> {
  store ??= new IndexedDBBlockStore(NAME);
  const bytes = new Uint8Array([value]);
  await store.write({ put: [{ key: "a", bytes }] }, "strict");
}

/**
 * Value of the block; after a reload, read from a store opened for this call.
 */
export async function get(): Promise<number | undefined> {
  store ??= new IndexedDBBlockStore(NAME);
  return (await store.get(["a"]))[0]?.[0];
}

/**
 * Name and message of the error thrown when this page opens the store a second
 * time.
 */
export async function twice(): Promise<string> {
  const second = new IndexedDBBlockStore(NAME);
  const said = await second.identity()
    .then(() => "none", (error) => `${error}`);
  await second.close();
  return said;
}

/** Number of returns from the back/forward cache. */
export function cached(): number {
  return restored;
}

/** Storage mode of the page. */
export async function status(): Promise<StorageStatus> {
  return await storageStatus();
}

/** Message of the error with which a store fails to open. */
export async function refused(): Promise<string> {
  const one = new IndexedDBBlockStore("refused");
  const said = await one.identity().then(() => "", (error) => error.message);
  await one.close();
  return said;
}
