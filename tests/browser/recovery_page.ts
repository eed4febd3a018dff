/**
 * Page that is killed during a recovery: of a machine from a snapshot, of a
 * replica that has fallen behind, or of a host that imports one.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { kv, KVStateMachine, MemoryLogDB, NodeHost } from "../../mod.ts";
import { verifySnapshot } from "../../src/ports/mod.ts";
import {
  IndexedDBKVStateMachine,
  IndexedDBLogDB,
  IndexedDBSnapshotStore,
} from "../../src/indexeddb/mod.ts";
import { systemEnv } from "../../src/env.ts";
import { SNAPSHOT_CHUNK_BYTES } from "../../src/limits.ts";
import type { SnapshotInfo } from "../../src/snapshot/mod.ts";

const ROWS = 256;
const VALUE_BYTES = 32 * 1024;
const STATE_BYTES = ROWS * VALUE_BYTES;
/** Memory budget of the machine, in bytes: less than the state. */
const MEMORY_BUDGET_BYTES = 4 * 1024 * 1024;
/** Number of progress reports for a state. */
const PARTS = 16;

const MACHINE = "crash-state";
const LOG = "crash-log";
const SNAPSHOTS = "crash-snapshots";

/** Component that recovers from the snapshot. */
export type Recoverer = "machine" | "replica" | "import";

/** State that the page has. */
export interface PageState {
  /** Hash of the state; empty if there is no state. */
  readonly hash: string;
  /** Applied index of the state. */
  readonly index: number;
}

const NOTHING: PageState = { hash: "", index: 0 };

/** File collection of machines without external files. */
const NO_FILES = { addFile: (): void => {} };

const never = new AbortController().signal;

/** Value of a row, different in every state and row. */
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

/** Command for a row of a state; all states share every second key. */
function commandOf(state: number, row: number): Uint8Array {
  const name = row % 2 === 0 ? `${row}` : `${state}/${row}`;
  return kv.put(name, valueOf(state, row));
}

/** Commands for all rows of a state. */
function commandsOf(state: number): Uint8Array[] {
  return Array.from({ length: ROWS }, (_, row) => commandOf(state, row));
}

function memoryOf(state: number): KVStateMachine {
  const memory = new KVStateMachine();
  for (const cmd of commandsOf(state)) memory.update(cmd);
  return memory;
}

function machineOnDisk(): IndexedDBKVStateMachine {
  return new IndexedDBKVStateMachine(MACHINE, {
    memoryBudgetBytes: MEMORY_BUDGET_BYTES,
  });
}

async function report(what: string): Promise<void> {
  await fetch("/told", { method: "POST", body: what });
}

function settled<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = (): void => resolve(request.result);
    request.onerror = (): void => reject(request.error);
  });
}

/** Number of blocks in a database. */
async function countBlocks(name: string): Promise<number> {
  const db = await settled(indexedDB.open(name));
  let blocks = 0;
  for (const store of db.objectStoreNames) {
    blocks += await settled(db.transaction(store).objectStore(store).count());
  }
  db.close();
  return blocks;
}

/**
 * Passes a state through and reports its progress to the server. If `until` is
 * below 1, it stops at that fraction, and reports how many blocks of `name`
 * were written until then.
 */
async function gauge(
  name: string,
  until: number,
): Promise<TransformStream<Uint8Array, Uint8Array>> {
  const blocks = await countBlocks(name);
  let taken = 0;
  let told = 0;
  return new TransformStream<Uint8Array, Uint8Array>(
    {
      async transform(chunk, controller): Promise<void> {
        if (until < 1 && taken >= until * STATE_BYTES) {
          await report(`stopped ${await countBlocks(name) - blocks}`);
          await new Promise(() => {});
        }
        controller.enqueue(chunk);
        taken += chunk.length;
        if (taken < told + STATE_BYTES / PARTS) return;
        told = taken;
        await report(`taken ${taken / STATE_BYTES}`);
      },
    },
    { highWaterMark: 1 },
    { highWaterMark: 0 },
  );
}

/**
 * State of the machine, read into a machine in memory that rejects rows which
 * do not match the hash.
 */
async function stateOfMachine(): Promise<PageState> {
  const machine = machineOnDisk();
  const index = await machine.open(never);
  const context = machine.prepareSnapshot();
  const { readable, writable } = new TransformStream<Uint8Array>();
  await Promise.all([
    new KVStateMachine().recoverFromSnapshot(readable, [], never),
    machine.saveSnapshot(context, writable, never)
      .then(() => writable.close()),
  ]);
  const held = { hash: `${machine.getHash()}`, index };
  await machine.close();
  return held;
}

/**
 * Cluster of the next import: the first without a state, since an import needs
 * a new cluster.
 */
let cluster = 1n;

/**
 * State of the newest import, read back; fails if the database has any other
 * blocks.
 */
async function stateOfImport(): Promise<PageState> {
  const store = new IndexedDBSnapshotStore(SNAPSHOTS);
  const infos: SnapshotInfo[] = [];
  for (cluster = 1n;; cluster++) {
    const [info] = await store.list(cluster);
    if (info === undefined) break;
    infos.push(info);
    const { transform, totals } = verifySnapshot();
    await (await store.open(info)).pipeThrough(transform)
      .pipeTo(new WritableStream());
    await totals;
  }
  await store.close();
  const expected = infos.reduce(
    (sum, { size }) => sum + 1 + Math.ceil(size / SNAPSHOT_CHUNK_BYTES),
    0,
  );
  // Besides the blocks, the database has records of its own.
  const others = await countBlocks(SNAPSHOTS) - expected;
  if (infos.length === 0) empty = others;
  else if (empty !== undefined && others !== empty) {
    throw new Error(
      `Store has ${others - empty} blocks that belong to no snapshot`,
    );
  }
  const last = infos.at(-1);
  if (last === undefined) return NOTHING;
  return await withHost(async (host) => {
    const replica = await host.startCluster(() => new KVStateMachine(), {
      clusterID: cluster - 1n,
      nodeID: 1n,
    });
    const { hash } = await replica.getHash();
    return { hash: `${hash}`, index: last.index };
  });
}

/** Number of records in the database besides blocks. */
let empty: number | undefined;

/**
 * Runs `use` with a host whose log and snapshots are durable, then closes them.
 */
async function withHost<T>(
  work: (host: NodeHost) => Promise<T>,
  open: (
    store: IndexedDBSnapshotStore,
    info: SnapshotInfo,
  ) => Promise<ReadableStream<Uint8Array>> = (store, info) => store.open(info),
): Promise<T> {
  const logDB = new IndexedDBLogDB(LOG);
  const store = new IndexedDBSnapshotStore(SNAPSHOTS);
  const snapshots = new Proxy(store, {
    get(target, name): unknown {
      if (name === "open") return (info: SnapshotInfo) => open(target, info);
      const member: unknown = Reflect.get(target, name, target);
      return typeof member === "function" ? member.bind(target) : member;
    },
  });
  const host = new NodeHost({ logDB, snapshots });
  try {
    return await work(host);
  } finally {
    await host.stop();
    await store.close();
    await logDB.close();
  }
}

/** State that the page has now. */
export function found(recoverer: Recoverer): Promise<PageState> {
  return recoverer === "import" ? stateOfImport() : stateOfMachine();
}

/**
 * Prepares a recovery over the present state; resolves to the state expected
 * afterwards.
 */
export async function prepare(
  recoverer: Recoverer,
  state: number,
  { index }: PageState,
): Promise<PageState> {
  const hash = `${memoryOf(state).getHash()}`;
  if (recoverer === "machine") return { hash, index };
  if (recoverer === "import") {
    return { hash, index: await exportedIndex(state) };
  }
  // Another replica advances, and compacts the log beyond the first one's
  // index.
  return await withHost(async (host) => {
    const replica = await host.startCluster(() => new KVStateMachine(), {
      clusterID: 1n,
      nodeID: 1n,
    });
    await replica.propose(kv.batch([]));
    await replica.requestSnapshot();
    await Promise.all(commandsOf(state).map((cmd) => replica.propose(cmd)));
    await replica.requestSnapshot();
    await replica.propose(kv.batch([]));
    const { index } = await replica.requestSnapshot();
    const { hash } = await replica.getHash();
    return { hash: `${hash}`, index };
  });
}

/** Snapshot exported by a replica in memory. */
async function exported(
  state: number,
): Promise<
  { host: NodeHost; index: number; body: ReadableStream<Uint8Array> }
> {
  // An interrupted import is repeated with the same export: a log that has
  // advanced rejects one with another history.
  const env = { ...systemEnv, random64: (): bigint => BigInt(state) };
  const host = new NodeHost({ logDB: new MemoryLogDB({ env }) });
  const replica = await host.startCluster(() => new KVStateMachine(), {
    clusterID: cluster,
    nodeID: 1n,
  });
  await Promise.all(commandsOf(state).map((cmd) => replica.propose(cmd)));
  const { index } = await replica.getHash();
  return { host, index, body: replica.exportSnapshot() };
}

async function exportedIndex(state: number): Promise<number> {
  const { host, index } = await exported(state);
  await host.stop();
  return index;
}

/**
 * Recovers from a snapshot, or from a part of it; resolves to the state
 * afterwards.
 */
export async function runRecovery(
  recoverer: Recoverer,
  state: number,
  until: number,
): Promise<PageState> {
  if (recoverer === "machine") await recover(state, until);
  else if (recoverer === "replica") await catchUp(until);
  else {
    const { host, body } = await exported(state);
    const through = await gauge(SNAPSHOTS, until);
    await withHost((here) =>
      here.importSnapshot(cluster, body.pipeThrough(through))
    );
    await host.stop();
  }
  return await found(recoverer);
}

async function recover(state: number, until: number): Promise<void> {
  const machine = machineOnDisk();
  await machine.open(never);
  const { readable, writable } = await gauge(MACHINE, until);
  const saving = memoryOf(state).saveSnapshot(writable, NO_FILES, never)
    .then(() => writable.close());
  await Promise.all([machine.recoverFromSnapshot(readable, never), saving]);
  await machine.close();
}

/** Starts the replica that is behind. */
async function catchUp(until: number): Promise<void> {
  await withHost(
    async (host) => {
      const replica = await host.startOnDiskCluster(machineOnDisk, {
        clusterID: 1n,
        nodeID: 2n,
      });
      await replica.read(kv.count());
    },
    async (store, info) =>
      (await store.open(info)).pipeThrough(await gauge(MACHINE, until)),
  );
}
