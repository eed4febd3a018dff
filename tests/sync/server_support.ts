/**
 * Support for tests of the server: a network in simulated time, and a client that
 * sends raw protocol messages.
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
import { decodeMessage, encodeMessage } from "../../src/sync/message_codec.ts";
import {
  appendCredit,
  type Message,
  PROTOCOL_VERSIONS,
} from "../../src/sync/messages.ts";
import { unpackFrame } from "../../src/sync/packing.ts";
import type { Transport, TransportListener } from "../../src/sync/transport.ts";
import { ManualEnv, settle } from "../support/environment.ts";

/** End of a simulated connection. */
class WireEnd implements Transport {
  readonly #env: Env;
  readonly #delay: () => number;
  #listener: TransportListener | undefined;
  /** Frames and closes that were sent and have not arrived. */
  #sent: (Uint8Array | { code: number; reason: string })[] = [];
  #isOver = false;
  bufferedBytes = 0;
  other!: WireEnd;
  /** True to deliver nothing, like a reader that does not read. */
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
    // Not copied here, to find a sender that changes a frame after sending it.
    this.#push(frame);
    this.bufferedBytes += frame.length;
  }

  #push(what: Uint8Array | { code: number; reason: string }): void {
    this.#sent.push(what);
    this.#env.setTimer(() => this.deliver(), this.#delay());
  }

  /** Delivers the oldest frame or close. */
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

/** Client that sends what a test tells it to, and records what it receives. */
export class RawClient implements TransportListener {
  readonly transport: Transport;
  /** Messages received and not taken by `next()`. */
  readonly messages: Message[] = [];
  /** Bytes received. */
  received = 0;
  ending: { code: number; reason: string } | undefined;
  /** True to grant credit for data as it arrives. */
  isReading = true;
  isOpen = false;
  readonly #pass: (ms: number) => Promise<void>;
  /** Polling interval, in milliseconds. */
  stepMs = 1;

  /** Creates a client at the end of `transport`; `pass` lets time pass. */
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
    const frame = unpackFrame(bytes);
    const message = decodeMessage(frame);
    if (message.type === "ping") return this.send({ type: "pong" });
    if (message.type === "entries" || message.type === "chunk") {
      if (this.isReading) this.send({ type: "credit", bytes: frame.length });
    }
    this.messages.push(message);
  }

  closed(code: number, reason: string): void {
    this.ending = { code, reason };
  }

  send(message: Message): void {
    this.transport.send(encodeMessage(message));
  }

  /** Lets time pass until a condition holds. */
  async until(what: string, isSo: () => boolean): Promise<void> {
    for (let i = 0; !isSo(); i++) {
      if (i > 2000) throw new Error(`Never came: ${what}`);
      await this.#pass(this.stepMs);
    }
  }

  /** Removes and returns the next message of a type. */
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

  /** Code and reason with which the connection ended. */
  async end(): Promise<{ code: number; reason: string }> {
    await this.until("the end", () => this.ending !== undefined);
    return this.ending!;
  }

  /** Performs the handshake. */
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
      epochIndex: 0,
      epochID: 0n,
      far: false,
      references: false,
      ...more,
    });
  }

  /** Appends records; returns the credit that the frame uses. */
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

  /** Records received in `entries` messages up to an index. */
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

/** Record of a proposal outside any session. */
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

/** Record of a proposal in a session, or of a skip. */
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

/** Server with simulated network and time. */
export interface World {
  readonly env: ManualEnv;
  readonly host: NodeHost;
  readonly replica: Replica;
  readonly core: Core;
  readonly log: ServerLogRecord[];
  /** Connects a client; the server's end of its connection can be made to deliver nothing. */
  connect(headers?: HeadersInit): RawClient & { server: WireEnd };
  /** Connects a client, performs the handshake and opens the cluster. */
  client(token?: string): Promise<RawClient & { server: WireEnd }>;
  stop(): Promise<void>;
}

/** Starts a server. */
export async function world(
  options: CoreOptions & {
    host?: NodeHostOptions;
    config?: Partial<ReplicaConfig>;
    /** Starts a replica of another machine than the key-value one. */
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
