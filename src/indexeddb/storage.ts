/**
 * Storage mode of a page: whether the browser stores its data, and may clear it.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { promisifyRequest } from "../deps/idb_keyval.ts";
import { messageOf } from "../describe.ts";
import { type Env, systemEnv } from "../env.ts";
import { PERSISTENCE_MS_MAX, STORE_OPEN_MS_MAX } from "../limits.ts";
import { ErrStoreFull } from "../store/errors.ts";
import { insecureReason } from "./errors.ts";
import { storeError } from "./open.ts";

/**
 * Durability of a page's storage. `persistent`: stored until the user clears it.
 * `best-effort`: the browser may clear it when space is short, and Safari does after
 * seven days of use without a visit (U1). `memory`: nothing can be stored; use the
 * in-memory stores, and tell the user (U9).
 */
export type StorageMode = "persistent" | "best-effort" | "memory";

/** Storage mode of a page, with the reason if nothing can be stored. */
export interface StorageStatus {
  /** Mode of the page's storage. */
  readonly mode: StorageMode;
  /**
   * Reason why nothing can be stored and what to do, as text for the user; set only
   * if the mode is `memory`. Opening a store then fails with it.
   */
  readonly reason?: string;
}

/**
 * Answer of the browser: `persistent` or `best-effort`, `unsupported` if it cannot be
 * asked, and `unanswered` if it asks the user and has no answer yet; call
 * `storageMode()` later.
 */
export type PersistenceAnswer =
  | "persistent"
  | "best-effort"
  | "unsupported"
  | "unanswered";

/** Options of the functions about storage; each defaults to the browser's API. */
export interface StorageOptions {
  /** Factory of databases; null to do without. */
  readonly indexedDB?: IDBFactory | null;
  /** Web Locks, which a store needs; null to do without. */
  readonly locks?: LockManager | null;
  /** Storage manager, which persistence needs; null to do without. */
  readonly storage?: Pick<StorageManager, "persist" | "persisted"> | null;
  /** Clock and timers. @default {systemEnv} */
  readonly env?: Env;
  /**
   * Longest wait for the browser's answer, in milliseconds.
   *
   * @default {5000}
   */
  readonly timeoutMs?: number;
}

const PROBE = "sampan-probe";

/** Value of `promise`, or `late` if it rejects or takes longer than `ms`. */
function within<T>(
  env: Env,
  ms: number,
  late: T,
  promise: Promise<T>,
): Promise<T> {
  return new Promise((resolve) => {
    const cancel = env.setTimer(() => resolve(late), ms);
    // Never rejects: the rejection is handled first.
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

/** True if this origin has a database, as after an earlier visit: data is stored then, and a start need not try it. */
async function hasDatabase(factory: IDBFactory): Promise<boolean> {
  const known = await factory.databases?.();
  return known?.some(({ name }) => name !== PROBE) ?? false;
}

/** True if a database can be created and written; it is deleted afterwards. */
async function probe(factory: IDBFactory): Promise<boolean> {
  if (await hasDatabase(factory)) return true;
  const request = factory.open(PROBE);
  request.onupgradeneeded = () =>
    request.result.createObjectStore(PROBE).put(0, 0);
  let db: IDBDatabase;
  try {
    db = await promisifyRequest(request);
  } catch (error) {
    if (!(storeError(error) instanceof ErrStoreFull)) throw error;
    // Either this page's data has filled the storage, or there is no room at all.
    // Firefox before 126 cannot tell which; opening a store will.
    return (await factory.databases?.())?.length !== 0;
  }
  db.close();
  // Not awaited: the deletion may take long.
  factory.deleteDatabase(PROBE);
  return true;
}

/**
 * Storage mode of this page (U1, U9); {@linkcode storageStatus} also returns the
 * reason. Never rejects and never hangs.
 */
export async function storageMode(
  options: StorageOptions = {},
): Promise<StorageMode> {
  return (await storageStatus(options)).mode;
}

/**
 * Storage mode of this page, with the reason if nothing can be stored (U1, U9). Never
 * rejects and never hangs. In a private window some browsers store nothing, and
 * others store data until it is closed, which a page cannot detect. Full storage
 * does not change the mode (U8).
 *
 * A page that is not in a secure context, such as one at `http://192.168.1.2`, has no
 * Web Locks and can store nothing: use the in-memory stores, and show the reason.
 */
export async function storageStatus(
  options: StorageOptions = {},
): Promise<StorageStatus> {
  const { indexedDB = globalThis.indexedDB, env = systemEnv } = options;
  const { locks = globalThis.navigator?.locks } = options;
  const ms = options.timeoutMs ?? STORE_OPEN_MS_MAX;
  if (!indexedDB) return { mode: "memory", reason: MISSING };
  if (!locks) return { mode: "memory", reason: insecureReason() };
  // Asked for while storing is tried.
  const persisted = within(
    env,
    ms,
    false,
    (async () => await managerOf(options)?.persisted() ?? false)(),
  );
  const refused = await within(
    env,
    ms,
    "it does not answer",
    (async () => {
      try {
        // A browser may also throw instead of refusing.
        return await probe(indexedDB) ? undefined : "there is no room at all";
      } catch (error) {
        return messageOf(error);
      }
    })(),
  );
  if (refused !== undefined) {
    return {
      mode: "memory",
      reason:
        `The browser refuses to store data here, as in a private window or if site data is blocked: ${refused}`,
    };
  }
  return { mode: await persisted ? "persistent" : "best-effort" };
}

const MISSING =
  "Nothing can be stored here, since the browser has no IndexedDB: use the in-memory stores";

/**
 * Asks the browser to keep this page's storage until the user clears it (U3). Never
 * rejects and never hangs, even while Firefox waits for the user's answer.
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
