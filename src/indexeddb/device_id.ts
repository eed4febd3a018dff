/**
 * Node id of this device, stored in IndexedDB.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  get,
  promisifyRequest,
  update,
  type UseStore,
} from "../deps/idb_keyval.ts";
import { newNodeID } from "../nodehost/node_id.ts";
import { storeError } from "./open.ts";

/** Options of {@linkcode deviceID}. */
export interface DeviceIDOptions {
  /**
   * Name of the database that stores the id.
   *
   * @default {"sampan-device"}
   */
  readonly name?: string | undefined;
  /** Factory of databases; null to store nothing. @default {globalThis.indexedDB} */
  readonly indexedDB?: IDBFactory | null | undefined;
}

const STORE = "device";
const KEY = "nodeID";

/**
 * Node id of this device: random at the first call, and the same at every later one
 * in all tabs and workers of this origin. A device must not share its node id with
 * another replica of its clusters, in particular not with the server. Without
 * IndexedDB, each call returns another id.
 *
 * ```ts ignore
 * const replica = await host.startCluster(() => new KVStateMachine(), {
 *   clusterID: 1n,
 *   nodeID: await deviceID(),
 * });
 * ```
 *
 * @throws ErrStoreFull if there is no space left in the browser
 * @throws ErrStoreUnavailable if the browser refuses to store the id
 */
export async function deviceID(options: DeviceIDOptions = {}): Promise<bigint> {
  const { name = "sampan-device", indexedDB = globalThis.indexedDB } = options;
  if (!indexedDB) return newNodeID();
  try {
    const request = indexedDB.open(name);
    request.onupgradeneeded = (): void =>
      void request.result.createObjectStore(STORE);
    const db = await promisifyRequest(request);
    try {
      const use: UseStore = async (mode, callback) => {
        const transaction = db.transaction(STORE, mode, {
          durability: "strict",
        });
        return await callback(transaction.objectStore(STORE));
      };
      const stored = await get<unknown>(KEY, use);
      if (typeof stored === "bigint") return stored;
      let id = newNodeID();
      // In one transaction, so that two tabs that start at once agree.
      await update<unknown>(
        KEY,
        (stored) => typeof stored === "bigint" ? id = stored : id,
        use,
      );
      return id;
    } finally {
      db.close();
    }
  } catch (error) {
    throw storeError(error);
  }
}
