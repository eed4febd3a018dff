/**
 * What goes wrong between a server and its clients.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { messageOf } from "../describe.ts";
import { SampanError } from "../statemachine/errors.ts";

/** A frame is no message, or one that may not come now: the other end is broken, hostile, or speaks another protocol. */
export class ErrProtocol extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrProtocol";
}

/** Error for the address of a server that is not one; the message says what to change. */
export class ErrServerURL extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrServerURL";
  /** The address as it was given. */
  readonly url: string;
  /** An error for the address `url`. */
  constructor(url: string, message: string) {
    super(message);
    this.url = url;
  }
}

/** Error for a cluster that no connection of a client has room for: more are open than a server serves to it. */
export class ErrTooManyClusters extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrTooManyClusters";
}

/** The two ends have no version of the protocol in common: one of them is to be updated. */
export class ErrVersion extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrVersion";
}

/** The server does not know who asks, or not any more: a new token is needed (U34). */
export class ErrUnauthenticated extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrUnauthenticated";
}

/** The server knows who asks, and refuses. */
export class ErrForbidden extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrForbidden";
}

/** A connection ended, or was never made; it is tried again. Of what was not sent yet, nothing took effect. */
export class ErrConnectionLost extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrConnectionLost";
  /** How it was closed: a `CloseCode`, or a code of the WebSocket protocol; 1006 if it merely broke. */
  readonly code: number;
  /** An error for a connection closed with `code`. */
  constructor(code: number, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/**
 * A client's copy of the log holds as much as it may: a start with no network
 * gets no further than to its end. Snapshots that outlive the page let it be cut;
 * two that were taken since have it go on.
 */
export class ErrCopyFull extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrCopyFull";
}

/** The server could not do what it was asked, and nothing took effect; it may go right another time. */
export class ErrRemote extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrRemote";
}

/**
 * The cluster has failed on the server, as when a command cannot be applied. What
 * is queued stays queued; the server is asked again, and all goes on by itself
 * once its operator has started the cluster again.
 */
export class ErrClusterFailed extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrClusterFailed";
}

/**
 * Fault of a hook of the program that serves (`authenticate`, `authorize`,
 * `validate` or `fetch`): it threw, gave an answer of the wrong kind, or none in
 * time. `cause` says which. Clients only learn that they should try again; this
 * error is in the server's log.
 */
export class ErrHookFailed extends SampanError {
  /** The name `instanceof` goes by. */
  static override readonly errorName = "ErrHookFailed";
  /** Name of the hook. */
  readonly hook: string;
  /** An error for `hook`, which has failed with `cause`. */
  constructor(hook: string, cause: unknown) {
    super(`${hook} failed: ${messageOf(cause)}`, { cause });
    this.hook = hook;
  }
}
