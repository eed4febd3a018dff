/**
 * Durability and use of the storage of a page, as far as the browser says.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** Durability and use of the storage of a page. */
export interface StorageReport {
  /** True if the browser stores the data until a person clears it. */
  readonly isPersisted: boolean;
  /** Bytes in use, if the browser says so. */
  readonly used: number | undefined;
  /** Bytes that may be used, if the browser says so. */
  readonly quota: number | undefined;
}

/** Durability and use of the storage of this page. */
export async function storageReport(): Promise<StorageReport | undefined> {
  const storage = globalThis.navigator?.storage as StorageManager | undefined;
  if (storage?.estimate === undefined) return undefined;
  const [{ usage, quota }, isPersisted] = await Promise.all([
    storage.estimate(),
    storage.persisted(),
  ]);
  return { isPersisted, used: usage, quota };
}
