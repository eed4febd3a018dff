/**
 * Flow control of the appends of one client.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../../env.ts";
import type { LoadLimiter } from "./load_limiter.ts";
import type { TokenBucket } from "./token_bucket.ts";

/** Dependencies of a {@linkcode CreditWindow}. */
export interface CreditWindowOptions {
  /** Time and timers. */
  readonly env: Env;
  /** Delays grants while the server is busy. */
  readonly load: LoadLimiter;
  /** Returns the size of the window in bytes; it shrinks as connections are added. */
  readonly size: () => number;
  /** Called with the bytes to grant to the client. */
  readonly grant: (bytes: number) => void;
}

/**
 * Credit-based flow control: the client may send a window of bytes, and is granted
 * more once what it has sent is processed, later if it exceeds its rate of
 * commands or the server is busy.
 */
export class CreditWindow {
  readonly #options: CreditWindowOptions;
  /** Rate limit for commands; set once the principal is known. */
  commands: TokenBucket | undefined;
  /** Bytes the client may still send. */
  #granted: number;
  /** Bytes received and not processed. */
  #unprocessed = 0;
  #isStopped = false;
  #cancelGrant: (() => void) | undefined;

  /** Creates a window that is granted in full. */
  constructor(options: CreditWindowOptions) {
    this.#options = options;
    this.#granted = options.size();
  }

  /** Bytes the client may still send. */
  get granted(): number {
    return this.#granted;
  }

  /** Charges a received frame; false if no credit was left before its first byte. */
  charge(bytes: number): boolean {
    if (this.#granted <= 0) return false;
    this.#granted -= bytes;
    this.#unprocessed += bytes;
    return true;
  }

  /** Returns the credit of a processed frame with its number of commands. */
  processed(bytes: number, commands: number): void {
    this.#unprocessed -= bytes;
    this.commands?.take(commands);
    this.#grantDue();
  }

  /** Bytes that fit into the window and are not granted. */
  get #due(): number {
    return this.#options.size() - this.#granted - this.#unprocessed;
  }

  #grantDue(): void {
    // Half a window at a time: the client still has the other half.
    if (this.#isStopped || this.#cancelGrant !== undefined) return;
    const { env, load, size } = this.#options;
    if (this.#due < size() / 2) return;
    const wait = Math.max(
      this.commands?.waitMs ?? 0,
      // Less than a millisecond is not worth a timer, which takes longer.
      Math.floor(load.waitMs),
    );
    if (wait <= 0) return this.#grant();
    this.#cancelGrant = env.setTimer(() => {
      this.#cancelGrant = undefined;
      this.#grant();
    }, wait);
  }

  #grant(): void {
    // The window may have shrunk since.
    const bytes = Math.floor(this.#due);
    if (bytes <= 0) return;
    this.#granted += bytes;
    this.#options.grant(bytes);
  }

  /** Grants nothing more. */
  stop(): void {
    this.#isStopped = true;
    this.#cancelGrant?.();
    this.#cancelGrant = undefined;
  }
}
