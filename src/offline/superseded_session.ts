/**
 * Outcomes of commands that may have been sent in another history of the log,
 * before the device has started over on this one.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ErrUnknownOutcome } from "../log/errors.ts";
import type { OutboxParts } from "../nodehost/outbox.ts";
import { ErrProposalRefused, skippedError } from "../rsm/errors.ts";
import { isOtherCommand } from "../rsm/session_table.ts";
import type { SeriesOutcome } from "../rsm/state_machine.ts";
import type { Result } from "../statemachine/types.ts";
import type { OutboxSession } from "./outbox_store.ts";
import type { QueuedSubmission } from "./submission.ts";
import type { SubmissionQueue } from "./submission_queue.ts";

/** Receiver of the outcomes. */
export interface OutcomeListener {
  /** Called for a command that was applied, with its result. */
  applied(number: number, result: Result): void;
  /** Called for a command that was refused, or whose result is lost. */
  failed(number: number, error: Error): void;
}

/** Dependencies of {@linkcode settleSuperseded}. */
export interface SupersededParts
  extends Pick<OutboxParts, "machine" | "proposals" | "reads"> {
  readonly queue: SubmissionQueue;
  readonly outcomes: OutcomeListener;
  readonly stopped: AbortSignal;
}

function resultLost(number: number): ErrUnknownOutcome {
  return new ErrUnknownOutcome(
    `Submission ${number} was applied, its result is lost: read the state, and do not submit it again`,
    { applied: true },
  );
}

/**
 * Finds out which of the commands that may have been sent in another history
 * this history has: all outcomes are known if it has the session, none if not.
 * Commands that it does not have were not applied, and stay queued.
 */
export async function settleSuperseded(
  superseded: OutboxSession,
  parts: SupersededParts,
): Promise<void> {
  const { index, clientID, holders, base } = superseded;
  const { machine, proposals, reads, queue, stopped } = parts;
  const upTo = queue.hiddenUpTo;
  await reads.upToDate(stopped);
  const known = machine.sessionInfo(index);
  const isOwn = known?.clientID === clientID;
  const isHeld = isOwn && holders.includes(known.holder);
  if (isHeld) {
    // Before the session is closed: if this process ends then, they are known.
    for (const submission of queue.queuedUpTo(upTo)) {
      const outcome = machine.outcomeOf(index, submission.id - base);
      if (outcome !== undefined) settle(submission, outcome, parts);
    }
  }
  // Commands still on their way must not be applied after this, also those of a
  // copy of the outbox, which may have claimed the session here.
  const closed = isOwn ? await proposals.retire(index) : undefined;
  const next = closed?.next ?? 0;
  if (base + next - 1 > queue.lastInMemory) await queue.loadAll();
  for (const submission of queue.queuedUpTo(Infinity)) {
    const { id } = submission;
    const outcome = closed?.outcomeOf(id - base);
    if (id > upTo) {
      // Only a copy can have sent it.
      if (outcome !== undefined) queue.settleUnknown(submission);
    } else if (closed === undefined || !holders.includes(closed.holder)) {
      queue.settleUnknown(submission);
    } else if (outcome !== undefined) settle(submission, outcome, parts);
  }
}

/** Settles a submission by the outcome of its series. */
function settle(
  submission: QueuedSubmission,
  { outcome, result, digest }: SeriesOutcome,
  { machine, queue, outcomes }: SupersededParts,
): void {
  const { id, bytes } = submission;
  // Another holder has used the series.
  if (isOtherCommand(digest, bytes)) return queue.settleUnknown(submission);
  if (outcome === "applied") {
    // The machine itself may have refused it (R15).
    const reason = machine.refusalOf(result!);
    return reason === undefined
      ? outcomes.applied(id, result!)
      : outcomes.failed(
        id,
        new ErrProposalRefused(reason, { result: result! }),
      );
  }
  outcomes.failed(
    id,
    outcome === "skipped" ? skippedError(result) : resultLost(id),
  );
}
