/**
 * Yjs with the messages of its own WebSocket provider and server.
 *
 * @module
 */

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import * as decoding from "lib0/decoding";
import * as encoding from "lib0/encoding";
import { readSyncMessage, writeSyncStep1, writeUpdate } from "y-protocols/sync";
import { applyUpdate, Doc, encodeStateAsUpdate } from "yjs";
import type { OpenOptions, Patch, Peer, Rows, Text } from "../peer.ts";
import { runProgram } from "../program.ts";
import { drained, listen, open } from "./sockets.ts";

function updateFrame(update: Uint8Array): Uint8Array {
  const encoder = encoding.createEncoder();
  writeUpdate(encoder, update);
  return encoding.toUint8Array(encoder);
}

function stepFrame(doc: Doc): Uint8Array {
  const encoder = encoding.createEncoder();
  writeSyncStep1(encoder, doc);
  return encoding.toUint8Array(encoder);
}

/** Applies a frame and returns its answer, if it has one. */
function receive(doc: Doc, data: ArrayBuffer, origin: unknown): Uint8Array | undefined {
  const encoder = encoding.createEncoder();
  const decoder = decoding.createDecoder(new Uint8Array(data));
  readSyncMessage(decoder, encoder, doc, origin);
  return encoding.length(encoder) > 0 ? encoding.toUint8Array(encoder) : undefined;
}

/** A document with its connection and its file. */
class Device {
  readonly doc = new Doc();
  socket: WebSocket | undefined;
  readonly #url: string;
  readonly #file: string | undefined;

  constructor({ url, folder, online }: OpenOptions) {
    this.#url = url;
    this.#file = folder === undefined ? undefined : `${folder}/doc`;
    if (this.#file !== undefined && existsSync(this.#file)) {
      applyUpdate(this.doc, readFileSync(this.#file));
    }
    this.doc.on("update", (update: Uint8Array, origin: unknown) => {
      if (origin === this.socket || this.socket?.readyState !== 1) return;
      this.socket.send(updateFrame(update) as Uint8Array<ArrayBuffer>);
    });
    if (online) this.connect();
  }

  connect(): void {
    const socket = this.socket = open(this.#url);
    socket.onopen = () =>
      socket.send(stepFrame(this.doc) as Uint8Array<ArrayBuffer>);
    socket.onmessage = ({ data }) => {
      const answer = receive(this.doc, data, socket);
      if (answer !== undefined) socket.send(answer as Uint8Array<ArrayBuffer>);
    };
  }

  close(): void {
    if (this.#file !== undefined) {
      writeFileSync(this.#file, encodeStateAsUpdate(this.doc));
    }
    this.socket?.close();
  }
}

const peer: Peer = {
  async serve(): Promise<string> {
    const doc = new Doc();
    const { wss, url } = await listen();
    doc.on("update", (update: Uint8Array, origin: unknown) => {
      const frame = updateFrame(update);
      for (const socket of wss.clients) {
        if (socket !== origin && socket.readyState === 1) socket.send(frame);
      }
    });
    wss.on("connection", (socket) => {
      socket.binaryType = "arraybuffer";
      socket.send(stepFrame(doc));
      socket.on("message", (data) => {
        const answer = receive(doc, data as ArrayBuffer, socket);
        if (answer !== undefined) socket.send(answer);
      });
    });
    return url;
  },
  openRows(options): Rows {
    const device = new Device(options);
    const rows = device.doc.getMap<string>("rows");
    return {
      put: (row, value) => void rows.set(row, value),
      putAll: (all) =>
        device.doc.transact(() => {
          for (const [row, value] of all) rows.set(row, value);
        }),
      get: (row) => rows.get(row),
      entries: () => rows.entries(),
      onRow: (row, listener) =>
        rows.observe(({ keysChanged }) => {
          if (keysChanged.has(row)) listener(rows.get(row));
        }),
      connect: () => device.connect(),
      close: () => device.close(),
    };
  },
  openText(options): Text {
    const device = new Device(options);
    const text = device.doc.getText("text");
    return {
      edit(patches: readonly Patch[]) {
        device.doc.transact(() => {
          for (const [position, deleted, inserted] of patches) {
            if (deleted > 0) text.delete(position, deleted);
            if (inserted !== "") text.insert(position, inserted);
          }
        });
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
