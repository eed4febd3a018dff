/**
 * The errors of driving a machine.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { SampanError } from "../statemachine/errors.ts";
import type { Result } from "../statemachine/types.ts";

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

/**
 * A proposal was refused, and sending it again does not help. Without a `result`, it is not in the log and
 * never will be: the server, or the application that guards it, refused it, or
 * the machine threw when it was tried before it was ordered (H14, H17). With one,
 * it was applied, and the machine says that its result is a refusal (R15).
 */
export class ErrProposalRefused extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrProposalRefused";
  /** Why, for a person to read. */
  readonly reason: string;
  /** Result of the command, if the machine itself refused it. */
  readonly result: Result | undefined;
  /** An error for a proposal that was refused for `reason`; `cause` is what the machine threw, if it threw. */
  constructor(
    reason: string,
    options: ErrorOptions & { readonly result?: Result | undefined } = {},
  ) {
    super(`Proposal was refused: ${reason}`, options);
    this.reason = reason;
    this.result = options.result;
  }
}

/** `update()` returned what the contract does not allow (C1, T3): fatal to the replica. */
export class ErrInvalidResult extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrInvalidResult";
}

/** The machine itself failed, with `cause`: critical, and the end of its replica (R5, R8). */
export class MachineFailure extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "MachineFailure";
  /** An error for what a machine threw; `undefined` and `null`, which look like no error, become one. */
  constructor(message: string, { cause }: { readonly cause: unknown }) {
    super(message, {
      cause: cause ?? new TypeError(`Machine threw ${cause}, not an error`),
    });
  }
}

/** Refused at once, and nothing was done: too much waits already, or the replica is being brought up anew. Try again later. */
export class ErrSystemBusy extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrSystemBusy";
}
