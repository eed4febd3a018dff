/**
 * What a server answers over plain HTTP: whether it is well, and snapshots in
 * both directions.
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
import { SampanError } from "../../statemachine/errors.ts";
import { ErrForbidden, ErrHookFailed, ErrUnauthenticated } from "../errors.ts";
import { share, TEXT, withoutMethod } from "./answers.ts";
import type { Core } from "./core.ts";
import { failureOf, health } from "./health.ts";
import type { HubUser } from "./hub.ts";
import type { Identity } from "./hooks.ts";
import type { Action } from "./options.ts";
import type { Pages } from "./pages.ts";
import type { Place } from "./places.ts";
import { ReadRight } from "./right.ts";
import { type Offer, offerSnapshot } from "./snapshots.ts";

/** Why a request is refused. */
class Refused extends SampanError {
  static override readonly errorName = "Refused";
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/** Origin and purpose of a request. */
export interface Route {
  /** Path of the request, without the base path of the server. */
  readonly pathname: string;
  /** Remote address, if it is known. */
  readonly address?: string | undefined;
}

/** Answers what is asked of the server itself; undefined for any other path. */
export function handle(
  core: Core,
  request: Request,
  pages: Pages,
  route: Route = new URL(request.url),
): Promise<Response> | undefined {
  const { pathname, address } = route;
  const healthy = health(core, request, pathname);
  if (healthy !== undefined) {
    return Promise.resolve(share(healthy, request, pages));
  }
  const match = /^\/clusters\/(\d{1,20})\/snapshot$/.exec(pathname);
  if (match === null) return undefined;
  const clusterID = BigInt(match[1]!);
  return snapshotOf(core, request, clusterID, pages, address)
    .catch((error) => refusal(core, clusterID, error))
    .then((response) => share(response, request, pages));
}

async function snapshotOf(
  core: Core,
  request: Request,
  clusterID: bigint,
  pages: Pages,
  address: string | undefined,
): Promise<Response> {
  if (!pages.allow(request)) throw new Refused(403, NOT_ALLOWED);
  if (!isU64(clusterID)) throw new Refused(404, "There is no such cluster");
  switch (request.method) {
    case "HEAD":
      await identify(core, request, clusterID, "read");
      return headersAlone(core, clusterID);
    case "GET":
      return await download(
        core,
        await identify(core, request, clusterID, "read"),
        clusterID,
        address,
      );
    case "PUT":
    case "POST":
      return await upload(
        core,
        await identify(core, request, clusterID, "upload"),
        request,
        clusterID,
        address,
      );
    default:
      return withoutMethod(request, ["GET", "HEAD", "PUT", "POST"]);
  }
}

/** Refusal of a page, or of a name that a page may have been made to use. */
export const NOT_ALLOWED: string =
  "This server accepts neither pages of this origin nor requests by this host name: see its option origins";

/** Whoever sends the request, if they may do that. */
async function identify(
  core: Core,
  request: Request,
  clusterID: bigint,
  action: Action,
): Promise<Identity> {
  // The body is not theirs to read.
  const { url, headers } = request;
  const identity = await core.identify(new Request(url, { headers }));
  const { principal } = identity;
  if (!await core.hooks.authorize(principal, clusterID, action)) {
    throw new Refused(403, `You may not ${action} cluster ${clusterID}`);
  }
  return identity;
}

/** Does what counts as a transfer, if there may be one more. */
function take(
  core: Core,
  identity: Identity,
  address: string | undefined,
): Place {
  if (core.isStopping) {
    throw new Refused(503, "Server is stopping; try again later");
  }
  const place = core.transfer(identity, address);
  if (place === undefined) {
    throw new Refused(503, "Too many snapshots are under way; try again later");
  }
  return place;
}

async function download(
  core: Core,
  identity: Identity,
  clusterID: bigint,
  address: string | undefined,
): Promise<Response> {
  const place = take(core, identity, address);
  try {
    const hub = await core.hub(clusterID);
    if (hub === undefined) throw noCluster(core, clusterID);
    const user: HubUser = { hubEnded(): void {} };
    hub.users.add(user);
    const end = (): void => {
      hub.users.delete(user);
      place.free();
    };
    try {
      const offer = await offerSnapshot(core.host, hub, 0);
      const right = new ReadRight(core, () => identity, clusterID);
      return new Response(watched(core, offer, right, place, end), {
        headers: headersOf(clusterID, offer.header.index, offer.size),
      });
    } catch (error) {
      end();
      throw error;
    }
  } catch (error) {
    place.free();
    throw error;
  }
}

/** Answer to HEAD: a snapshot may take long to make, and its size is known only then. */
function headersAlone(core: Core, clusterID: bigint): Response {
  const replica = core.host.replica(clusterID);
  if (replica === undefined) throw noCluster(core, clusterID);
  const headers = headersOf(clusterID, replica.appliedIndex);
  // Without a body, HTTP would tell a length of 0.
  return new Response(new ReadableStream(), { headers });
}

function noCluster(core: Core, clusterID: bigint): Refused {
  const failed = failureOf(core.host, clusterID);
  if (failed !== undefined) return new Refused(503, failed);
  return new Refused(404, `There is no cluster ${clusterID} here`);
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

/** The content, given up where nobody takes it for too long: it keeps the log from being cut. */
function watched(
  core: Core,
  { content, retention }: Offer,
  right: ReadRight,
  place: Place,
  ended: () => void,
): ReadableStream<Uint8Array> {
  const work = core.telemetry.begin("snapshot");
  const reader = content.getReader();
  let controller: ReadableStreamDefaultController<Uint8Array>;
  let cancelTimer: (() => void) | undefined;
  let isOver = false;
  const end = (error?: unknown): void => {
    if (isOver) return;
    isOver = true;
    cancelTimer?.();
    work.end(error);
    retention.release();
    ended();
  };
  const cut = (reason: string): void => {
    const error = new Refused(408, reason);
    controller.error(error);
    reader.cancel(error).catch(() => {});
    end(error);
  };
  const wait = (): void => {
    cancelTimer?.();
    cancelTimer = core.env.setTimer(
      () => cut("Snapshot is read too slowly"),
      core.limits.slowMs,
    );
  };
  place.begin();
  place.cut = cut;
  return new ReadableStream({
    start: (started): void => {
      controller = started;
      wait();
    },
    pull: async (): Promise<void> => {
      // Now it is the machine that takes its time.
      cancelTimer?.();
      try {
        if (!await right.recent()) {
          throw new Refused(403, "You may not read this cluster any more");
        }
        const { done, value } = await reader.read();
        if (done) {
          controller.close();
          return end();
        }
        core.telemetry.counts.snapshots += value.length;
        place.moved(value.length);
        controller.enqueue(value);
        wait();
      } catch (error) {
        reader.cancel(error).catch(() => {});
        end(error);
        throw error;
      }
    },
    cancel: async (reason): Promise<void> => {
      end(reason);
      await reader.cancel(reason);
    },
  }, { highWaterMark: 0 });
}

async function upload(
  core: Core,
  identity: Identity,
  request: Request,
  clusterID: bigint,
  address: string | undefined,
): Promise<Response> {
  const { body } = request;
  if (body === null) throw new Refused(400, "There is no snapshot");
  const place = take(core, identity, address);
  const work = core.telemetry.begin("upload");
  try {
    const { uploadBytes } = core.limits;
    await core.host.importSnapshot(
      clusterID,
      received(core, body, uploadBytes, place),
    );
    core.log({ level: "info", event: "uploaded", clusterID });
    work.end();
    return new Response(null, { status: 201 });
  } catch (error) {
    work.end(error);
    throw error;
  } finally {
    place.free();
  }
}

/** What is sent, unless it is more than `max` bytes, or nothing comes for too long: meanwhile its cluster cannot be started. */
function received(
  core: Core,
  body: ReadableStream<Uint8Array>,
  max: number,
  place: Place,
): ReadableStream<Uint8Array> {
  const reader = body.getReader();
  let size = 0;
  const cut = withResolvers<never>();
  // It may never be waited for.
  cut.promise.catch(() => {});
  place.begin();
  place.cut = (reason): void => cut.reject(new Refused(408, reason));
  return new ReadableStream({
    pull: async (controller): Promise<void> => {
      const late = withResolvers<never>();
      const cancelTimer = core.env.setTimer(
        () => late.reject(new Refused(408, "Snapshot is sent too slowly")),
        core.limits.slowMs,
      );
      try {
        const { done, value } = await Promise.race([
          reader.read(),
          late.promise,
          cut.promise,
        ]);
        if (done) return controller.close();
        size += value.length;
        place.moved(value.length);
        if (size > max) {
          throw new Refused(413, `Snapshot is over the limit of ${max} bytes`);
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

function refusal(core: Core, clusterID: bigint, error: unknown): Response {
  const status = statusOf(error);
  const level = status >= 500 ? "error" : "warn";
  const event = error instanceof ErrHookFailed
    ? `${error.hook} failed`
    : "request failed";
  const record = { level, event, clusterID, error } as const;
  if (status < 500 || error instanceof Refused) core.logRefusal(record);
  else core.log(record);
  const text = status >= 500 && !(error instanceof Refused)
    ? "Server cannot do that now"
    : (error as Error).message;
  const headers = new Headers(TEXT);
  if (status === 401) headers.set("www-authenticate", "Bearer");
  if (status === 503) headers.set("retry-after", "5");
  return new Response(`${text}\n`, { status, headers });
}

function statusOf(error: unknown): number {
  if (error instanceof Refused) return error.status;
  if (error instanceof ErrUnauthenticated) return 401;
  if (error instanceof ErrForbidden) return 403;
  if (error instanceof ErrClusterAlreadyExist) return 409;
  if (error instanceof ErrClusterClosed) return 503;
  // Not the client's fault: it may try again.
  if (error instanceof ErrHookFailed) return 503;
  if (
    error instanceof ErrSnapshotMismatch ||
    error instanceof ErrSnapshotCorrupted || error instanceof ErrSnapshotVersion
  ) return 422;
  return 500;
}
