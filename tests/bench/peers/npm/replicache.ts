/**
 * Replicache in memory, with a server that orders its mutations, keeps the rows
 * and pokes every client.
 *
 * @module
 */

import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import {
  Replicache,
  TEST_LICENSE_KEY,
  type WriteTransaction,
} from "replicache";
import { WebSocketServer } from "ws";
import type { Peer, Rows } from "../peer.ts";
import { runProgram } from "../program.ts";
import { open } from "./sockets.ts";

type Row = readonly [row: string, value: string];

interface Push {
  readonly mutations: readonly {
    readonly clientID: string;
    readonly id: number;
    readonly name: string;
    readonly args: readonly Row[];
  }[];
}

interface Pull {
  readonly cookie: number | null;
  readonly clientGroupID: string;
}

async function bodyOf<T>(request: IncomingMessage): Promise<T> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of request) chunks.push(chunk);
  return JSON.parse(Buffer.concat(chunks).toString()) as T;
}

const mutators = {
  async put(tx: WriteTransaction, rows: readonly Row[]): Promise<void> {
    for (const [row, value] of rows) await tx.set(row, value);
  },
};

/** State of the server: rows and last mutations, each with the version of its change. */
class Server {
  #version = 0;
  readonly #rows = new Map<string, { value: string; version: number }>();
  readonly #last = new Map<string, { id: number; version: number }>();

  push({ mutations }: Push): void {
    const version = ++this.#version;
    for (const { clientID, id, args } of mutations) {
      if (id !== (this.#last.get(clientID)?.id ?? 0) + 1) continue;
      for (const [row, value] of args) {
        // Set again, so that the newest are last.
        this.#rows.delete(row);
        this.#rows.set(row, { value, version });
      }
      this.#last.set(clientID, { id, version });
    }
  }

  pull({ cookie }: Pull): unknown {
    const since = cookie ?? 0;
    const patch: unknown[] = [];
    for (const [key, { value, version }] of this.#rows) {
      if (version > since) patch.push({ op: "put", key, value });
    }
    const lastMutationIDChanges: Record<string, number> = {};
    for (const [clientID, { id, version }] of this.#last) {
      if (version > since) lastMutationIDChanges[clientID] = id;
    }
    return { cookie: this.#version, lastMutationIDChanges, patch };
  }
}

const peer: Peer = {
  async serve(): Promise<string> {
    const state = new Server();
    const http = createServer((request, response) => {
      void (async () => {
        if (request.url === "/push") {
          state.push(await bodyOf<Push>(request));
          response.end("{}");
          for (const socket of wss.clients) socket.send("poke");
        } else {
          response.setHeader("content-type", "application/json");
          response.end(JSON.stringify(state.pull(await bodyOf<Pull>(request))));
        }
      })();
    });
    const wss = new WebSocketServer({ server: http });
    await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${(http.address() as AddressInfo).port}`;
  },
  openRows({ url, device, online }): Rows {
    let isOnline = online;
    const post = async (path: string, body: unknown) => {
      const response = await fetch(new URL(path, url), {
        method: "POST",
        body: JSON.stringify(body),
      });
      return {
        httpRequestInfo: { httpStatusCode: response.status, errorMessage: "" },
        response: await response.json(),
      };
    };
    const offline = { httpStatusCode: 503, errorMessage: "The network is off" };
    const rep = new Replicache({
      name: device,
      licenseKey: TEST_LICENSE_KEY,
      kvStore: "mem",
      mutators,
      pullInterval: null,
      pushDelay: 0,
      logLevel: "error",
      // It reports each try while the network is off.
      logSinks: [],
      pusher: async (body) => {
        if (!isOnline) return { httpRequestInfo: offline };
        const { httpRequestInfo } = await post("push", body);
        return { httpRequestInfo };
      },
      puller: (body) =>
        isOnline
          ? post("pull", body)
          : Promise.resolve({ httpRequestInfo: offline }),
    } as never) as Replicache<typeof mutators>;
    const listen = (): void => {
      const socket = open(url.replace("http", "ws"));
      socket.onmessage = () => void rep.pull({ now: true });
      socket.onopen = () => void rep.pull({ now: true });
    };
    if (online) listen();
    return {
      put: (row, value) => rep.mutate.put([[row, value]]),
      putAll: (all) => rep.mutate.put(all),
      get: (row) =>
        rep.query((tx) => tx.get(row)) as Promise<string | undefined>,
      entries: () =>
        rep.query(async (tx) => await tx.scan().entries().toArray()) as Promise<
          [string, string][]
        >,
      onRow: (row, listener) =>
        void rep.subscribe((tx) => tx.get(row), (value) =>
          listener(value as string | undefined)),
      connect(): void {
        isOnline = true;
        listen();
        void rep.push({ now: true });
      },
      close: () => rep.close(),
    };
  },
};

runProgram(peer);
