/**
 * One connection to a server, from its hello to its end: heartbeat, streams,
 * and the credit of both ends.
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
import {
  appendCredit,
  type Appended,
  type CheckpointAt,
  type Chunk,
  decodeMessage,
  encodeMessage,
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
  type Welcome,
} from "../messages.ts";
import { Assembler, sendInParts } from "../parts.ts";
import { CloseCode, type Transport } from "../transport.ts";
import type { Inbox } from "./inbox.ts";

/** A message that belongs to a stream. */
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

/** A message that belongs to a channel. */
export type ChannelMessage = Opened | Refused | Held | Unable | CheckpointAt;

/** Takes the messages of a stream; `size` is what a data frame counts for, to be released by whoever keeps it. */
export type StreamListener = (message: StreamMessage, size: number) => void;

/** How a connection ended. */
export interface ConnectionEnd {
  /** A `CloseCode`, or a code of the WebSocket protocol. */
  readonly code: number;
  /** In words, if it came with some. */
  readonly reason: string;
}

/** Who hears what happens to a connection. */
export interface ConnectionListener {
  /** The server has answered: from now on it may be used. */
  welcomed(): void;
  /** A message for a channel. */
  channel(message: ChannelMessage): void;
  /** There is credit for data again. */
  writable(): void;
  /** The server asks for another token. */
  renew(): void;
  /** It is over; called once, and nothing after it. */
  ended(end: ConnectionEnd): void;
}

/** What a connection takes. */
export interface ConnectionOptions {
  readonly env: Env;
  readonly token: string | undefined;
  readonly versions: Versions;
  readonly inbox: Inbox;
  /** The largest frame that is sent or taken, in bytes: larger messages go in parts. */
  readonly frameBytes: number;
  readonly listener: ConnectionListener;
}

/** One connection. */
export class Connection {
  readonly #transport: Transport;
  readonly #options: ConnectionOptions;
  readonly #streams = new Map<number, StreamListener>();
  #nextStream = 1;
  #welcome: Welcome | undefined;
  #isGreeted = false;
  #isOver = false;
  /** The bytes of data the server takes before it grants more. */
  #credit = 0;
  /** The bytes of data the server may send before it is granted more. */
  #allowance = 0;
  /** What was taken here and is not granted again yet, in bytes. */
  #owed = 0;
  #heardAt = 0;
  /** Whether the server was asked whether it is there, and has said nothing since. */
  #isAsked = false;
  #cancelTick: (() => void) | undefined;
  readonly #assembler = new Assembler();
  /** Streams on which a large frame may be under way, either way. */
  readonly #large = new Set<number>();
  /** Index after which each read was asked for that was not answered. */
  readonly #reads = new Map<number, number>();

  /** Makes use of a transport that nobody listens to yet. */
  constructor(transport: Transport, options: ConnectionOptions) {
    this.#transport = transport;
    this.#options = options;
    transport.listen({
      opened: () => this.#hello(),
      frame: (bytes) => this.#frame(bytes),
      closed: (code, reason) => this.#end({ code, reason }),
    });
  }

  /** What the server has answered, once it has. */
  get welcome(): Welcome | undefined {
    return this.#welcome;
  }

  /** True once the transport has been open, also after it has closed. */
  get isOpened(): boolean {
    return this.#isGreeted;
  }

  /** Whether data may be sent. */
  get isWritable(): boolean {
    return this.#credit > 0 && !this.#isOver;
  }

  #hello(): void {
    if (this.#isOver) return;
    const { token, versions, inbox } = this.#options;
    // What is still held from the connection before counts against this one.
    this.#allowance = Math.max(0, SYNC_CREDIT_BYTES - inbox.bytes);
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

  /** Sends a message; harmless when it is over. */
  send(message: Message): void {
    if (this.#isOver) return;
    if (message.type === "read") this.#reads.set(message.stream, message.after);
    if (message.type === "read" || message.type === "fetch") {
      this.#large.add(message.stream);
    }
    this.#sendFrame(encodeMessage(message));
  }

  #sendFrame(frame: Uint8Array): void {
    // Before the welcome there are no parts.
    if (this.#welcome === undefined) return this.#transport.send(frame);
    const { frameBytes } = this.#options;
    const max = Math.min(frameBytes, this.#welcome.frameBytesMax);
    sendInParts(frame, max, (frame) => this.#transport.send(frame));
  }

  /** True if a large frame may be under way, so that something on the way may have ended the connection for it. */
  get hasLargeFrame(): boolean {
    return this.#large.size > 0 &&
      this.#options.frameBytes > SYNC_FRAME_LARGE_BYTES;
  }

  /** Keeps account of the streams on which something large is to come. */
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

  /** Sends the frame of an append of that many records on a stream; the connection must be writable. */
  sendData(frame: Uint8Array, records: number, stream: number): void {
    if (this.#isOver) return;
    this.#credit -= appendCredit(frame.length, records);
    if (frame.length > SYNC_FRAME_LARGE_BYTES) this.#large.add(stream);
    this.#sendFrame(frame);
  }

  /** A stream whose messages go to `listener` until it is forgotten. */
  stream(listener: StreamListener): number {
    const stream = this.#nextStream++;
    this.#streams.set(stream, listener);
    return stream;
  }

  /** From now on the messages of a stream are of no interest. */
  forget(stream: number): void {
    this.#large.delete(stream);
    this.#reads.delete(stream);
    this.#streams.delete(stream);
  }

  /** Tells the server that a stream is of no interest any more. */
  stop(stream: number): void {
    const isOpen = this.#streams.has(stream);
    this.forget(stream);
    if (isOpen) this.send({ type: "stop", stream });
  }

  /** What was received has been taken: the server may send as much again. */
  grant(bytes: number): void {
    if (this.#isOver || !this.#isGreeted) return;
    this.#owed += bytes;
    if (this.#welcome === undefined || this.#owed === 0) return;
    // A message for every frame would double their number.
    if (this.#owed < SYNC_CREDIT_BYTES / 4 && this.#allowance > 0) return;
    this.#allowance += this.#owed;
    this.send({ type: "credit", bytes: this.#owed });
    this.#owed = 0;
  }

  /** Asks whether the server is there, if it has been silent; it has less time to answer than usual. */
  probe(): void {
    const { env } = this.#options;
    if (this.#welcome === undefined || this.#isAsked) return;
    if (env.now() - this.#heardAt < SYNC_HINT_MS) return;
    this.#ask(Math.min(this.#heartbeatMs, SYNC_HINT_PING_MS));
  }

  /** Ends it. */
  close(code: number, reason: string): void {
    if (this.#isOver) return;
    this.#transport.close(code, reason);
    // A dead connection takes its time to close.
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
      return this.close(CloseCode.TooBig, "Frame is too large");
    }
    try {
      const message = decodeMessage(bytes);
      this.#assembler.expect(message.type);
      if (message.type !== "part") return this.#take(message, bytes.length);
      const whole = this.#assembler.take(message);
      if (whole === undefined) return;
      const made = decodeMessage(whole);
      if (made.type === "part" || this.#welcome === undefined) {
        throw new ErrProtocol(`Message ${made.type} came in parts`);
      }
      this.#take(made, whole.length);
    } catch (error) {
      if (!(error instanceof ErrProtocol)) throw error;
      this.close(CloseCode.Protocol, error.message);
    }
  }

  #take(message: Message, size: number): void {
    if (this.#welcome === undefined) return this.#first(message);
    const { listener, inbox } = this.#options;
    if (isData(message.type)) {
      if (this.#allowance <= 0) {
        return this.close(
          CloseCode.TooBig,
          "More was sent than the credit granted",
        );
      }
      this.#allowance -= size;
    }
    switch (message.type) {
      case "opened":
      case "refused":
      case "held":
      case "unable":
      case "checkpoint":
        return listener.channel(message);
      case "entries":
      case "chunk": {
        const take = this.#streams.get(message.stream);
        // It was stopped meanwhile.
        if (take === undefined) return this.grant(size);
        this.#expect(message);
        inbox.add(size);
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
      throw new ErrProtocol(`First message is ${message.type}, no welcome`);
    }
    const { version, frameBytesMax } = message;
    if (frameBytesMax < SYNC_FRAME_BYTES_MIN) {
      throw new ErrProtocol(
        `Server takes frames of ${frameBytesMax} bytes, less than the least, ${SYNC_FRAME_BYTES_MIN}`,
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
    // What was taken since the hello.
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
   * Silence is counted from when the server was asked, not from when it was last
   * heard: the clock of a page that was frozen has gone on without it.
   */
  #tick(): void {
    const silence = this.#options.env.now() - this.#heardAt;
    if (this.#isAsked) {
      return this.close(CloseCode.Timeout, "Nothing was heard for too long");
    }
    if (silence < this.#heartbeatMs) {
      // Rounding may leave a rest that is too small to move the clock on.
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

/** The frame of an append. */
export function appendFrame(
  channel: number,
  stream: number,
  lengths: readonly number[],
  bytes: Uint8Array,
): Uint8Array {
  return encodeMessage({ type: "append", channel, stream, lengths, bytes });
}
