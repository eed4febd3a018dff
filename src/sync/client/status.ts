/**
 * Status of a client, and its watchers.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { notify } from "../../async.ts";
import type { Env } from "../../env.ts";
import { SYNC_PROGRESS_MS } from "../../limits.ts";
import type { Reason } from "./failure.ts";

/**
 * State of a client:
 * - `offline`: not connected; `reason` says why and `retryAt` when the next attempt
 *   is due.
 * - `connecting`: an attempt is under way.
 * - `needs-auth`: the server requires another token; all calls wait for one that it
 *   accepts (U34).
 * - `forbidden`: the server refuses this principal, or a cluster to it or to its
 *   node id.
 * - `failed`: a cluster has failed on the server, for example at a command that
 *   cannot be applied, and waits for its operator. Submissions stay queued; the
 *   client continues once the cluster runs again.
 * - `catching up`: connected, but a cluster is not open yet, or its replica has not
 *   applied all entries of the server.
 * - `not accepting`: caught up, but the server accepts no submissions now; they stay
 *   queued, and `reason` says why.
 * - `blocked`: a cluster is stopped until someone acts, connected or not: the server
 *   has another history, the replica has failed, or the outbox is a copy or belongs
 *   to another principal; `reason` says which.
 * - `live`: every cluster has applied all entries that the server had when the
 *   connection began, and applies later ones as they are committed.
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

/**
 * State of one cluster, as in {@linkcode RemoteState}. `blocked` stays after the log
 * was closed, until it is opened again or its data is removed. `waiting`: the log is
 * not open on the server, with or without a connection.
 */
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
  /** Last index received, or in the copy. */
  readonly received: number;
  /** Last index of the server, as far as is known; 0 before the first connection. */
  readonly last: number;
  /** Snapshot that is being received, in bytes; `size` is 0 if it is unknown. */
  readonly snapshot?: { readonly received: number; readonly size: number };
  /** Reason why the cluster is not live, if there is one besides catching up. */
  readonly reason?: Reason;
  /** Time of the next attempt to open the log, on the clock of `Env.now()`. */
  readonly retryAt?: number;
  /** Error behind `reason`, or that of the copy (such as `ErrCopyFull`), which does not affect the state. */
  readonly error?: unknown;
}

/** Address of a server, with the outcome of the last attempt. */
export interface AddressStatus {
  /** Address in full. */
  readonly url: string;
  /** Reason why the last attempt failed, unless connected. */
  readonly reason?: Reason;
}

/** Status of a client at one time. */
export interface RemoteStatus {
  /** Worst state of the connection and all clusters. */
  readonly state: RemoteState;
  /** Reason why the client is not live; undefined while it is, and before an attempt has failed. */
  readonly reason?: Reason;
  /**
   * Error behind `reason`: an `ErrUnauthenticated`, `ErrForbidden`, `ErrVersion`
   * or `ErrProtocol` needs someone to act, an `ErrClusterFailed` the server's
   * operator; an `ErrConnectionLost` or `ErrRemote` may go away by itself.
   */
  readonly error?: Error;
  /**
   * Time of the next attempt, on the clock of `Env.now()` (by default that of
   * `performance.now()`), while one is scheduled; `reconnect()` makes it at once.
   */
  readonly retryAt?: number;
  /** Time from this status to the next attempt, in milliseconds. */
  readonly retryInMs?: number;
  /** Addresses of the server, in the order of the constructor. */
  readonly addresses: readonly AddressStatus[];
  /** Clusters whose logs are open. */
  readonly clusters: readonly ClusterProgress[];
}

/** Notifies watchers: of each change of state at once, of progress at intervals of `SYNC_PROGRESS_MS`. */
export class Watchers {
  readonly #env: Env;
  readonly #status: () => RemoteStatus;
  readonly #listeners = new Set<(status: RemoteStatus) => void>();
  #isScheduled = false;
  #isDirty = false;
  #cancel: (() => void) | undefined;

  /** Creates watchers of the status that `status` returns. */
  constructor(env: Env, status: () => RemoteStatus) {
    this.#env = env;
    this.#status = status;
  }

  /** Adds a listener; returns a function that removes it. */
  add(listener: (status: RemoteStatus) => void): () => void {
    const own = (status: RemoteStatus): void => listener(status);
    this.#listeners.add(own);
    return () => {
      this.#listeners.delete(own);
      if (this.#listeners.size === 0) this.#cancelProgress();
    };
  }

  /** Notifies the watchers at the end of this turn, as the state may have changed. */
  changed(): void {
    if (this.#isScheduled || this.#listeners.size === 0) return;
    this.#isScheduled = true;
    queueMicrotask(() => {
      this.#isScheduled = false;
      this.#notify();
    });
  }

  /** Notifies the watchers of progress, coalesced. */
  progressed(): void {
    if (this.#listeners.size === 0) return;
    this.#isDirty = true;
    if (this.#cancel === undefined) this.changed();
  }

  #notify(): void {
    this.#isDirty = false;
    this.#cancel?.();
    this.#cancel = this.#listeners.size === 0
      ? undefined
      : this.#env.setTimer(() => {
        this.#cancel = undefined;
        if (this.#isDirty) this.#notify();
      }, SYNC_PROGRESS_MS);
    const status = this.#status();
    for (const listener of [...this.#listeners]) {
      // A listener may have been removed by another one.
      if (this.#listeners.has(listener)) notify(listener, status);
    }
  }

  #cancelProgress(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }

  /** Notifies the watchers for the last time. */
  close(): void {
    this.#notify();
    this.#listeners.clear();
    this.#cancelProgress();
  }
}
