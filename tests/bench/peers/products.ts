/**
 * The products of the comparison: how each is run, and what its figures leave
 * out.
 *
 * @module
 */

/** Runtime of a program. */
export type Runtime = "Deno" | "Node";

/** One product of the comparison. */
export interface Product {
  /** Name in the table. */
  readonly title: string;
  readonly runtime: Runtime;
  /** Program, relative to this folder; those of `npm/` run where the packages are installed. */
  readonly program: string;
  /** Arguments of the program. */
  readonly args: readonly string[];
  /** The works it does. */
  readonly works: readonly string[];
  /** Source of a module that loads what an offline page needs, to be bundled. */
  readonly page: string;
  /** Properties that its figures do not show: what it does not order, validate or keep. */
  readonly caveats: readonly string[];
}

const ALL: readonly string[] = ["W1", "W2", "W3", "W4", "W5", "W6", "W7"];

function without(...works: readonly string[]): readonly string[] {
  return ALL.filter((work) => !works.includes(work));
}

const MERGES =
  "Merges edits without an order: the server passes them on, validates nothing and refuses nothing.";

const NOT_DURABLE =
  "Edits are in memory; W7 reads a file that the application wrote as a whole when it closed.";

/** The products, by name. */
export const PRODUCTS: Readonly<Record<string, Product>> = {
  "sampan": {
    title: "Sampan",
    runtime: "Deno",
    program: "sampan.ts",
    args: [],
    works: ALL,
    page: `
      export { kv, NodeHost } from "@sampan/sampan";
      export { deviceID, IndexedDBKVStateMachine, IndexedDBOutbox } from "@sampan/sampan/indexeddb";
      export { RemoteLogDB } from "@sampan/sampan/sync/client";
    `,
    caveats: [
      "Orders every edit, tries it on a fork at the server, applies it exactly once, and hashes the state.",
      "W1 to W4: log of the server and outbox in memory, like the peers. W5: outbox and state in SQLite. W7: state in SQLite.",
    ],
  },
  "sampan-sqlite": {
    title: "Sampan, server on SQLite",
    runtime: "Deno",
    program: "sampan.ts",
    args: ["sqlite"],
    works: ["W1", "W2", "W3", "W4"],
    page: "",
    caveats: [
      "The server commits each batch with fsync before any client sees it; no server of the peers does.",
    ],
  },
  "sampan-propose": {
    title: "Sampan, propose() in place of submit()",
    runtime: "Deno",
    program: "sampan.ts",
    args: ["propose"],
    works: ["W4"],
    page: "",
    caveats: ["Edits are not kept on the device until they are committed."],
  },
  "yjs": {
    title: "Yjs",
    runtime: "Node",
    program: "npm/yjs.ts",
    args: [],
    works: ALL,
    page: `
      export { Doc } from "yjs";
      export { WebsocketProvider } from "y-websocket";
      export { IndexeddbPersistence } from "y-indexeddb";
    `,
    caveats: [MERGES, NOT_DURABLE],
  },
  "yjs-deno": {
    title: "Yjs in Deno",
    runtime: "Deno",
    program: "npm/yjs.ts",
    args: [],
    works: without("W6"),
    page: "",
    caveats: [MERGES, NOT_DURABLE],
  },
  "loro": {
    title: "Loro",
    runtime: "Node",
    program: "npm/loro.ts",
    args: [],
    works: ALL,
    page: `export { LoroDoc } from "loro-crdt/bundler";`,
    caveats: [
      MERGES,
      NOT_DURABLE,
      "W6 contains no connection and no storage, which the application writes itself; its WebAssembly is counted.",
    ],
  },
  "automerge": {
    title: "Automerge Repo",
    runtime: "Node",
    program: "npm/automerge.ts",
    args: [],
    works: without("W6"),
    page: "",
    caveats: [
      MERGES,
      "W5: repo.flush() after all edits. The repository saves and sends changes after a delay.",
    ],
  },
  "tinybase": {
    title: "TinyBase",
    runtime: "Node",
    program: "npm/tinybase.ts",
    args: [],
    works: without("W4"),
    page: `
      export { createMergeableStore } from "tinybase";
      export { createIndexedDbPersister } from "tinybase/persisters/persister-indexed-db";
      export { createWsSynchronizer } from "tinybase/synchronizers/synchronizer-ws-client";
    `,
    caveats: [
      MERGES,
      "The last writer of a cell wins by the clocks of the devices. The file holds the whole store and is written as a whole. No text.",
    ],
  },
  "rxdb": {
    title: "RxDB",
    runtime: "Node",
    program: "npm/rxdb.ts",
    args: [],
    works: without("W4", "W7"),
    page: `
      export { createRxDatabase } from "rxdb";
      export { getRxStorageDexie } from "rxdb/plugins/storage-dexie";
      export { replicateRxCollection } from "rxdb/plugins/replication";
    `,
    caveats: [
      "Sends states of documents, not edits: of ten offline edits of a row the last one. The server wins a conflict. Memory storage; durable ones for Node are not free. No text.",
    ],
  },
  "pouchdb": {
    title: "PouchDB",
    runtime: "Node",
    program: "npm/pouchdb.ts",
    args: [],
    works: without("W4"),
    page: `export { default } from "pouchdb-browser";`,
    caveats: [
      "Sends revisions of documents; of two concurrent ones it shows one everywhere and keeps the other aside. W5 and W7 on LevelDB, which is not flushed at each edit. No text.",
    ],
  },
  "jazz": {
    title: "Jazz (cojson)",
    runtime: "Node",
    program: "npm/jazz.ts",
    args: [],
    works: without("W4", "W7"),
    page: `
      export { LocalNode } from "cojson";
      export { WasmCrypto } from "cojson/crypto/WasmCrypto";
      export { getIndexedDBStorage } from "cojson-storage-indexeddb";
      export { createWebSocketPeer } from "cojson-transport-ws";
    `,
    caveats: [
      "Merges edits: the last writer of a row wins by the clocks of the devices. Signs its transactions, and checks who may write, which no other product here does on the device. Its core without accounts and schemas. Storage in memory. No text in the comparison.",
    ],
  },
  "replicache": {
    title: "Replicache",
    runtime: "Node",
    program: "npm/replicache.ts",
    args: [],
    works: without("W4", "W7"),
    page: `export { Replicache } from "replicache";`,
    caveats: [
      "Orders mutations at a server of the application's own: here a hundred lines that keep rows in memory. Storage in memory, as Node has no IndexedDB. No text. Needs a licence key.",
    ],
  },
};
