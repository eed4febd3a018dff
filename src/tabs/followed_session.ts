/**
 * Session of an outbox that the leading tab sends through, as a follower sees it:
 * its replica applies the same entries, so that the sessions in its own state show
 * which commands are decided, and with which result.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { copyOf } from "../bytes.ts";
import { ErrUnknownOutcome } from "../log/errors.ts";
import type { CurrentMachine } from "../nodehost/current_machine.ts";
import type { Proposals } from "../nodehost/proposals.ts";
import type { SubmissionQueue } from "../offline/submission_queue.ts";
import type { QueuedSubmission } from "../offline/submission.ts";
import {
  ErrProposalRefused,
  type ErrProposalSkipped,
  skippedError,
} from "../rsm/errors.ts";
import { isOtherCommand } from "../rsm/session_table.ts";
import type { SeriesOutcome } from "../rsm/state_machine.ts";
import type { Result } from "../statemachine/types.ts";
import type { SharedSession } from "./messages.ts";

/** Session of one outbox that another tab sends through. */
export class FollowedSession {
  readonly #machine: CurrentMachine;
  readonly #queue: SubmissionQueue;
  readonly #proposals: Proposals;
  #session: SharedSession | undefined;
  /** Outcomes of commands that are not settled yet, by number: the state may not have them any more once a batch is applied. */
  readonly #outcomes = new Map<number, SeriesOutcome>();
  /** Number of the last command that was seen to be decided: the session may be closed in the batch that decides it. */
  #seen = 0;
  #stopObserving: (() => void) | undefined;
  /** Number of the last command that is settled here: those after it, by the session of this tab. */
  upTo: number = Infinity;

  /** Creates it without a session. */
  constructor(
    machine: CurrentMachine,
    proposals: Proposals,
    queue: SubmissionQueue,
  ) {
    this.#machine = machine;
    this.#proposals = proposals;
    this.#queue = queue;
  }

  /** Follows another session of the outbox, or none. */
  follow(session: SharedSession | undefined): void {
    this.leave();
    this.#session = session;
    this.#seen = 0;
    this.observe();
    this.settle();
  }

  /** Notes the outcomes of the session as they are applied, as far as they are settled here. */
  observe(): void {
    if (this.#session === undefined) return;
    const { index, clientID, base } = this.#session;
    this.#stopObserving = this.#proposals.observe(
      index,
      clientID,
      (series, known) => {
        const { outcome } = known;
        const number = base + series;
        // Others are of records that were sent again.
        const isKnown = outcome === "applied" || outcome === "skipped";
        if (!isKnown || number > this.upTo) return;
        this.#outcomes.set(number, known);
        this.#seen = Math.max(this.#seen, number);
      },
    );
  }

  /** Leaves the session to this tab, which sends in it: what the state has decided is settled all the same. */
  leave(): void {
    this.#stopObserving?.();
    this.#stopObserving = undefined;
    this.#outcomes.clear();
  }

  #outcomeOf(number: number): SeriesOutcome | undefined {
    const { index, base } = this.#session!;
    return this.#outcomes.get(number) ??
      this.#machine.outcomeOf(index, number - base);
  }

  /** Number up to which all commands are decided in the state of this tab. */
  get decided(): number {
    const session = this.#session;
    if (session === undefined) return 0;
    const { index, clientID, base } = session;
    const info = this.#machine.sessionInfo(index);
    if (info === undefined) return this.#seen;
    return info.clientID === clientID ? base + info.next - 1 : 0;
  }

  /** Settles the submissions whose commands the state has decided. */
  settle(): void {
    const queue = this.#queue;
    const { decided } = this;
    while (queue.last < Math.min(decided, this.upTo)) {
      // One of this tab, which does not know yet that it was stored, or another tab's.
      const found = this.#outcomeOf(queue.last + 1);
      const reason = refusalOf(found)?.reason;
      const digest = found?.digest;
      queue.learn(
        queue.last + 1,
        // A series that was skipped may be of any command.
        (bytes) =>
          reason === undefined && digest !== undefined &&
          !isOtherCommand(digest, bytes),
        reason,
      );
    }
    const upTo = Math.min(decided, queue.last, this.upTo);
    while (queue.undecided <= upTo) {
      const number = queue.undecided;
      const submission = queue.decidedAt(number);
      if (submission === undefined) queue.decide(number);
      // The outbox is a copy, or was put back by a power cut: its leader finds that out.
      else if (this.isOther(number, submission.bytes)) break;
      else this.#settleOne(number, submission);
    }
    for (const number of this.#outcomes.keys()) {
      if (number <= upTo) this.#outcomes.delete(number);
    }
  }

  /** True if the state has another command in the place of one with these bytes. */
  isOther(number: number, bytes: Uint8Array): boolean {
    return this.#session !== undefined &&
      isOtherCommand(this.#outcomeOf(number)?.digest, bytes);
  }

  #settleOne(number: number, submission: QueuedSubmission): void {
    const queue = this.#queue;
    const found = this.#outcomeOf(number);
    const refusal = refusalOf(found);
    if (refusal !== undefined) return this.#refuse(submission, refusal);
    const { result } = found ?? {};
    if (result === undefined) {
      return queue.applied(number, (one) =>
        one.reject(
          new ErrUnknownOutcome(
            `Submission ${number} was applied, its result is lost`,
            { applied: true },
          ),
        ));
    }
    const reason = this.#machine.refusalOf(result);
    if (reason !== undefined) {
      return this.#refuse(
        submission,
        new ErrProposalRefused(reason, { result: owned(result) }),
      );
    }
    queue.applied(number, (one) => one.resolve(owned(result)));
  }

  #refuse(submission: QueuedSubmission, error: ErrProposalRefused): void {
    this.#queue.refuse(submission, error);
    this.#queue.decide(submission.id);
  }
}

/** Refusal of a command whose series was skipped; undefined for one that was applied. */
function refusalOf(
  found: SeriesOutcome | undefined,
): ErrProposalRefused | undefined {
  if (found?.outcome !== "skipped") return undefined;
  const error = skippedError(found.result);
  return error instanceof ErrProposalRefused
    ? error
    : new ErrProposalRefused((error as ErrProposalSkipped).message);
}

/** Copy of a result that belongs to the state. */
function owned({ value, data }: Result): Result {
  return data === undefined ? { value } : { value, data: copyOf(data) };
}
