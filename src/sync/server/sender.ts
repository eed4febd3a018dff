/**
 * What goes out on one connection: answers at once, data as far as the client
 * takes it.
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
import { encodeMessage, type End, type Message } from "../messages.ts";
import { sendInParts } from "../parts.ts";
import { CloseCode, type Transport } from "../transport.ts";
import type { Outgoing } from "./reading.ts";
import type { Counts } from "./telemetry.ts";

/** Messages that are sent also while the principal is not valid: they say nothing about a cluster. */
const ALWAYS: readonly Message["type"][] = ["renew", "ping", "pong", "credit"];

/** What a sender takes. */
export interface SenderOptions {
  /** Where it sends. */
  readonly transport: Transport;
  /** Time and timers. */
  readonly env: Env;
  /** What the server counts. */
  readonly counts: Counts;
  /** Ends the connection. */
  readonly close: (code: number, reason: string) => void;
}

/** Sends on one connection, within the credit of the client. */
export class Sender {
  /** What is being sent, by its stream. */
  readonly outgoing: Map<number, Outgoing> = new Map();
  readonly #options: SenderOptions;
  /** The largest frame that is sent, in bytes. */
  frameBytes: number = SYNC_FRAME_BYTES_MAX;
  /** Bytes of data frames the client still takes. */
  #credit = 0;
  #isPumping = false;
  #isOver = false;
  #cancelDrain: (() => void) | undefined;
  /** Set while the principal is not valid. */
  #isPaused = false;
  /** Messages that wait for the end of that. */
  #held: Message[] = [];
  /** Since when something waits that the client does not take. */
  #blockedAt: number | undefined;

  /** A sender without credit. */
  constructor(options: SenderOptions) {
    this.#options = options;
  }

  /** The client takes so many bytes more. */
  grant(bytes: number): void {
    this.#credit = Math.min(this.#credit + bytes, Number.MAX_SAFE_INTEGER);
    this.pump();
  }

  /** Sends a message that is not data. */
  send(message: Message): void {
    if (this.#isOver) return;
    if (this.#isPaused && !ALWAYS.includes(message.type)) {
      return void this.#held.push(message);
    }
    this.#sendFrame(encodeMessage(message));
    // Answers are small, but whoever asks and does not listen has them heap up.
    const { transport, close } = this.#options;
    if (transport.bufferedBytes > 2 * SYNC_BUFFERED_BYTES_MAX) {
      close(CloseCode.TooSlow, "Answers are not read");
    }
  }

  /** Sends a frame of data, for which there was room. */
  sendData(frame: Uint8Array): void {
    this.#credit -= frame.length;
    this.#blockedAt = undefined;
    this.#sendFrame(frame);
  }

  #sendFrame(frame: Uint8Array): void {
    this.#options.counts.sent += frame.length;
    const { transport } = this.#options;
    sendInParts(frame, this.frameBytes, (frame) => transport.send(frame));
  }

  /** Sends nothing about any cluster until it is resumed. */
  pause(): void {
    this.#isPaused = true;
  }

  /** Sends what has waited, and goes on. */
  resume(): void {
    this.#isPaused = false;
    for (const message of this.#held.splice(0)) this.send(message);
    this.pump();
  }

  /** Whether the client takes a frame of data now. */
  get hasRoom(): boolean {
    if (this.#credit <= 0 || this.#isOver || this.#isPaused) return false;
    const { transport, counts: { connections } } = this.#options;
    return transport.bufferedBytes < Math.min(
      SYNC_BUFFERED_BYTES_MAX,
      SYNC_BUFFERED_TOTAL_BYTES_MAX / connections,
      SYNC_BUFFERED_FRAMES_MAX * this.frameBytes,
    );
  }

  /** Sends what there is as far as there is room, a frame of each stream by turns. */
  pump(): void {
    if (this.#isPumping || this.#isOver) return;
    this.#isPumping = true;
    for (let sent = true; sent;) {
      sent = false;
      for (const outgoing of [...this.outgoing.values()]) {
        if (!this.hasRoom) break;
        if (outgoing.sendNext()) sent = true;
      }
    }
    this.#isPumping = false;
    if (this.#credit > 0 && !this.#isPaused && !this.hasRoom) this.#pumpLater();
  }

  /** No event tells that frames have left. */
  #pumpLater(): void {
    if (this.#isOver) return;
    this.#cancelDrain ??= this.#options.env.setTimer(() => {
      this.#cancelDrain = undefined;
      this.pump();
    }, SYNC_BUFFERED_TICK_MS);
  }

  /** Ends a stream of the server's own accord. */
  endStream(stream: number, end: End): void {
    const outgoing = this.outgoing.get(stream);
    if (outgoing === undefined) return;
    outgoing.stop();
    this.outgoing.delete(stream);
    this.send(end);
  }

  /** How long something has waited that the client does not take, in milliseconds, as far as it was looked. */
  blockedFor(now: number): number {
    const isBlocked = !this.hasRoom &&
      [...this.outgoing.values()].some(({ ready }) => ready);
    if (!isBlocked) this.#blockedAt = undefined;
    else this.#blockedAt ??= now;
    return now - (this.#blockedAt ?? now);
  }

  /** Sends no more. */
  end(): void {
    this.#isOver = true;
    this.#held = [];
    this.#cancelDrain?.();
    for (const outgoing of this.outgoing.values()) outgoing.stop();
    this.outgoing.clear();
  }
}
