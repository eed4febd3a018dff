/**
 * One connection, as the server has it: takes each message of the client, and
 * sends as much as the client takes. Nothing a client does harms another one,
 * and what it costs is bounded.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  BATCH_BYTES_MAX,
  SYNC_EXPLAINS_MAX,
  SYNC_LOG_RECORDS_MAX,
  SYNC_SUSPENDED_MESSAGES_MAX,
  SYNC_TOKEN_BYTES_MAX,
} from "../../limits.ts";
import { ErrClusterClosed, ErrNodeIDTaken } from "../../log/errors.ts";
import type { Records } from "../../log/log.ts";
import { isPromise, type Resolvers, withResolvers } from "../../async.ts";
import { ErrSystemBusy } from "../../rsm/errors.ts";
import { ErrHookFailed, ErrProtocol, ErrUnauthenticated } from "../errors.ts";
import {
  type Append,
  appendCredit,
  decodeMessage,
  type Explain,
  type Fetch,
  type Hello,
  type Message,
  type Open,
  type Read,
  type ReadIndex,
  type Token,
  type Verify,
} from "../messages.ts";
import { Assembler } from "../parts.ts";
import {
  CloseCode,
  type Transport,
  type TransportListener,
} from "../transport.ts";
import { Channel } from "./channel.ts";
import { checkShape } from "./gate.ts";
import type { Core } from "./core.ts";
import {
  agree,
  identify,
  type Upgrade,
  Violation,
  type Who,
} from "./greeting.ts";
import { failureOf } from "./health.ts";
import type { Hub } from "./hub.ts";
import type { ServerLogRecord } from "./options.ts";
import { endMessage, endOf, Reading } from "./reading.ts";
import { ReadRight } from "./right.ts";
import { Renewal } from "./renewal.ts";
import { Sender } from "./sender.ts";
import type { Counts } from "./telemetry.ts";
import { Rate, Throttle } from "./throttle.ts";
import { Transfer } from "./transfer.ts";

/** The server's end of a connection. */
export class Peer implements TransportListener {
  /** The server. */
  readonly core: Core;
  /** Counted from 1. */
  readonly number: number;
  /** What goes out. */
  readonly sender: Sender;
  readonly #transport: Transport;
  readonly #upgrade: Upgrade;
  #state: "new" | "greeting" | "open" | "closed" = "new";
  #who: Who | undefined;
  #forget: (() => void) | undefined;
  /** The clusters that are open; undefined for one that is being opened. */
  readonly #channels = new Map<number, Channel | undefined>();
  /** Those being opened: the client may close one, and open another by that number. */
  readonly #openings = new Map<number, Open>();
  /** Snapshots that are sent here, or still being made for a stream that has ended. */
  transfers = 0;
  /** Streams that wait for an answer: how many may be open is bounded. */
  readonly #asked = new Map<number, "append" | "request">();
  readonly #throttle: Throttle;
  readonly #assembler = new Assembler();
  #renewal: Renewal | undefined;
  #isRenewing = false;
  /** Token that came last, if the application was not asked about it yet. */
  #newest: Token | undefined;
  /** Set while the principal is not valid and another token may come. */
  #isSuspended = false;
  /** Set once the connection has ended because the principal is not valid any more. */
  #isRevoked = false;
  /** Resolved once the principal is valid again, or the connection over. */
  #validity: Resolvers<void> | undefined;
  /** Messages received since then, with the size of each. */
  readonly #suspended: (readonly [message: Message, size: number])[] = [];
  /** Messages that are not bounded by credit. */
  readonly #rate: Rate;
  #isExplaining = false;
  /** What was said of it since it was looked after. */
  #logged = 0;
  readonly #ended = new AbortController();
  #isOpened = false;
  /** How it is to be closed once it is open. */
  #last: readonly [code: number, reason: string] | undefined;
  #heardAt: number;
  /** When it was asked whether it is there, if it has said nothing since. */
  #askedAt: number | undefined;
  readonly #bornAt: number;

  /** A peer at the other end of a transport. */
  constructor(
    core: Core,
    number: number,
    transport: Transport,
    upgrade: Upgrade,
  ) {
    this.core = core;
    this.number = number;
    this.#transport = transport;
    this.#upgrade = upgrade;
    this.#heardAt = this.#bornAt = core.env.now();
    this.sender = new Sender({
      transport,
      env: core.env,
      counts: core.telemetry.counts,
      close: (code, reason) => this.close(code, reason),
    });
    this.#rate = new Rate(core.env, core.limits.messagesPerSecond);
    this.#throttle = new Throttle(
      core.env,
      core.pace,
      () => core.share,
      (bytes) => this.send({ type: "credit", bytes }),
    );
  }

  /** Who it is, once that is known. */
  get who(): Who {
    return this.#who!;
  }

  /** What the server counts. */
  get counts(): Counts {
    return this.core.telemetry.counts;
  }

  /** Whether an append has not been answered. */
  get isAppending(): boolean {
    return [...this.#asked.values()].includes("append");
  }

  /** Sends a message that is not data. */
  send(message: Message): void {
    this.sender.send(message);
  }

  /** Says what happened on this connection. */
  log(
    level: ServerLogRecord["level"],
    event: string,
    more: Partial<ServerLogRecord> = {},
  ): void {
    // Whoever asks for nonsense is not to fill the disk with it.
    if (++this.#logged > SYNC_LOG_RECORDS_MAX) return;
    const who = this.#who && { principal: this.#who.id };
    this.core.log({ level, event, connection: this.number, ...who, ...more });
  }

  /** Logs that `authorize` failed while a channel was reading. */
  hookFailed(channel: Channel, error: unknown): void {
    const { clusterID } = channel;
    this.log("error", "authorize failed", { clusterID, error });
  }

  // ------------------------------------------------------------ what comes

  /** Frames can be sent: be it only why there will be no more. */
  opened(): void {
    this.#isOpened = true;
    if (this.#last !== undefined) this.#transport.close(...this.#last);
  }

  /** A frame came. */
  frame(bytes: Uint8Array): void {
    if (this.#state === "closed") return;
    this.#heardAt = this.core.env.now();
    this.#askedAt = undefined;
    this.counts.received += bytes.length;
    const begun = this.#heardAt;
    const { frameBytes } = this.core.limits;
    let message: Message | undefined;
    let size = bytes.length;
    try {
      if (size > frameBytes) {
        throw new Violation(
          CloseCode.TooBig,
          `Frame of ${size} bytes is over the limit of ${frameBytes}`,
        );
      }
      message = decodeMessage(bytes);
      this.#assembler.expect(message.type);
      this.#admit(message, size);
      if (message.type === "part") {
        const whole = this.#assembler.take(message);
        this.core.assembling(this, this.#assembler.bytes);
        message = whole && decodeMessage(whole);
        if (message !== undefined && whole !== undefined) {
          if (message.type === "part" || message.type === "hello") {
            throw new ErrProtocol(`Message ${message.type} came in parts`);
          }
          size = whole.length;
          this.#admit(message, size);
        }
      }
    } catch (error) {
      message = undefined;
      this.#violated(error);
    }
    this.core.pace.spent(this.core.env.now() - begun);
    if (message === undefined) return;
    const admitted = message;
    // Never rejects: what is thrown in it is caught in it.
    void this.core.turns.take(this, () => this.#deal(admitted, size));
  }

  /** Deals with a message, unless it has to wait for another token. */
  #deal(message: Message, size: number): void {
    if (this.#isClosed) return;
    const isData = message.type !== "token" && message.type !== "ping" &&
      message.type !== "pong";
    try {
      if (this.#isSuspended && isData) {
        if (this.#suspended.length >= SYNC_SUSPENDED_MESSAGES_MAX) {
          throw new Violation(
            CloseCode.TooMany,
            `More than ${SYNC_SUSPENDED_MESSAGES_MAX} messages were sent before another token`,
          );
        }
        this.#suspended.push([message, size]);
        return;
      }
      this.#take(message, size);
    } catch (error) {
      this.#violated(error);
    }
  }

  #revoke(): void {
    this.#isRevoked = true;
    this.close(CloseCode.Unauthenticated, "Token has expired or was revoked");
  }

  /** The principal is valid no more: nothing goes either way until there is another token. */
  invalidated(): void {
    if (this.#state !== "open" || this.#renewal?.isAsking !== true) {
      return this.#revoke();
    }
    this.#isSuspended = true;
    this.sender.pause();
    this.#renewal.hurry();
  }

  /** True while what the client sends is taken, and it is told what it has asked for. */
  get isValid(): boolean {
    return !this.#isSuspended && !this.#isRevoked &&
      this.#who?.signal?.aborted !== true;
  }

  /**
   * Settles once the principal is valid again.
   *
   * @throws ErrUnauthenticated if the connection is over before
   */
  async untilValid(): Promise<void> {
    while (!this.isValid) {
      if (this.#isClosed) {
        throw new ErrUnauthenticated("Token has expired or was revoked");
      }
      this.#validity ??= withResolvers<void>();
      await this.#validity.promise;
    }
  }

  /** Makes waiters for a valid principal check again. */
  #lookAgain(): void {
    this.#validity?.resolve();
    this.#validity = undefined;
  }

  /** Takes another token, if it is one of the same principal. */
  async #renew(token: Token): Promise<void> {
    if (this.#renewal === undefined) return;
    // Each asks the application, one after the other; the newest counts.
    this.#newest = token;
    if (this.#isRenewing) return;
    this.#isRenewing = true;
    try {
      while (this.#newest !== undefined && !this.#isClosed) {
        const { token } = this.#newest;
        this.#newest = undefined;
        await this.#renewBy(token);
      }
    } finally {
      this.#isRenewing = false;
    }
  }

  async #renewBy(token: string | undefined): Promise<void> {
    const { core } = this;
    let who: Who;
    try {
      who = await identify(core, this.#upgrade, token);
    } catch (error) {
      if (this.#isClosed || this.#newest !== undefined) return;
      // It is asked again as long as the one before is good.
      const isRefused = error instanceof Violation &&
        error.code !== CloseCode.GoingAway;
      if (isRefused && this.#isSuspended) throw error;
      return this.log("warn", "token refused", { error });
    }
    if (this.#isClosed) return;
    if (who.id !== this.who.id) {
      throw new Violation(
        CloseCode.Unauthenticated,
        "Token is another principal's: connect with it",
      );
    }
    this.#forget?.();
    this.#forget = undefined;
    const forget = core.admit(this, who);
    if (forget === undefined || this.#isClosed) return forget?.();
    this.#forget = forget;
    this.#who = who;
    // Revoked at this moment: another token was asked for already.
    if (who.signal?.aborted) return;
    this.#isSuspended = false;
    this.#renewal!.start(who.validMs);
    this.#lookAgain();
    this.sender.resume();
    for (const [message, size] of this.#suspended.splice(0)) {
      this.#deal(message, size);
    }
  }

  /** Lets in what may come now: all that is let in may have to wait for its turn. */
  #admit(message: Message, frameBytes: number): void {
    if (!FROM_CLIENT[message.type]) {
      // None waits: they may be large.
      throw new ErrProtocol(`Message ${message.type} is the server's to send`);
    }
    if (message.type === "hello") {
      if (this.#state !== "new") throw new ErrProtocol("Second hello");
      this.#state = "greeting";
    } else if (this.#state !== "open") {
      throw new ErrProtocol(`Message ${message.type} before the welcome`);
    } else if (
      message.type === "part" && this.#throttle.granted <= 0 &&
      this.#assembler.bytes + message.bytes.length > TOKEN_FRAME_BYTES_MAX
    ) {
      // Only appends are that large, and those have to be granted.
      throw new Violation(
        CloseCode.TooBig,
        "More was sent than the credit granted",
      );
    } else if (message.type === "append") {
      const credit = appendCredit(frameBytes, message.lengths.length);
      if (!this.#throttle.take(credit)) {
        throw new Violation(
          CloseCode.TooBig,
          "More was sent than the credit granted",
        );
      }
    } else if (this.#rate.take(COSTS[message.type] ?? 1) < 0) {
      throw new Violation(
        CloseCode.TooMany,
        `No more than ${this.core.limits.messagesPerSecond} messages a second`,
      );
    }
  }

  #take(message: Message, frameBytes: number): void {
    switch (message.type) {
      case "hello":
        return this.#watch(this.#greet(message));
      case "open":
        return this.#watch(this.#open(message));
      case "close":
        return this.#closeChannel(message.channel);
      case "read":
        return this.#watch(this.#read(message));
      case "stop":
        return this.#stop(message.stream);
      case "append":
        return this.#append(message, frameBytes);
      case "readIndex":
        return this.#watch(this.#readIndex(message));
      case "verify":
        return this.#watch(this.#verify(message));
      case "checkpoint":
        return this.#channels.get(message.channel)?.checkpoint(message);
      case "explain":
        return this.#watch(this.#explain(message));
      case "fetch":
        return this.#watch(this.#fetch(message));
      case "credit":
        return this.sender.grant(message.bytes);
      case "token":
        return this.#watch(this.#renew(message));
      case "ping":
        return this.send({ type: "pong" });
    }
  }

  /** Ends the connection if the handler of a message fails: none of their promises is left alone (H21). */
  #watch(handled: Promise<void>): void {
    handled.catch((error) => this.#violated(error));
  }

  async #greet(hello: Hello): Promise<void> {
    const { core } = this;
    const version = agree(core.versions, hello);
    const who = await identify(core, this.#upgrade, hello.token);
    if (this.#state !== "greeting") return;
    const forget = core.admit(this, who);
    // The principal may have ended by now, and the connection with it.
    if (forget === undefined || this.#isClosed) return forget?.();
    this.#forget = forget;
    this.#who = who;
    this.#throttle.rate = core.rateOf(who);
    this.send({
      type: "welcome",
      version,
      principal: who.id,
      credit: this.#throttle.granted,
      frameBytesMax: core.limits.frameBytes,
      commandBytesMax: core.limits.commandBytes,
      heartbeatMs: core.limits.heartbeatMs,
    });
    if (this.#isClosed) return;
    // Not before the welcome: what comes earlier is out of turn.
    this.#state = "open";
    this.sender.frameBytes = Math.min(
      core.limits.frameBytes,
      hello.frameBytesMax,
    );
    this.#renewal = new Renewal({
      env: core.env,
      ask: hello.renews !== true
        ? undefined
        : (withinMs) => this.send({ type: "renew", withinMs }),
      expired: () => this.#revoke(),
    });
    this.#renewal.start(who.validMs);
    this.sender.grant(hello.credit);
    this.log("info", "connected");
  }

  // -------------------------------------------------------------- clusters

  async #open(message: Open): Promise<void> {
    const { channel, clusterID, nodeID } = message;
    if (this.#channels.has(channel)) {
      return this.close(
        CloseCode.Protocol,
        `Channel ${channel} is open already`,
      );
    }
    if (this.#channels.size >= this.core.limits.channels) {
      const { channels } = this.core.limits;
      return this.#sayRefused(
        channel,
        CloseCode.TooMany,
        `No more than ${channels} clusters on one connection`,
      );
    }
    this.#channels.set(channel, undefined);
    this.#openings.set(channel, message);
    // It may have been given back, or the connection be over, meanwhile.
    const isWanted = (): boolean => this.#openings.get(channel) === message;
    try {
      const right = new ReadRight(
        this.core,
        () => this.who,
        clusterID,
      );
      const may = await right.ask();
      if (!isWanted()) return;
      if (!may) {
        return this.refuse(
          channel,
          CloseCode.Forbidden,
          `You may not read cluster ${clusterID}`,
        );
      }
      const hub = await this.core.hub(clusterID);
      if (!isWanted()) return;
      if (this.core.isStopping) {
        return this.refuse(channel, CloseCode.GoingAway, "Server stops");
      }
      const failed = failureOf(this.core.host, clusterID);
      if (failed !== undefined) {
        return this.refuse(channel, CloseCode.ClusterFailed, failed);
      }
      if (hub === undefined) {
        return this.refuse(
          channel,
          CloseCode.NotFound,
          `There is no cluster ${clusterID} on this server`,
        );
      }
      if (nodeID === hub.replica.nodeID) {
        // It would take the checkpoints of the one for the other's (H12).
        return this.refuse(
          channel,
          CloseCode.Conflict,
          new ErrNodeIDTaken(clusterID, nodeID).message,
        );
      }
      const last = await hub.log.readIndex();
      if (isWanted()) this.#begin(channel, hub, nodeID, last, right);
    } catch (error) {
      if (!isWanted()) return;
      const event = error instanceof ErrHookFailed
        ? `${error.hook} failed`
        : "open failed";
      this.log("error", event, { clusterID, error });
      this.refuse(channel, CloseCode.GoingAway, "Cluster cannot be opened now");
    }
  }

  #begin(
    number: number,
    hub: Hub,
    nodeID: bigint,
    last: number,
    right: ReadRight,
  ): void {
    if (!hub.isLive) {
      const failed = failureOf(this.core.host, hub.clusterID);
      return failed === undefined
        ? this.refuse(
          number,
          CloseCode.GoingAway,
          "Cluster was stopped on the server",
        )
        : this.refuse(number, CloseCode.ClusterFailed, failed);
    }
    const channel = new Channel(this, number, hub, nodeID, right);
    this.#channels.set(number, channel);
    this.#openings.delete(number);
    const trusted = hub.replica.nodeID;
    this.send({ type: "opened", channel: number, last, trusted });
    channel.watch();
  }

  get #isClosed(): boolean {
    return this.#state === "closed";
  }

  /** Tells the client that a channel is not open, or not any more. */
  refuse(number: number, code: number, reason: string): void {
    if (!this.#channels.has(number)) return;
    this.#closeChannel(number);
    this.#sayRefused(number, code, reason);
  }

  #sayRefused(channel: number, code: number, reason: string): void {
    this.log("warn", "channel refused", { code, reason });
    this.send({ type: "refused", channel, code, reason });
  }

  #closeChannel(number: number): void {
    const channel = this.#channels.get(number);
    this.#channels.delete(number);
    this.#openings.delete(number);
    if (channel === undefined) return;
    for (const [stream, outgoing] of this.sender.outgoing) {
      if (outgoing.channel !== channel) continue;
      outgoing.stop();
      this.sender.outgoing.delete(stream);
    }
    channel.close();
  }

  // --------------------------------------------------------------- streams

  /** Takes a stream for something new. */
  #claim(stream: number): void {
    if (this.sender.outgoing.has(stream) || this.#asked.has(stream)) {
      throw new ErrProtocol(`Stream ${stream} is open already`);
    }
    if (
      this.sender.outgoing.size + this.#asked.size >= this.core.limits.streams
    ) {
      throw new Violation(
        CloseCode.TooMany,
        `No more than ${this.core.limits.streams} streams on one connection`,
      );
    }
  }

  async #read(message: Read): Promise<void> {
    const { stream, after, markIndex, markEpoch } = message;
    const channel = this.#channels.get(message.channel);
    if (channel === undefined) return this.#sayEnd(stream, NOT_OPEN);
    try {
      this.#claim(stream);
    } catch (error) {
      return this.#violated(error);
    }
    if (this.#readings >= this.core.limits.channels) {
      // Each may hold what it has read ahead.
      return this.#sayEnd(stream, "Too many reads are open already");
    }
    this.#asked.set(stream, "request");
    const { log, replica } = channel.hub;
    const epoch = markIndex === 0
      ? undefined
      : { index: markIndex, id: markEpoch };
    try {
      const may = channel.right.ask();
      if (isPromise(may) ? !await may : !may) {
        this.#asked.delete(stream);
        return this.forbid(channel);
      }
      const reader = await log.read(after, { epoch });
      // Stopped, or closed, while it was asked.
      if (
        !this.#asked.delete(stream) ||
        this.#channels.get(message.channel) !== channel
      ) return reader.close();
      const far = replica.appliedIndex - after > this.core.limits.farEntries;
      if (message.far && far && channel.hub.isLive) {
        reader.close();
        const words = `${replica.appliedIndex - after} entries behind`;
        return this.send(endMessage(stream, "far", words, after + 1));
      }
      // Known before anything is sent, which may end the connection.
      this.sender.outgoing.set(
        stream,
        new Reading(this, channel, stream, after, reader),
      );
      this.send({ type: "reading", stream, last: reader.held });
      channel.released();
      this.sender.pump();
    } catch (error) {
      const isHook = error instanceof ErrHookFailed;
      if (isHook) this.hookFailed(channel, error);
      if (!this.#asked.delete(stream)) return;
      if (isHook) this.#sayEnd(stream, CANNOT_TELL);
      else this.send(endOf(stream, error));
    }
  }

  /** Closes a channel whose principal may not read any more. */
  forbid(channel: Channel): void {
    if (this.#channels.get(channel.number) !== channel) return;
    this.refuse(
      channel.number,
      CloseCode.Forbidden,
      `You may not read cluster ${channel.clusterID} any more`,
    );
  }

  /** How many reads are open. */
  get #readings(): number {
    let count = 0;
    for (const outgoing of this.sender.outgoing.values()) {
      if (outgoing instanceof Reading) count++;
    }
    return count;
  }

  /** Ends the connection for what went wrong with a message. */
  #violated(error: unknown): void {
    if (error instanceof Violation) {
      const { cause } = error;
      if (cause !== undefined) {
        const event = cause instanceof ErrHookFailed
          ? `${cause.hook} failed`
          : "greeting failed";
        this.log("error", event, { error: cause });
      }
      return this.close(error.code, error.message);
    }
    if (error instanceof ErrProtocol) {
      return this.close(CloseCode.Protocol, error.message);
    }
    // Whatever it is: it ends here.
    this.log("error", "connection failed", { error });
    this.close(CloseCode.GoingAway, "Server has failed here");
  }

  #sayEnd(stream: number, message: string): void {
    this.send(endMessage(stream, "failed", message));
  }

  #stop(stream: number): void {
    // What has not begun does not; what was answered already has crossed it.
    if (this.#asked.get(stream) === "request") {
      this.#asked.delete(stream);
      return this.send(endMessage(stream, "done"));
    }
    this.sender.endStream(stream, endMessage(stream, "done"));
  }

  async #fetch({ channel: number, stream }: Fetch): Promise<void> {
    const channel = this.#channels.get(number);
    if (channel === undefined) return this.#sayEnd(stream, NOT_OPEN);
    try {
      this.#claim(stream);
      const may = channel.right.ask();
      if (isPromise(may)) {
        this.#asked.set(stream, "request");
        const answer = await may;
        // Stopped, or closed, while it was asked.
        if (!this.#asked.delete(stream)) return;
        if (this.#channels.get(number) !== channel) return;
        if (!answer) return this.forbid(channel);
      } else if (!may) return this.forbid(channel);
    } catch (error) {
      if (!(error instanceof ErrHookFailed)) return this.#violated(error);
      this.#asked.delete(stream);
      this.hookFailed(channel, error);
      return this.#sayEnd(stream, CANNOT_TELL);
    }
    const isFull = this.transfers >= this.core.limits.connectionTransfers;
    const place = isFull
      ? undefined
      : this.core.transfer(this.who, this.#upgrade.address);
    if (place === undefined) {
      return this.#sayEnd(stream, "Too many snapshots are sent already");
    }
    this.sender.outgoing.set(
      stream,
      new Transfer(this, channel, stream, place),
    );
  }

  #append(message: Append, frameBytes: number): void {
    const { stream, lengths, bytes } = message;
    const credit = appendCredit(frameBytes, lengths.length);
    const ends: number[] = [];
    let end = 0;
    for (const length of lengths) ends.push(end += length);
    if (end !== bytes.length || end > BATCH_BYTES_MAX) {
      throw new ErrProtocol(
        `Append has ${bytes.length} bytes, its records ${end}, at most ${BATCH_BYTES_MAX}`,
      );
    }
    const records: Records = { bytes, ends };
    checkShape(records);
    this.#claim(stream);
    const channel = this.#channels.get(message.channel);
    if (channel === undefined || this.core.isStopping) {
      const why = channel === undefined ? NOT_OPEN : "Server stops";
      this.send({ type: "failed", stream, unknown: false, message: why });
      return this.consumed(credit, lengths.length);
    }
    this.#asked.set(stream, "append");
    channel.append(message, records, credit);
  }

  /** Answers what was asked on a stream. */
  answer(stream: number, message: Message): void {
    if (!this.#asked.delete(stream)) return;
    this.send(message);
    this.core.answered();
  }

  /** An append is over: the client is granted as much again, sooner or later. */
  consumed(bytes: number, commands: number): void {
    if (!this.#isClosed) this.#throttle.consumed(bytes, commands);
  }

  async #ask<T>(
    number: number,
    stream: number,
    ask: (channel: Channel) => Promise<T>,
    answer: (value: T) => Message,
  ): Promise<void> {
    const channel = this.#channels.get(number);
    const failed = (message: string): Message => ({
      type: "failed",
      stream,
      unknown: false,
      message,
    });
    if (channel === undefined) return this.send(failed(NOT_OPEN));
    try {
      this.#claim(stream);
    } catch (error) {
      return this.#violated(error);
    }
    this.#asked.set(stream, "request");
    try {
      const may = channel.right.recent();
      if (isPromise(may) ? !await may : !may) {
        this.#asked.delete(stream);
        return this.forbid(channel);
      }
      this.answer(stream, answer(await ask(channel)));
    } catch (error) {
      const { clusterID } = channel;
      this.log("warn", "request failed", { clusterID, error });
      this.answer(stream, failed("Server cannot answer that now"));
    }
  }

  #readIndex({ channel, stream }: ReadIndex): Promise<void> {
    return this.#ask(
      channel,
      stream,
      async ({ hub }) => await hub.log.readIndex(),
      (index) => ({ type: "index", stream, index }),
    );
  }

  #verify({ channel, stream, ...point }: Verify): Promise<void> {
    const { index, markIndex, markEpoch } = point;
    const epoch = markIndex === 0
      ? undefined
      : { index: markIndex, id: markEpoch };
    return this.#ask(
      channel,
      stream,
      ({ hub }) => hub.verify(index, epoch),
      (answer) =>
        typeof answer === "number"
          ? { type: "index", stream, index: answer }
          : endOf(stream, answer),
    );
  }

  #explain({ channel, stream, after, upTo }: Explain): Promise<void> {
    return this.#ask(channel, stream, async ({ hub }) => {
      // It is replayed for each who asks.
      if (this.#isExplaining) {
        throw new ErrSystemBusy(
          "A replay for this connection is under way: ask again later",
        );
      }
      if (this.core.explaining >= SYNC_EXPLAINS_MAX) {
        throw new ErrSystemBusy(
          "Too many replays are under way on this server: ask again later",
        );
      }
      this.#isExplaining = true;
      this.core.explaining++;
      try {
        return await hub.hashes(after, upTo, this.#ended.signal);
      } finally {
        this.#isExplaining = false;
        this.core.explaining--;
      }
    }, (hashes) => ({
      type: "hashes",
      stream,
      indexes: hashes.map(({ index }) => index),
      states: hashes.flatMap(({ state }) => state ?? []),
      sessions: hashes.map(({ sessions }) => sessions),
      stateVersion: hashes[0]?.stateVersion ?? 0,
    }));
  }

  // ------------------------------------------------------------ how it ends

  /** Time has passed. */
  tick(now: number): void {
    try {
      this.#look(now);
    } catch (error) {
      this.#violated(error);
    }
  }

  #look(now: number): void {
    const { heartbeatMs, helloMs, slowMs } = this.core.limits;
    this.#logged = 0;
    // Once it has said so, it is the server that takes its time.
    if (this.#state === "new" && now - this.#bornAt > helloMs) {
      return this.close(CloseCode.Timeout, "Nobody said who this is");
    }
    const silence = now - this.#heardAt;
    if (silence >= heartbeatMs && this.#askedAt === undefined) {
      this.#askedAt = now;
      if (this.#who !== undefined) this.send({ type: "ping" });
    } else if (
      // It must have had the time to answer: the clock of a server that was
      // suspended has gone on without it.
      silence >= 2 * heartbeatMs && now - this.#askedAt! >= heartbeatMs / 2
    ) {
      return this.close(CloseCode.Timeout, "Nothing was heard for too long");
    }
    for (const channel of this.#channels.values()) channel?.tick(now);
    // Sends what had to wait for an answer of `authorize`.
    this.sender.pump();
    if (this.sender.blockedFor(now) >= slowMs) {
      this.close(CloseCode.TooSlow, "Reads too slowly; reconnect");
    }
  }

  /** The server stops: what waits to be judged again is not to. */
  drain(): void {
    for (const channel of this.#channels.values()) channel?.drain();
  }

  /** Ends the connection; idempotent. */
  close(code: number, reason: string): void {
    if (this.#isClosed) return;
    // Before it is open it cannot be told why.
    if (!this.#isOpened) this.#last = [code, reason];
    this.#end(code, reason);
    if (this.#isOpened) this.#transport.close(code, reason);
  }

  /** The connection is over. */
  closed(code: number, reason: string): void {
    if (!this.#isClosed) this.#end(code, reason);
  }

  #end(code: number, reason: string): void {
    this.#state = "closed";
    this.#ended.abort(new ErrClusterClosed("Connection is over"));
    this.#logged = 0;
    const isPeace = code <= CloseCode.GoingAway || code === NO_CODE;
    if (!isPeace) this.counts.closed++;
    this.log(isPeace ? "info" : "warn", "disconnected", { code, reason });
    this.#throttle.stop();
    this.#renewal?.stop();
    this.#suspended.length = 0;
    this.#lookAgain();
    this.sender.end();
    for (const channel of this.#channels.values()) channel?.close();
    this.#channels.clear();
    this.#openings.clear();
    this.#forget?.();
    this.core.left(this);
    // Appends under way go on, and nobody hears of them.
    this.#asked.clear();
    this.core.answered();
  }
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

const CANNOT_TELL = "Server cannot tell now whether you may read";

/** Costs of messages relative to the cheapest. A client that opens all its clusters again stays far below what it may send at once. */
const COSTS: { readonly [type in Message["type"]]?: number } = {
  open: 16,
  read: 16,
  verify: 16,
  fetch: 128,
  token: 128,
  explain: 128,
};

/** What a WebSocket gives where the other end gave no code. */
const NO_CODE = 1005;
