/**
 * Errors of the order in which several processes append to a log.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { SampanError } from "../statemachine/errors.ts";

/**
 * Thrown by an append that was decided in a turn of this server, when another server
 * has appended since, or may have: because this one was frozen or cut off for longer
 * than its lease. The records were not appended, and never will be.
 */
export class ErrOrderLost extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrOrderLost";
}

/**
 * Thrown by a replica that would decide about appends while another replica of the same
 * cluster does so on the same `LogDB`: each knows its own state only, so that a rule
 * about the state would not hold. Nothing was appended.
 */
export class ErrOrderShared extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrOrderShared";
  /** Id of the cluster. */
  readonly clusterID: bigint;
  /** Creates an error for replica `nodeID` of a cluster in which `decider` decides. */
  constructor(clusterID: bigint, nodeID: bigint, decider: bigint) {
    super(
      `Replica ${nodeID} of cluster ${clusterID} cannot decide about appends: replica ${decider} does, on the same LogDB of this process. Give each host a LogDB of its own`,
    );
    this.clusterID = clusterID;
  }
}
