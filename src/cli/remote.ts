/**
 * Snapshots from and to a server over HTTP.
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

/** A server refused a request, or something else than a Sampan server answered. */
export class ErrServerAnswer extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrServerAnswer";
  /** HTTP status of the answer. */
  readonly status: number;
  /** An error with the words of the server. */
  constructor(url: string, status: number, text: string) {
    super(`${url} answered ${status}${text === "" ? "" : `: ${text}`}`);
    this.status = status;
  }
}

/** A server could not be reached. */
export class ErrServerUnreachable extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrServerUnreachable";
  /** An error with the cause that `fetch` names. */
  constructor(url: string, error: unknown) {
    const cause = error instanceof Error && error.cause !== undefined
      ? error.cause
      : error;
    super(`${url} cannot be reached: ${messageOf(cause)}`, { cause: error });
  }
}

/** A snapshot to be sent or fetched. */
export interface RemoteSnapshot {
  /** URL of the server. */
  readonly url: string;
  /** Token that the server asks for. */
  readonly token: string | undefined;
  /** Id of the cluster. */
  readonly cluster: string;
  /** Path of the file. */
  readonly file: string;
  /** Gives up. */
  readonly signal: AbortSignal;
}

async function ask(
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
    // A file that is sent may have failed, too.
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

/** Writes a cluster's state, fetched from a server, to a new file. */
export async function downloadSnapshot(
  request: RemoteSnapshot,
  progress: (progress: Progress) => void,
): Promise<Outcome> {
  const response = await ask(request, {});
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

/** Sends a snapshot file to a server, for a cluster that has nothing there yet. */
export async function uploadSnapshot(
  request: RemoteSnapshot,
  progress: (progress: Progress) => void,
): Promise<Outcome> {
  const { cluster, url } = request;
  const file = resolve(request.file);
  const response = await ask(request, {
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
