/**
 * One cluster as its server has it: its log, read once for all who follow it.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../../env.ts";
import { SYNC_APPLIED_TICK_MS, SYNC_GATHER_MS_MAX } from "../../limits.ts";
import {
  ErrClusterClosed,
  ErrCompacted,
  ErrDiverged,
} from "../../log/errors.ts";
import type { Checkpoint, Log, LogBatch } from "../../log/log.ts";
import type { Epoch } from "../../log/history.ts";
import { chain, isPromise, onAbort, sleep } from "../../async.ts";
import type { NodeHost } from "../../nodehost/node_host.ts";
import type { Rehearsal } from "../../rehearsal/rehearsal.ts";
import type { Replica } from "../../nodehost/replica.ts";
import type { SessionInfo } from "../../rsm/state_machine.ts";
import type { MaybePromise } from "../../statemachine/types.ts";
import { ErrStoreCorrupted, ErrStoreVanished } from "../../store/errors.ts";
import { CloseCode } from "../transport.ts";
import { describeFailure, describeTrouble } from "./health.ts";
import type { Origins } from "./origins.ts";
import { Gatherer, Ring } from "./ring.ts";

/** The host's own proposals are nobody's: no principal has an id of no bytes. */
const NOBODY = new Uint8Array();

/** Frames of one batch, by the stream they are for: most clients use the same. */
export type Frames = Map<number, Uint8Array>;

/** Who is told of each batch. */
export interface Follower {
  /** A batch was committed. */
  offer(batch: LogBatch, frames: Frames): void;
}

/** Who needs the hub. */
export interface HubUser {
  /** Called when nothing can be stored in the log any more, with the reason in words, and with an empty one once that is over. */
  unable?(reason: string): void;
  /** The hub has ended: why, by code and in words. */
  hubEnded(code: number, reason: string): void;
}

/** The log of a cluster, shared by all connections. */
export class Hub {
  /** The cluster. */
  readonly clusterID: bigint;
  /** The server's replica of it. */
  readonly replica: Replica;
  /** Its log. */
  readonly log: Log;
  /** What was committed last. */
  readonly ring: Ring;
  /** Who follows what is committed. */
  readonly followers: Set<Follower> = new Set();
  /** Who needs it. */
  readonly users: Set<HubUser> = new Set();
  /** Snapshots that did not read back good; by their id. */
  readonly damaged: Set<string> = new Set();
  /** Tries commands on forks of its machine; undefined where that is turned off, or the machine has none. */
  readonly rehearsal: Rehearsal | undefined;
  readonly #origins: Origins;
  readonly #host: NodeHost;
  readonly #ended = new AbortController();
  #damage: unknown;

  private constructor(
    host: NodeHost,
    replica: Replica,
    log: Log,
    last: number,
    origins: Origins,
    rehearsal: Rehearsal | undefined,
  ) {
    this.rehearsal = rehearsal?.isAble ? rehearsal : undefined;
    this.clusterID = replica.clusterID;
    this.replica = replica;
    this.log = log;
    this.ring = new Ring(last);
    this.#host = host;
    this.#origins = origins;
  }

  /** Opens the log of a cluster that is started on `host`. */
  static async open(
    host: NodeHost,
    replica: Replica,
    origins: Origins,
    rehearsal: Rehearsal | undefined,
  ): Promise<Hub> {
    // Another server may have the same log open, of this host or another one:
    // the replica as which it is opened is to be no other's.
    const log = await host.logDB.open(
      replica.clusterID,
      host.env.random64(),
    );
    try {
      const last = await log.readIndex();
      const hub = new Hub(host, replica, log, last, origins, rehearsal);
      const reader = await log.read(last, { signal: hub.#ended.signal });
      // Clients of another host's server are not to propose as this replica either.
      origins.owns(replica.origin, NOBODY);
      // Never rejects: it ends the hub with the error it catches.
      void hub.#run(new Gatherer(reader));
      hub.#endWithReplica();
      hub.#watchStorage();
      return hub;
    } catch (error) {
      await log.close();
      throw error;
    }
  }

  get #env(): Env {
    return this.#host.env;
  }

  /** Ends with its replica: records appended to the log of a failed cluster would wait for its operator without a word to their clients. */
  #endWithReplica(): void {
    const { replica } = this;
    const end = (): void => this.end(...endOf(replica));
    const ignore = onAbort(replica.closed, end);
    onAbort(this.#ended.signal, ignore);
  }

  #watchStorage(): void {
    const unwatch = this.log.storage?.watch(() => {
      for (const user of [...this.users]) user.unable?.(this.trouble ?? "");
    });
    if (unwatch !== undefined) onAbort(this.#ended.signal, unwatch);
  }

  /** Error with which its cluster has failed, or is about to; undefined if it has not. */
  get failure(): unknown {
    return this.replica.failure ?? this.#damage;
  }

  /** Calls `callback` once it has ended. */
  onEnd(callback: () => void): void {
    onAbort(this.#ended.signal, callback);
  }

  /** Reason why nothing can be stored in the log now, in words for clients; undefined otherwise. */
  get trouble(): string | undefined {
    const trouble = this.log.storage?.trouble;
    return trouble === undefined
      ? undefined
      : describeTrouble(this.clusterID, trouble);
  }

  /** Whether it can be used no more. */
  get ended(): boolean {
    return this.#ended.signal.aborted;
  }

  /** Whether the replica is the one the host has, and goes on. */
  get isLive(): boolean {
    return !this.ended && this.replica.error === undefined &&
      this.#host.replica(this.clusterID) === this.replica;
  }

  /** Reads what is committed, once for all. */
  async #run(source: Gatherer): Promise<void> {
    const { signal } = this.#ended;
    try {
      for (;;) {
        const next = source.next();
        const batch = isPromise(next) ? await next : next;
        const from = this.#env.now();
        this.ring.push(batch);
        const frames: Frames = new Map();
        for (const follower of [...this.followers]) {
          follower.offer(batch, frames);
        }
        // What it costs to tell all of them is the same for one record and for a
        // thousand: the more there are, the more is gathered.
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
        // The replica reads the same, and fails with it.
        this.#damage = error;
        this.end(
          CloseCode.ClusterFailed,
          describeFailure(this.clusterID, error),
        );
      } else this.end(CloseCode.GoingAway, "Server cannot read its log");
    }
  }

  /** Whether there is such a session, once the replica has applied all up to it; `unborn` if the log is not that long. */
  standing(
    session: number,
  ): MaybePromise<SessionInfo | "unborn" | undefined> {
    const { replica } = this;
    if (session <= replica.appliedIndex) return replica.standing(session);
    return chain<number, SessionInfo | "unborn" | undefined>(
      this.log.readIndex(),
      (last) => session > last ? "unborn" : this.#standingOnceApplied(session),
    );
  }

  async #standingOnceApplied(
    session: number,
  ): Promise<SessionInfo | undefined> {
    await this.untilApplied(session);
    return this.replica.standing(session);
  }

  /** Last index of the log, if it is the one that has reached `index` with `epoch` as its last epoch; else the error that says so. */
  async verify(
    index: number,
    epoch: Epoch | undefined,
  ): Promise<number | ErrDiverged> {
    try {
      (await this.log.read(index, { epoch })).close();
    } catch (error) {
      if (error instanceof ErrDiverged) return error;
      // What was cut was there.
      if (!(error instanceof ErrCompacted)) throw error;
    }
    return await this.log.readIndex();
  }

  /**
   * Settles once the replica has applied all up to `index`.
   *
   * @throws ErrClusterClosed if it never will
   */
  async untilApplied(index: number): Promise<void> {
    while (this.replica.appliedIndex < index) {
      if (!this.isLive) throw new ErrClusterClosed();
      await sleep(this.#env, SYNC_APPLIED_TICK_MS, this.#ended.signal);
    }
  }

  /**
   * The hashes the replica has after each entry in (`after`, `upTo`] (H12).
   *
   * @throws RangeError if it cannot tell
   */
  async hashes(
    after: number,
    upTo: number,
    signal: AbortSignal,
  ): Promise<readonly Omit<Checkpoint, "nodeID">[]> {
    if (upTo > await this.log.readIndex()) {
      throw new RangeError(`Log does not go up to ${upTo}`);
    }
    await this.untilApplied(upTo);
    const hashes = await this.replica.explain(after, upTo, { signal });
    if (hashes === undefined) throw new RangeError("It cannot be replayed");
    return hashes;
  }

  /** Whether proposals of that origin are `owner`'s: not the server's own, nor somebody else's. */
  owns(origin: string, owner: Uint8Array): boolean {
    return origin !== this.replica.origin && this.#origins.owns(origin, owner);
  }

  /** Ends it, for all who use it; idempotent. */
  end(code: number, reason: string): void {
    if (this.ended) return;
    this.#ended.abort(new ErrClusterClosed());
    for (const user of [...this.users]) user.hubEnded(code, reason);
    this.users.clear();
    this.followers.clear();
    Promise.resolve(this.log.close()).catch(() => {});
  }
}

/** Code and words for the end of a cluster that was stopped, or has failed. */
function endOf({ clusterID, failure }: Replica): [number, string] {
  return failure === undefined
    ? [CloseCode.GoingAway, "Cluster is stopped on the server"]
    : [CloseCode.ClusterFailed, describeFailure(clusterID, failure)];
}
