/**
 * Descriptions of failed clusters and failed storage, as clients read them.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { clipText } from "../../bytes.ts";
import { messageOf } from "../../describe.ts";
import { SYNC_TEXT_BYTES_MAX } from "../../limits.ts";
import { ErrUpdateFailed } from "../../nodehost/errors.ts";
import type { NodeHost } from "../../nodehost/node_host.ts";
import {
  ErrStoreCorrupted,
  ErrStoreFull,
  ErrStoreVanished,
} from "../../store/errors.ts";

/**
 * Describes the failure of a cluster: names the entry and the error thrown by the
 * state machine. The remedy is the operator's and is not in it, nor is any path
 * of the server.
 */
export function describeFailure(clusterID: bigint, failure: unknown): string {
  let cause = failure instanceof ErrStoreCorrupted ||
      failure instanceof ErrStoreVanished
    // The message of the error names a file of the server.
    ? "its log is damaged"
    : messageOf(failure);
  if (failure instanceof ErrUpdateFailed) {
    const { index, upTo } = failure;
    const at = index === upTo
      ? `entry ${index}`
      : `one of the entries ${index} to ${upTo}`;
    cause = `${at} cannot be applied: ${messageOf(failure.cause)}`;
  }
  return clipText(
    `Cluster ${clusterID} has failed on the server: ${cause}`,
    SYNC_TEXT_BYTES_MAX,
  );
}

/** Describes why nothing can be stored in the log of a cluster, without any path of the server. */
export function describeStorageError(
  clusterID: bigint,
  error: unknown,
): string {
  const cause = error instanceof ErrStoreFull
    ? "its disk is full"
    : "its disk or file system fails";
  return `Server cannot store changes of cluster ${clusterID} now: ${cause}. They wait here and are sent again`;
}

/** Description of a cluster's failure; undefined if it has not failed. */
export function failureOf(
  host: NodeHost,
  clusterID: bigint,
): string | undefined {
  const status = host.clusterStatus(clusterID);
  return status?.state === "failed"
    ? describeFailure(clusterID, status.error)
    : undefined;
}
