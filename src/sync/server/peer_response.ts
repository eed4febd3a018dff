/**
 * Snapshots that the other servers on the same logs fetch from this one.
 *
 * They are named by their SHA-256, and sent only to a request whose token was made
 * with the secret of the servers: a snapshot holds the whole state of a cluster. The
 * hooks of clients do not apply.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { isU64 } from "../../bytes.ts";
import type { HeldSnapshot } from "../../log/log.ts";
import { ErrSnapshotNotFound } from "../../snapshot/errors.ts";
import type { Core } from "./core.ts";
import { ANONYMOUS } from "./hooks.ts";
import { methodNotAllowed } from "./http_responses.ts";
import { RequestRejected, sentSnapshot, takeSlot } from "./http_transfer.ts";

/** Response to another server that fetches a snapshot; undefined for any other path, and where servers do not exchange snapshots. */
export function peerResponse(
  core: Core,
  request: Request,
  pathname: string,
  address: string | undefined,
): Promise<Response> | undefined {
  const match = /^\/clusters\/(\d{1,20})\/snapshots\/([0-9a-f]{64})$/.exec(
    pathname,
  );
  if (match === null || core.host.logDB.peers === undefined) return undefined;
  return respond(core, request, BigInt(match[1]!), match[2]!, address);
}

async function respond(
  core: Core,
  request: Request,
  clusterID: bigint,
  name: string,
  address: string | undefined,
): Promise<Response> {
  const { peers } = core.host.logDB;
  if (request.method !== "GET") return methodNotAllowed(request, ["GET"]);
  const token = /^Bearer (\S+)$/i.exec(
    request.headers.get("authorization") ?? "",
  )?.[1];
  if (
    !isU64(clusterID) || !await peers!.permits(clusterID, name, token)
  ) {
    throw new RequestRejected(
      403,
      `Snapshot ${name} of cluster ${clusterID} is for the other servers only: the request has no token made with their secret`,
    );
  }
  const missing = (): RequestRejected =>
    new RequestRejected(
      404,
      `Snapshot ${name} of cluster ${clusterID} is not here`,
    );
  const held = await peers!.find(clusterID, name);
  if (held === undefined) throw missing();
  const offset = offsetOf(request, held);
  const slot = takeSlot(core, ANONYMOUS, address);
  try {
    const content = withoutFirst(await held.open(), offset);
    const body = sentSnapshot(
      core,
      { content, retention: { move(): void {}, release(): void {} } },
      { checkRecent: () => Promise.resolve(true) },
      slot,
      () => slot.release(),
    );
    const { size } = held;
    return new Response(body, {
      status: offset === 0 ? 200 : 206,
      headers: {
        "content-type": "application/octet-stream",
        "content-length": String(size - offset),
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        ...(offset === 0
          ? {}
          : { "content-range": `bytes ${offset}-${size - 1}/${size}` }),
      },
    });
  } catch (error) {
    slot.release();
    // Removed in this moment, because of newer ones.
    throw error instanceof ErrSnapshotNotFound ? missing() : error;
  }
}

/** First byte that a request asks for. */
function offsetOf(request: Request, { size }: HeldSnapshot): number {
  const range = request.headers.get("range");
  if (range === null) return 0;
  const offset = Number(/^bytes=(\d{1,15})-$/.exec(range)?.[1]);
  if (offset < size) return offset;
  throw new RequestRejected(
    416,
    `Range "${range}" is not one of the ${size} bytes to the end`,
  );
}

/** Content without its first bytes, which are read and dropped. */
function withoutFirst(
  content: ReadableStream<Uint8Array>,
  offset: number,
): ReadableStream<Uint8Array> {
  if (offset === 0) return content;
  let left = offset;
  return content.pipeThrough(
    new TransformStream({
      transform(chunk, controller): void {
        const rest = chunk.subarray(Math.min(left, chunk.length));
        left -= chunk.length - rest.length;
        if (rest.length > 0) controller.enqueue(rest);
      },
    }),
  );
}
