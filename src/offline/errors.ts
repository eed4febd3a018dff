/**
 * The errors of an outbox.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { SampanError } from "../statemachine/errors.ts";
import type { Unsynced } from "./outbox.ts";

/** The host was given no outbox, so it can keep no commands. */
export class ErrNoOutbox extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrNoOutbox";
  /** An error for a host without an outbox. */
  constructor() {
    super("Host was given no outbox to keep the command in");
  }
}

/** The outbox holds commands the cluster does not have, as far as is known here; nothing was cleared (U35). */
export class ErrUnsynced extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrUnsynced";
  /** What would be lost, in the order it was submitted. */
  readonly unsynced: readonly Unsynced[];
  /** Clusters they belong to, where more than one may be concerned. */
  readonly clusterIDs: readonly bigint[];
  /** An error for what is there. */
  constructor(
    unsynced: readonly Unsynced[],
    clusterIDs: readonly bigint[] = [],
  ) {
    super(
      `Outbox holds ${unsynced.length} commands that are not synced${
        clusterIDs.length === 0
          ? ""
          : `, of cluster ${clusterIDs.join(" and ")}`
      }: wait until they are, dismiss them, or ask for them to be discarded`,
    );
    this.unsynced = unsynced;
    this.clusterIDs = clusterIDs;
  }
}

/**
 * The outbox holds commands of another principal than the one who is signed in.
 * Nothing is sent, and nothing more is kept: sign in as that principal again, or
 * remove what is there (U35).
 */
export class ErrOtherPrincipal extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrOtherPrincipal";
  /** Number of commands that wait for the other principal. */
  readonly commands: number;
  /** Principal they belong to, if it is known by name. */
  readonly principal: string | undefined;
  /** An error for so many commands of another principal. */
  constructor(
    commands: number,
    principal: string | undefined,
    options?: ErrorOptions,
  ) {
    super(
      `Outbox holds ${commands} commands of ${
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
 * The outbox is a copy: a device was cloned or a backup restored, and somebody
 * else goes on with the original; or, which looks the same, a power cut took back
 * what had been sent from it. Nothing is sent any more, since nobody could tell
 * who sent it; all that was submitted is kept (H14).
 */
export class ErrOutboxCopied extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrOutboxCopied";
  /** The session both have. */
  readonly session: number;
  /** An error for an outbox whose `session` somebody else has claimed. */
  constructor(session: number) {
    super(
      `Outbox is a copy of another one, or is older than what was sent from it, as session ${session} shows: a device was cloned, a backup restored, or the power was cut`,
    );
    this.session = session;
  }
}
