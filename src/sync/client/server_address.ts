/**
 * Address of a server: normalization, backoff of attempts, and frame size.
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
import type { Failure } from "./failure.ts";

/** Default path of the WebSocket of a server. */
const PATH = "/sync";

/** Close code of the WebSocket protocol for a message that is too large. */
const TOO_LARGE = 1009;

/** Close codes of the WebSocket protocol for a regular end, a stop or a restart. */
const REGULAR: readonly number[] = [1000, 1001, 1012, 1013];

/** First close code for applications: a gateway does not use it. */
const APPLICATION_FIRST = 3000;

/** Consecutive connections that ended during a large frame, after which frames shrink. */
const BROKEN_MAX = 2;

/** Factor by which frames shrink when a gateway has rejected one. */
const SHRINK = 8;

/**
 * Normalizes the address of a server: `wss:` or `ws:` (`https:` and `http:` are
 * synonyms), with the default path `/sync`.
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
    throw wrong("pass a string, such as wss://example.com/sync");
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
    throw wrong("it has a user name or password, use the option `token`");
  }
  if (url.hash !== "" || text.includes("#")) {
    throw wrong("a WebSocket URL has no fragment, leave out what follows #");
  }
  if (url.pathname === "/") url.pathname = PATH;
  return url.href;
}

/** Address of a server, with the outcome of the last attempt to connect. */
export class ServerAddress {
  readonly url: string;
  /** Failure of the last attempt; undefined if it succeeded. */
  failure: Failure | undefined;
  /** Set while an HTTP probe is under way. */
  isProbed = false;
  /** Time before which it is not tried, except by `reconnect()`. */
  notBefore: number = -Infinity;
  /** Time before which a hint causes no attempt. */
  hintFrom: number = -Infinity;
  readonly #env: Env;
  readonly #refused: Backoff;
  readonly #mismatch: Backoff;
  /** Largest frame of the next connection, in bytes. */
  #frameBytes: number;
  /** Upper limit of the frame size, in bytes. */
  readonly #frameBytesMost: number;
  /** Frame size to return to if the larger one on trial is rejected, in bytes. */
  #frameBytesGood: number | undefined;
  /** Time from which a larger size is tried. */
  #growFrom = Infinity;
  /** Delay of the next trial, in milliseconds. */
  #growMs: number = SYNC_FRAME_GROW_FIRST_MS;
  /** Consecutive connections that ended during a large frame. */
  #broken = 0;
  /** Set if an HTTP probe found out the failure. */
  #isFound = false;

  /** Creates an address that was never tried. */
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
   * Returns the largest frame that the next connection sends or accepts, in bytes:
   * smaller once a gateway has rejected large ones. After a while a larger size is
   * tried, as the page may be on another network.
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
   * Records how a connection has ended. Frames shrink if a gateway has reported one
   * as too large, or if two consecutive connections broke during a large frame; one
   * is enough while a larger size is on trial.
   */
  ended(code: number, hadLargeFrame: boolean): void {
    const isRefused = code === TOO_LARGE;
    const isBroken = hadLargeFrame && code < APPLICATION_FIRST &&
      !REGULAR.includes(code);
    this.#broken = isBroken ? this.#broken + 1 : 0;
    const good = this.#frameBytesGood;
    if (!isRefused && this.#broken < (good === undefined ? BROKEN_MAX : 1)) {
      return;
    }
    this.#broken = 0;
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

  /** Records the failure of an attempt that started at `begun`: the backoff depends on its class. */
  failed(failure: Failure, begun: number): void {
    // The result of a probe stays until the next attempt says more.
    const isKnown = this.#isFound && failure.reason.code === "unreachable";
    if (!isKnown) this.failure = failure;
    this.#isFound = isKnown;
    const now = this.#env.now();
    switch (failure.pace) {
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

  /** Records the result of an HTTP probe. */
  found(failure: Failure): void {
    this.failure = failure;
    this.#isFound = true;
  }

  /** Clears failure and backoff. */
  reset(): void {
    this.forget();
    this.notBefore = this.hintFrom = -Infinity;
    this.#refused.reset();
    this.#mismatch.reset();
  }

  /** Clears the failure. */
  forget(): void {
    this.failure = undefined;
    this.#isFound = false;
  }
}

/** Returns a duration between half of `full` and `full`. */
export function jittered(env: Env, full: number): number {
  return full * (0.5 + Number(env.random64() & 0xffn) / 512);
}

/**
 * Backoff of the attempts to connect. The first attempts follow within a second or
 * two, since most servers return soon; then the delay grows in proportion to the
 * time without a connection.
 */
export class RetryPace {
  readonly #env: Env;
  #tries = 0;
  #since: number | undefined;

  /** Creates a backoff whose jitter comes from `env`. */
  constructor(env: Env) {
    this.#env = env;
  }

  /** Returns the delay before the next attempt, in milliseconds. */
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
    return jittered(this.#env, full);
  }

  /** Resets the backoff. */
  reset(): void {
    this.#tries = 0;
    this.#since = undefined;
  }
}
