/**
 * Errors of a host.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { messageOf } from "../describe.ts";
import { SampanError } from "../statemachine/errors.ts";

/** Thrown when a cluster is not started on the host. */
export class ErrClusterNotFound extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrClusterNotFound";
  /** Cluster of the call. */
  readonly clusterID: bigint;
  /** Creates the error for `clusterID`. */
  constructor(clusterID: bigint) {
    super(`Cluster ${clusterID} is not started on this host`);
    this.clusterID = clusterID;
  }
}

/** Thrown when a command is over the size limit; it was not proposed (H11). */
export class ErrPayloadTooBig extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrPayloadTooBig";
  /** Size of the command, in bytes. */
  readonly size: number;
  /** Largest size of a command, in bytes. */
  readonly limit: number;
  /** Creates the error for a command of `size` bytes. */
  constructor(size: number, limit: number) {
    super(`Command of ${size} bytes is over the limit of ${limit}`);
    this.size = size;
    this.limit = limit;
  }
}

/**
 * Thrown by `activateChange()` while a live replica on the log is not known to know
 * the change; nothing was proposed. Its message names the servers that lack it.
 */
export class ErrChangeUnknown extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrChangeUnknown";
  /** Name of the change. */
  readonly change: string;
  /** Names of the servers with a live replica that lacks it; empty if they are not known. */
  readonly servers: readonly string[];
  /** Creates the error for a change that `servers` lack. */
  constructor(change: string, servers: readonly string[], message: string) {
    super(message);
    this.change = change;
    this.servers = servers;
  }
}

/** Thrown when a snapshot for import belongs to another cluster, or has no state (H9). */
export class ErrSnapshotMismatch extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrSnapshotMismatch";
}

/**
 * Failure of a replica because `update()` threw at a committed entry (R5); `cause`
 * is what was thrown. The replica fails in the same way at every start, until the
 * state machine is corrected or the entry is skipped.
 */
export class ErrUpdateFailed extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrUpdateFailed";
  /** Cluster of the entry. */
  readonly clusterID: bigint;
  /** Replica that failed. */
  readonly nodeID: bigint;
  /** Index of the entry; if only the batch is known, of its first entry. */
  readonly index: number;
  /** Index of the last entry of the batch; equals `index` if the entry is known. */
  readonly upTo: number;
  /** Creates the error for the entry, or the batch, at which `update()` threw `cause`. */
  constructor(
    replica: { readonly clusterID: bigint; readonly nodeID: bigint },
    entries: { readonly index: number; readonly upTo: number },
    cause: unknown,
  ) {
    const { clusterID, nodeID } = replica;
    const { index, upTo } = entries;
    const at = index === upTo
      ? `at entry ${index}`
      : `in a batch of entries ${index} to ${upTo}`;
    super(
      `update() threw ${at} of cluster ${clusterID}: ${
        messageOf(cause)
      }. Correct the state machine, or call host.skipEntry(${clusterID}n, ${
        index === upTo ? index : "index"
      }, reason), and start the cluster again`,
      { cause },
    );
    this.clusterID = clusterID;
    this.nodeID = nodeID;
    this.index = index;
    this.upTo = upTo;
  }
}

/** Thrown when an entry cannot be skipped; nothing was changed. */
export class ErrSkipRefused extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrSkipRefused";
  /** Cluster of the call. */
  readonly clusterID: bigint;
  /** Index of the entry. */
  readonly index: number;
  /**
   * Reason: `not found` if the log has no such entry; `not a command` if the record
   * is session control, an epoch or a configuration; `compacted` if the log was
   * compacted past it and snapshots have it applied; `no base` if neither log nor
   * snapshots give a state without it; `not here` if a server orders the log, and
   * the entry has to be skipped there.
   */
  readonly why:
    | "not found"
    | "not a command"
    | "compacted"
    | "no base"
    | "not here";
  /** Creates the error for an entry that cannot be skipped; `words` continue its message. */
  constructor(
    clusterID: bigint,
    index: number,
    why: ErrSkipRefused["why"],
    words: string,
    options?: ErrorOptions,
  ) {
    super(
      `Entry ${index} of cluster ${clusterID} cannot be skipped: ${words}`,
      options,
    );
    this.clusterID = clusterID;
    this.index = index;
    this.why = why;
  }
}
