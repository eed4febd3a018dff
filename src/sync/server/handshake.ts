/**
 * Handshake of a connection: protocol version and authentication.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../../env.ts";
import { SYNC_FRAME_BYTES_MIN } from "../../limits.ts";
import { SampanError } from "../../statemachine/errors.ts";
import { ErrForbidden, ErrUnauthenticated } from "../errors.ts";
import type { Hello, Versions } from "../messages.ts";
import { CloseCode } from "../transport.ts";
import { ownerOf } from "./admission.ts";
import { type Hooks, type Identity, NOT_AUTHENTICATED } from "./hooks.ts";

/** Principal at the other end of a connection. */
export interface ConnectedPrincipal extends Identity {
  /** Owner of the sessions of this principal, as the log stores it. */
  readonly owner: Uint8Array;
}

/** HTTP request that a connection began with. */
export interface UpgradeRequest {
  /** URL of the request. */
  readonly url: string;
  /** Headers of the request. */
  readonly headers: Headers;
  /** Remote address, if it is known. */
  readonly address?: string | undefined;
}

/** Error that closes the connection with a code of its own. */
export class Violation extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "Violation";
  /** `CloseCode` that the connection is closed with. */
  readonly code: number;
  /** Creates a violation that closes the connection with `code` and `message`. */
  constructor(code: number, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/**
 * Negotiates the protocol: the newest version that both ends speak.
 *
 * @throws Violation if there is no common version, or the client's largest frame is too small
 */
export function negotiate(versions: Versions, hello: Hello): number {
  const version = Math.min(versions.last, hello.last);
  if (version < Math.max(versions.first, hello.first)) {
    const remedy = hello.last < versions.first
      ? "reload the page"
      : "update the server";
    throw new Violation(
      CloseCode.Version,
      `This server speaks versions ${versions.first} to ${versions.last}, this page ${hello.first} to ${hello.last}: ${remedy}`,
    );
  }
  if (hello.frameBytesMax < SYNC_FRAME_BYTES_MIN) {
    throw new Violation(
      CloseCode.TooBig,
      `Client accepts frames of ${hello.frameBytesMax} bytes, below the minimum of ${SYNC_FRAME_BYTES_MIN}`,
    );
  }
  return version;
}

/**
 * Authenticates a client by its upgrade request and its token.
 *
 * @throws Violation if it is not authenticated, with a code that says whether another token would help
 */
export async function authenticate(
  { env, hooks }: { readonly env: Env; readonly hooks: Hooks },
  upgrade: UpgradeRequest,
  token: string | undefined,
): Promise<ConnectedPrincipal> {
  try {
    const identity = await hooks.authenticate(requestOf(upgrade, token));
    const owner = await ownerOf(env, identity.id);
    // The principal may have been revoked since.
    if (identity.signal?.aborted) {
      throw new ErrUnauthenticated(NOT_AUTHENTICATED);
    }
    return { ...identity, owner };
  } catch (cause) {
    if (cause instanceof ErrUnauthenticated) {
      throw new Violation(CloseCode.Unauthenticated, cause.message);
    }
    if (cause instanceof ErrForbidden) {
      throw new Violation(CloseCode.Forbidden, cause.message);
    }
    // Not the client's fault: its token may be valid, and the client keeps it.
    throw new Violation(
      CloseCode.GoingAway,
      "Server cannot authenticate you now; reconnect",
      { cause },
    );
  }
}

/** Upgrade request with the token of the client as its authorization. */
function requestOf(
  upgrade: UpgradeRequest,
  token: string | undefined,
): Request {
  const headers = new Headers(upgrade.headers);
  if (token !== undefined) {
    try {
      headers.set("authorization", `Bearer ${token}`);
    } catch (cause) {
      throw new ErrUnauthenticated(
        "Authorization token is malformed: it has characters that an HTTP header cannot have",
        { cause },
      );
    }
  }
  return new Request(upgrade.url, { headers });
}
