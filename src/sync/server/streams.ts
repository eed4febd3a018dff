/**
 * Stream numbers in use on one connection.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ErrProtocol } from "../errors.ts";
import { CloseCode } from "../transport.ts";
import { Violation } from "./handshake.ts";
import type { Sender } from "./sender.ts";

/** Kind of a request: a shutdown waits for appends. */
export type RequestKind = "append" | "request";

/** Streams of one connection: requests that await an answer, and the data streams of its sender. */
export class Streams {
  readonly #sender: Sender;
  readonly #max: number;
  readonly #requests = new Map<number, RequestKind>();

  /** Creates a table of at most `max` streams. */
  constructor(sender: Sender, max: number) {
    this.#sender = sender;
    this.#max = max;
  }

  /** Number of streams in use. */
  get size(): number {
    return this.#sender.streams.size + this.#requests.size;
  }

  /** True while an append awaits its answer. */
  get isAppending(): boolean {
    return [...this.#requests.values()].includes("append");
  }

  /** True while a request other than an append awaits its answer on the stream. */
  isRequested(stream: number): boolean {
    return this.#requests.get(stream) === "request";
  }

  /**
   * Begins a request on a stream of the client's choice.
   *
   * @throws ErrProtocol if the stream is in use
   * @throws Violation if too many streams are in use
   */
  begin(stream: number, kind: RequestKind): void {
    const { streams } = this.#sender;
    if (streams.has(stream) || this.#requests.has(stream)) {
      throw new ErrProtocol(`Stream ${stream} is open already`);
    }
    if (this.size >= this.#max) {
      throw new Violation(
        CloseCode.TooMany,
        `No more than ${this.#max} streams on one connection`,
      );
    }
    this.#requests.set(stream, kind);
  }

  /** Ends a request; false if it was stopped before. */
  finish(stream: number): boolean {
    return this.#requests.delete(stream);
  }

  /** Ends all requests without an answer. */
  clear(): void {
    this.#requests.clear();
  }
}
