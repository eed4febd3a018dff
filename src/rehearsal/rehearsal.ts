/**
 * Rehearsal: tries commands on a fork of the state machine before they are appended
 * to the log. A command at which the machine throws would stop every replica, at
 * every restart, if it were in the log: it is refused instead (H17).
 *
 * A command is tried on the state that it will meet: the applied state, with the
 * records on top that are in the log and not applied yet. All appends to a cluster on
 * this host take turns, so that this state is exact while no other host appends.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { chain, isPromise } from "../async.ts";
import type { Env } from "../env.ts";
import {
  REHEARSAL_CALL_MS_MAX,
  UPDATE_BYTES_MAX,
  UPDATE_ENTRIES_MAX,
} from "../limits.ts";
import type { LogBatch, Records } from "../log/log.ts";
import { lastOf, packRecords, recordAt, RecordKind } from "../log/records.ts";
import { Op } from "../rsm/call_guard.ts";
import { ErrProposalRefused, ErrSystemBusy } from "../rsm/errors.ts";
import { RecordCursor, skipRecord } from "../rsm/record_codec.ts";
import type { StateMachine } from "../rsm/state_machine.ts";
import {
  type Entry,
  type MaybePromise,
  RegularStateMachine,
} from "../statemachine/types.ts";
import { ErrStoreFull } from "../store/errors.ts";
import { Candidate, type Place, REGISTRATION } from "./candidate.ts";
import { RehearsalFork } from "./rehearsal_fork.ts";
import { Turns } from "./turns.ts";

/** Reason given for the refusal of a command at which the machine threw. */
export function reasonOf(error: unknown): string {
  let text: string;
  try {
    text = String(error);
  } catch {
    text = "it threw a value that cannot be converted to text";
  }
  return `The state machine cannot apply it: ${text}`;
}

/** Dependencies of {@linkcode Rehearsal}. */
export interface RehearsalOptions<L> {
  /** State machine that serves the replica now; undefined before there is one. */
  readonly stateMachine: () => StateMachine<L> | undefined;
  /** Time and timers. */
  readonly env: Env;
}

/** Creates the rehearsal of a replica. A page imports only this type, and none of the code. */
export type MakeRehearsal = <L>(options: RehearsalOptions<L>) => Rehearsal;

/** Request of a server to rehearse the proposals of its host. */
export interface RehearsalRequest {
  /** Creates the rehearsal of each replica. */
  readonly make: MakeRehearsal;
  /** True if commands at which the machine throws are refused; otherwise commands are only applied to the fork for those after them. */
  readonly isRefusing: boolean;
}

/** Rehearsal of the proposals of a host itself. */
export interface LocalRehearsal {
  readonly rehearsal: Rehearsal;
  /** True if commands at which the machine throws are refused. */
  readonly isRefusing: boolean;
}

/** Number of timers, one after another, that measure the time limit of a call: a suspension of the process then counts as one of them at most. */
const TICKS = 10;

/** Rehearsal of the commands of one cluster on this host. */
export class Rehearsal {
  readonly #stateMachine: () => StateMachine<unknown> | undefined;
  readonly #env: Env;
  readonly #turns: Turns;
  /** Candidates in log order. The replica has applied those before `#head`. */
  #candidates: Candidate[] = [];
  /** Position of the first candidate that is not known to be applied. */
  #head = 0;
  /** Batches that the replica is about to apply, or has just applied. */
  #applying: readonly LogBatch[] = [];
  /** Fork with candidates applied, reused while the replica applies nothing. */
  #fork: RehearsalFork | undefined;
  /** Settles once the fork is no longer used. */
  #busy: Promise<void> | undefined;
  #version = 0;

  /** Creates the rehearsal of a replica. */
  constructor(options: RehearsalOptions<unknown>) {
    this.#stateMachine = options.stateMachine;
    this.#env = options.env;
    // A new fork would have to apply the records that the replica is about to apply
    // itself. Waiting a few turns of the event loop saves that, and later appends
    // share the fork.
    this.#turns = new Turns(options.env, () => {
      if (this.#fork !== undefined) return false;
      this.#removeApplied();
      return this.#candidates.length > this.#head;
    });
  }

  /** True if the machine has `fork()`. */
  get isAble(): boolean {
    return this.#stateMachine()?.machine.fork !== undefined;
  }

  /** Version of the state that the next command will meet. */
  get version(): number {
    return this.#version;
  }

  /** Runs `work` while no other append to the cluster is under way: synchronously if none is. */
  exclusively<T>(work: () => MaybePromise<T>): MaybePromise<T> {
    return this.#turns.run(work);
  }

  // ------------------------------------------------------------ candidates

  /** Adds a candidate behind all others. Call it within `exclusively()`. */
  add(
    bytes: Uint8Array,
    start: number,
    end: number,
    cmd: Uint8Array | undefined,
    place: Place | undefined,
    isRefusable: boolean,
  ): Candidate {
    const candidate = new Candidate(
      bytes,
      start,
      end,
      cmd,
      place,
      isRefusable,
    );
    this.#candidates.push(candidate);
    this.#version++;
    return candidate;
  }

  /** Removes candidates that will not be in the log. */
  drop(candidates: readonly Candidate[]): void {
    let isChanged = false;
    for (const candidate of candidates) {
      if (candidate.isDropped) continue;
      candidate.isDropped = isChanged = true;
    }
    if (!isChanged) return;
    this.#trim();
    this.#closeFork();
    this.#version++;
  }

  /** Removes applied and dropped candidates. Must not be called while a fork is used, since it counts positions. */
  #trim(): void {
    const head = this.#head;
    this.#candidates = this.#candidates.filter((one, i) =>
      i >= head && !one.isDropped
    );
    this.#head = 0;
  }

  /** Records that candidates were passed to the log, in packs of `records` records altogether; `indexes` are those of the packs. */
  appended(
    candidates: readonly Candidate[],
    indexes: readonly MaybePromise<number>[],
    records: number,
  ): void {
    if (candidates.length === 0) return;
    for (const candidate of candidates) candidate.isAppended = true;
    const known = (first: number): void => {
      for (const one of candidates) one.index = first + records - 1;
    };
    const [first] = indexes;
    if (indexes.length === 1 && typeof first === "number") return known(first);
    Promise.all(indexes).then(
      // Records of other appends may lie between two packs.
      (firsts) => known(Math.max(...firsts)),
      // They may not be in the log. Those that are count once they are read from it.
      () => this.drop(candidates),
    );
  }

  /** Called when the replica is about to apply batches. */
  applying(batches: readonly LogBatch[]): void {
    this.#removeApplied();
    // Every fork is outdated after this.
    if (this.#busy === undefined) {
      this.#closeFork();
      // Without forks, nothing else removes applied candidates.
      if (2 * this.#head > this.#candidates.length) this.#trim();
    }
    if (this.#candidates.length > 0) this.#applying = batches;
    else this.#version++;
  }

  /** Notes that other processes may have changed the state that the next command will meet. */
  outdate(): void {
    this.#version++;
  }

  /** Called when the replica has recovered from a snapshot. */
  reset(): void {
    this.#applying = [];
    this.#version++;
    if (this.#busy === undefined) this.#closeFork();
  }

  #closeFork(): void {
    this.#fork?.close();
    this.#fork = undefined;
  }

  /** Moves the head past candidates that were applied. */
  #removeApplied(): void {
    const batches = this.#applying;
    if (batches.length === 0) return;
    const applied = this.#stateMachine()?.applied ?? 0;
    if (lastOf(batches.at(-1)!) > applied) return;
    this.#applying = [];
    for (const { records } of batches) this.#matchRecords(records);
    const candidates = this.#candidates;
    // A candidate that was not recognized in the log must not block those after it.
    for (;; this.#head++) {
      const index = candidates[this.#head]?.index ?? 0;
      if (index === 0 || index > applied) break;
    }
    if (this.#head === candidates.length) {
      this.#candidates = [];
      this.#head = 0;
    }
  }

  #matchRecords({ bytes, ends }: Records): void {
    let end = 0;
    for (let i = 0; i < ends.length; i++) {
      const start = end;
      end = ends[i]!;
      if (!isRehearsed(bytes[start])) continue;
      const next = this.#candidates[this.#head];
      if (next?.isAppended && next.isAt(bytes, start, end)) this.#head++;
      // A record of another process.
      else this.#version++;
    }
  }

  // -------------------------------------------------------------- the fork

  /**
   * Applies all candidates to the fork. At the first command at which the machine
   * throws, candidates behind it that are not in the log are dropped.
   *
   * @throws ErrSystemBusy if the machine cannot be forked now; candidates that have not passed are dropped
   */
  run(): MaybePromise<void> {
    const failed = (error: unknown): never => {
      this.drop(
        this.#candidates.filter((one) => !one.isAppended && !one.isPassed),
      );
      throw error;
    };
    try {
      const ran = this.#use(() => {});
      return isPromise(ran) ? ran.catch(failed) : ran;
    } catch (error) {
      return failed(error);
    }
  }

  /** Queries the state to which the next command will be applied. */
  lookup(query: unknown): MaybePromise<unknown> {
    return this.#use((fork) => this.#bounded("lookup", fork.lookup(query)));
  }

  /** Passes a fork with all candidates applied to `use`; until that settles, the replica applies nothing. */
  #use<T>(use: (fork: RehearsalFork) => MaybePromise<T>): MaybePromise<T> {
    if (this.#busy !== undefined) {
      return this.#busy.then(() => this.#use(use));
    }
    const source = this.#stateMachine();
    if (source === undefined || source.closed || source.behind) {
      throw new ErrSystemBusy(
        "Replica is recovering: propose() the command again later",
      );
    }
    const { guard } = source;
    const call = (): MaybePromise<T> => chain(this.#freshFork(source), use);
    // Ahead of waiting calls, for example an update that waits for a snapshot.
    const used = guard.mayBegin(Op.Hash)
      ? guard.begin(Op.Hash, call)
      : guard.run(Op.Hash, call);
    if (!isPromise(used)) return used;
    const end = (): void => {
      this.#busy = undefined;
    };
    this.#busy = used.then(end, end);
    return used;
  }

  /** Bounds the time of a call of the fork, since the replica applies nothing while it runs. */
  #bounded<T>(name: string, called: MaybePromise<T>): MaybePromise<T> {
    if (!isPromise(called)) return called;
    return new Promise((resolve, reject) => {
      let ticks = TICKS;
      const setTick = (): () => void =>
        this.#env.setTimer(tick, REHEARSAL_CALL_MS_MAX / TICKS);
      const tick = (): void => {
        if (--ticks > 0) {
          cancel = setTick();
          return;
        }
        // The call goes on, and may still change the fork.
        this.#closeFork();
        reject(
          new Error(
            `${name}() has not settled within ${REHEARSAL_CALL_MS_MAX} ms`,
          ),
        );
      };
      let cancel = setTick();
      called.then(resolve, reject).finally(() => cancel());
    });
  }

  #freshFork(source: StateMachine<unknown>): MaybePromise<RehearsalFork> {
    const fork = this.#fork;
    if (
      fork !== undefined && fork.source === source &&
      fork.applied === source.applied
    ) {
      return fork.done === this.#candidates.length
        ? fork
        : this.#applyAll(fork);
    }
    return this.#newFork(source, false);
  }

  /** Makes a fork and applies all candidates; `isCareful` applies those that have not passed one by one, to find the one at which the machine throws. */
  #newFork(
    source: StateMachine<unknown>,
    isCareful: boolean,
  ): MaybePromise<RehearsalFork> {
    this.#closeFork();
    this.#removeApplied();
    const { applied } = source;
    this.#candidates = this.#candidates.filter((one, i) =>
      i >= this.#head && !(one.index > 0 && one.index <= applied)
    );
    this.#head = 0;
    const begun = this.#env.now();
    const made = this.#bounded("fork", source.machine.fork!());
    return chain(made, (machine) => {
      const fork = this.#fork = new RehearsalFork(machine, source);
      return chain(this.#applyAll(fork, isCareful), (fork) => {
        const took = this.#env.now() - begun;
        // Leaves as much time to other work of the process.
        if (took >= 1) this.#turns.pauseFor(took);
        return fork;
      });
    });
  }

  /** Applies the candidates that a fork does not have yet. */
  #applyAll(
    fork: RehearsalFork,
    isCareful = false,
  ): MaybePromise<RehearsalFork> {
    while (fork.done < this.#candidates.length) {
      const { chunk, entries } = this.#chunk(fork, isCareful);
      if (entries.length === 0) continue;
      let updated: MaybePromise<void>;
      try {
        updated = this.#bounded("update", fork.update(entries));
      } catch (error) {
        return this.#threw(fork, chunk, entries, error);
      }
      if (isPromise(updated)) {
        return updated.then(
          () => {
            for (const one of chunk) one.isPassed = true;
            return this.#applyAll(fork, isCareful);
          },
          (error) => this.#threw(fork, chunk, entries, error),
        );
      }
      for (const one of chunk) one.isPassed = true;
    }
    return fork;
  }

  /** Takes the next candidates for a fork, within the bounds of an update; if careful, one that has not passed comes alone. */
  #chunk(
    fork: RehearsalFork,
    isCareful: boolean,
  ): { chunk: Candidate[]; entries: Entry[] } {
    const candidates = this.#candidates;
    const chunk: Candidate[] = [];
    const entries: Entry[] = [];
    let bytes = 0;
    while (
      fork.done < candidates.length && entries.length < UPDATE_ENTRIES_MAX &&
      bytes < UPDATE_BYTES_MAX
    ) {
      const one = candidates[fork.done]!;
      const isAlone = isCareful && !one.isPassed;
      if (isAlone && entries.length > 0) break;
      if (fork.isInDoubt(one)) {
        // The candidates before it are applied first.
        if (entries.length > 0) break;
        this.#closeFork();
        throw new ErrSystemBusy(
          `Session ${one.session} may be evicted by sessions that are being opened`,
        );
      }
      fork.done++;
      // Also for a command at which the machine threw: its series is used up.
      const isApplied = fork.takePlace(one);
      if (one.thrown !== undefined) continue;
      if (!isApplied || one.cmd === undefined) {
        one.isPassed = true;
        continue;
      }
      const index = fork.applied + ++fork.entries;
      entries.push({ index, cmd: one.cmd, result: undefined });
      chunk.push(one);
      bytes += one.cmd.length;
      if (isAlone) break;
    }
    return { chunk, entries };
  }

  /** Handles an update that threw: finds the candidate, and starts over with another fork. */
  #threw(
    { source }: RehearsalFork,
    chunk: readonly Candidate[],
    entries: readonly Entry[],
    error: unknown,
  ): MaybePromise<RehearsalFork> {
    this.#closeFork();
    // Not caused by a command.
    if (error instanceof ErrStoreFull) throw error;
    // A regular machine applies entries one by one.
    const at = chunk.length === 1
      ? 0
      : source.machine.type === RegularStateMachine
      ? entries.findIndex(({ result }) => result === undefined)
      : -1;
    if (at < 0) {
      // Also a candidate that has passed on an earlier state may throw on this one.
      for (const one of chunk) one.isPassed = false;
      return this.#newFork(source, true);
    }
    for (const one of chunk.slice(0, at)) one.isPassed = true;
    const culprit = chunk[at]!;
    culprit.isPassed = false;
    culprit.thrown = { error };
    if (culprit.isRefusable && !culprit.isAppended) this.#dropFrom(culprit);
    return this.#newFork(source, false);
  }

  /** Drops a command at which the machine threw, unless a skip record takes its place in a session, and the candidates behind it that are not in the log. */
  #dropFrom(culprit: Candidate): void {
    const at = this.#candidates.indexOf(culprit);
    const hasPlace = culprit.session !== 0;
    this.#version++;
    this.#candidates = this.#candidates.filter((one, i) => {
      if (i < at || one.isAppended || hasPlace && i === at) return true;
      one.isDropped = true;
      return false;
    });
  }

  // ------------------------------------------------- records of this host

  /**
   * Rehearses the commands of a pack that this host itself appends, then appends the
   * pack without those at which the machine threw. `refused` is called with the
   * position of each of them before; in a session, a skip record takes its place.
   */
  append(
    records: Records,
    isRefusing: boolean,
    append: (records: Records) => MaybePromise<number>,
    refused: (at: number, error: ErrProposalRefused) => void,
  ): MaybePromise<number> {
    return this.exclusively(() => {
      const changed = new Map<number, Uint8Array | undefined>();
      const added: Candidate[] = [];
      const rehearse = (first: number): MaybePromise<void> => {
        const positions = this.#addFrom(records, first, isRefusing, added);
        if (!isRefusing) return;
        const begin = added.length - positions.length;
        return chain(this.#runAdded(added), () => {
          const at = added.findIndex((one, i) =>
            i >= begin && one.thrown !== undefined
          );
          if (at < 0) return;
          const position = positions[at - begin]!;
          const culprit = added[at]!;
          added.length = at;
          const skip = skipOf(culprit);
          changed.set(position, skip);
          if (skip !== undefined) {
            culprit.replace(skip);
            added.push(culprit);
          }
          const { error: cause } = culprit.thrown!;
          refused(
            position,
            new ErrProposalRefused(reasonOf(cause), { cause }),
          );
          return rehearse(position + 1);
        });
      };
      return chain(rehearse(0), () => {
        const packed = changed.size === 0 ? records : repack(records, changed);
        if (packed.ends.length === 0) return 0;
        let index: MaybePromise<number>;
        try {
          index = append(packed);
        } catch (error) {
          this.drop(added);
          throw error;
        }
        this.appended(added, [index], packed.ends.length);
        return index;
      });
    });
  }

  /** Adds candidates for the records of a pack from position `first` on; returns their positions. */
  #addFrom(
    { bytes, ends }: Records,
    first: number,
    isRefusing: boolean,
    added: Candidate[],
  ): number[] {
    const cursor = new RecordCursor();
    const positions: number[] = [];
    for (let i = first; i < ends.length; i++) {
      const start = i === 0 ? 0 : ends[i - 1]!;
      const end = ends[i]!;
      if (!isRehearsed(bytes[start])) continue;
      cursor.read(bytes, start, end);
      const isCommand = cursor.kind === RecordKind.Proposal ||
        cursor.kind === RecordKind.SessionProposal;
      const cmd = isCommand ? bytes.subarray(cursor.start, end) : undefined;
      const place = placeOf(cursor);
      added.push(this.add(bytes, start, end, cmd, place, isRefusing));
      positions.push(i);
    }
    return positions;
  }

  /** Runs all candidates, and drops `added` if that fails. */
  #runAdded(added: readonly Candidate[]): MaybePromise<void> {
    const failed = (error: unknown): never => {
      this.drop(added);
      throw error;
    };
    try {
      const ran = this.run();
      return isPromise(ran) ? ran.catch(failed) : ran;
    } catch (error) {
      return failed(error);
    }
  }
}

/** True for kinds of records that change the machine or the sessions. */
function isRehearsed(kind: number | undefined): boolean {
  return kind === RecordKind.Proposal || kind === RecordKind.SessionProposal ||
    kind === RecordKind.Skip || kind === RecordKind.Unregister ||
    kind === RecordKind.Register;
}

/** Place of a record in its session; undefined for a record outside of sessions. */
function placeOf(
  { kind, session, series, lag }: RecordCursor,
): Place | undefined {
  if (kind === RecordKind.Proposal) return undefined;
  if (kind === RecordKind.Register) {
    return { session: REGISTRATION, series: 0, lag: 0 };
  }
  if (kind === RecordKind.Unregister) return { session, series: 0, lag: 0 };
  return { session, series, lag };
}

/** Record that skips the series of a refused command; undefined outside of sessions. */
function skipOf(
  { session, series, lag, thrown }: Candidate,
): Uint8Array | undefined {
  return session === 0
    ? undefined
    : skipRecord(session, series, lag, reasonOf(thrown!.error));
}

function repack(
  records: Records,
  changed: ReadonlyMap<number, Uint8Array | undefined>,
): Records {
  const packed: Uint8Array[] = [];
  for (let i = 0; i < records.ends.length; i++) {
    const record = changed.has(i) ? changed.get(i) : recordAt(records, i);
    if (record !== undefined) packed.push(record);
  }
  return packRecords(...packed);
}

/** Creates the rehearsal of a replica. */
export function makeRehearsal<L>(options: RehearsalOptions<L>): Rehearsal {
  return new Rehearsal(options as RehearsalOptions<never>);
}
