/**
 * Drives one machine by the rules: what is committed goes through the session
 * table into `update()`, under the guard, in bounded batches, each entry once.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ByteReader, ByteWriter, encodeShown } from "../bytes.ts";
import { UPDATE_BYTES_MAX, UPDATE_ENTRIES_MAX } from "../limits.ts";
import { ErrDiverged, ErrLogCorrupted } from "../log/errors.ts";
import type { Checkpoint, EpochMark, LogBatch } from "../log/log.ts";
import { RecordKind } from "../log/records.ts";
import {
  type Entry,
  type MaybePromise,
  RegularStateMachine,
  type Result,
} from "../statemachine/types.ts";
import { ErrStoreFull } from "../store/errors.ts";
import { ErrSystemBusy, MachineFailure } from "./errors.ts";
import { isPromise, settleable } from "../promises.ts";
import { Guard, Op } from "./guard.ts";
import { ErrNotImplemented } from "../statemachine/errors.ts";
import type { StateHash } from "../snapshot/store.ts";
import type { HostRow, HostState } from "./host_state.ts";
import { type MachineFactory, manage, type ManagedMachine } from "./managed.ts";
import { RecordCursor } from "./record.ts";
import {
  decodeSkip,
  decodeSkips,
  encodeSkip,
  encodeSkips,
  ErrSkippedApplied,
  type SkippedEntry,
  Skips,
} from "./skips.ts";
import {
  digest,
  type SessionEntry,
  SessionTable,
  SKIPPED,
  type Slot,
} from "./sessions.ts";

/** What became of a proposal of a session that somebody here waits for. */
export type Outcome =
  | "applied"
  | "skipped"
  | "lost"
  | "acknowledged"
  | "gap"
  | "conflict"
  | "unknown";

/** What became of a claim to a session. */
export type ClaimOutcome = "claimed" | "conflict" | "unknown";

/** What became of a series. */
export interface Decided {
  /** What became of it. */
  readonly outcome: Outcome;
  /** Its result, or why it was skipped, if that is kept. */
  readonly result: Result | undefined;
  /** Digest of the command that took its place, if that is known. */
  readonly digest: number | undefined;
}

/** The entries of which one made `update()` throw. */
export interface FailedEntries {
  /** Index of the first. */
  readonly index: number;
  /** Index of the last: the same where the entry is known. */
  readonly upTo: number;
}

/** What the replicated state knows of a session. */
export interface SessionStanding {
  /** What it was opened with. */
  readonly clientID: bigint;
  /** Who may use it. */
  readonly holder: bigint;
  /** Who opened it. A view. */
  readonly owner: Uint8Array;
  /** The series that comes next: all before it are decided. */
  readonly next: number;
  /** The last series its client has acknowledged, with all before it. */
  readonly responded: number;
}

/** Who hears what was applied; `L` is how it names a session of its own. */
export interface ApplyListener<L> {
  /** The two halves of the number that its proposals outside of any session carry. */
  readonly originLow: number;
  readonly originHigh: number;
  /** Its own sessions by their index. */
  readonly locals: ReadonlyMap<number, L>;
  /** A proposal of its own, outside of any session, was applied. */
  proposalApplied(sequence: number, result: Result): void;
  /** A proposal of its own, outside of any session, is skipped by an operator's decision. */
  proposalSkipped(sequence: number, reason: string): void;
  /** A session was opened; `owner` is a view. */
  registered(clientID: bigint, session: number, owner: Uint8Array): void;
  /** A session was closed, whose next series was `next`; or it was not there to be closed, and that is 0. */
  unregistered(session: number, next: number): void;
  /** A session was taken over, or was not: because somebody else holds it, or it is not there. */
  claimed(session: number, holder: bigint, outcome: ClaimOutcome): void;
  /** Something is known of a series of a session of its own; of one that was skipped, the result's data say why. `digest` is that of the command that took its place, whoever sent it. */
  answered(
    local: L,
    series: number,
    outcome: Outcome,
    result: Result | undefined,
    digest: number | undefined,
  ): void;
  /** All up to `index` is applied. */
  applied(index: number): void;
  /** A checkpoint was reached. */
  checkpoint(checkpoint: Omit<Checkpoint, "nodeID">): void;
  /** A checkpoint was reached, and the machine's hash could not be had. */
  checkpointFailed(error: unknown): void;
}

/** What a driver needs to know besides its machine. */
export interface DriverOptions {
  /** Distance of the checkpoints at which hashes are taken, in indexes; 0 for none. */
  readonly hashEntries: number;
  /** Up to here no hash is taken. @default {0} */
  readonly hashAfter?: number;
  /** Entries to be skipped, also those whose decision comes later in the log than the state. */
  readonly skips?: readonly SkippedEntry[];
  /**
   * Waits until a machine on disk that found no room may be asked again; rejects
   * if it will not be.
   *
   * @default {it failed}
   */
  readonly room?: (error: ErrStoreFull) => Promise<void>;
}

/** A listener for a driver that nobody waits at; `heard` is told of its checkpoints. */
export function silentListener<L>(
  heard: Pick<ApplyListener<L>, "checkpoint" | "checkpointFailed"> = {
    checkpoint: () => {},
    checkpointFailed: () => {},
  },
): ApplyListener<L> {
  const nothing = (): void => {};
  return {
    // No record carries such a number.
    originLow: -1,
    originHigh: -1,
    locals: new Map(),
    proposalApplied: nothing,
    proposalSkipped: nothing,
    registered: nothing,
    unregistered: nothing,
    claimed: nothing,
    answered: nothing,
    applied: nothing,
    ...heard,
  };
}

const META_ROW = "meta";
const SESSION_ROW = "s";
const SKIP_ROW = "x";

/** The sessions, index and epoch that go with a state. */
export interface Captured {
  /** The index of the last entry applied. */
  readonly index: number;
  /** The last epoch at or before it. */
  readonly mark: EpochMark | undefined;
  /** The session table, encoded, and the entries skipped in the state, if any. */
  readonly sessions: Uint8Array;
}

/** A result for a caller to keep: a machine may use one object for many. The data is the machine's to give away. */
function fresh({ value, data }: Result): Result {
  return data === undefined ? { value } : { value, data };
}

/** A result for a caller to keep, while the table keeps its own. */
function copyOf(result: Result | undefined): Result | undefined {
  if (result === undefined) return undefined;
  const { value, data } = result;
  return data === undefined ? { value } : { value, data: data.slice() };
}

/** What a slot says became of its series. */
function outcomeOf({ digest, result }: Slot): Outcome {
  if (digest === SKIPPED) return "skipped";
  return result === undefined ? "lost" : "applied";
}

/** One machine and all that is replicated with it. */
export class Driver<L> {
  /** The machine. */
  readonly machine: ManagedMachine;
  /** What keeps its calls apart. */
  readonly guard: Guard;
  readonly #listener: ApplyListener<L>;
  readonly #hashEntries: number;
  readonly #hashAfter: number;
  readonly #room: DriverOptions["room"];
  #table: SessionTable<L>;
  #applied = 0;
  /** The last epoch that was read … */
  #mark: EpochMark | undefined;
  /** … and the last one that is applied. */
  #appliedMark: EpochMark | undefined;
  /** Entries up to here are in the machine already (D3). */
  #opened = 0;
  /** Whether the machine was updated since it was last synced. */
  dirty = false;
  #updateFailed: FailedEntries | undefined;
  /** Entries that are skipped, in this state and after it. */
  #skips: Skips;
  /** The first of them that was not read. */
  #nextSkip = Infinity;
  /** Indexes of the skips whose rows the machine has. */
  readonly #skipRows = new Set<number>();

  // The batch being applied. Parallel arrays, because an object per entry costs
  // more than everything else the loop does with it.
  readonly #cursor = new RecordCursor();
  #read = 0;
  #entries: Entry[] = [];
  // Of the entries that somebody waits for or a session keeps the result of.
  #kept: Entry[] = [];
  #series: number[] = [];
  #sessions: (SessionEntry<L> | undefined)[] = [];
  #slots: (Slot | undefined)[] = [];
  #bytes = 0;
  #later: (() => void)[] = [];
  /** The host's rows for it, once they were asked for. */
  #host: HostState | undefined;
  #checkpointDue = false;
  #closed = false;

  /** A driver for a new machine. */
  constructor(
    factory: MachineFactory,
    clusterID: bigint,
    nodeID: bigint,
    listener: ApplyListener<L>,
    options: DriverOptions,
  ) {
    this.machine = manage(factory, clusterID, nodeID);
    this.guard = new Guard(factory.type);
    this.#listener = listener;
    this.#hashEntries = options.hashEntries;
    this.#hashAfter = options.hashAfter ?? 0;
    this.#room = options.room;
    this.#skips = new Skips(options.skips);
    this.#nextSkip = this.#skips.after(0);
    this.#table = this.#newTable();
  }

  #newTable(): SessionTable<L> {
    return new SessionTable({ track: this.machine.hostState !== undefined });
  }

  /** The index of the last entry applied. */
  get applied(): number {
    return this.#applied;
  }

  /** The last epoch at or before it. */
  get mark(): EpochMark | undefined {
    return this.#appliedMark;
  }

  /** Up to where the machine held entries when it was opened, or recovered. */
  get opened(): number {
    return this.#opened;
  }

  /** The entries at which `update()` threw, once it has. */
  get updateFailed(): FailedEntries | undefined {
    return this.#updateFailed;
  }

  /** Whether the machine was, or is being, closed. */
  get closed(): boolean {
    return this.#closed || this.guard.failed;
  }

  /** Whether the machine holds entries whose sessions are still being rebuilt: its state is not that of the applied index. */
  get behind(): boolean {
    return this.#applied < this.#opened;
  }

  /** Entries that are skipped in the state, in order. */
  get skips(): SkippedEntry[] {
    return this.#skips.list().filter(({ index }) => index <= this.#applied);
  }

  /** Entries that are skipped, as far as that was read or told, also those after the state. */
  get knownSkips(): SkippedEntry[] {
    return this.#skips.list();
  }

  /** Has an entry skipped that is not read yet, because its decision comes later in the log. */
  skip(skip: SkippedEntry): void {
    this.#skips.add(skip);
    this.#nextSkip = this.#skips.after(this.#read);
  }

  /** True while the state lacks an entry whose skipping is decided later in the log: it is not to be compared, nor saved. */
  get ahead(): boolean {
    return this.#skips.isAhead(this.#applied);
  }

  /** Whether the cluster has had its first record. */
  get begun(): boolean {
    return this.#table.begun;
  }

  /**
   * Opens an on-disk machine. What it holds counts as applied only as far as its
   * sessions are known: all of it if it keeps the host's rows, else nothing until
   * the sessions are brought up to it.
   *
   * @returns the index up to which the machine holds entries
   */
  async open(stopped: AbortSignal): Promise<number> {
    this.#opened = await this.machine.open(stopped);
    const rows = await this.machine.hostState?.readHostRows() ?? [];
    const meta = rows.find(({ key }) => key === META_ROW)?.value;
    if (meta === undefined) return this.#opened;
    try {
      return this.#restore(meta, rows);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      throw new ErrLogCorrupted(
        this.#opened,
        `host's rows are damaged: ${error.message}`,
        { cause: error },
      );
    }
  }

  #restore(meta: Uint8Array, rows: readonly HostRow[]): number {
    const reader = new ByteReader(meta);
    const index = reader.varint();
    if (index < this.#opened) {
      throw new ErrDiverged(
        `Machine opened at ${this.#opened}, beyond the host's rows at ${index}`,
      );
    }
    const epochIndex = reader.varint();
    if (epochIndex > 0) this.#mark = { index: epochIndex, epoch: reader.u64() };
    this.#appliedMark = this.#mark;
    this.#table.restore(
      rows.filter(({ key }) => key.startsWith(SESSION_ROW))
        .map(({ key, value }) => [Number(key.slice(1)), value!] as const),
    );
    for (const { key, value } of rows) {
      if (!key.startsWith(SKIP_ROW)) continue;
      const skipped = Number(key.slice(SKIP_ROW.length));
      this.#skips.add(decodeSkip(skipped, new ByteReader(value!)));
      this.#skipRows.add(skipped);
    }
    this.#applied = this.#read = this.#opened = index;
    this.#nextSkip = this.#skips.after(index);
    return index;
  }

  /** The session table in a capture; the entries skipped there are added to those known. */
  #decodeTable(table: SessionTable<L>, sessions: Uint8Array): void {
    const reader = new ByteReader(sessions);
    table.decodeFrom(reader);
    for (const skip of decodeSkips(reader)) this.#skips.add(skip);
  }

  /** Takes over sessions as of an index at or before what the machine holds. */
  loadSessions({ index, mark, sessions }: Captured): void {
    const table = this.#newTable();
    this.#decodeTable(table, sessions);
    this.#table = table;
    this.#applied = this.#read = index;
    this.#nextSkip = this.#skips.after(index);
    this.#mark = this.#appliedMark = mark;
  }

  /** Index, epoch and sessions as they are between two batches. */
  capture(): Captured {
    return {
      index: this.#applied,
      mark: this.#mark,
      sessions: encodeSkips(this.#table.encode(true), this.skips),
    };
  }

  /** The first session after index `after` that `clientID` opened, of that owner if one is given, and that is there still. */
  sessionOf(
    clientID: bigint,
    after: number,
    owner: Uint8Array | undefined,
  ): number | undefined {
    return this.#table.find(clientID, after, owner);
  }

  /** What is known of the session of that index, if there is one. */
  standing(session: number): SessionStanding | undefined {
    const entry = this.#table.get(session);
    if (entry === undefined) return undefined;
    const { clientID, holder, owner, next, responded } = entry;
    return { clientID, holder, owner, next, responded };
  }

  /** True if registrations may have a session evicted; `uses` is how many there are, and of other sessions that are used before. */
  mayEvict(session: number, uses: number): boolean {
    return this.#table.mayEvict(session, uses);
  }

  /** What became of a series of a session; undefined if it is not decided, or not kept any more. */
  outcomeOf(
    session: number,
    series: number,
  ): Decided | undefined {
    const entry = this.#table.get(session);
    if (entry === undefined || series >= entry.next) return undefined;
    if (series <= entry.responded) {
      return { outcome: "acknowledged", result: undefined, digest: undefined };
    }
    const slot = entry.slots[entry.head + series - entry.responded - 1]!;
    const { digest, result } = slot;
    return { outcome: outcomeOf(slot), result: copyOf(result), digest };
  }

  /** Stops telling of a session that was its own. */
  detach(session: number): void {
    const entry = this.#table.get(session);
    if (entry !== undefined) entry.local = undefined;
  }

  /** Applies batches that follow what was applied; synchronous if the machine is. Not called again before it has settled. */
  apply(batches: readonly LogBatch[]): MaybePromise<void> {
    return this.guard.run(Op.Update, () => this.#applyFrom(batches, 0, 0));
  }

  #applyFrom(
    batches: readonly LogBatch[],
    b: number,
    i: number,
  ): MaybePromise<void> {
    for (; b < batches.length; b++, i = 0) {
      const { first, records: { bytes, ends } } = batches[b]!;
      if (i === 0) this.#checkBatch(batches[b]!);
      for (let start = i === 0 ? 0 : ends[i - 1]!; i < ends.length; i++) {
        const end = ends[i]!;
        this.#decode(first + i, bytes, start, end);
        start = end;
        if (
          this.#entries.length < UPDATE_ENTRIES_MAX &&
          this.#bytes < UPDATE_BYTES_MAX && !this.#checkpointDue
        ) continue;
        const flushed = this.#flush();
        if (isPromise(flushed)) {
          const next = i + 1;
          return flushed.then(() =>
            next < ends.length
              ? this.#applyFrom(batches, b, next)
              : this.#applyFrom(batches, b + 1, 0)
          );
        }
      }
    }
    return this.#flush();
  }

  #checkBatch({ follows, first, records: { bytes, ends } }: LogBatch): void {
    if (ends.at(-1) !== bytes.length) {
      throw new ErrLogCorrupted(first, "records of the batch do not fill it");
    }
    if (follows !== this.#read || !(first > follows)) {
      throw new ErrLogCorrupted(
        first,
        `batch follows ${follows}, but the last one read ended at ${this.#read}`,
      );
    }
  }

  #decode(index: number, bytes: Uint8Array, start: number, end: number): void {
    const cursor = this.#cursor;
    try {
      cursor.read(bytes, start, end);
      if (index >= this.#nextSkip && this.#skipEntry(index)) {
        // Nothing of it gets to the machine.
      } else if (cursor.kind === RecordKind.Proposal) {
        if (!this.#table.begun) this.#table.begin();
        const entry = this.#give(index, bytes, end);
        if (
          cursor.originLow === this.#listener.originLow &&
          cursor.originHigh === this.#listener.originHigh &&
          entry !== undefined
        ) this.#keep(entry, cursor.series, undefined, undefined);
      } else if (cursor.kind === RecordKind.SessionProposal) {
        this.#decodeSession(index, bytes, end);
      } else this.#decodeControl(index);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      throw new ErrLogCorrupted(index, error.message, { cause: error });
    }
    if (this.#hashEntries > 0 && index > this.#hashAfter) {
      this.#checkpointDue = Math.floor(index / this.#hashEntries) >
        Math.floor(this.#read / this.#hashEntries);
    }
    this.#read = index;
  }

  /** Puts a command among the entries for the machine, unless it holds it already. */
  #give(index: number, bytes: Uint8Array, end: number): Entry | undefined {
    if (index <= this.#opened) return undefined;
    const { start } = this.#cursor;
    const cmd = new Uint8Array(
      bytes.buffer as ArrayBuffer,
      bytes.byteOffset + start,
      end - start,
    );
    const entry: Entry = { index, cmd, result: undefined };
    this.#entries.push(entry);
    this.#bytes += end - start;
    return entry;
  }

  #keep(
    entry: Entry,
    series: number,
    session: SessionEntry<L> | undefined,
    slot: Slot | undefined,
  ): void {
    this.#kept.push(entry);
    this.#series.push(series);
    this.#sessions.push(session);
    this.#slots.push(slot);
  }

  #decodeSession(index: number, bytes: Uint8Array, end: number): void {
    const { start, series } = this.#cursor;
    const session = this.#judge(digest(bytes, start, end));
    if (session === undefined) return;
    const slot = this.#table.slot!;
    const entry = this.#give(index, bytes, end);
    if (entry !== undefined) this.#keep(entry, series, session, slot);
    else this.#answerLater(session.local, series, "lost", slot);
  }

  /** Puts the proposal before the session table; the session if the proposal is to be applied now. */
  #judge(digest: number): SessionEntry<L> | undefined {
    const { session: index, series, lag } = this.#cursor;
    const table = this.#table;
    if (!table.begun) table.begin();
    const session = table.get(index);
    if (session === undefined) {
      this.#answerLater(this.#listener.locals.get(index), series, "unknown");
      return undefined;
    }
    const { locals } = this.#listener;
    if (locals.size > 0) session.local ??= locals.get(index);
    const verdict = table.judge(session, series, lag, digest);
    if (verdict === "apply") return session;
    if (verdict === "gap" && series - lag > session.next) {
      // What its client calls answered was never applied here: the client has
      // another history, and a gap that nobody will ever fill.
      this.#answerLater(session.local, series, "conflict");
    } else if (verdict !== "duplicate") {
      this.#answerLater(session.local, series, verdict);
    } else this.#answerLater(session.local, series, "lost", table.slot);
    return undefined;
  }

  /** Tells of a series once the batch is applied; what a slot says then goes before `outcome`. */
  #answerLater(
    local: L | undefined,
    series: number,
    outcome: Outcome,
    slot?: Slot,
  ): void {
    if (local === undefined) return;
    this.#later.push(() => {
      const known = slot === undefined ? outcome : outcomeOf(slot);
      const result = copyOf(slot?.result);
      this.#listener.answered(local, series, known, result, slot?.digest);
    });
  }

  #decodeControl(index: number): void {
    const cursor = this.#cursor;
    const table = this.#table;
    if (cursor.kind === RecordKind.Epoch) {
      this.#mark = { index, epoch: cursor.epoch() };
      return;
    }
    if (cursor.kind === RecordKind.Config) {
      const max = cursor.sessionsMax();
      // Whoever came later has to live with it (H4).
      if (!table.begun) table.begin(max);
      return;
    }
    if (cursor.kind === RecordKind.Skip) {
      return this.#skipSeries(cursor.reason());
    }
    if (cursor.kind === RecordKind.SkipEntry) {
      const reason = new TextDecoder().decode(cursor.reason());
      return this.#decideSkip(cursor.target, index, reason);
    }
    if (!table.begun) table.begin();
    if (cursor.kind === RecordKind.Register) {
      const { clientID, owner } = cursor.registration();
      const session = table.register(index, clientID, owner);
      this.#later.push(() =>
        this.#listener.registered(clientID, session.index, session.owner)
      );
    } else if (cursor.kind === RecordKind.Claim) {
      const { session } = cursor;
      const { from, holder } = cursor.claim();
      const entry = table.get(session);
      const outcome = entry === undefined
        ? "unknown"
        : table.claim(entry, from, holder)
        ? "claimed"
        : "conflict";
      this.#later.push(() => this.#listener.claimed(session, holder, outcome));
    } else {
      const session = table.get(cursor.session);
      if (session !== undefined) table.remove(session);
      const closed = cursor.session;
      const next = session?.next ?? 0;
      this.#later.push(() => this.#listener.unregistered(closed, next));
    }
  }

  /** Skips the series that the record at hand names; `reason` is empty unless it is refused. */
  #skipSeries(reason: Uint8Array): void {
    const { series } = this.#cursor;
    const session = this.#judge(SKIPPED);
    if (session === undefined) return;
    const slot = this.#table.slot!;
    if (reason.length > 0) {
      this.#table.fill(session, series, slot, { value: 0n, data: reason });
    }
    this.#answerLater(session.local, series, "skipped", slot);
  }

  /** Skips the record at hand, if it is one that an operator has had skipped. */
  #skipEntry(index: number): boolean {
    this.#nextSkip = this.#skips.after(index);
    const skip = this.#skips.get(index);
    const { kind } = this.#cursor;
    if (skip === undefined) return false;
    const { reason } = skip;
    if (kind === RecordKind.SessionProposal) {
      this.#skipSeries(encodeShown(reason));
      return true;
    }
    // Whatever else it may be is part of the sessions, and is not skipped.
    if (kind !== RecordKind.Proposal) return false;
    if (!this.#table.begun) this.#table.begin();
    const { series, originLow, originHigh } = this.#cursor;
    if (
      originLow === this.#listener.originLow &&
      originHigh === this.#listener.originHigh
    ) this.#later.push(() => this.#listener.proposalSkipped(series, reason));
    return true;
  }

  /**
   * Notes that an entry before this record is skipped. If the machine has it
   * already, the state has to be recovered without it.
   */
  #decideSkip(index: number, decidedAt: number, reason: string): void {
    if (
      index >= decidedAt || index === 0 || this.#skips.get(index) !== undefined
    ) return;
    const skip = { index, decidedAt, reason };
    const at = this.#entries.findIndex((entry) => entry.index === index);
    if (at >= 0) this.#withdraw(at, reason);
    else if (index <= this.#applied || index <= this.#opened) {
      throw new ErrSkippedApplied(skip);
    }
    this.#skips.add(skip);
  }

  /** Takes an entry out again that the machine was not given yet. */
  #withdraw(at: number, reason: string): void {
    const [entry] = this.#entries.splice(at, 1);
    this.#bytes -= entry!.cmd.length;
    const kept = this.#kept.indexOf(entry!);
    if (kept < 0) return;
    this.#kept.splice(kept, 1);
    const [series] = this.#series.splice(kept, 1) as [number];
    const [session] = this.#sessions.splice(kept, 1);
    const [slot] = this.#slots.splice(kept, 1);
    if (session === undefined) {
      this.#later.push(() => this.#listener.proposalSkipped(series, reason));
      return;
    }
    slot!.digest = SKIPPED;
    const data = encodeShown(reason);
    this.#table.fill(session, series, slot!, { value: 0n, data });
    this.#answerLater(session.local, series, "skipped", slot);
  }

  /** Gives the machine what was gathered, then tells those who wait. */
  #flush(): MaybePromise<void> {
    const { hostState } = this.machine;
    if (this.#read === this.#applied) return;
    // A machine that is ahead of its sessions is not to be set back to them.
    const nothing = hostState === undefined || this.#read < this.#opened;
    if (this.#entries.length === 0 && nothing) return this.#settle();
    this.dirty = true;
    return this.#update();
  }

  #update(): MaybePromise<void> {
    let updated: MaybePromise<void>;
    try {
      updated = this.machine.update(this.#entries, this.#hostState);
    } catch (error) {
      return this.#updateAgain(error);
    }
    return isPromise(updated)
      ? updated.then(() => this.#settle(), (error) => this.#updateAgain(error))
      : this.#settle();
  }

  /** Nothing was applied, and will be when there is room; what else a machine throws is its end (R5). */
  #updateAgain(error: unknown): Promise<void> {
    const room = this.#room;
    if (!(error instanceof ErrStoreFull) || room === undefined) {
      this.#updateFailed = this.#failedEntries();
      // It may have applied some of them: nothing may be read from it, nor saved.
      this.guard.fail(new ErrSystemBusy("Replica is recovering"));
      throw error;
    }
    return room(error).then(() => this.#update());
  }

  /** The entry that `update()` threw at, as exactly as the kind of machine tells. */
  #failedEntries(): FailedEntries {
    const entries = this.#entries;
    // A regular machine gets them one by one; what another one has done to a
    // batch before it threw says nothing.
    const thrown = this.machine.type === RegularStateMachine
      ? entries.find(({ result }) => result === undefined)
      : undefined;
    if (thrown !== undefined) {
      return { index: thrown.index, upTo: thrown.index };
    }
    return {
      index: entries[0]?.index ?? this.#read,
      upTo: entries.at(-1)?.index ?? this.#read,
    };
  }

  /**
   * The host's rows for the batch at hand; its results are known by then. The
   * same ones if it is given again: the table tells once what has changed.
   */
  readonly #hostState = (): HostState => {
    if (this.#host === undefined) {
      this.#fill();
      this.#host = this.#rows(this.#read);
    }
    return this.#host;
  };

  #rows(index: number): HostState {
    if (this.machine.hostState === undefined) return { index, rows: [] };
    const meta = new ByteWriter(32).varint(index);
    meta.varint(this.#mark?.index ?? 0);
    if (this.#mark !== undefined) meta.u64(this.#mark.epoch);
    const rows: HostRow[] = [{ key: META_ROW, value: meta.finish() }];
    this.#table.takeChanges(index, (session, value) => {
      rows.push({ key: SESSION_ROW + session, value });
    });
    for (const skip of this.#skips.list()) {
      if (skip.index > index || this.#skipRows.has(skip.index)) continue;
      this.#skipRows.add(skip.index);
      rows.push({ key: SKIP_ROW + skip.index, value: encodeSkip(skip) });
    }
    return { index, rows };
  }

  /** Puts the results into the session table. */
  #fill(): void {
    for (let i = 0; i < this.#kept.length; i++) {
      const session = this.#sessions[i];
      if (session === undefined) continue;
      const result = this.#kept[i]!.result!;
      this.#table.fill(session, this.#series[i]!, this.#slots[i]!, result);
    }
  }

  #settle(): MaybePromise<void> {
    const kept = this.#kept;
    const series = this.#series;
    const sessions = this.#sessions;
    const slots = this.#slots;
    const later = this.#later;
    if (this.machine.hostState === undefined) this.#fill();
    this.#entries = [];
    if (kept.length > 0) {
      this.#kept = [];
      this.#series = [];
      this.#sessions = [];
      this.#slots = [];
    }
    this.#later = [];
    this.#host = undefined;
    this.#bytes = 0;
    this.#applied = this.#read;
    this.#appliedMark = this.#mark;
    const listener = this.#listener;
    for (let i = 0; i < kept.length; i++) {
      const session = sessions[i];
      const { result } = kept[i]!;
      if (session === undefined) {
        listener.proposalApplied(series[i]!, fresh(result!));
      } else if (session.local !== undefined) {
        listener.answered(
          session.local,
          series[i]!,
          "applied",
          fresh(result!),
          slots[i]!.digest,
        );
      }
    }
    for (const tell of later) tell();
    listener.applied(this.#applied);
    if (this.#checkpointDue) return this.#checkpoint();
  }

  /** Takes the hashes where all replicas take them (H12); `update()` is excluded here. */
  #checkpoint(): MaybePromise<void> {
    this.#checkpointDue = false;
    const index = this.#applied;
    // The machine is ahead of its sessions: its hash is that of a later index.
    if (index < this.#opened || this.ahead) return;
    const report = (state: bigint | undefined): void =>
      this.#listener.checkpoint({
        index,
        state,
        sessions: this.sessionsHash(),
        ...(this.machine.stateVersion === 0
          ? {}
          : { stateVersion: this.machine.stateVersion }),
      });
    // Nobody asked for it: a hash that cannot be had ends nothing (R5).
    const failed = (error: unknown): void =>
      this.#listener.checkpointFailed(error);
    if (!this.machine.hasHash) return report(undefined);
    let state: MaybePromise<bigint>;
    try {
      state = this.machine.getHash();
    } catch (error) {
      return failed(error);
    }
    return isPromise(state) ? state.then(report, failed) : report(state);
  }

  /** Hash of the machine's state for a snapshot, undefined if it has none or gives none; not to be called while the machine may be updated. */
  stateHash(): MaybePromise<StateHash | undefined> {
    if (!this.machine.hasHash) return undefined;
    const version = this.machine.stateVersion;
    const failed = (error: unknown): undefined => {
      // No caller asked for the hash itself.
      if (!(error instanceof ErrNotImplemented)) {
        this.#listener.checkpointFailed(error);
      }
      return undefined;
    };
    try {
      const hash = this.machine.getHash();
      return isPromise(hash)
        ? hash.then((hash) => ({ hash, version }), failed)
        : { hash, version };
    } catch (error) {
      return failed(error);
    }
  }

  /** A hash of the session table, results left out (H4). */
  sessionsHash(): bigint {
    const bytes = this.#table.encode(false);
    return BigInt(digest(bytes, 0, bytes.length));
  }

  /** Answers from the state as it is. */
  lookup(query: unknown): MaybePromise<unknown> {
    return this.guard.run(Op.Lookup, () => this.machine.lookup(query));
  }

  /** Answers from the state as it is, from bytes to bytes. */
  naLookup(query: Uint8Array): MaybePromise<Uint8Array> {
    return this.guard.run(Op.NALookup, () => this.machine.naLookup(query));
  }

  /** The machine's hash and the index it was taken at. */
  getHash(): MaybePromise<{ index: number; hash: bigint }> {
    return this.guard.run(Op.Hash, () => {
      const index = this.#applied;
      const hash = this.machine.getHash();
      return isPromise(hash)
        ? hash.then((hash) => ({ index, hash }))
        : { index, hash };
    });
  }

  /**
   * Same as `sync()`, for a caller that excludes every other call already.
   *
   * @throws MachineFailure if the machine failed; after an `ErrStoreFull` the call can be made again (U8)
   */
  syncNow(): MaybePromise<void> {
    const failed = (cause: unknown): never => {
      if (cause instanceof ErrStoreFull) throw cause;
      throw new MachineFailure("Machine failed to sync", { cause });
    };
    try {
      const synced = settleable(this.machine.sync());
      return isPromise(synced) ? synced.catch(failed) : synced;
    } catch (error) {
      return failed(error);
    }
  }

  /**
   * Makes what was applied durable (D6).
   *
   * @throws MachineFailure if the machine failed
   */
  sync(): MaybePromise<void> {
    this.dirty = false;
    const failed = (error: unknown): never => {
      this.dirty = true;
      throw error;
    };
    try {
      const synced = this.guard.run(Op.Sync, () => this.syncNow());
      return isPromise(synced) ? synced.catch(failed) : synced;
    } catch (error) {
      return failed(error);
    }
  }

  /**
   * Replaces state, sessions and index by those of a snapshot whose payload
   * `recover` gives to the machine. The table is switched after the machine has
   * its state, so that a failure leaves what was there.
   */
  recover(
    captured: Captured,
    recover: (host: HostState) => MaybePromise<void>,
  ): MaybePromise<void> {
    return this.guard.run(Op.Recover, async () => {
      const { index, mark, sessions } = captured;
      const [oldTable, oldMark] = [this.#table, this.#mark];
      this.#table = this.#newTable();
      try {
        this.#decodeTable(this.#table, sessions);
        this.#mark = mark;
        this.#skipRows.clear();
        await recover(this.#rows(index));
      } catch (error) {
        this.#table = oldTable;
        this.#mark = oldMark;
        // Nobody knows what it holds now (R9).
        this.guard.fail(new ErrSystemBusy("Replica is being brought up anew"));
        throw error;
      }
      this.#applied = this.#read = this.#opened = index;
      this.#appliedMark = mark;
      this.#nextSkip = this.#skips.after(index);
      this.dirty = true;
      this.#listener.applied(index);
    });
  }

  /** Closes the machine, after everything it still does; once, however often it is called (R10). */
  close(): MaybePromise<void> {
    if (this.#closed) return;
    this.#closed = true;
    return this.guard.run(Op.Close, () => this.machine.close());
  }
}
