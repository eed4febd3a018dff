/**
 * Looks at every record before it is in the log: what is in the log is final,
 * and a client's word is not to be trusted for what it may put there.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  BATCH_BYTES_MAX,
  REFUSAL_BYTES_MAX,
  REHEARSAL_ASKS_MAX,
  SESSION_OWNER_BYTES_MAX,
} from "../../limits.ts";
import { clipText, encodeText } from "../../bytes.ts";
import type { Refusal } from "../../log/errors.ts";
import type { Records } from "../../log/log.ts";
import { packRecords, recordAt, RecordKind } from "../../log/records.ts";
import {
  type Candidate,
  type Place,
  reasonOf,
  REGISTRATION,
  type Rehearsal,
} from "../../rehearsal/rehearsal.ts";
import { chain, isPromise } from "../../async.ts";
import type { SessionInfo } from "../../rsm/state_machine.ts";
import {
  RecordCursor,
  registerRecord,
  skipRecord,
} from "../../rsm/record_codec.ts";
import type { MaybePromise } from "../../statemachine/types.ts";
import { ErrHookFailed, ErrProtocol } from "../errors.ts";
import type { ValidateContext } from "./options.ts";

/** First record that could not be judged, and the reason: nothing is said of it, nor of those behind it. */
export interface Blocked {
  /** Place of the record in its append. */
  readonly at: number;
  /** The hook that failed, or the machine that could not be forked. */
  readonly error: ErrHookFailed;
}

/** Decision about an append, or a stretch of it: the records that go into the log, and the refusals. */
export interface Admitted {
  /** The records that do, some of them put right: mostly one batch, none if there is nothing, two if what was put right made them too many bytes for one. */
  readonly parts: readonly Records[];
  /** Those that do not, and why. */
  readonly refusals: readonly Refusal[];
  /** How many were rejected: with those of a session, which go in as a skip that says why. */
  readonly rejected: number;
  /** The first that could not be judged, if there is one. */
  readonly blocked: Blocked | undefined;
  /** Place of the first record it says nothing of. */
  readonly upTo: number;
}

/** Gives the log what a verdict lets through; returns what the log says of each part. */
export type Commit = (verdict: Admitted) => readonly MaybePromise<number>[];

/** What a gate asks of the cluster behind it, and of whoever runs the server. */
export interface AdmissionOptions {
  /** Who opened what is theirs, as the log has it. */
  readonly owner: Uint8Array;
  /** The largest command, in bytes. */
  readonly commandBytes: number;
  /** What the server's replica knows of a session, once it has applied all up to it. */
  readonly sessionState: (
    session: number,
  ) => MaybePromise<SessionInfo | "future" | undefined>;
  /** Whether proposals that carry that number are the principal's. */
  readonly claimOrigin: (origin: string) => boolean;
  /** Whether the principal may write; an `ErrHookFailed` if nobody knows. */
  readonly mayWrite: (() => MaybePromise<boolean>) | undefined;
  /** Why a command is rejected, if it is; an `ErrHookFailed` if nobody knows. */
  readonly validate:
    | ((
      cmd: Uint8Array,
      context: ValidateContext,
    ) => MaybePromise<string | undefined>)
    | undefined;
  /** Forks of the server's machine, on which commands are tried and `lookup` answers; without it there is no such thing. */
  readonly rehearsal?: Rehearsal | undefined;
  /** True if a command at which the machine throws is rejected. */
  readonly rehearses?: boolean;
  /** Called with what the machine threw at a command, which is rejected. */
  readonly onThrown?: (error: unknown) => void;
}

/** As whom the log has a principal: its id, or the hash of one that is too long, which is no text. */
export async function ownerOf(id: string): Promise<Uint8Array> {
  const bytes = encodeText(id, "Id of the principal");
  if (bytes.length <= SESSION_OWNER_BYTES_MAX) return bytes;
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return new Uint8Array([0xff, ...hash]);
}

/** A reason that fits into a record and into a message. */
export function clipReason(reason: string): string {
  return clipText(reason, REFUSAL_BYTES_MAX);
}

const shapes = new RecordCursor();

/**
 * Checks that each part of an append is a record, and of a kind that clients
 * write: bytes that are none would stop every replica. Looking only at the shape
 * costs little, so it is done before anything else, and no client that works well
 * fails it.
 *
 * @throws ErrProtocol if one is not such a record
 */
export function checkRecords({ bytes, ends }: Records): void {
  let start = 0;
  for (let i = 0; i < ends.length; i++) {
    const end = ends[i]!;
    try {
      shapes.read(bytes, start, end);
      switch (shapes.kind) {
        case RecordKind.Epoch:
        case RecordKind.Config:
        case RecordKind.SkipEntry:
          throw new ErrProtocol(
            `Part ${i} of an append is a record that only a server writes`,
          );
        case RecordKind.Register:
          shapes.registration();
          break;
        case RecordKind.Claim:
          shapes.claim();
      }
    } catch (cause) {
      if (!(cause instanceof RangeError)) throw cause;
      throw new ErrProtocol(
        `Part ${i} of an append is not a record: ${cause.message}`,
        { cause },
      );
    }
    start = end;
  }
}

/** Judges what one principal appends to one cluster; one append at a time. */
export class Admission {
  readonly #options: AdmissionOptions;
  readonly #cursor = new RecordCursor();
  #records: Records = { bytes: new Uint8Array(), ends: [] };
  /** Which of them is to be judged first. */
  #first = 0;
  #mayWrite = true;
  /** What is put in place of a record; undefined for nothing. */
  #changed = new Map<number, Uint8Array | undefined>();
  #refusals: Refusal[] = [];
  /** Places of those that were rejected, in order. */
  #refusedAt: number[] = [];
  /** Records of this stretch that have to be tried, or are ahead of those. */
  #added: Candidate[] = [];
  /** The place of each of them. */
  #places: number[] = [];
  /** Largest number of records in a stretch: few after one at which the machine threw, so that those behind it are not tried in vain. */
  #stretchMax = Infinity;
  /** Settles once the record that a stretch ends before can be judged. */
  #pause: Promise<void> | undefined;
  /** Standing of a session for which the gate had to wait. */
  #stood: { session: number; standing: Stood } | undefined;
  /** Answer of `validate` about the next record, given while other appends had their turn. */
  #answer: Answer | undefined;
  /** Number of answers about that record that could not be used. */
  #asks = 0;
  /** The number that was found to be the principal's last. */
  #low = -1;
  #high = -1;
  /** The session that was found to be the principal's last. */
  #mine = -1;
  /** The session that was not found last, and how that is said. */
  #future = { session: -1, reason: "" };

  /** A gate that knows nothing yet. */
  constructor(options: AdmissionOptions) {
    this.#options = options;
  }

  /**
   * Judges these records, from the one at place `first` on, and commits what goes
   * into the log, in one go or in several. Not called again before it has
   * settled: with the first record that could not be judged, if there is one.
   */
  admit(
    records: Records,
    first: number,
    commit: Commit,
  ): MaybePromise<Blocked | undefined> {
    this.#records = records;
    this.#mine = -1;
    this.#stretchMax = Infinity;
    this.#stood = this.#answer = undefined;
    this.#asks = 0;
    const { mayWrite } = this.#options;
    let may: MaybePromise<boolean>;
    try {
      may = mayWrite === undefined || mayWrite();
    } catch (error) {
      return blockedAt(first, error);
    }
    const begin = (may: boolean): MaybePromise<Blocked | undefined> => {
      this.#mayWrite = may;
      return this.#stretches(first, commit);
    };
    if (!isPromise(may)) return begin(may);
    return may.then(begin, (error) => blockedAt(first, error));
  }

  /**
   * Judges an append in stretches. Commands that are tried first are judged and
   * appended one stretch at a time, so that exactly the commands tried before are
   * ahead of it. A stretch ends where a hook takes time, so that other appends go
   * on.
   */
  #stretches(first: number, commit: Commit): MaybePromise<Blocked | undefined> {
    const { rehearsal } = this.#options;
    if (rehearsal === undefined) {
      return chain(this.#stretch(first), (verdict) => {
        commit(verdict);
        return verdict.blocked;
      });
    }
    return chain(
      rehearsal.alone(() => this.#tryStretch(rehearsal, first, commit)),
      ({ verdict: { blocked, upTo }, appended, pause }) => {
        if (blocked !== undefined || upTo === this.#records.ends.length) {
          return blocked;
        }
        // Another fork takes what is ahead as long as it is not applied: those
        // behind a command at which the machine threw wait until little is.
        const isThrown = this.#stretchMax === 1;
        const after = pause ?? (isThrown ? Promise.all(appended) : undefined);
        return after === undefined
          ? this.#stretches(upTo, commit)
          : after.then(() => this.#stretches(upTo, commit));
      },
    );
  }

  #tryStretch(
    rehearsal: Rehearsal,
    first: number,
    commit: Commit,
  ): MaybePromise<Stretch> {
    const failed = (error: unknown): never => {
      rehearsal.drop(this.#added);
      this.#pause = undefined;
      throw error;
    };
    const end = (verdict: Admitted): Stretch => {
      const pause = this.#pause;
      this.#pause = undefined;
      const appended = commit(verdict);
      const records = verdict.parts.reduce((n, { ends }) => n + ends.length, 0);
      rehearsal.out(this.#added, appended, records);
      return { verdict, appended, pause };
    };
    try {
      const ended = chain(this.#stretch(first), end);
      return isPromise(ended) ? ended.catch(failed) : ended;
    } catch (error) {
      return failed(error);
    }
  }

  #stretch(first: number): MaybePromise<Admitted> {
    this.#first = first;
    this.#changed = new Map();
    this.#refusals = [];
    this.#refusedAt = [];
    this.#added = [];
    this.#places = [];
    return this.#from(first);
  }

  /** Nothing is said of the record at place `at`, nor of those behind it. */
  #blocked(at: number, error: unknown): MaybePromise<Admitted> {
    if (!(error instanceof ErrHookFailed)) throw error;
    return this.#finish(at, error);
  }

  #from(i: number): MaybePromise<Admitted> {
    const { bytes, ends } = this.#records;
    const upTo = Math.min(ends.length, this.#first + this.#stretchMax);
    for (let start = i === 0 ? 0 : ends[i - 1]!; i < upTo; i++) {
      const end = ends[i]!;
      let looked: MaybePromise<void>;
      try {
        looked = this.#look(i, bytes, start, end);
      } catch (error) {
        return this.#blocked(i, error);
      }
      if (isPromise(looked)) {
        return looked.then(
          () => this.#from(i + 1),
          (error) => this.#blocked(i, error),
        );
      }
      if (this.#pause !== undefined) return this.#finish(i);
      start = end;
    }
    return this.#finish(upTo);
  }

  /** Tries what a stretch has let through; `upTo` is the place it ends before, `error` why. */
  #finish(upTo: number, error?: ErrHookFailed): MaybePromise<Admitted> {
    const { rehearsal, rehearses } = this.#options;
    if (rehearsal === undefined || !rehearses || this.#added.length === 0) {
      return this.#verdict(upTo, error);
    }
    const conclude = (): Admitted => this.#conclude(rehearsal, upTo, error);
    const failed = (cause: unknown): Admitted => {
      // What was not tried is not let through.
      const at = this.#added.findIndex(({ isDropped }) => isDropped);
      const end = at < 0 ? upTo : this.#places[at]!;
      this.#added.length = Math.max(0, at);
      this.#pause = undefined;
      return this.#verdict(end, new ErrHookFailed("rehearsal", cause));
    };
    let ran: MaybePromise<void>;
    try {
      ran = rehearsal.run();
    } catch (error) {
      return failed(error);
    }
    return isPromise(ran) ? ran.then(conclude, failed) : conclude();
  }

  /** Refuses the first command at which the machine threw: what is behind it is judged again, without it. */
  #conclude(
    rehearsal: Rehearsal,
    upTo: number,
    error: ErrHookFailed | undefined,
  ): Admitted {
    const added = this.#added;
    const at = added.findIndex(({ thrown }) => thrown !== undefined);
    if (at < 0) {
      this.#stretchMax *= 2;
      return this.#verdict(upTo, error);
    }
    const culprit = added[at]!;
    const { session, series, lag } = culprit;
    const place = this.#places[at]!;
    rehearsal.drop(added.splice(at + 1));
    this.#refuseCommand(
      place,
      reasonOf(culprit.thrown!.error),
      session === 0 ? undefined : { session, series, lag },
    );
    const skip = this.#changed.get(place);
    if (skip === undefined) added.pop();
    else culprit.replace(skip);
    this.#stretchMax = 1;
    this.#pause = undefined;
    this.#options.onThrown?.(culprit.thrown!.error);
    return this.#verdict(place + 1);
  }

  /** Has a record that is let through be ahead of what comes. */
  #add(
    i: number,
    cmd: Uint8Array | undefined,
    place: Place | undefined,
  ): void {
    const { rehearsal, rehearses = false } = this.#options;
    if (rehearsal === undefined) return;
    const changed = this.#changed.get(i);
    const { bytes, ends } = this.#records;
    this.#added.push(
      changed === undefined
        ? rehearsal.add(
          bytes,
          i === 0 ? 0 : ends[i - 1]!,
          ends[i]!,
          cmd,
          place,
          rehearses,
        )
        : rehearsal.add(changed, 0, changed.length, cmd, place, rehearses),
    );
    this.#places.push(i);
  }

  /** What is said of the records up to, and without, the one at place `upTo`; `error` is why it is not judged. */
  #verdict(upTo: number, error?: ErrHookFailed): Admitted {
    const refusals = this.#refusals.filter(({ at }) => at < upTo);
    const rejected = this.#refusedAt.filter((at) => at < upTo).length;
    const blocked = error === undefined ? undefined : { at: upTo, error };
    const { ends } = this.#records;
    const isWhole = this.#first === 0 && upTo === ends.length;
    if (isWhole && this.#changed.size === 0) {
      return { parts: [this.#records], refusals, rejected, blocked, upTo };
    }
    const kept: Uint8Array[] = [];
    for (let i = this.#first; i < upTo; i++) {
      const record = this.#changed.has(i)
        ? this.#changed.get(i)
        : recordAt(this.#records, i);
      if (record !== undefined) kept.push(record);
    }
    const parts: Records[] = [];
    let packed = 0;
    while (packed < kept.length) {
      const from = packed;
      let size = 0;
      while (
        packed < kept.length &&
        (size += kept[packed]!.length) <= BATCH_BYTES_MAX
      ) packed++;
      parts.push(packRecords(...kept.slice(from, packed)));
    }
    return { parts, refusals, rejected, blocked, upTo };
  }

  #refuse(at: number, reason: string): void {
    this.#changed.set(at, undefined);
    this.#refusals.push({ at, reason: clipReason(reason || NO_REASON) });
    this.#refusedAt.push(at);
  }

  #look(
    i: number,
    bytes: Uint8Array,
    start: number,
    end: number,
  ): MaybePromise<void> {
    const cursor = this.#cursor;
    cursor.read(bytes, start, end);
    switch (cursor.kind) {
      case RecordKind.Proposal:
        if (!this.#isOwnOrigin()) {
          return this.#refuse(i, "Another replica has that number");
        }
        return this.#lookAtCommand(
          i,
          bytes.subarray(cursor.start, end),
          undefined,
        );
      case RecordKind.SessionProposal:
      case RecordKind.Skip:
      case RecordKind.Unregister:
        return this.#lookAtSession(i, bytes, end);
      case RecordKind.Claim:
        cursor.claim();
        return this.#lookAtSession(i, bytes, end);
      case RecordKind.Register: {
        const { clientID } = cursor.registration();
        if (!this.#mayWrite) return this.#refuse(i, NOT_ALLOWED);
        const { owner } = this.#options;
        this.#changed.set(i, registerRecord(clientID, owner));
        this.#add(i, undefined, { session: REGISTRATION, series: 0, lag: 0 });
        return;
      }
      default:
        throw new ErrProtocol(`Record of kind ${cursor.kind} was let in`);
    }
  }

  #isOwnOrigin(): boolean {
    const { originLow, originHigh } = this.#cursor;
    if (originLow === this.#low && originHigh === this.#high) return true;
    if (!this.#options.claimOrigin(`${originLow} ${originHigh}`)) return false;
    this.#low = originLow;
    this.#high = originHigh;
    return true;
  }

  /** A session is used by whoever opened it, and by nobody else (H14). */
  #lookAtSession(
    i: number,
    bytes: Uint8Array,
    end: number,
  ): MaybePromise<void> {
    const { session, kind, series, lag } = this.#cursor;
    const command = kind === RecordKind.SessionProposal
      ? bytes.subarray(this.#cursor.start, end)
      : undefined;
    const judge = (standing: Stood): MaybePromise<void> => {
      if (standing === "future") {
        if (session !== this.#future.session) {
          const reason = `There is no session ${session} yet`;
          this.#future = { session, reason };
        }
        return this.#refuse(i, this.#future.reason);
      }
      // One that is gone has no effect, and its client is to be told so by the
      // log itself (H4).
      if (
        standing !== undefined &&
        !isSameOwner(standing.owner, this.#options.owner)
      ) {
        return this.#refuse(i, `Session ${session} is somebody else's`);
      }
      if (standing === undefined && !this.#mayWrite && session !== this.#mine) {
        // It would be no more than a way to fill the log.
        return this.#refuse(i, NOT_ALLOWED);
      }
      this.#mine = session;
      const place = { session, series, lag };
      if (command !== undefined) return this.#lookAtCommand(i, command, place);
      if (kind === RecordKind.Skip) this.#add(i, undefined, place);
      if (kind === RecordKind.Unregister) {
        this.#add(i, undefined, { session, series: 0, lag: 0 });
      }
    };
    if (session === this.#mine) return judge(undefined);
    const stood = this.#stood;
    this.#stood = undefined;
    if (stood?.session === session) return judge(stood.standing);
    const standing = this.#options.sessionState(session);
    if (!isPromise(standing)) return judge(standing);
    if (this.#options.rehearsal === undefined) return standing.then(judge);
    this.#pause = standing.then((standing) => {
      this.#stood = { session, standing };
    });
    // It may not be waited for, where the stretch ends before it.
    this.#pause.catch(() => {});
  }

  /** Refuses a command, in a session by a record that skips its series. */
  #refuseCommand(i: number, reason: string, place: Place | undefined): void {
    if (place === undefined) return this.#refuse(i, reason);
    // Its series must go on without it, and its client must hear of it
    // whatever is lost on the way: the log says so (H14).
    const { session, series, lag } = place;
    const words = clipReason(reason || NO_REASON);
    this.#changed.set(i, skipRecord(session, series, lag, words));
    this.#refusedAt.push(i);
  }

  #lookAtCommand(
    i: number,
    cmd: Uint8Array,
    place: Place | undefined,
  ): MaybePromise<void> {
    const { commandBytes, validate } = this.#options;
    const decide = (reason: string | undefined): void => {
      if (reason === undefined) return this.#add(i, cmd, place);
      this.#refuseCommand(i, reason, place);
      if (place !== undefined) {
        this.#add(i, undefined, place);
      }
    };
    if (!this.#mayWrite) return decide(NOT_ALLOWED);
    if (cmd.length > commandBytes) {
      return decide(
        `Command of ${cmd.length} bytes is over the limit of ${commandBytes}`,
      );
    }
    if (validate === undefined) return decide(undefined);
    const { rehearsal } = this.#options;
    if (rehearsal === undefined) {
      const reason = validate(cmd, NO_CONTEXT);
      return isPromise(reason) ? reason.then(decide) : decide(reason);
    }
    const answer = this.#answer;
    this.#answer = undefined;
    if (answer?.at === i) {
      if (answer.isFresh(rehearsal)) return decide(answer.reason);
      this.#asks++;
    } else this.#asks = 0;
    return this.#ask(i, cmd, rehearsal, decide);
  }

  /** Asks `validate`, which may look up the state that the command meets. */
  #ask(
    i: number,
    cmd: Uint8Array,
    rehearsal: Rehearsal,
    decide: (reason: string | undefined) => void,
  ): MaybePromise<void> {
    const answer = new Answer(i);
    const reason = answer.over(() =>
      this.#options.validate!(cmd, {
        lookup: (query) => answer.lookup(rehearsal, query),
      })
    );
    if (!isPromise(reason)) return decide(reason);
    // Others have changed again and again what it has looked up: they wait.
    if (this.#asks >= REHEARSAL_ASKS_MAX) return reason.then(decide);
    this.#pause = reason.then(
      (reason) => {
        answer.reason = reason;
        this.#answer = answer;
      },
      (error) => {
        answer.error = error;
        this.#answer = answer;
      },
    );
  }
}

/** One stretch of an append. */
interface Stretch {
  readonly verdict: Admitted;
  /** Answer of the log to each part. */
  readonly appended: readonly MaybePromise<number>[];
  /** Settles once the record that it ends before can be judged. */
  readonly pause: Promise<void> | undefined;
}

/** Standing of a session, as far as it is known. */
type Stood = SessionInfo | "future" | undefined;

/** Answer of `validate` about one record, with the version of the state it looked up. */
class Answer {
  /** Place of the record in its append. */
  readonly at: number;
  /** Reason with which it rejected. */
  reason: string | undefined;
  /** Error with which it failed. */
  error: unknown;
  /** Version of the state ahead of the record at the first lookup. */
  #version: number | undefined;
  #isOver = false;

  /** An answer that is not given yet. */
  constructor(at: number) {
    this.at = at;
  }

  /** Runs the hook; what it looks up after it has answered, it does not get. */
  over<T>(hook: () => MaybePromise<T>): MaybePromise<T> {
    const end = (): void => {
      this.#isOver = true;
    };
    try {
      const answer = hook();
      if (isPromise(answer)) answer.then(end, end);
      else end();
      return answer;
    } catch (error) {
      end();
      throw error;
    }
  }

  /** Answers a query from the state that the command meets. */
  lookup(rehearsal: Rehearsal, query: unknown): MaybePromise<unknown> {
    if (this.#isOver) {
      throw new Error("lookup() was called after validate() had answered");
    }
    this.#version ??= rehearsal.version;
    return rehearsal.lookup(query);
  }

  /** True if it is the answer about the state that the command still meets; throws what the hook failed with. */
  isFresh({ version }: Rehearsal): boolean {
    if (this.error !== undefined) throw this.error;
    return this.#version === undefined || this.#version === version;
  }
}

/** Context without `lookup`, for machines that have no forks. */
const NO_CONTEXT: ValidateContext = {};

function blockedAt(at: number, error: unknown): Blocked {
  if (!(error instanceof ErrHookFailed)) throw error;
  return { at, error };
}

const NOT_ALLOWED = "You may not write to this cluster";

/** What is said of a command that the application refuses without a word: none would mean that its own client has skipped it. */
const NO_REASON = "It is not allowed";

/** Whether two are the same owner. */
export function isSameOwner(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
