/**
 * Errors of the committed log, and of everything that is closed or exists already.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ErrClosed, SampanError } from "../statemachine/errors.ts";
import type { HistoryPoint } from "./history.ts";

/** Thrown when the requested records were compacted: recover from a snapshot instead. */
export class ErrCompacted extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrCompacted";
  /** First index that the log still has, or will have next. */
  readonly firstIndex: number;
  /** Creates an error for a log that starts at `firstIndex`. */
  constructor(firstIndex: number, options?: ErrorOptions) {
    super(
      `Log was compacted and now starts at ${firstIndex}; recover from a snapshot`,
      options,
    );
    this.firstIndex = firstIndex;
  }
}

/** Range of indexes in which two histories diverge, as far as it is known. */
export interface Divergence {
  /** Last index known to be the same in both. */
  readonly after?: number | undefined;
  /** First index known to differ. */
  readonly upTo?: number | undefined;
  /** Index of the first entry that leads to different states, once it was found. */
  readonly index?: number | undefined;
  /** Command of that entry, if it has one. */
  readonly command?: Uint8Array | undefined;
}

/**
 * Thrown when two parties that should have the same history do not: a log lost its
 * tail or was restored from a backup (D13, H13), or replicas have different states
 * after the same entries (H12). Nothing was changed.
 */
export class ErrDiverged extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName: string = "ErrDiverged";
  /** Last index known to be the same in both. */
  readonly after: number | undefined;
  /** First index known to differ. */
  readonly upTo: number | undefined;
  /** Index of the first entry that leads to different states, once it was found. */
  readonly index: number | undefined;
  /** Command of that entry, if it has one. */
  readonly command: Uint8Array | undefined;
  /** Creates an error that says what differs, and between which indexes. */
  constructor(message: string, range: Divergence = {}) {
    super(message);
    this.after = range.after;
    this.upTo = range.upTo;
    this.index = range.index;
    this.command = range.command;
  }
}

/**
 * Thrown when a log has another history than the one known here: it was reset, or
 * restored from a backup older than what this device or store has seen of it
 * (H13). Nothing was changed. `NodeHost.exportData()` exports the local data, and
 * `NodeHost.startOver()` continues with the server's history and keeps submissions.
 */
export class ErrOtherHistory extends ErrDiverged {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrOtherHistory";
  /** Point of the local history that the log lacks, if it is known. */
  readonly known: HistoryPoint | undefined;
  /** Creates an error whose `detail` says how the histories differ. */
  constructor(
    detail: string,
    options: Divergence & { readonly known?: HistoryPoint | undefined } = {},
  ) {
    super(
      detail.includes("startOver()")
        ? detail
        : `${detail}: the log was reset, or restored from an older backup. Export the local data with exportData(), then continue with startOver()`,
      options,
    );
    this.known = options.known;
  }
}

/**
 * Thrown when it is unknown whether a proposal is, or ever will be, in the log; or
 * when it was applied and its result is lost (H5, H6).
 */
export class ErrUnknownOutcome extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrUnknownOutcome";
  /** True if the proposal was applied and only its result is lost. */
  readonly applied: boolean;
  /** Creates an error whose `cause`, if given, says how the result was lost. */
  constructor(
    message: string,
    options: ErrorOptions & { readonly applied?: boolean } = {},
  ) {
    super(message, options);
    this.applied = options.applied ?? false;
  }
}

/** Thrown by a replica, host, log or store that was closed, is being closed, or failed with `cause` (H10, R5). */
export class ErrClusterClosed extends ErrClosed {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrClusterClosed";
  /** Creates an error; `cause` is set if the object failed rather than being closed. */
  constructor(message?: string, options?: ErrorOptions) {
    super(message ?? "Cluster is closed", options);
  }
}

/** Thrown when a cluster is already started here, or data exists where there must be none (H9, H11). */
export class ErrClusterAlreadyExist extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrClusterAlreadyExist";
}

/**
 * Thrown when another replica of the cluster, such as the server's own, has the same
 * node id. Each device needs an id of its own, from `deviceID()` or `newNodeID()`.
 */
export class ErrNodeIDTaken extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrNodeIDTaken";
  /** Cluster of both replicas. */
  readonly clusterID: bigint;
  /** Id that both have. */
  readonly nodeID: bigint;
  /** Creates an error for replica `nodeID` of cluster `clusterID`. */
  constructor(clusterID: bigint, nodeID: bigint, options?: ErrorOptions) {
    super(
      `Node id ${nodeID} of cluster ${clusterID} is the server's own: give this device an id of its own, with deviceID() in a browser or newNodeID() elsewhere`,
      options,
    );
    this.clusterID = clusterID;
    this.nodeID = nodeID;
  }
}

/**
 * Thrown when a record, a batch of the log or a session section is damaged, written
 * by other or newer code, or does not follow its predecessor (H11, H15).
 */
export class ErrLogCorrupted extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrLogCorrupted";
  /** Index of the invalid record. */
  readonly index: number;
  /** Creates an error for the record at `index`. */
  constructor(index: number, message: string, options?: ErrorOptions) {
    super(`Log is corrupted at ${index}: ${message}`, options);
    this.index = index;
  }
}

/** Rejection of one record of a batch. */
export interface Refusal {
  /** Position of the record in the batch, from 0. */
  readonly at: number;
  /** Reason, as text for the user. */
  readonly reason: string;
}

/**
 * Thrown when some records of a batch were rejected permanently and are not in the
 * log; the others are. (A rejected proposal of a session is in the log as a record
 * that skips its series, and is not listed here.)
 */
export class ErrRecordsRefused extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrRecordsRefused";
  /** Rejected records and their reasons. */
  readonly refusals: readonly Refusal[];
  /** Creates an error for the rejected records. */
  constructor(refusals: readonly Refusal[]) {
    super(`${refusals.length} records were refused: ${refusals[0]?.reason}`);
    this.refusals = refusals;
  }
}
