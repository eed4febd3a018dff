/**
 * Recovery of a replica's state: at the start, when the log was compacted past
 * the state, when the state has diverged, and to leave out an entry that is skipped.
 * A machine in memory without snapshots starts with what is here;
 * `snapshot_recovery.ts`, which recovers from snapshots, is loaded for the others.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { abortable, sleep } from "../async.ts";
import { STORE_FULL_RETRY_MS } from "../limits.ts";
import { ErrCompacted } from "../log/errors.ts";
import type { Epoch } from "../log/history.ts";
import type { LogReader, SnapshotSource } from "../log/log.ts";
import {
  type SnapshotCandidate,
  snapshotCandidates,
} from "../rsm/snapshot_candidates.ts";
import { StateMachine } from "../rsm/state_machine.ts";
import { OnDiskStateMachine } from "../statemachine/types.ts";
import { ErrStoreFull } from "../store/errors.ts";
import type { ReplicaContext } from "./context.ts";
import { type CurrentMachine, discard } from "./current_machine.ts";
import type { DivergenceMonitor } from "./divergence_monitor.ts";
import { loadOnDemand } from "./load.ts";
import type { Proposals } from "./proposals.ts";
import type { InitialState, Machine, RecoveryParts } from "./recovery_parts.ts";
import type { SnapshotRecovery } from "./snapshot_recovery.ts";

/** Creates state machines, and recovers their state. */
export class Recovery {
  readonly #parts: RecoveryParts;
  readonly #context: ReplicaContext;
  readonly #machine: CurrentMachine;
  readonly #proposals: Proposals;
  readonly #divergence: DivergenceMonitor;
  #fromSnapshots: SnapshotRecovery | undefined;

  /** Creates the recovery of a replica. */
  constructor(
    context: ReplicaContext,
    machine: CurrentMachine,
    proposals: Proposals,
    divergence: DivergenceMonitor,
  ) {
    this.#context = context;
    this.#machine = machine;
    this.#proposals = proposals;
    this.#divergence = divergence;
    this.#parts = {
      context,
      machine,
      isTrusted: (info) => divergence.isTrusted(info),
      newMachine: () => this.#newMachine(),
      candidates: (stores) => this.#candidates(stores),
      readAfter: (index, epoch) => this.#readAfter(index, epoch),
    };
  }

  /**
   * Recovers the first state of a new state machine: of one in memory from the newest
   * good snapshot from which the log continues, of one on disk from what it has stored
   * (H8, D13, D14).
   *
   * @param hasSkipped true if the stored state of an on-disk machine contains a skipped entry, and cannot be used
   * @throws ErrDiverged if the stored state goes beyond the log, or has another history (D13, H13)
   * @throws ErrCompacted if the log was compacted and no snapshot reaches it; its cause is the damage of those that could have (H8)
   * @throws ErrStoreVanished if an on-disk machine has lost its state (D14)
   * @throws ErrCodeNotLoaded if what recovers it could not be loaded
   */
  async recoverInitial(hasSkipped = false): Promise<InitialState> {
    const { type, log, stopped } = this.#context;
    if (type === OnDiskStateMachine) {
      return await (await this.#loaded()).initialOnDisk(hasSkipped);
    }
    // Wherever the log is when it succeeds.
    for (;;) {
      const turn = log.turn ?? 0;
      try {
        return await this.#initialInMemory();
      } catch (error) {
        // Snapshots that are here now were not when they were listed, and a store may
        // have been closed in between.
        if (turn === (log.turn ?? 0) || stopped.aborted) throw error;
      }
    }
  }

  async #initialInMemory(): Promise<InitialState> {
    const { localStores } = this.#context;
    let compacted: ErrCompacted | undefined;
    if (!(await this.#candidates(localStores)).some(isFull)) {
      const reader = await this.#readAfter(0);
      if (!(reader instanceof ErrCompacted)) {
        const stateMachine = this.#newMachine();
        return { stateMachine, reader, retain: undefined, isRemote: false };
      }
      compacted = reader;
    }
    return await (await this.#loaded()).initialInMemory(compacted);
  }

  /** Loads what recovers from snapshots. */
  async #loaded(): Promise<SnapshotRecovery> {
    const { SnapshotRecovery } = await abortable(
      loadOnDemand(),
      this.#context.stopped,
    );
    return this.#fromSnapshots ??= new SnapshotRecovery(this.#parts);
  }

  /** Creates a state machine without entries. */
  #newMachine(): Machine {
    const { factory, clusterID, nodeID, config, type, event } = this.#context;
    return new StateMachine(factory, clusterID, nodeID, this.#proposals, {
      hashEntries: config.hashEntries ?? 0,
      skips: this.#machine.skips.list(),
      progress: {
        applied: () => this.#machine.advanced(),
        checkpoint: (checkpoint) => this.#divergence.reached(checkpoint),
        checkpointFailed: (error) => event({ type: "hash failed", error }),
      },
      ...(type === OnDiskStateMachine
        ? { room: (error) => this.#awaitRoom(error) }
        : {}),
    });
  }

  /** Waits before an on-disk machine that found no room is called again (U8). */
  async #awaitRoom(error: ErrStoreFull): Promise<void> {
    const { env, event, stopped } = this.#context;
    event({ type: "store full", error });
    await sleep(env, STORE_FULL_RETRY_MS, stopped);
  }

  /** Repeats a recovery of a running replica that finds no room, until it does (U8). */
  async #untilRoom(
    recover: () => Promise<InitialState>,
  ): Promise<InitialState> {
    for (;;) {
      try {
        return await recover();
      } catch (error) {
        if (!(error instanceof ErrStoreFull)) throw error;
        await this.#awaitRoom(error);
      }
    }
  }

  #candidates(stores: readonly SnapshotSource[]): Promise<SnapshotCandidate[]> {
    const { clusterID, stopped } = this.#context;
    const skips = this.#machine.skips.list();
    // A server, or another tab, may not answer.
    return abortable(snapshotCandidates(stores, clusterID, skips), stopped);
  }

  /** Reads the log after `index`; returns the error if entries there were compacted. */
  async #readAfter(
    index: number,
    epoch?: Epoch,
  ): Promise<LogReader | ErrCompacted> {
    try {
      const { log, stopped: signal } = this.#context;
      return await log.read(index, { epoch, signal });
    } catch (error) {
      if (error instanceof ErrCompacted) return error;
      throw error;
    }
  }

  /**
   * Recovers from the newest snapshot that is ahead of the present state, or, if the
   * state has diverged, from the newest one that agrees with the trusted replica.
   *
   * @returns the origin of the snapshot; undefined if no snapshot helps, or what recovers it could not be loaded
   * @throws ErrOtherHistory if the server has another history: the user has to decide
   */
  async recover(): Promise<"here" | "server" | undefined> {
    let recovery: SnapshotRecovery;
    try {
      recovery = await this.#loaded();
    } catch (error) {
      if (this.#context.stopped.aborted) throw error;
      // There may be a network later.
      this.#context.event({ type: "snapshot failed", error });
      return undefined;
    }
    return await recovery.recover();
  }

  /**
   * Recovers a successor of the present machine, whose state lacks a skipped entry. A
   * machine in memory that has not failed answers until the successor takes over.
   *
   * @param hasSkipped true if the stored state of an on-disk machine contains the entry
   */
  async rebuild(hasSkipped: boolean): Promise<InitialState> {
    const { type, stopped } = this.#context;
    const { current: before } = this.#machine;
    const isClosing = type === OnDiskStateMachine ||
      before.updateFailed !== undefined;
    await this.#machine.prepareSuccessor(isClosing);
    const state = await this.#untilRoom(() => this.recoverInitial(hasSkipped));
    if (stopped.aborted) {
      state.reader.close();
      await discard(state.stateMachine);
      throw stopped.reason;
    }
    const isBeyond = state.stateMachine.applied > before.applied;
    this.#machine.setSuccessor(state.stateMachine, isBeyond);
    return state;
  }
}

/** True for a snapshot with a state. */
function isFull({ info }: SnapshotCandidate): boolean {
  return info.kind === "full";
}
