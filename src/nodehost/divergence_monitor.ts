/**
 * Detection and explanation of divergence, for one replica.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { abortable, anySignal } from "../async.ts";
import {
  type Agreed,
  Checkpoints,
  type Hashes,
} from "../divergence/checkpoints.ts";
import type { Replayed, ReplayOptions } from "../divergence/replay.ts";
import { EXPLAIN_MS_MAX, LOCATE_MS_MAX } from "../limits.ts";
import type { ErrDiverged } from "../log/errors.ts";
import type { SnapshotSource } from "../log/log.ts";
import type { FailedEntries } from "../rsm/state_machine.ts";
import { MachineFailure } from "../rsm/errors.ts";
import type { MachineFactory } from "../rsm/managed_machine.ts";
import type { SkippedEntry } from "../rsm/skipped_entries.ts";
import type { SnapshotInfo } from "../snapshot/store.ts";
import type { ReplicaContext } from "./context.ts";
import type { CurrentMachine } from "./current_machine.ts";
import { loadReplays } from "./load.ts";

/**
 * Compares the state hashes of a replica with those of others, and replays parts
 * of the log into new machines to find the entry that explains a difference or a
 * failure.
 */
export class DivergenceMonitor {
  readonly #context: ReplicaContext;
  readonly #machine: CurrentMachine;
  readonly #onDiverged: (error: ErrDiverged) => void;
  readonly #checkpoints: Checkpoints;
  /** Settles once the queued replays are done: they run one at a time. */
  #replays: Promise<unknown> = Promise.resolve();
  #unwatch: (() => void) | undefined;
  /** Newest index at which another replica had the same hashes; undefined before the first. */
  agreed: Agreed | undefined;

  /** Creates the monitor; `onDiverged` is called when this replica is known to be wrong. */
  constructor(
    context: ReplicaContext,
    machine: CurrentMachine,
    onDiverged: (error: ErrDiverged) => void,
  ) {
    this.#context = context;
    this.#machine = machine;
    this.#onDiverged = onDiverged;
    this.#checkpoints = new Checkpoints(
      (error, from) => this.#diverged(error, from),
      (index, from) => {
        const { env, trusted } = context;
        // An older index says less.
        if (index < (this.agreed?.index ?? 0)) return;
        this.agreed = { index, isTrusted: from === trusted, at: env.now() };
      },
    );
  }

  /** Starts to receive the hashes of other replicas. */
  start(): void {
    const { log, nodeID } = this.#context;
    this.#unwatch = log.checkpoints?.watch(
      nodeID,
      (checkpoint) => this.#checkpoints.addOther(checkpoint),
    );
  }

  /** Publishes the hashes of this replica at a checkpoint and compares them. */
  reached(checkpoint: Hashes): void {
    const { log, nodeID, diverged } = this.#context;
    // Published before the comparison, so that both replicas detect a difference.
    if (diverged === undefined) {
      log.checkpoints?.publish({ ...checkpoint, nodeID });
    }
    this.#checkpoints.addOwn(checkpoint);
  }

  /** Forgets the hashes of the machine that was replaced. */
  reset(): void {
    this.#checkpoints.clearOwn();
    this.agreed = undefined;
  }

  /** True if a snapshot is known to hold the state of the trusted replica. */
  isTrusted({ nodeID, index }: SnapshotInfo): boolean {
    return this.#checkpoints.isAgreed(nodeID, this.#context.trusted!, index);
  }

  #diverged(error: ErrDiverged, from: bigint): void {
    const context = this.#context;
    const { event } = context;
    if (context.diverged !== undefined) return;
    event({ type: "diverged", error, from });
    if (from !== context.trusted) return;
    context.diverged = error;
    this.#onDiverged(error);
    this.#explain(error, from).catch((error) => {
      // Any other error says nothing about the machine.
      if (context.stopped.aborted || !(error instanceof MachineFailure)) return;
      event({ type: "hash failed", error: error.cause });
    });
  }

  /** Looks for the entry after which this replica and the trusted one differ, and reports it (U32). */
  async #explain(error: ErrDiverged, from: bigint): Promise<void> {
    const { log, env, event, stopped } = this.#context;
    const { after = 0 } = error;
    const upTo = error.upTo!;
    const late = new AbortController();
    const cancel = env.setTimer(() => late.abort(), EXPLAIN_MS_MAX);
    const { signal, release } = anySignal(stopped, late.signal);
    const retention = log.retain(after);
    try {
      // Requested before the local replay, so that both replay at the same time.
      const trusted = log.checkpoints?.explain?.(after, upTo, signal)
        .catch(() => undefined);
      const { explainDivergence } = await loadReplays();
      const explained = await explainDivergence(
        error,
        () => this.#replay(after, upTo, signal),
        async () => await (trusted && abortable(trusted, signal)),
      );
      if (explained !== undefined) {
        event({ type: "diverged", error: explained, from });
      }
    } finally {
      retention.release();
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
    const replayed = this.#replays.then(async () => {
      signal.throwIfAborted();
      const { replay, replayFactory } = await loadReplays();
      const { factory, config, allStores } = this.#context;
      const make = replayFactory(factory, config);
      const { skips } = this.#machine.current;
      return await (make &&
        replay(after, upTo, this.#options(make, skips, allStores, signal)));
    });
    this.#replays = replayed.catch(() => {});
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

  /** Index of the entry of a batch at which a new machine throws too; undefined if it cannot be found, or not in time. */
  async locateFailure(entries: FailedEntries): Promise<number | undefined> {
    const { factory, config, env, stopped, localStores } = this.#context;
    if (entries.index === entries.upTo) return undefined;
    const late = new AbortController();
    const cancel = env.setTimer(() => late.abort(), LOCATE_MS_MAX);
    const { signal, release } = anySignal(stopped, late.signal);
    // Also skips whose decision is in the batch itself.
    const skips = [
      ...this.#machine.newest.knownSkips,
      ...this.#machine.skips.list(),
    ];
    try {
      const { locateFailure, replayFactory } = await abortable(
        loadReplays(),
        signal,
      );
      const make = replayFactory(factory, config);
      if (make === undefined) return undefined;
      const located = locateFailure(
        entries,
        this.#options(make, skips, localStores, signal),
      );
      const ended = located.catch(() => {});
      this.#replays = Promise.all([this.#replays, ended]);
      return await abortable(located, signal);
    } catch {
      // Without the entry, the whole batch is reported.
      return undefined;
    } finally {
      release();
      cancel();
    }
  }

  /** Stops the comparison; the replays under way end by the signals of the context. */
  close(): void {
    this.#unwatch?.();
  }

  /** Settles once all replays have ended. */
  async ended(): Promise<void> {
    await this.#replays;
  }
}
