/**
 * Link to the servers of one client: reconnects whenever a connection ends, with a
 * backoff that depends on the cause.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { encodeShown } from "../../bytes.ts";
import { describe, isWellFormed } from "../../describe.ts";
import type { Env } from "../../env.ts";
import {
  SYNC_CONNECT_FIRST_MS_MAX,
  SYNC_CONNECT_MS_MAX,
  SYNC_CUT_OFF_STAY_MS,
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
import { loadOnce } from "../../statemachine/load.ts";
import { CloseCode, type Connect } from "../transport.ts";
import { jittered, RetryPace, ServerAddress } from "./server_address.ts";
import {
  type ChannelMessage,
  Connection,
  type ConnectionEnd,
} from "./connection.ts";
import type { Hints } from "./reconnect_hints.ts";
import { ReceiveBuffer } from "./receive_buffer.ts";
import type { Fetch } from "./http_probe.ts";
import {
  type Failure,
  failureOfAttempt,
  failureOfConnection,
  isLasting,
  isVague,
} from "./failure.ts";

/** Loads what finds out why a connection was not made. */
const loadProbe = /* @__PURE__ */ loadOnce(
  "explains a failed connection",
  () => import("./http_probe.ts"),
);

/** User of a link: the log of one cluster. */
export interface Channel {
  /** Called when a connection is ready for use. */
  connected(connection: Connection): void;
  /** Called when the connection has ended; requests in flight may or may not have taken effect. */
  lost(error: ErrConnectionLost): void;
  /** Called when the server refuses this client: pending calls fail. */
  forbidden(error: ErrForbidden): void;
  /** Called with each message of the channel. */
  message(message: ChannelMessage): void;
  /** Called when appends may be sent again. */
  writable(): void;
}

/** Dependencies of a {@linkcode Link}. */
export interface LinkOptions {
  readonly urls: readonly string[];
  readonly token: () => MaybePromise<string | undefined>;
  readonly connect: Connect;
  /** Sends the HTTP request that finds out why a WebSocket handshake failed; none is sent if undefined. */
  readonly fetch: Fetch | undefined;
  readonly versions: Versions;
  /** Largest frame of the first connection, in bytes. */
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

/** Close code of a connection that broke without a close frame. */
const BROKEN = 1006;

/** Priority of a failure among those of all addresses: one that requires action by the user comes first. */
function rankOf({ error, reason }: Failure): number {
  if (error instanceof ErrUnauthenticated) return 3;
  if (error instanceof ErrForbidden) return 2;
  return isLasting(reason) ? 1 : 0;
}

/** Connection to one of several addresses, re-established whenever it is lost. Starts with `start()`. */
export class Link {
  /** Bytes received and not consumed. */
  readonly receiveBuffer: ReceiveBuffer;
  readonly #options: LinkOptions;
  readonly #addresses: readonly ServerAddress[];
  readonly #channels = new Map<number, Channel>();
  readonly #pace: RetryPace;
  /** Position of the address that is tried next, or in use. */
  #position = 0;
  /** Servers left because they do not reach their log, since the last one that was of use. */
  #left = 0;
  /** Identity of the current attempt and its connection. */
  #attempt: object | undefined;
  #attemptedAt = -Infinity;
  #connection: Connection | undefined;
  #welcomedAt = 0;
  /** Connection for which another token is being requested from the application. */
  #renewing: Connection | undefined;
  #cancelTimer: (() => void) | undefined;
  #retryAt: number | undefined;
  #stopHints: (() => void) | undefined;
  readonly #ended = new AbortController();
  #state: LinkState = "offline";
  #failure: Failure | undefined;
  #isClosed = false;

  /** Creates a link that does not connect yet. */
  constructor(options: LinkOptions) {
    const { env, urls } = options;
    this.#options = options;
    this.#addresses = urls.map((url) =>
      new ServerAddress(url, env, options.frameBytes)
    );
    this.receiveBuffer = new ReceiveBuffer(
      env,
      (bytes) => this.#connection?.grant(bytes),
    );
    this.#pace = new RetryPace(env);
  }

  /** State of the link. */
  get state(): LinkState {
    return this.#state;
  }

  /** Cause of the last failure; undefined while connected and before the first failure. */
  get failure(): Failure | undefined {
    return this.#failure;
  }

  /** Time of the next attempt, while none is under way. */
  get retryAt(): number | undefined {
    return this.#retryAt;
  }

  /** Addresses with the outcome of the last attempt at each. */
  get addresses(): readonly ServerAddress[] {
    return this.#addresses;
  }

  /** Connection, once the server has accepted the client. */
  get connection(): Connection | undefined {
    return this.#state === "connected" ? this.#connection : undefined;
  }

  /** Refusal by a server, if no other address accepts this client. */
  get refusal(): ErrForbidden | undefined {
    return this.#failure?.error instanceof ErrForbidden &&
        this.#addresses.every(({ failure }) => failure !== undefined)
      ? this.#failure.error
      : undefined;
  }

  /** Starts connecting; idempotent. */
  start(): void {
    if (this.#stopHints !== undefined || this.#isClosed) return;
    this.#stopHints = this.#options.hints(() => this.#wake());
    this.#connect();
  }

  /** Number of channels that use the link. */
  get size(): number {
    return this.#channels.size;
  }

  /** Adds a channel, and starts the link. */
  join(number: number, channel: Channel): void {
    this.#channels.set(number, channel);
    this.start();
    const { connection, refusal } = this;
    if (connection !== undefined) channel.connected(connection);
    else if (refusal !== undefined) channel.forbidden(refusal);
  }

  /** Removes a channel. */
  leave(number: number): void {
    this.#channels.delete(number);
  }

  /** Connects at once, without backoff; sends a ping if connected. */
  reconnect(): void {
    if (this.#isClosed) return;
    this.start();
    this.#pace.reset();
    for (const address of this.#addresses) address.reset();
    if (this.connection !== undefined) return this.connection.probe();
    // Replaced, since an attempt under way may use a token that is outdated by now.
    const tried = this.#connection;
    this.#attempt = this.#connection = undefined;
    tried?.close(CloseCode.Normal, "");
    this.#connect();
  }

  /** Leaves a server that does not reach its log: at once while an address was not tried, then after a while. */
  moveOn(reason: string): void {
    const { env } = this.#options;
    const { length } = this.#addresses;
    if (length < 2 || this.#cancelTimer !== undefined) return;
    const leave = (): void => this.#connection?.close(CloseCode.Normal, reason);
    if (++this.#left < length) return leave();
    this.#cancelTimer = env.setTimer(
      leave,
      jittered(env, SYNC_CUT_OFF_STAY_MS),
    );
  }

  /** Stays at a server that reaches its log again. */
  stay(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
  }

  /** Reconnects on a hint of the platform (online, visible, resumed); rate-limited. */
  #wake(): void {
    if (this.#isClosed) return;
    // The network may be usable only some time after the hint.
    this.#pace.reset();
    if (this.#attempt !== undefined) return this.connection?.probe();
    const from = this.#attemptedAt + SYNC_HINT_MS;
    this.#schedule(
      from,
      (address) => Math.min(address.hintFrom, address.notBefore),
    );
  }

  /** Schedules the next attempt, not before `from`: at the address that may be tried earliest, in round-robin order among equals. */
  #schedule(
    from: number,
    mayBeTried: (address: ServerAddress) => number,
  ): void {
    const { env, changed } = this.#options;
    const { length } = this.#addresses;
    let at = Infinity;
    let position = this.#position;
    for (let i = 0; i < length; i++) {
      const next = (this.#position + i) % length;
      const time = Math.max(from, mayBeTried(this.#addresses[next]!));
      if (time < at) [at, position] = [time, next];
    }
    // An attempt that is scheduled earlier stays.
    if (this.#retryAt !== undefined && this.#retryAt <= at) return;
    this.#position = position;
    const wait = at - env.now();
    if (wait <= 0) return this.#connect();
    this.#retryAt = at;
    this.#cancelTimer?.();
    this.#cancelTimer = env.setTimer(() => this.#connect(), wait);
    changed();
  }

  #change(state: LinkState, failure: Failure | undefined): void {
    this.#state = state;
    this.#failure = failure;
    this.#options.changed();
  }

  #connect(): void {
    const { env, token } = this.#options;
    const address = this.#addresses[this.#position]!;
    const attempt = this.#attempt = {};
    this.#attemptedAt = env.now();
    this.#retryAt = undefined;
    this.#cancelTimer?.();
    const isUntried = (other: ServerAddress): boolean =>
      other !== address && other.failure === undefined;
    const ms = this.#addresses.some(isUntried)
      ? SYNC_CONNECT_FIRST_MS_MAX
      : SYNC_CONNECT_MS_MAX;
    this.#cancelTimer = env.setTimer(() => {
      if (this.#connection !== undefined) {
        const words =
          `Server ${address.url} has not answered within ${ms} ms: check the network, or wait`;
        return this.#connection.close(CloseCode.Timeout, words);
      }
      const words =
        `The application's token function took longer than ${ms} ms`;
      this.#failed(
        attempt,
        failureOfAttempt("token-failed", address.url, words),
      );
    }, ms);
    // A failure that requires action by the user stays visible during further attempts.
    const keepsState = this.#state !== "offline" ||
      this.#failure !== undefined && isLasting(this.#failure.reason);
    this.#change(keepsState ? this.#state : "connecting", this.#failure);
    const failed = (cause: unknown): void => {
      const words = `The application's token function has failed: ${
        cause instanceof Error ? cause.message : cause
      }`;
      this.#failed(
        attempt,
        failureOfAttempt("token-failed", address.url, words, cause),
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

  #open(
    attempt: object,
    address: ServerAddress,
    token: string | undefined,
  ): void {
    if (this.#attempt !== attempt) return;
    const { connect, versions, env } = this.#options;
    const { url } = address;
    const wrong = wrongToken(token);
    if (wrong !== undefined) {
      return this.#failed(
        attempt,
        failureOfAttempt("token-failed", url, wrong),
      );
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
        failureOfAttempt("not-allowed", url, words, cause),
      );
    }
    const connection = this.#connection = new Connection(transport, {
      env,
      token,
      versions,
      receiveBuffer: this.receiveBuffer,
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
          this.#failed(attempt, failureOfConnection(attempted), end);
        },
      },
    });
  }

  /** Requests another token from the application and sends it. */
  #renew(connection: Connection): void {
    if (this.#renewing === connection) return;
    this.#renewing = connection;
    const sent = (token: string | undefined): void => {
      this.#renewing = undefined;
      // A malformed token would be a protocol error on the server.
      if (wrongToken(token) !== undefined) return;
      connection.send({ type: "token", token });
    };
    const failed = (): void => {
      // The server repeats its request while the present token is valid.
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

  #welcomed(address: ServerAddress): void {
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

  /** Handles an attempt that failed, or a connection that ended. */
  #failed(attempt: object, failure: Failure, end?: ConnectionEnd): void {
    if (this.#attempt !== attempt) return;
    const { env } = this.#options;
    const wasConnected = this.#state === "connected";
    const address = this.#addresses[this.#position]!;
    this.#attempt = this.#connection = undefined;
    this.#cancelTimer?.();
    if (wasConnected && env.now() - this.#welcomedAt >= SYNC_STABLE_MS) {
      this.#pace.reset();
      this.#left = 0;
    }
    address.failed(failure, this.#attemptedAt);
    this.#position = (this.#position + 1) % this.#addresses.length;
    // A listener may call `reconnect()`.
    this.#state = "offline";
    this.#schedule(env.now() + this.#pace.next(), ({ notBefore }) => notBefore);
    this.#updateState();
    if (wasConnected) {
      const { error } = failure;
      const lost = new ErrConnectionLost(end?.code ?? BROKEN, error.message);
      for (const channel of [...this.#channels.values()]) channel.lost(lost);
    }
    this.#notifyRefusal();
    if (end !== undefined && !wasConnected && isVague(failure.reason)) {
      this.#probe(address);
    }
  }

  /** Derives the state of the link from the failures of all addresses. */
  #updateState(): void {
    let worst: Failure | undefined;
    for (const { failure } of this.#addresses) {
      if (failure === undefined) continue;
      if (worst === undefined || rankOf(failure) > rankOf(worst)) {
        worst = failure;
      }
    }
    const { error } = worst ?? {};
    if (error instanceof ErrUnauthenticated) this.#change("needs-auth", worst);
    else if (
      error instanceof ErrForbidden &&
      this.#addresses.every(({ failure }) => failure !== undefined)
    ) this.#change("forbidden", worst);
    else {
      const isTrying = this.#attempt !== undefined &&
        !(worst !== undefined && isLasting(worst.reason));
      this.#change(isTrying ? "connecting" : "offline", worst);
    }
  }

  #notifyRefusal(): void {
    const { refusal } = this;
    if (refusal === undefined) return;
    for (const channel of [...this.#channels.values()]) {
      channel.forbidden(refusal);
    }
  }

  /** Finds out over HTTP why a handshake failed. */
  #probe(address: ServerAddress): void {
    const { fetch, env } = this.#options;
    if (fetch === undefined || address.isProbed || this.#isClosed) return;
    address.isProbed = true;
    const { signal } = this.#ended;
    // Never rejects: a failed probe is a result.
    void loadProbe().then(
      ({ probe }) =>
        signal.aborted ? undefined : probe(address.url, fetch, env, signal),
      // Not cached, and no network: the server is not reachable either.
      () => undefined,
    ).then((found) => {
      address.isProbed = false;
      if (found === undefined || address.failure === undefined) return;
      address.found(found);
      this.#updateState();
      this.#notifyRefusal();
    });
  }

  /** Closes the connection and stops reconnecting; idempotent. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#attempt = this.#retryAt = undefined;
    this.#ended.abort();
    this.#stopHints?.();
    this.#cancelTimer?.();
    this.#connection?.close(CloseCode.Normal, "");
    this.#connection = undefined;
    this.receiveBuffer.close();
    this.#change("offline", undefined);
  }
}

/** Describes what is wrong with a token of the application; undefined if it can be sent. */
function wrongToken(token: unknown): string | undefined {
  // An application may return null for no token.
  if (token === undefined || token === null) return undefined;
  if (typeof token !== "string") {
    return `The application's token function returned ${
      describe(token)
    }; it must return a string or undefined`;
  }
  if (!isWellFormed(token)) {
    return "The application's `token` has a lone surrogate, which no HTTP header can carry; return a well-formed string";
  }
  const { length } = encodeShown(token);
  return length > SYNC_TOKEN_BYTES_MAX
    ? `The application's token has ${length} bytes, over the limit of ${SYNC_TOKEN_BYTES_MAX}`
    : undefined;
}
