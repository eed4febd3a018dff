/**
 * Health of a server and its clusters, for load balancers, process supervisors
 * and operators.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ErrUpdateFailed } from "../../nodehost/errors.ts";
import type { ClusterStatus } from "../../nodehost/info.ts";
import type { MaybePromise } from "../../statemachine/types.ts";
import { describeFailure, describeStorageError } from "./cluster_failure.ts";
import type { Core } from "./core.ts";
import { methodNotAllowed } from "./http_responses.ts";
import type { ServedCluster } from "./served_cluster.ts";

/** Response to a request for the health of the server or of one cluster; undefined for any other path. */
export function healthResponse(
  core: Core,
  request: Request,
  pathname: string,
): MaybePromise<Response> | undefined {
  const match = /^\/health(?:\/(live)|\/clusters\/(\d{1,20}))?$/.exec(pathname);
  if (match === null) return undefined;
  if (request.method !== "GET" && request.method !== "HEAD") {
    return methodNotAllowed(request, ["GET", "HEAD"]);
  }
  const [, live, cluster] = match;
  // The process serves requests: restarting it would not help.
  if (live !== undefined) return json(200, { status: "ok" });
  if (cluster === undefined) return ofServer(core);
  return ofCluster(core, BigInt(cluster));
}

function ofServer(core: Core): Response {
  const { connections } = core.telemetry.counts;
  const clusters = core.host.clusters().filter(({ state }) =>
    state !== "stopped"
  );
  const failed = clusters.filter(({ state }) => state === "failed");
  const unwritable = clusters.filter((cluster) => cannotStore(cluster));
  const { fail = "any" } = core.options.health ?? {};
  const isDown = (down: number): boolean =>
    down > 0 && (fail === "any" || down === clusters.length);
  const status = core.isStopping
    ? "stopping"
    : !core.isListening()
    ? "not listening"
    : isDown(failed.length)
    ? "failed"
    : core.reach.reason !== undefined
    ? "cut off"
    : isDown(failed.length + unwritable.length)
    ? "cannot store"
    : "ok";
  return json(status === "ok" ? 200 : 503, {
    status,
    connections,
    ...reachOf(core),
    ...(core.reach.isNeeded
      ? { lag: Math.max(0, ...clusters.map((one) => lagOf(core, one))) }
      : {}),
    ...fetchingOf(core),
    ...(failed.length === 0 ? {} : { failed: failed.map(failedCluster) }),
    ...(unwritable.length === 0
      ? {}
      : { unable: unwritable.map(unwritableCluster) }),
  });
}

/** Reach of the log, and what is served without it; empty where one process orders the logs. */
function reachOf({ reach }: Core): Record<string, unknown> {
  const { isNeeded, lostMs, reason } = reach;
  if (!isNeeded) return {};
  if (lostMs === undefined) return { quorum: true, serves: "reads and writes" };
  return {
    quorum: false,
    quorumLostMs: Math.round(lostMs),
    serves: "stale reads",
    ...(reason === undefined ? {} : { reason }),
  };
}

/** Snapshots that the server is fetching from others; empty if it fetches none. */
function fetchingOf(core: Core, clusterID?: bigint): Record<string, unknown> {
  const fetching = (core.host.logDB.peers?.fetching ?? []).filter((one) =>
    clusterID === undefined || one.clusterID === clusterID
  );
  if (fetching.length === 0) return {};
  return {
    // Without the address of the other server, which is not for everyone.
    fetching: fetching.map(({ clusterID, index, size, received }) => ({
      clusterID: String(clusterID),
      index,
      size,
      received,
    })),
  };
}

/** Wait for the turn to append, and the server that has it; empty while nothing waits. */
function waitOf(served: ServedCluster | undefined): Record<string, unknown> {
  const wait = served?.log.order?.wait;
  if (wait === undefined) return {};
  const { waitedMs, holder, heldMs } = wait;
  return {
    waitsForTurn: {
      waitedMs: Math.round(waitedMs),
      ...(holder === undefined ? {} : { holder }),
      ...(heldMs === undefined ? {} : { heldMs: Math.round(heldMs) }),
    },
  };
}

/** Number of entries that are known to be committed and not applied. */
function lagOf(core: Core, { clusterID, appliedIndex }: ClusterStatus): number {
  const committed = core.host.replica(clusterID)?.logInfo?.committed ?? 0;
  return Math.max(0, committed - appliedIndex);
}

/** True if the cluster runs and nothing can be stored in its log now. */
function cannotStore({ state, storageError }: ClusterStatus): boolean {
  return state !== "failed" && storageError !== undefined;
}

function unwritableCluster(
  { clusterID, storageError }: ClusterStatus,
): Record<string, unknown> {
  return {
    clusterID: String(clusterID),
    reason: describeStorageError(clusterID, storageError),
  };
}

async function ofCluster(core: Core, clusterID: bigint): Promise<Response> {
  const cluster = core.host.clusterStatus(clusterID);
  const { isNeeded } = core.reach;
  const fetching = {
    ...fetchingOf(core, clusterID),
    ...waitOf(await core.clusters.peek(clusterID)),
  };
  if (cluster?.state !== "running" || !isNeeded) {
    return clusterResponse(core, clusterID, fetching);
  }
  const end = await core.logEnd(clusterID);
  const seen = core.host.clusterStatus(clusterID) ?? cluster;
  return clusterResponse(core, clusterID, {
    ...reachOf(core),
    // Without a quorum nothing is known about what others have committed since.
    ...(end === undefined ? { quorum: false, serves: "stale reads" } : {}),
    ...fetching,
    lag: Math.max(lagOf(core, seen), (end ?? 0) - seen.appliedIndex),
  });
}

function clusterResponse(
  core: Core,
  clusterID: bigint,
  reach: Record<string, unknown>,
): Response {
  const cluster = core.host.clusterStatus(clusterID);
  if (cluster === undefined) {
    return json(404, {
      status: "unknown",
      reason: `There is no cluster ${clusterID} on this server`,
    });
  }
  const { state, appliedIndex: applied } = cluster;
  if (state === "failed") {
    return json(503, { status: state, applied, ...failedCluster(cluster) });
  }
  if (cannotStore(cluster)) {
    return json(503, {
      status: "cannot store",
      applied,
      ...reach,
      ...unwritableCluster(cluster),
    });
  }
  const status = core.isStopping
    ? "stopping"
    : state !== "running"
    ? state
    : core.reach.reason !== undefined
    ? "cut off"
    : "ok";
  return json(status === "ok" ? 200 : 503, {
    status,
    clusterID: String(clusterID),
    applied,
    ...reach,
  });
}

/** JSON of a failed cluster; 64-bit numbers are strings. */
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

function json(status: number, body: Record<string, unknown>): Response {
  return Response.json(body, { status });
}
