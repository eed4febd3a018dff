/**
 * Addresses of servers: how they are written, and when each may be tried again.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../../env.ts";
import {
  SYNC_FRAME_BYTES_MIN,
  SYNC_FRAME_GROW_FIRST_MS,
  SYNC_FRAME_GROW_LAST_MS,
  SYNC_FRAME_LARGE_BYTES,
  SYNC_HINT_MS,
  SYNC_MISMATCH_FIRST_MS,
  SYNC_MISMATCH_LAST_MS,
  SYNC_REFUSED_FIRST_MS,
  SYNC_REFUSED_LAST_MS,
  SYNC_RETRY_DOWN_PERCENT,
  SYNC_RETRY_FIRST_MS,
  SYNC_RETRY_LAST_MS,
  SYNC_RETRY_SOON_MS,
} from "../../limits.ts";
import { Backoff } from "../../async.ts";
import { ErrServerURL } from "../errors.ts";
import type { Trouble } from "./reason.ts";

/** Path of the WebSocket of a server, where an address names none. */
const PATH = "/sync";

/** Code of the WebSocket protocol for a message that is too large to be handled. */
const TOO_LARGE = 1009;

/** Codes of the WebSocket protocol by which an end says that all is well, or that it stops or restarts. */
const PEACEFUL: readonly number[] = [1000, 1001, 1012, 1013];

/** The first code that only a server of the protocol, no gateway, closes with. */
const APPLICATION_FIRST = 3000;

/** Connections in a row that have ended under a large frame, after which frames get smaller. */
const CUTS = 2;

/** Factor by which frames get smaller when something on the way has refused them. */
const SHRINK = 8;

/**
 * Normalises the address of a server: `wss:` or `ws:` (`https:` and `http:` mean
 * the same), with the path `/sync` where it has none.
 *
 * @throws ErrServerURL if it is not the address of a server
 */
export function serverURL(text: unknown): string {
  const wrong = (why: string): ErrServerURL =>
    new ErrServerURL(
      String(text),
      `${
        typeof text === "string" ? JSON.stringify(text) : `${text}`
      } is not the address of a server: ${why}`,
    );
  if (typeof text !== "string") {
    throw wrong("give a string, such as wss://example.com/sync");
  }
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw wrong("write it in full, such as wss://example.com/sync");
  }
  if (url.protocol === "https:") url.protocol = "wss:";
  if (url.protocol === "http:") url.protocol = "ws:";
  if (url.protocol !== "wss:" && url.protocol !== "ws:") {
    throw wrong(`its scheme is ${url.protocol}, use wss: or ws:`);
  }
  if (url.username !== "" || url.password !== "") {
    throw wrong("it holds a name or a password, use the option `token`");
  }
  if (url.hash !== "" || text.includes("#")) {
    throw wrong("a WebSocket takes no fragment, leave out what follows #");
  }
  if (url.pathname === "/") url.pathname = PATH;
  return url.href;
}

/** One address of a server, with what came of the last attempt to connect there. */
export class Address {
  readonly url: string;
  /** Set while the last attempt has failed. */
  trouble: Trouble | undefined;
  /** Set while it is asked over HTTP why. */
  isProbed = false;
  /** Time before which it is not to be tried, unless asked to. */
  notBefore: number = -Infinity;
  /** Time before which a hint does not make it be tried. */
  hintFrom: number = -Infinity;
  readonly #env: Env;
  readonly #refused: Backoff;
  readonly #mismatch: Backoff;
  /** The largest frame that is sent there or taken, in bytes. */
  #frameBytes: number;
  /** The largest frame there may ever be, in bytes. */
  readonly #frameBytesMost: number;
  /** The size to go back to while a larger one is on trial, in bytes. */
  #frameBytesGood: number | undefined;
  /** Time from which a larger one may be tried. */
  #growFrom = Infinity;
  /** Delay of the next trial, in milliseconds. */
  #growMs: number = SYNC_FRAME_GROW_FIRST_MS;
  /** Connections in a row that have ended under a large frame. */
  #cuts = 0;
  /** Set if the trouble was found out by asking over HTTP. */
  #isFound = false;

  /** An address that was never tried. */
  constructor(url: string, env: Env, frameBytes: number) {
    this.url = url;
    this.#frameBytes = this.#frameBytesMost = frameBytes;
    this.#env = env;
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

  /**
   * The largest frame that the next connection sends or takes, in bytes: smaller
   * once something on the way has refused large ones. After a while a larger one
   * is tried: the page may be on another network by then.
   */
  nextFrameBytes(): number {
    const now = this.#env.now();
    if (now >= this.#growFrom) {
      this.#frameBytesGood = this.#frameBytes;
      const larger = this.#frameBytes * SHRINK;
      this.#frameBytes = Math.min(this.#frameBytesMost, larger);
      const isMost = this.#frameBytes === this.#frameBytesMost;
      this.#growFrom = isMost ? Infinity : now + this.#growMs;
    }
    return this.#frameBytes;
  }

  /**
   * Notes how a connection has ended. Frames get smaller if something on the way
   * has said that one was too large, or has ended two connections in a row
   * without a word while a large one was under way; one is enough where a larger
   * size was on trial.
   */
  ended(code: number, hadLargeFrame: boolean): void {
    const isRefused = code === TOO_LARGE;
    const isCut = hadLargeFrame && code < APPLICATION_FIRST &&
      !PEACEFUL.includes(code);
    this.#cuts = isCut ? this.#cuts + 1 : 0;
    const good = this.#frameBytesGood;
    if (!isRefused && this.#cuts < (good === undefined ? CUTS : 1)) return;
    this.#cuts = 0;
    this.#frameBytesGood = undefined;
    this.#growFrom = this.#env.now() + this.#growMs;
    this.#growMs = Math.min(2 * this.#growMs, SYNC_FRAME_GROW_LAST_MS);
    if (good !== undefined) {
      this.#frameBytes = good;
      return;
    }
    const least = isRefused ? SYNC_FRAME_BYTES_MIN : SYNC_FRAME_LARGE_BYTES;
    const smaller = Math.floor(this.#frameBytes / SHRINK);
    this.#frameBytes = Math.min(this.#frameBytes, Math.max(least, smaller));
  }

  /** Notes that an attempt begun at `begun` has failed: a server that refuses is left alone for a while. */
  failed(trouble: Trouble, begun: number): void {
    // What was found out about a handshake stays told until it is known better.
    const isKnown = this.#isFound && trouble.reason.code === "unreachable";
    if (!isKnown) this.trouble = trouble;
    this.#isFound = isKnown;
    const now = this.#env.now();
    switch (trouble.pace) {
      case "retry":
        this.notBefore = now;
        this.hintFrom = begun + SYNC_HINT_MS;
        break;
      case "refused":
        this.notBefore = now + this.#refused.next();
        this.hintFrom = begun + SYNC_REFUSED_FIRST_MS;
        break;
      case "mismatch":
        this.notBefore = now + this.#mismatch.next();
        this.hintFrom = begun + SYNC_MISMATCH_FIRST_MS;
        break;
    }
  }

  /** Notes why the last attempt has failed, as it was found out since. */
  found(trouble: Trouble): void {
    this.trouble = trouble;
    this.#isFound = true;
  }

  /** Forgets why it was left alone. */
  reset(): void {
    this.forget();
    this.notBefore = this.hintFrom = -Infinity;
    this.#refused.reset();
    this.#mismatch.reset();
  }

  /** Forgets what came of the last attempt. */
  forget(): void {
    this.trouble = undefined;
    this.#isFound = false;
  }
}

/**
 * Pace of the attempts to connect. The first follow each other within a second or
 * two, since most servers come back soon; then the wait grows with the time that
 * has passed without a connection, so that it is never a large part of it.
 */
export class RetryPace {
  readonly #env: Env;
  #tries = 0;
  #since: number | undefined;

  /** A pace whose jitter comes from `env`. */
  constructor(env: Env) {
    this.#env = env;
  }

  /** Wait before the next attempt, in milliseconds. */
  next(): number {
    const now = this.#env.now();
    const down = now - (this.#since ??= now);
    const soon = Math.min(
      SYNC_RETRY_FIRST_MS * 2 ** this.#tries,
      SYNC_RETRY_SOON_MS,
    );
    this.#tries = Math.min(this.#tries + 1, 32);
    const full = Math.min(
      Math.max(soon, down * SYNC_RETRY_DOWN_PERCENT / 100),
      SYNC_RETRY_LAST_MS,
    );
    return full * (0.5 + Number(this.#env.random64() & 0xffn) / 512);
  }

  /** Starts over, after something went well or may go well now. */
  reset(): void {
    this.#tries = 0;
    this.#since = undefined;
  }
}
