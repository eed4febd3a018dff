/**
 * PouchDB, in memory or on LevelDB, replicating with its own HTTP server.
 *
 * @module
 */

import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import express from "express";
import expressPouchDB from "express-pouchdb";
import PouchDB from "pouchdb";
import memory from "pouchdb-adapter-memory";
import type { Peer, Rows } from "../peer.ts";
import { runProgram } from "../program.ts";

PouchDB.plugin(memory);
const InMemory = PouchDB.defaults({ adapter: "memory" });

/** A document as this program uses it. */
interface Doc {
  readonly _id: string;
  readonly _rev?: string;
  readonly value: string;
}

const peer: Peer = {
  async serve(): Promise<string> {
    const app = express();
    app.use(
      "/",
      expressPouchDB(InMemory, {
        mode: "minimumForPouchDB",
        inMemoryConfig: true,
        logPath: "/dev/null",
      }),
    );
    const server = createServer(app);
    await new Promise<void>((resolve) =>
      server.listen(0, "127.0.0.1", resolve)
    );
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/rows`;
    await fetch(url, { method: "PUT" });
    return url;
  },
  openRows({ url, device, folder, online }): Rows {
    const db = folder === undefined
      ? new InMemory<Doc>(device)
      : new PouchDB<Doc>(`${folder}/rows`);
    let sync: { cancel(): void } | undefined;
    let last: Promise<unknown> = Promise.resolve();
    const connect = (): void => {
      sync = db.sync(new PouchDB(url), { live: true, retry: true, batch_size: 1_000 });
    };
    if (online) connect();
    const find = (row: string): Promise<Doc | undefined> =>
      db.get(row).catch(() => undefined);
    return {
      // One after the other: an edit needs the revision of the one before.
      put: (row, value): Promise<unknown> =>
        last = last.then(async () => {
          const before = await find(row);
          await db.put({ ...before, _id: row, value });
        }),
      putAll: (all) =>
        db.bulkDocs(all.map(([row, value]) => ({ _id: row, value }))),
      get: async (row) => (await find(row))?.value,
      async entries() {
        const { rows } = await db.allDocs({ include_docs: true });
        return rows.map(({ id, doc }) => [id, doc!.value] as const);
      },
      onRow: (row, listener) =>
        void db.changes({
          live: true,
          since: "now",
          include_docs: true,
          doc_ids: [row],
        }).on("change", ({ doc }) => listener(doc?.value)),
      ...(folder !== undefined && { durable: () => Promise.resolve() }),
      connect,
      async close(): Promise<void> {
        sync?.cancel();
        await db.close();
      },
    };
  },
};

runProgram(peer);
