/**
 * Bytes of one snapshot, from any of the servers that hold it.
 *
 * A server that refuses, is cut off, ends too early or sends too slowly is left for
 * another one, which continues where the first has ended. The bytes are not verified
 * here.
 *
 * This module needs Deno.
 *
 * @module
 */

import { abortable, Backoff, onAbort, sleep, timeLimit } from "../async.ts";
import { messageOf } from "../describe.ts";
import type { Env } from "../env.ts";
import {
  ETCD_RETRY_FIRST_MS,
  PEER_ANSWER_MS_MAX,
  PEER_BYTES_MIN,
  PEER_ERROR_BYTES_MAX,
  PEER_ROUND_MS_MAX,
  PEER_SLOW_MS,
} from "../limits.ts";
import { readResponseText } from "../response_text.ts";

/** Dependencies of a {@linkcode PeerSource}. */
export interface PeerSourceParts {
  readonly env: Env;
  /** Size of the snapshot, in bytes. */
  readonly size: number;
  /** Returns the base URLs of the live servers that hold the snapshot now. */
  readonly holders: () => Promise<readonly string[]>;
  /** Requests the snapshot from byte `offset` on. */
  readonly request: (
    url: string,
    offset: number,
    signal: AbortSignal,
  ) => Promise<Response>;
  /** Called with the fault of a server, of which nothing more is read for now. */
  readonly fault: (url: string, reason: string) => void;
  /** True if all bytes must be of one server, so that it is known which one has sent wrong ones. */
  readonly isSingle: boolean;
  /** Longest time without a byte, in milliseconds. */
  readonly waitMs: number;
  /** Ends the waits and the transfer. */
  readonly signal: AbortSignal;
}

/** Response of one server, being read. */
interface Transfer {
  readonly url: string;
  readonly reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly ended: AbortController;
  /** Stops listening to the end of the whole. */
  readonly ignore: () => void;
  /** Time for which it was waited since position `base`, in milliseconds. */
  waited: number;
  base: number;
}

/** Source of the bytes of one snapshot. */
export class PeerSource {
  /** The bytes; fails once nothing has arrived for some time. */
  readonly readable: ReadableStream<Uint8Array>;
  /** Servers of which bytes were read. */
  readonly contributors: Set<string> = new Set();
  /** Bytes that have arrived. */
  received = 0;
  /** Set once the source has failed, because no server sends the rest. */
  hasFailed = false;
  readonly #parts: PeerSourceParts;
  #transfer: Transfer | undefined;
  #isCancelled = false;
  /** Servers that were asked in this round. */
  readonly #asked = new Set<string>();
  readonly #backoff: Backoff;
  #progressAt: number;
  #lastFault = "no live server holds it";

  /** Creates a source that asks a server with its first read. */
  constructor(parts: PeerSourceParts) {
    this.#parts = parts;
    this.#progressAt = parts.env.now();
    this.#backoff = new Backoff(
      parts.env,
      ETCD_RETRY_FIRST_MS,
      PEER_ROUND_MS_MAX,
    );
    this.readable = new ReadableStream({
      pull: async (controller): Promise<void> => {
        let chunk: Uint8Array | undefined;
        try {
          chunk = await this.#next();
        } catch (error) {
          this.hasFailed = true;
          throw error;
        }
        if (chunk === undefined) controller.close();
        else controller.enqueue(chunk);
      },
      cancel: (reason): void => {
        this.#isCancelled = true;
        this.#end(reason);
      },
    }, { highWaterMark: 0 });
  }

  /** URL of the server that sends now. */
  get from(): string | undefined {
    return this.#transfer?.url;
  }

  async #next(): Promise<Uint8Array | undefined> {
    const { size, signal } = this.#parts;
    for (;;) {
      signal.throwIfAborted();
      if (this.received === size) {
        this.#end();
        return undefined;
      }
      this.#transfer ??= await this.#ask();
      if (this.#isCancelled) {
        // The answer came after the consumer had gone.
        this.#end(new Error(`Bytes after ${this.received} are not wanted`));
        return undefined;
      }
      const { url } = this.#transfer;
      try {
        const chunk = await this.#read(this.#transfer);
        if (chunk.length === 0) continue;
        this.received += chunk.length;
        this.#progressAt = this.#parts.env.now();
        this.contributors.add(url);
        return chunk;
      } catch (error) {
        signal.throwIfAborted();
        this.#end(error);
        this.#fault(url, messageOf(error));
        if (this.#parts.isSingle && this.received > 0) throw error;
      }
    }
  }

  #fault(url: string, reason: string): void {
    this.#lastFault = `${url}: ${reason}`;
    this.#parts.fault(url, reason);
  }

  /** Reads a chunk of a transfer; fails if it is over, or too slow. */
  async #read(transfer: Transfer): Promise<Uint8Array> {
    const { env, size } = this.#parts;
    const began = env.now();
    const slow = new AbortController();
    const cancel = env.setTimer(
      () =>
        slow.abort(
          new Error(
            `Sent fewer than ${PEER_BYTES_MIN} bytes in ${PEER_SLOW_MS} ms`,
          ),
        ),
      Math.max(1, PEER_SLOW_MS - transfer.waited),
    );
    try {
      const { done, value } = await abortable(
        transfer.reader.read(),
        slow.signal,
      );
      if (done) {
        throw new Error(`Ended after ${this.received} of ${size} bytes`);
      }
      const received = this.received + value.length;
      if (received > size) {
        throw new Error(`Sent more than the ${size} bytes of the snapshot`);
      }
      transfer.waited += env.now() - began;
      if (received - transfer.base >= PEER_BYTES_MIN) {
        transfer.waited = 0;
        transfer.base = received;
      }
      return value;
    } finally {
      cancel();
    }
  }

  /** Asks the servers in turn until one answers. */
  async #ask(): Promise<Transfer> {
    const { env, holders, signal } = this.#parts;
    for (;;) {
      signal.throwIfAborted();
      let urls: readonly string[] = [];
      try {
        urls = await holders();
      } catch (error) {
        // Etcd may have no leader for a moment.
        this.#lastFault = messageOf(error);
      }
      const left = urls.filter((url) => !this.#asked.has(url));
      if (left.length > 0) {
        const at = Number(env.random64() % BigInt(left.length));
        const url = left[at]!;
        this.#asked.add(url);
        try {
          return await this.#request(url);
        } catch (error) {
          signal.throwIfAborted();
          this.#fault(url, messageOf(error));
        }
        continue;
      }
      const waited = env.now() - this.#progressAt;
      if (waited >= this.#parts.waitMs) {
        throw new Error(
          `no byte for ${
            Math.round(waited / 1000)
          } s after ${this.received} of ${this.#parts.size} bytes; ${this.#lastFault}`,
        );
      }
      this.#asked.clear();
      await sleep(env, this.#backoff.next(), signal);
    }
  }

  async #request(url: string): Promise<Transfer> {
    const { env, request, size } = this.#parts;
    const offset = this.received;
    const ended = new AbortController();
    const ignore = onAbort(
      this.#parts.signal,
      (reason) => ended.abort(reason),
    );
    const { signal, release } = timeLimit(
      env,
      PEER_ANSWER_MS_MAX,
      "Did not answer",
    );
    try {
      const response = await abortable(
        request(url, offset, ended.signal),
        signal,
      );
      const { status, body, headers } = response;
      if (status !== (offset === 0 ? 200 : 206) || body === null) {
        const { text } = await readResponseText(
          response,
          status >= 400 ? PEER_ERROR_BYTES_MAX : 0,
          signal,
        );
        throw new Error(
          `Answered with status ${status} ${text.trim().slice(0, 200)}`.trim(),
        );
      }
      const length = headers.get("content-length");
      if (length !== null && Number(length) !== size - offset) {
        await body.cancel().catch(() => {});
        throw new Error(
          `Has ${length} bytes of the snapshot after byte ${offset}, not ${
            size - offset
          }`,
        );
      }
      return {
        url,
        reader: body.getReader(),
        ended,
        ignore,
        waited: 0,
        base: offset,
      };
    } catch (error) {
      ignore();
      ended.abort(error);
      throw error;
    } finally {
      release();
    }
  }

  #end(reason?: unknown): void {
    const transfer = this.#transfer;
    this.#transfer = undefined;
    if (transfer === undefined) return;
    transfer.ignore();
    transfer.reader.cancel(reason).catch(() => {});
    if (reason !== undefined) transfer.ended.abort(reason);
  }
}
