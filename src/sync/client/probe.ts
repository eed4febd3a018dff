/**
 * Finding out by HTTP why a WebSocket does not come about: a browser tells a
 * page nothing about a handshake that failed.
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
import type { ReasonCode, Trouble } from "./reason.ts";

/** Sends an HTTP request; the part of the global `fetch` that a client uses. */
export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

/**
 * Asks the address of a WebSocket over HTTP, once, and says what that tells about
 * a handshake that failed. Never rejects; undefined once `signal` aborts.
 */
export async function probe(
  url: string,
  fetch: Fetch,
  env: Env,
  signal: AbortSignal,
): Promise<Trouble | undefined> {
  const late = new AbortController();
  const abort = (): void => late.abort();
  const cancelTimer = env.setTimer(abort, SYNC_CONNECT_MS_MAX);
  signal.addEventListener("abort", abort, { once: true });
  try {
    const response = await fetch(url.replace(/^ws/, "http"), {
      // A redirection is an answer of its own: the handshake follows none.
      redirect: "manual",
      cache: "no-store",
      signal: late.signal,
    });
    response.body?.cancel().catch(() => {});
    return signal.aborted ? undefined : troubleOfResponse(url, response);
  } catch (cause) {
    return signal.aborted ? undefined : trouble(
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

function trouble(
  code: ReasonCode,
  url: string,
  message: string,
  make = (message: string): Error => new ErrConnectionLost(1006, message),
): Trouble {
  return {
    reason: { code, message, url },
    error: make(message),
    pace: "retry",
  };
}

function troubleOfResponse(url: string, response: Response): Trouble {
  const { status, headers, type } = response;
  const isServer = headers.has(SERVER_HEADER);
  if (status === 401 || status === 407) {
    return trouble(
      "needs-auth",
      url,
      `${url} asks for a login (HTTP ${status}): sign in again`,
      (message) => new ErrUnauthenticated(message),
    );
  }
  if (status === 403) {
    return isServer
      ? trouble(
        "forbidden",
        url,
        `Server ${url} refuses pages of this origin (HTTP 403): add it to the server's \`origins\``,
        (message) => new ErrForbidden(message),
      )
      : trouble(
        "not-sampan",
        url,
        `${url} refuses this page (HTTP 403), and is not a Sampan server: check the address, and what is in front of the server`,
      );
  }
  if (isServer && status < 500) {
    return trouble(
      "websocket-blocked",
      url,
      `Server ${url} answers, but WebSockets do not get through: have the proxy, firewall or network between let them pass`,
    );
  }
  if (status === 502 || status === 503 || status === 504) {
    return trouble(
      "gateway",
      url,
      `A gateway at ${url} answers that the server behind it is down (HTTP ${status}): start the server, or wait`,
    );
  }
  const isPage = headers.get("content-type")?.startsWith("text/html") &&
    status < 300;
  if (isPage || type === "opaqueredirect" || (status >= 300 && status < 400)) {
    return trouble(
      "intercepted",
      url,
      `A web page answers at ${url} in place of a Sampan server: sign in to the network, or check the address`,
    );
  }
  return trouble(
    "not-sampan",
    url,
    `A web server answers at ${url} (HTTP ${status}), but it is not a Sampan server: check host and path of the address (the path is /sync by default)`,
  );
}
