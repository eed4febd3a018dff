/**
 * The way to the servers: makes a connection, and another one whenever it ends,
 * at a pace that fits why it did.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { encodeShown } from "../../bytes.ts";
import { describe, isWellFormed } from "../../describe.ts";
import type { Env } from "../../env.ts";
import {
  SYNC_CONNECT_MS_MAX,
  SYNC_HINT_MS,
  SYNC_STABLE_MS,
  SYNC_TOKEN_BYTES_MAX,
} from "../../limits.ts";
import { isPromise } from "../../async.ts";
import type { MaybePromise } from "../../statemachine/types.ts";
import {
  ErrConnectionLost,
  ErrForbidden,
  ErrUnauthenticated,
} from "../errors.ts";
import type { Versions } from "../messages.ts";
import { CloseCode, type Connect } from "../transport.ts";
import { Address, RetryPace } from "./address.ts";
import {
  type ChannelMessage,
  Connection,
  type ConnectionEnd,
} from "./connection.ts";
import type { Hints } from "./hints.ts";
import { Inbox } from "./inbox.ts";
import { type Fetch, probe } from "./probe.ts";
import {
  failureOf,
  isLasting,
  isVague,
  type Trouble,
  troubleOf,
} from "./reason.ts";

/** One that uses a connection whenever there is one. */
export interface Channel {
  /** There is a connection: it may be used from now on. */
  connected(connection: Connection): void;
  /** It is over; what was in flight may or may not have taken effect. */
  lost(error: ErrConnectionLost): void;
  /** The server refuses this client for now: what waits is not to wait on. */
  forbidden(error: ErrForbidden): void;
  /** A message for it. */
  message(message: ChannelMessage): void;
  /** Data may be sent again. */
  writable(): void;
}

/** What a link takes. */
export interface LinkOptions {
  readonly urls: readonly string[];
  readonly token: () => MaybePromise<string | undefined>;
  readonly connect: Connect;
  /** Asks an address over HTTP why no WebSocket comes about; never asked if undefined. */
  readonly fetch: Fetch | undefined;
  readonly versions: Versions;
  /** The largest frame that is sent or taken at first, in bytes. */
  readonly frameBytes: number;
  readonly env: Env;
  readonly hints: Hints;
  /** Called after each change of its state. */
  readonly changed: () => void;
}

/** State of a link. */
export type LinkState =
  | "offline"
  | "connecting"
  | "connected"
  | "needs-auth"
  | "forbidden";

/** The code of a connection that merely broke. */
const BROKEN = 1006;

/** Rank of a trouble where several addresses have one: those that need action by a person come first. */
function rankOf({ error, reason }: Trouble): number {
  if (error instanceof ErrUnauthenticated) return 3;
  if (error instanceof ErrForbidden) return 2;
  return isLasting(reason) ? 1 : 0;
}

/** A link that starts with `start()`. */
export class Link {
  /** What was received and not taken. */
  readonly inbox: Inbox;
  readonly #options: LinkOptions;
  readonly #addresses: readonly Address[];
  readonly #channels = new Map<number, Channel>();
  readonly #pace: RetryPace;
  /** The address whose turn it is. */
  #turn = 0;
  /** The attempt under way, or the connection that came of it. */
  #attempt: object | undefined;
  #attemptedAt = -Infinity;
  #connection: Connection | undefined;
  #welcomedAt = 0;
  /** The connection for which the application is asked for another token. */
  #renewing: Connection | undefined;
  #cancelTimer: (() => void) | undefined;
  #retryAt: number | undefined;
  #endHints: (() => void) | undefined;
  readonly #ended = new AbortController();
  #state: LinkState = "offline";
  #trouble: Trouble | undefined;
  #isClosed = false;

  /** A link that does nothing yet. */
  constructor(options: LinkOptions) {
    const { env, urls } = options;
    this.#options = options;
    this.#addresses = urls.map((url) =>
      new Address(url, env, options.frameBytes)
    );
    this.inbox = new Inbox(env, (bytes) => this.#connection?.grant(bytes));
    this.#pace = new RetryPace(env);
  }

  /** Where it stands. */
  get state(): LinkState {
    return this.#state;
  }

  /** Cause for which it is not connected, once an attempt has failed. */
  get trouble(): Trouble | undefined {
    return this.#trouble;
  }

  /** When the next attempt is due, while none is under way. */
  get retryAt(): number | undefined {
    return this.#retryAt;
  }

  /** Addresses with the outcome of the last attempt at each. */
  get addresses(): readonly Address[] {
    return this.#addresses;
  }

  /** The connection, once the server has answered. */
  get connection(): Connection | undefined {
    return this.#state === "connected" ? this.#connection : undefined;
  }

  /** Refusal of this client, if a server refuses it and no other address accepts it. */
  get refusal(): ErrForbidden | undefined {
    return this.#trouble?.error instanceof ErrForbidden &&
        this.#addresses.every(({ trouble }) => trouble !== undefined)
      ? this.#trouble.error
      : undefined;
  }

  /** Begins to connect, if it has not yet. */
  start(): void {
    if (this.#endHints !== undefined || this.#isClosed) return;
    this.#endHints = this.#options.hints(() => this.#wake());
    this.#connect();
  }

  /** Number of channels that use it. */
  get size(): number {
    return this.#channels.size;
  }

  /** Makes a channel known. */
  join(number: number, channel: Channel): void {
    this.#channels.set(number, channel);
    this.start();
    const { connection, refusal } = this;
    if (connection !== undefined) channel.connected(connection);
    else if (refusal !== undefined) channel.forbidden(refusal);
  }

  /** The channel is of no interest any more. */
  leave(number: number): void {
    this.#channels.delete(number);
  }

  /** Tries at once, whatever the pace is; asks the server whether it is there if it seems to be. */
  reconnect(): void {
    if (this.#isClosed) return;
    this.start();
    this.#pace.reset();
    for (const address of this.#addresses) address.reset();
    if (this.connection !== undefined) return this.connection.probe();
    // One that is under way may have asked for the token too early.
    const tried = this.#connection;
    this.#attempt = this.#connection = undefined;
    tried?.close(CloseCode.Normal, "");
    this.#connect();
  }

  /** As `reconnect()`, but not again and again. */
  #wake(): void {
    if (this.#isClosed) return;
    // A hint may come a moment before what it announces.
    this.#pace.reset();
    if (this.#attempt !== undefined) return this.connection?.probe();
    const from = this.#attemptedAt + SYNC_HINT_MS;
    this.#plan(
      from,
      (address) => Math.min(address.hintFrom, address.notBefore),
    );
  }

  /** Plans the next attempt: at the first address in turn that may be tried by `from`, else at the one that may be tried first. */
  #plan(from: number, mayBeTried: (address: Address) => number): void {
    const { env, changed } = this.#options;
    const { length } = this.#addresses;
    let at = Infinity;
    let turn = this.#turn;
    for (let i = 0; i < length; i++) {
      const next = (this.#turn + i) % length;
      const time = Math.max(from, mayBeTried(this.#addresses[next]!));
      if (time < at) [at, turn] = [time, next];
    }
    // A hint does not put off what is planned.
    if (this.#retryAt !== undefined && this.#retryAt <= at) return;
    this.#turn = turn;
    const wait = at - env.now();
    if (wait <= 0) return this.#connect();
    this.#retryAt = at;
    this.#cancelTimer?.();
    this.#cancelTimer = env.setTimer(() => this.#connect(), wait);
    changed();
  }

  #change(state: LinkState, trouble: Trouble | undefined): void {
    this.#state = state;
    this.#trouble = trouble;
    this.#options.changed();
  }

  #connect(): void {
    const { env, token } = this.#options;
    const address = this.#addresses[this.#turn]!;
    const attempt = this.#attempt = {};
    this.#attemptedAt = env.now();
    this.#retryAt = undefined;
    this.#cancelTimer?.();
    this.#cancelTimer = env.setTimer(() => {
      if (this.#connection !== undefined) {
        const words =
          `Server ${address.url} has not answered in time: check the network, or wait`;
        return this.#connection.close(CloseCode.Timeout, words);
      }
      const words = "The application's token function took too long";
      this.#failed(attempt, failureOf("token-failed", address.url, words));
    }, SYNC_CONNECT_MS_MAX);
    // What a person has to act on stays told until it is over.
    const isTold = this.#state !== "offline" ||
      this.#trouble !== undefined && isLasting(this.#trouble.reason);
    this.#change(isTold ? this.#state : "connecting", this.#trouble);
    const failed = (cause: unknown): void => {
      const words = `The application's token function has failed: ${
        cause instanceof Error ? cause.message : cause
      }`;
      this.#failed(
        attempt,
        failureOf("token-failed", address.url, words, cause),
      );
    };
    let given: MaybePromise<string | undefined>;
    try {
      given = token();
    } catch (error) {
      return failed(error);
    }
    if (!isPromise(given)) return this.#open(attempt, address, given);
    given.then((given) => this.#open(attempt, address, given), failed);
  }

  #open(attempt: object, address: Address, token: string | undefined): void {
    if (this.#attempt !== attempt) return;
    const { connect, versions, env } = this.#options;
    const { url } = address;
    const wrong = wrongToken(token);
    if (wrong !== undefined) {
      return this.#failed(attempt, failureOf("token-failed", url, wrong));
    }
    let transport;
    try {
      transport = connect(url);
    } catch (cause) {
      const words = `This page may not connect to ${url}: ${
        cause instanceof Error ? cause.message : cause
      }`;
      return this.#failed(
        attempt,
        failureOf("not-allowed", url, words, cause),
      );
    }
    const connection = this.#connection = new Connection(transport, {
      env,
      token,
      versions,
      inbox: this.inbox,
      frameBytes: address.nextFrameBytes(),
      listener: {
        welcomed: () => this.#welcomed(address),
        channel: (message) => {
          this.#channels.get(message.channel)?.message(message);
        },
        writable: () => {
          for (const channel of this.#channels.values()) channel.writable();
        },
        renew: () => this.#renew(connection),
        ended: (end) => {
          const { isOpened, welcome, hasLargeFrame } = connection;
          if (isOpened) address.ended(end.code, hasLargeFrame);
          const isWelcomed = welcome !== undefined;
          const attempted = { url, end, isOpened, isWelcomed };
          this.#failed(attempt, troubleOf(attempted), end);
        },
      },
    });
  }

  /** Sends another token on an open connection. */
  #renew(connection: Connection): void {
    if (this.#renewing === connection) return;
    this.#renewing = connection;
    const sent = (token: string | undefined): void => {
      this.#renewing = undefined;
      // The server would take it for another protocol.
      if (wrongToken(token) !== undefined) return;
      connection.send({ type: "token", token });
    };
    const failed = (): void => {
      // The server asks again, as long as the one before is good.
      this.#renewing = undefined;
    };
    try {
      const given = this.#options.token();
      if (isPromise(given)) given.then(sent, failed);
      else sent(given);
    } catch {
      failed();
    }
  }

  #welcomed(address: Address): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    this.#welcomedAt = this.#options.env.now();
    address.reset();
    for (const other of this.#addresses) other.forget();
    this.#change("connected", undefined);
    for (const channel of [...this.#channels.values()]) {
      const { connection } = this;
      if (connection === undefined) return;
      channel.connected(connection);
    }
  }

  /** An attempt has come to nothing, or its connection to an end. */
  #failed(attempt: object, trouble: Trouble, end?: ConnectionEnd): void {
    if (this.#attempt !== attempt) return;
    const { env } = this.#options;
    const wasConnected = this.#state === "connected";
    const address = this.#addresses[this.#turn]!;
    this.#attempt = this.#connection = undefined;
    this.#cancelTimer?.();
    if (wasConnected && env.now() - this.#welcomedAt >= SYNC_STABLE_MS) {
      this.#pace.reset();
    }
    address.failed(trouble, this.#attemptedAt);
    if (!wasConnected) this.#turn = (this.#turn + 1) % this.#addresses.length;
    // Whoever hears of it may ask for the next one.
    this.#state = "offline";
    this.#plan(env.now() + this.#pace.next(), ({ notBefore }) => notBefore);
    this.#judge();
    if (wasConnected) {
      const { error } = trouble;
      const lost = new ErrConnectionLost(end?.code ?? BROKEN, error.message);
      for (const channel of [...this.#channels.values()]) channel.lost(lost);
    }
    this.#tellRefusal();
    if (end !== undefined && !wasConnected && isVague(trouble.reason)) {
      this.#probe(address);
    }
  }

  /** Says what the troubles of all addresses come to. */
  #judge(): void {
    let worst: Trouble | undefined;
    for (const { trouble } of this.#addresses) {
      if (trouble === undefined) continue;
      if (worst === undefined || rankOf(trouble) > rankOf(worst)) {
        worst = trouble;
      }
    }
    const { error } = worst ?? {};
    if (error instanceof ErrUnauthenticated) this.#change("needs-auth", worst);
    else if (
      error instanceof ErrForbidden &&
      this.#addresses.every(({ trouble }) => trouble !== undefined)
    ) this.#change("forbidden", worst);
    else {
      const isTrying = this.#attempt !== undefined &&
        !(worst !== undefined && isLasting(worst.reason));
      this.#change(isTrying ? "connecting" : "offline", worst);
    }
  }

  #tellRefusal(): void {
    const { refusal } = this;
    if (refusal === undefined) return;
    for (const channel of [...this.#channels.values()]) {
      channel.forbidden(refusal);
    }
  }

  /** Finds out over HTTP why there was no welcome, where the handshake does not tell. */
  #probe(address: Address): void {
    const { fetch, env } = this.#options;
    if (fetch === undefined || address.isProbed || this.#isClosed) return;
    address.isProbed = true;
    // Never rejects: a probe that fails is an answer.
    void probe(address.url, fetch, env, this.#ended.signal).then((found) => {
      address.isProbed = false;
      if (found === undefined || address.trouble === undefined) return;
      address.found(found);
      this.#judge();
      this.#tellRefusal();
    });
  }

  /** Ends the connection and the trying; idempotent. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#attempt = this.#retryAt = undefined;
    this.#ended.abort();
    this.#endHints?.();
    this.#cancelTimer?.();
    this.#connection?.close(CloseCode.Normal, "");
    this.#connection = undefined;
    this.inbox.close();
    this.#change("offline", undefined);
  }
}

/** Describes the fault of a token the application gave; undefined if it can be sent. */
function wrongToken(token: unknown): string | undefined {
  // Null is an application's word for no token, too.
  if (token === undefined || token === null) return undefined;
  if (typeof token !== "string") {
    return `The application's token function gave ${
      describe(token)
    }; it must give a string, or undefined`;
  }
  if (!isWellFormed(token)) {
    return "The application's token has a lone surrogate, which no header can carry";
  }
  const { length } = encodeShown(token);
  return length > SYNC_TOKEN_BYTES_MAX
    ? `The application's token has ${length} bytes, over the limit of ${SYNC_TOKEN_BYTES_MAX}`
    : undefined;
}
