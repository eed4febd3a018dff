/**
 * The state machine that serves a replica, and its replacement by a recovered one.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { abortable, isPromise, onAbort, withResolvers } from "../async.ts";
import { clipText } from "../bytes.ts";
import { REFUSAL_BYTES_MAX } from "../limits.ts";
import {
  ErrClusterClosed,
  type ErrDiverged,
  ErrOtherHistory,
} from "../log/errors.ts";
import type { Epoch, HistoryPoint } from "../log/history.ts";
import type {
  FailedEntries,
  SeriesOutcome,
  SessionInfo,
  StateMachine,
} from "../rsm/state_machine.ts";
import { ErrProposalRefused, recoveringError } from "../rsm/errors.ts";
import { SkippedEntries } from "../rsm/skipped_entries.ts";
import { ErrNewerCode } from "../statemachine/errors.ts";
import type { CommandGroup } from "../statemachine/machines.ts";
import type { MaybePromise, Result } from "../statemachine/types.ts";
import type { ReplicaContext } from "./context.ts";
import type { ErrUpdateFailed } from "./errors.ts";
import type { SessionState } from "./session.ts";

/** A caller that waits for an entry to be applied. */
interface Waiter {
  readonly index: number;
  resolve(): void;
  reject(reason: unknown): void;
}

/** Entries at which `update()` threw, with the error; the replica waits before them for a decision to skip them. */
export interface Parked {
  readonly entries: FailedEntries;
  readonly error: ErrUpdateFailed;
  /** Last epoch at or before the first of the entries: with another one, they are those of another history. */
  readonly epoch: Epoch | undefined;
}

/** A machine that has not yet applied as many entries as the one it will replace. */
interface Successor {
  readonly stateMachine: StateMachine<SessionState>;
  /** True if its recovery went past entries that were not applied here. */
  readonly isBeyond: boolean;
}

/** Closes a machine that is not used any more and ignores its errors. */
export async function discard(
  stateMachine: StateMachine<SessionState>,
): Promise<void> {
  try {
    await stateMachine.close();
  } catch {
    // Ignored: the failure because of which it is discarded has been reported.
  }
}

/**
 * State machine that serves a replica now. A recovery swaps it: the successor
 * takes over as soon as it has applied as many entries, so that no reader sees
 * the state go back, and the machine in memory it replaces answers until then.
 */
export class CurrentMachine {
  /** Entries to skip that are known before the state has reached their decision. */
  readonly skips: SkippedEntries = new SkippedEntries();
  /** Set while a replica whose log is ordered by a server waits before an entry at which `update()` threw. */
  parked: Parked | undefined;
  /** Set once a replica whose log is ordered by a server needs a snapshot that only newer code of the application can read. */
  newerSnapshot: ErrNewerCode | undefined;
  readonly #context: ReplicaContext;
  #current: StateMachine<SessionState> | undefined;
  #next: Successor | undefined;
  /** Settles once the machines that were replaced are closed. */
  #retired: Promise<unknown> = Promise.resolve();
  /** Set while an on-disk machine, of which there is one instance only, recovers in place. */
  #recovering: Promise<void> | undefined;
  /** Replaced machines whose state was wrong: a snapshot of them may still be under way. */
  readonly #wrong = new WeakMap<StateMachine<SessionState>, ErrDiverged>();
  /** Callers of `until()`, by ascending index. */
  #waiters: Waiter[] = [];
  /** Called first of all when entries were applied, before a caller or a watch learns of it. */
  onAdvanced: () => void = () => {};
  #onSwap: (isBeyond: boolean) => void = () => {};
  #onChange: () => void = () => {};

  /** Creates an instance without a machine; `start()` installs the first one. */
  constructor(context: ReplicaContext) {
    this.#context = context;
  }

  /** Sets the callbacks: `onSwap` when another machine has taken over (`isBeyond` if past entries not applied here), `onChange` when an answer may have changed. */
  watch(onSwap: (isBeyond: boolean) => void, onChange: () => void): void {
    this.#onSwap = onSwap;
    this.#onChange = onChange;
  }

  /** Installs the first machine. */
  start(stateMachine: StateMachine<SessionState>): void {
    this.#current = stateMachine;
  }

  // ------------------------------------------------------------ what it knows

  /** True once the first machine is installed. */
  get isStarted(): boolean {
    return this.#current !== undefined;
  }

  /** Machine that answers queries. */
  get current(): StateMachine<SessionState> {
    return this.#current!;
  }

  /** Machine that applies entries: the successor, while there is one. */
  get newest(): StateMachine<SessionState> {
    return this.#next?.stateMachine ?? this.#current!;
  }

  /** True while a successor catches up. */
  get isSwapping(): boolean {
    return this.#next !== undefined;
  }

  /** Index of the last entry applied; 0 before the start. */
  get applied(): number {
    return this.#current?.applied ?? 0;
  }

  /** Last point of the log's history that is applied. */
  get history(): HistoryPoint {
    const { applied: index, epoch } = this.current;
    return { index, epoch };
  }

  /** Session of that index in the replicated state; undefined if it is not, or no longer, open. */
  sessionInfo(session: number): SessionInfo | undefined {
    return this.#current?.sessionInfo(session);
  }

  /** First session after index `after` that a client id opened, by `owner` if one is given. */
  sessionOf(
    clientID: bigint,
    after: number,
    owner: Uint8Array | undefined,
  ): number | undefined {
    return this.#current?.sessionOf(clientID, after, owner);
  }

  /** Outcome of a series in the replicated state; undefined if it is undecided or was dropped. */
  outcomeOf(session: number, series: number): SeriesOutcome | undefined {
    return this.#current?.outcomeOf(session, series);
  }

  /** Stops reporting the outcomes of a session. */
  detach(session: number): void {
    this.#current?.detach(session);
  }

  /** Reason with which the machine declares a result a refusal; undefined if it does not, or if its `refusal()` throws. */
  refusalOf(result: Result): string | undefined {
    const refusal = this.#current?.machine.refusal;
    if (refusal === undefined) return undefined;
    try {
      const reason = refusal(result);
      if (reason === undefined) return undefined;
      return clipText(reason || "It is not allowed", REFUSAL_BYTES_MAX);
    } catch (error) {
      this.#context.event({ type: "refusal failed", error });
      return undefined;
    }
  }

  /** True if the machine decides about commands before they are ordered. */
  get admits(): boolean {
    return this.#current?.machine.admit !== undefined;
  }

  /** Reason for which the machine refuses a command before it is ordered; undefined if it accepts it. Throws what `admit()` throws. */
  admit(
    cmd: Uint8Array,
    principal: string | null | undefined,
  ): string | undefined {
    return this.#current?.machine.admit?.(cmd, principal);
  }

  /** Command in the place of two neighbours that were never sent; undefined if the machine leaves both. Throws what `merge()` throws. */
  merge(first: Uint8Array, second: Uint8Array): Uint8Array | undefined {
    return this.#current?.machine.merge?.(first, second);
  }

  /** Group of a command; undefined if it is in none. */
  group(cmd: Uint8Array): CommandGroup | undefined {
    return this.#current?.machine.group?.(cmd);
  }

  /** Error for a command that this host must not order; undefined for one that it may, or that a server orders. */
  notAdmitted(cmd: Uint8Array): unknown {
    if (this.#context.isOrderedByServer) return undefined;
    try {
      const reason = this.admit(cmd, undefined);
      return reason && new ErrProposalRefused(reason);
    } catch (error) {
      return error;
    }
  }

  // ------------------------------------------------------------------ queries

  /**
   * Throws if the replica is stopped, has failed, has diverged or is recovering;
   * with `saved`, also if that machine has diverged since its snapshot was taken.
   */
  check(saved?: StateMachine<SessionState>): void {
    const { stopped, diverged } = this.#context;
    stopped.throwIfAborted();
    if (diverged !== undefined) throw diverged;
    // What the newer code computes from here on is not known.
    if (this.#newerCode !== undefined) throw this.#newerCode;
    if (this.current.closed && this.#recovering === undefined) {
      throw this.parkedError ?? recoveringError(this.#context.clusterID);
    }
    const wrong = saved && this.#wrong.get(saved);
    if (wrong !== undefined) throw wrong;
  }

  /** Error of the entry, or of the snapshot, that only newer code of the application can apply, if the replica waits before one. */
  get #newerCode(): ErrNewerCode | undefined {
    const cause = this.newerSnapshot ?? this.parked?.error.cause;
    return cause instanceof ErrNewerCode ? cause : undefined;
  }

  /** Error of a call that has to be linearizable while the replica is parked; undefined otherwise. */
  get parkedError(): ErrClusterClosed | ErrNewerCode | undefined {
    const cause = this.parked?.error.cause;
    return this.#newerCode ?? (this.parked &&
      new ErrClusterClosed(
        `Cluster ${this.#context.clusterID} has failed`,
        { cause },
      ));
  }

  /** Settles once a machine answers again, while one recovers in place. */
  get recovering(): Promise<void> | undefined {
    return this.#recovering;
  }

  /** Queries the machine in its present state. */
  lookup(query: unknown): MaybePromise<unknown> {
    this.check();
    const reopened = this.#reopened;
    if (reopened !== undefined) return reopened.then(() => this.lookup(query));
    const answer = this.current.lookup(query);
    return isPromise(answer) ? abortable(answer, this.#context.ended) : answer;
  }

  /** Queries the machine in its present state, from bytes to bytes. */
  async naLookup(query: Uint8Array): Promise<Uint8Array> {
    await this.#reopened;
    this.check();
    const answer = this.current.naLookup(query);
    return isPromise(answer)
      ? await abortable(answer, this.#context.ended)
      : answer;
  }

  /** Settles once a machine answers in place of one whose recovery in place has failed. */
  get #reopened(): Promise<void> | undefined {
    return this.current.closed && this.#recovering !== undefined
      ? abortable(this.#recovering, this.#context.ended)
      : undefined;
  }

  // ------------------------------------------------------------ applied index

  /**
   * Resolves once all entries up to `index` are applied.
   *
   * @throws the reason of `signal` if that aborts first, or of the end of the replica
   */
  until(index: number, signal?: AbortSignal): MaybePromise<void> {
    if (index <= this.applied) return;
    this.#context.stopped.throwIfAborted();
    signal?.throwIfAborted();
    const { promise, resolve, reject } = withResolvers<void>();
    const waiter = { index, resolve, reject };
    const waiters = this.#waiters;
    let at = waiters.length;
    while (at > 0 && waiters[at - 1]!.index > index) at--;
    waiters.splice(at, 0, waiter);
    const ignore = onAbort(signal, (reason) => {
      const at = this.#waiters.indexOf(waiter);
      if (at >= 0) this.#waiters.splice(at, 1);
      reject(reason);
    });
    return promise.finally(ignore);
  }

  /** Resolves waiters and reports a change, after entries were applied. */
  advanced(): void {
    this.onAdvanced();
    const { applied } = this;
    const waiters = this.#waiters;
    let count = 0;
    while (count < waiters.length && waiters[count]!.index <= applied) count++;
    if (count > 0) {
      for (const { resolve } of waiters.splice(0, count)) resolve();
    }
    this.#onChange();
  }

  /** Rejects all callers of `until()`. */
  failWaiters(reason: unknown): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const { reject } of waiters) reject(reason);
  }

  /** Reports that answers may have changed although no entry was applied. */
  changed(): void {
    this.#onChange();
  }

  // --------------------------------------------------------------------- swap

  /** Removes the present successor, and the present machine too if it cannot answer beside a new one, before a new one is opened. */
  async prepareSuccessor(isClosing: boolean): Promise<void> {
    const unfinished = this.#next?.stateMachine;
    this.#next = undefined;
    if (unfinished !== undefined) await discard(unfinished);
    if (isClosing) await discard(this.current);
  }

  /** Sets the machine that takes over once it has applied as much. */
  setSuccessor(
    stateMachine: StateMachine<SessionState>,
    isBeyond: boolean,
  ): void {
    this.#next = { stateMachine, isBeyond };
    // The present machine has reported the results up to here.
    stateMachine.reportedUpTo = this.applied;
  }

  /**
   * Lets the successor take over if it has applied as much as the present machine.
   *
   * @returns true if it has taken over
   * @throws ErrOtherHistory if it has another history
   */
  takeOver(): boolean {
    const next = this.#next;
    if (next === undefined) return false;
    const before = this.current;
    const { stateMachine, isBeyond } = next;
    if (stateMachine.applied < before.applied || stateMachine.behind) {
      return false;
    }
    this.#checkHistory(stateMachine);
    this.#next = undefined;
    this.swap(stateMachine, isBeyond);
    // Closed once the lookups that it still answers have settled.
    if (!before.closed) this.#retire(before);
    return true;
  }

  /**
   * Compares the last epochs, as the log may have been restored from a backup
   * while it was read from the beginning.
   */
  #checkHistory({ epoch }: StateMachine<SessionState>): void {
    const { applied: index, epoch: known } = this.current;
    if ((epoch?.index ?? 0) > index) return;
    if (epoch?.index === known?.index && epoch?.id === known?.id) return;
    throw new ErrOtherHistory(
      `The log has another epoch at or before entry ${index}`,
      { known: { index, epoch: known } },
    );
  }

  /** Installs a machine that has recovered from a snapshot: at once, or as a successor if one is needed and it has applied less. */
  install(stateMachine: StateMachine<SessionState>): void {
    const before = this.current;
    const unfinished = this.#next?.stateMachine;
    if (unfinished !== undefined && stateMachine.applied < before.applied) {
      this.setSuccessor(stateMachine, false);
      this.#unparkAt(stateMachine.applied);
      if (unfinished !== stateMachine) this.#retire(unfinished);
      return;
    }
    this.swap(stateMachine);
    if (before !== stateMachine) this.#retire(before);
  }

  /** Installs a machine in place of the present one, and of its successor. */
  swap(stateMachine: StateMachine<SessionState>, isBeyond = true): void {
    const unfinished = this.#next?.stateMachine;
    this.#next = undefined;
    if (unfinished !== undefined && unfinished !== stateMachine) {
      this.#retire(unfinished);
    }
    this.#unparkAt(stateMachine.applied);
    const { diverged } = this.#context;
    if (diverged !== undefined && stateMachine !== this.current) {
      this.#wrong.set(this.current, diverged);
    }
    this.#current = stateMachine;
    this.#context.diverged = undefined;
    this.#onSwap(isBeyond);
    this.advanced();
  }

  /** Runs the recovery in place of an on-disk machine; queries wait for it while the machine is closed. */
  async recoverInPlace(work: () => Promise<void>): Promise<void> {
    const { promise, resolve } = withResolvers<void>();
    this.#recovering = promise;
    try {
      await work();
    } finally {
      this.#recovering = undefined;
      resolve();
      this.#onChange();
    }
  }

  /** Installs a machine with the same state as the present one, which is closed. */
  reopen(stateMachine: StateMachine<SessionState>): void {
    this.#current = stateMachine;
  }

  #retire(stateMachine: StateMachine<SessionState>): void {
    this.#retired = Promise.all([this.#retired, discard(stateMachine)]);
  }

  /** Stops waiting before entries at which `update()` threw. */
  unpark(): void {
    const { log, blocked } = this.#context;
    if (this.#newerCode !== undefined) log.block?.(blocked);
    this.parked = this.#context.updateFailed = undefined;
    this.#onChange();
  }

  /** Stops waiting before such entries if a state at `applied` contains or skips them. */
  #unparkAt(applied: number): void {
    if (applied >= (this.parked?.entries.upTo ?? Infinity)) this.unpark();
  }

  /** Closes all machines. */
  async close(): Promise<void> {
    await this.#retired;
    const next = this.#next?.stateMachine;
    if (next !== undefined) await discard(next);
    await this.#current?.close();
  }
}
