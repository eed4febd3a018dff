/**
 * The errors of driving a machine.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { SampanError } from "../statemachine/errors.ts";

/** Why a session was refused. */
export type InvalidSessionReason =
  /** It was never opened, was closed, or was evicted for one used more recently. */
  | "unknown"
  /** It belongs to another cluster. */
  | "foreign"
  /** Its series holds another command at this place: somebody else uses it too (H14). */
  | "conflict"
  /** Its holder has closed it. */
  | "closed";

/** The session is not, or no longer, one the cluster knows, or is not this holder's to use (H4, H14). */
export class ErrInvalidSession extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrInvalidSession";
  /** Why the session was refused. */
  readonly reason: InvalidSessionReason;
  /** Whether the proposal was applied, or undefined where that cannot be known. */
  readonly applied: boolean | undefined;
  /** An error for a proposal of a session that was refused. */
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

/** The place of a proposal in its series was skipped: it was not applied and never will be (H14). */
export class ErrProposalSkipped extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrProposalSkipped";
  /** An error for a proposal that was skipped. */
  constructor(message?: string, options?: ErrorOptions) {
    super(message ?? "Proposal was skipped and never applied", options);
  }
}

/** A proposal was refused for good, by whoever guards the log: it was not applied and never will be (H14). */
export class ErrProposalRefused extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrProposalRefused";
  /** Why, for a person to read. */
  readonly reason: string;
  /** An error for a proposal that was refused for `reason`. */
  constructor(reason: string) {
    super(`Proposal was refused: ${reason}`);
    this.reason = reason;
  }
}

/** `update()` returned what the contract does not allow (C1, T3): fatal to the replica. */
export class ErrInvalidResult extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrInvalidResult";
}

/** Refused at once, and nothing was done: too much waits already, or the replica is being brought up anew. Try again later. */
export class ErrSystemBusy extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrSystemBusy";
}
