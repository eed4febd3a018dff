/**
 * Questions to the server that may be asked again: they wait for a connection,
 * and for the next one if that is lost.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { onAbort, withResolvers } from "../../async.ts";
import { ErrRemote } from "../errors.ts";
import type { Message } from "../messages.ts";
import type { Connection, StreamMessage } from "./connection.ts";

interface Ask {
  make(stream: number): Message;
  /** What an answer comes to; undefined if it is none. */
  settle(message: StreamMessage): void;
  reject(reason: unknown): void;
  /** What takes it back from the connection it was asked on. */
  stop?: (() => void) | undefined;
  forget?: (() => void) | undefined;
}

/** The questions of one log. */
export class Asks {
  readonly #all = new Set<Ask>();

  /** Asks, on `connection` if there is one, else on the next; until `signal` aborts. */
  ask<T>(
    connection: Connection | undefined,
    make: (stream: number) => Message,
    read: (message: StreamMessage) => T | undefined,
    signal: AbortSignal | undefined,
  ): Promise<T> {
    const { promise, resolve, reject } = withResolvers<T>();
    const ask: Ask = {
      make,
      settle: (message) => {
        this.#all.delete(ask);
        if (message.type === "failed") {
          return reject(new ErrRemote(message.message));
        }
        const answer = read(message);
        if (answer !== undefined) resolve(answer);
        else reject(new ErrRemote(`Was answered by ${message.type}`));
      },
      reject: (reason) => {
        this.#all.delete(ask);
        reject(reason);
      },
    };
    this.#all.add(ask);
    const ignore = onAbort(signal, (reason) => {
      ask.stop?.();
      ask.reject(reason);
    });
    if (connection !== undefined && this.#all.has(ask)) {
      this.#send(ask, connection);
    }
    return promise.finally(ignore);
  }

  #send(ask: Ask, connection: Connection): void {
    // What is still to come on the stream before answers nothing.
    ask.forget?.();
    const stream = connection.stream((message) => {
      connection.forget(stream);
      ask.settle(message);
    });
    ask.stop = () => connection.stop(stream);
    ask.forget = () => connection.forget(stream);
    connection.send(ask.make(stream));
  }

  /** What still comes on the streams of the questions answers none: they will be asked again. */
  lost(): void {
    for (const ask of this.#all) ask.forget?.();
  }

  /** Asks all that waits. */
  resume(connection: Connection): void {
    for (const ask of [...this.#all]) this.#send(ask, connection);
  }

  /** Fails all that waits. */
  fail(reason: unknown): void {
    for (const ask of [...this.#all]) ask.reject(reason);
  }
}
