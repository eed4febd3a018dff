/**
 * The two servers of the comparison with Yjs, each in a process of its own:
 * `deno run -A relays.ts sampan` or `… yjs`. The first line printed is the URL.
 * Both keep what they get in memory.
 *
 * @module
 */

import * as decoding from "lib0/decoding";
import * as encoding from "lib0/encoding";
import { readSyncMessage, writeSyncStep1, writeUpdate } from "y-protocols/sync";
import { Doc } from "yjs";
import { NodeHost } from "../../mod.ts";
import { serve } from "../../src/sync/server/mod.ts";
import { TextStateMachine } from "../replay/text_machine.ts";

function say(url: string): void {
  // deno-lint-ignore no-console
  console.log(url);
}

async function sampan(): Promise<void> {
  const host = new NodeHost();
  await host.startConcurrentCluster(() => new TextStateMachine(), {
    clusterID: 1n,
    nodeID: 1n,
  });
  say(serve(host, { port: 0 }).url);
}

/**
 * Equivalent of Yjs' own WebSocket server: a document, with a fan-out of each
 * update to the other clients.
 */
function yjs(): void {
  const doc = new Doc();
  const sockets = new Set<WebSocket>();
  doc.on("update", (update: Uint8Array, origin: unknown) => {
    const encoder = encoding.createEncoder();
    writeUpdate(encoder, update);
    const frame = encoding.toUint8Array(encoder);
    for (const socket of sockets) {
      if (socket !== origin && socket.readyState === WebSocket.OPEN) {
        socket.send(frame as Uint8Array<ArrayBuffer>);
      }
    }
  });
  Deno.serve({
    hostname: "127.0.0.1",
    port: 0,
    onListen: ({ port }) => say(`ws://127.0.0.1:${port}`),
  }, (request) => {
    const { socket, response } = Deno.upgradeWebSocket(request);
    socket.binaryType = "arraybuffer";
    socket.onopen = (): void => {
      sockets.add(socket);
      const encoder = encoding.createEncoder();
      writeSyncStep1(encoder, doc);
      socket.send(encoding.toUint8Array(encoder) as Uint8Array<ArrayBuffer>);
    };
    socket.onmessage = ({ data }): void => {
      const encoder = encoding.createEncoder();
      const decoder = decoding.createDecoder(new Uint8Array(data));
      readSyncMessage(decoder, encoder, doc, socket);
      if (encoding.length(encoder) > 0) {
        socket.send(encoding.toUint8Array(encoder) as Uint8Array<ArrayBuffer>);
      }
    };
    socket.onclose = (): void => void sockets.delete(socket);
    return response;
  });
}

if (import.meta.main) {
  if (Deno.args[0] === "yjs") yjs();
  else await sampan();
}
