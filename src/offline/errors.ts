/**
 * Errors of an outbox that cannot send.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { SampanError } from "../statemachine/errors.ts";

/**
 * Thrown when the outbox has commands of a principal other than the one who is
 * signed in. Nothing is sent and no submission is accepted: sign in as that
 * principal again, or remove the commands (U35).
 */
export class ErrOtherPrincipal extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrOtherPrincipal";
  /** Number of commands that wait for the other principal. */
  readonly commands: number;
  /** Principal they belong to, if known by name. */
  readonly principal: string | undefined;
  /** Creates an error for commands of another principal. */
  constructor(
    commands: number,
    principal: string | undefined,
    options?: ErrorOptions,
  ) {
    super(
      `Outbox has ${commands} commands of ${
        principal === undefined
          ? "another principal"
          : JSON.stringify(principal)
      }: sign in as that principal again, or remove them with removeData() and discardPending`,
      options,
    );
    this.commands = commands;
    this.principal = principal;
  }
}

/**
 * Reported when another process uses the session of this outbox: the device was
 * cloned or a backup restored, or, indistinguishable from that, a power cut lost
 * the record of what had been sent. Nothing is sent any more, because the cluster
 * could not tell the two senders apart; all submissions stay in the outbox (H14).
 */
export class ErrOutboxCopied extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrOutboxCopied";
  /** Session that both use. */
  readonly session: number;
  /** Creates an error for an outbox whose session another process has claimed. */
  constructor(session: number) {
    super(
      `Outbox is a copy, or older than what was sent from it, as session ${session} shows: a device was cloned, a backup restored, or the power was cut. Call adoptOutbox() to continue with a new session`,
    );
    this.session = session;
  }
}
