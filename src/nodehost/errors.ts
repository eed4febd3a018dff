/**
 * The errors of a host.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { messageOf } from "../describe.ts";
import { SampanError } from "../statemachine/errors.ts";

/** The host runs no such cluster. */
export class ErrClusterNotFound extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrClusterNotFound";
  /** The cluster that was asked for. */
  readonly clusterID: bigint;
  /** An error for `clusterID`. */
  constructor(clusterID: bigint) {
    super(`Cluster ${clusterID} is not started on this host`);
    this.clusterID = clusterID;
  }
}

/** A command is over the size limit; it was not proposed (H11). */
export class ErrPayloadTooBig extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrPayloadTooBig";
  /** Size of the command, in bytes. */
  readonly size: number;
  /** The largest that is taken, in bytes. */
  readonly limit: number;
  /** An error for a command of `size` bytes. */
  constructor(size: number, limit: number) {
    super(`Command of ${size} bytes is over the limit of ${limit}`);
    this.size = size;
    this.limit = limit;
  }
}

/** A snapshot offered for import is another cluster's, or holds no state (H9). */
export class ErrSnapshotMismatch extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrSnapshotMismatch";
}

/**
 * `update()` threw at a committed entry, and the replica has stopped (R5): its
 * cause is what was thrown. It fails in the same way whenever the cluster is
 * started, until the machine is mended or the entry is skipped.
 */
export class ErrUpdateFailed extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrUpdateFailed";
  /** The cluster the entry belongs to. */
  readonly clusterID: bigint;
  /** The replica that stopped. */
  readonly nodeID: bigint;
  /** Index of the entry; of a batch in which the entry is not known, index of the first. */
  readonly index: number;
  /** Index of the last entry of that batch; the same as `index` where the entry is known. */
  readonly upTo: number;
  /** An error for the entry, or the batch, at which `update()` threw `cause`. */
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

/** An entry cannot be skipped: nothing was changed. */
export class ErrSkipRefused extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrSkipRefused";
  /** The cluster that was asked for. */
  readonly clusterID: bigint;
  /** Index of the entry. */
  readonly index: number;
  /**
   * `not found` if the log has no such entry yet; `not a command` if it is a record
   * of sessions, an epoch or a configuration; `compacted` if the log was cut past
   * it, so that snapshots have it applied; `no base` if neither log nor snapshots
   * give a state without it; `not here` if the log is ordered by a server, where
   * the entry can be skipped.
   */
  readonly why:
    | "not found"
    | "not a command"
    | "compacted"
    | "no base"
    | "not here";
  /** An error for an entry that cannot be skipped, in words too. */
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
