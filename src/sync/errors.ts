/**
 * Errors of the connection between a server and its clients.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { messageOf } from "../describe.ts";
import { SampanError } from "../statemachine/errors.ts";

/** Error for a frame that is malformed or out of turn: the other end is broken, hostile, or speaks another protocol. */
export class ErrProtocol extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrProtocol";
}

/** Error for a URL that cannot be the address of a server; the message says what to change. */
export class ErrServerURL extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrServerURL";
  /** Address as the caller passed it. */
  readonly url: string;
  /** Creates the error of the address `url`. */
  constructor(url: string, message: string) {
    super(message);
    this.url = url;
  }
}

/** Error for a cluster that exceeds what the connections of one client can carry; close a cluster or use another client. */
export class ErrTooManyClusters extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrTooManyClusters";
}

/** Error for two ends without a protocol version in common: the page or the server must be updated. */
export class ErrVersion extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrVersion";
}

/** Error for a principal that the server cannot authenticate, or whose token has expired: a new token is needed (U34). */
export class ErrUnauthenticated extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrUnauthenticated";
}

/** Error for a principal that is authenticated but has no permission. */
export class ErrForbidden extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrForbidden";
}

/** Error for a connection that ended or failed; the client reconnects. Nothing that was unsent took effect. */
export class ErrConnectionLost extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrConnectionLost";
  /** Code of the close: a `CloseCode`, or one of the WebSocket protocol; 1006 if the connection broke. */
  readonly code: number;
  /** Creates the error of a connection closed with `code`. */
  constructor(code: number, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/**
 * Error for a client's copy of the log that has reached its size limit: an offline
 * start ends where the copy ends. The copy continues once it is compacted, which
 * takes two durable snapshots.
 */
export class ErrCopyFull extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrCopyFull";
}

/** Error for a request that failed on the server without effect; it may succeed later. */
export class ErrRemote extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrRemote";
}

/**
 * Error for a cluster that has failed on the server, for example at a command that
 * cannot be applied. Submissions stay queued; the client retries, and continues once
 * the operator has restarted the cluster.
 */
export class ErrClusterFailed extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrClusterFailed";
}

/**
 * Error for a hook of the application (`authenticate`, `authorize`, `validate` or
 * `fetch`) that threw, returned a value of the wrong type, or timed out; `cause`
 * says which. Clients only learn that they should retry; the error is in the
 * server's log.
 */
export class ErrHookFailed extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "ErrHookFailed";
  /** Name of the hook. */
  readonly hook: string;
  /** Creates the error of `hook`, which failed with `cause`. */
  constructor(hook: string, cause: unknown) {
    super(`${hook} failed: ${messageOf(cause)}`, { cause });
    this.hook = hook;
  }
}
