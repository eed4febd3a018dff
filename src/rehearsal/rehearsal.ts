/**
 * Tries commands before they are ordered: each one is run on a fork of the
 * machine, with all that is ahead of it in the log applied. One at which the
 * machine throws would stop every replica, and every restart, if it were in the
 * log; it is refused, and never gets there (H17).
 *
 * What is ahead of a command is what its replica has applied, and what was given
 * to the log since. All who append to a cluster on this host take turns, so that
 * this is exact as long as this host alone orders the cluster.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../env.ts";
import {
  REHEARSAL_CALL_MS_MAX,
  REHEARSAL_PAUSE_MS_MAX,
  REHEARSAL_TURNS_MAX,
  SESSION_WINDOW_MAX,
  UPDATE_BYTES_MAX,
  UPDATE_ENTRIES_MAX,
} from "../limits.ts";
import type { LogBatch, Records } from "../log/log.ts";
import { lastOf, packRecords, recordAt, RecordKind } from "../log/records.ts";
import { chain, isPromise } from "../async.ts";
import type { StateMachine } from "../rsm/state_machine.ts";
import { ErrProposalRefused, ErrSystemBusy } from "../rsm/errors.ts";
import { CallGuard, Op } from "../rsm/call_guard.ts";
import type { ManagedFork } from "../rsm/managed_machine.ts";
import { RecordCursor, skipRecord } from "../rsm/record_codec.ts";
import {
  type Entry,
  type MaybePromise,
  RegularStateMachine,
} from "../statemachine/types.ts";
import { ErrStoreFull } from "../store/errors.ts";

/** Reason for which a command is refused at which the machine threw. */
export function reasonOf(error: unknown): string {
  let words: string;
  try {
    words = String(error);
  } catch {
    words = "it threw something that is not text";
  }
  return `The state machine cannot apply it: ${words}`;
}

/** Dependencies of {@linkcode Rehearsal}. */
export interface RehearsalOptions<L> {
  /** State machine of the moment; undefined before there is one. */
  readonly driver: () => StateMachine<L> | undefined;
  /** Time and timers. */
  readonly env: Env;
}

/** Makes the rehearsal of a replica: a page imports no more than this type. */
export type MakeRehearsal = <L>(options: RehearsalOptions<L>) => Rehearsal;

/** A server's wish that what is proposed on its host is tried. */
export interface Rehearsing {
  /** Makes the rehearsal of each replica. */
  readonly make: MakeRehearsal;
  /** True if a command at which the machine throws is refused; otherwise it is only known to be ahead of what comes. */
  readonly isTrying: boolean;
}

/** Rehearsal of what a host itself proposes. */
export interface OwnRehearsal {
  readonly rehearsal: Rehearsal;
  /** True if a command at which the machine throws is refused. */
  readonly isTrying: boolean;
}

/** Timers that the longest time of a call is divided into. */
const REHEARSAL_TICKS = 10;

/** Length of a record's beginning that is compared to find it in the log, in bytes. */
const COMPARED_BYTES = 64;

/** A record that was let through, as long as it is not applied. */
export class Candidate {
  /** Bytes that the record is in … */
  bytes: Uint8Array;
  /** … from here on … */
  start: number;
  /** … to before here. */
  end: number;
  /** The command in it; undefined for a record that skips a series, or closes a session. */
  readonly cmd: Uint8Array | undefined;
  /** Session it goes through; 0 for none. */
  readonly session: number;
  /** Series in the session; 0 for a record that closes it. */
  readonly series: number;
  /** Series before it that are not acknowledged. */
  readonly lag: number;
  /** True if it is refused when the machine throws; otherwise it is merely left out of what is shown. */
  readonly isTried: boolean;
  /** An index at or after its own, once it is known. */
  index = 0;
  /** Set once it was given to the log. */
  isOut = false;
  /** Set once the machine took it, on some fork. */
  isPassed = false;
  /** Set once the machine threw at it. */
  thrown: { readonly error: unknown } | undefined;
  /** Set if it is not ahead of anything after all. */
  isDropped = false;

  /** A record that was just let through. */
  constructor(
    bytes: Uint8Array,
    start: number,
    end: number,
    cmd: Uint8Array | undefined,
    place: Place | undefined,
    isTried: boolean,
  ) {
    this.bytes = bytes;
    this.start = start;
    this.end = end;
    this.cmd = cmd;
    this.session = place?.session ?? 0;
    this.series = place?.series ?? 0;
    this.lag = place?.lag ?? 0;
    this.isTried = isTried;
  }

  /** Another record goes into the log in its place. */
  replace(record: Uint8Array): void {
    this.bytes = record;
    this.start = 0;
    this.end = record.length;
  }

  /** True if it is most likely the record in `bytes` from `start` to `end`. */
  isAt(bytes: Uint8Array, start: number, end: number): boolean {
    const length = end - start;
    if (this.end - this.start !== length) return false;
    const compared = Math.min(length, COMPARED_BYTES);
    const own = this.bytes;
    for (let i = 0; i < compared; i++) {
      if (own[this.start + i] !== bytes[start + i]) return false;
    }
    return true;
  }
}

/** Place of a command in a session; the series is 0 for a record that closes the session, the session `REGISTRATION` for one that opens one. */
export interface Place {
  /** The session. */
  readonly session: number;
  /** Its series in the session. */
  readonly series: number;
  /** Series before it that are not acknowledged. */
  readonly lag: number;
}

/** In place of a session, for a record that opens one. */
export const REGISTRATION = -1;

/** A session as it is on a fork. */
interface Standing {
  next: number;
  responded: number;
}

/** A fork of the machine, and what was run on it. */
class Fork {
  readonly machine: ManagedFork;
  readonly driver: object;
  /** The last entry that is committed in it: it is of use while this is the replica's last one. */
  readonly applied: number;
  /** Guard as strict as that of a regular machine, whatever kind the machine is. */
  readonly guard = new CallGuard(RegularStateMachine);
  /** Number of candidates that were run on it, or need not be. */
  ran = 0;
  /** Entries it was given. */
  entries = 0;
  /** Sessions that candidates have opened. */
  registered = 0;
  /** Sessions that candidates go through; undefined for one that is not there. */
  readonly sessions = new Map<number, Standing | undefined>();

  constructor(machine: ManagedFork, driver: object, applied: number) {
    this.machine = machine;
    this.driver = driver;
    this.applied = applied;
  }

  /** Closes the fork; errors are ignored, as nothing is in it that is not elsewhere. */
  close(): void {
    (async () => {
      await this.guard.run(Op.Close, () => this.machine.close());
    })().catch(() => {});
  }
}

/** Rehearsal of the commands of one cluster on this host, on forks of its machine. */
export class Rehearsal {
  readonly #driver: () => StateMachine<unknown> | undefined;
  readonly #env: Env;
  /** Records that were let through and are not applied yet, in the order of the log. */
  #ahead: Candidate[] = [];
  /** The first of them that is not known to be applied. */
  #head = 0;
  /** Batches that the replica is about to apply, or has just applied. */
  #read: readonly LogBatch[] = [];
  #fork: Fork | undefined;
  /** Settles once the fork is free. */
  #busy: Promise<void> | undefined;
  /** True while an append has its turn. */
  #isTaken = false;
  #waiting: (() => MaybePromise<void>)[] = [];
  /** When a fork may be made again, where making one takes long. */
  #freeAt = 0;
  #version = 0;

  /** The rehearsal of a replica. */
  constructor(options: RehearsalOptions<unknown>) {
    this.#driver = options.driver;
    this.#env = options.env;
  }

  /** True if the machine offers forks. */
  get isAble(): boolean {
    return this.#driver()?.machine.fork !== undefined;
  }

  /** Changes with what is ahead of the next command. */
  get version(): number {
    return this.#version;
  }

  // ----------------------------------------------------------------- turns

  /** Runs `work` once all who came before are done: at once and without a promise if it can. */
  alone<T>(work: () => MaybePromise<T>): MaybePromise<T> {
    if (!this.#isTaken) {
      this.#isTaken = true;
      const pause = this.#freeAt - this.#env.now();
      if (pause >= 1) {
        // What comes until then shares the next fork.
        this.#env.setTimer(
          () => this.#next(),
          Math.min(pause, REHEARSAL_PAUSE_MS_MAX),
        );
      } else if (this.#isEarly) this.#gather(REHEARSAL_TURNS_MAX);
      else return this.#take(work);
    }
    return new Promise<T>((resolve, reject) => {
      this.#waiting.push(() => {
        try {
          const done = work();
          if (isPromise(done)) return done.then(resolve, reject);
          return resolve(done);
        } catch (error) {
          return reject(error);
        }
      });
    });
  }

  /** True if another fork would have to be given what is about to be applied. */
  get #isEarly(): boolean {
    if (this.#fork !== undefined) return false;
    this.#match();
    return this.#ahead.length > this.#head;
  }

  /** Waits a few turns for what is about to be applied: it is not run again then, and what comes in these turns shares the next fork. */
  #gather(turns: number): void {
    if (turns === 0 || !this.#isEarly) return this.#next();
    const again = (): void => this.#gather(turns - 1);
    this.#env.turn().then(again, again);
  }

  #take<T>(work: () => MaybePromise<T>): MaybePromise<T> {
    let done: MaybePromise<T>;
    try {
      done = work();
    } catch (error) {
      this.#next();
      throw error;
    }
    if (!isPromise(done)) this.#next();
    else done.then(() => this.#next(), () => this.#next());
    return done;
  }

  /** Gives their turn to those who wait, in one go as long as none takes longer: they share a fork, and the log a write. */
  #next(): void {
    for (let i = 0; i < this.#waiting.length; i++) {
      const done = this.#waiting[i]!();
      if (!isPromise(done)) continue;
      this.#waiting.splice(0, i + 1);
      // Its callers get the error with which it failed.
      done.then(() => this.#next(), () => this.#next());
      return;
    }
    this.#waiting = [];
    this.#isTaken = false;
  }

  // ------------------------------------------------------------ candidates

  /** Puts a record behind all that is ahead. Called in a turn. */
  add(
    bytes: Uint8Array,
    start: number,
    end: number,
    cmd: Uint8Array | undefined,
    place: Place | undefined,
    isTried: boolean,
  ): Candidate {
    const candidate = new Candidate(bytes, start, end, cmd, place, isTried);
    this.#ahead.push(candidate);
    this.#version++;
    return candidate;
  }

  /** Takes out what is not going into the log after all. */
  drop(candidates: readonly Candidate[]): void {
    let isChanged = false;
    for (const candidate of candidates) {
      if (candidate.isDropped) continue;
      candidate.isDropped = isChanged = true;
    }
    if (!isChanged) return;
    this.#trim();
    this.#leave();
    this.#version++;
  }

  /** Leaves out what is known to be applied, and what was dropped: with a fork, places in it would not be the same. */
  #trim(): void {
    const head = this.#head;
    this.#ahead = this.#ahead.filter((one, i) => i >= head && !one.isDropped);
    this.#head = 0;
  }

  /** Notes that candidates were given to the log, in packs of so many records. */
  out(
    candidates: readonly Candidate[],
    appended: readonly MaybePromise<number>[],
    records: number,
  ): void {
    if (candidates.length === 0) return;
    for (const candidate of candidates) candidate.isOut = true;
    const known = (first: number): void => {
      for (const one of candidates) one.index = first + records - 1;
    };
    const [first] = appended;
    if (appended.length === 1 && typeof first === "number") return known(first);
    Promise.all(appended).then(
      // Packs after the first one may have others' records between them.
      (firsts) => known(Math.max(...firsts)),
      // What is not sure to be in the log is not ahead of anything; nor are those
      // that a log elsewhere has refused. Its others come back with the log.
      () => this.drop(candidates),
    );
  }

  /** The replica is about to apply batches. */
  read(batches: readonly LogBatch[]): void {
    this.#match();
    // A fork is of no use after this.
    if (this.#busy === undefined) {
      this.#leave();
      // Where nothing is tried, no fork ever does this.
      if (2 * this.#head > this.#ahead.length) this.#trim();
    }
    if (this.#ahead.length > 0) this.#read = batches;
    else this.#version++;
  }

  /** The replica's state is another one: it came from a snapshot. */
  reset(): void {
    this.#read = [];
    this.#version++;
    if (this.#busy === undefined) this.#leave();
  }

  #leave(): void {
    this.#fork?.close();
    this.#fork = undefined;
  }

  /** Takes out what was applied. */
  #match(): void {
    const batches = this.#read;
    if (batches.length === 0) return;
    const applied = this.#driver()?.applied ?? 0;
    if (lastOf(batches.at(-1)!) > applied) return;
    this.#read = [];
    const ahead = this.#ahead;
    for (const { records: { bytes, ends } } of batches) {
      let end = 0;
      for (let i = 0; i < ends.length; i++) {
        const start = end;
        end = ends[i]!;
        const kind = bytes[start];
        if (
          kind !== RecordKind.Proposal && kind !== RecordKind.SessionProposal &&
          kind !== RecordKind.Skip && kind !== RecordKind.Unregister &&
          kind !== RecordKind.Register
        ) continue;
        const next = ahead[this.#head];
        if (next?.isOut && next.isAt(bytes, start, end)) this.#head++;
        // It came from elsewhere.
        else this.#version++;
      }
    }
    // One that did not look as it was given would be in the way of all behind it.
    for (;; this.#head++) {
      const index = ahead[this.#head]?.index ?? 0;
      if (index === 0 || index > applied) break;
    }
    if (this.#head === ahead.length) {
      this.#ahead = [];
      this.#head = 0;
    }
  }

  // ------------------------------------------------------------- the fork

  /**
   * Runs all that was not run, up to the first command at which the machine
   * throws: those behind it, that are not in the log, are dropped.
   *
   * @throws ErrSystemBusy if there is no machine to be forked now; whatever was not run is dropped
   */
  run(): MaybePromise<void> {
    const failed = (error: unknown): never => {
      this.drop(this.#ahead.filter((one) => !one.isOut && !one.isPassed));
      throw error;
    };
    try {
      const ran = this.#use(() => {});
      return isPromise(ran) ? ran.catch(failed) : ran;
    } catch (error) {
      return failed(error);
    }
  }

  /** Asks the state that the next command meets. */
  lookup(query: unknown): MaybePromise<unknown> {
    return this.#use((fork) =>
      this.#bounded(
        "lookup",
        fork.guard.run(Op.Lookup, () => fork.machine.lookup(query)),
      )
    );
  }

  /** Uses a fork on which all is run; nothing is applied from then until the use is over. */
  #use<T>(use: (fork: Fork) => MaybePromise<T>): MaybePromise<T> {
    if (this.#busy !== undefined) {
      return this.#busy.then(() => this.#use(use));
    }
    const driver = this.#driver();
    if (driver === undefined || driver.closed || driver.behind) {
      throw new ErrSystemBusy("Replica is recovering");
    }
    const { guard } = driver;
    const call = (): MaybePromise<T> => chain(this.#bring(driver), use);
    // An update that waits, as long as a snapshot takes, may wait for this, too.
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

  /**
   * Bounds a call of the fork that takes time: as long as it is under way, nothing
   * is applied. Time in which the process was suspended hardly counts.
   */
  #bounded<T>(name: string, called: MaybePromise<T>): MaybePromise<T> {
    if (!isPromise(called)) return called;
    return new Promise((resolve, reject) => {
      let ticks = REHEARSAL_TICKS;
      const tick = (): void => {
        if (--ticks > 0) {
          cancel = this.#env.setTimer(
            tick,
            REHEARSAL_CALL_MS_MAX / REHEARSAL_TICKS,
          );
          return;
        }
        // What it is still doing cannot be known.
        this.#leave();
        reject(
          new Error(
            `${name}() has not settled within ${REHEARSAL_CALL_MS_MAX} ms`,
          ),
        );
      };
      let cancel = this.#env.setTimer(
        tick,
        REHEARSAL_CALL_MS_MAX / REHEARSAL_TICKS,
      );
      called.then(resolve, reject).finally(() => cancel());
    });
  }

  /** The fork, brought up to date. */
  #bring(driver: StateMachine<unknown>): MaybePromise<Fork> {
    const fork = this.#fork;
    if (
      fork !== undefined && fork.driver === driver &&
      fork.applied === driver.applied
    ) {
      return fork.ran === this.#ahead.length ? fork : this.#runOn(fork, driver);
    }
    return this.#renew(driver, false);
  }

  /** A new fork, with all run that is ahead: carefully if one of them is known to be wrong. */
  #renew(
    driver: StateMachine<unknown>,
    isCareful: boolean,
  ): MaybePromise<Fork> {
    this.#leave();
    this.#match();
    const { applied } = driver;
    this.#ahead = this.#ahead.filter((one, i) =>
      i >= this.#head && !(one.index > 0 && one.index <= applied)
    );
    this.#head = 0;
    const begun = this.#env.now();
    const made = this.#bounded("fork", driver.machine.fork!());
    return chain(made, (machine) => {
      const fork = new Fork(machine, driver, applied);
      this.#fork = fork;
      return chain(this.#runOn(fork, driver, isCareful), (fork) => {
        const now = this.#env.now();
        // As much time is left for everything else.
        if (now - begun >= 1) this.#freeAt = now + now - begun;
        return fork;
      });
    });
  }

  /** Gives a fork what it was not given. */
  #runOn(
    fork: Fork,
    driver: StateMachine<unknown>,
    isCareful = false,
  ): MaybePromise<Fork> {
    while (fork.ran < this.#ahead.length) {
      const { chunk, entries } = this.#chunk(fork, driver, isCareful);
      if (entries.length === 0) continue;
      let updated: MaybePromise<void>;
      try {
        updated = this.#bounded(
          "update",
          fork.guard.run(
            Op.Update,
            () =>
              fork.machine.update(entries, () => ({
                index: fork.applied + fork.entries,
                rows: [],
              })),
          ),
        );
      } catch (error) {
        return this.#threw(driver, chunk, entries, error);
      }
      if (isPromise(updated)) {
        return updated.then(
          () => {
            for (const one of chunk) one.isPassed = true;
            return this.#runOn(fork, driver, isCareful);
          },
          (error) => this.#threw(driver, chunk, entries, error),
        );
      }
      for (const one of chunk) one.isPassed = true;
    }
    return fork;
  }

  /** Next records for a fork: all that are left, within bounds; one at a time those that no fork has passed, if it has to be careful. */
  #chunk(
    fork: Fork,
    driver: StateMachine<unknown>,
    isCareful: boolean,
  ): { chunk: Candidate[]; entries: Entry[] } {
    const ahead = this.#ahead;
    const chunk: Candidate[] = [];
    const entries: Entry[] = [];
    let bytes = 0;
    while (
      fork.ran < ahead.length && entries.length < UPDATE_ENTRIES_MAX &&
      bytes < UPDATE_BYTES_MAX
    ) {
      const one = ahead[fork.ran]!;
      const isAlone = isCareful && !one.isPassed;
      if (isAlone && entries.length > 0) break;
      if (isInDoubt(fork, driver, one)) {
        // Those before it are run, and let through.
        if (entries.length > 0) break;
        this.#leave();
        throw new ErrSystemBusy(
          `Session ${one.session} may be evicted by sessions that are being opened`,
        );
      }
      fork.ran++;
      // Its place in the session is taken all the same.
      const applies = this.#applies(fork, driver, one);
      if (one.thrown !== undefined) continue;
      if (!applies || one.cmd === undefined) {
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

  /** True if a record will be applied, by the rules of the session table: a copy of an applied one will not, nor anything in a closed session. */
  #applies(fork: Fork, driver: StateMachine<unknown>, one: Candidate): boolean {
    const { session, series, lag } = one;
    if (session === 0) return true;
    if (session === REGISTRATION) {
      fork.registered++;
      return false;
    }
    if (series === 0) {
      fork.sessions.set(session, undefined);
      return false;
    }
    let standing = fork.sessions.get(session);
    if (standing === undefined) {
      if (fork.sessions.has(session)) return false;
      const known = driver.standing(session);
      standing = known && { next: known.next, responded: known.responded };
      fork.sessions.set(session, standing);
      if (standing === undefined) return false;
    }
    const { next } = standing;
    standing.responded = Math.max(
      standing.responded,
      Math.min(series - lag, next) - 1,
    );
    if (series !== next || series - standing.responded > SESSION_WINDOW_MAX) {
      return false;
    }
    standing.next++;
    return true;
  }

  /** The machine threw at one of a chunk. The fork is of no use any more. */
  #threw(
    driver: StateMachine<unknown>,
    chunk: readonly Candidate[],
    entries: readonly Entry[],
    error: unknown,
  ): MaybePromise<Fork> {
    this.#leave();
    // Nothing is wrong with the command.
    if (error instanceof ErrStoreFull) throw error;
    // A regular machine takes them one by one.
    const at = chunk.length === 1
      ? 0
      : driver.machine.type === RegularStateMachine
      ? entries.findIndex(({ result }) => result === undefined)
      : -1;
    if (at < 0) {
      // Who has passed before may be the one, on another state.
      for (const one of chunk) one.isPassed = false;
      return this.#renew(driver, true);
    }
    for (const one of chunk.slice(0, at)) one.isPassed = true;
    const culprit = chunk[at]!;
    culprit.isPassed = false;
    culprit.thrown = { error };
    if (culprit.isTried && !culprit.isOut) this.#cutBehind(culprit);
    return this.#renew(driver, false);
  }

  /** Drops a command at which the machine threw, and what is behind it and not in the log; a place in a session stays. */
  #cutBehind(culprit: Candidate): void {
    const at = this.#ahead.indexOf(culprit);
    const isKept = culprit.session !== 0;
    this.#version++;
    this.#ahead = this.#ahead.filter((one, i) => {
      if (i < at || one.isOut || isKept && i === at) return true;
      one.isDropped = true;
      return false;
    });
  }

  // -------------------------------------------------- records of this host

  /**
   * Tries the commands of a pack that this host itself appends, and appends what
   * passes; `refused` is called with the place of each that does not, before
   * that. In a session, a record takes its place that says why.
   */
  append(
    records: Records,
    isTrying: boolean,
    append: (records: Records) => MaybePromise<number>,
    refused: (at: number, error: ErrProposalRefused) => void,
  ): MaybePromise<number> {
    return this.alone(() => {
      const changed = new Map<number, Uint8Array | undefined>();
      const added: Candidate[] = [];
      return chain(
        this.#tryFrom(records, 0, isTrying, added, changed, refused),
        () => {
          const packed = changed.size === 0
            ? records
            : repack(records, changed);
          if (packed.ends.length === 0) return 0;
          let appended: MaybePromise<number>;
          try {
            appended = append(packed);
          } catch (error) {
            this.drop(added);
            throw error;
          }
          this.out(added, [appended], packed.ends.length);
          return appended;
        },
      );
    });
  }

  #tryFrom(
    records: Records,
    first: number,
    isTrying: boolean,
    added: Candidate[],
    changed: Map<number, Uint8Array | undefined>,
    refused: (at: number, error: ErrProposalRefused) => void,
  ): MaybePromise<void> {
    const cursor = new RecordCursor();
    const places: number[] = [];
    const before = added.length;
    const { bytes, ends } = records;
    for (let i = first; i < ends.length; i++) {
      const from = i === 0 ? 0 : ends[i - 1]!;
      const end = ends[i]!;
      cursor.read(bytes, from, end);
      const { kind, session, series, lag, start } = cursor;
      const isCommand = kind === RecordKind.Proposal ||
        kind === RecordKind.SessionProposal;
      if (
        !isCommand && kind !== RecordKind.Skip &&
        kind !== RecordKind.Unregister && kind !== RecordKind.Register
      ) continue;
      const cmd = isCommand ? bytes.subarray(start, end) : undefined;
      const place = kind === RecordKind.Proposal
        ? undefined
        : kind === RecordKind.Register
        ? { session: REGISTRATION, series: 0, lag: 0 }
        : kind === RecordKind.Unregister
        ? { session, series: 0, lag: 0 }
        : { session, series, lag };
      added.push(this.add(bytes, from, end, cmd, place, isTrying));
      places.push(i);
    }
    const failed = (error: unknown): never => {
      this.drop(added);
      throw error;
    };
    const conclude = (): MaybePromise<void> => {
      const at = added.findIndex((one, i) =>
        i >= before && one.thrown !== undefined
      );
      if (at < 0) return;
      const culprit = added[at]!;
      const { error } = culprit.thrown!;
      const place = places[at - before]!;
      const { session, series, lag } = culprit;
      added.length = at;
      if (session === 0) changed.set(place, undefined);
      else {
        const skip = skipRecord(session, series, lag, reasonOf(error));
        culprit.replace(skip);
        changed.set(place, skip);
        added.push(culprit);
      }
      refused(
        place,
        new ErrProposalRefused(reasonOf(error), { cause: error }),
      );
      return this.#tryFrom(
        records,
        place + 1,
        isTrying,
        added,
        changed,
        refused,
      );
    };
    if (!isTrying) return;
    try {
      const ran = this.run();
      return isPromise(ran) ? ran.then(conclude, failed) : conclude();
    } catch (error) {
      return failed(error);
    }
  }
}

/** True if a session is there or not, depending on which are evicted by those opened ahead: that is known once they are. */
function isInDoubt(
  fork: Fork,
  driver: StateMachine<unknown>,
  { session, isOut }: Candidate,
): boolean {
  return fork.registered > 0 && session > 0 && !isOut &&
    driver.mayEvict(session, fork.registered + fork.sessions.size);
}

function repack(
  records: Records,
  changed: ReadonlyMap<number, Uint8Array | undefined>,
): Records {
  const kept: Uint8Array[] = [];
  for (let i = 0; i < records.ends.length; i++) {
    const record = changed.has(i) ? changed.get(i) : recordAt(records, i);
    if (record !== undefined) kept.push(record);
  }
  return packRecords(...kept);
}

/** Makes the rehearsal of a replica. */
export function makeRehearsal<L>(options: RehearsalOptions<L>): Rehearsal {
  return new Rehearsal(options as RehearsalOptions<never>);
}
