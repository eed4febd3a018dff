/**
 * The errors of a host.
 *
 * This module is browser compatible.
 *
 * @module
 */

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
