/**
 * One cluster on one connection.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  ErrClusterClosed,
  ErrUnknownOutcome,
  type Refusal,
} from "../../log/errors.ts";
import type { Checkpoint, Records, Retention } from "../../log/log.ts";
import { Checkpoints } from "../../divergence/checkpoints.ts";
import { Backoff, chain, isPromise, sleep } from "../../async.ts";
import { ErrStoreCorrupted, ErrStoreVanished } from "../../store/errors.ts";
import { ErrUnauthenticated } from "../errors.ts";
import type { MaybePromise } from "../../statemachine/types.ts";
import {
  SYNC_HELD_LAST_MS,
  SYNC_REFUSED_COMMANDS,
  SYNC_RETENTION_MS_MAX,
  SYNC_RETRY_FIRST_MS,
} from "../../limits.ts";
import type { Append, CheckpointAt } from "../messages.ts";
import { Gate, type Held, type Verdict } from "./gate.ts";
import type { Hub, HubUser } from "./hub.ts";
import type { Peer } from "./peer.ts";
import type { ReadRight } from "./right.ts";

/** What a client is told while what it has sent waits. */
const HELD = "Server cannot judge a command now: it waits, and is tried again";

/** An append that was not answered. */
interface Work {
  readonly message: Append;
  readonly records: Records;
  /** Bytes of the client's credit it uses. */
  readonly credit: number;
  /** When it came. */
  readonly begun: number;
  /** The first record that is not judged. */
  first: number;
  /** What of it was given to the log, and where that is in it. */
  readonly parts: MaybePromise<number>[];
  /** Parts that are not in the log after all. */
  lost: number;
  /** Records that were given to it. */
  added: number;
  /** Records that were refused: with those of a session, which go in as a skip that says why. */
  refused: number;
  readonly refusals: Refusal[];
}

/** A cluster that a client has open. */
export class Channel implements HubUser {
  /** How the client calls it. */
  readonly number: number;
  /** The cluster's log. */
  readonly hub: Hub;
  /** The principal's permission to read it. */
  readonly right: ReadRight;
  readonly #peer: Peer;
  readonly #nodeID: bigint;
  readonly #gate: Gate;
  readonly #checkpoints: Checkpoints;
  #unwatch: (() => void) | undefined;
  /** Settles once the appends that came are given to the log; undefined if all are. */
  #judging: Promise<void> | undefined;
  #retention: Retention | undefined;
  #retainedAt = 0;
  #wrongAt = 0;
  readonly #ended = new AbortController();
  /** Whether some append is not judged any more: those behind it are not either. */
  #isGivenUp = false;
  #isClosed = false;

  /** A channel for the client's replica `nodeID`. */
  constructor(
    peer: Peer,
    number: number,
    hub: Hub,
    nodeID: bigint,
    right: ReadRight,
  ) {
    this.#peer = peer;
    this.right = right;
    right.listener = {
      renewed: () => peer.sender.pump(),
      withdrawn: () => peer.forbid(this),
      failed: (error) => peer.hookFailed(this, error),
    };
    this.number = number;
    this.hub = hub;
    this.#nodeID = nodeID;
    hub.users.add(this);
    const { hooks, options: { authorize, validate, rehearse = true } } =
      peer.core;
    const { owner } = peer.who;
    const { clusterID } = hub;
    this.#gate = new Gate({
      owner,
      commandBytes: peer.core.limits.commandBytes,
      standing: (session) => hub.standing(session),
      owns: (origin) => hub.owns(origin, owner),
      mayWrite: authorize &&
        (() => hooks.authorize(peer.who.principal, clusterID, "write")),
      validate: validate &&
        ((cmd, context) =>
          hooks.validate(peer.who.principal, cmd, clusterID, context)),
      rehearsal: hub.rehearsal,
      isTrying: rehearse,
      onThrown: (error) =>
        peer.log("warn", "command refused, the machine threw", {
          clusterID,
          error,
        }),
    });
    this.#checkpoints = new Checkpoints((error) => {
      this.#wrongAt = Math.max(this.#wrongAt, error.upTo!);
      peer.counts.diverged++;
      peer.log("error", "client diverged", { clusterID, error });
    });
  }

  /** Tells the client of the checkpoints. It compares them with its own; that they differ is to be known here, too (H12). */
  watch(): void {
    if (this.#isClosed) return;
    const { trouble } = this.hub;
    if (trouble !== undefined) this.unable(trouble);
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
    const stateVersion = checkpoint.stateVersion ?? 0;
    this.#peer.send({
      type: "checkpoint",
      channel,
      ...checkpoint,
      stateVersion,
    });
  }

  /** What the hashes of the client's replica are. */
  checkpoint(
    { nodeID, index, state, stateVersion, sessions }: CheckpointAt,
  ): void {
    // Nobody speaks for another replica.
    if (nodeID !== this.#nodeID) return;
    this.#checkpoints.other({ nodeID, index, state, stateVersion, sessions });
  }

  /**
   * The index up to which a snapshot has to reach: with an older one, the client
   * would do again what has parted it from the server, and be wrong again (H12).
   */
  leastSnapshot(): number {
    // Whether the one it takes helps is to be known, too.
    this.#checkpoints.again();
    return this.#wrongAt;
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
  append(message: Append, records: Records, credit: number): void {
    const work: Work = {
      message,
      records,
      credit,
      begun: this.#peer.core.env.now(),
      first: 0,
      parts: [],
      lost: 0,
      added: 0,
      refused: 0,
      refusals: [],
    };
    const done = this.#judging === undefined
      ? this.#run(work)
      : this.#judging.then(() =>
        this.#peer.core.turns.take(this.#peer, () => this.#run(work))
      );
    if (!isPromise(done)) return;
    const judging = this.#judging = done.then(() => {
      if (this.#judging === judging) this.#judging = undefined;
    });
  }

  #run(work: Work): MaybePromise<void> {
    const fail = (error: unknown): void => this.#fail(work, error);
    try {
      const done = chain(this.#judge(work), (held) => this.#end(work, held));
      return isPromise(done) ? done.catch(fail) : undefined;
    } catch (error) {
      fail(error);
    }
  }

  #judge(work: Work): MaybePromise<Held | undefined> {
    // What was to be before it is not in the log: nor is it to be.
    if (this.#isGivenUp) throw this.#ended.signal.reason;
    const failed = (error: unknown): Promise<Held | undefined> => {
      if (!(error instanceof ErrUnauthenticated)) throw error;
      // By the principal of another token it is judged again.
      return this.#peer.untilValid().then(() => this.#judge(work));
    };
    try {
      const judged = this.#gate.judge(
        work.records,
        work.first,
        (verdict) => this.#commit(work, verdict),
      );
      return isPromise(judged) ? judged.catch(failed) : judged;
    } catch (error) {
      return failed(error);
    }
  }

  #end(work: Work, held: Held | undefined): MaybePromise<void> {
    if (held !== undefined) return this.#hold(work, held);
    this.#answer(work);
  }

  /** Judges again what could not be judged, until it can: what is behind it waits meanwhile, and nobody else does (U17). */
  async #hold(work: Work, first: Held): Promise<void> {
    const { number: channel, clusterID } = this;
    const { core: { env } } = this.#peer;
    const { signal } = this.#ended;
    const backoff = new Backoff(env, SYNC_RETRY_FIRST_MS, SYNC_HELD_LAST_MS);
    this.#peer.send({ type: "held", channel, reason: HELD });
    try {
      // What has come before it is to be there before anything behind it is.
      await Promise.all(work.parts);
      for (let held: Held | undefined = first; held !== undefined;) {
        const { at, error }: Held = held;
        work.first = at;
        this.#peer.log("error", `${error.hook} failed`, { clusterID, error });
        await sleep(env, backoff.next(), signal);
        held = await this.#judge(work);
        // It was another one.
        if (held !== undefined && held.at > at) backoff.reset();
      }
    } catch (error) {
      this.#isGivenUp ||= signal.aborted;
      throw error;
    } finally {
      if (!this.#isClosed) {
        this.#peer.send({ type: "held", channel, reason: "" });
      }
    }
    this.#answer(work);
  }

  /**
   * Gives the log what the gate has let through.
   *
   * @throws ErrUnauthenticated if the principal is not valid any more
   */
  #commit(
    work: Work,
    { parts, refusals, refused, upTo }: Verdict,
  ): readonly MaybePromise<number>[] {
    const { isValid, counts } = this.#peer;
    // It may have waited for the verdict for long.
    if (!isValid) {
      throw new ErrUnauthenticated("Token has expired or was revoked");
    }
    work.first = upTo;
    counts.refused += refused;
    work.refused += refused;
    work.refusals.push(...refusals);
    return parts.map((part) => {
      const appended = this.hub.log.append(part);
      if (isPromise(appended)) appended.catch(() => work.lost++);
      work.parts.push(appended);
      work.added += part.ends.length;
      return appended;
    });
  }

  /** Answers once all is in the log. */
  #answer(work: Work): void {
    const { message: { stream, lengths }, parts, refused, refusals } = work;
    const answer = (first: number): void => {
      const peer = this.#peer;
      peer.counts.appended += work.added;
      peer.core.telemetry.appendTook(peer.core.env.now() - work.begun);
      peer.answer(stream, {
        type: "appended",
        stream,
        first,
        refused: refusals.map(({ at }) => at),
        // Said once for all in a row: it costs more than the rest of the answer.
        reasons: refusals.map(({ reason }, i) =>
          reason === refusals[i - 1]?.reason ? "" : reason
        ),
      });
      // A client whose records are refused has to send them slowly.
      const commands = lengths.length + refused * SYNC_REFUSED_COMMANDS;
      peer.consumed(work.credit, commands);
    };
    const [first = 0, ...others] = parts;
    if (others.length === 0 && !isPromise(first)) return answer(first);
    Promise.all(parts).then(([first]) => answer(first!))
      .catch((error) => this.#fail(work, error));
  }

  #fail(work: Work, error: unknown): void {
    const { message: { stream, lengths }, parts, lost, credit } = work;
    const peer = this.#peer;
    // What the log itself has, or has had, is logged once for all.
    const isTold = this.hub.trouble !== undefined ||
      error instanceof ErrStoreCorrupted || error instanceof ErrStoreVanished;
    if (error !== this.#ended.signal.reason && !isTold) {
      peer.log("error", "append failed", { clusterID: this.clusterID, error });
    }
    peer.answer(stream, {
      type: "failed",
      stream,
      // Of several parts, some may be in the log.
      unknown: error instanceof ErrUnknownOutcome || parts.length > lost,
      message: "Server could not add to its log",
    });
    peer.consumed(credit, lengths.length);
  }

  /** Nothing that waits is judged again: whoever sent it is told so, and nothing behind it is added either. */
  drain(): void {
    this.#ended.abort(new ErrClusterClosed());
  }

  /** Says why nothing that is appended can be stored now, or that this is over. */
  unable(reason: string): void {
    const { number: channel } = this;
    const code = reason === "" ? 0 : 1;
    this.#peer.send({ type: "unable", channel, code, reason });
  }

  /** The cluster is not served any more. */
  hubEnded(code: number, reason: string): void {
    this.#peer.refuse(this.number, code, reason);
  }

  /** Gives the cluster back. */
  close(): void {
    this.#isClosed = true;
    this.drain();
    this.hub.users.delete(this);
    this.#unwatch?.();
    this.released();
  }
}
