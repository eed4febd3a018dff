/**
 * One served cluster: its log is read once and fanned out to all connections.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../../env.ts";
import { SYNC_GATHER_MS_MAX } from "../../limits.ts";
import {
  ErrClusterClosed,
  ErrCompacted,
  ErrDiverged,
} from "../../log/errors.ts";
import type { Epoch } from "../../log/history.ts";
import type { Checkpoint, Log, LogBatch } from "../../log/log.ts";
import { chain, isPromise, onAbort, sleep } from "../../async.ts";
import type { NodeHost } from "../../nodehost/node_host.ts";
import type { Rehearsal } from "../../rehearsal/mod.ts";
import type { Replica } from "../../nodehost/replica.ts";
import type { SessionInfo } from "../../rsm/state_machine.ts";
import type { MaybePromise } from "../../statemachine/types.ts";
import { ErrStoreCorrupted, ErrStoreVanished } from "../../store/errors.ts";
import { CloseCode } from "../transport.ts";
import { BatchCoalescer } from "./batch_coalescer.ts";
import { describeFailure, describeStorageError } from "./cluster_failure.ts";
import { ProposalOrigins } from "./proposal_origins.ts";
import { RecentBatches } from "./recent_batches.ts";

/** Owner of the host's own proposals: no principal has an id of no bytes. */
const HOST = new Uint8Array();

/** Encoded frames of one batch by stream number: most clients use the same number. */
export type FrameCache = Map<number, Uint8Array>;

/** Receiver of each committed batch. */
export interface ClusterFollower {
  /** True if the next batch may have records that this receiver has appended itself. */
  readonly isAuthor: boolean;
  /** Called with each committed batch, and the frames of it that are encoded already. */
  committed(batch: LogBatch, frames: FrameCache): void;
}

/** User of a served cluster; a cluster without users is closed after a while. */
export interface ClusterUser {
  /** Called when nothing can be stored in the log any more, or again. */
  ableChanged?(): void;
  /** Called when the cluster is not served any more, with a `CloseCode` and a reason. */
  clusterEnded(code: number, reason: string): void;
}

/** State of a session at the server's replica; `future` if the log is shorter than the session's index, undefined if there is no such session. */
export type SessionState = SessionInfo | "future" | undefined;

/** Log of a cluster with the users that share it. */
export class ServedCluster {
  /** Id of the cluster. */
  readonly clusterID: bigint;
  /** The server's replica of the cluster. */
  readonly replica: Replica;
  /** Log of the cluster, open for reading and appending. */
  readonly log: Log;
  /** Most recently committed records. */
  readonly recent: RecentBatches;
  /** Receivers of what is committed. */
  readonly followers: Set<ClusterFollower> = new Set();
  /** Channels and transfers that use the cluster. */
  readonly users: Set<ClusterUser> = new Set();
  /** Ids of stored snapshots that failed verification. */
  readonly damagedSnapshots: Set<string> = new Set();
  /** Runs commands on forks of the state machine; undefined where that is turned off or unsupported. */
  readonly rehearsal: Rehearsal | undefined;
  /** Newest index at which a client had the server's hashes, with the time on the clock of the host; undefined before the first. */
  agreement: { readonly index: number; readonly at: number } | undefined;
  readonly #origins: ProposalOrigins;
  readonly #host: NodeHost;
  readonly #ended = new AbortController();
  /** Damage of the log found before the replica has found it. */
  #damage: unknown;

  private constructor(
    host: NodeHost,
    replica: Replica,
    log: Log,
    last: number,
    rehearsal: Rehearsal | undefined,
  ) {
    this.clusterID = replica.clusterID;
    this.replica = replica;
    this.log = log;
    this.recent = new RecentBatches(last);
    this.rehearsal = rehearsal?.isAble ? rehearsal : undefined;
    this.#host = host;
    this.#origins = ProposalOrigins.of(host.logDB, replica.clusterID);
  }

  /** Notes that a client had the server's hashes at an index. */
  agreed(index: number): void {
    // An older index says less.
    if (index < (this.agreement?.index ?? 0)) return;
    this.agreement = { index, at: this.#host.env.now() };
  }

  /** Opens the log of a cluster that runs on `host`. */
  static async open(
    host: NodeHost,
    replica: Replica,
    rehearsal: Rehearsal | undefined,
  ): Promise<ServedCluster> {
    // A random node id, since another server, of this host or another one, may have
    // the same log open.
    const log = await host.logDB.open(
      replica.clusterID,
      host.env.random64(),
    );
    try {
      const last = await log.readIndex();
      const cluster = new ServedCluster(host, replica, log, last, rehearsal);
      const { signal } = cluster.#ended;
      const reader = await log.read(last, { signal });
      // Clients of another host's server must not propose under this origin either.
      cluster.#origins.claim(replica.origin, HOST);
      // Never rejects: an error ends the cluster.
      void cluster.#fanOut(new BatchCoalescer(reader));
      cluster.#endWithReplica();
      cluster.#watchStorage();
      return cluster;
    } catch (error) {
      await log.close();
      throw error;
    }
  }

  get #env(): Env {
    return this.#host.env;
  }

  /** Ends with the replica: otherwise appends to a failed cluster would be accepted and not applied, without a notice to their clients. */
  #endWithReplica(): void {
    const { replica } = this;
    const end = (): void => this.end(...endOf(replica));
    const ignore = onAbort(replica.closed, end);
    onAbort(this.#ended.signal, ignore);
  }

  #watchStorage(): void {
    const unwatch = this.log.storage?.watch(() => {
      for (const user of [...this.users]) user.ableChanged?.();
    });
    if (unwatch !== undefined) onAbort(this.#ended.signal, unwatch);
  }

  /** Error with which the cluster has failed or is about to; undefined if it has not. */
  get failure(): unknown {
    return this.replica.failure ?? this.#damage;
  }

  /** Calls `callback` once the cluster is not served any more. */
  onEnd(callback: () => void): void {
    onAbort(this.#ended.signal, callback);
  }

  /** Description for clients of why nothing can be stored in the log now; undefined if storing works. */
  get storageError(): string | undefined {
    const error = this.log.storage?.trouble;
    return error === undefined
      ? undefined
      : describeStorageError(this.clusterID, error);
  }

  /** True once the cluster is not served any more. */
  get isEnded(): boolean {
    return this.#ended.signal.aborted;
  }

  /** True while the host runs this replica and it has not failed. */
  get isLive(): boolean {
    return !this.isEnded && this.replica.error === undefined &&
      this.#host.replica(this.clusterID) === this.replica;
  }

  /** Reads what is committed and fans it out to the followers. */
  async #fanOut(source: BatchCoalescer): Promise<void> {
    const { signal } = this.#ended;
    try {
      for (;;) {
        const next = source.next();
        const batch = isPromise(next) ? await next : next;
        const from = this.#env.now();
        this.recent.push(batch);
        const frames: FrameCache = new Map();
        // Authors have shown their records already; the others wait for them.
        const authors: ClusterFollower[] = [];
        for (const follower of [...this.followers]) {
          if (follower.isAuthor) authors.push(follower);
          else follower.committed(batch, frames);
        }
        for (const author of authors) author.committed(batch, frames);
        // Fan-out costs the same for one record and for a thousand: the more
        // followers there are, the longer records are coalesced.
        const pause = 2 * (this.#env.now() - from);
        if (pause < 1) await this.#env.turn();
        else {
          await sleep(this.#env, Math.min(pause, SYNC_GATHER_MS_MAX), signal);
        }
      }
    } catch (error) {
      if (error instanceof ErrClusterClosed) this.end(...endOf(this.replica));
      else if (
        error instanceof ErrStoreCorrupted || error instanceof ErrStoreVanished
      ) {
        // The replica reads the same records and will fail with the same error.
        this.#damage = error;
        this.end(
          CloseCode.ClusterFailed,
          describeFailure(this.clusterID, error),
        );
      } else this.end(CloseCode.GoingAway, "Server cannot read its log");
    }
  }

  /** State of a session once the replica has applied the log up to the session's index. */
  sessionState(session: number): MaybePromise<SessionState> {
    const { replica } = this;
    if (session <= replica.appliedIndex) return replica.sessionInfo(session);
    return chain<number, SessionState>(
      this.log.readIndex(),
      (last) =>
        session > last ? "future" : chain(
          this.untilApplied(session),
          () => replica.sessionInfo(session),
        ),
    );
  }

  /** Returns the last index of the log if its history contains `index` with `epoch` as the last epoch; otherwise the error. */
  async verify(
    index: number,
    epoch: Epoch | undefined,
  ): Promise<number | ErrDiverged> {
    try {
      (await this.log.read(index, { epoch })).close();
    } catch (error) {
      if (error instanceof ErrDiverged) return error;
      // Compacted entries were in the log.
      if (!(error instanceof ErrCompacted)) throw error;
    }
    return await this.log.readIndex();
  }

  /** Resolves once the replica has applied the log up to an index. */
  untilApplied(index: number): MaybePromise<void> {
    return this.replica.untilApplied(index, this.#ended.signal);
  }

  /**
   * Replays the entries in (`after`, `upTo`] and returns the hashes after each.
   *
   * @throws RangeError if the range is not in the log or cannot be replayed
   */
  async explain(
    after: number,
    upTo: number,
    signal: AbortSignal,
  ): Promise<readonly Omit<Checkpoint, "nodeID">[]> {
    const last = await this.log.readIndex();
    if (upTo > last) {
      throw new RangeError(`Index ${upTo} is past the end of the log, ${last}`);
    }
    await this.untilApplied(upTo);
    const hashes = await this.replica.explain(after, upTo, { signal });
    if (hashes === undefined) {
      throw new RangeError(
        `Entries ${after + 1} to ${upTo} cannot be replayed`,
      );
    }
    return hashes;
  }

  /** Claims a proposal origin for `owner`; false if it is the host's own or another owner's. */
  claimOrigin(origin: string, owner: Uint8Array): boolean {
    return origin !== this.replica.origin &&
      this.#origins.claim(origin, owner);
  }

  /** Stops serving the cluster for all its users; idempotent. */
  end(code: number, reason: string): void {
    if (this.isEnded) return;
    this.#ended.abort(new ErrClusterClosed());
    for (const user of [...this.users]) user.clusterEnded(code, reason);
    this.users.clear();
    this.followers.clear();
    Promise.resolve(this.log.close()).catch(() => {});
  }
}

/** Close code and reason for a cluster that was stopped or has failed. */
function endOf({ clusterID, failure }: Replica): [number, string] {
  return failure === undefined
    ? [CloseCode.GoingAway, "Cluster is stopped on the server"]
    : [CloseCode.ClusterFailed, describeFailure(clusterID, failure)];
}
