/**
 * HTTP API of a server: health, its inspector, snapshots in both directions, and
 * those that other servers fetch.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ErrClusterAlreadyExist, ErrClusterClosed } from "../../log/errors.ts";
import { isU64 } from "../../bytes.ts";
import { ErrSnapshotMismatch } from "../../nodehost/errors.ts";
import { withResolvers } from "../../async.ts";
import {
  ErrSnapshotCorrupted,
  ErrSnapshotVersion,
} from "../../snapshot/errors.ts";
import { ErrForbidden, ErrHookFailed, ErrUnauthenticated } from "../errors.ts";
import { failureOf } from "./cluster_failure.ts";
import type { Core } from "./core.ts";
import { healthResponse } from "./health.ts";
import type { Identity } from "./hooks.ts";
import { methodNotAllowed, share, TEXT } from "./http_responses.ts";
import { inspectorResponse } from "./inspector.ts";
import type { Action } from "./options.ts";
import type { OriginPolicy } from "./origin_policy.ts";
import { ReadPermission } from "./read_permission.ts";
import type { ClusterUser } from "./served_cluster.ts";
import { offerSnapshot } from "./snapshot_offer.ts";
import { RequestRejected, sentSnapshot, takeSlot } from "./http_transfer.ts";
import { peerResponse } from "./peer_response.ts";
import type { TransferSlot } from "./transfer_slots.ts";

/** Path and remote address of a request. */
export interface Route {
  /** Path of the request, without the base path of the server. */
  readonly pathname: string;
  /** Remote address, if it is known. */
  readonly address?: string | undefined;
}

/** Response to a request for health, the inspector or a snapshot; undefined for any other path. */
export function handle(
  core: Core,
  request: Request,
  origins: OriginPolicy,
  route: Route = new URL(request.url),
): Promise<Response> | undefined {
  const { pathname, address } = route;
  const health = healthResponse(core, request, pathname);
  if (health !== undefined) {
    return Promise.resolve(health).then((response) =>
      share(response, request, origins)
    );
  }
  const inspected = inspectorResponse(core, request, pathname, origins);
  if (inspected !== undefined) {
    return inspected.catch((error) => errorResponse(core, undefined, error))
      .then((response) => share(response, request, origins));
  }
  const fetched = peerResponse(core, request, pathname, address);
  if (fetched !== undefined) {
    return fetched.catch((error) => errorResponse(core, undefined, error));
  }
  const match = /^\/clusters\/(\d{1,20})\/snapshot$/.exec(pathname);
  if (match === null) return undefined;
  const clusterID = BigInt(match[1]!);
  return snapshotResponse(core, request, clusterID, origins, address)
    .catch((error) => errorResponse(core, clusterID, error))
    .then((response) => share(response, request, origins));
}

async function snapshotResponse(
  core: Core,
  request: Request,
  clusterID: bigint,
  origins: OriginPolicy,
  address: string | undefined,
): Promise<Response> {
  if (!origins.allow(request)) {
    throw new RequestRejected(403, ORIGIN_NOT_ALLOWED);
  }
  if (!isU64(clusterID)) {
    throw new RequestRejected(404, `There is no cluster ${clusterID} here`);
  }
  switch (request.method) {
    case "HEAD":
      await authorize(core, request, clusterID, "read");
      return headResponse(core, clusterID);
    case "GET":
      return await download(
        core,
        await authorize(core, request, clusterID, "read"),
        clusterID,
        address,
      );
    case "PUT":
    case "POST":
      return await upload(
        core,
        await authorize(core, request, clusterID, "upload"),
        request,
        clusterID,
        address,
      );
    default:
      return methodNotAllowed(request, ["GET", "HEAD", "PUT", "POST"]);
  }
}

/** Reason for rejecting a page, or a host name that a page may have been made to use. */
export const ORIGIN_NOT_ALLOWED: string =
  "This server accepts neither pages of this origin nor requests by this host name: see its option origins";

/** Authenticates a request and checks that its principal may do an action. */
async function authorize(
  core: Core,
  request: Request,
  clusterID: bigint,
  action: Action,
): Promise<Identity> {
  // A copy without the body, which `authenticate` must not consume.
  const { url, headers } = request;
  const identity = await core.hooks.authenticate(new Request(url, { headers }));
  const { principal } = identity;
  if (!await core.hooks.authorize(principal, clusterID, action)) {
    throw new RequestRejected(
      403,
      `You may not ${action} cluster ${clusterID}`,
    );
  }
  return identity;
}

async function download(
  core: Core,
  identity: Identity,
  clusterID: bigint,
  address: string | undefined,
): Promise<Response> {
  const slot = takeSlot(core, identity, address);
  try {
    const cluster = await core.clusters.get(clusterID);
    if (cluster === undefined) throw noCluster(core, clusterID);
    const user: ClusterUser = { clusterEnded(): void {} };
    cluster.users.add(user);
    const end = (): void => {
      cluster.users.delete(user);
      slot.release();
    };
    try {
      const offer = await offerSnapshot(core.host, cluster, 0);
      const { env, hooks } = core;
      const permission = new ReadPermission({
        env,
        hooks,
        clusterID,
        identity: () => identity,
      });
      return new Response(sentSnapshot(core, offer, permission, slot, end), {
        headers: headersOf(clusterID, offer.header.index, offer.size),
      });
    } catch (error) {
      end();
      throw error;
    }
  } catch (error) {
    slot.release();
    throw error;
  }
}

/** Response to HEAD, without the size: exporting a snapshot to learn it may take long. */
function headResponse(core: Core, clusterID: bigint): Response {
  const replica = core.host.replica(clusterID);
  if (replica === undefined) throw noCluster(core, clusterID);
  const headers = headersOf(clusterID, replica.appliedIndex);
  // Without a body, the response would have a `content-length` of 0.
  return new Response(new ReadableStream(), { headers });
}

function noCluster(core: Core, clusterID: bigint): RequestRejected {
  const failed = failureOf(core.host, clusterID);
  if (failed !== undefined) return new RequestRejected(503, failed);
  return new RequestRejected(404, `There is no cluster ${clusterID} here`);
}

function headersOf(clusterID: bigint, index: number, size = 0): Headers {
  const name = `cluster-${clusterID}-${index}.snapshot`;
  const headers = new Headers({
    "content-type": "application/octet-stream",
    "content-disposition": `attachment; filename="${name}"`,
    "x-content-type-options": "nosniff",
  });
  if (size > 0) headers.set("content-length", String(size));
  return headers;
}

async function upload(
  core: Core,
  identity: Identity,
  request: Request,
  clusterID: bigint,
  address: string | undefined,
): Promise<Response> {
  const { body } = request;
  if (body === null) {
    throw new RequestRejected(400, "Request has no body; send a snapshot");
  }
  const slot = takeSlot(core, identity, address);
  const work = core.telemetry.begin("upload");
  try {
    const { uploadBytes } = core.limits;
    await core.host.importSnapshot(
      clusterID,
      received(core, body, uploadBytes, slot),
    );
    core.log.write({ level: "info", event: "uploaded", clusterID });
    work.end();
    return new Response(null, { status: 201 });
  } catch (error) {
    work.end(error);
    throw error;
  } finally {
    slot.release();
  }
}

/** Content of a snapshot that is received; fails past `max` bytes or if the client sends too slowly, as its cluster cannot start during the import. */
function received(
  core: Core,
  body: ReadableStream<Uint8Array>,
  max: number,
  slot: TransferSlot,
): ReadableStream<Uint8Array> {
  const reader = body.getReader();
  let size = 0;
  const evicted = withResolvers<never>();
  // Handled here, since it may reject while no read waits.
  evicted.promise.catch(() => {});
  slot.start();
  slot.evict = (reason): void =>
    evicted.reject(new RequestRejected(408, reason));
  return new ReadableStream({
    pull: async (controller): Promise<void> => {
      const late = withResolvers<never>();
      const cancelTimer = core.env.setTimer(
        () =>
          late.reject(new RequestRejected(408, "Snapshot is sent too slowly")),
        core.limits.slowMs,
      );
      try {
        const { done, value } = await Promise.race([
          reader.read(),
          late.promise,
          evicted.promise,
        ]);
        if (done) return controller.close();
        size += value.length;
        slot.transferred(value.length);
        if (size > max) {
          throw new RequestRejected(
            413,
            `Snapshot is over the limit of ${max} bytes`,
          );
        }
        controller.enqueue(value);
      } catch (error) {
        reader.cancel(error).catch(() => {});
        throw error;
      } finally {
        cancelTimer();
      }
    },
    cancel: (reason) => reader.cancel(reason),
  }, { highWaterMark: 0 });
}

function errorResponse(
  core: Core,
  clusterID: bigint | undefined,
  error: unknown,
): Response {
  const status = statusOf(error);
  const level = status >= 500 ? "error" : "warn";
  const event = error instanceof ErrHookFailed
    ? `${error.hook} failed`
    : "request failed";
  const record = {
    level,
    event,
    ...(clusterID === undefined ? {} : { clusterID }),
    error,
  } as const;
  if (status < 500 || error instanceof RequestRejected) {
    core.log.writeRejection(record);
  } else core.log.write(record);
  const message = status >= 500 && !(error instanceof RequestRejected)
    ? "Server failed on this request; try again later"
    : (error as Error).message;
  const headers = new Headers(TEXT);
  if (status === 401) headers.set("www-authenticate", "Bearer");
  if (status === 503) headers.set("retry-after", "5");
  return new Response(`${message}\n`, { status, headers });
}

function statusOf(error: unknown): number {
  if (error instanceof RequestRejected) return error.status;
  if (error instanceof ErrUnauthenticated) return 401;
  if (error instanceof ErrForbidden) return 403;
  if (error instanceof ErrClusterAlreadyExist) return 409;
  if (error instanceof ErrClusterClosed) return 503;
  // Not the client's fault: it may retry.
  if (error instanceof ErrHookFailed) return 503;
  if (
    error instanceof ErrSnapshotMismatch ||
    error instanceof ErrSnapshotCorrupted || error instanceof ErrSnapshotVersion
  ) return 422;
  return 500;
}
