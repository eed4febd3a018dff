/**
 * Loro with a server that keeps a document and fans out its updates.
 *
 * @module
 */

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { LoroDoc, VersionVector } from "loro-crdt";
import type { OpenOptions, Peer, Rows, Text } from "../peer.ts";
import { runProgram } from "../program.ts";
import { drained, listen, open } from "./sockets.ts";

/** First byte of a frame: a version, to be answered with what it lacks, or updates. */
const VERSION = 0;
const UPDATES = 1;

function frame(kind: number, bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const made = new Uint8Array(1 + bytes.length);
  made[0] = kind;
  made.set(bytes, 1);
  return made;
}

function versionFrame(doc: LoroDoc): Uint8Array<ArrayBuffer> {
  return frame(VERSION, doc.version().encode());
}

/** Updates that a peer of this version lacks. */
function missing(doc: LoroDoc, version: Uint8Array): Uint8Array<ArrayBuffer> {
  return frame(
    UPDATES,
    doc.export({ mode: "update", from: VersionVector.decode(version) }),
  );
}

class Device {
  readonly doc = new LoroDoc();
  socket: WebSocket | undefined;
  readonly #url: string;
  readonly #file: string | undefined;

  constructor({ url, folder, online }: OpenOptions) {
    this.#url = url;
    this.#file = folder === undefined ? undefined : `${folder}/doc`;
    if (this.#file !== undefined && existsSync(this.#file)) {
      this.doc.import(readFileSync(this.#file));
    }
    this.doc.subscribeLocalUpdates((bytes) => {
      if (this.socket?.readyState === 1) this.socket.send(frame(UPDATES, bytes));
    });
    if (online) this.connect();
  }

  connect(): void {
    const socket = this.socket = open(this.#url);
    socket.onopen = () => socket.send(versionFrame(this.doc));
    socket.onmessage = ({ data }) => {
      const bytes = new Uint8Array(data);
      const content = bytes.subarray(1);
      if (bytes[0] === UPDATES) this.doc.import(content);
      else socket.send(missing(this.doc, content));
    };
  }

  close(): void {
    if (this.#file !== undefined) {
      writeFileSync(this.#file, this.doc.export({ mode: "snapshot" }));
    }
    this.socket?.close();
  }
}

const peer: Peer = {
  async serve(): Promise<string> {
    const doc = new LoroDoc();
    const { wss, url } = await listen();
    wss.on("connection", (socket) => {
      socket.binaryType = "arraybuffer";
      socket.send(versionFrame(doc));
      socket.on("message", (data) => {
        const bytes = new Uint8Array(data as ArrayBuffer);
        const content = bytes.subarray(1);
        if (bytes[0] === VERSION) return socket.send(missing(doc, content));
        doc.import(content);
        for (const other of wss.clients) {
          if (other !== socket && other.readyState === 1) other.send(bytes);
        }
      });
    });
    return url;
  },
  openRows(options): Rows {
    const device = new Device(options);
    const { doc } = device;
    const rows = doc.getMap("rows");
    return {
      put(row, value): void {
        rows.set(row, value);
        doc.commit();
      },
      putAll(all): void {
        for (const [row, value] of all) rows.set(row, value);
        doc.commit();
      },
      get: (row) => rows.get(row) as string | undefined,
      entries: () => rows.entries() as [string, string][],
      onRow: (row, listener) =>
        void rows.subscribe(({ events }) => {
          for (const { diff } of events) {
            if (diff.type === "map" && row in diff.updated) {
              listener(rows.get(row) as string | undefined);
            }
          }
        }),
      connect: () => device.connect(),
      close: () => device.close(),
    };
  },
  openText(options): Text {
    const device = new Device(options);
    const text = device.doc.getText("text");
    return {
      edit(patches) {
        for (const [position, deleted, inserted] of patches) {
          if (deleted > 0) text.delete(position, deleted);
          if (inserted !== "") text.insert(position, inserted);
        }
        device.doc.commit();
        return drained(device.socket);
      },
      length: () => text.length,
      text: () => text.toString(),
      connect: () => device.connect(),
      close: () => device.close(),
    };
  },
};

runProgram(peer);
