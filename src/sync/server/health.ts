/**
 * Health of a server and its clusters, for load balancers, process supervisors
 * and operators.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { clipText } from "../../bytes.ts";
import { messageOf } from "../../describe.ts";
import { SYNC_TEXT_BYTES_MAX } from "../../limits.ts";
import { ErrUpdateFailed } from "../../nodehost/errors.ts";
import type { ClusterStatus } from "../../nodehost/info.ts";
import type { NodeHost } from "../../nodehost/node_host.ts";
import {
  ErrStoreCorrupted,
  ErrStoreFull,
  ErrStoreVanished,
} from "../../store/errors.ts";
import { withoutMethod } from "./answers.ts";
import type { Core } from "./core.ts";

/** Describes the failure of a cluster for clients: names the entry and what was thrown, never the remedy, which is the operator's. */
export function describeFailure(clusterID: bigint, failure: unknown): string {
  let words = failure instanceof ErrStoreCorrupted ||
      failure instanceof ErrStoreVanished
    // Its message names a file of the server.
    ? "its log is damaged"
    : messageOf(failure);
  if (failure instanceof ErrUpdateFailed) {
    const { index, upTo, cause } = failure;
    const at = index === upTo
      ? `entry ${index}`
      : `one of the entries ${index} to ${upTo}`;
    words = `${at} cannot be applied: ${messageOf(cause)}`;
  }
  return clipText(
    `Cluster ${clusterID} has failed on the server: ${words}`,
    SYNC_TEXT_BYTES_MAX,
  );
}

/** Describes for clients why nothing can be stored in the log of a cluster: no path of the server is in them. */
export function describeTrouble(clusterID: bigint, trouble: unknown): string {
  const why = trouble instanceof ErrStoreFull
    ? "its disk is full"
    : "its disk or file system fails";
  return `Server cannot store changes of cluster ${clusterID} now: ${why}. They wait here and are sent again`;
}

/** Description of a cluster's failure for clients; undefined if it has not failed. */
export function failureOf(
  host: NodeHost,
  clusterID: bigint,
): string | undefined {
  const status = host.clusterStatus(clusterID);
  return status?.state === "failed"
    ? describeFailure(clusterID, status.error)
    : undefined;
}

/** Answers a request for the health of the server, or of one cluster; undefined for any other path. */
export function health(
  core: Core,
  request: Request,
  pathname: string,
): Response | undefined {
  const match = /^\/health(?:\/(live)|\/clusters\/(\d{1,20}))?$/.exec(pathname);
  if (match === null) return undefined;
  if (request.method !== "GET" && request.method !== "HEAD") {
    return withoutMethod(request, ["GET", "HEAD"]);
  }
  const [, live, cluster] = match;
  // It serves: whatever else is wrong, to start it again would not help.
  if (live !== undefined) return answer(200, { status: "ok" });
  if (cluster === undefined) return ofServer(core);
  return ofCluster(core, BigInt(cluster));
}

function ofServer(core: Core): Response {
  const { connections } = core.telemetry.counts;
  const clusters = core.host.clusters().filter(({ state }) =>
    state !== "stopped"
  );
  const failed = clusters.filter(({ state }) => state === "failed");
  const unable = clusters.filter((cluster) => isUnable(cluster));
  const { fail = "any" } = core.options.health ?? {};
  const isDown = (down: number): boolean =>
    down > 0 && (fail === "any" || down === clusters.length);
  const status = core.isStopping
    ? "stopping"
    : !core.isListening()
    ? "not listening"
    : isDown(failed.length)
    ? "failed"
    : isDown(failed.length + unable.length)
    ? "cannot store"
    : "ok";
  return answer(status === "ok" ? 200 : 503, {
    status,
    connections,
    ...(failed.length === 0 ? {} : { failed: failed.map(failedCluster) }),
    ...(unable.length === 0 ? {} : { unable: unable.map(unableCluster) }),
  });
}

/** True for a cluster that runs, and in whose log nothing can be stored now. */
function isUnable({ state, storageError }: ClusterStatus): boolean {
  return state !== "failed" && storageError !== undefined;
}

function unableCluster(
  { clusterID, storageError }: ClusterStatus,
): Record<string, unknown> {
  return {
    clusterID: String(clusterID),
    reason: describeTrouble(clusterID, storageError),
  };
}

function ofCluster(core: Core, clusterID: bigint): Response {
  const cluster = core.host.clusterStatus(clusterID);
  if (cluster === undefined) {
    return answer(404, {
      status: "unknown",
      reason: `There is no cluster ${clusterID} on this server`,
    });
  }
  const { state, appliedIndex: applied } = cluster;
  if (state === "failed") {
    return answer(503, { status: state, applied, ...failedCluster(cluster) });
  }
  if (isUnable(cluster)) {
    return answer(503, {
      status: "cannot store",
      applied,
      ...unableCluster(cluster),
    });
  }
  const status = core.isStopping
    ? "stopping"
    : state === "running"
    ? "ok"
    : state;
  return answer(status === "ok" ? 200 : 503, {
    status,
    clusterID: String(clusterID),
    applied,
  });
}

/** A failed cluster as JSON; 64-bit numbers are strings. */
function failedCluster(
  { clusterID, error }: ClusterStatus,
): Record<string, unknown> {
  return {
    clusterID: String(clusterID),
    reason: describeFailure(clusterID, error),
    ...(error instanceof ErrUpdateFailed
      ? { index: error.index, upTo: error.upTo }
      : {}),
  };
}

function answer(status: number, body: Record<string, unknown>): Response {
  return Response.json(body, { status });
}
