/**
 * WebSockets of the servers and clients of the comparison: those of `ws` in
 * Node, and of the platform in Deno.
 *
 * @module
 */

import type { AddressInfo } from "node:net";
import { WebSocket as NodeSocket, WebSocketServer } from "ws";

/** Starts a server of WebSockets on a free port. */
export async function listen(): Promise<{ wss: WebSocketServer; url: string }> {
  const wss = new WebSocketServer({
    host: "127.0.0.1",
    port: 0,
    perMessageDeflate: false,
    maxPayload: 1 << 30,
  });
  await new Promise((resolve) => wss.on("listening", resolve));
  const { port } = wss.address() as AddressInfo;
  return { wss, url: `ws://127.0.0.1:${port}` };
}

/** Begins a connection; frames arrive as `ArrayBuffer`. */
export function open(url: string): WebSocket {
  const Constructor = "Deno" in globalThis
    ? WebSocket
    : NodeSocket as unknown as typeof WebSocket;
  const socket = new Constructor(url);
  socket.binaryType = "arraybuffer";
  return socket;
}

/** Bytes that may be waiting to be sent before a writer pauses. */
const BUFFERED_BYTES_MAX = 1 << 20;

/** Resolves once few bytes wait to be sent; undefined if that is so now. */
export function drained(
  socket: WebSocket | undefined,
): Promise<void> | undefined {
  if (socket === undefined || socket.bufferedAmount < BUFFERED_BYTES_MAX) return;
  return (async () => {
    while (socket.bufferedAmount >= BUFFERED_BYTES_MAX) {
      await new Promise((resolve) => setTimeout(resolve));
    }
  })();
}
