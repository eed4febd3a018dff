/**
 * Common part of the measurements in pages: rows of 16 and 128 bytes, and the
 * interface of the stores.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** Number of keys. */
export const KEYS = 100_000;

/** Row that is put. */
export interface Row {
  readonly key: string;
  readonly value: Uint8Array;
}

/** Store of rows. */
export interface Peer {
  readonly name: string;
  /** Keeps rows in one step. */
  put(rows: readonly Row[]): Promise<void>;
  /** Returns the value of a key. */
  get(key: string): Promise<unknown>;
  /** Closes what it has. */
  end(): Promise<void> | void;
}

/** The key of a row, of 16 bytes. */
export function keyOf(i: number): string {
  return `${i}`.padStart(16, "0");
}

let salt = 0;

function rowOf(i: number): Row {
  const value = new Uint8Array(128).fill(++salt);
  value[0] = i;
  return { key: keyOf(i), value };
}

/** Rows one after another. */
export function rowsOf(from: number, count: number): Row[] {
  return Array.from({ length: count }, (_, i) => rowOf(from + i));
}

/** Rows at random, the same in every run. */
function randomRows(count: number, keys: number): Row[] {
  return Array.from({ length: count }, () => {
    salt = (Math.imul(salt, 1664525) + 1013904223) >>> 0;
    return rowOf(salt % keys);
  });
}

/** Puts batches of 1000 rows; how long each took, in milliseconds. */
export async function overwrites(
  peer: Peer,
  batches: number,
  keys: number = KEYS,
): Promise<number[]> {
  const times: number[] = [];
  for (let i = 0; i < batches; i++) {
    const rows = randomRows(1000, keys);
    const began = performance.now();
    await peer.put(rows);
    times.push(performance.now() - began);
  }
  return times;
}

/** Rows a second, of batches of 1000. */
export function rateOf(times: readonly number[]): number {
  return times.length * 1e6 / times.reduce((sum, time) => sum + time, 0);
}

/** The value in the middle. */
export function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]!;
}

/** A database with one object store, `rows`. */
export function openRows(name: string): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const request = globalThis.indexedDB.open(name);
    request.onupgradeneeded = () => request.result.createObjectStore("rows");
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** Waits for a transaction. */
export function committed(transaction: IDBTransaction): Promise<void> {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error);
  });
}
