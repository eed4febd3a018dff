/**
 * Calls between a page and its worker, in both directions, in the order in which they
 * are made.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { isPromise, withResolvers } from "../async.ts";
import { messageOf } from "../describe.ts";
import type { MaybePromise } from "../statemachine/types.ts";
import { type SentError, SentErrors } from "./sent_error.ts";

/** Value with the buffers that move to the other thread with it. */
export interface Sent {
  readonly value: unknown;
  readonly transfer?: Transferable[];
}

/** Function that answers a call of the other thread. */
export type Serve = (method: string, args: unknown) => MaybePromise<Sent>;

type Message =
  | { readonly call: number; readonly method: string; readonly args: unknown }
  | { readonly answer: number; readonly value: unknown }
  | { readonly failed: number; readonly error: SentError };

/** One end of the calls between two threads. */
export class Link {
  /** Errors that cross to the other thread and back. */
  readonly errors: SentErrors = new SentErrors();
  readonly #post: (message: unknown, transfer: Transferable[]) => void;
  readonly #serve: Serve;
  readonly #calls = new Map<number, {
    readonly resolve: (value: unknown) => void;
    readonly reject: (reason: unknown) => void;
  }>();
  #made = 0;
  #ended: { readonly reason: unknown } | undefined;

  /** Creates an end, which sends with `post`. */
  constructor(
    post: (message: unknown, transfer: Transferable[]) => void,
    serve: Serve,
  ) {
    this.#post = post;
    this.#serve = serve;
  }

  /** Calls a method in the other thread. */
  call(
    method: string,
    args?: unknown,
    transfer: Transferable[] = [],
  ): Promise<unknown> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended.reason);
    const call = ++this.#made;
    try {
      this.#send({ call, method, args }, transfer);
    } catch (error) {
      return Promise.reject(
        new TypeError(
          `Arguments of ${method}() cannot be sent to another thread: ${
            messageOf(error)
          }`,
          { cause: error },
        ),
      );
    }
    const { promise, resolve, reject } = withResolvers<unknown>();
    this.#calls.set(call, { resolve, reject });
    return promise;
  }

  #send(message: Message, transfer: Transferable[] = []): void {
    this.#post(message, transfer);
  }

  /** Takes a message of the other thread. */
  received(data: unknown): void {
    const message = data as Message;
    if ("call" in message) return this.#answer(message);
    const number = "answer" in message ? message.answer : message.failed;
    const call = this.#calls.get(number);
    if (call === undefined) return;
    this.#calls.delete(number);
    if ("answer" in message) call.resolve(message.value);
    else call.reject(this.errors.received(message.error));
  }

  #answer(
    { call, method, args }: Extract<Message, { readonly call: number }>,
  ): void {
    const reply = ({ value, transfer }: Sent): void => {
      try {
        this.#send({ answer: call, value }, transfer);
      } catch (error) {
        fail(
          new TypeError(
            `Answer of ${method}() cannot be sent to another thread: ${
              messageOf(error)
            }`,
            { cause: error },
          ),
        );
      }
    };
    const fail = (error: unknown): void =>
      this.#send({ failed: call, error: this.errors.sent(error) });
    try {
      const sent = this.#serve(method, args);
      // Answered in this turn, if it can be.
      if (isPromise(sent)) sent.then(reply, fail);
      else reply(sent);
    } catch (error) {
      fail(error);
    }
  }

  /** Rejects all calls, and later ones, with a reason. */
  end(reason: unknown): void {
    this.#ended ??= { reason };
    for (const { reject } of this.#calls.values()) reject(reason);
    this.#calls.clear();
  }
}
