/**
 * Failures of connections and clusters: reason codes for programs, messages for
 * people, and the error behind each.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { messageOf } from "../../describe.ts";
import { ErrOtherHistory } from "../../log/errors.ts";
import { ErrOtherPrincipal, ErrOutboxCopied } from "../../offline/errors.ts";
import { ErrNewerCode, ErrOtherAuthor } from "../../statemachine/errors.ts";
import {
  ErrConnectionLost,
  ErrForbidden,
  ErrProtocol,
  ErrUnauthenticated,
  ErrVersion,
} from "../errors.ts";
import { CloseCode } from "../transport.ts";
import type { ConnectionEnd } from "./connection.ts";

/**
 * Code of the reason why a client, or one of its clusters, is not live.
 *
 * Of the connection to the server:
 * - `unreachable`: nothing answers at this address, or what answers is not a
 *   Sampan server that lets pages of this origin read its answers.
 * - `not-sampan`: a web server answers, but no Sampan server at this path.
 * - `intercepted`: a web page or a redirection answers, as that of a captive
 *   portal or of a login in front of the server.
 * - `gateway`: a gateway in front of the server answers that the server is down.
 * - `websocket-blocked`: the server answers over HTTP, but no WebSocket reaches it.
 * - `not-allowed`: the platform does not let this page connect to the address,
 *   as a page served over HTTPS to a `ws:` address.
 * - `lost`: the connection broke.
 * - `no-answer`: the connection was made, but the server was silent for too long.
 * - `stopping`: the server stops or restarts.
 * - `token-failed`: the application's `token` function threw, or took too long.
 * - `needs-auth`: the server asks for another token, or a gateway for a login; of one
 *   cluster: a queued command is another author's than the principal's, and waits
 *   until its author signs in.
 * - `forbidden`: the server refuses this principal, or pages of this origin.
 * - `version`: page and server have no version of the protocol in common.
 * - `protocol`: one of the two ends sent what the other does not understand.
 * - `too-large`: a frame was larger than the server, or a gateway, accepts.
 * - `too-many`: the server accepts no more connections, or messages.
 *
 * Of one cluster, while there is a connection:
 * - `no-cluster`: the server does not serve this cluster, at least not yet.
 * - `cluster-failed`: the cluster has failed on the server, for example at a
 *   command that cannot be applied, and waits for its operator.
 * - `cluster-stopped`: the cluster is stopped on the server, or cannot be opened now.
 * - `too-many-clusters`: more clusters are open than the server accepts.
 * - `node-id-taken`: this device uses the node id of the server's own replica.
 * - `held`: the server cannot validate commands now; they are queued there.
 * - `older-server`: the server runs older code of the application, which does not
 *   know a queued command; it is sent once the server is updated.
 * - `cut-off`: the server does not reach its log; another address is tried, if there
 *   is one.
 * - `storage`: the server cannot store commands, for example because its disk is
 *   full; they stay queued on this device.
 *
 * Of one cluster, with or without a connection, until someone acts:
 * - `other-history`: the server's log was reset, or restored from an older backup
 *   than what this device has seen.
 * - `other-principal`: the submissions in the outbox belong to another principal
 *   than the one who is signed in.
 * - `outbox-copied`: the outbox is a copy of another one.
 * - `newer-code`: only newer code of the application knows what the log has: reload
 *   the page.
 * - `replica-failed`: the replica on this device has failed.
 */
export type ReasonCode =
  | "unreachable"
  | "not-sampan"
  | "intercepted"
  | "gateway"
  | "websocket-blocked"
  | "not-allowed"
  | "lost"
  | "no-answer"
  | "stopping"
  | "token-failed"
  | "needs-auth"
  | "forbidden"
  | "version"
  | "protocol"
  | "too-large"
  | "too-many"
  | "no-cluster"
  | "cluster-failed"
  | "cluster-stopped"
  | "too-many-clusters"
  | "node-id-taken"
  | "held"
  | "older-server"
  | "cut-off"
  | "storage"
  | "other-history"
  | "other-principal"
  | "outbox-copied"
  | "newer-code"
  | "replica-failed";

/** Reason why a client, or one of its clusters, is not live. */
export interface Reason {
  /** Reason code for programs. */
  readonly code: ReasonCode;
  /** Message for people: what is wrong and what to do about it. */
  readonly message: string;
  /** Server URL, if the reason concerns one. */
  readonly url?: string;
}

/** Reason why a cluster is blocked until someone acts, with its error. */
export function blockedBy(cause: unknown): { reason: Reason; error: Error } {
  const error = cause instanceof Error
    ? cause
    : new Error(`Replica has failed: ${messageOf(cause)}`, { cause });
  const code = error instanceof ErrOtherHistory
    ? "other-history"
    : error instanceof ErrOtherPrincipal
    ? "other-principal"
    : error instanceof ErrOutboxCopied
    ? "outbox-copied"
    : error instanceof ErrNewerCode
    ? "newer-code"
    : error instanceof ErrOtherAuthor
    ? "needs-auth"
    : "replica-failed";
  return { reason: { code, message: error.message }, error };
}

/** Failure of an attempt to connect, or of a connection. */
export interface Failure {
  readonly reason: Reason;
  readonly error: Error;
  /** Backoff class of further attempts at the same address. */
  readonly pace: "retry" | "refused" | "mismatch";
}

/** Attempt to connect, or connection, that has ended. */
export interface Attempted {
  readonly url: string;
  readonly end: ConnectionEnd;
  /** True if the transport was open. */
  readonly isOpened: boolean;
  /** True if the server had sent its welcome. */
  readonly isWelcomed: boolean;
}

/** Code of the WebSocket protocol for a message that is too big. */
const MESSAGE_TOO_BIG = 1009;

/** Codes of the WebSocket protocol by which a server, or a gateway, restarts or sheds load. */
const RESTARTS: readonly number[] = [CloseCode.GoingAway, 1012, 1013];

/** Returns the failure of an attempt or a connection from how it ended. */
export function failureOfConnection(attempted: Attempted): Failure {
  const { end: { code, reason: said }, url, isOpened, isWelcomed } = attempted;
  const failure = (
    code: ReasonCode,
    words: string,
    make: (message: string) => Error,
    pace: Failure["pace"],
  ): Failure => {
    const message = said === "" ? words : said;
    return { reason: { code, message, url }, error: make(message), pace };
  };
  const lost = (message: string): Error => new ErrConnectionLost(code, message);
  switch (code) {
    case CloseCode.Unauthenticated:
      return failure(
        "needs-auth",
        `Server ${url} asks for another token: sign in again`,
        (message) => new ErrUnauthenticated(message),
        "refused",
      );
    case CloseCode.Forbidden:
      return failure(
        "forbidden",
        `Server ${url} refuses this user: sign in as another one, or ask for access`,
        (message) => new ErrForbidden(message),
        "refused",
      );
    case CloseCode.Version:
      return failure(
        "version",
        "Page and server speak different versions: reload the page, or update the server",
        (message) => new ErrVersion(message),
        "mismatch",
      );
    case CloseCode.Protocol:
      return failure(
        "protocol",
        `Page and ${url} do not understand each other: reload the page, or update the server`,
        (message) => new ErrProtocol(message),
        "mismatch",
      );
    case CloseCode.TooBig:
      return failure(
        "too-large",
        `Server ${url} was sent more than it accepts: reload the page, or update the server`,
        (message) => new ErrProtocol(message),
        "mismatch",
      );
    case MESSAGE_TOO_BIG:
      return failure(
        "too-large",
        `A gateway between this page and ${url} refuses frames of this size: smaller ones are tried; raise its limit if that does not help`,
        lost,
        "retry",
      );
    case CloseCode.TooMany:
      return failure(
        "too-many",
        `Server ${url} accepts no more connections: close other tabs, or wait`,
        lost,
        "refused",
      );
    case CloseCode.Timeout:
      return failure(
        "no-answer",
        `Nothing was received from ${url} for too long: the connection is given up`,
        lost,
        "retry",
      );
  }
  if (RESTARTS.includes(code)) {
    return failure(
      "stopping",
      `Server ${url} stops or restarts`,
      lost,
      "retry",
    );
  }
  if (isWelcomed || isOpened) {
    return failure(
      "lost",
      isWelcomed
        ? `Connection to ${url} was lost`
        : `Connection to ${url} was lost before the server answered`,
      lost,
      "retry",
    );
  }
  return failure(
    "unreachable",
    `No connection to ${url}: check the network and the address, and that the server runs`,
    lost,
    "retry",
  );
}

/** Returns the failure of an attempt that made no connection. */
export function failureOfAttempt(
  code: "token-failed" | "not-allowed" | "no-answer",
  url: string,
  message: string,
  cause?: unknown,
): Failure {
  return {
    reason: { code, message, url },
    error: new ErrConnectionLost(1006, message, { cause }),
    pace: "retry",
  };
}

/** True if an HTTP request may find out more about a failed attempt. */
export function isVague({ code }: Reason): boolean {
  return code === "lost" || code === "unreachable" || code === "no-answer";
}

/** True for a reason that time alone does not remove: it stays visible during further attempts. */
export function isLasting({ code }: Reason): boolean {
  return code !== "lost" && code !== "unreachable" && code !== "no-answer" &&
    code !== "stopping";
}
