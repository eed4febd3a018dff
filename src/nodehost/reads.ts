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
  /** Settles once the request for the read index under way has. */
  #requested: Promise<void> | undefined;
  /** The request after that, for reads that began after it: the first may be answered with an index from before them. It has not begun, so that later reads may join it. */
  #next: Promise<number> | undefined;
  /** Number of reads that share the request that began last, or begins next, after a wait. */
  #shared = 0;
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
      await machine.until(known, signal);
    } finally {
      this.#count--;
    }
    machine.check();
  }

  /** Index that covers everything answered before the call. */
  #readIndex(): MaybePromise<number> {
    if (this.#next === undefined) {
      // Callers that have shared a request go on together: the first one waits for the
      // others, which would otherwise wait for the request after its own.
      if (this.#requested === undefined && this.#shared < 2) {
        return this.#request();
      }
      this.#shared = 0;
      this.#next = this.#defer();
    }
    this.#shared++;
    return this.#next;
  }

  async #defer(): Promise<number> {
    await this.#requested;
    await this.#context.env.turn();
    this.#next = undefined;
    return this.#request();
  }

  #request(): MaybePromise<number> {
    const { log, stopped } = this.#context;
    const index = log.readIndex({ signal: stopped });
    if (!isPromise(index)) return index;
    const settled = (): void => {
      this.#requested = undefined;
    };
    // Before its callers go on, all of which may have stopped waiting.
    this.#requested = index.then(settled, settled);
    return index;
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
