/**
 * RxDB in memory, with its WebSocket replication and server.
 *
 * @module
 */

import { addRxPlugin, createRxDatabase } from "rxdb";
import {
  replicateWithWebsocketServer,
  startWebsocketServer,
} from "rxdb/plugins/replication-websocket";
import { getRxStorageMemory } from "rxdb/plugins/storage-memory";
import { RxDBLocalDocumentsPlugin } from "rxdb/plugins/local-documents";
import type { Peer, Rows } from "../peer.ts";
import { runProgram } from "../program.ts";

addRxPlugin(RxDBLocalDocumentsPlugin);

const SCHEMA = {
  version: 0,
  primaryKey: "row",
  type: "object",
  properties: {
    row: { type: "string", maxLength: 100 },
    value: { type: "string" },
  },
  required: ["row", "value"],
} as const;

async function openDatabase(name: string) {
  const database = await createRxDatabase({
    name,
    storage: getRxStorageMemory(),
    multiInstance: false,
  });
  const { rows } = await database.addCollections({ rows: { schema: SCHEMA } });
  return { database, rows: rows! };
}

const peer: Peer = {
  async serve(): Promise<string> {
    const { database } = await openDatabase("server");
    const { server } = startWebsocketServer({
      database: database as never,
      host: "127.0.0.1",
      port: 0,
      path: "/rows",
    });
    await new Promise((resolve) => server.on("listening", resolve));
    const { port } = server.address() as { port: number };
    return `ws://127.0.0.1:${port}/rows`;
  },
  async openRows({ url, device, online }): Promise<Rows> {
    const { rows } = await openDatabase(device);
    const connect = async (): Promise<void> => {
      await replicateWithWebsocketServer({
        collection: rows as never,
        url,
        batchSize: 1_000,
        live: true,
      } as never);
    };
    if (online) await connect();
    return {
      put: (row, value) => rows.incrementalUpsert({ row, value }),
      putAll: (all) =>
        rows.bulkInsert(all.map(([row, value]) => ({ row, value }))),
      async get(row) {
        return (await rows.findOne(row).exec())?.get("value");
      },
      async entries() {
        const found = await rows.find().exec();
        return found.map((doc) => [doc.get("row"), doc.get("value")]);
      },
      onRow: (row, listener) =>
        void rows.findOne(row).$.subscribe((doc) =>
          listener(doc?.get("value"))
        ),
      connect,
      close(): void {},
    };
  },
};

runProgram(peer);
