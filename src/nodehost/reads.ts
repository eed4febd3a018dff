/**
 * Linearizable reads: waits until the applied index reaches the read index (H2).
 *
 * This module is browser compatible.
 *
 * @module
 */

import { abortable, Backoff, isPromise, sleep } from "../async.ts";
import { PENDING_READS_MAX } from "../limits.ts";
import { ErrSystemBusy } from "../rsm/errors.ts";
import type { MaybePromise } from "../statemachine/types.ts";
import type { ReplicaContext } from "./context.ts";
import type { CurrentMachine } from "./current_machine.ts";

/** Linearizable reads of one replica. Concurrent reads share a request for the read index. */
export class Reads {
  readonly #context: ReplicaContext;
  readonly #machine: CurrentMachine;
  /** Number of reads that wait. */
  #count = 0;
  /** Read index request under way. */
  #requested: Promise<number> | undefined;
  /** The request after that, for reads that began after it: the first may be answered with an index from before them. */
  #next: Promise<number> | undefined;
  /** Number of times the log was reopened. */
  #reopenings = 0;

  /** Creates the reads of a replica. */
  constructor(context: ReplicaContext, machine: CurrentMachine) {
    this.#context = context;
    this.#machine = machine;
  }

  /**
   * Resolves once everything answered before the call, by any replica, is applied
   * here.
   *
   * @throws ErrSystemBusy if `PENDING_READS_MAX` reads wait already, or the replica is recovering
   * @throws ErrDiverged if the replica is known to have diverged
   * @throws ErrClusterClosed if the replica was stopped or has failed
   */
  async upToDate(signal: AbortSignal | undefined): Promise<void> {
    signal?.throwIfAborted();
    const machine = this.#machine;
    machine.check();
    const parked = machine.parkedError;
    if (parked !== undefined) throw parked;
    const index = this.#readIndex();
    if (!isPromise(index) && index <= machine.applied) return;
    await this.#wait(index, signal);
    machine.check();
  }

  async #wait(
    index: MaybePromise<number>,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    if (this.#count >= PENDING_READS_MAX) {
      throw new ErrSystemBusy(
        `${PENDING_READS_MAX} reads wait already; read again once some have settled`,
      );
    }
    this.#count++;
    try {
      // A closed log may never answer.
      const known = isPromise(index)
        ? await abortable(abortable(index, this.#context.stopped), signal)
        : index;
      await this.#machine.until(known, signal);
    } finally {
      this.#count--;
    }
  }

  /** Index that covers everything answered before the call. */
  #readIndex(): MaybePromise<number> {
    if (this.#requested !== undefined) {
      return this.#next ??= this.#requested.then(() => {}, () => {}).then(
        () => {
          this.#next = undefined;
          return this.#readIndex();
        },
      );
    }
    const { log, stopped } = this.#context;
    const index = log.readIndex({ signal: stopped });
    if (!isPromise(index)) return index;
    this.#requested = index.finally(() => this.#requested = undefined);
    // All callers may have stopped waiting.
    this.#requested.catch(() => {});
    return this.#requested;
  }

  /**
   * Calls `settle`, if given, once all entries of the reopened log are applied,
   * unless the log is reopened again before that. Never rejects.
   */
  async afterReopening(settle: (() => void) | undefined): Promise<void> {
    const reopening = ++this.#reopenings;
    if (settle === undefined) return;
    const { env, stopped } = this.#context;
    const backoff = new Backoff(env);
    while (reopening === this.#reopenings) {
      try {
        await this.#machine.until(await this.#readIndex(), stopped);
        if (reopening === this.#reopenings) settle();
        return;
      } catch {
        if (stopped.aborted) return;
        try {
          await sleep(env, backoff.next(), stopped);
        } catch {
          return;
        }
      }
    }
  }
}
