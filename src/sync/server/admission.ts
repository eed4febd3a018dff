/**
 * Admission control: checks every record of a client before it is added to the
 * log. The log is final, and clients are not trusted.
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
import type { Env } from "../../env.ts";
import type { Refusal } from "../../log/errors.ts";
import type { LogOrder, LogTurn, Records } from "../../log/log.ts";
import { packRecords, recordAt, RecordKind } from "../../log/records.ts";
import {
  type Candidate,
  type Place,
  reasonOf,
  REGISTRATION,
  type Rehearsal,
} from "../../rehearsal/mod.ts";
import { chain, isPromise } from "../../async.ts";
import {
  RecordCursor,
  registerRecord,
  skipRecord,
} from "../../rsm/record_codec.ts";
import type { MaybePromise } from "../../statemachine/types.ts";
import { ErrHookFailed, ErrProtocol } from "../errors.ts";
import type { ValidateContext } from "./options.ts";
import type { SessionState } from "./served_cluster.ts";

/** First record of an append that cannot be decided now; later records wait for it. */
export interface Blocked {
  /** Position of the record in its append. */
  readonly at: number;
  /** Error of the hook that failed, or of a state machine that could not be forked. */
  readonly error: ErrHookFailed;
}

/** Decision about the records of an append, or of a part of it. */
export interface Admitted {
  /** Accepted records, some of them rewritten, in batches within `BATCH_BYTES_MAX`: mostly one. */
  readonly parts: readonly Records[];
  /** Refused records that are not in the log, with their reasons. */
  readonly refusals: readonly Refusal[];
  /** Number of refused records, including commands that a skip record of their session replaces. */
  readonly refused: number;
  /** First record that cannot be decided now, if there is one. */
  readonly blocked: Blocked | undefined;
  /** Position of the first record that is not decided; the number of records if all are. */
  readonly upTo: number;
}

/** Appends accepted records to the log, in a turn if they were decided in one; returns the index of each part. */
export type Commit = (
  admitted: Admitted,
  turn: LogTurn | undefined,
) => readonly MaybePromise<number>[];

/** Dependencies of an {@linkcode Admission}. */
export interface AdmissionOptions {
  /** Owner of the principal's sessions, as the log stores it. */
  readonly owner: Uint8Array;
  /** Size of the largest command, in bytes. */
  readonly commandBytes: number;
  /** Returns the state of a session. */
  readonly sessionState: (session: number) => MaybePromise<SessionState>;
  /** Assigns the origin of a proposal to the principal; false if it belongs to another one. */
  readonly claimOrigin: (origin: string) => boolean;
  /** Returns the reason for which the state machine refuses a command before it is ordered; throws if it has to wait. */
  readonly admit?: (cmd: Uint8Array) => string | undefined;
  /** Returns true if the principal may write; throws `ErrHookFailed` if that is not known. Undefined if every principal may. */
  readonly mayWrite: (() => MaybePromise<boolean>) | undefined;
  /** Returns the reason to refuse a command; throws `ErrHookFailed` if that is not known. Undefined if every command is accepted. */
  readonly validate:
    | ((
      cmd: Uint8Array,
      context: ValidateContext,
    ) => MaybePromise<string | undefined>)
    | undefined;
  /** Rehearsal on forks of the server's state machine, which `lookup` of `validate` reads; undefined for a machine without `fork()`. */
  readonly rehearsal?: Rehearsal | undefined;
  /** Order of a log that several servers append to: commands are decided in turns of this server. Undefined where each server decides by itself. */
  readonly order?: LogOrder | undefined;
  /** Node id of the server's replica, on whose state it decides. */
  readonly nodeID?: bigint;
  /** Resolves once the server's replica has applied an index. */
  readonly untilApplied?: (index: number) => MaybePromise<void>;
  /** True if commands at which the state machine throws are refused. */
  readonly rehearses?: boolean;
  /** Called with the error that the state machine threw at a refused command. */
  readonly onThrown?: (error: unknown) => void;
}

/** Returns the owner of a principal's sessions, as the log stores it: the UTF-8 bytes of the id, or for a long id 0xFF (no byte of UTF-8) and its SHA-256 hash. */
export async function ownerOf(env: Env, id: string): Promise<Uint8Array> {
  const bytes = encodeText(id, "Id of the principal");
  if (bytes.length <= SESSION_OWNER_BYTES_MAX) return bytes;
  const hash = await env.sha256?.(bytes) ??
    new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return new Uint8Array([0xff, ...hash]);
}

/** Clips a reason to the size that a record and a message may have. */
export function clipReason(reason: string): string {
  return clipText(reason, REFUSAL_BYTES_MAX);
}

/** Cursor of {@linkcode checkRecords}. */
const checked = new RecordCursor();

/**
 * Checks the form of the records of an append, and that clients may write their kinds:
 * a malformed record would stop every replica. A correct client never fails it.
 *
 * @throws ErrProtocol if a part is not such a record
 */
export function checkRecords({ bytes, ends }: Records): void {
  let start = 0;
  for (let i = 0; i < ends.length; i++) {
    const end = ends[i]!;
    try {
      checked.read(bytes, start, end);
      switch (checked.kind) {
        case RecordKind.Epoch:
        case RecordKind.Config:
        case RecordKind.SkipEntry:
          throw new ErrProtocol(
            `Part ${i} of an append is a record that only a server writes`,
          );
        case RecordKind.Register:
          checked.registration();
          break;
        case RecordKind.Claim:
          checked.claim();
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

/**
 * Decides which records of one principal are added to the log of one cluster; one
 * append at a time.
 *
 * Where commands are rehearsed, an append is decided and committed in runs of records,
 * so that each command is rehearsed on exactly the state that it will meet. A run ends
 * before a record whose decision takes time (a lookup of its session, an asynchronous
 * `validate`), so that other appends can continue in between.
 */
export class Admission {
  readonly #options: AdmissionOptions;
  readonly #cursor = new RecordCursor();
  #records: Records = { bytes: new Uint8Array(), ends: [] };
  /** Position of the first record of the run. */
  #first = 0;
  #mayWrite = true;
  /** Replacements of records by position; undefined removes the record. */
  #replaced = new Map<number, Uint8Array | undefined>();
  #refusals: Refusal[] = [];
  /** Positions of refused records, ascending. */
  #refusedAt: number[] = [];
  /** Accepted records of the run that are rehearsed, or on which rehearsed ones depend. */
  #candidates: Candidate[] = [];
  /** Position of each candidate. */
  #positions: number[] = [];
  /** Largest number of records in a run; small after a command at which the machine threw, so that few commands behind it are rehearsed again. */
  #runMax = Infinity;
  /** Index at which the last turn began. */
  #turn = 0;
  /** Settles once the record that ended the run can be decided. */
  #pause: Promise<void> | undefined;
  /** State of the session for which the last run ended. */
  #awaited: { session: number; state: SessionState } | undefined;
  /** Result of `validate` for the next record, which arrived between two runs. */
  #validation: Validation | undefined;
  /** Number of results of `validate` for the next record that were outdated: other appends had changed the state. */
  #outdated = 0;
  /** Low half of the origin that was last found to be the principal's. */
  #originLow = -1;
  /** High half of that origin. */
  #originHigh = -1;
  /** Session that was last found to be the principal's. */
  #ownSession = -1;
  /** Session that was last found not to exist yet, with the reason of the refusal: many records share both. */
  #future = { session: -1, reason: "" };

  /** Creates an admission control that knows no origin or session of the principal. */
  constructor(options: AdmissionOptions) {
    this.#options = options;
  }

  /**
   * Decides the records from position `first` on, and commits the accepted ones in
   * one or several calls of `commit`. Resolves to the first record that cannot be
   * decided now, if there is one. Must not be called again before it has resolved.
   */
  admit(
    records: Records,
    first: number,
    commit: Commit,
  ): MaybePromise<Blocked | undefined> {
    this.#records = records;
    this.#ownSession = -1;
    this.#runMax = Infinity;
    this.#awaited = this.#validation = undefined;
    this.#outdated = 0;
    const { mayWrite } = this.#options;
    let may: MaybePromise<boolean>;
    try {
      may = mayWrite === undefined || mayWrite();
    } catch (error) {
      return blockedAt(first, error);
    }
    const begin = (may: boolean): MaybePromise<Blocked | undefined> => {
      this.#mayWrite = may;
      return this.#runs(first, commit);
    };
    if (!isPromise(may)) return begin(may);
    return may.then(begin, (error) => blockedAt(first, error));
  }

  #runs(first: number, commit: Commit): MaybePromise<Blocked | undefined> {
    const { rehearsal } = this.#options;
    if (rehearsal === undefined) {
      return chain(this.#run(first), (admitted) => {
        commit(admitted, undefined);
        return admitted.blocked;
      });
    }
    const ran = this.#inTurn((turn) =>
      rehearsal.exclusively(() =>
        // Others may have appended while it waited.
        turn?.isOver
          ? undefined
          : this.#rehearsedRun(rehearsal, first, commit, turn)
      )
    );
    return chain(
      ran,
      (decided) => {
        if (decided === undefined) return this.#runs(first, commit);
        const { admitted: { blocked, upTo }, appended, pause } = decided;
        if (blocked !== undefined || upTo === this.#records.ends.length) {
          return blocked;
        }
        // After a command at which the machine threw, the next run needs a new fork,
        // to which all entries are applied that the replica has not applied: wait
        // until there are few.
        const isThrown = this.#runMax === 1;
        const after = pause ?? (isThrown ? Promise.all(appended) : undefined);
        return after === undefined
          ? this.#runs(upTo, commit)
          : after.then(() => this.#runs(upTo, commit));
      },
    );
  }

  /** Runs `work` in a turn of this server to append, on a state with everything that others have appended before. */
  #inTurn<T>(
    work: (turn: LogTurn | undefined) => MaybePromise<T>,
  ): MaybePromise<T> {
    const { order, untilApplied, nodeID = 0n } = this.#options;
    if (order === undefined) return work(undefined);
    return chain(order.enter(nodeID), (turn) => {
      const failed = (error: unknown): never => {
        turn.leave();
        throw error;
      };
      try {
        const done = chain(
          chain(untilApplied?.(turn.index), () => {
            if (this.#turn !== turn.index) this.#options.rehearsal!.outdate();
            this.#turn = turn.index;
            return work(turn);
          }),
          (result) => {
            turn.leave();
            return result;
          },
        );
        return isPromise(done) ? done.catch(failed) : done;
      } catch (error) {
        return failed(error);
      }
    });
  }

  #rehearsedRun(
    rehearsal: Rehearsal,
    first: number,
    commit: Commit,
    turn: LogTurn | undefined,
  ): MaybePromise<DecidedRun> {
    const failed = (error: unknown): never => {
      rehearsal.drop(this.#candidates);
      this.#pause = undefined;
      throw error;
    };
    const end = (admitted: Admitted): DecidedRun => {
      const pause = this.#pause;
      this.#pause = undefined;
      const appended = commit(admitted, turn);
      const count = admitted.parts.reduce((n, { ends }) => n + ends.length, 0);
      rehearsal.appended(this.#candidates, appended, count);
      return { admitted, appended, pause };
    };
    try {
      const ended = chain(this.#run(first), end);
      return isPromise(ended) ? ended.catch(failed) : ended;
    } catch (error) {
      return failed(error);
    }
  }

  #run(first: number): MaybePromise<Admitted> {
    this.#first = first;
    this.#replaced = new Map();
    this.#refusals = [];
    this.#refusedAt = [];
    this.#candidates = [];
    this.#positions = [];
    return this.#decideFrom(first);
  }

  /** Ends the run before a record whose hook failed. */
  #blockedBy(at: number, error: unknown): MaybePromise<Admitted> {
    if (!(error instanceof ErrHookFailed)) throw error;
    return this.#finish(at, error);
  }

  /** Decides the records of the run from position `i` on. */
  #decideFrom(i: number): MaybePromise<Admitted> {
    const { bytes, ends } = this.#records;
    const upTo = Math.min(ends.length, this.#first + this.#runMax);
    for (let start = i === 0 ? 0 : ends[i - 1]!; i < upTo; i++) {
      const end = ends[i]!;
      let decided: MaybePromise<void>;
      try {
        decided = this.#decide(i, bytes, start, end);
      } catch (error) {
        return this.#blockedBy(i, error);
      }
      if (isPromise(decided)) {
        return decided.then(
          () => this.#decideFrom(i + 1),
          (error) => this.#blockedBy(i, error),
        );
      }
      if (this.#pause !== undefined) return this.#finish(i);
      start = end;
    }
    return this.#finish(upTo);
  }

  /** Rehearses the accepted records of the run, which ends before position `upTo`, because of `error` if there is one. */
  #finish(upTo: number, error?: ErrHookFailed): MaybePromise<Admitted> {
    const { rehearsal, rehearses } = this.#options;
    if (
      rehearsal === undefined || !rehearses || this.#candidates.length === 0
    ) {
      return this.#decision(upTo, error);
    }
    const conclude = (): Admitted => this.#conclude(rehearsal, upTo, error);
    const failed = (cause: unknown): Admitted => {
      // Records that were not rehearsed are not accepted.
      const at = this.#candidates.findIndex(({ isDropped }) => isDropped);
      const end = at < 0 ? upTo : this.#positions[at]!;
      this.#candidates.length = Math.max(0, at);
      this.#pause = undefined;
      return this.#decision(end, new ErrHookFailed("rehearsal", cause));
    };
    let ran: MaybePromise<void>;
    try {
      ran = rehearsal.run();
    } catch (error) {
      return failed(error);
    }
    return isPromise(ran) ? ran.then(conclude, failed) : conclude();
  }

  /** Refuses the first command at which the machine threw, and ends the run after it: later records are decided again, without its effect. */
  #conclude(
    rehearsal: Rehearsal,
    upTo: number,
    error: ErrHookFailed | undefined,
  ): Admitted {
    const candidates = this.#candidates;
    const at = candidates.findIndex(({ thrown }) => thrown !== undefined);
    if (at < 0) {
      this.#runMax *= 2;
      return this.#decision(upTo, error);
    }
    const culprit = candidates[at]!;
    const { session, series, lag } = culprit;
    const position = this.#positions[at]!;
    rehearsal.drop(candidates.splice(at + 1));
    this.#refuseCommand(
      position,
      reasonOf(culprit.thrown!.error),
      session === 0 ? undefined : { session, series, lag },
    );
    const skip = this.#replaced.get(position);
    if (skip === undefined) candidates.pop();
    else culprit.replace(skip);
    this.#runMax = 1;
    this.#pause = undefined;
    this.#options.onThrown?.(culprit.thrown!.error);
    return this.#decision(position + 1);
  }

  /** Adds an accepted record to the candidates: later records are rehearsed on the state after it. */
  #add(
    i: number,
    cmd: Uint8Array | undefined,
    place: Place | undefined,
  ): void {
    const { rehearsal, rehearses = false } = this.#options;
    if (rehearsal === undefined) return;
    const changed = this.#replaced.get(i);
    const { bytes, ends } = this.#records;
    this.#candidates.push(
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
    this.#positions.push(i);
  }

  /** Decision about the run, which ends before position `upTo`; `error` is the reason why the record there cannot be decided. */
  #decision(upTo: number, error?: ErrHookFailed): Admitted {
    const refusals = this.#refusals.filter(({ at }) => at < upTo);
    const refused = this.#refusedAt.filter((at) => at < upTo).length;
    const blocked = error === undefined ? undefined : { at: upTo, error };
    const { ends } = this.#records;
    const isWhole = this.#first === 0 && upTo === ends.length;
    if (isWhole && this.#replaced.size === 0) {
      return { parts: [this.#records], refusals, refused, blocked, upTo };
    }
    const accepted: Uint8Array[] = [];
    for (let i = this.#first; i < upTo; i++) {
      const record = this.#replaced.has(i)
        ? this.#replaced.get(i)
        : recordAt(this.#records, i);
      if (record !== undefined) accepted.push(record);
    }
    const parts: Records[] = [];
    let packed = 0;
    while (packed < accepted.length) {
      const from = packed;
      let size = 0;
      while (
        packed < accepted.length &&
        (size += accepted[packed]!.length) <= BATCH_BYTES_MAX
      ) packed++;
      parts.push(packRecords(...accepted.slice(from, packed)));
    }
    return { parts, refusals, refused, blocked, upTo };
  }

  /** Refuses a record, which is left out of the log. */
  #refuse(at: number, reason: string): void {
    this.#replaced.set(at, undefined);
    this.#refusals.push({ at, reason: clipReason(reason || NO_REASON) });
    this.#refusedAt.push(at);
  }

  /** Decides one record. Sets `#pause` if that takes time where commands are rehearsed. */
  #decide(
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
          return this.#refuse(
            i,
            "Origin of this proposal belongs to another principal",
          );
        }
        return this.#decideCommand(
          i,
          bytes.subarray(cursor.start, end),
          undefined,
        );
      case RecordKind.SessionProposal:
      case RecordKind.Skip:
      case RecordKind.Unregister:
        return this.#decideSession(i, bytes, end);
      case RecordKind.Claim:
        cursor.claim();
        return this.#decideSession(i, bytes, end);
      case RecordKind.Register: {
        const { clientID } = cursor.registration();
        if (!this.#mayWrite) return this.#refuse(i, NOT_ALLOWED);
        const { owner } = this.#options;
        this.#replaced.set(i, registerRecord(clientID, owner));
        this.#add(i, undefined, { session: REGISTRATION, series: 0, lag: 0 });
        return;
      }
      default:
        throw new ErrProtocol(
          `Record of kind ${cursor.kind} is not one that clients write`,
        );
    }
  }

  #isOwnOrigin(): boolean {
    const { originLow, originHigh } = this.#cursor;
    if (originLow === this.#originLow && originHigh === this.#originHigh) {
      return true;
    }
    if (!this.#options.claimOrigin(`${originLow} ${originHigh}`)) return false;
    this.#originLow = originLow;
    this.#originHigh = originHigh;
    return true;
  }

  /** Decides a record of a session, which only the principal that opened it may use. */
  #decideSession(
    i: number,
    bytes: Uint8Array,
    end: number,
  ): MaybePromise<void> {
    const { session, kind, series, lag } = this.#cursor;
    const command = kind === RecordKind.SessionProposal
      ? bytes.subarray(this.#cursor.start, end)
      : undefined;
    const decide = (state: SessionState): MaybePromise<void> => {
      if (state === "future") {
        if (session !== this.#future.session) {
          const reason = `There is no session ${session} yet`;
          this.#future = { session, reason };
        }
        return this.#refuse(i, this.#future.reason);
      }
      // A record of an evicted session is accepted: it has no effect, and its client
      // finds out when it reads the log.
      if (
        state !== undefined &&
        !isSameOwner(state.owner, this.#options.owner)
      ) {
        return this.#refuse(
          i,
          `Session ${session} belongs to another principal`,
        );
      }
      if (
        state === undefined && !this.#mayWrite && session !== this.#ownSession
      ) {
        // Otherwise a principal without permission could fill the log.
        return this.#refuse(i, NOT_ALLOWED);
      }
      this.#ownSession = session;
      const place = { session, series, lag };
      if (command !== undefined) return this.#decideCommand(i, command, place);
      if (kind === RecordKind.Skip) this.#add(i, undefined, place);
      if (kind === RecordKind.Unregister) {
        this.#add(i, undefined, { session, series: 0, lag: 0 });
      }
    };
    if (session === this.#ownSession) return decide(undefined);
    const awaited = this.#awaited;
    this.#awaited = undefined;
    if (awaited?.session === session) return decide(awaited.state);
    const state = this.#options.sessionState(session);
    if (!isPromise(state)) return decide(state);
    if (this.#options.rehearsal === undefined) return state.then(decide);
    this.#pause = state.then((state) => {
      this.#awaited = { session, state };
    });
    // Handled here, since a run that ends earlier does not await it.
    this.#pause.catch(() => {});
  }

  /** Refuses a command; in a session, a record that skips its series takes its place. */
  #refuseCommand(i: number, reason: string, place: Place | undefined): void {
    if (place === undefined) return this.#refuse(i, reason);
    // Later series of the session can be applied, and its client finds the reason in
    // the log even if the reply is lost.
    const { session, series, lag } = place;
    const clipped = clipReason(reason || NO_REASON);
    this.#replaced.set(i, skipRecord(session, series, lag, clipped));
    this.#refusedAt.push(i);
  }

  #decideCommand(
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
    const refusal = this.#admitted(cmd);
    if (refusal !== undefined) return decide(refusal);
    if (validate === undefined) return decide(undefined);
    const { rehearsal } = this.#options;
    if (rehearsal === undefined) {
      const reason = validate(cmd, NO_CONTEXT);
      return isPromise(reason) ? reason.then(decide) : decide(reason);
    }
    const validation = this.#validation;
    this.#validation = undefined;
    if (validation?.at === i) {
      if (validation.isCurrent(rehearsal)) return decide(validation.reason);
      this.#outdated++;
    } else this.#outdated = 0;
    return this.#validate(i, cmd, rehearsal, decide);
  }

  /** Asks the state machine about a command by its bytes. */
  #admitted(cmd: Uint8Array): string | undefined {
    try {
      return this.#options.admit?.(cmd);
    } catch (error) {
      throw new ErrHookFailed("admit", error);
    }
  }

  /** Calls `validate`, which may look up the state that the command will meet. */
  #validate(
    i: number,
    cmd: Uint8Array,
    rehearsal: Rehearsal,
    decide: (reason: string | undefined) => void,
  ): MaybePromise<void> {
    const validation = new Validation(i);
    const reason = validation.run(() =>
      this.#options.validate!(cmd, {
        lookup: (query) => validation.lookup(rehearsal, query),
      })
    );
    if (!isPromise(reason)) return decide(reason);
    // Other appends keep changing the state that it looks up, so they wait this time.
    if (this.#outdated >= REHEARSAL_ASKS_MAX) return reason.then(decide);
    this.#pause = reason.then(
      (reason) => {
        validation.reason = reason;
        this.#validation = validation;
      },
      (error) => {
        validation.error = error;
        this.#validation = validation;
      },
    );
  }
}

/** Decided run of records of an append. */
interface DecidedRun {
  readonly admitted: Admitted;
  /** Index in the log of each part. */
  readonly appended: readonly MaybePromise<number>[];
  /** Settles once the record that ended the run can be decided. */
  readonly pause: Promise<void> | undefined;
}

/** Call of `validate` for one record, with the version of the state that it looked up. */
class Validation {
  /** Position of the record in its append. */
  readonly at: number;
  /** Reason to refuse the command, once the hook has returned. */
  reason: string | undefined;
  /** Error of the hook. */
  error: unknown;
  /** Version of the state at the first lookup. */
  #version: number | undefined;
  #isOver = false;

  /** Creates a call for the record at position `at`. */
  constructor(at: number) {
    this.at = at;
  }

  /** Runs the hook. Lookups after its result fail. */
  run<T>(hook: () => MaybePromise<T>): MaybePromise<T> {
    const end = (): void => {
      this.#isOver = true;
    };
    try {
      const result = hook();
      if (isPromise(result)) result.then(end, end);
      else end();
      return result;
    } catch (error) {
      end();
      throw error;
    }
  }

  /** Answers a query from the state that the command will meet. */
  lookup(rehearsal: Rehearsal, query: unknown): MaybePromise<unknown> {
    if (this.#isOver) {
      throw new Error("lookup() was called after validate() had answered");
    }
    this.#version ??= rehearsal.version;
    return rehearsal.lookup(query);
  }

  /** True if the state that it looked up has not changed; throws the error of the hook. */
  isCurrent({ version }: Rehearsal): boolean {
    if (this.error !== undefined) throw this.error;
    return this.#version === undefined || this.#version === version;
  }
}

/** Context without `lookup`, for state machines without forks. */
const NO_CONTEXT: ValidateContext = {};

function blockedAt(at: number, error: unknown): Blocked {
  if (!(error instanceof ErrHookFailed)) throw error;
  return { at, error };
}

const NOT_ALLOWED = "You may not write to this cluster";

/** Reason in place of an empty one, which in a skip record means that the client itself has skipped the series. */
const NO_REASON = "It is not allowed";

/** True if two owners are equal. */
export function isSameOwner(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
