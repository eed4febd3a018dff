/**
 * The first words of a connection: which version is spoken, and with whom.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { SYNC_FRAME_BYTES_MIN } from "../../limits.ts";
import { SampanError } from "../../statemachine/errors.ts";
import { ErrForbidden, ErrUnauthenticated } from "../errors.ts";
import type { Hello, Versions } from "../messages.ts";
import { CloseCode } from "../transport.ts";
import type { Core } from "./core.ts";
import { ownerOf } from "./gate.ts";
import type { Identity } from "./hooks.ts";

/** Reason of the refusal of a token that `authenticate` does not accept. */
export const NOT_GOOD = "Token is unknown or has expired";

/** The principal at the other end of a connection. */
export interface Who extends Identity {
  /** The principal as the log has it. */
  readonly owner: Uint8Array;
}

/** The request a connection began with. */
export interface Upgrade {
  /** Its address. */
  readonly url: string;
  /** Its headers. */
  readonly headers: Headers;
  /** Remote address, if it is known. */
  readonly address?: string | undefined;
}

/** Why a connection is closed, with a code of its own. */
export class Violation extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "Violation";
  /** By which code it is closed. */
  readonly code: number;
  /** A violation that is told by `code`, and in words. */
  constructor(code: number, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/**
 * The newest version that both ends speak.
 *
 * @throws Violation if there is none, or the client does not take what may come
 */
export function agree(versions: Versions, hello: Hello): number {
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
      `Client takes frames of ${hello.frameBytesMax} bytes, less than the least, ${SYNC_FRAME_BYTES_MIN}`,
    );
  }
  return version;
}

/**
 * Who it is that said hello.
 *
 * @throws Violation if nobody knows, with the code that tells the client whether another token would help
 */
export async function identify(
  core: Core,
  upgrade: Upgrade,
  token: string | undefined,
): Promise<Who> {
  try {
    const identity = await core.identify(requestOf(upgrade, token));
    const owner = await ownerOf(identity.id);
    // It may have been revoked since.
    if (identity.signal?.aborted) throw new ErrUnauthenticated(NOT_GOOD);
    return { ...identity, owner };
  } catch (cause) {
    if (cause instanceof ErrUnauthenticated) {
      throw new Violation(CloseCode.Unauthenticated, cause.message);
    }
    if (cause instanceof ErrForbidden) {
      throw new Violation(CloseCode.Forbidden, cause.message);
    }
    // Not the client's fault: its token may be good, and it is to keep it.
    throw new Violation(
      CloseCode.GoingAway,
      "Server cannot tell who this is now",
      { cause },
    );
  }
}

/** The request of the upgrade, with the client's token. */
function requestOf(
  upgrade: Upgrade,
  token: string | undefined,
): Request {
  const headers = new Headers(upgrade.headers);
  if (token !== undefined) {
    try {
      headers.set("authorization", `Bearer ${token}`);
    } catch (cause) {
      throw new ErrUnauthenticated(
        "Authorization token is malformed: it has characters that no header may have",
        { cause },
      );
    }
  }
  return new Request(upgrade.url, { headers });
}
