/**
 * Schedule of a replica's snapshots (H7), and what the log retains for an on-disk
 * machine. What makes the snapshots is loaded when the first one is due.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { abortable, deferredSource } from "../async.ts";
import { ErrClusterClosed } from "../log/errors.ts";
import type { Retention } from "../log/log.ts";
import type { SkippedEntry } from "../rsm/skipped_entries.ts";
import type { SnapshotInfo } from "../snapshot/store.ts";
import { ErrSnapshotStopped } from "../statemachine/errors.ts";
import { OnDiskStateMachine } from "../statemachine/types.ts";
import type { ReplicaContext } from "./context.ts";
import type { CurrentMachine } from "./current_machine.ts";
import { loadOnDemand } from "./load.ts";
import type { SnapshotMaker } from "./snapshot_maker.ts";

/** Decides when a replica takes snapshots, and has them made. */
export class Snapshotter {
  readonly #context: ReplicaContext;
  readonly #machine: CurrentMachine;
  readonly #stopped = new AbortController();
  #maker: SnapshotMaker | undefined;
  /** Number of snapshots and compactions that are queued or in progress. */
  #queued = 0;
  /** Index at which the last snapshot was taken, or tried. */
  #lastIndex = 0;
  /** Retention of the entries that an on-disk machine needs for its next start. */
  readonly #retention: Retention | undefined;

  /** Creates the snapshotter of a replica that has its first state; the log keeps the entries after `retain`, if given. */
  constructor(
    context: ReplicaContext,
    machine: CurrentMachine,
    retain: number | undefined,
  ) {
    this.#context = context;
    this.#machine = machine;
    this.#lastIndex = machine.applied;
    if (retain !== undefined) this.#retention = context.log.retain(retain);
  }

  /** Moves the retention to `index`, from which an on-disk machine was rebuilt. */
  retain(index: number): void {
    this.#retention?.move(index);
  }

  /** Takes a snapshot if one is due (H7). */
  applied(index: number): void {
    if (
      !this.#isDue(index) || this.#queued > 0 || this.#machine.current.behind ||
      this.#machine.current.ahead
    ) return;
    this.#lastIndex = index;
    this.#make((maker) => maker.scheduled()).catch(() => {
      // Reported as an event.
    });
  }

  #isDue(index: number): boolean {
    const { config: { snapshotEntries = 0 }, log, isDurable } = this.#context;
    if (log.keeper !== undefined) return false;
    if (snapshotEntries > 0 && index - this.#lastIndex >= snapshotEntries) {
      return true;
    }
    // No compaction because of snapshots that do not outlive the host.
    const from = log.snapshotFrom ?? 0;
    return isDurable && this.#lastIndex < from && index >= from;
  }

  /** Saves a local snapshot after a recovery from the server, so that the next start works offline. */
  saveRemoteState(): void {
    const { isDurable, type, log } = this.#context;
    if (
      log.keeper !== undefined || !isDurable || type === OnDiskStateMachine
    ) return;
    this.request().catch(() => {
      // Reported as an event.
    });
  }

  /** Notes that an on-disk machine which stores the host's rows is durable up to `index`. */
  synced(index: number): void {
    if (this.#machine.current.machine.hostState !== undefined) {
      this.#retention?.move(index);
    }
  }

  /** Takes a snapshot after the queued work; `overhead` replaces the replica's `compactionOverhead`. */
  request(signal?: AbortSignal, overhead?: number): Promise<SnapshotInfo> {
    return this.#make((maker) => maker.request(signal, overhead), signal);
  }

  /** Compacts the log after the queued work, as far as the snapshots allow; resolves with the index requested, 0 if they allow nothing. */
  compact(signal?: AbortSignal, overhead?: number): Promise<number> {
    return this.#make((maker) => maker.compact(signal, overhead), signal);
  }

  /** Removes snapshots of states that contain one of some skipped entries. */
  removeSuperseded(skips: readonly SkippedEntry[]): void {
    if (skips.length === 0) return;
    this.#make((maker) => maker.removeSuperseded(skips)).catch(() => {
      // Reported as an event.
    });
  }

  /** Exports the state at the applied index as one stream that starts with its first read (H9). */
  export(): ReadableStream<Uint8Array> {
    return deferredSource(async () => (await this.#loaded()).export());
  }

  /** Has the maker do something, loading it first. */
  async #make<T>(
    work: (maker: SnapshotMaker) => T | Promise<T>,
    signal?: AbortSignal,
  ): Promise<T> {
    this.#queued++;
    try {
      const maker = this.#maker ?? await abortable(this.#loaded(), signal);
      return await work(maker);
    } finally {
      this.#queued--;
    }
  }

  /** Loads the maker; a failure is an event, and the next snapshot that is due tries again. */
  async #loaded(): Promise<SnapshotMaker> {
    try {
      const { SnapshotMaker } = await loadOnDemand();
      return this.#maker ??= new SnapshotMaker({
        context: this.#context,
        machine: this.#machine,
        retention: this.#retention,
        stopped: this.#stopped.signal,
      });
    } catch (error) {
      if (this.#stopped.signal.aborted) {
        throw new ErrClusterClosed(undefined, { cause: error });
      }
      this.#context.event({ type: "snapshot failed", error });
      throw error;
    }
  }

  /** Stops queued snapshots; resolves once all have ended. */
  async stop(): Promise<void> {
    this.#stopped.abort(new ErrSnapshotStopped());
    await this.#maker?.ended();
    this.#retention?.release();
  }
}
