/**
 * How safe what a page stores is from the browser itself.
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
 * What a page may expect of its storage. `persistent`: kept until the user
 * clears it. `best-effort`: the browser may clear it when space is short, and
 * Safari does after seven days of use without a visit (U1). `memory`: nothing
 * can be stored; run on the stores in memory, and say so (U9).
 */
export type StorageMode = "persistent" | "best-effort" | "memory";

/** Storage of a page, with the reason where nothing can be kept. */
export interface StorageStatus {
  /** Mode of the page's storage. */
  readonly mode: StorageMode;
  /**
   * Reason for which nothing can be kept, in words for people, with what to do;
   * only where the mode is `memory`. A store that is opened all the same fails with it.
   */
  readonly reason?: string;
}

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
  /** By which a store is kept to one page; null for nothing. */
  readonly locks?: LockManager | null;
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
 * Mode of this page's storage (U1, U9): {@linkcode storageStatus} says the reason,
 * too. Never rejects and never hangs.
 */
export async function storageMode(
  options: StorageOptions = {},
): Promise<StorageMode> {
  return (await storageStatus(options)).mode;
}

/**
 * Storage mode of this page, with the reason if nothing can be kept (U1, U9). Never rejects and never hangs. A private window counts as
 * what it does: some browsers store nothing in it, and others until it is closed,
 * which no page can tell from storing. Storage that is full is still there (U8).
 *
 * A page that is not in a secure context, such as one at `http://192.168.1.2`, has
 * no Web Locks, and so keeps nothing: run it on the stores in memory, and show the
 * reason.
 */
export async function storageStatus(
  options: StorageOptions = {},
): Promise<StorageStatus> {
  const { indexedDB = globalThis.indexedDB, env = systemEnv } = options;
  const { locks = globalThis.navigator?.locks } = options;
  const ms = options.timeoutMs ?? STORE_OPEN_MS_MAX;
  if (!indexedDB) return { mode: "memory", reason: MISSING };
  if (!locks) return { mode: "memory", reason: insecureReason() };
  const refused = await within(
    env,
    ms,
    "it does not answer",
    (async () => {
      try {
        // What the browser refuses it may also throw.
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
        `The browser refuses to keep anything here, as in a private window or where site data is blocked: ${refused}`,
    };
  }
  const kept = await within(
    env,
    ms,
    false,
    (async () => await managerOf(options)?.persisted() ?? false)(),
  );
  return { mode: kept ? "persistent" : "best-effort" };
}

const MISSING =
  "Nothing can be kept here, since there is no IndexedDB: use the stores in memory";

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
