/**
 * Client sessions: each proposal of a session is applied exactly once, however
 * often it is sent.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { onAbort } from "../async.ts";
import { ErrInvalidSession, type ErrProposalRefused } from "../rsm/errors.ts";
import type { SeriesOutcome } from "../rsm/state_machine.ts";
import type { Result } from "../statemachine/types.ts";
import { SequenceWindow } from "./sequence_window.ts";

/** Command on its way to the log, with a caller that waits for its result. */
export class Proposal {
  /** Size of the command, in bytes. */
  readonly size: number;
  /** Buffer that contains the command, for sending it again. */
  bytes: Uint8Array | undefined;
  /** Offset of the command in that buffer. */
  start = 0;
  /** Refusal of the command by a rehearsal, if it was refused before it was sent. */
  refused: ErrProposalRefused | undefined;
  /** True if it may have been applied without a report to this process. */
  unseen = false;
  readonly #number: number;
  #resolve: ((result: Result, number: number) => void) | undefined;
  #reject: ((reason: unknown, number: number) => void) | undefined;
  readonly #ignore: (() => void) | undefined;

  /** Creates a proposal whose caller waits until `signal` aborts; `number` is passed back to it with the outcome. */
  constructor(
    size: number,
    resolve: (result: Result, number: number) => void,
    reject: (reason: unknown, number: number) => void,
    signal: AbortSignal | undefined,
    number = 0,
  ) {
    this.#number = number;
    this.size = size;
    this.#resolve = resolve;
    this.#reject = reject;
    if (signal !== undefined) {
      this.#ignore = onAbort(signal, (reason) => this.reject(reason));
    }
  }

  /** True while a caller waits. */
  get wanted(): boolean {
    return this.#resolve !== undefined;
  }

  /** Resolves the caller's promise; the caller owns the result. */
  resolve(result: Result): void {
    this.#resolve?.(result, this.#number);
    this.#end();
  }

  /** Rejects the caller's promise. */
  reject(reason: unknown): void {
    this.#reject?.(reason, this.#number);
    this.#end();
  }

  #end(): void {
    this.#resolve = this.#reject = undefined;
    this.#ignore?.();
  }
}

/** Replica that sends in a session. */
export interface SessionSender {
  /** Stops sending in a session, because another replica continues it. */
  release(state: SessionState): void;
}

/** Receiver of the outcomes of a session in which another process sends; the result is the receiver's. */
export type SeriesObserver = (
  series: number,
  outcome: SeriesOutcome,
) => void;

/**
 * Phase of a session on its client: `unclaimed` until the holder has claimed a
 * session of an earlier process, with nothing sent; `sending`; `stalled` until
 * its proposals are sent again.
 */
export type SessionPhase = "unclaimed" | "sending" | "stalled";

/** Client side of a session: its proposals, and how far they were sent. */
export class SessionState {
  /** Index of the session's register record. */
  readonly index: number;
  /** Client id the session was opened with; another log may have another session at that index. */
  readonly clientID: bigint;
  /** Proposals without a result, by series. */
  readonly pending: SequenceWindow<Proposal> = new SequenceWindow();
  /** Series that was appended last; it may be appended again. */
  sent = 0;
  /** Last series whose append the log has acknowledged; the log may have lost it since. */
  appended = 0;
  /**
   * Series up to which the holder never asks for a result again. Set by a holder
   * that stores its commands itself; undefined for others, which acknowledge each
   * result by receiving it.
   */
  acknowledged: number | undefined;
  /** Id under which this process has claimed the session, if it has (H14). */
  holder: bigint | undefined;
  phase: SessionPhase = "sending";
  /** Replica that sends in the session. */
  sender: SessionSender | undefined;
  /** Called with each outcome of a session in which another process sends. */
  observer: SeriesObserver | undefined;
  /** Called when the server refuses the session's proposals as those of another principal. */
  refused: ((error: ErrProposalRefused) => void) | undefined;
  /** Called once nothing is pending. */
  drained: (() => void) | undefined;
  /** Set once the session can no longer be used. */
  invalid: ErrInvalidSession | undefined;

  /** Creates the client side of a session that is open. */
  constructor(index: number, clientID: bigint) {
    this.index = index;
    this.clientID = clientID;
  }

  /** Series up to which results are acknowledged. */
  get responded(): number {
    const answered = this.pending.first - 1;
    return Math.min(this.acknowledged ?? answered, answered);
  }

  /** Rejects all proposals, pending and later; returns the pending ones. */
  invalidate(
    error: ErrInvalidSession,
    applied: (proposal: Proposal) => boolean | undefined,
  ): Proposal[] {
    this.invalid = error;
    const { reason, message } = error;
    const rejected = this.pending.list();
    while (this.pending.take(this.pending.first) !== undefined) {
      // Rejected below.
    }
    for (const proposal of rejected) {
      proposal.reject(
        new ErrInvalidSession(reason, message, applied(proposal)),
      );
    }
    return rejected;
  }
}

/**
 * Client session of a cluster. Its proposals are applied exactly once and in
 * order, however often they have to be sent (H3). Open one with
 * `Replica.openSession()`; it may be used through any replica of its cluster,
 * one at a time.
 */
export class Session {
  /** Cluster of the session; 0 for {@linkcode Session.noOp}. */
  readonly clusterID: bigint;
  /** Index of the session's register record, by which the cluster identifies it; 0 for {@linkcode Session.noOp}. */
  readonly id: number;
  readonly #state: SessionState | undefined;

  private constructor(clusterID: bigint, state: SessionState | undefined) {
    this.clusterID = clusterID;
    this.id = state?.index ?? 0;
    this.#state = state;
  }

  /** Creates a session; only for `makeSession()`. A static block instead would prevent tree shaking of the class. */
  private static make(clusterID: bigint, state: SessionState): Session {
    return new Session(clusterID, state);
  }

  /** Client side of a session; only for `stateOf()`. */
  private static stateOf(session: Session): SessionState | undefined {
    return session.#state;
  }

  /**
   * Stands for no session, the default of `propose()`: a proposal is sent once and
   * never again. A caller whose result is lost gets
   * `ErrUnknownOutcome` (H5).
   */
  static readonly noOp: Session = /* @__PURE__ */ new Session(0n, undefined);
}

/** Creates a session; internal to the host. */
export function makeSession(clusterID: bigint, state: SessionState): Session {
  return Session["make"](clusterID, state);
}

/** Client side of a session; internal to the host. */
export function stateOf(session: Session): SessionState | undefined {
  return Session["stateOf"](session);
}
