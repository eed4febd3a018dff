/**
 * One cluster on one connection.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ErrUnknownOutcome } from "../../log/errors.ts";
import type { Checkpoint, Records, Retention } from "../../log/log.ts";
import { Checkpoints } from "../../nodehost/checkpoints.ts";
import { isPromise } from "../../promises.ts";
import { ErrUnauthenticated } from "../errors.ts";
import type { MaybePromise } from "../../statemachine/types.ts";
import { SYNC_RETENTION_MS_MAX } from "../../limits.ts";
import type { Append, CheckpointAt } from "../messages.ts";
import { Gate, type Verdict } from "./gate.ts";
import type { Hub, HubUser } from "./hub.ts";
import type { Peer } from "./peer.ts";

/** A cluster that a client has open. */
export class Channel implements HubUser {
  /** How the client calls it. */
  readonly number: number;
  /** The cluster's log. */
  readonly hub: Hub;
  readonly #peer: Peer;
  readonly #nodeID: bigint;
  readonly #gate: Gate;
  readonly #checkpoints: Checkpoints;
  #unwatch: (() => void) | undefined;
  /** Settles once the appends that came are given to the log; undefined if all are. */
  #judging: Promise<void> | undefined;
  #retention: Retention | undefined;
  #retainedAt = 0;
  #isClosed = false;

  /** A channel for the client's replica `nodeID`. */
  constructor(peer: Peer, number: number, hub: Hub, nodeID: bigint) {
    this.#peer = peer;
    this.number = number;
    this.hub = hub;
    this.#nodeID = nodeID;
    hub.users.add(this);
    const { authorize, validate } = peer.core.options;
    const { principal, owner } = peer.who;
    const { clusterID } = hub;
    this.#gate = new Gate({
      owner,
      commandBytes: peer.core.limits.commandBytes,
      standing: (session) => hub.standing(session),
      owns: (origin) => hub.owns(origin, owner),
      mayWrite: authorize && (() => authorize(principal, clusterID, "write")),
      validate: validate && ((cmd) => validate(principal, cmd, clusterID)),
    });
    this.#checkpoints = new Checkpoints((error) => {
      peer.counts.diverged++;
      peer.log("error", "client diverged", { clusterID, error });
    });
  }

  /** Tells the client of the checkpoints. It compares them with its own; that they differ is to be known here, too (H12). */
  watch(): void {
    if (this.#isClosed) return;
    this.#unwatch = this.hub.log.checkpoints?.watch(
      0n,
      (checkpoint) => this.#onCheckpoint(checkpoint),
    );
    // What it was told at once may have ended the connection.
    if (this.#isClosed) this.#unwatch?.();
  }

  /** The cluster. */
  get clusterID(): bigint {
    return this.hub.clusterID;
  }

  #onCheckpoint(checkpoint: Checkpoint): void {
    if (checkpoint.nodeID === this.hub.replica.nodeID) {
      this.#checkpoints.own(checkpoint);
    }
    const { number: channel } = this;
    this.#peer.send({ type: "checkpoint", channel, ...checkpoint });
  }

  /** What the hashes of the client's replica are. */
  checkpoint({ nodeID, index, state, sessions }: CheckpointAt): void {
    // Nobody speaks for another replica.
    if (nodeID !== this.#nodeID) return;
    this.#checkpoints.other({ nodeID, index, state, sessions });
  }

  /** Keeps the log for a client that takes a snapshot, until it reads on (H7). */
  retain(retention: Retention): void {
    this.#retention?.release();
    this.#retention = retention;
    this.#retainedAt = this.#peer.core.env.now();
  }

  /** The client reads on: what it needs, its reading keeps. */
  released(): void {
    this.#retention?.release();
    this.#retention = undefined;
  }

  /** Time has passed. */
  tick(now: number): void {
    if (now - this.#retainedAt > SYNC_RETENTION_MS_MAX) this.released();
  }

  /** Adds to the log what the gate lets through, after the appends before it. */
  append(message: Append, records: Records, frameBytes: number): void {
    const begun = this.#peer.core.env.now();
    const run = (): MaybePromise<void> => {
      let verdict: MaybePromise<Verdict>;
      try {
        verdict = this.#gate.judge(records);
      } catch (error) {
        return this.#fail(message, frameBytes, error);
      }
      if (!isPromise(verdict)) {
        return this.#commit(message, verdict, frameBytes, begun);
      }
      return verdict.then(
        (verdict) => this.#commit(message, verdict, frameBytes, begun),
        (error) => this.#fail(message, frameBytes, error),
      );
    };
    const done = this.#judging === undefined ? run() : this.#judging.then(run);
    if (!isPromise(done)) return;
    const judging = this.#judging = done.then(() => {
      if (this.#judging === judging) this.#judging = undefined;
    });
  }

  #commit(
    message: Append,
    verdict: Verdict,
    frameBytes: number,
    begun: number,
  ): void {
    const peer = this.#peer;
    const { parts, refusals, refused } = verdict;
    const count = message.lengths.length;
    // It may have waited for the verdict for long.
    if (peer.who.principal.signal?.aborted) {
      const over = new ErrUnauthenticated("Token is not good any more");
      return this.#fail(message, frameBytes, over);
    }
    peer.counts.refused += refused;
    const answer = (first: number): void => {
      for (const { ends } of parts) peer.counts.appended += ends.length;
      peer.core.telemetry.appendTook(peer.core.env.now() - begun);
      peer.answer(message.stream, {
        type: "appended",
        stream: message.stream,
        first,
        refused: refusals.map(({ at }) => at),
        reasons: refusals.map(({ reason }) => reason),
      });
      peer.consumed(frameBytes, count);
    };
    const [head, ...others] = parts;
    if (head === undefined) return answer(0);
    const failed = (error: unknown): void =>
      this.#fail(message, frameBytes, error);
    const { log } = this.hub;
    try {
      const appended = log.append(head);
      if (others.length === 0) {
        if (!isPromise(appended)) return answer(appended);
        return void appended.then(answer, failed);
      }
      const all = [appended, ...others.map((part) => log.append(part))];
      Promise.all(all).then(([first]) => answer(first!), (cause) => {
        failed(
          new ErrUnknownOutcome("Some of it may be in the log", { cause }),
        );
      });
    } catch (error) {
      failed(error);
    }
  }

  #fail({ stream, lengths }: Append, frameBytes: number, error: unknown): void {
    const peer = this.#peer;
    peer.log("error", "append failed", { clusterID: this.clusterID, error });
    peer.answer(stream, {
      type: "failed",
      stream,
      unknown: error instanceof ErrUnknownOutcome,
      message: "Server could not add to its log",
    });
    peer.consumed(frameBytes, lengths.length);
  }

  /** The cluster is not served any more. */
  hubEnded(code: number, reason: string): void {
    this.#peer.refuse(this.number, code, reason);
  }

  /** Gives the cluster back. */
  close(): void {
    this.#isClosed = true;
    this.hub.users.delete(this);
    this.#unwatch?.();
    this.released();
  }
}
