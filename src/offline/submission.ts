/**
 * Submission of one replica: a command in the outbox, with its outcome.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { copyOf } from "../bytes.ts";
import type { Submission, SubmissionState } from "../nodehost/outbox.ts";
import type { ErrProposalRefused } from "../rsm/errors.ts";
import type { Result } from "../statemachine/types.ts";
import type { PendingCommand } from "./optimistic_view.ts";

/** Queue of a submission. */
export interface SubmissionOwner {
  /** Removes a settled submission from the outbox. */
  dismiss(submission: QueuedSubmission): Promise<void>;
  /** Called when the result of a submission is asked for first: it must settle, even if the application has only the promise. */
  awaited(submission: QueuedSubmission): void;
  /** Settles a submission whose command is decided, if its queue has not: another object may stand for it. */
  refresh(submission: QueuedSubmission): void;
}

type Outcome = { readonly result: Result } | { readonly reason: unknown };

/** Submission with what its queue needs: the shared bytes, and the settling of its outcome. */
export class QueuedSubmission implements Submission, PendingCommand {
  /** Number of the submission in its outbox; it may change until the submission is durable. */
  id: number;
  /** Bytes of the command, shared with outbox and proposals: never changed, but replaced by those of the command that another submission was merged into. */
  bytes: Uint8Array;
  readonly #owner: SubmissionOwner;
  #state: SubmissionState = "queued";
  #reason: string | undefined;
  #refused: Result | undefined;
  #promise: Promise<Result> | undefined;
  #resolve: ((result: Result) => void) | undefined;
  #reject: ((reason: unknown) => void) | undefined;
  /** Outcome, once the result is settled. */
  #outcome: Outcome | undefined;

  /** Creates a queued submission. */
  constructor(
    id: number,
    bytes: Uint8Array,
    owner: SubmissionOwner,
  ) {
    this.id = id;
    this.bytes = bytes;
    this.#owner = owner;
  }

  /** Copy of the command. */
  get cmd(): Uint8Array {
    return this.bytes.slice();
  }

  /** Result of the command. The promise is made when it is asked for: most applications ignore it. */
  get result(): Promise<Result> {
    if (this.#promise !== undefined) return this.#promise;
    const promise = new Promise<Result>((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.#promise = promise;
    const outcome = this.#outcome;
    if (outcome !== undefined) this.#settle(outcome);
    else if (this.#state === "queued") this.#owner.awaited(this);
    return promise;
  }

  #settle(outcome: Outcome): void {
    this.#outcome = outcome;
    if (this.#promise === undefined) return;
    if ("result" in outcome) this.#resolve!(outcome.result);
    else {
      // An application may ignore a rejection.
      this.#promise.catch(() => {});
      this.#reject!(outcome.reason);
    }
  }

  /** Fulfills `result`, unless it is settled. */
  resolve(result: Result): void {
    if (this.#outcome === undefined) this.#settle({ result });
  }

  /** Rejects `result`, unless it is settled. */
  reject(reason: unknown): void {
    if (this.#outcome === undefined) this.#settle({ reason });
  }

  /** State of the submission. */
  get state(): SubmissionState {
    if (this.#state === "queued") this.#owner.refresh(this);
    return this.#state;
  }

  /** Reason for the state, for a submission that was refused or is of unknown outcome. */
  get reason(): string | undefined {
    if (this.#state === "queued") this.#owner.refresh(this);
    return this.#reason;
  }

  /** Result of the command, if the state machine itself refused it. */
  get refused(): Result | undefined {
    return this.#refused;
  }

  /** Changes the state from `queued`, with a reason for those that stay in the outbox. */
  settle(
    state: Exclude<SubmissionState, "queued">,
    reason?: string,
    refused?: Result,
  ): void {
    this.#state = state;
    this.#reason = reason;
    this.#refused = refused;
  }

  /** Changes the state back to `queued`, after a refusal that nothing durable has. */
  requeue(): void {
    this.#state = "queued";
    this.#reason = this.#refused = undefined;
  }

  /** Removes the submission from the outbox, once it is settled. */
  dismiss(): Promise<void> {
    return this.#owner.dismiss(this);
  }
}

/** Copies the result in a refusal, which belongs to the caller who gets the error. */
export function refusedResult(
  { result }: ErrProposalRefused,
): Result | undefined {
  if (result?.data === undefined) return result && { value: result.value };
  return { value: result.value, data: copyOf(result.data) };
}
