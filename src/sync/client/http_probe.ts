/**
 * HTTP probe of an address whose WebSocket handshake failed: a browser does not
 * tell a page the cause.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../../env.ts";
import { SYNC_CONNECT_MS_MAX } from "../../limits.ts";
import {
  ErrConnectionLost,
  ErrForbidden,
  ErrUnauthenticated,
} from "../errors.ts";
import { SERVER_HEADER } from "../transport.ts";
import type { Failure, ReasonCode } from "./failure.ts";

/** Function that sends an HTTP request: the part of the global `fetch` that a client uses. */
export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

/**
 * Sends one HTTP request to the address of a WebSocket, and derives from the
 * response why the handshake failed. Never rejects; resolves to undefined once
 * `signal` aborts.
 */
export async function probe(
  url: string,
  fetch: Fetch,
  env: Env,
  signal: AbortSignal,
): Promise<Failure | undefined> {
  const late = new AbortController();
  const abort = (): void => late.abort();
  const cancelTimer = env.setTimer(abort, SYNC_CONNECT_MS_MAX);
  signal.addEventListener("abort", abort, { once: true });
  try {
    const response = await fetch(url.replace(/^ws/, "http"), {
      // A WebSocket handshake follows no redirect, so a redirect is the cause.
      redirect: "manual",
      cache: "no-store",
      signal: late.signal,
    });
    response.body?.cancel().catch(() => {});
    return signal.aborted ? undefined : failureOfResponse(url, response);
  } catch (cause) {
    return signal.aborted ? undefined : failure(
      "unreachable",
      url,
      `Nothing answers at ${url}, or no Sampan server that pages of this origin may use: check the network and the address, and that the server runs`,
      (message) => new ErrConnectionLost(1006, message, { cause }),
    );
  } finally {
    cancelTimer();
    signal.removeEventListener("abort", abort);
  }
}

function failure(
  code: ReasonCode,
  url: string,
  message: string,
  make = (message: string): Error => new ErrConnectionLost(1006, message),
): Failure {
  return {
    reason: { code, message, url },
    error: make(message),
    pace: "retry",
  };
}

function failureOfResponse(url: string, response: Response): Failure {
  const { status, headers, type } = response;
  const isServer = headers.has(SERVER_HEADER);
  if (status === 401 || status === 407) {
    return failure(
      "needs-auth",
      url,
      `${url} asks for a login (HTTP ${status}): sign in again`,
      (message) => new ErrUnauthenticated(message),
    );
  }
  if (status === 403) {
    return isServer
      ? failure(
        "forbidden",
        url,
        `Server ${url} refuses pages of this origin (HTTP 403): add it to the server's \`origins\``,
        (message) => new ErrForbidden(message),
      )
      : failure(
        "not-sampan",
        url,
        `${url} refuses this page (HTTP 403), and is not a Sampan server: check the address, and what is in front of the server`,
      );
  }
  if (isServer && status < 500) {
    return failure(
      "websocket-blocked",
      url,
      `Server ${url} answers, but WebSockets do not get through: have the proxy, firewall or network between let them pass`,
    );
  }
  if (status === 502 || status === 503 || status === 504) {
    return failure(
      "gateway",
      url,
      `A gateway at ${url} answers that the server behind it is down (HTTP ${status}): start the server, or wait`,
    );
  }
  const isPage = headers.get("content-type")?.startsWith("text/html") &&
    status < 300;
  if (isPage || type === "opaqueredirect" || (status >= 300 && status < 400)) {
    return failure(
      "intercepted",
      url,
      `A web page answers at ${url} in place of a Sampan server: sign in to the network, or check the address`,
    );
  }
  return failure(
    "not-sampan",
    url,
    `A web server answers at ${url} (HTTP ${status}), but it is not a Sampan server: check host and path of the address (the path is /sync by default)`,
  );
}
