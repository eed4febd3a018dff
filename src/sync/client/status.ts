/**
 * What a client tells of itself.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../../env.ts";
import { SYNC_PROGRESS_MS } from "../../limits.ts";

/**
 * Where a client stands. `offline`: there is no connection, another attempt is
 * to come. `connecting`: one is under way. `catching up`: there is a connection,
 * and more on the server than the replicas have applied, or a snapshot to be
 * taken first. `live`: all that was on the server when the connection began is
 * applied, and what comes is at once.
 * `needs-auth`: the server does not know who this is; everything waits for a
 * token that it takes (U34).
 */
export type RemoteState =
  | "offline"
  | "connecting"
  | "catching up"
  | "live"
  | "needs-auth";

/** How far one cluster is. */
export interface ClusterProgress {
  /** Which. */
  readonly clusterID: bigint;
  /** The replica its log is open for. */
  readonly nodeID: bigint;
  /** The last index that was received, or is in the copy. */
  readonly received: number;
  /** The last index the server is known to have; 0 before it has told. */
  readonly last: number;
  /** A snapshot that is being received, in bytes; its `size` is 0 if nobody knows it. */
  readonly snapshot?: { readonly received: number; readonly size: number };
  /** Why the server does not open the log, or cannot judge now what was sent, which waits there (an `ErrRemote`), or its copy is not kept (an `ErrCopyFull`, say), if that is so. */
  readonly error?: unknown;
}

/** What a client tells of itself at a moment. */
export interface RemoteStatus {
  /** Where it stands. */
  readonly state: RemoteState;
  /**
   * Why there is no connection, in words a person can act on: an
   * `ErrUnauthenticated`, `ErrForbidden` or `ErrVersion`; an `ErrConnectionLost`
   * mends by itself.
   */
  readonly error?: Error;
  /** The clusters whose logs are open. */
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
      try {
        // Not one that has left while others were told.
        if (this.#listeners.has(listener)) listener(status);
      } catch {
        // Whoever listens must not change what happens.
      }
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
