/**
 * Errors of the log on etcd.
 *
 * This module needs Deno.
 *
 * @module
 */

import { ErrDiverged } from "../log/errors.ts";
import { ErrSnapshotNotFound } from "../snapshot/errors.ts";
import { SampanError } from "../statemachine/errors.ts";

/**
 * Thrown when no etcd node has answered in time, or the nodes that answer have no
 * quorum. Nothing was appended, or read. The log goes on by itself once there is a
 * quorum, so the call can be repeated.
 */
export class ErrEtcdUnavailable extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrEtcdUnavailable";
}

/**
 * Thrown when etcd refuses the user, the password or the certificate, when the user
 * lacks a permission, or when the certificate of etcd is not trusted here.
 */
export class ErrEtcdAccess extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrEtcdAccess";
}

/**
 * Thrown when an etcd is not the one whose history is known here: its cluster id or
 * the id of its history is another one, or its revisions have gone back, because it
 * was restored from a backup. Nothing was written to it.
 */
export class ErrOtherEtcd extends ErrDiverged {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrOtherEtcd";
  /** Creates an error whose `detail` says how the etcd differs. */
  constructor(detail: string) {
    super(
      `${detail}. Nothing was written: use the endpoints of the known etcd, or start without \`known\` and with snapshots of this history`,
    );
  }
}

/**
 * Thrown when a snapshot could not be fetched from another server, and reported for
 * each server whose answer was refused while others are asked.
 */
export class ErrPeerSnapshot extends ErrSnapshotNotFound {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrPeerSnapshot";
  /** Id of the cluster. */
  readonly clusterID: bigint;
  /** Index of the last entry in the snapshot. */
  readonly index: number;
  /** Creates an error that says why a snapshot of `size` bytes was not fetched. */
  constructor(
    clusterID: bigint,
    index: number,
    size: number,
    reason: string,
    options?: ErrorOptions,
  ) {
    super(`of cluster ${clusterID} at ${index}`);
    this.message =
      `Snapshot of cluster ${clusterID} at ${index} (${size} bytes) was not fetched: ${reason}. Start a server that holds it, and see that this one can reach it`;
    if (options?.cause !== undefined) this.cause = options.cause;
    this.clusterID = clusterID;
    this.index = index;
  }
}
