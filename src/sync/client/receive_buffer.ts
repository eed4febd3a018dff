/**
 * Accounting of the bytes that a client has received and its readers have not
 * consumed.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../../env.ts";
import { SYNC_CREDIT_BYTES, SYNC_STALL_MS } from "../../limits.ts";

/** Reader that buffers received data. */
export interface BufferUser {
  /** Bytes buffered by this reader. */
  readonly bufferedBytes: number;
  /** Called to drop the buffered data, as no reader consumed any for `SYNC_STALL_MS`. */
  shed(): void;
}

/**
 * Counts the bytes that are buffered for all readers of one link. All streams share
 * one credit: when stalled readers have used it up for a while, the one with the most
 * bytes must drop them, so that the others go on and the server does not close the
 * connection of a client that reads too slowly.
 */
export class ReceiveBuffer {
  readonly #env: Env;
  readonly #granted: (bytes: number) => void;
  readonly #users = new Set<BufferUser>();
  #bytes = 0;
  #consumed = 0;
  #cancel: (() => void) | undefined;

  /** Creates an empty buffer; `granted` is called with the bytes that were consumed. */
  constructor(env: Env, granted: (bytes: number) => void) {
    this.#env = env;
    this.#granted = granted;
  }

  /** Bytes buffered by all readers. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Adds a reader; returns a function that removes it. */
  join(user: BufferUser): () => void {
    this.#users.add(user);
    return () => void this.#users.delete(user);
  }

  /** Counts bytes that were received. */
  add(bytes: number): void {
    this.#bytes += bytes;
    if (this.#isFull) this.#watch();
  }

  /** Counts bytes that were consumed or dropped. */
  release(bytes: number): void {
    this.#bytes -= bytes;
    this.#consumed += bytes;
    if (!this.#isFull) this.#unwatch();
    if (bytes > 0) this.#granted(bytes);
  }

  get #isFull(): boolean {
    return this.#bytes >= SYNC_CREDIT_BYTES / 4 * 3;
  }

  #watch(): void {
    if (this.#cancel !== undefined) return;
    const consumed = this.#consumed;
    this.#cancel = this.#env.setTimer(() => {
      this.#cancel = undefined;
      if (!this.#isFull) return;
      if (consumed === this.#consumed) this.#shed();
      if (this.#isFull) this.#watch();
    }, SYNC_STALL_MS);
  }

  #shed(): void {
    let most: BufferUser | undefined;
    for (const user of this.#users) {
      if (user.bufferedBytes > (most?.bufferedBytes ?? 0)) most = user;
    }
    most?.shed();
  }

  #unwatch(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }

  /** Stops the stall timer and removes all readers. */
  close(): void {
    this.#unwatch();
    this.#users.clear();
  }
}
