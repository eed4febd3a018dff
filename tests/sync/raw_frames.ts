/**
 * Client side of a WebSocket over plain TCP: cheaper than the platform's, and able to
 * violate the protocol.
 *
 * This module needs Deno.
 *
 * @module
 */

import { SYNC_FRAME_BYTES_MAX } from "../../src/limits.ts";
import { encodeMessage } from "../../src/sync/message_codec.ts";
import { type Message, PROTOCOL_VERSIONS } from "../../src/sync/messages.ts";

const KEY = btoa("0123456789abcdef");

/** Upgrade request of a WebSocket. */
export const UPGRADE: Uint8Array = new TextEncoder().encode(
  `GET /sync HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${KEY}\r\n\r\n`,
);

/** Frame of a client with a mask of zeros; it may announce more bytes than it has. */
export function clientFrame(
  payload: Uint8Array,
  announced: number = payload.length,
): Uint8Array {
  const head = new Uint8Array(14);
  const view = new DataView(head.buffer);
  head.set([0x82, 0xff]);
  view.setBigUint64(2, BigInt(announced));
  const bytes = new Uint8Array(head.length + payload.length);
  bytes.set(head);
  bytes.set(payload, head.length);
  return bytes;
}

/** Encodes a protocol message as a frame of a client. */
export function messageFrame(message: Message): Uint8Array {
  return clientFrame(encodeMessage(message));
}

/** Hello with unlimited credit. */
export function helloFrame(token?: string): Uint8Array {
  return messageFrame({
    type: "hello",
    ...PROTOCOL_VERSIONS,
    token,
    credit: Number.MAX_SAFE_INTEGER,
    frameBytesMax: SYNC_FRAME_BYTES_MAX,
    renews: false,
  });
}

/** Writes all bytes. */
export async function writeAll(
  conn: Deno.TcpConn,
  bytes: Uint8Array,
): Promise<void> {
  for (let at = 0; at < bytes.length;) {
    at += await conn.write(bytes.subarray(at));
  }
}
