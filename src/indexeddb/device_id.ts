/**
 * Node id of this device, kept in IndexedDB.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { promisifyRequest } from "../deps/idb_keyval.ts";
import { newNodeID } from "../nodehost/node_id.ts";
import { storeError } from "./open.ts";

/** Options of {@linkcode deviceID}. */
export interface DeviceIDOptions {
  /**
   * Name of the database that keeps the id.
   *
   * @default {"sampan-device"}
   */
  readonly name?: string | undefined;
  /** Factory of databases; by default the browser's. With null nothing is stored. */
  readonly indexedDB?: IDBFactory | null | undefined;
}

const STORE = "device";
const KEY = "nodeID";

/**
 * Node id of this device: random, made at the first call and the same at every
 * later one, in every tab and worker of this origin. A device must not share its
 * node id with another replica of its clusters, least of all with the server's.
 * Where nothing can be kept (there is no IndexedDB), each call makes another one.
 *
 * ```ts ignore
 * const replica = await host.startCluster(() => new KVStateMachine(), {
 *   clusterID: 1n,
 *   nodeID: await deviceID(),
 * });
 * ```
 *
 * @throws ErrStoreFull if there is no room left in the browser
 * @throws ErrStoreUnavailable if the browser refuses to keep it
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
      // One transaction, so that two tabs that start at once agree.
      const transaction = db.transaction(STORE, "readwrite", {
        durability: "strict",
      });
      const store = transaction.objectStore(STORE);
      let kept: unknown;
      const reading = store.get(KEY);
      reading.onsuccess = (): void => {
        kept = reading.result;
        if (typeof kept === "bigint") return;
        kept = newNodeID();
        store.put(kept, KEY);
      };
      await promisifyRequest(transaction);
      return kept as bigint;
    } finally {
      db.close();
    }
  } catch (error) {
    throw storeError(error);
  }
}
