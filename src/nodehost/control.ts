/**
 * Session control records on their way to the log.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { type Backoff, onAbort } from "../async.ts";
import type { ErrProposalRefused } from "../rsm/errors.ts";
import type { ClosedSession } from "../rsm/state_machine.ts";

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

/**
 * State of a request: `sending` until the log has acknowledged the record,
 * `appended` until it is applied; `abandoned` if the caller has stopped waiting
 * before that, while the record may still be applied; `ended`.
 */
export type ControlState = "sending" | "appended" | "abandoned" | "ended";

/** Request to open, close or claim a session: its record is sent again until it is applied or the caller stops waiting. */
export class Control {
  /** Encoded record. */
  readonly record: Uint8Array;
  /** State of the request. It counts against the bound of the queue until it has ended. */
  state: ControlState = "sending";
  /** Number of times the record was appended. */
  sends = 0;
  /** Client of a registration that is not by `Replica.openSession()`. */
  client: Client | undefined;
  /** Owner of the session to be opened; undefined as long as it is not known. */
  owner: Uint8Array | undefined;
  /** Backoff of a registration that has opened a session of another owner. */
  backoff: Backoff | undefined;
  cancelRetry: (() => void) | undefined;
  /** Session that a close has ended, once it is applied; undefined if it was not open. */
  closed: ClosedSession | undefined;
  /** Session that a registration has opened, once it is applied. */
  session: number | undefined;
  /** Resolves the caller's promise. */
  readonly resolve: (session: number) => void;
  /** Rejects the caller's promise. */
  readonly reject: (reason: unknown) => void;
  readonly #ignore: () => void;

  /** Creates a request whose caller waits until `signal` aborts. */
  constructor(
    record: Uint8Array,
    resolve: (session: number) => void,
    reject: (reason: unknown) => void,
    signal: AbortSignal | undefined,
  ) {
    this.record = record;
    this.resolve = resolve;
    this.reject = reject;
    this.#ignore = onAbort(signal, (reason) => this.abandon(reason));
  }

  /** True while the caller waits. */
  get isAwaited(): boolean {
    return this.state === "sending" || this.state === "appended";
  }

  /** Rejects the caller's promise, while the record may still be applied. */
  abandon(reason: unknown): void {
    if (!this.isAwaited) return;
    this.#leave("abandoned");
    this.reject(reason);
  }

  /** Ends the request. */
  end(): void {
    this.#leave("ended");
  }

  #leave(state: ControlState): void {
    this.state = state;
    this.cancelRetry?.();
    this.#ignore();
  }
}
