/**
 * Detection and explanation of divergence, for one replica.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { abortable } from "../async.ts";
import {
  type Agreed,
  Checkpoints,
  type Hashes,
} from "../divergence/checkpoints.ts";
import type { ErrDiverged } from "../log/errors.ts";
import type { FailedEntries } from "../rsm/state_machine.ts";
import { MachineFailure } from "../rsm/errors.ts";
import type { SnapshotInfo } from "../snapshot/store.ts";
import type { ReplicaContext } from "./context.ts";
import type { CurrentMachine } from "./current_machine.ts";
import { loadReplays } from "./load.ts";
import type { Replays } from "./replays.ts";

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
  #replays: Replays | undefined;
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
    const { log, event } = this.#context;
    const retention = log.retain(error.after ?? 0);
    try {
      const explained = await (await this.#loaded()).explain(error);
      if (explained !== undefined) {
        event({ type: "diverged", error: explained, from });
      }
    } finally {
      retention.release();
    }
  }

  /** Loads what replays entries. */
  async #loaded(): Promise<Replays> {
    const { Replays } = await abortable(loadReplays(), this.#context.stopped);
    return this.#replays ??= new Replays(this.#context, this.#machine);
  }

  /** Returns the hashes that a new machine has after each entry in (`after`, `upTo`], as `Replica.explain()`. */
  async hashes(
    after: number,
    upTo: number,
    wanted: AbortSignal | undefined,
  ): Promise<readonly Hashes[] | undefined> {
    const replays = await abortable(this.#loaded(), wanted);
    return await replays.hashes(after, upTo, wanted);
  }

  /** Index of the entry of a batch at which a new machine throws too; undefined if it cannot be found, or not in time. */
  async locateFailure(entries: FailedEntries): Promise<number | undefined> {
    if (entries.index === entries.upTo) return undefined;
    try {
      return await (await this.#loaded()).locateFailure(entries);
    } catch {
      // Without the entry, the whole batch is reported.
      return undefined;
    }
  }

  /** Stops the comparison; the replays under way end by the signals of the context. */
  close(): void {
    this.#unwatch?.();
  }

  /** Settles once all replays have ended. */
  async ended(): Promise<void> {
    await this.#replays?.ended();
  }
}
