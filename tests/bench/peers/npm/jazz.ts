/**
 * The core of Jazz: nodes with signed transactions, and a server that passes
 * them on.
 *
 * @module
 */

import { LocalNode, type RawCoMap } from "cojson";
import { WasmCrypto } from "cojson/crypto/WasmCrypto";
import { createWebSocketPeer } from "cojson-transport-ws";
import type { Peer, Rows } from "../peer.ts";
import { runProgram } from "../program.ts";
import { listen, open } from "./sockets.ts";

type Map = RawCoMap<Record<string, string>>;

async function newNode(): Promise<LocalNode> {
  const crypto = await WasmCrypto.create();
  const secret = crypto.newRandomAgentSecret();
  const session = crypto.newRandomSessionID(crypto.getAgentID(secret));
  return new LocalNode(secret, session, crypto);
}

const peer: Peer = {
  async serve(): Promise<string> {
    const node = await newNode();
    const group = node.createGroup();
    group.addMember("everyone", "writer");
    const map = group.createMap();
    const { wss, url } = await listen();
    let clients = 0;
    wss.on("connection", (socket) =>
      node.syncManager.addPeer(createWebSocketPeer({
        id: `client ${++clients}`,
        role: "client",
        websocket: socket as never,
        expectPings: false,
        batchingByDefault: true,
      })));
    return `${url}/#${map.id}`;
  },
  async openRows(options): Promise<Rows> {
    const url = new URL(options.url);
    const id = url.hash.slice(1) as Map["id"];
    url.hash = "";
    const node = await newNode();
    let socket: WebSocket;
    let connections = 0;
    const connect = (): void => {
      socket = open(url.href);
      node.syncManager.addPeer(createWebSocketPeer({
        id: `server ${++connections}`,
        role: "server",
        websocket: socket as never,
        expectPings: false,
        batchingByDefault: true,
      }));
    };
    connect();
    const map = await node.load(id);
    if (map === "unavailable") throw new Error(`Map ${id} is unavailable`);
    const rows = map as Map;
    // A device that never had the table could not edit it offline.
    if (!options.online) socket!.close();
    return {
      put: (row, value) => void rows.set(row, value, "trusting"),
      putAll: (all) => void rows.assign(Object.fromEntries(all), "trusting"),
      get: (row) => rows.get(row),
      entries: () => rows.keys().map((row) => [row, rows.get(row)!] as const),
      onRow: (row, listener) =>
        void rows.subscribe((now) => listener(now.get(row))),
      connect,
      close: () => socket.close(),
    };
  },
};

runProgram(peer);
