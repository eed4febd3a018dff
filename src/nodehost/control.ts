/**
 * Session control records on their way to the log.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { type Backoff, onAbort } from "../async.ts";
import type { ErrProposalRefused } from "../rsm/errors.ts";

/** A client that opens one session after the other under one client id. */
export interface Client {
  /** Client id of its sessions. Every reader of the log can see it, and repeat it. */
  readonly clientID: bigint;
  /** Sessions up to this index are not used, though the client has opened them: they may be applied again after a recovery. */
  readonly after: number;
  /** Owner of its sessions, if known: sessions of other owners are not its own (H14). */
  readonly owner: Uint8Array | undefined;
  /** Called when a session was opened that has another owner. */
  readonly refused: (error: ErrProposalRefused) => void;
}

/** Record that opens, closes or claims a session, sent again until it is applied or its caller has stopped waiting. */
export class Control {
  /** Encoded record. */
  readonly record: Uint8Array;
  /** Number of times it was appended. */
  sends = 0;
  /** True if the log has acknowledged the last append. */
  isAppended = false;
  /** True while it counts against the bound of the queue. */
  isCounted = true;
  /** True while a caller waits. */
  wanted = true;
  /** Client of a registration that is not by `Replica.openSession()`. */
  client: Client | undefined;
  /** Owner of the session to be opened; undefined as long as it is not known. */
  owner: Uint8Array | undefined;
  /** Backoff of a registration that has opened a session of another owner. */
  backoff: Backoff | undefined;
  cancelRetry: (() => void) | undefined;
  /** Session that the record has opened or closed, once it is applied. */
  session: number | undefined;
  readonly #resolve: (session: number) => void;
  readonly #reject: (reason: unknown) => void;
  readonly #ignore: () => void;

  /** Creates a control whose caller waits until `signal` aborts. */
  constructor(
    record: Uint8Array,
    resolve: (session: number) => void,
    reject: (reason: unknown) => void,
    signal: AbortSignal | undefined,
  ) {
    this.record = record;
    this.#resolve = resolve;
    this.#reject = reject;
    this.#ignore = onAbort(signal, (reason) => this.reject(reason));
  }

  /** True if the record still has to be applied for its caller. */
  get isPending(): boolean {
    return this.wanted && this.session === undefined;
  }

  /** Resolves the caller's promise. */
  resolve(session: number): void {
    this.#end();
    this.#resolve(session);
  }

  /** Rejects the caller's promise. */
  reject(reason: unknown): void {
    this.#end();
    this.#reject(reason);
  }

  #end(): void {
    this.wanted = false;
    this.cancelRetry?.();
    this.#ignore();
  }
}
