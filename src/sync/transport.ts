/**
 * Port for connections that deliver frames whole and in order, and its
 * implementation over a WebSocket.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { encodeShown } from "../bytes.ts";

/** Codes with which an end closes a connection, in the range that the WebSocket protocol leaves to applications. */
export const CloseCode = {
  /** Regular end. */
  Normal: 1000,
  /** Server is stopping; reconnect. */
  GoingAway: 1001,
  /** Frame that is malformed or out of turn. */
  Protocol: 4400,
  /** Principal is unknown or its token has expired; a new token is needed. */
  Unauthenticated: 4401,
  /** Principal has no permission. */
  Forbidden: 4403,
  /** Cluster is not served, at least not now. */
  NotFound: 4404,
  /** Node id belongs to another replica. */
  Conflict: 4409,
  /** Ends without a protocol version in common. */
  Version: 4406,
  /** Silence of more than two heartbeats. */
  Timeout: 4408,
  /** Frame over the size limit or over the credit granted. */
  TooBig: 4413,
  /** Too many connections, streams or messages. */
  TooMany: 4429,
  /** Cluster has failed on the server and waits for its operator; retry later. */
  ClusterFailed: 4500,
  /** Client reads too slowly; reconnect. */
  TooSlow: 4503,
  /** Server does not reach the log; use another one. */
  CutOff: 4504,
} as const;

/** HTTP header that identifies a Sampan server; its value is the first and last protocol version the server speaks. */
export const SERVER_HEADER: string = "x-sampan";

/** Callbacks of a connection. */
export interface TransportListener {
  /** Called once frames can be sent. */
  opened(): void;
  /** Called with each frame; its bytes belong to the listener. */
  frame(bytes: Uint8Array): void;
  /** Called once when the connection has ended; no other call follows. */
  closed(code: number, reason: string): void;
}

/** Connection that carries frames. */
export interface Transport {
  /** Sets the callbacks; called once, before any event. */
  listen(listener: TransportListener): void;
  /** Sends a frame, whose bytes must not change afterwards; ignored when closed. */
  send(frame: Uint8Array): void;
  /** Bytes accepted by `send()` and not transmitted yet. */
  readonly bufferedBytes: number;
  /** Closes the connection; frames sent before are still delivered if possible. Idempotent. */
  close(code: number, reason: string): void;
}

/** Opens a connection to the server at `url`. */
export type Connect = (url: string) => Transport;

/** Bytes of the reason in a close frame at most. */
const REASON_BYTES_MAX = 123;

/** Wraps a WebSocket that is connecting or open. */
export function socketTransport(socket: WebSocket): Transport {
  socket.binaryType = "arraybuffer";
  return {
    listen(listener): void {
      if (socket.readyState === WebSocket.OPEN) {
        queueMicrotask(() => listener.opened());
      } else socket.onopen = (): void => listener.opened();
      socket.onmessage = ({ data }): void => {
        // A text frame is passed on without bytes, which is a protocol error.
        listener.frame(
          data instanceof ArrayBuffer ? new Uint8Array(data) : new Uint8Array(),
        );
      };
      // The event does not name the error; the close that follows has the code.
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

/** Opens a WebSocket to `url`. */
export function connectSocket(url: string): Transport {
  return socketTransport(new WebSocket(url));
}
