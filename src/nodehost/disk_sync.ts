/**
 * Periodic sync of an on-disk state machine.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  STORE_FULL_RETRY_MS,
  SYNC_ENTRIES_MAX,
  SYNC_INTERVAL_MS,
  SYNC_SUBMISSIONS_MAX,
} from "../limits.ts";
import { MachineFailure } from "../rsm/errors.ts";
import { ErrStoreFull } from "../store/errors.ts";
import type { ReplicaContext } from "./context.ts";
import type { CurrentMachine } from "./current_machine.ts";
import type { ReplicaOutbox } from "./outbox.ts";

/** Syncs an on-disk state machine after a number of entries or submissions, or a time (D6). */
export class DiskSync {
  readonly #context: ReplicaContext;
  readonly #machine: CurrentMachine;
  readonly #onSynced: (index: number) => void;
  readonly #outbox: ReplicaOutbox | undefined;
  /** Index of the last sync. */
  #synced: number;
  #isSyncing = false;
  #cancelTimer: (() => void) | undefined;

  /** Creates the sync of a machine that is durable as it was started; `onSynced` is called with the index of each sync. */
  constructor(
    context: ReplicaContext,
    machine: CurrentMachine,
    onSynced: (index: number) => void,
    outbox: ReplicaOutbox | undefined,
  ) {
    this.#context = context;
    this.#machine = machine;
    this.#onSynced = onSynced;
    this.#outbox = outbox;
    this.#synced = machine.applied;
  }

  /** Syncs now if much was applied, else later. */
  applied(): void {
    const { applied, dirty } = this.#machine.current;
    if (!dirty) return;
    const unsynced = this.#outbox?.unsynced ?? 0;
    if (
      applied - this.#synced >= SYNC_ENTRIES_MAX ||
      unsynced >= SYNC_SUBMISSIONS_MAX && !this.#isSyncing
    ) this.#sync();
    else this.#syncIn(SYNC_INTERVAL_MS);
  }

  /** Cancels the sync that is scheduled. */
  stop(): void {
    this.#cancelTimer?.();
  }

  /**
   * Syncs for the last time, before the machine is closed, so that the outbox need
   * not keep what was applied. Never rejects: what fails is as after a crash.
   */
  async finish(): Promise<void> {
    const { current } = this.#machine;
    if (current.closed || (this.#outbox?.unsynced ?? 0) === 0) return;
    const decided = this.#outbox?.decided ?? 0;
    try {
      await current.sync();
    } catch {
      return;
    }
    this.#outbox?.synced(decided);
  }

  #syncIn(delayMs: number): void {
    this.#cancelTimer ??= this.#context.env.setTimer(
      () => this.#sync(),
      delayMs,
    );
  }

  #sync(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    const { current } = this.#machine;
    // Its recovery failed, and another one follows (R9).
    if (current.closed) return;
    const index = current.applied;
    const decided = this.#outbox?.decided ?? 0;
    this.#synced = index;
    this.#isSyncing = true;
    Promise.resolve().then(() => this.#machine.current.sync()).then(
      () => {
        this.#isSyncing = false;
        this.#onSynced(index);
        this.#outbox?.synced(decided);
      },
      (error) => {
        this.#isSyncing = false;
        if (error instanceof MachineFailure) {
          return this.#context.fail(error.cause);
        }
        // Any other error: its recovery failed, and another machine follows.
        if (!(error instanceof ErrStoreFull)) return;
        this.#context.event({ type: "store full", error });
        if (!this.#context.stopped.aborted) this.#syncIn(STORE_FULL_RETRY_MS);
      },
    );
  }
}
