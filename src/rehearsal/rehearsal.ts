/**
 * Rehearsal: applies commands to a fork of the state machine before they are
 * ordered, after all records that precede them in the log. A command at which the
 * machine throws would stop every replica, at every restart, if it got into the
 * log: it is refused instead (H17).
 *
 * The records that precede a command are those its replica has applied, and those
 * given to the log since. All who append to a cluster on this host take turns, so
 * that this is exact while this host alone orders the cluster.
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

/** Reason with which a command is refused at which the machine threw. */
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

/** Request of a server that proposals on its host are rehearsed. */
export interface RehearsalRequest {
  /** Creates the rehearsal of each replica. */
  readonly make: MakeRehearsal;
  /** True if commands at which the machine throws are refused; otherwise they only count as preceding later ones. */
  readonly isRefusing: boolean;
}

/** Rehearsal of what a host itself proposes. */
export interface LocalRehearsal {
  readonly rehearsal: Rehearsal;
  /** True if commands at which the machine throws are refused. */
  readonly isRefusing: boolean;
}

/** Number of timers that the longest time of a call is divided into, so that time in which the process was suspended hardly counts. */
const TICKS = 10;

/** Rehearsal of the commands of one cluster on this host. */
export class Rehearsal {
  readonly #stateMachine: () => StateMachine<unknown> | undefined;
  readonly #env: Env;
  readonly #turns: Turns;
  /** Candidates that are not applied yet, in the order of the log. */
  #ahead: Candidate[] = [];
  /** Position of the first of them that is not known to be applied. */
  #head = 0;
  /** Batches that the replica is about to apply, or has just applied. */
  #applying: readonly LogBatch[] = [];
  #fork: RehearsalFork | undefined;
  /** Settles once the fork is free. */
  #busy: Promise<void> | undefined;
  #version = 0;

  /** Creates the rehearsal of a replica. */
  constructor(options: RehearsalOptions<unknown>) {
    this.#stateMachine = options.stateMachine;
    this.#env = options.env;
    // A fork made now would be given what the replica is about to apply: waiting a
    // few turns saves that, and lets what arrives in them share the next fork.
    this.#turns = new Turns(options.env, () => {
      if (this.#fork !== undefined) return false;
      this.#removeApplied();
      return this.#ahead.length > this.#head;
    });
  }

  /** True if the machine has `fork()`. */
  get isAble(): boolean {
    return this.#stateMachine()?.machine.fork !== undefined;
  }

  /** Number that changes with the records that precede the next command. */
  get version(): number {
    return this.#version;
  }

  /** Runs `work` exclusively, in turn with all others who append to the cluster: at once and without a promise if none waits. */
  exclusively<T>(work: () => MaybePromise<T>): MaybePromise<T> {
    return this.#turns.run(work);
  }

  // ------------------------------------------------------------ candidates

  /** Adds a candidate after all others. Called within `exclusively()`. */
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
    this.#ahead.push(candidate);
    this.#version++;
    return candidate;
  }

  /** Removes candidates that do not get into the log. */
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

  /** Removes applied and dropped candidates. Not while a fork is used, which counts positions. */
  #trim(): void {
    const head = this.#head;
    this.#ahead = this.#ahead.filter((one, i) => i >= head && !one.isDropped);
    this.#head = 0;
  }

  /** Records that candidates were passed to the log, in packs of `records` records. */
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
      // Packs after the first one may have records of others between them.
      (firsts) => known(Math.max(...firsts)),
      // Records that may not be in the log are not counted as preceding later ones;
      // those that are in it count once they are read back.
      () => this.drop(candidates),
    );
  }

  /** Called when the replica is about to apply batches. */
  applying(batches: readonly LogBatch[]): void {
    this.#removeApplied();
    // No fork is fresh after this.
    if (this.#busy === undefined) {
      this.#closeFork();
      // Without forks, nothing else trims.
      if (2 * this.#head > this.#ahead.length) this.#trim();
    }
    if (this.#ahead.length > 0) this.#applying = batches;
    else this.#version++;
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
    const ahead = this.#ahead;
    // A candidate that was not recognized in the log must not block those after it.
    for (;; this.#head++) {
      const index = ahead[this.#head]?.index ?? 0;
      if (index === 0 || index > applied) break;
    }
    if (this.#head === ahead.length) {
      this.#ahead = [];
      this.#head = 0;
    }
  }

  #matchRecords({ bytes, ends }: Records): void {
    let end = 0;
    for (let i = 0; i < ends.length; i++) {
      const start = end;
      end = ends[i]!;
      if (!isRehearsed(bytes[start])) continue;
      const next = this.#ahead[this.#head];
      if (next?.isAppended && next.isAt(bytes, start, end)) this.#head++;
      // A record of another process.
      else this.#version++;
    }
  }

  // -------------------------------------------------------------- the fork

  /**
   * Applies the candidates that were not, up to the first command at which the
   * machine throws: candidates after it that are not in the log are dropped.
   *
   * @throws ErrSystemBusy if the machine cannot be forked now; candidates that were not applied are dropped
   */
  run(): MaybePromise<void> {
    const failed = (error: unknown): never => {
      this.drop(this.#ahead.filter((one) => !one.isAppended && !one.isPassed));
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

  /** Uses a fork with all candidates applied; the replica applies nothing in the meantime. */
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
    // An update that waits for a snapshot may wait for this, too.
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

  /** Rejects if a call of the fork takes too long: nothing is applied while it runs. */
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
        // The call may still change the fork.
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
      return fork.done === this.#ahead.length ? fork : this.#applyAll(fork);
    }
    return this.#newFork(source, false);
  }

  /** Makes a fork and applies all candidates: one by one, if one of them is known to make the machine throw. */
  #newFork(
    source: StateMachine<unknown>,
    isCareful: boolean,
  ): MaybePromise<RehearsalFork> {
    this.#closeFork();
    this.#removeApplied();
    const { applied } = source;
    this.#ahead = this.#ahead.filter((one, i) =>
      i >= this.#head && !(one.index > 0 && one.index <= applied)
    );
    this.#head = 0;
    const begun = this.#env.now();
    const made = this.#bounded("fork", source.machine.fork!());
    return chain(made, (machine) => {
      const fork = this.#fork = new RehearsalFork(machine, source);
      return chain(this.#applyAll(fork, isCareful), (fork) => {
        const took = this.#env.now() - begun;
        // Leaves as much time for everything else.
        if (took >= 1) this.#turns.pauseFor(took);
        return fork;
      });
    });
  }

  /** Applies candidates that a fork does not have. */
  #applyAll(
    fork: RehearsalFork,
    isCareful = false,
  ): MaybePromise<RehearsalFork> {
    while (fork.done < this.#ahead.length) {
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

  /** Next candidates for a fork, within the bounds of an update; if careful, one at a time of those that have not passed. */
  #chunk(
    fork: RehearsalFork,
    isCareful: boolean,
  ): { chunk: Candidate[]; entries: Entry[] } {
    const ahead = this.#ahead;
    const chunk: Candidate[] = [];
    const entries: Entry[] = [];
    let bytes = 0;
    while (
      fork.done < ahead.length && entries.length < UPDATE_ENTRIES_MAX &&
      bytes < UPDATE_BYTES_MAX
    ) {
      const one = ahead[fork.done]!;
      const isAlone = isCareful && !one.isPassed;
      if (isAlone && entries.length > 0) break;
      if (fork.isInDoubt(one)) {
        // Those before it are applied, and pass.
        if (entries.length > 0) break;
        this.#closeFork();
        throw new ErrSystemBusy(
          `Session ${one.session} may be evicted by sessions that are being opened`,
        );
      }
      fork.done++;
      // Also for one that threw: its place in the session is taken.
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
    // Not the fault of a command.
    if (error instanceof ErrStoreFull) throw error;
    // A regular machine applies entries one by one.
    const at = chunk.length === 1
      ? 0
      : source.machine.type === RegularStateMachine
      ? entries.findIndex(({ result }) => result === undefined)
      : -1;
    if (at < 0) {
      // One that has passed on another state may be the culprit.
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

  /** Drops a command at which the machine threw, unless it has a place in a session, and candidates after it that are not in the log. */
  #dropFrom(culprit: Candidate): void {
    const at = this.#ahead.indexOf(culprit);
    const hasPlace = culprit.session !== 0;
    this.#version++;
    this.#ahead = this.#ahead.filter((one, i) => {
      if (i < at || one.isAppended || hasPlace && i === at) return true;
      one.isDropped = true;
      return false;
    });
  }

  // ------------------------------------------------- records of this host

  /**
   * Rehearses the commands of a pack that this host itself appends, and appends
   * those that pass. Before that, `refused` is called with the position of each
   * that does not; in a session, a record that skips it takes its place.
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

  /** Adds the records of a pack from position `first` on, and returns the positions of those that were added. */
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
