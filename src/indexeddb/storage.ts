/**
 * How safe what a page stores is from the browser itself.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { promisifyRequest } from "../deps/idb_keyval.ts";
import { type Env, systemEnv } from "../env.ts";
import { PERSISTENCE_MS_MAX, STORE_OPEN_MS_MAX } from "../limits.ts";
import { ErrStoreFull } from "../store/errors.ts";
import { storeError } from "./open.ts";

/**
 * What a page may expect of its storage. `persistent`: kept until the user
 * clears it. `best-effort`: the browser may clear it when space is short, and
 * Safari does after seven days of use without a visit (U1). `memory`: nothing
 * can be stored; run on the stores in memory, and say so (U9).
 */
export type StorageMode = "persistent" | "best-effort" | "memory";

/**
 * What the browser answered: `persistent` or `best-effort` if it did,
 * `unsupported` if it cannot be asked, and `unanswered` if it asked the user and
 * there was no answer yet; `storageMode()` tells later.
 */
export type PersistenceAnswer =
  | "persistent"
  | "best-effort"
  | "unsupported"
  | "unanswered";

/** What the questions about storage are asked of; each part has the browser's as its default. */
export interface StorageOptions {
  /** Where databases are; null for nowhere. */
  readonly indexedDB?: IDBFactory | null;
  /** What knows about persistence; null for nothing. */
  readonly storage?: Pick<StorageManager, "persist" | "persisted"> | null;
  /** Time, random numbers and timers. */
  readonly env?: Env;
  /**
   * How long the browser's answer is waited for, in milliseconds.
   *
   * @default {5000}
   */
  readonly timeoutMs?: number;
}

const PROBE = "sampan-probe";

/** What settles first; `late` after `ms`, and also if `promise` rejects. */
function within<T>(
  env: Env,
  ms: number,
  late: T,
  promise: Promise<T>,
): Promise<T> {
  return new Promise((resolve) => {
    const cancel = env.setTimer(() => resolve(late), ms);
    // Never rejects: the rejection is handled before it goes on.
    promise.catch(() => late).then((value) => {
      cancel();
      resolve(value);
    });
  });
}

function managerOf(
  { storage }: StorageOptions,
): Pick<StorageManager, "persist" | "persisted"> | null | undefined {
  return storage === undefined ? globalThis.navigator?.storage : storage;
}

/** Whether a database can be made and written to; it is taken away again. */
async function probe(factory: IDBFactory): Promise<boolean> {
  const request = factory.open(PROBE);
  request.onupgradeneeded = () =>
    request.result.createObjectStore(PROBE).put(0, 0);
  let db: IDBDatabase;
  try {
    db = await promisifyRequest(request);
  } catch (error) {
    if (!(storeError(error) instanceof ErrStoreFull)) throw error;
    // Full of what this page has stored, or with no room for anything at all.
    // Firefox before 126 cannot tell which: what is opened there will.
    return (await factory.databases?.())?.length !== 0;
  }
  db.close();
  // It may take its time.
  factory.deleteDatabase(PROBE);
  return true;
}

/**
 * What this page may expect of its storage (U1, U9). Never rejects and never
 * hangs. A private window counts as what it does: some browsers store nothing in
 * it, and others until it is closed, which no page can tell from storing. Storage
 * that is full is still there (U8).
 */
export async function storageMode(
  options: StorageOptions = {},
): Promise<StorageMode> {
  const { indexedDB = globalThis.indexedDB, env = systemEnv } = options;
  const ms = options.timeoutMs ?? STORE_OPEN_MS_MAX;
  const stores = indexedDB
    ? await within(
      env,
      ms,
      false,
      // What the browser refuses it may also throw.
      (async () => await probe(indexedDB))(),
    )
    : false;
  if (!stores) return "memory";
  const kept = await within(
    env,
    ms,
    false,
    (async () => await managerOf(options)?.persisted() ?? false)(),
  );
  return kept ? "persistent" : "best-effort";
}

/**
 * Asks the browser to keep this page's storage until the user clears it (U3).
 * Never rejects and never hangs: Firefox asks the user, and waits for as long as
 * the user does.
 */
export async function requestPersistence(
  options: StorageOptions = {},
): Promise<PersistenceAnswer> {
  const manager = managerOf(options);
  if (!manager?.persist) return "unsupported";
  return await within<PersistenceAnswer>(
    options.env ?? systemEnv,
    options.timeoutMs ?? PERSISTENCE_MS_MAX,
    "unanswered",
    (async () => {
      try {
        return await manager.persist() ? "persistent" : "best-effort";
      } catch {
        return "unsupported";
      }
    })(),
  );
}
