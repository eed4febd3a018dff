/**
 * The way to the servers: makes a connection, and another one whenever it ends,
 * at a pace that fits why it did.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../../env.ts";
import {
  SYNC_CONNECT_MS_MAX,
  SYNC_HINT_MS,
  SYNC_MISMATCH_FIRST_MS,
  SYNC_MISMATCH_LAST_MS,
  SYNC_REFUSED_FIRST_MS,
  SYNC_REFUSED_LAST_MS,
  SYNC_RETRY_FIRST_MS,
  SYNC_RETRY_LAST_MS,
  SYNC_STABLE_MS,
} from "../../limits.ts";
import { Backoff } from "../../nodehost/waiting.ts";
import { isPromise } from "../../promises.ts";
import type { MaybePromise } from "../../statemachine/types.ts";
import {
  ErrConnectionLost,
  ErrForbidden,
  ErrProtocol,
  ErrUnauthenticated,
  ErrVersion,
} from "../errors.ts";
import type { Versions } from "../messages.ts";
import { CloseCode, type Connect } from "../transport.ts";
import {
  type ChannelMessage,
  Connection,
  type ConnectionEnd,
} from "./connection.ts";
import type { Hints } from "./hints.ts";
import { Inbox } from "./inbox.ts";

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
  readonly versions: Versions;
  readonly env: Env;
  readonly hints: Hints;
  /** Called after each change of its state. */
  readonly changed: () => void;
}

/** Where a link stands. */
export type LinkState = "offline" | "connecting" | "connected" | "needs-auth";

/** The code of a connection that merely broke. */
const BROKEN = 1006;

/** A link that starts with `start()`. */
export class Link {
  /** What was received and not taken. */
  readonly inbox: Inbox;
  readonly #options: LinkOptions;
  readonly #channels = new Map<number, Channel>();
  #nextChannel = 1;
  readonly #retry: Backoff;
  readonly #refused: Backoff;
  readonly #mismatch: Backoff;
  /** Which of the addresses is next. */
  #url = 0;
  /** The attempt under way, or what came of it. */
  #attempt: object | undefined;
  #attemptedAt = -Infinity;
  #connection: Connection | undefined;
  #welcomedAt = 0;
  #cancelTimer: (() => void) | undefined;
  /** How far apart attempts are that hints ask for, at the present pace. */
  #spacing = SYNC_HINT_MS;
  #endHints: (() => void) | undefined;
  #state: LinkState = "offline";
  #error: Error | undefined;
  #isClosed = false;

  /** A link that does nothing yet. */
  constructor(options: LinkOptions) {
    const { env } = options;
    this.#options = options;
    this.inbox = new Inbox(env, (bytes) => this.#connection?.grant(bytes));
    this.#retry = new Backoff(env, SYNC_RETRY_FIRST_MS, SYNC_RETRY_LAST_MS);
    this.#refused = new Backoff(
      env,
      SYNC_REFUSED_FIRST_MS,
      SYNC_REFUSED_LAST_MS,
    );
    this.#mismatch = new Backoff(
      env,
      SYNC_MISMATCH_FIRST_MS,
      SYNC_MISMATCH_LAST_MS,
    );
  }

  /** Where it stands. */
  get state(): LinkState {
    return this.#state;
  }

  /** Why it is not connected, where there is something to tell. */
  get error(): Error | undefined {
    return this.#error;
  }

  /** The connection, once the server has answered. */
  get connection(): Connection | undefined {
    return this.#state === "connected" ? this.#connection : undefined;
  }

  /** Why the server refuses this client, if that was its last word. */
  get refusal(): ErrForbidden | undefined {
    return this.#error instanceof ErrForbidden ? this.#error : undefined;
  }

  /** Begins to connect, if it has not yet. */
  start(): void {
    if (this.#endHints !== undefined || this.#isClosed) return;
    this.#endHints = this.#options.hints(() => this.#wake());
    this.#connect();
  }

  /** A number for a channel that `join()` will make known. */
  number(): number {
    return this.#nextChannel++;
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
    for (const pace of [this.#retry, this.#refused, this.#mismatch]) {
      pace.reset();
    }
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
    if (this.#attempt !== undefined) return this.connection?.probe();
    const { env } = this.#options;
    const wait = this.#attemptedAt + this.#spacing - env.now();
    if (wait <= 0) this.#connect();
    else this.#connectIn(wait);
  }

  #connectIn(ms: number): void {
    this.#cancelTimer?.();
    this.#cancelTimer = this.#options.env.setTimer(() => this.#connect(), ms);
  }

  #change(state: LinkState, error: Error | undefined): void {
    this.#state = state;
    this.#error = error;
    this.#options.changed();
  }

  #connect(): void {
    const { env, token } = this.#options;
    const attempt = this.#attempt = {};
    this.#attemptedAt = env.now();
    this.#cancelTimer?.();
    this.#cancelTimer = env.setTimer(() => {
      const end = { code: BROKEN, reason: "No answer within the time" };
      if (this.#connection === undefined) this.#ended(attempt, end);
      else this.#connection.close(CloseCode.Timeout, end.reason);
    }, SYNC_CONNECT_MS_MAX);
    // What needs somebody to act stays told until it is over.
    if (this.#state === "offline" && !isLasting(this.#error)) {
      this.#change("connecting", this.#error);
    }
    const failed = (error: unknown): void =>
      this.#ended(attempt, { code: BROKEN, reason: String(error) });
    try {
      const given = token();
      if (!isPromise(given)) this.#open(attempt, given);
      else given.then((given) => this.#open(attempt, given)).catch(failed);
    } catch (error) {
      failed(error);
    }
  }

  #open(attempt: object, token: string | undefined): void {
    if (this.#attempt !== attempt) return;
    const { urls, connect, versions, env } = this.#options;
    this.#connection = new Connection(
      connect(urls[this.#url % urls.length]!),
      {
        env,
        token,
        versions,
        inbox: this.inbox,
        listener: {
          welcomed: () => this.#welcomed(),
          channel: (message) => {
            this.#channels.get(message.channel)?.message(message);
          },
          writable: () => {
            for (const channel of this.#channels.values()) channel.writable();
          },
          ended: (end) => this.#ended(attempt, end),
        },
      },
    );
  }

  #welcomed(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    this.#welcomedAt = this.#options.env.now();
    this.#refused.reset();
    this.#mismatch.reset();
    this.#spacing = SYNC_HINT_MS;
    this.#change("connected", undefined);
    for (const channel of [...this.#channels.values()]) {
      const { connection } = this;
      if (connection === undefined) return;
      channel.connected(connection);
    }
  }

  #ended(attempt: object, end: ConnectionEnd): void {
    if (this.#attempt !== attempt) return;
    const wasConnected = this.#state === "connected";
    this.#attempt = this.#connection = undefined;
    this.#cancelTimer?.();
    const { env } = this.#options;
    if (wasConnected && env.now() - this.#welcomedAt >= SYNC_STABLE_MS) {
      this.#retry.reset();
    }
    if (!wasConnected) this.#url++;
    const { state, error, pace, spacing } = this.#judge(end);
    this.#spacing = spacing;
    // Whoever hears of it may ask for the next one.
    this.#connectIn(pace.next());
    this.#change(state, error);
    const channels = [...this.#channels.values()];
    if (wasConnected) {
      const lost = new ErrConnectionLost(end.code, textOf(end));
      for (const channel of channels) channel.lost(lost);
    }
    if (error instanceof ErrForbidden) {
      for (const channel of channels) channel.forbidden(error);
    }
  }

  /** What an end means, and how soon it is worth another try. */
  #judge(end: ConnectionEnd): {
    state: LinkState;
    error: Error;
    pace: Backoff;
    spacing: number;
  } {
    const refused = { pace: this.#refused, spacing: SYNC_REFUSED_FIRST_MS };
    const mismatch = { pace: this.#mismatch, spacing: SYNC_MISMATCH_FIRST_MS };
    const text = textOf(end);
    switch (end.code) {
      case CloseCode.Unauthenticated:
        return {
          state: "needs-auth",
          error: new ErrUnauthenticated(text),
          ...refused,
        };
      case CloseCode.Forbidden:
        return { state: "offline", error: new ErrForbidden(text), ...refused };
      case CloseCode.Version:
        return { state: "offline", error: new ErrVersion(text), ...mismatch };
      case CloseCode.Protocol:
      case CloseCode.TooBig:
        return { state: "offline", error: new ErrProtocol(text), ...mismatch };
      default:
        return {
          state: "offline",
          error: new ErrConnectionLost(end.code, text),
          pace: this.#retry,
          spacing: SYNC_HINT_MS,
        };
    }
  }

  /** Ends the connection and the trying; idempotent. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#attempt = undefined;
    this.#endHints?.();
    this.#cancelTimer?.();
    this.#connection?.close(CloseCode.Normal, "");
    this.#connection = undefined;
    this.inbox.close();
    this.#change("offline", undefined);
  }
}

/** Whether an error is one that time alone does not mend. */
function isLasting(error: Error | undefined): boolean {
  return error !== undefined && !(error instanceof ErrConnectionLost);
}

/** In words a person can act on. */
function textOf({ code, reason }: ConnectionEnd): string {
  if (reason !== "") return reason;
  switch (code) {
    case CloseCode.Unauthenticated:
      return "Server does not know who this is: sign in again";
    case CloseCode.Forbidden:
      return "Server refuses this user";
    case CloseCode.Version:
      return "Page and server speak different versions: reload the page, or update the server";
    default:
      return `Connection ended with code ${code}`;
  }
}
