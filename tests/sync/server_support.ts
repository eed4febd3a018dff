/**
 * What the tests of the server share: a network whose time a test turns by
 * hand, and a client that speaks the raw protocol, well or badly.
 *
 * @module
 */

import {
  KVStateMachine,
  MemoryLogDB,
  NodeHost,
  type NodeHostOptions,
  type Replica,
  type ReplicaConfig,
} from "../../mod.ts";
import { packRecords } from "../../src/ports/mod.ts";
import { SYNC_FRAME_BYTES_MAX } from "../../src/limits.ts";
import type { Records } from "../../src/log/log.ts";
import { type Env, systemEnv } from "../../src/env.ts";
import {
  claimRecord,
  proposalHeadLength,
  putProposalHead,
  putSessionHead,
  registerRecord,
  sessionHeadLength,
} from "../../src/rsm/record_codec.ts";
import { RecordKind } from "../../src/log/records.ts";
import { Core } from "../../src/sync/server/core.ts";
import type {
  CoreOptions,
  ServerLogRecord,
} from "../../src/sync/server/options.ts";
import {
  appendCredit,
  decodeMessage,
  encodeMessage,
  type Message,
  PROTOCOL_VERSIONS,
} from "../../src/sync/messages.ts";
import type { Transport, TransportListener } from "../../src/sync/transport.ts";
import { ManualEnv, settle } from "../support/environment.ts";

/** One end of a simulated connection. */
class WireEnd implements Transport {
  readonly #env: Env;
  readonly #delay: () => number;
  #listener: TransportListener | undefined;
  /** What was sent and has not arrived. */
  #sent: (Uint8Array | { code: number; reason: string })[] = [];
  #isOver = false;
  bufferedBytes = 0;
  other!: WireEnd;
  /** Whether what is sent here stays here, as with a reader that does not read. */
  isStuck = false;

  constructor(env: Env, delay: () => number) {
    this.#env = env;
    this.#delay = delay;
  }

  listen(listener: TransportListener): void {
    this.#listener = listener;
    this.#env.setTimer(() => listener.opened(), 0);
  }

  send(frame: Uint8Array): void {
    if (this.#isOver) return;
    // What is sent must not be changed by anybody afterwards: a copy would hide it.
    this.#push(frame);
    this.bufferedBytes += frame.length;
  }

  #push(what: Uint8Array | { code: number; reason: string }): void {
    this.#sent.push(what);
    this.#env.setTimer(() => this.deliver(), this.#delay());
  }

  /** Delivers the oldest of what was sent. */
  deliver(): void {
    if (this.isStuck) return;
    const what = this.#sent.shift();
    if (what === undefined) return;
    if (what instanceof Uint8Array) {
      this.bufferedBytes -= what.length;
      if (!this.other.#isOver) this.other.#listener?.frame(what.slice());
    } else this.other.end(what.code, what.reason);
  }

  close(code: number, reason: string): void {
    if (this.#isOver) return;
    this.#push({ code, reason });
    this.end(code, reason);
  }

  end(code: number, reason: string): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#listener?.closed(code, reason);
  }
}

/** The two ends of a connection. */
export function wire(
  env: Env,
  delay: () => number = (): number => 5,
): { here: WireEnd; there: WireEnd } {
  const here = new WireEnd(env, delay);
  const there = new WireEnd(env, delay);
  here.other = there;
  there.other = here;
  return { here, there };
}

/** A client that does what a test says, and remembers what it was told. */
export class RawClient implements TransportListener {
  readonly transport: Transport;
  /** What has come and was not asked for yet. */
  readonly messages: Message[] = [];
  /** Bytes of what came. */
  received = 0;
  ending: { code: number; reason: string } | undefined;
  /** Whether it grants credit for data as it comes. */
  isReading = true;
  isOpen = false;
  readonly #pass: (ms: number) => Promise<void>;
  /** How long it waits before it looks again, in milliseconds. */
  stepMs = 1;

  /** A client at the end of `transport`; `pass` lets some time pass. */
  constructor(transport: Transport, pass: (ms: number) => Promise<void>) {
    this.transport = transport;
    this.#pass = pass;
    transport.listen(this);
  }

  opened(): void {
    this.isOpen = true;
  }

  frame(bytes: Uint8Array): void {
    this.received += bytes.length;
    const message = decodeMessage(bytes);
    if (message.type === "ping") return this.send({ type: "pong" });
    if (message.type === "entries" || message.type === "chunk") {
      if (this.isReading) this.send({ type: "credit", bytes: bytes.length });
    }
    this.messages.push(message);
  }

  closed(code: number, reason: string): void {
    this.ending = { code, reason };
  }

  send(message: Message): void {
    this.transport.send(encodeMessage(message));
  }

  /** Lets time pass until something is so. */
  async until(what: string, isSo: () => boolean): Promise<void> {
    for (let i = 0; !isSo(); i++) {
      if (i > 2000) throw new Error(`Never came: ${what}`);
      await this.#pass(this.stepMs);
    }
  }

  /** The next message of a type; those of other types stay. */
  async next<T extends Message["type"]>(
    type: T,
    stream?: number,
  ): Promise<Extract<Message, { type: T }>> {
    const find = (): number =>
      this.messages.findIndex((message) =>
        message.type === type &&
        (stream === undefined || (message as { stream?: number }).stream ===
            stream)
      );
    await this.until(
      `${type} (closed: ${JSON.stringify(this.ending)})`,
      () => find() >= 0 || this.ending !== undefined,
    );
    const at = find();
    if (at < 0) {
      throw new Error(`No ${type}, but closed: ${this.ending?.reason}`);
    }
    return this.messages.splice(at, 1)[0] as Extract<Message, { type: T }>;
  }

  /** How the connection ended. */
  async end(): Promise<{ code: number; reason: string }> {
    await this.until("the end", () => this.ending !== undefined);
    return this.ending!;
  }

  /** Says hello, well. */
  async hello(
    more: Partial<Extract<Message, { type: "hello" }>> = {},
  ): Promise<Extract<Message, { type: "welcome" }>> {
    await this.until("opened", () => this.isOpen);
    this.send({
      type: "hello",
      ...PROTOCOL_VERSIONS,
      token: undefined,
      credit: 1 << 20,
      frameBytesMax: SYNC_FRAME_BYTES_MAX,
      renews: false,
      ...more,
    });
    return await this.next("welcome");
  }

  async open(
    channel = 1,
    clusterID = 1n,
    nodeID = 100n,
  ): Promise<Extract<Message, { type: "opened" }>> {
    this.send({ type: "open", channel, clusterID, nodeID });
    return await this.next("opened");
  }

  read(
    stream: number,
    after: number,
    more: Partial<Extract<Message, { type: "read" }>> = {},
  ): void {
    this.send({
      type: "read",
      channel: 1,
      stream,
      after,
      markIndex: 0,
      markEpoch: 0n,
      far: false,
      references: false,
      ...more,
    });
  }

  /** Appends records; returns what the frame takes off the credit. */
  append(stream: number, records: Records, channel = 1): number {
    const { bytes, ends } = records;
    const lengths = ends.map((end, i) => end - (ends[i - 1] ?? 0));
    const message = {
      type: "append",
      channel,
      stream,
      lengths,
      bytes,
    } as const;
    const frame = encodeMessage(message);
    this.transport.send(frame);
    return appendCredit(frame.length, lengths.length);
  }

  /** The records of `entries` messages up to an index, as they come. */
  async entriesUpTo(
    index: number,
    after = 0,
  ): Promise<Uint8Array[]> {
    const records: Uint8Array[] = [];
    for (let position = after; position < index;) {
      const batch = await this.next("entries");
      if (batch.follows !== position) {
        throw new Error(`Follows ${batch.follows}, not ${position}`);
      }
      let at = 0;
      for (const length of batch.lengths) {
        records.push(batch.bytes.slice(at, at += length));
      }
      position = batch.first + batch.lengths.length - 1;
    }
    return records;
  }
}

/** A proposal outside of any session. */
export function proposal(
  cmd: Uint8Array,
  sequence = 1,
  origin = 7,
): Uint8Array {
  const head = proposalHeadLength(sequence);
  const record = new Uint8Array(head + cmd.length);
  putProposalHead(record, 0, origin, 7, sequence);
  record.set(cmd, head);
  return record;
}

/** A proposal of a session, or a skip. */
export function sessionProposal(
  session: number,
  series: number,
  cmd: Uint8Array | undefined,
  lag: number = series - 1,
): Uint8Array {
  const head = sessionHeadLength(session, series, lag);
  const record = new Uint8Array(head + (cmd?.length ?? 0));
  const kind = cmd === undefined ? RecordKind.Skip : RecordKind.SessionProposal;
  putSessionHead(record, 0, kind, session, series, lag);
  if (cmd !== undefined) record.set(cmd, head);
  return record;
}

export { claimRecord, packRecords, registerRecord };

/** A server over simulated network and time. */
export interface World {
  readonly env: ManualEnv;
  readonly host: NodeHost;
  readonly replica: Replica;
  readonly core: Core;
  readonly log: ServerLogRecord[];
  /** Connects a client; the server's end of its connection can be stuck. */
  connect(headers?: HeadersInit): RawClient & { server: WireEnd };
  /** Connects, says hello and opens the cluster. */
  client(token?: string): Promise<RawClient & { server: WireEnd }>;
  stop(): Promise<void>;
}

/** Starts one. */
export async function world(
  options: CoreOptions & {
    host?: NodeHostOptions;
    config?: Partial<ReplicaConfig>;
    /** Starts its replica, of another machine than the key-value one. */
    start?: (host: NodeHost, config: ReplicaConfig) => Promise<Replica>;
    delay?: () => number;
    seed?: number;
  } = {},
): Promise<World> {
  const env = new ManualEnv(options.seed);
  const logDB = new MemoryLogDB({ env });
  const host = new NodeHost({ env, logDB, ...options.host });
  const config = { clusterID: 1n, nodeID: 1n, ...options.config };
  const start = options.start ??
    ((): Promise<Replica> =>
      host.startCluster(() => new KVStateMachine(), config));
  const replica = await start(host, config);
  const log: ServerLogRecord[] = [];
  const core = new Core(host, {
    log: (record) => log.push(record),
    ...options,
  });
  const connect = (headers: HeadersInit = {}): RawClient & {
    server: WireEnd;
  } => {
    const { here, there } = wire(env, options.delay);
    core.accept(there, {
      url: "http://sync.test/sync",
      headers: new Headers(headers),
    });
    const client = new RawClient(here, (ms) => env.advance(ms));
    return Object.assign(client, { server: there });
  };
  return {
    env,
    host,
    replica,
    core,
    log,
    connect,
    async client(token): Promise<RawClient & { server: WireEnd }> {
      const client = connect();
      await client.hello({ token });
      await client.open();
      return client;
    },
    async stop(): Promise<void> {
      const stopped = core.stop();
      await env.until(stopped, 100);
      await env.until(host.stop(), 100);
      await logDB.close();
      await settle();
    },
  };
}

/** Lets real time pass. */
export async function realTime(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 2));
  await systemEnv.turn();
}
