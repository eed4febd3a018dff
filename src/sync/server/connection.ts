/**
 * Server side of one connection: decodes, limits and dispatches the messages of one
 * client.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  BATCH_BYTES_MAX,
  SYNC_LOG_RECORDS_MAX,
  SYNC_SUSPENDED_MESSAGES_MAX,
  SYNC_TOKEN_BYTES_MAX,
} from "../../limits.ts";
import { ErrClusterClosed, ErrNodeIDTaken } from "../../log/errors.ts";
import type { Records } from "../../log/log.ts";
import { ErrHookFailed, ErrProtocol } from "../errors.ts";
import {
  type Append,
  appendCredit,
  COMPACT_VERSION,
  type Hello,
  type Message,
  type Open,
} from "../messages.ts";
import { unpackFrame } from "../packing.ts";
import { Assembler } from "../parts.ts";
import {
  CloseCode,
  type Transport,
  type TransportListener,
} from "../transport.ts";
import { decodeFromClient } from "./hello.ts";
import { checkRecords } from "./admission.ts";
import {
  type AuthenticatedConnection,
  Authentication,
} from "./authentication.ts";
import { Channel, type ChannelRequest } from "./channel.ts";
import type { ChannelConnection } from "./channel_connection.ts";
import { failureOf } from "./cluster_failure.ts";
import type { ServerContext } from "./context.ts";
import { CreditWindow } from "./credit_window.ts";
import { negotiate, type UpgradeRequest, Violation } from "./handshake.ts";
import { endMessage } from "./log_stream.ts";
import type { ServerLogRecord } from "./options.ts";
import { ReadPermission } from "./read_permission.ts";
import { Sender } from "./sender.ts";
import type { ServedCluster } from "./served_cluster.ts";
import { SentRecords } from "./sent_records.ts";
import { Streams } from "./streams.ts";
import { TokenBucket } from "./token_bucket.ts";

/** Dependencies of a {@linkcode Connection}. */
export interface ConnectionOptions {
  /** Number of the connection, counted from 1. */
  readonly number: number;
  /** Transport of its frames. */
  readonly transport: Transport;
  /** HTTP request that it began with. */
  readonly upgrade: UpgradeRequest;
  /** Services of the server. */
  readonly server: ServerContext;
  /** Returns the size of its credit window, in bytes. */
  readonly creditBytes: () => number;
  /** Called when an append was answered. */
  readonly appendAnswered: () => void;
  /** Called when the connection has ended. */
  readonly ended: (connection: Connection) => void;
}

/**
 * Decodes, limits and dispatches the messages of one client. What a client costs
 * is bounded, and its errors end its own connection only.
 */
export class Connection
  implements TransportListener, ChannelConnection, AuthenticatedConnection {
  /** Number of the connection, counted from 1. */
  readonly number: number;
  /** Authentication of the client, with its principal. */
  readonly authentication: Authentication;
  /** Outgoing half of the connection. */
  readonly sender: Sender;
  /** Streams in use. */
  readonly streams: Streams;
  /** Records that the client has appended and not read back yet. */
  readonly sentRecords: SentRecords = new SentRecords();
  readonly #options: ConnectionOptions;
  readonly #server: ServerContext;
  /** Version of the protocol; 0 before the welcome. */
  version = 0;
  #state: "connected" | "authenticating" | "open" | "closed" = "connected";
  /** Open channels; undefined for one that is being opened. */
  readonly #channels = new Map<number, Channel | undefined>();
  /** `open` message of each channel that is being opened: a client may close the channel and reuse its number. */
  readonly #opening = new Map<number, Open>();
  readonly #credit: CreditWindow;
  /** Rate limit of the messages that need no credit. */
  readonly #messages: TokenBucket;
  readonly #assembler = new Assembler();
  /** Messages received while the principal is suspended, with the size of each. */
  readonly #suspended: (readonly [message: Message, size: number])[] = [];
  /** Log records since the last tick. */
  #logged = 0;
  readonly #ended = new AbortController();
  #isTransportOpen = false;
  /** Code and reason to close the transport with once it is open. */
  #closeWhenOpen: readonly [code: number, reason: string] | undefined;
  /** Time of its start, on the clock of the server. */
  readonly connectedAt: number;
  #receivedAt: number;
  /** Time of the ping since the last frame received; undefined without one. */
  #pingedAt: number | undefined;

  /** Creates a connection that awaits its first message. */
  constructor(options: ConnectionOptions) {
    const { number, transport, upgrade, server, creditBytes } = options;
    const { env, limits, load } = server;
    this.#options = options;
    this.#server = server;
    this.number = number;
    this.#receivedAt = this.connectedAt = env.now();
    this.sender = new Sender({
      transport,
      env,
      counts: server.telemetry.counts,
      close: (code, reason) => this.close(code, reason),
    });
    this.streams = new Streams(this.sender, limits.streams);
    this.authentication = new Authentication(server, upgrade, this);
    this.#messages = new TokenBucket(env, limits.messagesPerSecond);
    this.#credit = new CreditWindow({
      env,
      load,
      size: creditBytes,
      grant: (bytes) => this.sender.send({ type: "credit", bytes }),
    });
  }

  /** Remote address, if it is known. */
  get address(): string | undefined {
    return this.#options.upgrade.address;
  }

  /** Ids of the clusters that the client has open. */
  get clusters(): readonly bigint[] {
    return [...this.#channels.values()].flatMap((channel) =>
      channel === undefined ? [] : [channel.clusterID]
    );
  }

  /** Node ids of the client's replicas of the clusters that it has open. */
  get nodes(): readonly bigint[] {
    return [...this.#channels.values()].flatMap((channel) =>
      channel === undefined ? [] : [channel.nodeID]
    );
  }

  /** Bytes that wait in the socket because the client has not read them. */
  get queuedBytes(): number {
    return this.#options.transport.bufferedBytes;
  }

  /** Aborts when the connection ends. */
  get signal(): AbortSignal {
    return this.#ended.signal;
  }

  /** True once the connection is closed. */
  get isClosed(): boolean {
    return this.#state === "closed";
  }

  /** Logs an event of this connection; past a bound per second, records are dropped so that no client can fill the disk. */
  log(
    level: ServerLogRecord["level"],
    event: string,
    more: Partial<ServerLogRecord> = {},
  ): void {
    if (++this.#logged > SYNC_LOG_RECORDS_MAX) return;
    const { principal } = this.authentication;
    this.#server.log.write({
      level,
      event,
      connection: this.number,
      ...(principal && { principal: principal.id }),
      ...more,
    });
  }

  // ------------------------------------------------------------------- receiving

  /** Called when the transport can send. */
  opened(): void {
    this.#isTransportOpen = true;
    if (this.#closeWhenOpen !== undefined) {
      this.#options.transport.close(...this.#closeWhenOpen);
    }
  }

  /** Called with each frame received. */
  frame(bytes: Uint8Array): void {
    if (this.isClosed) return;
    const { env, load, scheduler, telemetry } = this.#server;
    const from = this.#receivedAt = env.now();
    this.#pingedAt = undefined;
    telemetry.counts.received += bytes.length;
    let received: readonly [Message, number] | undefined;
    try {
      received = this.#decode(bytes);
    } catch (error) {
      this.#violated(error);
    }
    load.spent(env.now() - from);
    if (received === undefined) return;
    const [message, size] = received;
    // Never rejects: `#handle()` catches all errors.
    void scheduler.run(this, () => this.#handle(message, size));
  }

  /** Decodes a frame; returns its message and size, undefined while parts of the message are missing. */
  #decode(frame: Uint8Array): readonly [Message, number] | undefined {
    const { limits: { frameBytes }, quotas } = this.#server;
    const { length } = frame;
    if (length > frameBytes) {
      throw new Violation(
        CloseCode.TooBig,
        `Frame of ${length} bytes is over the limit of ${frameBytes}`,
      );
    }
    const single = this.#state === "open" ? unpackFrame(frame) : frame;
    const message = decodeFromClient(single);
    this.#assembler.expect(message.type);
    this.#allow(message, single.length);
    if (message.type !== "part") return [message, single.length];
    const joined = this.#assembler.add(message);
    quotas.setUnfinished(this, this.#assembler.bytes);
    if (joined === undefined) return undefined;
    const whole = unpackFrame(joined);
    const assembled = decodeFromClient(whole);
    if (assembled.type === "part" || assembled.type === "hello") {
      throw new ErrProtocol(`Message ${assembled.type} was sent in parts`);
    }
    this.#allow(assembled, whole.length);
    return [assembled, whole.length];
  }

  /** Checks that the client may send a message now, and charges it to the credit or the rate limit. */
  #allow(message: Message, size: number): void {
    if (!FROM_CLIENT[message.type]) {
      throw new ErrProtocol(
        `Message ${message.type} may only be sent by the server`,
      );
    }
    if (message.type === "hello") {
      if (this.#state !== "connected") {
        throw new ErrProtocol(`Message ${message.type} was sent a second time`);
      }
      this.#state = "authenticating";
    } else if (this.#state !== "open") {
      // Not queued, because it may be large.
      throw new ErrProtocol(`Message ${message.type} before the welcome`);
    } else if (message.type === "append") {
      const credit = appendCredit(size, message.lengths.length);
      if (!this.#credit.charge(credit)) throw overCredit(size);
    } else if (
      message.type === "part" && this.#credit.granted <= 0 &&
      this.#assembler.bytes + message.bytes.length > TOKEN_FRAME_BYTES_MAX
    ) {
      // A larger message is an append, which needs credit.
      throw overCredit(size);
    } else if (this.#messages.take(COSTS[message.type] ?? 1) < 0) {
      const { messagesPerSecond } = this.#server.limits;
      throw new Violation(
        CloseCode.TooMany,
        `No more than ${messagesPerSecond} messages a second`,
      );
    }
  }

  /** Handles a message, or queues it while the principal is suspended. */
  #handle(message: Message, size: number): void {
    if (this.isClosed) return;
    const isQueued = this.authentication.isSuspended &&
      message.type !== "token" && message.type !== "ping" &&
      message.type !== "pong";
    try {
      if (!isQueued) return this.#dispatch(message, size);
      if (this.#suspended.length >= SYNC_SUSPENDED_MESSAGES_MAX) {
        throw new Violation(
          CloseCode.TooMany,
          `More than ${SYNC_SUSPENDED_MESSAGES_MAX} messages were sent before another token`,
        );
      }
      this.#suspended.push([message, size]);
    } catch (error) {
      this.#violated(error);
    }
  }

  #dispatch(message: Message, size: number): void {
    switch (message.type) {
      case "hello":
        return this.#watch(this.#handshake(message));
      case "token":
        return this.#watch(this.authentication.renew(message.token));
      case "open":
        return this.#watch(this.#openChannel(message));
      case "close":
        return this.#closeChannel(message.channel);
      case "read":
      case "fetch":
      case "readIndex":
      case "verify":
      case "explain":
        return this.#request(message);
      case "stop":
        return this.#stop(message.stream);
      case "append":
        return this.#append(message, size);
      case "checkpoint":
        return this.#channels.get(message.channel)?.checkpoint(message);
      case "credit":
        return this.sender.grant(message.bytes);
      case "ping":
        return this.sender.send({ type: "pong" });
    }
  }

  /** Ends the connection if the handler of a message fails: no promise is left unhandled. */
  #watch(handled: Promise<void>): void {
    handled.catch((error) => this.#violated(error));
  }

  // -------------------------------------------------------------- authentication

  async #handshake(hello: Hello): Promise<void> {
    const { limits, quotas, versions } = this.#server;
    const version = negotiate(versions, hello);
    const principal = await this.authentication.begin(hello.token);
    if (principal === undefined) return;
    this.#credit.commands = quotas.commandsOf(principal);
    this.sender.send({
      type: "welcome",
      version,
      principal: principal.id,
      credit: this.#credit.granted,
      frameBytesMax: limits.frameBytes,
      commandBytesMax: limits.commandBytes,
      heartbeatMs: limits.heartbeatMs,
    });
    if (this.isClosed) return;
    this.#state = "open";
    this.version = version;
    this.sender.isCompact = version >= COMPACT_VERSION;
    this.sender.frameBytes = Math.min(limits.frameBytes, hello.frameBytesMax);
    this.authentication.start(hello.renews === true);
    this.sender.grant(hello.credit);
    this.log("info", "connected");
  }

  /** Asks the client for a new token. */
  requestToken(withinMs: number): void {
    this.sender.send({ type: "renew", withinMs });
  }

  /** Queues messages in both directions. */
  suspended(): void {
    this.sender.suspend();
  }

  /** Sends and handles the queued messages. */
  resumed(): void {
    this.sender.resume();
    for (const [message, size] of this.#suspended.splice(0)) {
      this.#handle(message, size);
    }
  }

  /** Logs a token that was rejected. */
  tokenRejected(error: unknown): void {
    this.log("warn", "token refused", { error });
  }

  // -------------------------------------------------------------------- channels

  async #openChannel(message: Open): Promise<void> {
    const { channel, clusterID } = message;
    const { limits: { channels } } = this.#server;
    if (this.#channels.has(channel)) {
      return this.close(
        CloseCode.Protocol,
        `Channel ${channel} is open already`,
      );
    }
    if (this.#channels.size >= channels) {
      return this.#sendRefused(
        channel,
        CloseCode.TooMany,
        `No more than ${channels} clusters on one connection`,
      );
    }
    this.#channels.set(channel, undefined);
    this.#opening.set(channel, message);
    try {
      await this.#tryOpen(message);
    } catch (error) {
      if (!this.#isOpening(message)) return;
      const event = error instanceof ErrHookFailed
        ? `${error.hook} failed`
        : "open failed";
      this.log("error", event, { clusterID, error });
      const { reason } = this.#server.reach;
      this.refuseChannel(
        channel,
        reason === undefined ? CloseCode.GoingAway : CloseCode.CutOff,
        reason ?? `Cluster ${clusterID} cannot be opened now`,
      );
    }
  }

  /** True while the channel of a message is being opened: the client has not closed it, and the connection has not ended. */
  #isOpening(message: Open): boolean {
    return this.#opening.get(message.channel) === message;
  }

  async #tryOpen(message: Open): Promise<void> {
    const { channel, clusterID, nodeID } = message;
    const { env, host, hooks, clusters } = this.#server;
    const permission = new ReadPermission({
      env,
      hooks,
      clusterID,
      identity: () => this.authentication.principal!,
    });
    const may = await permission.check();
    if (!this.#isOpening(message)) return;
    if (!may) {
      return this.refuseChannel(
        channel,
        CloseCode.Forbidden,
        `You may not read cluster ${clusterID}`,
      );
    }
    const { reason } = this.#server.reach;
    if (reason !== undefined) {
      return this.refuseChannel(channel, CloseCode.CutOff, reason);
    }
    const cluster = await clusters.get(clusterID);
    if (!this.#isOpening(message)) return;
    if (this.#server.isStopping) {
      return this.refuseChannel(channel, CloseCode.GoingAway, STOPPING);
    }
    const failure = failureOf(host, clusterID);
    if (failure !== undefined) {
      return this.refuseChannel(channel, CloseCode.ClusterFailed, failure);
    }
    if (cluster === undefined) {
      return this.refuseChannel(
        channel,
        CloseCode.NotFound,
        `There is no cluster ${clusterID} on this server`,
      );
    }
    if (nodeID === cluster.replica.nodeID) {
      // Checkpoints of the two replicas would be indistinguishable.
      return this.refuseChannel(
        channel,
        CloseCode.Conflict,
        new ErrNodeIDTaken(clusterID, nodeID).message,
      );
    }
    const last = await cluster.log.readIndex();
    if (!this.#isOpening(message)) return;
    if (cluster.isLive) this.#opened(message, cluster, last, permission);
    else this.#refuseEnded(message);
  }

  #refuseEnded({ channel, clusterID }: Open): void {
    const failure = failureOf(this.#server.host, clusterID);
    if (failure !== undefined) {
      return this.refuseChannel(channel, CloseCode.ClusterFailed, failure);
    }
    this.refuseChannel(
      channel,
      CloseCode.GoingAway,
      "Cluster was stopped on the server",
    );
  }

  #opened(
    { channel: number, nodeID }: Open,
    cluster: ServedCluster,
    last: number,
    permission: ReadPermission,
  ): void {
    const channel = new Channel({
      number,
      nodeID,
      cluster,
      permission,
      connection: this,
      server: this.#server,
    });
    this.#channels.set(number, channel);
    this.#opening.delete(number);
    const trusted = cluster.replica.nodeID;
    this.sender.send({ type: "opened", channel: number, last, trusted });
    channel.start();
  }

  /** Closes a channel, and tells the client the code and the reason. */
  refuseChannel(channel: number, code: number, reason: string): void {
    if (!this.#channels.has(channel)) return;
    this.#closeChannel(channel);
    this.#sendRefused(channel, code, reason);
  }

  #sendRefused(channel: number, code: number, reason: string): void {
    this.log("warn", "channel refused", { code, reason });
    this.sender.send({ type: "refused", channel, code, reason });
  }

  #closeChannel(number: number): void {
    const channel = this.#channels.get(number);
    this.#channels.delete(number);
    this.#opening.delete(number);
    if (channel === undefined) return;
    this.sender.stopChannel(number);
    channel.close();
  }

  // -------------------------------------------------------------------- requests

  #append(message: Append, size: number): void {
    const { stream, lengths } = message;
    const records = recordsOf(message);
    const credit = appendCredit(size, lengths.length);
    this.streams.begin(stream, "append");
    const channel = this.#channels.get(message.channel);
    if (channel !== undefined && !this.#server.isStopping) {
      return channel.append(message, records, credit);
    }
    const reason = channel === undefined ? NOT_OPEN : STOPPING;
    this.answer(stream, failed(stream, reason));
    this.appendProcessed(credit, lengths.length);
  }

  /** Passes a request to its channel. */
  #request(message: ChannelRequest): void {
    const { type, stream } = message;
    const channel = this.#channels.get(message.channel);
    if (channel !== undefined) return this.#watch(channel.request(message));
    this.sender.send(
      type === "read" || type === "fetch"
        ? endMessage(stream, "failed", NOT_OPEN)
        : failed(stream, NOT_OPEN),
    );
  }

  /** Stops a stream; an append continues, and a stream that has ended is ignored. */
  #stop(stream: number): void {
    const done = endMessage(stream, "done");
    if (this.streams.isRequested(stream)) {
      this.streams.finish(stream);
      return this.sender.send(done);
    }
    this.sender.endStream(stream, done);
  }

  /** Answers a request, unless it was stopped or the connection has ended. */
  answer(stream: number, message: Message): void {
    if (!this.streams.finish(stream)) return;
    this.sender.send(message);
    this.#options.appendAnswered();
  }

  /** Returns the credit of an append that has been processed. */
  appendProcessed(credit: number, commands: number): void {
    if (!this.isClosed) this.#credit.processed(credit, commands);
  }

  // ------------------------------------------------------------------------- end

  /** Ends the connection because of an error in the handling of a message. */
  #violated(error: unknown): void {
    if (error instanceof Violation) {
      const { cause } = error;
      if (cause !== undefined) {
        const event = cause instanceof ErrHookFailed
          ? `${cause.hook} failed`
          : "handshake failed";
        this.log("error", event, { error: cause });
      }
      return this.close(error.code, error.message);
    }
    if (error instanceof ErrProtocol) {
      return this.close(CloseCode.Protocol, error.message);
    }
    this.log("error", "connection failed", { error });
    this.close(CloseCode.GoingAway, "Server failed on a message; reconnect");
  }

  /** Checks the timeouts; called about once a second. */
  tick(now: number): void {
    this.#logged = 0;
    try {
      this.#checkTimeouts(now);
    } catch (error) {
      this.#violated(error);
    }
  }

  #checkTimeouts(now: number): void {
    const { heartbeatMs, helloMs, slowMs } = this.#server.limits;
    // After its hello, the client waits for the server.
    if (this.#state === "connected" && now - this.connectedAt > helloMs) {
      return this.close(
        CloseCode.Timeout,
        `No hello was received within ${helloMs} ms`,
      );
    }
    const silence = now - this.#receivedAt;
    if (silence >= heartbeatMs && this.#pingedAt === undefined) {
      this.#pingedAt = now;
      if (this.authentication.principal !== undefined) {
        this.sender.send({ type: "ping" });
      }
    } else if (
      // A client gets time to answer the ping: the server's computer may have been
      // suspended while the clock advanced.
      silence >= 2 * heartbeatMs && now - this.#pingedAt! >= heartbeatMs / 2
    ) {
      return this.close(
        CloseCode.Timeout,
        `Nothing was received for ${silence} ms`,
      );
    }
    for (const channel of this.#channels.values()) channel?.tick(now);
    // Sends messages that waited for `authorize`.
    this.sender.pump();
    if (this.sender.blockedFor(now) >= slowMs) {
      this.close(
        CloseCode.TooSlow,
        `Client has read nothing for ${slowMs} ms; reconnect`,
      );
    }
  }

  /** Tells the client that the server does not reach its log, or does again. */
  reachChanged(): void {
    for (const channel of [...this.#channels.values()]) channel?.ableChanged();
  }

  /** Fails appends that wait for a hook, as the server is stopping. */
  drain(): void {
    for (const channel of this.#channels.values()) channel?.drain();
  }

  /** Closes the connection; idempotent. */
  close(code: number, reason: string): void {
    if (this.isClosed) return;
    // Code and reason do not reach the client before the transport is open.
    if (!this.#isTransportOpen) this.#closeWhenOpen = [code, reason];
    this.#end(code, reason);
    if (this.#isTransportOpen) this.#options.transport.close(code, reason);
  }

  /** Called when the transport has closed. */
  closed(code: number, reason: string): void {
    if (!this.isClosed) this.#end(code, reason);
  }

  #end(code: number, reason: string): void {
    const { quotas, telemetry } = this.#server;
    this.#state = "closed";
    this.#ended.abort(
      new ErrClusterClosed(`Connection ${this.number} is closed`),
    );
    this.#logged = 0;
    const isRegular = code <= CloseCode.GoingAway || code === NO_CODE;
    if (!isRegular) telemetry.counts.closed++;
    this.log(isRegular ? "info" : "warn", "disconnected", { code, reason });
    this.#credit.stop();
    this.#suspended.length = 0;
    this.authentication.end();
    this.sender.end();
    for (const channel of this.#channels.values()) channel?.close();
    this.#channels.clear();
    this.#opening.clear();
    quotas.setUnfinished(this, 0);
    // Appends in progress continue; they get no reply.
    this.streams.clear();
    this.#options.ended(this);
  }
}

/**
 * Records of an append.
 *
 * @throws ErrProtocol if their lengths do not add up, or one is not a record that clients write
 */
function recordsOf({ lengths, bytes }: Append): Records {
  const ends: number[] = [];
  let end = 0;
  for (const length of lengths) ends.push(end += length);
  if (end !== bytes.length || end > BATCH_BYTES_MAX) {
    throw new ErrProtocol(
      `Append has ${bytes.length} bytes, its records ${end}, at most ${BATCH_BYTES_MAX}`,
    );
  }
  const records = { bytes, ends };
  checkRecords(records);
  return records;
}

function failed(stream: number, message: string): Message {
  return { type: "failed", stream, unknown: false, message };
}

function overCredit(bytes: number): Violation {
  return new Violation(
    CloseCode.TooBig,
    `Frame of ${bytes} bytes was sent without credit`,
  );
}

/** Messages that a client may send. */
const FROM_CLIENT: { readonly [type in Message["type"]]: boolean } = {
  hello: true,
  welcome: false,
  open: true,
  opened: false,
  refused: false,
  close: true,
  read: true,
  reading: false,
  entries: false,
  end: false,
  stop: true,
  append: true,
  appended: false,
  failed: false,
  held: false,
  waits: false,
  unable: false,
  readIndex: true,
  index: false,
  verify: true,
  checkpoint: true,
  explain: true,
  hashes: false,
  fetch: true,
  snapshot: false,
  chunk: false,
  credit: true,
  ping: true,
  pong: true,
  part: true,
  renew: false,
  token: true,
};

/** Largest frame of a message with a token, in bytes: it needs no credit. */
const TOKEN_FRAME_BYTES_MAX = SYNC_TOKEN_BYTES_MAX + 16;

const NOT_OPEN = "Channel is not open";

const STOPPING = "Server is stopping";

/** Cost of each message in the rate limit, 1 by default. A client that opens all of its clusters again stays far below the limit. */
const COSTS: { readonly [type in Message["type"]]?: number } = {
  open: 16,
  read: 16,
  verify: 16,
  fetch: 128,
  token: 128,
  explain: 128,
};

/** Code that a WebSocket reports for a close frame without a code. */
const NO_CODE = 1005;
