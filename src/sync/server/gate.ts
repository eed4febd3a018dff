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
  SESSION_OWNER_BYTES_MAX,
} from "../../limits.ts";
import { clipText, encodeText } from "../../bytes.ts";
import type { Refusal } from "../../log/errors.ts";
import type { Records } from "../../log/log.ts";
import { packRecords, recordAt, RecordKind } from "../../log/records.ts";
import { isPromise } from "../../promises.ts";
import type { SessionStanding } from "../../rsm/driver.ts";
import { RecordCursor, registerRecord, skipRecord } from "../../rsm/record.ts";
import type { MaybePromise } from "../../statemachine/types.ts";
import { ErrHookFailed, ErrProtocol } from "../errors.ts";

/** What of an append goes into the log. */
export interface Verdict {
  /** The records that do, some of them put right: mostly one batch, none if there is nothing, two if what was put right made them too many bytes for one. */
  readonly parts: readonly Records[];
  /** Those that do not, and why. */
  readonly refusals: readonly Refusal[];
  /** How many were refused: with those of a session, which go in as a skip that says why. */
  readonly refused: number;
  /** The first that could not be judged, and why: nothing is said of it, nor of those behind it. */
  readonly held:
    | { readonly at: number; readonly error: ErrHookFailed }
    | undefined;
}

/** What a gate asks of the cluster behind it, and of whoever runs the server. */
export interface GateOptions {
  /** Who opened what is theirs, as the log has it. */
  readonly owner: Uint8Array;
  /** The largest command, in bytes. */
  readonly commandBytes: number;
  /** What the server's replica knows of a session, once it has applied all up to it. */
  readonly standing: (
    session: number,
  ) => MaybePromise<SessionStanding | "unborn" | undefined>;
  /** Whether proposals that carry that number are the principal's. */
  readonly owns: (origin: string) => boolean;
  /** Whether the principal may write; an `ErrHookFailed` if nobody knows. */
  readonly mayWrite: (() => MaybePromise<boolean>) | undefined;
  /** Why a command is refused, if it is; an `ErrHookFailed` if nobody knows. */
  readonly validate:
    | ((cmd: Uint8Array) => MaybePromise<string | undefined>)
    | undefined;
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
 * Checks that each part of an append is a record: bytes that are none would stop
 * every replica. Looking only at the shape costs little, so it is done before
 * anything else, and no client that works well fails it.
 *
 * @throws ErrProtocol if one is not a record
 */
export function checkShape({ bytes, ends }: Records): void {
  let start = 0;
  for (let i = 0; i < ends.length; i++) {
    const end = ends[i]!;
    try {
      shapes.read(bytes, start, end);
      switch (shapes.kind) {
        case RecordKind.Epoch:
          shapes.epoch();
          break;
        case RecordKind.Config:
          shapes.sessionsMax();
          break;
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
export class Gate {
  readonly #options: GateOptions;
  readonly #cursor = new RecordCursor();
  #records: Records = { bytes: new Uint8Array(), ends: [] };
  /** Which of them is to be judged first. */
  #first = 0;
  #mayWrite = true;
  /** What is put in place of a record; undefined for nothing. */
  #changed = new Map<number, Uint8Array | undefined>();
  #refusals: Refusal[] = [];
  #refused = 0;
  /** The number that was found to be the principal's last. */
  #low = -1;
  #high = -1;
  /** The session that was found to be the principal's last. */
  #mine = -1;

  /** A gate that knows nothing yet. */
  constructor(options: GateOptions) {
    this.#options = options;
  }

  /** What of these records, from the one at place `first` on, goes into the log. Not called again before it has settled. */
  judge(records: Records, first = 0): MaybePromise<Verdict> {
    this.#records = records;
    this.#first = first;
    this.#changed = new Map();
    this.#refusals = [];
    this.#refused = 0;
    this.#mine = -1;
    const { mayWrite } = this.#options;
    let may: MaybePromise<boolean>;
    try {
      may = mayWrite === undefined || mayWrite();
    } catch (error) {
      return this.#held(first, error);
    }
    const begin = (may: boolean): MaybePromise<Verdict> => {
      this.#mayWrite = may;
      return this.#from(first);
    };
    if (!isPromise(may)) return begin(may);
    return may.then(begin, (error) => this.#held(first, error));
  }

  /** Nothing is said of the record at place `at`, nor of those behind it. */
  #held(at: number, error: unknown): Verdict {
    if (!(error instanceof ErrHookFailed)) throw error;
    return this.#verdict(at, error);
  }

  #from(i: number): MaybePromise<Verdict> {
    const { bytes, ends } = this.#records;
    for (let start = i === 0 ? 0 : ends[i - 1]!; i < ends.length; i++) {
      const end = ends[i]!;
      let looked: MaybePromise<void>;
      try {
        looked = this.#look(i, bytes, start, end);
      } catch (error) {
        return this.#held(i, error);
      }
      if (isPromise(looked)) {
        return looked.then(
          () => this.#from(i + 1),
          (error) => this.#held(i, error),
        );
      }
      start = end;
    }
    return this.#verdict(ends.length);
  }

  /** What is said of the records up to, and without, the one at place `upTo`; `error` is why it is not judged. */
  #verdict(upTo: number, error?: ErrHookFailed): Verdict {
    const refusals = this.#refusals;
    const refused = this.#refused;
    const held = error === undefined ? undefined : { at: upTo, error };
    const { ends } = this.#records;
    const isWhole = this.#first === 0 && upTo === ends.length;
    if (isWhole && this.#changed.size === 0) {
      return { parts: [this.#records], refusals, refused, held };
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
    return { parts, refusals, refused, held };
  }

  #refuse(at: number, reason: string): void {
    this.#changed.set(at, undefined);
    this.#refusals.push({ at, reason: clipReason(reason) });
    this.#refused++;
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
        return this.#lookAtCommand(i, bytes.subarray(cursor.start, end));
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
        return;
      }
      default:
        return this.#refuse(i, "Only the server writes such a record");
    }
  }

  #isOwnOrigin(): boolean {
    const { originLow, originHigh } = this.#cursor;
    if (originLow === this.#low && originHigh === this.#high) return true;
    if (!this.#options.owns(`${originLow} ${originHigh}`)) return false;
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
    const { session, kind, series, lag, start } = this.#cursor;
    const command = kind === RecordKind.SessionProposal
      ? bytes.subarray(start, end)
      : undefined;
    const judge = (
      standing: SessionStanding | "unborn" | undefined,
    ): MaybePromise<void> => {
      if (standing === "unborn") {
        return this.#refuse(i, `There is no session ${session} yet`);
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
      if (command === undefined) return;
      return this.#lookAtCommand(i, command, { session, series, lag });
    };
    if (session === this.#mine) return judge(undefined);
    const standing = this.#options.standing(session);
    return isPromise(standing) ? standing.then(judge) : judge(standing);
  }

  #lookAtCommand(
    i: number,
    cmd: Uint8Array,
    place?: { session: number; series: number; lag: number },
  ): MaybePromise<void> {
    const { commandBytes, validate } = this.#options;
    const decide = (reason: string | undefined): void => {
      if (reason === undefined) return;
      if (place === undefined) return this.#refuse(i, reason);
      // Its series must go on without it, and its client must hear of it
      // whatever is lost on the way: the log says so (H14).
      const { session, series, lag } = place;
      const words = clipReason(reason || NO_REASON);
      const skip = skipRecord(session, series, lag, words);
      this.#changed.set(i, skip);
      this.#refused++;
    };
    if (!this.#mayWrite) return decide(NOT_ALLOWED);
    if (cmd.length > commandBytes) {
      return decide(
        `Command of ${cmd.length} bytes is over the limit of ${commandBytes}`,
      );
    }
    if (validate === undefined) return;
    const reason = validate(cmd);
    return isPromise(reason) ? reason.then(decide) : decide(reason);
  }
}

const NOT_ALLOWED = "You may not write to this cluster";

/** What is said of a command that the application refuses without a word: none would mean that its own client has skipped it. */
const NO_REASON = "It is not allowed";

/** Whether two are the same owner. */
export function isSameOwner(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
