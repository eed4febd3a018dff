/**
 * What carries the frames of the protocol: a WebSocket, or in a test whatever
 * delivers frames whole and in order until it ends.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { encodeShown } from "../bytes.ts";

/** Why a connection was closed, as the other end is told: codes of the WebSocket protocol for applications. */
export const CloseCode = {
  /** All is well. */
  Normal: 1000,
  /** The server is stopping; reconnect. */
  GoingAway: 1001,
  /** A frame was no message, or one that may not come now. */
  Protocol: 4400,
  /** Nobody knows who this is; a new token is needed. */
  Unauthenticated: 4401,
  /** It is known who this is, and it is refused. */
  Forbidden: 4403,
  /** There is no such thing, at least not now. */
  NotFound: 4404,
  /** Another replica has that node id. */
  Conflict: 4409,
  /** No version in common. */
  Version: 4406,
  /** Nothing was heard for too long. */
  Timeout: 4408,
  /** A frame was too large, or one more than was granted. */
  TooBig: 4413,
  /** Too many connections. */
  TooMany: 4429,
  /** The cluster has failed on the server, and waits for its operator; ask again later. */
  ClusterFailed: 4500,
  /** The client reads more slowly than it asks; reconnect. */
  TooSlow: 4503,
} as const;

/** Name of the HTTP header by which a server says that it is a Sampan server, with the first and the last version of the protocol it speaks. */
export const SERVER_HEADER: string = "x-sampan";

/** Who hears what happens to a connection. */
export interface TransportListener {
  /** Frames can be sent from now on. */
  opened(): void;
  /** A frame came; it is the listener's to keep. */
  frame(bytes: Uint8Array): void;
  /** It is over, for whatever reason; called once, and nothing after it. */
  closed(code: number, reason: string): void;
}

/** One connection. */
export interface Transport {
  /** Says who listens; to be called once, before anything can happen. */
  listen(listener: TransportListener): void;
  /** Sends a frame, whose bytes nobody changes any more; harmless when it is closed. */
  send(frame: Uint8Array): void;
  /** Bytes that were sent and have not left. */
  readonly bufferedBytes: number;
  /** Ends it; what was sent before is still delivered if it can be. Idempotent. */
  close(code: number, reason: string): void;
}

/** Begins a connection to a server. */
export type Connect = (url: string) => Transport;

/** The reason of a close frame may have so many bytes. */
const REASON_BYTES_MAX = 123;

/** A connection over a WebSocket that is connecting or open. */
export function socketTransport(socket: WebSocket): Transport {
  socket.binaryType = "arraybuffer";
  return {
    listen(listener): void {
      if (socket.readyState === WebSocket.OPEN) {
        queueMicrotask(() => listener.opened());
      } else socket.onopen = (): void => listener.opened();
      socket.onmessage = ({ data }): void => {
        // Text is none of ours: no bytes, which are no message.
        listener.frame(
          data instanceof ArrayBuffer ? new Uint8Array(data) : new Uint8Array(),
        );
      };
      // What an error was, nobody is told; the close that follows ends it.
      socket.onerror = (event): void => event.preventDefault?.();
      socket.onclose = ({ code, reason }): void =>
        listener.closed(code, reason);
    },
    send(frame): void {
      if (socket.readyState === WebSocket.OPEN) {
        socket.send(frame as Uint8Array<ArrayBuffer>);
      }
    },
    get bufferedBytes(): number {
      return socket.bufferedAmount;
    },
    close(code, reason): void {
      if (socket.readyState > WebSocket.OPEN) return;
      let text = reason;
      while (encodeShown(text).length > REASON_BYTES_MAX) {
        text = text.slice(0, -1);
      }
      socket.close(code, text);
    },
  };
}

/** Connects by WebSocket. */
export function connectSocket(url: string): Transport {
  return socketTransport(new WebSocket(url));
}
