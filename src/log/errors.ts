/**
 * The errors of a log.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { SampanError } from "../statemachine/errors.ts";
import type { HistoryPoint } from "./history.ts";

/** The records asked for were cut from the log: the sign to take a snapshot. */
export class ErrCompacted extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrCompacted";
  /** The first index the log still has, or will have next. */
  readonly firstIndex: number;
  /** An error for a log that starts at `firstIndex`. */
  constructor(firstIndex: number, options?: ErrorOptions) {
    super(`Log was compacted and now starts at ${firstIndex}`, options);
    this.firstIndex = firstIndex;
  }
}

/** What {@linkcode ErrDiverged} knows of where two histories part. */
export interface Divergence {
  /** The last index known to be the same, if one is known. */
  readonly after?: number | undefined;
  /** The first index known to differ, if one is known. */
  readonly upTo?: number | undefined;
  /** The first entry that leaves different states, once it was found. */
  readonly index?: number | undefined;
  /** The command of that entry, if it has one. */
  readonly command?: Uint8Array | undefined;
}

/**
 * Two parties that should have the same history do not: a log that lost its
 * tail or was restored from a backup (D13, H13), or replicas whose states differ
 * after the same entries (H12). Nothing was rewound.
 */
export class ErrDiverged extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName: string = "ErrDiverged";
  /** The last index known to be the same, if one is known. */
  readonly after: number | undefined;
  /** The first index known to differ, if one is known. */
  readonly upTo: number | undefined;
  /** The first entry that leaves different states, once it was found. */
  readonly index: number | undefined;
  /** The command of that entry, if it has one. */
  readonly command: Uint8Array | undefined;
  /** An error that says what differs, and between which indexes. */
  constructor(message: string, range: Divergence = {}) {
    super(message);
    this.after = range.after;
    this.upTo = range.upTo;
    this.index = range.index;
    this.command = range.command;
  }
}

/**
 * The log is not the one that is known here: it was reset, or restored from a
 * backup that is older than what this device or store has seen of it (H13).
 * Nothing was changed. `NodeHost.exportData()` exports what is here, and
 * `NodeHost.startOver()` goes on with the server's history and keeps what was
 * submitted.
 */
export class ErrOtherHistory extends ErrDiverged {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrOtherHistory";
  /** Point of the history known here that the log does not have, where it is known. */
  readonly known: HistoryPoint | undefined;
  /** An error whose `detail` says how it shows. */
  constructor(
    detail: string,
    options: Divergence & { readonly known?: HistoryPoint | undefined } = {},
  ) {
    super(
      detail.includes("startOver()")
        ? detail
        : `${detail}: the log was reset, or restored from an older backup. Export what is here with exportData(), then go on with startOver()`,
      options,
    );
    this.known = options.known;
  }
}

/**
 * It is not known whether a proposal is, or ever will be, in the log; or it is
 * known to have been applied, but its result is lost (H5, H6).
 */
export class ErrUnknownOutcome extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrUnknownOutcome";
  /** True if the proposal is known to have been applied, and only its result is lost. */
  readonly applied: boolean;
  /** An error whose cause, if there is one, tells how the answer was lost. */
  constructor(
    message: string,
    options: ErrorOptions & { readonly applied?: boolean } = {},
  ) {
    super(message, options);
    this.applied = options.applied ?? false;
  }
}

/** The replica, host, log or store was closed, is being closed, or failed with `cause` (H10, R5). */
export class ErrClusterClosed extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrClusterClosed";
  /** An error for what is closed; `cause` tells why, if it did not end in peace. */
  constructor(message?: string, options?: ErrorOptions) {
    super(message ?? "Cluster is closed", options);
  }
}

/** The cluster is already started here, or there is already something where there must be nothing (H9, H11). */
export class ErrClusterAlreadyExist extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrClusterAlreadyExist";
}

/**
 * Error for a node id that another replica of the cluster has, such as the
 * server's own: replicas are told from each other by their ids. Give every device
 * an id of its own, with `deviceID()` or `newNodeID()`.
 */
export class ErrNodeIDTaken extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrNodeIDTaken";
  /** Cluster of both replicas. */
  readonly clusterID: bigint;
  /** Id that both have. */
  readonly nodeID: bigint;
  /** An error for replica `nodeID` of cluster `clusterID`. */
  constructor(clusterID: bigint, nodeID: bigint, options?: ErrorOptions) {
    super(
      `Node id ${nodeID} of cluster ${clusterID} is the server's own: give this device an id of its own, with deviceID() in a browser or newNodeID() elsewhere`,
      options,
    );
    this.clusterID = clusterID;
    this.nodeID = nodeID;
  }
}

/** A record, a batch of the log or a session section cannot be what was written: it is damaged, foreign, of a newer version, or something before it is missing (H11, H15). */
export class ErrLogCorrupted extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrLogCorrupted";
  /** The index of the record that is wrong. */
  readonly index: number;
  /** An error for the record at `index`. */
  constructor(index: number, message: string, options?: ErrorOptions) {
    super(`Log is corrupted at ${index}: ${message}`, options);
    this.index = index;
  }
}

/** Why a record was refused. */
export interface Refusal {
  /** Which record of the batch, from 0. */
  readonly at: number;
  /** Why, for a person to read. */
  readonly reason: string;
}

/**
 * Some records of a batch were refused for good and are not in the log; all
 * others are. (A refused proposal of a session is in the log as the skipping of
 * its series, and not named here.)
 */
export class ErrRecordsRefused extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrRecordsRefused";
  /** Which, and why. */
  readonly refusals: readonly Refusal[];
  /** An error for the records named. */
  constructor(refusals: readonly Refusal[]) {
    super(`${refusals.length} records were refused: ${refusals[0]?.reason}`);
    this.refusals = refusals;
  }
}
