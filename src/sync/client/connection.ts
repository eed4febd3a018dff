/**
 * Connection to a server, from hello to close: handshake, heartbeat, streams, and
 * credit-based flow control in both directions.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../../env.ts";
import {
  SYNC_CREDIT_BYTES,
  SYNC_FRAME_BYTES_MAX,
  SYNC_FRAME_BYTES_MIN,
  SYNC_FRAME_LARGE_BYTES,
  SYNC_HEARTBEAT_MS_MIN,
  SYNC_HINT_MS,
  SYNC_HINT_PING_MS,
  TIMER_MS_MAX,
} from "../../limits.ts";
import { ErrProtocol } from "../errors.ts";
import { decodeMessage, encodeMessage } from "../message_codec.ts";
import {
  appendCredit,
  type Appended,
  type CheckpointAt,
  type Chunk,
  COMPACT_VERSION,
  type End,
  type Entries,
  type Failed,
  type Hashes,
  type Held,
  type Index,
  isData,
  type Message,
  type Opened,
  type Reading,
  type Refused,
  type Snapshot,
  type Unable,
  type Versions,
  type Waits,
  type Welcome,
} from "../messages.ts";
import { packFrame, unpackFrame } from "../packing.ts";
import { Assembler, sendInParts } from "../parts.ts";
import { CloseCode, type Transport } from "../transport.ts";
import type { ReceiveBuffer } from "./receive_buffer.ts";

/** Messages of a stream. */
export type StreamMessage =
  | Reading
  | Entries
  | End
  | Appended
  | Failed
  | Index
  | Hashes
  | Snapshot
  | Chunk;

/** Messages of a channel. */
export type ChannelMessage =
  | Opened
  | Refused
  | Held
  | Waits
  | Unable
  | CheckpointAt;

/** Called with each message of a stream; `size` is the credit of a data frame, which the listener releases from the receive buffer. */
export type StreamListener = (message: StreamMessage, size: number) => void;

/** Close code and reason of a connection. */
export interface ConnectionEnd {
  /** A `CloseCode`, or a code of the WebSocket protocol. */
  readonly code: number;
  /** Reason in words; empty if the close had none. */
  readonly reason: string;
}

/** Callbacks of a connection. */
export interface ConnectionListener {
  /** Called once the server has accepted the client: the connection can be used. */
  welcomed(): void;
  /** Called with each message of a channel. */
  channel(message: ChannelMessage): void;
  /** Called when there is credit for appends again. */
  writable(): void;
  /** Called when the server requests another token. */
  renew(): void;
  /** Called once when the connection has ended; no other call follows. */
  ended(end: ConnectionEnd): void;
}

/** Dependencies of a {@linkcode Connection}. */
export interface ConnectionOptions {
  readonly env: Env;
  readonly token: string | undefined;
  readonly versions: Versions;
  readonly receiveBuffer: ReceiveBuffer;
  /** Largest frame that is sent or accepted, in bytes; larger messages go in parts. */
  readonly frameBytes: number;
  readonly listener: ConnectionListener;
}

/** Client's end of one connection. */
export class Connection {
  readonly #transport: Transport;
  readonly #options: ConnectionOptions;
  readonly #streams = new Map<number, StreamListener>();
  #nextStream = 1;
  #welcome: Welcome | undefined;
  #isGreeted = false;
  #isOver = false;
  /** Credit: bytes of appends that may be sent before the server grants more. */
  #credit = 0;
  /** Credit granted to the server: bytes of data it may still send. */
  #allowance = 0;
  /** Bytes consumed here and not granted again yet. */
  #owed = 0;
  #heardAt = 0;
  /** Set while a ping is unanswered. */
  #isAsked = false;
  #cancelTick: (() => void) | undefined;
  readonly #assembler = new Assembler();
  /** Streams on which a large frame may be under way, either way. */
  readonly #large = new Set<number>();
  /** Index after which each read was asked for that was not answered. */
  readonly #reads = new Map<number, number>();

  /** Starts the handshake once the transport opens; the transport must have no listener yet. */
  constructor(transport: Transport, options: ConnectionOptions) {
    this.#transport = transport;
    this.#options = options;
    transport.listen({
      opened: () => this.#hello(),
      frame: (bytes) => this.#frame(bytes),
      closed: (code, reason) => this.#end({ code, reason }),
    });
  }

  /** Welcome of the server, once it has arrived. */
  get welcome(): Welcome | undefined {
    return this.#welcome;
  }

  /** True if the server packs frames and refers to own records. */
  get isCompact(): boolean {
    return (this.#welcome?.version ?? 0) >= COMPACT_VERSION;
  }

  /** True once the transport has been open, also after it has closed. */
  get isOpened(): boolean {
    return this.#isGreeted;
  }

  /** True if an append may be sent. */
  get isWritable(): boolean {
    return this.#credit > 0 && !this.#isOver;
  }

  #hello(): void {
    if (this.#isOver) return;
    const { token, versions, receiveBuffer } = this.#options;
    // Bytes buffered from the previous connection count against this one.
    this.#allowance = Math.max(0, SYNC_CREDIT_BYTES - receiveBuffer.bytes);
    this.#isGreeted = true;
    this.send({
      type: "hello",
      first: versions.first,
      last: versions.last,
      token,
      credit: this.#allowance,
      frameBytesMax: this.#options.frameBytes,
      renews: true,
    });
  }

  /** Sends a message; ignored once the connection has ended. */
  send(message: Message): void {
    if (this.#isOver) return;
    if (message.type === "read") this.#reads.set(message.stream, message.after);
    if (message.type === "read" || message.type === "fetch") {
      this.#large.add(message.stream);
    }
    this.#sendFrame(encodeMessage(message));
  }

  #sendFrame(frame: Uint8Array, isData = false): void {
    // The hello is never split.
    if (this.#welcome === undefined) return this.#transport.send(frame);
    const { frameBytes } = this.#options;
    const max = Math.min(frameBytes, this.#welcome.frameBytesMax);
    if (isData && this.isCompact) frame = packFrame(frame);
    sendInParts(frame, max, (frame) => this.#transport.send(frame));
  }

  /** True if a large frame may be in flight, so that a gateway may have closed the connection because of it. */
  get hasLargeFrame(): boolean {
    return this.#large.size > 0 &&
      this.#options.frameBytes > SYNC_FRAME_LARGE_BYTES;
  }

  /** Tracks the streams on which a large frame may still arrive. */
  #expect(message: StreamMessage): void {
    const { stream } = message;
    if (message.type === "reading") {
      const after = this.#reads.get(stream);
      this.#reads.delete(stream);
      if (after !== undefined && message.last <= after) {
        this.#large.delete(stream);
      }
    } else if (message.type === "entries") {
      const { first, last, lengths } = message;
      if (first + lengths.length > last) this.#large.delete(stream);
    } else if (message.type !== "snapshot" && message.type !== "chunk") {
      this.#large.delete(stream);
    }
  }

  /** Sends the frame of an append; the connection must be writable. */
  sendData(frame: Uint8Array, records: number, stream: number): void {
    if (this.#isOver) return;
    this.#credit -= appendCredit(frame.length, records);
    if (frame.length > SYNC_FRAME_LARGE_BYTES) this.#large.add(stream);
    this.#sendFrame(frame, true);
  }

  /** Allocates a stream, whose messages go to `listener` until `forget()`. */
  stream(listener: StreamListener): number {
    const stream = this.#nextStream++;
    this.#streams.set(stream, listener);
    return stream;
  }

  /** Discards all further messages of a stream. */
  forget(stream: number): void {
    this.#large.delete(stream);
    this.#reads.delete(stream);
    this.#streams.delete(stream);
  }

  /** Stops a stream on the server. */
  stop(stream: number): void {
    const isOpen = this.#streams.has(stream);
    this.forget(stream);
    if (isOpen) this.send({ type: "stop", stream });
  }

  /** Grants the server credit for bytes that were consumed. */
  grant(bytes: number): void {
    if (this.#isOver || !this.#isGreeted) return;
    this.#owed += bytes;
    if (this.#welcome === undefined || this.#owed === 0) return;
    // Coalesced: a message for every frame would double their number.
    if (this.#owed < SYNC_CREDIT_BYTES / 4 && this.#allowance > 0) return;
    this.#allowance += this.#owed;
    this.send({ type: "credit", bytes: this.#owed });
    this.#owed = 0;
  }

  /** Sends a ping if the server has been silent, with a shorter time to answer than usual. */
  probe(): void {
    const { env } = this.#options;
    if (this.#welcome === undefined || this.#isAsked) return;
    if (env.now() - this.#heardAt < SYNC_HINT_MS) return;
    this.#ask(Math.min(this.#heartbeatMs, SYNC_HINT_PING_MS));
  }

  /** Closes the connection. */
  close(code: number, reason: string): void {
    if (this.#isOver) return;
    this.#transport.close(code, reason);
    // The close event of a dead connection arrives late.
    this.#end({ code, reason });
  }

  #end(end: ConnectionEnd): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#cancelTick?.();
    this.#streams.clear();
    this.#options.listener.ended(end);
  }

  #frame(bytes: Uint8Array): void {
    if (this.#isOver) return;
    this.#heardAt = this.#options.env.now();
    this.#isAsked = false;
    if (bytes.length > SYNC_FRAME_BYTES_MAX) {
      return this.close(
        CloseCode.TooBig,
        `Frame of ${bytes.length} bytes is over the limit of ${SYNC_FRAME_BYTES_MAX}`,
      );
    }
    try {
      const frame = this.#welcome === undefined ? bytes : unpackFrame(bytes);
      const message = decodeMessage(frame);
      this.#assembler.expect(message.type);
      if (message.type !== "part") return this.#take(message, frame.length);
      const joined = this.#assembler.add(message);
      if (joined === undefined) return;
      const whole = unpackFrame(joined);
      const made = decodeMessage(whole);
      if (made.type === "part" || this.#welcome === undefined) {
        throw new ErrProtocol(`Message ${made.type} was sent in parts`);
      }
      this.#take(made, whole.length);
    } catch (error) {
      if (!(error instanceof ErrProtocol)) throw error;
      this.close(CloseCode.Protocol, error.message);
    }
  }

  #take(message: Message, size: number): void {
    if (this.#welcome === undefined) return this.#first(message);
    const { listener, receiveBuffer } = this.#options;
    if (isData(message.type)) {
      if (this.#allowance <= 0) {
        return this.close(
          CloseCode.TooBig,
          `Frame of ${size} bytes was sent without credit`,
        );
      }
      this.#allowance -= size;
    }
    switch (message.type) {
      case "opened":
      case "refused":
      case "held":
      case "waits":
      case "unable":
      case "checkpoint":
        return listener.channel(message);
      case "entries":
      case "chunk": {
        const take = this.#streams.get(message.stream);
        // The stream was stopped while the frame was in flight.
        if (take === undefined) return this.grant(size);
        this.#expect(message);
        receiveBuffer.add(size);
        return take(message, size);
      }
      case "reading":
      case "end":
      case "appended":
      case "failed":
      case "index":
      case "hashes":
      case "snapshot":
        this.#expect(message);
        return this.#streams.get(message.stream)?.(message, 0);
      case "credit": {
        const wasWritable = this.isWritable;
        this.#credit += message.bytes;
        if (!wasWritable && this.isWritable) listener.writable();
        return;
      }
      case "renew":
        return listener.renew();
      case "ping":
        return this.send({ type: "pong" });
      case "pong":
        return;
      default:
        throw new ErrProtocol(`Message ${message.type} is for a server`);
    }
  }

  #first(message: Message): void {
    const { versions, listener } = this.#options;
    if (message.type !== "welcome") {
      throw new ErrProtocol(
        `First message of the server is ${message.type}, not welcome`,
      );
    }
    const { version, frameBytesMax } = message;
    if (frameBytesMax < SYNC_FRAME_BYTES_MIN) {
      throw new ErrProtocol(
        `Server accepts frames of ${frameBytesMax} bytes at most, under the minimum of ${SYNC_FRAME_BYTES_MIN}`,
      );
    }
    if (version < versions.first || version > versions.last) {
      return this.close(
        CloseCode.Version,
        `Server speaks version ${version}, this page ${versions.first} to ${versions.last}`,
      );
    }
    this.#welcome = message;
    this.#credit = message.credit;
    this.#tickIn(this.#heartbeatMs);
    // Grants the bytes consumed since the hello.
    this.grant(0);
    listener.welcomed();
  }

  get #heartbeatMs(): number {
    const { heartbeatMs } = this.#welcome!;
    return Math.min(Math.max(heartbeatMs, SYNC_HEARTBEAT_MS_MIN), TIMER_MS_MAX);
  }

  #tickIn(ms: number): void {
    this.#cancelTick?.();
    this.#cancelTick = this.#options.env.setTimer(() => this.#tick(), ms);
  }

  /**
   * Sends a ping after a silence, and closes if it stays unanswered. The timeout
   * runs from the ping, not from the last message: the clock of a frozen page has
   * advanced.
   */
  #tick(): void {
    const silence = this.#options.env.now() - this.#heardAt;
    if (this.#isAsked) {
      return this.close(
        CloseCode.Timeout,
        `Nothing was received for ${silence} ms`,
      );
    }
    if (silence < this.#heartbeatMs) {
      // Rounding may leave a rest that is below the resolution of the clock.
      return this.#tickIn(Math.max(1, this.#heartbeatMs - silence));
    }
    this.#ask(this.#heartbeatMs);
  }

  #ask(ms: number): void {
    this.#isAsked = true;
    this.send({ type: "ping" });
    this.#tickIn(ms);
  }
}

/** Encodes an append. */
export function appendFrame(
  channel: number,
  stream: number,
  lengths: readonly number[],
  bytes: Uint8Array,
): Uint8Array {
  return encodeMessage({ type: "append", channel, stream, lengths, bytes });
}
