/**
 * Replays of parts of the log into new machines, for one replica: one at a time.
 * Loaded once replicas have diverged, an `update()` threw, or an inspector asks for
 * earlier states.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { abortable, anySignal } from "../async.ts";
import type { Hashes } from "../divergence/checkpoints.ts";
import { explainDivergence } from "../divergence/explain.ts";
import {
  locateFailure,
  replay,
  type Replayed,
  replayFactory,
  type ReplayOptions,
} from "../divergence/replay.ts";
import { EXPLAIN_MS_MAX, LOCATE_MS_MAX } from "../limits.ts";
import type { ErrDiverged } from "../log/errors.ts";
import type { SnapshotSource } from "../log/log.ts";
import type { FailedEntries } from "../rsm/state_machine.ts";
import { MachineFailure } from "../rsm/errors.ts";
import type { MachineFactory } from "../rsm/managed_machine.ts";
import type { SkippedEntry } from "../rsm/skipped_entries.ts";
import type { ReplicaContext } from "./context.ts";
import type { CurrentMachine } from "./current_machine.ts";

export { history } from "../divergence/replica_history.ts";

/** Replays parts of the log to find the entry that explains a difference or a failure. */
export class Replays {
  readonly #context: ReplicaContext;
  readonly #machine: CurrentMachine;
  /** Settles once the queued replays are done. */
  #queue: Promise<unknown> = Promise.resolve();

  /** Creates the replays of a replica. */
  constructor(context: ReplicaContext, machine: CurrentMachine) {
    this.#context = context;
    this.#machine = machine;
  }

  /** Looks for the entry after which this replica and the trusted one differ (U32); undefined if it cannot be found. */
  async explain(error: ErrDiverged): Promise<ErrDiverged | undefined> {
    const { log, env, stopped } = this.#context;
    const { after = 0 } = error;
    const upTo = error.upTo!;
    const late = new AbortController();
    const cancel = env.setTimer(() => late.abort(), EXPLAIN_MS_MAX);
    const { signal, release } = anySignal(stopped, late.signal);
    try {
      // Requested before the local replay, so that both replay at the same time.
      const trusted = log.checkpoints?.explain?.(after, upTo, signal)
        .catch(() => undefined);
      return await explainDivergence(
        error,
        () => this.#replay(after, upTo, signal),
        async () => await (trusted && abortable(trusted, signal)),
      );
    } finally {
      cancel();
      release();
    }
  }

  /** Returns the hashes that a new machine has after each entry in (`after`, `upTo`], as `Replica.explain()`. */
  async hashes(
    after: number,
    upTo: number,
    wanted: AbortSignal | undefined,
  ): Promise<readonly Hashes[] | undefined> {
    const { signal, release } = anySignal(this.#context.stopped, wanted);
    try {
      const replayed = this.#replay(after, upTo, signal);
      return (await abortable(replayed, signal))?.hashes;
    } catch (error) {
      throw error instanceof MachineFailure ? error.cause : error;
    } finally {
      release();
    }
  }

  #replay(
    after: number,
    upTo: number,
    signal: AbortSignal,
  ): Promise<Replayed | undefined> {
    const replayed = this.#queue.then(async () => {
      signal.throwIfAborted();
      const { factory, config, allStores } = this.#context;
      const make = replayFactory(factory, config);
      const { skips } = this.#machine.current;
      return await (make &&
        replay(after, upTo, this.#options(make, skips, allStores, signal)));
    });
    this.#queue = replayed.catch(() => {});
    return replayed;
  }

  #options(
    factory: () => MachineFactory,
    skips: readonly SkippedEntry[],
    stores: readonly SnapshotSource[],
    signal: AbortSignal,
  ): ReplayOptions {
    const { clusterID, nodeID, log, files, env } = this.#context;
    return {
      factory,
      clusterID,
      nodeID,
      log,
      stores,
      files,
      env,
      skips,
      signal,
    };
  }

  /**
   * Index of the entry of a batch at which a new machine throws too; undefined if
   * it throws at no entry.
   *
   * @throws the reason of a signal if it is not found in time
   */
  async locateFailure(entries: FailedEntries): Promise<number | undefined> {
    const { factory, config, env, stopped, localStores } = this.#context;
    const late = new AbortController();
    const cancel = env.setTimer(() => late.abort(), LOCATE_MS_MAX);
    const { signal, release } = anySignal(stopped, late.signal);
    // Also skips whose decision is in the batch itself.
    const skips = [
      ...this.#machine.newest.knownSkips,
      ...this.#machine.skips.list(),
    ];
    try {
      const make = replayFactory(factory, config);
      if (make === undefined) return undefined;
      const located = locateFailure(
        entries,
        this.#options(make, skips, localStores, signal),
      );
      const ended = located.catch(() => {});
      this.#queue = Promise.all([this.#queue, ended]);
      return await abortable(located, signal);
    } finally {
      release();
      cancel();
    }
  }

  /** Settles once all replays have ended. */
  async ended(): Promise<void> {
    await this.#queue;
  }
}
