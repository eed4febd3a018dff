/**
 * Helpers of the client tests: connections without sockets, and a scripted
 * server.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import type {
  Log,
  LogReader,
  ReadOptions,
  Records,
} from "../../src/ports/mod.ts";
import { SYNC_READ_IDLE_MS } from "../../src/limits.ts";
import { encodeMessage } from "../../src/sync/message_codec.ts";
import { decodeFromClient } from "../../src/sync/server/hello.ts";
import { type Message, PROTOCOL_VERSIONS } from "../../src/sync/messages.ts";
import { unpackFrame } from "../../src/sync/packing.ts";
import {
  CloseCode,
  type Transport,
  type TransportListener,
} from "../../src/sync/transport.ts";
import {
  RemoteLogDB,
  type RemoteLogOptions,
} from "../../src/sync/client/mod.ts";
import { ManualEnv, settle } from "../support/environment.ts";

/** One end of a connection; frames arrive in order, each in a microtask of its own or when `later` decides. */
export class WireEnd implements Transport {
  other!: WireEnd;
  listener: TransportListener | undefined;
  isOver = false;
  bufferedBytes = 0;
  readonly #later: (deliver: () => void) => void;

  constructor(later: (deliver: () => void) => void) {
    this.#later = later;
  }

  listen(listener: TransportListener): void {
    this.listener = listener;
    this.#later(() => {
      if (!this.isOver) listener.opened();
    });
  }

  send(frame: Uint8Array): void {
    if (this.isOver) return;
    const { other } = this;
    const copy = frame.slice();
    this.#later(() => {
      if (!other.isOver) other.listener?.frame(copy);
    });
  }

  close(code: number, reason: string): void {
    if (this.isOver) return;
    this.isOver = true;
    const { other } = this;
    this.#later(() => other.end(code, reason));
  }

  /** Ends the connection at this end only. */
  end(code: number, reason: string): void {
    if (this.isOver) return;
    this.isOver = true;
    this.listener?.closed(code, reason);
  }
}

/** Creates the two ends of a connection. */
export function wire(
  later: (deliver: () => void) => void = queueMicrotask,
): [WireEnd, WireEnd] {
  const ends = [new WireEnd(later), new WireEnd(later)] as const;
  ends[0].other = ends[1];
  ends[1].other = ends[0];
  return [...ends];
}

/** Message of one type. */
export type Of<T extends Message["type"]> = Extract<Message, { type: T }>;

/** Server end of one connection. */
export class Peer implements TransportListener {
  readonly url: string;
  readonly end: WireEnd;
  /** Messages received and not taken yet. */
  readonly got: Message[] = [];
  /** Total size of the data frames received. */
  dataBytes = 0;
  how: { code: number; reason: string } | undefined;

  constructor(url: string, end: WireEnd) {
    this.url = url;
    this.end = end;
    end.listen(this);
  }

  opened(): void {}

  frame(bytes: Uint8Array): void {
    const frame = unpackFrame(bytes);
    const message = decodeFromClient(frame);
    if (message.type === "append") this.dataBytes += frame.length;
    this.got.push(message);
  }

  closed(code: number, reason: string): void {
    this.how = { code, reason };
  }

  send(...messages: Message[]): void {
    for (const message of messages) this.end.send(encodeMessage(message));
  }

  /** Takes the first message of a type; fails if there is no such message. */
  take<T extends Message["type"]>(type: T): Of<T> {
    const at = this.got.findIndex((message) => message.type === type);
    const types = this.got.map((message) => message.type);
    assert(at >= 0, `No ${type} among ${types}`);
    return this.got.splice(at, 1)[0] as Of<T>;
  }

  has(type: Message["type"]): boolean {
    return this.got.some((message) => message.type === type);
  }

  /** Breaks the connection like a network failure. */
  cut(code = 1006, reason = ""): void {
    this.end.isOver = true;
    this.end.other.end(code, reason);
  }
}

/** Scripted server: sends only what a test makes it send. */
export class Script {
  readonly peers: Peer[] = [];
  /** True if connection attempts fail. */
  isDown = false;
  /** Close code with which every connection is refused; undefined accepts them. */
  refusal: number | undefined;
  words = "";

  readonly connect = (url: string): Transport => {
    const [client, server] = wire();
    if (this.isDown) {
      queueMicrotask(() => client.end(1006, ""));
    } else {
      const peer = new Peer(url, server);
      this.peers.push(peer);
      const { refusal } = this;
      if (refusal !== undefined) {
        queueMicrotask(() => peer.end.close(refusal, this.words));
      }
    }
    return client;
  };

  get peer(): Peer {
    const peer = this.peers.at(-1);
    assert(peer !== undefined, "No client has connected");
    return peer;
  }

  /** Answers the `hello` of the last connection with `welcome`. */
  async welcome(options: Partial<Of<"welcome">> = {}): Promise<Peer> {
    await settle(1);
    const { peer } = this;
    peer.take("hello");
    peer.send({
      type: "welcome",
      version: PROTOCOL_VERSIONS.last,
      principal: "ann",
      credit: 1000,
      frameBytesMax: 2_000_000,
      commandBytesMax: 1_000_000,
      heartbeatMs: 10_000,
      ...options,
    });
    await settle(1);
    return peer;
  }

  /** Calls `welcome()` and opens a log. */
  async open(
    options: Partial<Of<"welcome">> = {},
    last = 0,
  ): Promise<Peer> {
    const peer = await this.welcome(options);
    const { channel } = peer.take("open");
    peer.send({ type: "opened", channel, last, trusted: 7n });
    await settle(1);
    return peer;
  }
}

/** Client with its environment and its scripted server. */
export interface World {
  readonly env: ManualEnv;
  readonly script: Script;
  readonly db: RemoteLogDB;
  /** Signals that the browser is online again or the page visible. */
  wake(): void;
}

/** Creates a client of a scripted server. */
export function world(
  options: RemoteLogOptions = {},
  urls: readonly string[] = ["wss://one/sync"],
): World {
  const env = new ManualEnv(1);
  const script = new Script();
  let wake = (): void => {};
  const db = new RemoteLogDB(urls, {
    env,
    connect: script.connect,
    hints: (hint) => {
      wake = hint;
      return () => void (wake = (): void => {});
    },
    ...options,
  });
  return { env, script, db, wake: () => wake() };
}

/** Opens a reader and waits until it subscribes by itself, before a batch is requested. */
export async function reading(
  { env }: World,
  log: Log,
  after: number,
  options: ReadOptions = {},
): Promise<LogReader> {
  const reader = await log.read(after, options);
  await env.advance(SYNC_READ_IDLE_MS);
  return reader;
}

/** Closes a client and asserts that no timer is left. */
export async function closeAndCheck({ db, env }: World): Promise<void> {
  await db.close();
  await settle();
  assertEquals(env.timers, 0, "A timer is left");
}

/** Makes a batch of one record for each byte of `text`, starting at index `first`. */
export function entries(
  stream: number,
  first: number,
  text: string,
  options: { follows?: number; last?: number } = {},
): Of<"entries"> {
  const bytes = new TextEncoder().encode(text);
  return {
    type: "entries",
    stream,
    follows: options.follows ?? first - 1,
    first,
    last: options.last ?? first + bytes.length - 1,
    lengths: [...bytes].map(() => 1),
    references: [],
    bytes,
  };
}

/** Decodes the records of a batch as text. */
export function textOf({ bytes }: Records): string {
  return new TextDecoder().decode(bytes);
}

export { CloseCode };
