/**
 * TinyBase's mergeable store with its WebSocket synchronizer and server, and its
 * persister into a file.
 *
 * @module
 */

import { createMergeableStore } from "tinybase";
import { createFilePersister } from "tinybase/persisters/persister-file";
import { createWsSynchronizer } from "tinybase/synchronizers/synchronizer-ws-client";
import { createWsServer } from "tinybase/synchronizers/synchronizer-ws-server";
import type { Peer, Rows } from "../peer.ts";
import { runProgram } from "../program.ts";
import { listen, open } from "./sockets.ts";

const peer: Peer = {
  async serve(folder): Promise<string> {
    const { wss, url } = await listen();
    // A server without a persister keeps nothing for a newcomer.
    createWsServer(
      wss,
      () => createFilePersister(createMergeableStore(), `${folder}/store`),
    );
    return `${url}/rows`;
  },
  async openRows({ url, folder, online }): Promise<Rows> {
    const store = createMergeableStore();
    const persister = folder === undefined
      ? undefined
      : createFilePersister(store, `${folder}/store`);
    await persister?.load();
    const connect = async (): Promise<void> => {
      const synchronizer = await createWsSynchronizer(store, open(url), 60);
      await synchronizer.startSync();
    };
    if (online) await connect();
    return {
      put: (row, value) => void store.setCell("rows", row, "value", value),
      putAll: (all) =>
        void store.transaction(() => {
          for (const [row, value] of all) {
            store.setCell("rows", row, "value", value);
          }
        }),
      get: (row) => store.getCell("rows", row, "value") as string | undefined,
      *entries() {
        for (const [row, { value }] of Object.entries(store.getTable("rows"))) {
          yield [row, value as string] as const;
        }
      },
      onRow: (row, listener) =>
        void store.addCellListener("rows", row, "value", () =>
          listener(
            store.getCell("rows", row, "value") as string | undefined,
          )),
      ...(persister && { durable: () => persister.save() }),
      connect,
      close: async () => void await persister?.save(),
    };
  },
};

runProgram(peer);
