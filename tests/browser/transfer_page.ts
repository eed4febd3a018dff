/**
 * Page that recovers a large state from a server into IndexedDB and sends it
 * back.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { NodeHost, type Replica } from "../../mod.ts";
import {
  IndexedDBKVStateMachine,
  IndexedDBLogDB,
  IndexedDBSnapshotStore,
} from "../../src/indexeddb/mod.ts";

const CLUSTER = 1n;
/** Body size of one request, in bytes. */
const POST_BYTES = 4 * 1024 * 1024;

let logDB: IndexedDBLogDB | undefined;
let snapshots: IndexedDBSnapshotStore | undefined;
let host: NodeHost | undefined;
let replica: Replica | undefined;

/**
 * Imports the snapshot at `url` and recovers it into IndexedDB; resolves to the
 * machine's hash. The last argument is the machine's memory budget, in bytes.
 */
export async function importFrom(
  url: string,
  memoryBudgetBytes: number,
): Promise<string> {
  logDB = new IndexedDBLogDB("transfer-log");
  snapshots = new IndexedDBSnapshotStore("transfer-snapshots");
  host = new NodeHost({ logDB, snapshots });
  const { body } = await fetch(url);
  await host.importSnapshot(CLUSTER, body!);
  replica = await host.startOnDiskCluster(
    () => new IndexedDBKVStateMachine("transfer-state", { memoryBudgetBytes }),
    { clusterID: CLUSTER, nodeID: 1n },
  );
  return `${(await replica.getHash()).hash}`;
}

async function post(url: string, body?: BodyInit): Promise<void> {
  const { ok, status } = await fetch(url, { method: "POST", body: body ?? "" });
  if (!ok) throw new Error(`Server responded to ${url} with status ${status}`);
}

/**
 * Exports the state to `url` in numbered requests, one at a time: not every
 * browser streams a request's body. Without `url` the bytes are dropped.
 * Resolves to their number.
 */
export async function exportTo(url?: string): Promise<number> {
  const reader = replica!.exportSnapshot().getReader();
  const buffer = new Uint8Array(POST_BYTES);
  let [length, posts, total] = [0, 0, 0];
  const flush = async (): Promise<void> => {
    // As a blob: a devtools client that observes requests would retain a body
    // of bytes.
    const body = new Blob([buffer.subarray(0, length)]);
    if (url !== undefined) await post(`${url}/${posts++}`, body);
    total += length;
    length = 0;
  };
  for (;;) {
    const { value } = await reader.read();
    if (value === undefined) break;
    for (let at = 0; at < value.length;) {
      const part = value.subarray(at, at + POST_BYTES - length);
      buffer.set(part, length);
      at += part.length;
      length += part.length;
      if (length === POST_BYTES) await flush();
    }
  }
  if (length > 0) await flush();
  if (url !== undefined) await post(`${url}/end`);
  return total;
}

/** Stops the host and closes its stores. */
export async function close(): Promise<void> {
  await host?.stop();
  await snapshots?.close();
  await logDB?.close();
}
