/**
 * Listener that is restarted when it ends by itself.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../../env.ts";
import {
  SYNC_LISTEN_FIRST_MS,
  SYNC_LISTEN_LAST_MS,
  SYNC_STABLE_MS,
} from "../../limits.ts";
import { Backoff } from "../../async.ts";

/** Running listener; `Deno.HttpServer` implements it. */
export interface Listening {
  /** Address it listens on. */
  readonly addr: { readonly port: number };
  /** Resolves once the listener has ended; rejects if it failed. */
  readonly finished: Promise<void>;
  /** Accepts no new requests, and resolves once those in progress are answered. */
  shutdown(): Promise<void>;
  /** Lets the process exit while the listener is open. */
  unref(): void;
}

/** Dependencies of a {@linkcode RestartingListener}. */
export interface RestartingListenerOptions {
  /** Time, random numbers and timers. */
  readonly env: Env;
  /** Starts a listener on a port; 0 for a free one. */
  readonly listen: (port: number) => Listening;
  /** Port to listen on; 0 for a free one. */
  readonly port: number;
  /** Called when the listener has ended by itself; not called again before `resumed`. */
  readonly ended: (error: unknown) => void;
  /** Called when the listener has been stable for a while after that. */
  readonly resumed: () => void;
}

/**
 * Keeps a port open until it is shut down. When the process has no file descriptor
 * left for a new connection, the listener of `Deno.serve` ends, while open
 * connections continue: it is restarted on the same port, with backoff.
 */
export class RestartingListener {
  /** Port of the listener, also while it is being restarted. */
  readonly port: number;
  readonly #options: RestartingListenerOptions;
  readonly #backoff: Backoff;
  #current: Listening | undefined;
  #cancel: (() => void) | undefined;
  #isStopped = false;
  /** Set from the end of a listener until the next one is stable. */
  #isUnstable = false;

  /**
   * Starts the listener.
   *
   * @throws the error of the first call of `listen`
   */
  constructor(options: RestartingListenerOptions) {
    const { env, listen, port } = options;
    this.#options = options;
    this.#backoff = new Backoff(env, SYNC_LISTEN_FIRST_MS, SYNC_LISTEN_LAST_MS);
    const current = listen(port);
    this.port = current.addr.port;
    this.#watch(current);
  }

  /** True while connections are accepted. */
  get isListening(): boolean {
    return this.#current !== undefined;
  }

  #watch(current: Listening): void {
    this.#current = current;
    const ended = (error: unknown): void => {
      if (this.#current === current) this.#ended(error);
    };
    current.finished.then(
      () =>
        ended(
          new Error(`Listener on port ${this.port} ended without an error`),
        ),
      ended,
    );
  }

  #ended(error: unknown): void {
    this.#current = undefined;
    this.#cancel?.();
    if (this.#isStopped) return;
    const { env, ended } = this.#options;
    this.#cancel = env.setTimer(() => this.#restart(), this.#backoff.next());
    if (this.#isUnstable) return;
    this.#isUnstable = true;
    ended(error);
  }

  #restart(): void {
    const { env, listen, resumed } = this.#options;
    let current: Listening;
    try {
      current = listen(this.port);
    } catch (error) {
      return this.#ended(error);
    }
    this.#watch(current);
    this.#cancel = env.setTimer(() => {
      this.#cancel = undefined;
      this.#backoff.reset();
      this.#isUnstable = false;
      resumed();
    }, SYNC_STABLE_MS);
  }

  /** Restarts the listener no more. */
  stop(): void {
    this.#isStopped = true;
    this.#cancel?.();
  }

  /** Resolves once the current listener has ended. */
  get finished(): Promise<void> {
    return Promise.resolve(this.#current?.finished).catch(() => {});
  }

  /** Stops listening, and resolves once the requests in progress are answered. */
  async shutdown(): Promise<void> {
    this.stop();
    // A listener that fails during its shutdown has no requests to answer.
    await this.#current?.shutdown().catch(() => {});
    this.#current = undefined;
  }

  /** Lets the process exit while the listener is open. */
  unref(): void {
    this.#current?.unref();
  }
}
