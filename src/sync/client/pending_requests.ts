/**
 * Idempotent requests to the server: they wait for a connection, and are sent again
 * on the next one if it is lost before the reply.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { onAbort, withResolvers } from "../../async.ts";
import { ErrRemote } from "../errors.ts";
import type { Message } from "../messages.ts";
import type { Connection, StreamMessage } from "./connection.ts";

interface PendingRequest {
  make(stream: number): Message;
  /** Settles the request with a reply. */
  settle(message: StreamMessage): void;
  reject(reason: unknown): void;
  /** Stops the request on the connection it was sent on. */
  stop?: (() => void) | undefined;
  forget?: (() => void) | undefined;
}

/** Requests of one log that await their replies. */
export class PendingRequests {
  readonly #all = new Set<PendingRequest>();

  /** Sends a request on `connection`, or on the next one, and resolves to what `read` returns for the reply: undefined for a wrong one. */
  request<T>(
    connection: Connection | undefined,
    make: (stream: number) => Message,
    read: (message: StreamMessage) => T | undefined,
    signal: AbortSignal | undefined,
  ): Promise<T> {
    const { promise, resolve, reject } = withResolvers<T>();
    const request: PendingRequest = {
      make,
      settle: (message) => {
        this.#all.delete(request);
        if (message.type === "failed") {
          return reject(new ErrRemote(message.message));
        }
        const answer = read(message);
        if (answer !== undefined) resolve(answer);
        else {reject(
            new ErrRemote(
              `Server replied with ${message.type}, which does not answer the request`,
            ),
          );}
      },
      reject: (reason) => {
        this.#all.delete(request);
        reject(reason);
      },
    };
    this.#all.add(request);
    const ignore = onAbort(signal, (reason) => {
      request.stop?.();
      request.reject(reason);
    });
    if (connection !== undefined && this.#all.has(request)) {
      this.#send(request, connection);
    }
    return promise.finally(ignore);
  }

  #send(request: PendingRequest, connection: Connection): void {
    // A late reply on the previous stream is discarded.
    request.forget?.();
    const stream = connection.stream((message) => {
      connection.forget(stream);
      request.settle(message);
    });
    request.stop = () => connection.stop(stream);
    request.forget = () => connection.forget(stream);
    connection.send(request.make(stream));
  }

  /** Discards late replies after a lost connection; `resume()` sends the requests again. */
  lost(): void {
    for (const request of this.#all) request.forget?.();
  }

  /** Sends all pending requests on a new connection. */
  resume(connection: Connection): void {
    for (const request of [...this.#all]) this.#send(request, connection);
  }

  /** Fails all pending requests. */
  fail(reason: unknown): void {
    for (const request of [...this.#all]) request.reject(reason);
  }
}
