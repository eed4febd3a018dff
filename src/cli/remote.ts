/**
 * Download and upload of snapshots over HTTP.
 *
 * This module needs Deno.
 *
 * @module
 */

import { resolve } from "node:path";
import { messageOf } from "../describe.ts";
import { SampanError } from "../statemachine/errors.ts";
import {
  bytes,
  headerData,
  headerLine,
  type Outcome,
  type Progress,
  readFile,
  verifying,
  writeNew,
} from "./operations.ts";

/** Error for a request that was answered with an HTTP status other than success. */
export class ErrServerAnswer extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrServerAnswer";
  /** HTTP status of the response. */
  readonly status: number;
  /** Creates an error with the text of the response. */
  constructor(url: string, status: number, text: string) {
    super(`${url} answered ${status}${text === "" ? "" : `: ${text}`}`);
    this.status = status;
  }
}

/** Error for a server that could not be reached. */
export class ErrServerUnreachable extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrServerUnreachable";
  /** Creates an error with the cause of an error of `fetch`. */
  constructor(url: string, error: unknown) {
    const cause = error instanceof Error && error.cause !== undefined
      ? error.cause
      : error;
    super(`${url} cannot be reached: ${messageOf(cause)}`, { cause: error });
  }
}

/** Snapshot to download or upload. */
export interface RemoteSnapshot {
  /** URL of the server. */
  readonly url: string;
  /** Token for the server; undefined if it requires none. */
  readonly token: string | undefined;
  /** Id of the cluster. */
  readonly cluster: string;
  /** Path of the snapshot file. */
  readonly file: string;
  /** Cancels the request. */
  readonly signal: AbortSignal;
}

async function send(
  { url, token, cluster, signal }: RemoteSnapshot,
  init: RequestInit,
): Promise<Response> {
  const base = url.replace(/^ws/, "http");
  const at = new URL(
    `clusters/${cluster}/snapshot`,
    base.endsWith("/") ? base : `${base}/`,
  );
  const headers = new Headers();
  if (token !== undefined) headers.set("authorization", `Bearer ${token}`);
  let response: Response;
  try {
    response = await fetch(at, { ...init, headers, signal });
  } catch (error) {
    signal.throwIfAborted();
    // An error of the file that is uploaded is thrown unchanged.
    throw error instanceof TypeError
      ? new ErrServerUnreachable(at.href, error)
      : error;
  }
  if (response.ok) return response;
  throw new ErrServerAnswer(
    at.href,
    response.status,
    (await response.text()).trim().slice(0, 500),
  );
}

/** Downloads the state of a cluster to a new file. */
export async function downloadSnapshot(
  request: RemoteSnapshot,
  progress: (progress: Progress) => void,
): Promise<Outcome> {
  const response = await send(request, {});
  const total = Number(response.headers.get("content-length") ?? 0);
  const { content, header } = verifying(
    response.body!,
    (done) => progress({ done, total: Math.max(done, total) }),
  );
  const size = await writeNew(request.file, content, request.signal);
  const known = await header;
  const file = resolve(request.file);
  return {
    ok: true,
    data: { file, size, ...headerData(known) },
    text: `${file}: ${headerLine(known)}, ${bytes(size)}`,
  };
}

/** Uploads a snapshot file as the initial state of a cluster without a log on the server. */
export async function uploadSnapshot(
  request: RemoteSnapshot,
  progress: (progress: Progress) => void,
): Promise<Outcome> {
  const { cluster, url } = request;
  const file = resolve(request.file);
  const response = await send(request, {
    method: "PUT",
    body: readFile(file, progress) as ReadableStream<Uint8Array<ArrayBuffer>>,
  });
  await response.body?.cancel();
  return {
    ok: true,
    data: { cluster, file, url },
    text: `Cluster ${cluster} of ${url} starts from ${file}`,
  };
}
