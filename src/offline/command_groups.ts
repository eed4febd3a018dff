/**
 * Groups of submissions, such as an edit and the undoing of it: one is sent once those
 * before it are decided, and refused if one of them was refused.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { OUTBOX_GROUPS_MAX } from "../limits.ts";
import { ErrProposalRefused } from "../rsm/errors.ts";
import type { CommandGroup } from "../statemachine/machines.ts";
import type { QueuedSubmission } from "./submission.ts";

/** Groups of the submissions of one replica. */
export class CommandGroups {
  readonly #groupOf: (cmd: Uint8Array) => CommandGroup | undefined;
  /** Last submission of each group that was sent or refused. */
  readonly #last = new Map<string, QueuedSubmission>();
  /** Queued submissions in memory of each group. */
  readonly #queued = new Map<string, QueuedSubmission[]>();

  /** Creates groups, of which a function finds that of a command. */
  constructor(groupOf: (cmd: Uint8Array) => CommandGroup | undefined) {
    this.#groupOf = groupOf;
  }

  /** Notes that a submission is queued. */
  queued(submission: QueuedSubmission): void {
    const group = this.#groupOf(submission.bytes);
    if (group === undefined) return;
    const before = this.#queued.get(group.key);
    if (before === undefined) this.#queued.set(group.key, [submission]);
    else before.push(submission);
  }

  /** Notes that a submission is not queued any more. */
  left(submission: QueuedSubmission): void {
    const key = this.#groupOf(submission.bytes)?.key;
    const others = key === undefined ? undefined : this.#queued.get(key);
    const at = others?.indexOf(submission) ?? -1;
    if (at < 0) return;
    if (others!.length === 1) this.#queued.delete(key!);
    else others!.splice(at, 1);
  }

  /** Notes that a submission is sent, or was refused. */
  note(submission: QueuedSubmission): void {
    const group = this.#groupOf(submission.bytes);
    if (group === undefined) return;
    const last = this.#last;
    last.delete(group.key);
    last.set(group.key, submission);
    for (const [key, { state }] of last) {
      const isOpen = state === "queued" || state === "refused";
      if (isOpen && last.size <= OUTBOX_GROUPS_MAX) break;
      last.delete(key);
    }
  }

  /** Returns the error with which a submission is refused, true if it waits for one before it, or undefined if it can be sent. */
  obstacle(
    { id, bytes }: QueuedSubmission,
  ): ErrProposalRefused | true | undefined {
    const group = this.#groupOf(bytes);
    const before = group && this.#last.get(group.key);
    if (before === undefined || before.id >= id) return undefined;
    if (before.state === "queued") return true;
    return before.state === "refused" ? refusalOf(group!) : undefined;
  }

  /** Returns the next submission of the group of a refused one, and the error with which it is refused. */
  next(
    { id, bytes }: QueuedSubmission,
  ): [QueuedSubmission, ErrProposalRefused] | undefined {
    const group = this.#groupOf(bytes);
    const next = group && this.#queued.get(group.key)
      ?.find((one) => one.id > id);
    return next && [next, refusalOf(group!)];
  }
}

function refusalOf(
  { refusal: { reason, result } }: CommandGroup,
): ErrProposalRefused {
  return new ErrProposalRefused(reason, { result });
}
