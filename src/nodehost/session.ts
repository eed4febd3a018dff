/**
 * Client sessions, which make a proposal count once however often it is sent.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Result } from "../statemachine/types.ts";
import { ErrInvalidSession, type ErrProposalRefused } from "../rsm/errors.ts";
import type { Proposals } from "./proposals.ts";
import { onAbort } from "../async.ts";

/** A proposal on its way, and the one who waits for it. */
export class Proposal {
  /** Size of its command, in bytes: what it counts against the queue. */
  readonly size: number;
  /** Where its command is, for sending it again. */
  bytes: Uint8Array | undefined;
  /** Where its command starts. */
  start = 0;
  /** Refusal of the command, where it was tried before it was sent. */
  refused: ErrProposalRefused | undefined;
  /** Whether it may have been applied where nobody here could see it. */
  unseen = false;
  #resolve: ((result: Result) => void) | undefined;
  #reject: ((reason: unknown) => void) | undefined;
  readonly #ignore: (() => void) | undefined;

  /** A proposal whose caller waits, until `signal` aborts. */
  constructor(
    size: number,
    resolve: (result: Result) => void,
    reject: (reason: unknown) => void,
    signal: AbortSignal | undefined,
  ) {
    this.size = size;
    this.#resolve = resolve;
    this.#reject = reject;
    if (signal !== undefined) {
      this.#ignore = onAbort(signal, (reason) => this.reject(reason));
    }
  }

  /** Whether somebody waits for it still. */
  get wanted(): boolean {
    return this.#resolve !== undefined;
  }

  /** Answers the caller, who may keep what is given. */
  resolve(result: Result): void {
    this.#resolve?.(result);
    this.#end();
  }

  /** Fails the caller. */
  reject(reason: unknown): void {
    this.#reject?.(reason);
    this.#end();
  }

  #end(): void {
    this.#resolve = this.#reject = undefined;
    this.#ignore?.();
  }
}

/** What is numbered without gaps and leaves in about the order it came: all from `first` on that is not done. */
export class SequenceWindow<T> {
  #items: (T | undefined)[] = [];
  #head = 0;
  /** The number of the first that is not done. */
  first = 1;

  /** The number the next one gets. */
  get next(): number {
    return this.first + this.#items.length - this.#head;
  }

  /** Adds one and returns its number. */
  push(item: T): number {
    this.#items.push(item);
    return this.next - 1;
  }

  /** The one of that number, unless it is done. */
  get(number: number): T | undefined {
    return number < this.first
      ? undefined
      : this.#items[this.#head + number - this.first];
  }

  /** Takes out the one of that number, unless it is done. */
  take(number: number): T | undefined {
    const item = this.get(number);
    if (item === undefined) return undefined;
    const items = this.#items;
    items[this.#head + number - this.first] = undefined;
    if (number === this.first) {
      while (this.#head < items.length && items[this.#head] === undefined) {
        this.#head++;
        this.first++;
      }
      if (this.#head === items.length) items.length = this.#head = 0;
      else if (this.#head >= 1024 && this.#head * 2 > items.length) {
        items.splice(0, this.#head);
        this.#head = 0;
      }
    }
    return item;
  }

  /** Those that are not done, in order. */
  list(): T[] {
    return this.#items.filter((item) => item !== undefined);
  }
}

/** What a session's holder keeps of it. */
export class SessionState {
  /** The index of its register record. */
  readonly index: number;
  /** The series that are not answered. */
  readonly pending: SequenceWindow<Proposal> = new SequenceWindow();
  /** The series that was handed to the log last; one may be handed over again. */
  sent = 0;
  /** Last series that the log has acknowledged, where it answers later; the log may have lost it since. */
  taken = 0;
  /**
   * Set by a holder who keeps his commands himself: the series up to which he
   * will never ask for a result again. Without it, what is answered is done.
   */
  acknowledged: number | undefined;
  /** As whom its holder has claimed it for this life, if he has (H14). */
  holder: bigint | undefined;
  /** Whether nothing is sent for it before its holder has claimed it. */
  held = false;
  /** Whether series wait to be sent again. */
  stalled = false;
  /** The replica that sends for it. */
  home: Proposals | undefined;
  /** Told why what was sent for it is refused, if it is as somebody else's. */
  refused: ((error: ErrProposalRefused) => void) | undefined;
  /** Called when nothing is pending any more. */
  drained: (() => void) | undefined;
  /** Why it can no longer be used. */
  invalid: ErrInvalidSession | undefined;

  /** What it was opened with: another log may have another session at that index. */
  readonly clientID: bigint;

  /** The state of a new session. */
  constructor(index: number, clientID: bigint) {
    this.index = index;
    this.clientID = clientID;
  }

  /** The series up to which nobody will ask for a result again. */
  get responded(): number {
    const answered = this.pending.first - 1;
    return Math.min(this.acknowledged ?? answered, answered);
  }

  /** Refuses all that waits and all that comes. */
  invalidate(
    error: ErrInvalidSession,
    applied: (proposal: Proposal) => boolean | undefined,
  ): Proposal[] {
    this.invalid = error;
    const { reason, message } = error;
    const refused = this.pending.list();
    while (this.pending.take(this.pending.first) !== undefined) {
      // Answered below.
    }
    for (const proposal of refused) {
      proposal.reject(
        new ErrInvalidSession(reason, message, applied(proposal)),
      );
    }
    return refused;
  }
}

/**
 * A client session of a cluster. What is proposed through it is applied exactly
 * once and in order, however often it has to be sent (H3). Open one with
 * `Replica.openSession()`; it may be used through any replica of its cluster,
 * one at a time.
 */
export class Session {
  /** The cluster it is a session of; 0 for {@linkcode Session.noOp}. */
  readonly clusterID: bigint;
  /** The index of its register record, by which the cluster knows it; 0 for {@linkcode Session.noOp}. */
  readonly id: number;
  readonly #state: SessionState | undefined;

  private constructor(clusterID: bigint, state: SessionState | undefined) {
    this.clusterID = clusterID;
    this.id = state?.index ?? 0;
    this.#state = state;
  }

  /** For `makeSession()` alone. In a static block instead, it would keep the class in every page. */
  private static make(clusterID: bigint, state: SessionState): Session {
    return new Session(clusterID, state);
  }

  /** For `stateOf()` alone. */
  private static stateOf(session: Session): SessionState | undefined {
    return session.#state;
  }

  /**
   * The session for proposals outside of any session, what `propose()` uses when
   * it is given none: sent once and never again. If the answer is lost, the
   * caller gets `ErrUnknownOutcome` (H5).
   */
  static readonly noOp: Session = /* @__PURE__ */ new Session(0n, undefined);
}

/** Makes a session: for the host alone. */
export function makeSession(clusterID: bigint, state: SessionState): Session {
  return Session["make"](clusterID, state);
}

/** The state of a session: for the host alone. */
export function stateOf(session: Session): SessionState | undefined {
  return Session["stateOf"](session);
}
