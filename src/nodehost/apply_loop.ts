/**
 * Apply loop of a replica: reads committed entries and applies them in batches.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { Backoff, chain, isPromise, onAbort, sleep } from "../async.ts";
import { messageOf } from "../describe.ts";
import {
  APPLY_SLICE_MS,
  BATCH_RECORDS_MAX,
  MACHINE_SLOW_MS,
  RETRY_FIRST_MS,
  START_READS_MAX,
  UPDATE_RETRY_LAST_MS,
} from "../limits.ts";
import { epochsIn } from "../log/epochs.ts";
import { ErrCompacted, ErrOtherHistory } from "../log/errors.ts";
import type { Epoch } from "../log/history.ts";
import type { LogBatch, LogReader } from "../log/log.ts";
import { batchAfter, batchUpTo, lastOf } from "../log/records.ts";
import type { Rehearsal } from "../rehearsal/mod.ts";
import { MachineFailure } from "../rsm/errors.ts";
import {
  ErrSkippedApplied,
  type SkippedEntry,
} from "../rsm/skipped_entries.ts";
import type { FailedEntries, StateMachine } from "../rsm/state_machine.ts";
import { ErrNewerCode } from "../statemachine/errors.ts";
import type { MaybePromise } from "../statemachine/types.ts";
import type { ReplicaContext } from "./context.ts";
import type { CurrentMachine, Parked } from "./current_machine.ts";
import type { DiskSync } from "./disk_sync.ts";
import type { DivergenceMonitor } from "./divergence_monitor.ts";
import { ErrUpdateFailed } from "./errors.ts";
import { guardLog, LogFailure, nextOf } from "./log_failure.ts";
import type { Proposals } from "./proposals.ts";
import type { Recovery } from "./recovery.ts";
import type { SessionState } from "./session.ts";
import { skipsAfter, skipsIn } from "./skip_decisions.ts";
import type { Snapshotter } from "./snapshotter.ts";

/** Internal error for an `update()` that threw. */
class UpdateFailure extends MachineFailure {
  readonly entries: FailedEntries;
  readonly error: ErrUpdateFailed;
  /** Last epoch at or before the first of the entries. */
  readonly epoch: Epoch | undefined;

  constructor(
    entries: FailedEntries,
    error: ErrUpdateFailed,
    epoch: Epoch | undefined,
  ) {
    super("update() threw", { cause: error.cause });
    this.entries = entries;
    this.error = error;
    this.epoch = epoch;
  }
}

/** Last epoch in some batches at or before an index, `before` without one. */
function epochAt(
  batches: readonly LogBatch[],
  at: number,
  before: Epoch | undefined,
): Epoch | undefined {
  return batches.flatMap(epochsIn).findLast(({ index }) => index <= at) ??
    before;
}

/** Splits batches into those up to an index and those after it. */
function split(
  batches: readonly LogBatch[],
  at: number,
): [below: LogBatch[], above: LogBatch[]] {
  const below: LogBatch[] = [];
  const above: LogBatch[] = [];
  for (const batch of batches) {
    if (batch.first <= at) below.push(batchUpTo(batch, at));
    if (lastOf(batch) > at) above.push(batchAfter(batch, at));
  }
  return [below, above];
}

/** Dependencies of an {@linkcode ApplyLoop}. */
export interface ApplyLoopParts {
  readonly machine: CurrentMachine;
  readonly proposals: Proposals;
  readonly recovery: Recovery;
  readonly divergence: DivergenceMonitor;
  readonly snapshotter: Snapshotter;
  /** Set for an on-disk machine. */
  readonly diskSync: DiskSync | undefined;
  /** Rehearsal, which is notified of each batch before it is applied; undefined without one. */
  readonly rehearsal: () => Rehearsal | undefined;
}

/** Applies committed entries until the replica stops or fails. */
export class ApplyLoop {
  readonly #context: ReplicaContext;
  readonly #parts: ApplyLoopParts;
  readonly #machine: CurrentMachine;
  #reader: LogReader;
  #done: Promise<void> = Promise.resolve();
  /** Set until the replica's start has resolved. */
  #isStarting = true;
  #onParked: (() => void) | undefined;
  /**
   * Set until a batch is applied after the start. Code is slow when it runs for the
   * first time: the start, the first proposals and the first batch get a task each,
   * so that a page is not late for a frame.
   */
  #isFirst = true;

  /** Creates a loop that reads from the applied index. */
  constructor(
    context: ReplicaContext,
    reader: LogReader,
    parts: ApplyLoopParts,
  ) {
    this.#context = context;
    this.#machine = parts.machine;
    this.#parts = parts;
    this.#reader = reader;
  }

  /** Starts the loop; resolves once all present entries of the log are applied, or the replica waits before an entry at which `update()` threw. */
  async start(): Promise<void> {
    const { lastAtStart } = this.#reader;
    const applied = this.#machine.until(lastAtStart);
    const parked = new Promise<void>((resolve) => this.#onParked = resolve);
    this.#done = this.#run();
    if (isPromise(applied)) await Promise.race([applied, parked]);
    // What the caller does next gets a task of its own.
    await this.#context.env.turn();
    this.#isStarting = false;
  }

  /** Ends the read under way, so that the loop continues from the applied index, or ends. */
  interrupt(): void {
    this.#reader.close();
  }

  /** Resolves once the loop has ended. */
  async ended(): Promise<void> {
    await this.#done;
  }

  async #run(): Promise<void> {
    const { stopped } = this.#context;
    const { env } = this.#context;
    const backoff = new Backoff(env);
    /** Waits between failures of `update()` without progress. */
    const updates = new Backoff(env, RETRY_FIRST_MS, UPDATE_RETRY_LAST_MS);
    /** Applied index at the last failure of `update()`. */
    let failedAt = -1;
    let error: unknown;
    /** Last failure that was reported. */
    let reported = { message: "", at: -1, failures: 0 };
    try {
      for (let reader: LogReader | undefined = this.#reader;;) {
        try {
          reader ??= await this.#reopen(error, backoff);
          await this.#applyAll(reader, backoff);
          // The decision to skip was read: continue from the applied index.
          reader.close();
          reader = error = undefined;
        } catch (caught) {
          reader?.close();
          reader = undefined;
          error = caught;
          if (stopped.aborted) throw error;
          if (error instanceof ErrSkippedApplied) {
            reader = await this.#supersede(error);
            continue;
          }
          if (error instanceof UpdateFailure) {
            const { applied } = this.#machine;
            if (applied !== failedAt) updates.reset();
            else await sleep(env, updates.next(), stopped);
            failedAt = applied;
            reader = await this.#afterFailure(error);
            error = undefined;
            continue;
          }
          const cause = error instanceof MachineFailure ? error.cause : error;
          if (
            cause instanceof ErrNewerCode && this.#context.remote !== undefined
          ) return await this.#awaitNewerCode(cause);
          if (!this.#isRetryable(error)) throw error;
          if (error instanceof LogFailure) {
            const { cause } = error;
            const message = messageOf(cause);
            const at = this.#machine.applied;
            if (reported.at !== at) reported = { message: "", at, failures: 0 };
            if (this.#mustEnd(++reported.failures)) throw cause;
            if (reported.message === message) continue;
            reported.message = message;
            this.#context.event({ type: "log failed", error: cause });
          }
        }
      }
    } catch (error) {
      if (stopped.aborted) return;
      if (error instanceof UpdateFailure) {
        this.#context.updateFailed = error.error;
      }
      this.#context.fail(error instanceof MachineFailure ? error.cause : error);
    }
  }

  /** True if reading the log again, or a snapshot, may help. */
  #isRetryable(error: unknown): boolean {
    const { stopped, diverged } = this.#context;
    return !stopped.aborted &&
      !(error instanceof MachineFailure) &&
      !(error instanceof ErrOtherHistory) &&
      (diverged !== undefined || error instanceof LogFailure ||
        error instanceof ErrCompacted);
  }

  /** True if the start has failed too often to read a log of this process; a remote log is retried without a limit. */
  #mustEnd(failures: number): boolean {
    return this.#isStarting && this.#context.remote === undefined &&
      failures >= START_READS_MAX;
  }

  /** Opens the log at the applied index after a read has failed; recovers from a snapshot first if necessary. */
  async #reopen(error: unknown, backoff: Backoff): Promise<LogReader> {
    const context = this.#context;
    const { log, env, stopped } = context;
    if (error instanceof LogFailure) await sleep(env, backoff.next(), stopped);
    if (context.diverged !== undefined || error instanceof ErrCompacted) {
      const source = await this.#parts.recovery.recover();
      if (source === "server") this.#parts.snapshotter.saveRemoteState();
      if (source !== undefined) backoff.reset();
      else {
        context.event({ type: "log failed", error });
        await sleep(env, backoff.next(), stopped);
        // Compacted entries do not return. But a server reports a log as compacted
        // also if a snapshot would only be faster, so it is read again; not by a
        // machine that was lost with its recovery (R9).
        if (context.diverged !== undefined || this.#machine.current.closed) {
          throw error;
        }
      }
    }
    const { applied, epoch } = this.#machine.newest;
    const reader = await guardLog(() =>
      log.read(applied, { epoch, signal: stopped })
    );
    if (stopped.aborted) {
      reader.close();
      throw stopped.reason;
    }
    return this.#reader = reader;
  }

  // ----------------------------------------------------------------- applying

  async #applyAll(reader: LogReader, backoff: Backoff): Promise<void> {
    if (this.#machine.parked !== undefined) {
      return await this.#applyBelow(this.#machine.parked, reader, backoff);
    }
    const context = this.#context;
    const { env, stopped } = context;
    const machine = this.#machine;
    let next: MaybePromise<LogBatch> | undefined;
    let slice = env.now();
    reader.applied?.(machine.applied);
    for (;;) {
      const batch = next ?? nextOf(reader);
      const batches = [isPromise(batch) ? await batch : batch];
      if (this.#isFirst && !this.#isStarting) {
        this.#isFirst = false;
        await env.turn();
        if (stopped.aborted) throw stopped.reason;
      }
      backoff.reset();
      if (context.diverged !== undefined) throw context.diverged;
      let count = batches[0]!.records.ends.length;
      // All batches that are available now go to the machine in one call (C7).
      for (;;) {
        try {
          next = nextOf(reader);
        } catch (error) {
          // The batches read before are applied first, so that each try makes progress.
          next = Promise.reject(error);
        }
        if (isPromise(next)) {
          // It may reject while the batch is applied, before it is awaited.
          next.catch(() => {});
          break;
        }
        batches.push(next);
        count += next.records.ends.length;
        if (count >= BATCH_RECORDS_MAX) {
          next = undefined;
          break;
        }
      }
      for (const batch of batches) context.noteRead(batch);
      const applied = this.#apply(batches);
      if (isPromise(applied)) await this.#timed(applied);
      if (stopped.aborted) throw stopped.reason;
      this.#takeOver();
      reader.applied?.(machine.applied);
      if (!machine.isSwapping) {
        this.#parts.snapshotter.applied(machine.applied);
        this.#parts.diskSync?.applied();
      }
      if (env.now() - slice > APPLY_SLICE_MS) {
        // Catch-up must not freeze a page.
        await env.turn();
        slice = env.now();
      }
    }
  }

  #apply(batches: readonly LogBatch[]): MaybePromise<void> {
    const { newest, current } = this.#machine;
    const shown = current.applied;
    if (newest === current) this.#parts.rehearsal()?.applying(batches);
    else if (newest.applied < shown && lastOf(batches.at(-1)!) > shown) {
      // A successor takes over exactly where the present machine stands.
      const [below, above] = split(batches, shown);
      if (below.length > 0) {
        return chain(this.#apply(below), () => {
          this.#takeOver();
          return this.#apply(above);
        });
      }
    }
    try {
      const applied = newest.apply(batches);
      return isPromise(applied)
        ? applied.catch((cause) => {
          throw this.#applyError(newest, batches, cause);
        })
        : undefined;
    } catch (cause) {
      throw this.#applyError(newest, batches, cause);
    }
  }

  #applyError(
    { updateFailed, epoch }: StateMachine<SessionState>,
    batches: readonly LogBatch[],
    cause: unknown,
  ): unknown {
    if (cause instanceof ErrSkippedApplied) return cause;
    if (updateFailed !== undefined) {
      const error = new ErrUpdateFailed(this.#context, updateFailed, cause);
      const at = epochAt(batches, updateFailed.index, epoch);
      return new UpdateFailure(updateFailed, error, at);
    }
    // Reading the log again does not help, whatever the class of the error.
    return new MachineFailure("Entries could not be applied", { cause });
  }

  /** Waits for the machine, and reports one that takes long. */
  async #timed(applied: Promise<void>): Promise<void> {
    const { env, event } = this.#context;
    const { guard } = this.#machine.newest;
    const cancel = env.setTimer(
      () =>
        event({ type: "slow", calls: guard.calls, waitedMs: MACHINE_SLOW_MS }),
      MACHINE_SLOW_MS,
    );
    try {
      await applied;
    } finally {
      cancel();
    }
  }

  #takeOver(): void {
    if (!this.#machine.takeOver()) return;
    this.#parts.snapshotter.removeSuperseded(this.#machine.skips.list());
  }

  // ---------------------------------------- after `update()` threw, and skips

  /**
   * Continues after `update()` threw: without the entry, if the log has a decision
   * to skip it. On a log that a server orders, the replica waits before the entry
   * for that decision; elsewhere it fails (R5).
   */
  async #afterFailure(failure: UpdateFailure): Promise<LogReader> {
    const { entries, error, epoch } = failure;
    const { log, event, remote, stopped } = this.#context;
    // The machine's state after it threw is not known: it is rebuilt.
    if (remote === undefined) {
      const skips = await guardLog(() =>
        skipsAfter(log, entries.upTo, stopped)
      );
      const found = this.#newSkips(skips, entries);
      if (found.length === 0) throw await this.#located(failure);
      this.#addSkips(found);
      return await this.#rebuild(false);
    }
    this.#context.updateFailed = error;
    this.#machine.parked = { entries, error, epoch };
    event({ type: "failed", error: error.cause, failure: error });
    if (error.cause instanceof ErrNewerCode) log.block?.(error.cause);
    this.#parts.proposals.fail(error.cause);
    const reader = await this.#rebuild(false);
    this.#onParked?.();
    if (error.cause instanceof ErrNewerCode) {
      this.#machine.failWaiters(error.cause);
      this.#machine.changed();
    }
    return reader;
  }

  /** Waits for the end of the replica: only newer code can read the snapshot from which it has to recover. */
  async #awaitNewerCode(error: ErrNewerCode): Promise<void> {
    const { log, event, stopped } = this.#context;
    this.#machine.newerSnapshot = error;
    event({ type: "failed", error, failure: error });
    log.block?.(error);
    this.#parts.proposals.fail(error);
    this.#onParked?.();
    this.#machine.failWaiters(error);
    this.#machine.changed();
    await new Promise<void>((resolve) => onAbort(stopped, () => resolve()));
  }

  /** Names the entry of a batch at which a new machine throws too. */
  async #located(failure: UpdateFailure): Promise<UpdateFailure> {
    const { entries, error: { cause } } = failure;
    const index = await this.#parts.divergence.locateFailure(entries);
    if (index === undefined) return failure;
    const entry = { index, upTo: index };
    const error = new ErrUpdateFailed(this.#context, entry, cause);
    return new UpdateFailure(entry, error, failure.epoch);
  }

  /** Selects the decisions that may help past entries: of a batch, another entry than the skipped one may have failed. */
  #newSkips(
    skips: readonly SkippedEntry[],
    { index: first, upTo }: FailedEntries,
  ): SkippedEntry[] {
    return skips.filter(({ index }) =>
      index >= first && index <= upTo &&
      this.#machine.skips.get(index) === undefined
    );
  }

  #addSkips(skips: readonly SkippedEntry[]): void {
    for (const skip of skips) {
      this.#machine.skips.add(skip);
      this.#context.event({ type: "entry skipped", skip });
    }
  }

  /** Recovers a state without a skipped entry that the present state contains. */
  async #supersede({ skip }: ErrSkippedApplied): Promise<LogReader> {
    this.#addSkips([skip]);
    try {
      // An on-disk machine past the decision has no such entry: only its sessions
      // are behind.
      const { opened } = this.#machine.newest;
      return await this.#rebuild(opened < skip.decidedAt);
    } catch (cause) {
      if (this.#context.stopped.aborted) throw cause;
      throw new ErrSkippedApplied(skip, { cause });
    }
  }

  async #rebuild(hasSkipped: boolean): Promise<LogReader> {
    const { reader, retain } = await this.#parts.recovery.rebuild(hasSkipped);
    if (retain !== undefined) this.#parts.snapshotter.retain(retain);
    this.#takeOver();
    return this.#reader = reader;
  }

  /**
   * Applies up to the entries at which `update()` threw, and reads on until the log
   * has a decision to skip them, or turns out to have other entries there: it was put
   * back to an older copy.
   */
  async #applyBelow(
    { entries, epoch: known }: Parked,
    reader: LogReader,
    backoff: Backoff,
  ): Promise<void> {
    const machine = this.#machine;
    let { epoch } = machine.newest;
    reader.applied?.(machine.applied);
    for (;;) {
      const next = nextOf(reader);
      const batch = isPromise(next) ? await next : next;
      backoff.reset();
      this.#context.noteRead(batch);
      epoch = epochAt([batch], entries.index, epoch);
      const isThere = batch.first <= entries.index &&
        lastOf(batch) >= entries.index;
      if (isThere && epoch?.id !== known?.id) return machine.unpark();
      const found = this.#newSkips(skipsIn(batch), entries);
      if (batch.first < entries.index) {
        const below = batchUpTo(batch, entries.index - 1);
        const applied = this.#apply([below]);
        if (isPromise(applied)) await applied;
        this.#takeOver();
        reader.applied?.(machine.applied);
      }
      if (found.length === 0) continue;
      this.#addSkips(found);
      for (const skip of found) machine.newest.skip(skip);
      return machine.unpark();
    }
  }
}
