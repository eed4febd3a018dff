/**
 * Inspector of a server: its clients, queues, rates, memory and clusters as JSON,
 * behind a permission of its own.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { abortable, timeLimit } from "../../async.ts";
import { isU64 } from "../../bytes.ts";
import {
  INSPECTOR_ANSWER_MS_MAX,
  INSPECTOR_CLIENTS_MAX,
  INSPECTOR_DUTY_MS_MAX,
  INSPECTOR_SENT_BYTES,
  INSPECTOR_SENT_ENTRIES_MAX,
} from "../../limits.ts";
import { ErrCompacted } from "../../log/errors.ts";
import type { ClusterInfo } from "../../nodehost/info.ts";
import type { Replica } from "../../nodehost/replica.ts";
import type {
  ClientReport,
  ClusterReport,
  EntryReport,
  ServerReport,
  ServerTotals,
} from "../inspector_report.ts";
import { describeFailure, describeStorageError } from "./cluster_failure.ts";
import type { Connection } from "./connection.ts";
import type { Core } from "./core.ts";
import { methodNotAllowed, TEXT } from "./http_responses.ts";
import type { InspectorPermission } from "./options.ts";
import type { OriginPolicy } from "./origin_policy.ts";

/** True if a permission covers a cluster. */
function covers(
  { clusters }: InspectorPermission,
  clusterID: bigint,
): boolean {
  return clusters === "all" || clusters.includes(clusterID);
}

function refusal(status: number, reason: string): Response {
  return new Response(`${reason}\n`, { status, headers: TEXT });
}

/** Refusal for a cluster that the permission does not cover, the same whether or not there is one. */
function notCovered(clusterID: bigint): Response {
  return refusal(403, `You may not inspect cluster ${clusterID}`);
}

/** Response to a request to the inspector; undefined for another path, and without an inspector. */
export function inspectorResponse(
  core: Core,
  request: Request,
  pathname: string,
  origins: OriginPolicy,
): Promise<Response> | undefined {
  if (core.options.inspector === undefined) return undefined;
  const match =
    /^\/inspector(?:\/?|\/clusters\/(\d{1,20})\/(entries|snapshot))$/.exec(
      pathname,
    );
  if (match === null) return undefined;
  const [, cluster, what] = match;
  return respond(core, request, origins, cluster, what);
}

async function respond(
  core: Core,
  request: Request,
  origins: OriginPolicy,
  cluster: string | undefined,
  what: string | undefined,
): Promise<Response> {
  const methods = what === "snapshot" ? ["POST"] : ["GET"];
  if (!methods.includes(request.method)) {
    return methodNotAllowed(request, methods);
  }
  // Before the hook: a page of another origin has no say, with any credentials.
  if (!origins.allow(request)) {
    return refusal(403, "This server is not inspected by pages of this origin");
  }
  const permission = await core.hooks.inspect(request);
  if (permission === undefined) {
    return refusal(403, "You may not inspect this server");
  }
  if (cluster === undefined) {
    return Response.json(await reportOf(core, permission));
  }
  const clusterID = BigInt(cluster);
  if (!isU64(clusterID) || !covers(permission, clusterID)) {
    return notCovered(clusterID);
  }
  const replica = core.host.replica(clusterID);
  if (replica === undefined) {
    return refusal(404, `Cluster ${clusterID} does not run here`);
  }
  if (what === "entries") {
    if (permission.commands !== true) {
      return refusal(
        403,
        `You may not read the commands of cluster ${clusterID}`,
      );
    }
    return Response.json(await newestEntries(core, replica));
  }
  if (permission.act !== true) {
    return refusal(403, `You may not take a snapshot of cluster ${clusterID}`);
  }
  const { index, size } = await replica.requestSnapshot();
  return Response.json({ index, size });
}

/** State of the server, as far as a permission covers it. */
async function reportOf(
  core: Core,
  permission: InspectorPermission,
): Promise<ServerReport> {
  const { clusters } = await core.host.info();
  const seen = clusters.filter(({ clusterID }) =>
    covers(permission, clusterID)
  );
  const isAll = permission.clusters === "all";
  const connections = [...core.connections].map((connection) => ({
    connection,
    clusters: connection.clusters.filter((id) => covers(permission, id)),
  })).filter(({ clusters }) => isAll || clusters.length > 0);
  const now = core.env.now();
  return {
    uptimeMs: now - core.startedAt,
    ...nameOf(core),
    ...await dutyOf(core),
    ...(isAll ? { totals: totalsOf(core) } : {}),
    clients: connections.slice(-INSPECTOR_CLIENTS_MAX).map(
      ({ connection, clusters }) => clientOf(connection, clusters, now),
    ),
    clientCount: connections.length,
    clusters: await Promise.all(
      seen.map((info) =>
        clusterOf(
          core,
          info,
          connections.filter(({ clusters }) =>
            clusters.includes(info.clusterID)
          ).length,
        )
      ),
    ),
    may: {
      commands: permission.commands === true,
      act: permission.act === true,
    },
  };
}

/** Name of the server and the reach of its log, as far as there are any. */
function nameOf(
  { options, reach: { isNeeded, lostMs } }: Core,
): Pick<ServerReport, "name" | "reach"> {
  const { name } = options.inspector!;
  return {
    ...(name === undefined ? {} : { name }),
    ...(isNeeded
      ? {
        reach: {
          hasQuorum: lostMs === undefined,
          ...(lostMs === undefined ? {} : { lostMs: Math.round(lostMs) }),
        },
      }
      : {}),
  };
}

/** Duty of taking snapshots, if it is known in time. */
async function dutyOf(
  { host: { logDB }, env, reach }: Core,
): Promise<Pick<ServerReport, "isOnDuty">> {
  const { snapshots } = logDB;
  if (snapshots?.isOnDuty === undefined || reach.lostMs !== undefined) {
    return {};
  }
  let cancel = (): void => {};
  const late = new Promise<undefined>((resolve) => {
    cancel = env.setTimer(() => resolve(undefined), INSPECTOR_DUTY_MS_MAX);
  });
  try {
    const asked = Promise.resolve(snapshots.isOnDuty(true))
      .catch(() => undefined);
    const isOnDuty = await Promise.race([asked, late]);
    return isOnDuty === undefined ? {} : { isOnDuty };
  } finally {
    cancel();
  }
}

function totalsOf(
  { telemetry, connections, load, memory }: Core,
): ServerTotals {
  const all = [...connections];
  const used = memory?.();
  return {
    ...(used === undefined ? {} : { memory: used }),
    counts: { ...telemetry.counts },
    queuedBytes: all.reduce((sum, { queuedBytes }) => sum + queuedBytes, 0),
    appending: all.filter(({ streams }) => streams.isAppending).length,
    creditWaitMs: load.waitMs,
    appendMs: telemetry.recentAppends(),
  };
}

function clientOf(
  connection: Connection,
  clusters: readonly bigint[],
  now: number,
): ClientReport {
  const { number, authentication, address, streams } = connection;
  const { principal } = authentication;
  return {
    connection: number,
    ...(principal === undefined || principal.isAnonymous
      ? {}
      : { principal: principal.id }),
    ...(address === undefined ? {} : { address }),
    connectedMs: now - connection.connectedAt,
    clusters: clusters.map(String),
    nodes: [...new Set(connection.nodes.map(String))],
    streams: streams.size,
    queuedBytes: connection.queuedBytes,
    isAppending: streams.isAppending,
  };
}

async function clusterOf(
  core: Core,
  info: ClusterInfo,
  clients: number,
): Promise<ClusterReport> {
  const { clusterID, nodeID, state, error, storageError, log } = info;
  const replica = core.host.replica(clusterID);
  const hash = await replica?.getHash().catch(() => undefined);
  const history = await replica?.history();
  const served = await core.clusters.peek(clusterID);
  const agreed = served?.agreement;
  const order = core.decidesAlone ? served?.log.order : undefined;
  const wait = served?.log.order?.wait;
  const code = core.options.inspector!.code?.(clusterID);
  const reason = state === "failed"
    ? describeFailure(clusterID, error)
    : storageError === undefined
    ? undefined
    : describeStorageError(clusterID, storageError);
  return {
    clusterID: `${clusterID}`,
    nodeID: `${nodeID}`,
    state,
    ...(reason === undefined ? {} : { reason }),
    appliedIndex: info.appliedIndex,
    committedIndex: info.committedIndex,
    ...(log === undefined ? {} : { firstIndex: log.first }),
    ...(log?.bytes === undefined ? {} : { logBytes: log.bytes }),
    ...(hash === undefined ? {} : {
      hash: hash.hash.toString(16).padStart(16, "0"),
      hashIndex: hash.index,
    }),
    ...(agreed === undefined ? {} : {
      agreedIndex: agreed.index,
      agreedMs: core.env.now() - agreed.at,
    }),
    ...(order === undefined ? {} : { hasTurn: order.isHeld }),
    ...(wait === undefined ? {} : { turnWait: wait }),
    ...(code === undefined ? {} : { code }),
    sessions: history?.sessions().length ?? 0,
    clients,
    snapshots: info.snapshots.map(({ index, kind, size }) => ({
      index,
      kind,
      size,
    })),
  };
}

/** Newest entries of a replica, within bounds. */
async function newestEntries(
  core: Core,
  replica: Replica,
): Promise<readonly EntryReport[]> {
  const { signal, release } = timeLimit(
    core.env,
    INSPECTOR_ANSWER_MS_MAX,
    "Log was not read",
  );
  const last = replica.appliedIndex;
  const { first = 1 } = replica.logInfo ?? {};
  const history = await replica.history();
  const entries: EntryReport[] = [];
  try {
    const reader = await history.read(
      Math.min(last, Math.max(first - 1, last - INSPECTOR_SENT_ENTRIES_MAX)),
      signal,
    );
    try {
      while ((entries.at(-1)?.index ?? first - 1) < last) {
        const part = await abortable(reader.next(), signal);
        for (const { cmd, ...entry } of part) {
          entries.push(
            cmd === undefined ? entry : { ...entry, cmd: toBase64(cmd) },
          );
        }
      }
    } finally {
      reader.close();
    }
  } catch (error) {
    if (!(error instanceof ErrCompacted)) throw error;
  } finally {
    release();
  }
  return newestWithin(entries);
}

/** Newest entries that together are within the bound of an answer; at least one. */
function newestWithin(entries: readonly EntryReport[]): readonly EntryReport[] {
  let bytes = 0;
  let from = entries.length;
  while (from > 0 && bytes < INSPECTOR_SENT_BYTES) {
    bytes += entries[--from]!.bytes;
  }
  return entries.slice(from).slice(-INSPECTOR_SENT_ENTRIES_MAX);
}

function toBase64(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}
