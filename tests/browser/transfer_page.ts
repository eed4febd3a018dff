/**
 * A page that takes a large state from a server, keeps it in IndexedDB and
 * gives it back, and that is killed while it recovers another one.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { kv, KVStateMachine, NodeHost, type Replica } from "../../mod.ts";
import {
  IndexedDBKVStateMachine,
  IndexedDBLogDB,
  IndexedDBSnapshotStore,
} from "../../src/indexeddb/mod.ts";

const CLUSTER = 1n;
/** What the machine may keep in memory, in bytes: far less than the state. */
const MEMORY_BUDGET_BYTES = 16 * 1024 * 1024;
/** What one request carries back, in bytes. */
const POST_BYTES = 4 * 1024 * 1024;

let logDB: IndexedDBLogDB | undefined;
let snapshots: IndexedDBSnapshotStore | undefined;
let host: NodeHost | undefined;
let replica: Replica | undefined;

/** Imports what is at `url`, recovers it into IndexedDB, and gives its hash. */
export async function take(url: string): Promise<string> {
  logDB = new IndexedDBLogDB("transfer-log");
  snapshots = new IndexedDBSnapshotStore("transfer-snapshots");
  host = new NodeHost({ logDB, snapshots });
  const { body } = await fetch(url);
  await host.importSnapshot(CLUSTER, body!);
  replica = await host.startOnDiskCluster(
    () =>
      new IndexedDBKVStateMachine("transfer-state", {
        memoryBudgetBytes: MEMORY_BUDGET_BYTES,
      }),
    { clusterID: CLUSTER, nodeID: 1n },
  );
  return `${(await replica.getHash()).hash}`;
}

async function post(url: string, body?: BodyInit): Promise<void> {
  const { ok, status } = await fetch(url, { method: "POST", body: body ?? "" });
  if (!ok) throw new Error(`Server answers ${status}`);
}

/**
 * Exports the state to `url`, in numbered requests of which one at a time is
 * under way: not every browser streams a request's body. Without `url` it is
 * dropped. Resolves to the bytes.
 */
export async function give(url?: string): Promise<number> {
  const reader = replica!.exportSnapshot().getReader();
  const buffer = new Uint8Array(POST_BYTES);
  let [length, posts, total] = [0, 0, 0];
  const flush = async (): Promise<void> => {
    // As a blob: those who watch a page's requests keep a body of bytes.
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

/** Stops the host and closes what is kept. */
export async function close(): Promise<void> {
  await host?.stop();
  await snapshots?.close();
  await logDB?.close();
}

const ROWS = 512;
const VALUE_BYTES = 32 * 1024;

/** For machines that have none. */
const NO_FILES = { addFile: (): void => {} };

/** A value that is another one in every state and row. */
function valueOf(state: number, row: number): Uint8Array {
  const words = new Uint32Array(VALUE_BYTES / 4);
  let x = (state * ROWS + row + 1) * 0x9E3779B1 >>> 0;
  for (let i = 0; i < words.length; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    words[i] = x;
  }
  return new Uint8Array(words.buffer);
}

/** A row of a state; every second key is in all of them. */
function commandOf(state: number, row: number): Uint8Array {
  const name = row % 2 === 0 ? `${row}` : `${state}/${row}`;
  return kv.put(name, valueOf(state, row));
}

function machineOnDisk(): IndexedDBKVStateMachine {
  return new IndexedDBKVStateMachine("crash-state", {
    memoryBudgetBytes: MEMORY_BUDGET_BYTES / 4,
  });
}

/** What a machine on disk holds. */
export interface Held {
  /** The machine's hash. */
  readonly hash: string;
  /** How many rows it has. */
  readonly rows: number;
  /** The index it is at. */
  readonly index: number;
}

async function heldBy(
  machine: IndexedDBKVStateMachine,
  index: number,
): Promise<Held> {
  return {
    hash: `${machine.getHash()}`,
    rows: await machine.lookup(kv.count()),
    index,
  };
}

/** Makes the old state, durably, and gives it. */
export async function keep(): Promise<Held> {
  const machine = machineOnDisk();
  await machine.open(new AbortController().signal);
  for (let row = 0; row < ROWS; row++) {
    await machine.update([{ index: row + 1, cmd: commandOf(0, row) }]);
  }
  await machine.sync();
  const held = await heldBy(machine, ROWS);
  await machine.close();
  return held;
}

/** The state that is kept. Reads every row of it. */
export async function held(): Promise<Held> {
  const machine = machineOnDisk();
  const index = await machine.open(new AbortController().signal);
  const memory = new KVStateMachine();
  const context = machine.prepareSnapshot();
  const { readable, writable } = new TransformStream<Uint8Array>();
  const { signal } = new AbortController();
  const saving = machine.saveSnapshot(context, writable, signal)
    .then(() => writable.close());
  // A payload whose rows are not those of its hash is refused.
  await Promise.all([
    memory.recoverFromSnapshot(readable, [], signal),
    saving,
  ]);
  const held = await heldBy(machine, index);
  await machine.close();
  return held;
}

async function tell(what: string): Promise<void> {
  await fetch("/told", { method: "POST", body: what });
}

/** How many blocks there are in the machine's database. */
async function countBlocks(): Promise<number> {
  let blocks = 0;
  for (const { name } of await indexedDB.databases()) {
    if (!name!.includes("crash-state")) continue;
    const db = await settled(indexedDB.open(name!));
    for (const store of db.objectStoreNames) {
      blocks += await settled(db.transaction(store).objectStore(store).count());
    }
    db.close();
  }
  return blocks;
}

function settled<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = (): void => resolve(request.result);
    request.onerror = (): void => reject(request.error);
  });
}

/** The hash of a state. */
export function hashOf(state: number): string {
  const memory = new KVStateMachine();
  for (let row = 0; row < ROWS; row++) memory.update(commandOf(state, row));
  return `${memory.getHash()}`;
}

/**
 * Recovers another state over the one that is kept. Tells the server of every
 * `tellBytes` how much of it the machine has taken in. If `until` is below 1, it
 * goes no further than that, and tells how many blocks were written.
 */
export async function recover(
  state: number,
  until: number,
  tellBytes: number,
): Promise<Held> {
  const { signal } = new AbortController();
  const memory = new KVStateMachine();
  for (let row = 0; row < ROWS; row++) memory.update(commandOf(state, row));
  let taken = 0;
  let told = 0;
  const stop = until * ROWS * VALUE_BYTES;
  const { readable, writable } = new TransformStream<Uint8Array>(
    {
      async transform(chunk, controller): Promise<void> {
        if (until < 1 && taken >= stop) {
          const written = await countBlocks() - blocks;
          await tell(`stopped ${written}`);
          await new Promise(() => {});
        }
        controller.enqueue(chunk);
        taken += chunk.length;
        if (taken < told + tellBytes) return;
        told = taken;
        await tell(`taken ${taken / (ROWS * VALUE_BYTES)}`);
      },
    },
    { highWaterMark: 0 },
    { highWaterMark: 0 },
  );
  const machine = machineOnDisk();
  const index = await machine.open(signal);
  const blocks = await countBlocks();
  const saving = memory.saveSnapshot(writable, NO_FILES, signal)
    .then(() => writable.close());
  await Promise.all([machine.recoverFromSnapshot(readable, signal), saving]);
  if (machine.getHash() !== memory.getHash()) throw new Error("Hashes differ");
  const held = await heldBy(machine, index);
  await machine.close();
  return held;
}
