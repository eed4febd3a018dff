/**
 * Automerge's repository with its WebSocket adapters and its storage in files.
 *
 * @module
 */

import { readdirSync } from "node:fs";
import { type DocHandle, Repo, splice } from "@automerge/automerge-repo";
import {
  WebSocketClientAdapter,
  WebSocketServerAdapter,
} from "@automerge/automerge-repo-network-websocket";
import { NodeFSStorageAdapter } from "@automerge/automerge-repo-storage-nodefs";
import type { OpenOptions, Peer, Rows, Text } from "../peer.ts";
import { runProgram } from "../program.ts";
import { listen } from "./sockets.ts";

type Content = { rows: Record<string, string>; text: string };

interface Device {
  readonly repo: Repo;
  readonly handle: DocHandle<Content>;
  connect(): void;
}

/** Opens the only document of a server, whose address is in the URL. */
async function openDevice(options: OpenOptions): Promise<Device> {
  const { folder, online } = options;
  const url = new URL(options.url);
  const id = url.hash.slice(1) as never;
  url.hash = "";
  const repo = new Repo({
    ...(folder !== undefined && { storage: new NodeFSStorageAdapter(folder) }),
  });
  const connect = (): void =>
    repo.networkSubsystem.addNetworkAdapter(
      new WebSocketClientAdapter(url.href),
    );
  const initial = new URL(options.url).searchParams.get("initial")!;
  if (online) connect();
  const isStored = folder !== undefined && readdirSync(folder).length > 0;
  const handle = online || isStored
    ? await repo.find<Content>(id)
    : repo.import<Content>(
      Uint8Array.from(atob(initial), (c) => c.charCodeAt(0)),
      { docId: id.slice("automerge:".length) } as never,
    );
  return { repo, handle, connect };
}

const peer: Peer = {
  async serve(): Promise<string> {
    const { wss, url } = await listen();
    const repo = new Repo({
      network: [new WebSocketServerAdapter(wss as never)],
      sharePolicy: () => Promise.resolve(true),
    });
    const handle = repo.create<Content>({ rows: {}, text: "" });
    const bytes = await repo.export(handle.url);
    // A device that is offline from the start begins with the empty document.
    const initial = encodeURIComponent(
      btoa(String.fromCharCode(...bytes!)),
    );
    return `${url}/?initial=${initial}#${handle.url}`;
  },
  async openRows(options): Promise<Rows> {
    const { repo, handle, connect } = await openDevice(options);
    return {
      put: (row, value) =>
        handle.change((doc) => {
          doc.rows[row] = value;
        }),
      putAll: (all) =>
        handle.change((doc) => {
          for (const [row, value] of all) doc.rows[row] = value;
        }),
      get: (row) => handle.doc().rows[row],
      entries: () => Object.entries(handle.doc().rows),
      onRow: (row, listener) =>
        void handle.on("change", ({ doc }) => listener(doc.rows[row])),
      ...(options.folder !== undefined && { durable: () => repo.flush() }),
      connect,
      close: () => repo.flush(),
    };
  },
  async openText(options): Promise<Text> {
    const { repo, handle, connect } = await openDevice(options);
    return {
      edit: (patches) =>
        handle.change((doc) => {
          for (const [position, deleted, inserted] of patches) {
            splice(doc, ["text"], position, deleted, inserted);
          }
        }),
      length: () => handle.doc().text.length,
      text: () => handle.doc().text,
      connect,
      close: () => repo.flush(),
    };
  },
};

runProgram(peer);
