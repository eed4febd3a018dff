/**
 * Outgoing half of one connection: control messages are sent at once, data within
 * the client's credit.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../../env.ts";
import {
  SYNC_BUFFERED_BYTES_MAX,
  SYNC_BUFFERED_FRAMES_MAX,
  SYNC_BUFFERED_TICK_MS,
  SYNC_BUFFERED_TOTAL_BYTES_MAX,
  SYNC_FRAME_BYTES_MAX,
} from "../../limits.ts";
import { encodeMessage } from "../message_codec.ts";
import type { End, Message } from "../messages.ts";
import { packFrame } from "../packing.ts";
import { sendInParts } from "../parts.ts";
import { CloseCode, type Transport } from "../transport.ts";
import type { Counts } from "./telemetry.ts";

/** Packed data frames: the readers of one batch share its frame. */
const packedFrames = new WeakMap<Uint8Array, Uint8Array>();

function packed(frame: Uint8Array): Uint8Array {
  let found = packedFrames.get(frame);
  if (found === undefined) packedFrames.set(frame, found = packFrame(frame));
  return found;
}

/** Messages that are sent even while the principal is suspended: they reveal nothing about a cluster. */
const UNSUSPENDED: readonly Message["type"][] = [
  "renew",
  "ping",
  "pong",
  "credit",
];

/** Data stream of a connection: log entries or a snapshot. */
export interface OutboundStream {
  /** Number of the channel that the stream belongs to. */
  readonly channel: number;
  /** True if a frame can be sent. */
  readonly isReady: boolean;
  /** Sends the next frame if one is available without waiting; true if it did. */
  sendNext(): boolean;
  /** Ends the stream and frees its resources. */
  stop(): void;
}

/** Dependencies of a {@linkcode Sender}. */
export interface SenderOptions {
  /** Connection to send on. */
  readonly transport: Transport;
  /** Time and timers. */
  readonly env: Env;
  /** Counters of the server. */
  readonly counts: Counts;
  /** Closes the connection. */
  readonly close: (code: number, reason: string) => void;
}

/** Sends on one connection, with credit-based flow control for data. */
export class Sender {
  /** Data streams by number. */
  readonly streams: Map<number, OutboundStream> = new Map();
  readonly #options: SenderOptions;
  /** Largest frame to send, in bytes. */
  frameBytes: number = SYNC_FRAME_BYTES_MAX;
  /** Set if the client takes packed frames and references to its own records. */
  isCompact = false;
  /** Bytes of data frames the client still accepts. */
  #credit = 0;
  #isPumping = false;
  #state: "sending" | "suspended" | "ended" = "sending";
  #cancelPump: (() => void) | undefined;
  /** Messages queued while the principal is suspended. */
  #suspended: Message[] = [];
  /** Time since when data waits that the client does not read. */
  #blockedAt: number | undefined;

  /** Creates a sender without credit. */
  constructor(options: SenderOptions) {
    this.#options = options;
  }

  /** Adds credit for data frames, in bytes. */
  grant(bytes: number): void {
    this.#credit = Math.min(this.#credit + bytes, Number.MAX_SAFE_INTEGER);
    this.pump();
  }

  /** Sends a control message. */
  send(message: Message): void {
    if (this.#state === "ended") return;
    if (this.#state === "suspended" && !UNSUSPENDED.includes(message.type)) {
      this.#suspended.push(message);
      return;
    }
    this.#sendFrame(encodeMessage(message));
    // Control messages need no credit, so a client that sends requests and reads
    // nothing would fill the buffer.
    const { transport, close } = this.#options;
    if (transport.bufferedBytes > 2 * SYNC_BUFFERED_BYTES_MAX) {
      close(
        CloseCode.TooSlow,
        `Client does not read ${transport.bufferedBytes} bytes of answers; reconnect`,
      );
    }
  }

  /** Sends a data frame, packed if the client takes that; the caller has checked `hasRoom`. */
  sendData(frame: Uint8Array, isPackable = false): void {
    this.#credit -= frame.length;
    this.#blockedAt = undefined;
    this.#sendFrame(isPackable && this.isCompact ? packed(frame) : frame);
  }

  #sendFrame(frame: Uint8Array): void {
    this.#options.counts.sent += frame.length;
    const { transport } = this.#options;
    sendInParts(frame, this.frameBytes, (frame) => transport.send(frame));
  }

  /** Queues messages about clusters until `resume()`. */
  suspend(): void {
    if (this.#state === "sending") this.#state = "suspended";
  }

  /** Sends the queued messages and continues. */
  resume(): void {
    if (this.#state !== "suspended") return;
    this.#state = "sending";
    for (const message of this.#suspended.splice(0)) this.send(message);
    this.pump();
  }

  /** True if a data frame may be sent now. */
  get hasRoom(): boolean {
    if (this.#credit <= 0 || this.#state !== "sending") return false;
    const { transport, counts: { connections } } = this.#options;
    return transport.bufferedBytes < Math.min(
      SYNC_BUFFERED_BYTES_MAX,
      SYNC_BUFFERED_TOTAL_BYTES_MAX / connections,
      SYNC_BUFFERED_FRAMES_MAX * this.frameBytes,
    );
  }

  /** Sends available data while there is room, one frame of each stream in turn. */
  pump(): void {
    if (this.#isPumping || this.#state === "ended") return;
    this.#isPumping = true;
    for (let sent = true; sent;) {
      sent = false;
      for (const stream of [...this.streams.values()]) {
        if (!this.hasRoom) break;
        if (stream.sendNext()) sent = true;
      }
    }
    this.#isPumping = false;
    if (this.#credit > 0 && this.#state === "sending" && !this.hasRoom) {
      this.#pumpLater();
    }
  }

  /** Polls the transport: no event reports that its buffer has drained. */
  #pumpLater(): void {
    this.#cancelPump ??= this.#options.env.setTimer(() => {
      this.#cancelPump = undefined;
      this.pump();
    }, SYNC_BUFFERED_TICK_MS);
  }

  /** Ends a stream with a last message; ignored for a stream that has ended. */
  endStream(stream: number, end: End): void {
    const outbound = this.streams.get(stream);
    if (outbound === undefined) return;
    outbound.stop();
    this.streams.delete(stream);
    this.send(end);
  }

  /** Stops the streams of a channel without a message. */
  stopChannel(channel: number): void {
    for (const [stream, outbound] of this.streams) {
      if (outbound.channel !== channel) continue;
      outbound.stop();
      this.streams.delete(stream);
    }
  }

  /** Time for which data has waited for the client to read, in milliseconds, as observed by earlier calls. */
  blockedFor(now: number): number {
    const isBlocked = !this.hasRoom &&
      [...this.streams.values()].some(({ isReady }) => isReady);
    if (!isBlocked) this.#blockedAt = undefined;
    else this.#blockedAt ??= now;
    return now - (this.#blockedAt ?? now);
  }

  /** Stops all streams and sends nothing more. */
  end(): void {
    this.#state = "ended";
    this.#suspended = [];
    this.#cancelPump?.();
    for (const stream of this.streams.values()) stream.stop();
    this.streams.clear();
  }
}
