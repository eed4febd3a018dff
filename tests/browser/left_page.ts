/**
 * A page that has a store, for tests that leave it and come back.
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

/** Puts a block, in a store that is opened if the page has none. */
export async function put(value: number): Promise<void> {
  store ??= new IndexedDBBlockStore(NAME);
  const bytes = new Uint8Array([value]);
  await store.write({ put: [{ key: "a", bytes }] }, "strict");
}

/** The value of the block; of a page that was loaded again, in a store of its own. */
export async function get(): Promise<number | undefined> {
  store ??= new IndexedDBBlockStore(NAME);
  return (await store.get(["a"]))[0]?.[0];
}

/** Name and message of the error with which a second object of the store fails in this page. */
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
