/**
 * A listener that is opened again when it ends by itself.
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

/** One run of a listener, until it ends; `Deno.HttpServer` is one. */
export interface Listening {
  /** Address it listens on. */
  readonly addr: { readonly port: number };
  /** Settles once it has ended; rejects if it failed. */
  readonly finished: Promise<void>;
  /** Accepts nothing new, and resolves once the requests under way are answered. */
  shutdown(): Promise<void>;
  /** Lets the process end although it listens. */
  unref(): void;
}

/** Dependencies of a {@linkcode RestartingListener}. */
export interface RestartingListenerOptions {
  /** Time, random numbers and timers. */
  readonly env: Env;
  /** Listens on a port; 0 for one that is free. */
  readonly listen: (port: number) => Listening;
  /** Port to listen on first; 0 for one that is free. */
  readonly port: number;
  /** Called when the listener has ended by itself, once until it has listened for a while again. */
  readonly ended: (error: unknown) => void;
  /** Called when it has listened for a while again. */
  readonly resumed: () => void;
}

/**
 * Keeps a port open until it is shut down. An operating system that has no file
 * descriptor left for a new connection ends the listener of `Deno.serve`, while
 * the connections that are open go on: it is opened again on the same port, with
 * backoff.
 */
export class RestartingListener {
  /** Port it listens on, also while it is being opened again. */
  readonly port: number;
  readonly #options: RestartingListenerOptions;
  readonly #backoff: Backoff;
  #current: Listening | undefined;
  #cancel: (() => void) | undefined;
  #isStopped = false;
  /** Set from its end until it has listened for a while again. */
  #isTroubled = false;

  /**
   * A listener that listens.
   *
   * @throws whatever `listen` throws the first time
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
      () => ended(new Error("Listener ended without an error")),
      ended,
    );
  }

  #ended(error: unknown): void {
    this.#current = undefined;
    this.#cancel?.();
    if (this.#isStopped) return;
    const { env, ended } = this.#options;
    this.#cancel = env.setTimer(() => this.#again(), this.#backoff.next());
    if (this.#isTroubled) return;
    this.#isTroubled = true;
    ended(error);
  }

  #again(): void {
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
      this.#isTroubled = false;
      resumed();
    }, SYNC_STABLE_MS);
  }

  /** Does not open it again. */
  stop(): void {
    this.#isStopped = true;
    this.#cancel?.();
  }

  /** Resolves once it has ended. */
  get finished(): Promise<void> {
    return Promise.resolve(this.#current?.finished).catch(() => {});
  }

  /** Stops listening, and resolves once the requests under way are answered. */
  async shutdown(): Promise<void> {
    this.stop();
    // One that ends while it is shut down has nothing more to answer.
    await this.#current?.shutdown().catch(() => {});
    this.#current = undefined;
  }

  /** Lets the process end although it listens. */
  unref(): void {
    this.#current?.unref();
  }
}
