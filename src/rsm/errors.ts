/**
 * Errors of proposals, sessions and the machine itself.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { SampanError } from "../statemachine/errors.ts";
import type { Result } from "../statemachine/types.ts";

/** Reason for which a session was refused. */
export type InvalidSessionReason =
  /** Never registered, closed, or evicted for a more recently used session. */
  | "unknown"
  /** Registered in another cluster. */
  | "foreign"
  /** Used by another process too: another command was applied in the same series (H14). */
  | "conflict"
  /** Closed by its holder. */
  | "closed";

/** Thrown when the cluster does not know the session, or another process holds it (H4, H14). */
export class ErrInvalidSession extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrInvalidSession";
  /** Reason for which the session was refused. */
  readonly reason: InvalidSessionReason;
  /** True if the proposal was applied, undefined if that is unknown. */
  readonly applied: boolean | undefined;
  /** Creates an error for a proposal in a session that was refused. */
  constructor(
    reason: InvalidSessionReason,
    message: string,
    applied?: boolean | undefined,
  ) {
    super(message);
    this.reason = reason;
    this.applied = applied;
  }
}

/** Thrown when the series of a proposal was skipped: the proposal was not applied and never will be (H14). */
export class ErrProposalSkipped extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrProposalSkipped";
  /** Creates an error for a proposal that was skipped. */
  constructor(message?: string, options?: ErrorOptions) {
    super(message ?? "Proposal was skipped and never applied", options);
  }
}

/**
 * Thrown when a proposal was rejected; a retry is rejected too. Without a
 * `result` the proposal is not in the log and never will be: the server or one of
 * its hooks rejected it, or the machine threw when the server rehearsed it (H14,
 * H17). With a `result` it was applied, and the machine declared that result a
 * refusal (R15).
 */
export class ErrProposalRefused extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrProposalRefused";
  /** Reason in words for people. */
  readonly reason: string;
  /** Result of the command, if the machine itself refused it. */
  readonly result: Result | undefined;
  /** Creates an error for a proposal rejected for `reason`; `cause` is the machine's error, if it threw. */
  constructor(
    reason: string,
    options: ErrorOptions & { readonly result?: Result | undefined } = {},
  ) {
    super(`Proposal was refused: ${reason}`, options);
    this.reason = reason;
    this.result = options.result;
  }
}

/** Error of a proposal whose series was skipped, by the result of the skip: its data is the reason, if it has one. */
export function skippedError(result: Result | undefined): Error {
  const reason = result?.data;
  return reason === undefined
    ? new ErrProposalSkipped()
    : new ErrProposalRefused(new TextDecoder().decode(reason));
}

/** Thrown when `update()` returned a value that the contract does not allow; fatal to the replica (C1, T3). */
export class ErrInvalidResult extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrInvalidResult";
}

/** Wraps an error that the machine itself threw; fatal to the replica (R5, R8). */
export class MachineFailure extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "MachineFailure";
  /** Creates an error around a machine's error; `undefined` and `null` become a `TypeError`. */
  constructor(message: string, { cause }: { readonly cause: unknown }) {
    super(message, {
      cause: cause ?? new TypeError(`Machine threw ${cause}, not an error`),
    });
  }
}

/** Thrown at once, with nothing done, when a queue is full or the replica is recovering. Try again later. */
export class ErrSystemBusy extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrSystemBusy";
}

/** Error of a call during the recovery of a replica. */
export function recoveringError(clusterID: bigint): ErrSystemBusy {
  return new ErrSystemBusy(
    `Replica of cluster ${clusterID} is recovering; try again later`,
  );
}
