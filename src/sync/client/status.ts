/**
 * What a client tells of itself.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { notify } from "../../async.ts";
import type { Env } from "../../env.ts";
import { SYNC_PROGRESS_MS } from "../../limits.ts";
import type { Reason } from "./reason.ts";

/**
 * State of a client. `offline`: there is no connection; `reason` says why and
 * `retryAt` when the next attempt is due. `connecting`: an attempt is under way.
 * `needs-auth`: the server asks for another token; everything waits for one that
 * it accepts (U34). `forbidden`: the server refuses this principal, or one of the
 * clusters to it or to its node id. `failed`: a cluster has failed on the server,
 * as at a command that cannot be applied, and waits for its operator; what is
 * queued stays queued, and all goes on by itself once the server is well.
 * `catching up`: there is a connection, but a cluster is not open
 * on it yet, or has more on the server than its replica has applied. `not
 * accepting`: all of that is applied, but the server cannot take what is
 * submitted now, which waits; `reason` says why. `blocked`: a cluster goes no
 * further until someone acts, connected or not: the server has another history, the
 * replica here has failed, or what is queued is a copy, or belongs to another
 * principal; `reason` says which. `live`: every cluster has
 * applied all that was on the server when the connection began, and what is
 * committed later is applied as it comes.
 */
export type RemoteState =
  | "offline"
  | "connecting"
  | "needs-auth"
  | "forbidden"
  | "failed"
  | "catching up"
  | "not accepting"
  | "blocked"
  | "live";

/** State of one cluster, as in {@linkcode RemoteState}; `blocked` stays, also when the log was closed, until it is opened again or its data is removed; `waiting`: it is not open on the server, with or without a connection. */
export type ClusterState =
  | "waiting"
  | "forbidden"
  | "failed"
  | "catching up"
  | "not accepting"
  | "blocked"
  | "live";

/** Progress of one cluster. */
export interface ClusterProgress {
  /** Id of the cluster. */
  readonly clusterID: bigint;
  /** Replica its log is open for. */
  readonly nodeID: bigint;
  /** State of the cluster. */
  readonly state: ClusterState;
  /** Last index that was received, or is in the copy. */
  readonly received: number;
  /** Last index the server is known to have; 0 before it has told. */
  readonly last: number;
  /** Snapshot that is being received, in bytes; its `size` is 0 if it is not known. */
  readonly snapshot?: { readonly received: number; readonly size: number };
  /** Reason why the cluster is not live, if there is one besides catching up. */
  readonly reason?: Reason;
  /** Time at which the server is asked again to open the log, on the clock of `Env.now()`. */
  readonly retryAt?: number;
  /** Error behind `reason`, or the reason why the copy is not kept (such as an `ErrCopyFull`), which keeps nothing from being live. */
  readonly error?: unknown;
}

/** Address of a server, and what came of the last attempt there. */
export interface AddressStatus {
  /** Address, in full. */
  readonly url: string;
  /** Reason why the last attempt has failed, unless there is a connection. */
  readonly reason?: Reason;
}

/** Status of a client at a moment. */
export interface RemoteStatus {
  /** State of the connection and of all clusters together: that of the worst of them. */
  readonly state: RemoteState;
  /** Reason why it is not live, as a code and in words; undefined while it is, and before an attempt has failed. */
  readonly reason?: Reason;
  /**
   * Error behind `reason`: an `ErrUnauthenticated`, `ErrForbidden`, `ErrVersion`
   * or `ErrProtocol` needs someone to act, an `ErrClusterFailed` the server's
   * operator; an `ErrConnectionLost` or `ErrRemote` may go away by itself.
   */
  readonly error?: Error;
  /**
   * Time of the next attempt, on the clock of `Env.now()` (by default that of
   * `performance.now()`), while one is waited for; `reconnect()` makes it now.
   */
  readonly retryAt?: number;
  /** Time from this status to the next attempt, in milliseconds. */
  readonly retryInMs?: number;
  /** Addresses of the server, in the order of the constructor. */
  readonly addresses: readonly AddressStatus[];
  /** Clusters whose logs are open. */
  readonly clusters: readonly ClusterProgress[];
}

/** Tells watchers what changes: a state at once, and progress now and then. */
export class Watchers {
  readonly #env: Env;
  readonly #status: () => RemoteStatus;
  readonly #listeners = new Set<(status: RemoteStatus) => void>();
  #isScheduled = false;
  #isDirty = false;
  #cancel: (() => void) | undefined;

  /** Watchers of what `status` gives. */
  constructor(env: Env, status: () => RemoteStatus) {
    this.#env = env;
    this.#status = status;
  }

  /** Calls `listener` after changes; returns what ends that. */
  add(listener: (status: RemoteStatus) => void): () => void {
    const own = (status: RemoteStatus): void => listener(status);
    this.#listeners.add(own);
    return () => {
      this.#listeners.delete(own);
      if (this.#listeners.size === 0) this.#rest();
    };
  }

  /** The state may be another one: told once this step is done. */
  changed(): void {
    if (this.#isScheduled || this.#listeners.size === 0) return;
    this.#isScheduled = true;
    queueMicrotask(() => {
      this.#isScheduled = false;
      this.#tell();
    });
  }

  /** Something came: told soon, with all that comes until then. */
  progressed(): void {
    if (this.#listeners.size === 0) return;
    this.#isDirty = true;
    if (this.#cancel === undefined) this.changed();
  }

  #tell(): void {
    this.#isDirty = false;
    this.#cancel?.();
    this.#cancel = this.#listeners.size === 0
      ? undefined
      : this.#env.setTimer(() => {
        this.#cancel = undefined;
        if (this.#isDirty) this.#tell();
      }, SYNC_PROGRESS_MS);
    const status = this.#status();
    for (const listener of [...this.#listeners]) {
      // Not one that has left while others were told.
      if (this.#listeners.has(listener)) notify(listener, status);
    }
  }

  #rest(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }

  /** Tells the last change and no more. */
  close(): void {
    this.#tell();
    this.#listeners.clear();
    this.#rest();
  }
}
