/**
 * What the tests of the client share: a wire without sockets, and a server that
 * says what a test tells it to.
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
import {
  decodeMessage,
  encodeMessage,
  type Message,
  PROTOCOL_VERSIONS,
} from "../../src/sync/messages.ts";
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

/** One end of a wire; frames arrive in order, each in a microtask of its own or when `later` says. */
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

  /** It is over at this end. */
  end(code: number, reason: string): void {
    if (this.isOver) return;
    this.isOver = true;
    this.listener?.closed(code, reason);
  }
}

/** Two ends of a wire. */
export function wire(
  later: (deliver: () => void) => void = queueMicrotask,
): [WireEnd, WireEnd] {
  const ends = [new WireEnd(later), new WireEnd(later)] as const;
  ends[0].other = ends[1];
  ends[1].other = ends[0];
  return [...ends];
}

/** A message of one type. */
export type Of<T extends Message["type"]> = Extract<Message, { type: T }>;

/** One connection, as the scripted server has it. */
export class Peer implements TransportListener {
  readonly url: string;
  readonly end: WireEnd;
  /** What came and was not taken yet. */
  readonly got: Message[] = [];
  /** Sizes of the data frames that came. */
  dataBytes = 0;
  how: { code: number; reason: string } | undefined;

  constructor(url: string, end: WireEnd) {
    this.url = url;
    this.end = end;
    end.listen(this);
  }

  opened(): void {}

  frame(bytes: Uint8Array): void {
    const message = decodeMessage(bytes);
    if (message.type === "append") this.dataBytes += bytes.length;
    this.got.push(message);
  }

  closed(code: number, reason: string): void {
    this.how = { code, reason };
  }

  send(...messages: Message[]): void {
    for (const message of messages) this.end.send(encodeMessage(message));
  }

  /** The first message of that type that was not taken yet; it must be there. */
  take<T extends Message["type"]>(type: T): Of<T> {
    const at = this.got.findIndex((message) => message.type === type);
    const types = this.got.map((message) => message.type);
    assert(at >= 0, `No ${type} among ${types}`);
    return this.got.splice(at, 1)[0] as Of<T>;
  }

  has(type: Message["type"]): boolean {
    return this.got.some((message) => message.type === type);
  }

  /** As if the network broke. */
  cut(code = 1006, reason = ""): void {
    this.end.isOver = true;
    this.end.other.end(code, reason);
  }
}

/** A server that does nothing of its own accord. */
export class Script {
  readonly peers: Peer[] = [];
  /** Whether nobody can reach it. */
  isDown = false;
  /** How everybody is refused, if they are. */
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
    assert(peer !== undefined, "Nobody has connected");
    return peer;
  }

  /** Welcomes whoever said hello last. */
  async welcome(options: Partial<Of<"welcome">> = {}): Promise<Peer> {
    await settle(1);
    const { peer } = this;
    peer.take("hello");
    peer.send({
      type: "welcome",
      version: PROTOCOL_VERSIONS.last,
      principal: "somebody",
      credit: 1000,
      frameBytesMax: 2_000_000,
      commandBytesMax: 1_000_000,
      heartbeatMs: 10_000,
      ...options,
    });
    await settle(1);
    return peer;
  }

  /** As `welcome()`, and opens a log. */
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

/** A client, its time, and the server it talks to. */
export interface World {
  readonly env: ManualEnv;
  readonly script: Script;
  readonly db: RemoteLogDB;
  /** What a browser would tell. */
  wake(): void;
}

/** A client of a scripted server. */
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

/** A reader that has what the server sends, though no batch was asked for yet. */
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

/** Closes a client, after which no timer may be left. */
export async function over({ db, env }: World): Promise<void> {
  await db.close();
  await settle();
  assertEquals(env.timers, 0, "A timer is left");
}

/** Entries with one record each byte of `text`, the first at `first`. */
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

/** The records of a batch, as text. */
export function textOf({ bytes }: Records): string {
  return new TextDecoder().decode(bytes);
}

export { CloseCode };
