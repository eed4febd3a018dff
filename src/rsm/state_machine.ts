/**
 * Replicated state machine: applies committed log records to one user machine,
 * through the session table and under the call guard, in bounded batches.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ByteReader, ByteWriter, encodeShown } from "../bytes.ts";
import { UPDATE_BYTES_MAX, UPDATE_ENTRIES_MAX } from "../limits.ts";
import { ErrDiverged, ErrLogCorrupted } from "../log/errors.ts";
import type { Checkpoint, LogBatch } from "../log/log.ts";
import type { Epoch } from "../log/history.ts";
import { RecordKind } from "../log/records.ts";
import {
  type Entry,
  type MaybePromise,
  RegularStateMachine,
  type Result,
} from "../statemachine/types.ts";
import { ErrStoreFull } from "../store/errors.ts";
import { MachineFailure, recoveringError } from "./errors.ts";
import { isPromise, settleable } from "../async.ts";
import { CallGuard, Op } from "./call_guard.ts";
import { ErrNotImplemented } from "../statemachine/errors.ts";
import type { StateHash } from "../snapshot/store.ts";
import type { HostRow, HostState } from "./host_state.ts";
import {
  type MachineFactory,
  manage,
  type ManagedMachine,
} from "./managed_machine.ts";
import { RecordCursor } from "./record_codec.ts";
import {
  decodeSkip,
  decodeSkips,
  encodeSkip,
  encodeSkips,
  ErrSkippedApplied,
  SkippedEntries,
  type SkippedEntry,
} from "./skipped_entries.ts";
import {
  digest,
  type SessionEntry,
  SessionTable,
  SKIPPED,
  type Slot,
} from "./session_table.ts";

/** Outcome of a session's proposal, as reported to the session on this replica. */
export type Outcome =
  | "applied"
  | "skipped"
  | "lost"
  | "acknowledged"
  | "gap"
  | "conflict"
  | "unknown";

/** Outcome of a claim to a session. */
export type ClaimOutcome = "claimed" | "conflict" | "unknown";

/** Recorded outcome of one series of a session. */
export interface SeriesOutcome {
  /** Outcome of the series. */
  readonly outcome: Outcome;
  /** Result of the command, if the session table still has it; for a skipped series, the reason as data. */
  readonly result: Result | undefined;
  /** Digest of the command recorded for the series, if known. */
  readonly digest: number | undefined;
}

/** Range of entries that contains the one at which `update()` threw. */
export interface FailedEntries {
  /** Index of the first entry of the range. */
  readonly index: number;
  /** Index of the last entry of the range; equals `index` if the failing entry is known. */
  readonly upTo: number;
}

/** Replicated state of one client session. */
export interface SessionInfo {
  /** Client id that the session was registered with. */
  readonly clientID: bigint;
  /** Id of the session holder: the process that may send in the session. */
  readonly holder: bigint;
  /** Owner of the session: the principal that registered it, as bytes; a view, not a copy. */
  readonly owner: Uint8Array;
  /** Next series to be applied; every series before it is decided. */
  readonly next: number;
  /** Last series that the client has acknowledged, with all before it. */
  readonly responded: number;
}

/** Session as it was when it was closed. */
export interface ClosedSession {
  /** Id of the last session holder. */
  readonly holder: bigint;
  /** Next series that would have been applied; every series before it is decided. */
  readonly next: number;
  /** Returns the recorded outcome of a series; undefined if it was never decided. */
  outcomeOf(series: number): SeriesOutcome | undefined;
}

/** Receiver of apply results; `L` is its handle for a session of this replica. */
export interface ApplyListener<L> {
  /** Low half of the origin id that this replica's sessionless proposals carry. */
  readonly originLow: number;
  /** High half of the origin id that this replica's sessionless proposals carry. */
  readonly originHigh: number;
  /** Handles of this replica's sessions, by session index. */
  readonly locals: ReadonlyMap<number, L>;
  /** Called when a sessionless proposal of this replica has been applied. */
  proposalApplied(sequence: number, result: Result): void;
  /** Called when a sessionless proposal of this replica is skipped by an operator's decision. */
  proposalSkipped(sequence: number, reason: string): void;
  /** Called when a session was registered; `owner` is a view. */
  registered(clientID: bigint, session: number, owner: Uint8Array): void;
  /** Called when a session was closed; `closed` is undefined if it was not open. */
  unregistered(session: number, closed: ClosedSession | undefined): void;
  /** Called when a claim to a session was applied: granted, in conflict with another holder, or for an unknown session. */
  claimed(session: number, holder: bigint, outcome: ClaimOutcome): void;
  /** Called when the outcome of a series of a local session is known; for a skipped one, `result.data` is the reason. `digest` is that of the recorded command, which another process may have sent. */
  answered(
    local: L,
    series: number,
    outcome: Outcome,
    result: Result | undefined,
    digest: number | undefined,
  ): void;
}

/** Receiver of the progress of a state machine. */
export interface ProgressListener {
  /** Called when every entry up to `index` has been applied. */
  applied(index: number): void;
  /** Called with the hashes of a checkpoint index. */
  checkpoint(checkpoint: Omit<Checkpoint, "nodeID">): void;
  /** Called when the machine failed to compute its hash at a checkpoint. */
  checkpointFailed(error: unknown): void;
}

/** Options of {@linkcode StateMachine}. */
export interface StateMachineOptions {
  /** Receiver of its progress. */
  readonly progress?: Partial<ProgressListener>;
  /** Distance between two checkpoints at which hashes are computed, in indexes; 0 disables them. */
  readonly hashEntries: number;
  /** Highest index at which no checkpoint hash is computed. @default {0} */
  readonly hashAfter?: number;
  /** Skipped entries known beforehand, including those whose decision comes later in the log. */
  readonly skips?: readonly SkippedEntry[];
  /**
   * Called when an on-disk machine reports a full store; the batch is retried
   * once the promise resolves and fails if it rejects.
   *
   * @default {the batch fails}
   */
  readonly room?: (error: ErrStoreFull) => Promise<void>;
}

/** Creates a listener that ignores everything. */
export function noopListener<L>(): ApplyListener<L> {
  const nothing = (): void => {};
  return {
    // No record carries a negative origin.
    originLow: -1,
    originHigh: -1,
    locals: new Map(),
    proposalApplied: nothing,
    proposalSkipped: nothing,
    registered: nothing,
    unregistered: nothing,
    claimed: nothing,
    answered: nothing,
  };
}

const META_ROW = "meta";
const SESSION_ROW = "s";
const SKIP_ROW = "x";

/** Replicated state beside the machine's own: applied index, epoch and sessions. */
export interface StateMetadata {
  /** Index of the last entry applied. */
  readonly index: number;
  /** Last epoch at or before the applied index. */
  readonly epoch: Epoch | undefined;
  /** Encoded session table, followed by the skipped entries if there are any. */
  readonly sessions: Uint8Array;
}

/** Copies a result but not its data: a machine may reuse the object, the data belong to the caller. */
function shallowCopy({ value, data }: Result): Result {
  return data === undefined ? { value } : { value, data };
}

/** Copies a result with its data, for a caller outside the session table. */
function deepCopy(result: Result | undefined): Result | undefined {
  if (result === undefined) return undefined;
  const { value, data } = result;
  return data === undefined ? { value } : { value, data: data.slice() };
}

/** Derives the outcome of a series from its slot. */
function outcomeOf({ digest, result }: Slot): Outcome {
  if (digest === SKIPPED) return "skipped";
  return result === undefined ? "lost" : "applied";
}

/** Recorded outcome of a series of a session whose next series is `next`; undefined if it is undecided. */
function recordedOutcome(
  { responded, slots, head }: SessionEntry<unknown>,
  series: number,
  next: number,
): SeriesOutcome | undefined {
  if (series >= next) return undefined;
  if (series <= responded) {
    return { outcome: "acknowledged", result: undefined, digest: undefined };
  }
  const slot = slots[head + series - responded - 1]!;
  const { digest, result } = slot;
  return { outcome: outcomeOf(slot), result: deepCopy(result), digest };
}

/** Session that was removed from the table, as it was then. */
function closedSession(entry: SessionEntry<unknown>): ClosedSession {
  const { holder, next } = entry;
  const outcomeOf = (series: number): SeriesOutcome | undefined =>
    recordedOutcome(entry, series, next);
  return { holder, next, outcomeOf };
}

/** User machine with everything replicated beside it: sessions, skipped entries, applied index and epoch. */
export class StateMachine<L> {
  /** Adapter of the user's machine. */
  readonly machine: ManagedMachine;
  /** Guard that keeps the machine's calls from overlapping where its kind forbids it. */
  readonly guard: CallGuard;
  readonly #clusterID: bigint;
  readonly #listener: ApplyListener<L>;
  readonly #progress: Partial<ProgressListener>;
  /** Buffer of the batch being decoded. */
  #buffer = new ArrayBuffer();
  readonly #hashEntries: number;
  readonly #hashAfter: number;
  readonly #room: StateMachineOptions["room"];
  #table: SessionTable<L>;
  #applied = 0;
  /** Last epoch decoded, possibly in the batch being applied. */
  #epoch: Epoch | undefined;
  /** Last epoch at or before the applied index. */
  #appliedEpoch: Epoch | undefined;
  /** Index up to which the machine already contained entries when it was opened (D3). */
  #opened = 0;
  /** Set while the machine has updates that were not synced. */
  dirty = false;
  /** Index up to which entries are not reported to the listener: the state machine that this one replaces has reported them. */
  reportedUpTo = 0;
  #updateFailed: FailedEntries | undefined;
  /** All known skipped entries, also those after the applied index. */
  #skips: SkippedEntries;
  /** Index of the first skipped entry that was not decoded yet. */
  #nextSkip = Infinity;
  /** Indexes of the skipped entries whose rows the machine has stored. */
  readonly #skipRows = new Set<number>();

  // The batch being applied. Parallel arrays, because an object per entry would cost
  // more than the rest of the loop.
  readonly #cursor = new RecordCursor();
  /** Index of the last record decoded. */
  #read = 0;
  #entries: Entry[] = [];
  /** Entries whose result a session stores or a local proposal waits for. */
  #tracked: Entry[] = [];
  #series: number[] = [];
  #sessions: (SessionEntry<L> | undefined)[] = [];
  #slots: (Slot | undefined)[] = [];
  /** Total size of the commands in `#entries`, in bytes. */
  #bytes = 0;
  /** Notifications to deliver once the batch is applied. */
  #notifications: (() => void)[] = [];
  /** Host rows of the batch, once the machine has requested them. */
  #host: HostState | undefined;
  #checkpointDue = false;
  #closed = false;

  /** Creates the machine and a state without entries. */
  constructor(
    factory: MachineFactory,
    clusterID: bigint,
    nodeID: bigint,
    listener: ApplyListener<L>,
    options: StateMachineOptions,
  ) {
    this.machine = manage(factory, clusterID, nodeID);
    this.#clusterID = clusterID;
    this.guard = new CallGuard(factory.type);
    this.#listener = listener;
    this.#progress = options.progress ?? {};
    this.#hashEntries = options.hashEntries;
    this.#hashAfter = options.hashAfter ?? 0;
    this.#room = options.room;
    this.#skips = new SkippedEntries(options.skips);
    this.#nextSkip = this.#skips.after(0);
    this.#table = this.#newTable();
  }

  #newTable(): SessionTable<L> {
    return new SessionTable({ track: this.machine.hostState !== undefined });
  }

  /** Index of the last entry applied. */
  get applied(): number {
    return this.#applied;
  }

  /** Last epoch at or before the applied index. */
  get epoch(): Epoch | undefined {
    return this.#appliedEpoch;
  }

  /** Index up to which the machine contained entries when it was opened or recovered. */
  get opened(): number {
    return this.#opened;
  }

  /** Entries at which `update()` threw; undefined unless it has. */
  get updateFailed(): FailedEntries | undefined {
    return this.#updateFailed;
  }

  /** True if the machine was closed, is being closed, or has failed. */
  get closed(): boolean {
    return this.#closed || this.guard.failed;
  }

  /** True while a batch is being applied, and after it has failed: the session table is ahead of the applied index, and must not be captured. */
  get isMidBatch(): boolean {
    return this.#read !== this.#applied;
  }

  /** True while the machine contains entries after the applied index: the log is read again to restore the sessions up to them. */
  get behind(): boolean {
    return this.#applied < this.#opened;
  }

  /** Skipped entries at or below the applied index, in order. */
  get skips(): SkippedEntry[] {
    return this.#skips.list().filter(({ index }) => index <= this.#applied);
  }

  /** All known skipped entries in order, also those above the applied index. */
  get knownSkips(): SkippedEntry[] {
    return this.#skips.list();
  }

  /** Adds a skipped entry that was not decoded yet and whose decision comes later in the log. */
  skip(skip: SkippedEntry): void {
    this.#skips.add(skip);
    this.#nextSkip = this.#skips.after(this.#read);
  }

  /** True while the state lacks an entry whose skip decision comes later in the log: it must not be compared or saved. */
  get ahead(): boolean {
    return this.#skips.isAhead(this.#applied);
  }

  /** True if the first record of the cluster was decoded. */
  get begun(): boolean {
    return this.#table.begun;
  }

  /**
   * Opens an on-disk machine. Its entries count as applied once the sessions are
   * known: at once if it stores the host's rows, else when the sessions were restored
   * from a snapshot and the log.
   *
   * @returns index up to which the machine contains entries
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
        `host rows of the machine are damaged: ${error.message}`,
        { cause: error },
      );
    }
  }

  #restore(meta: Uint8Array, rows: readonly HostRow[]): number {
    const reader = new ByteReader(meta);
    const index = reader.varint();
    if (index < this.#opened) {
      throw new ErrDiverged(
        `Machine opened at index ${this.#opened}, but its host rows end at ${index}`,
      );
    }
    const epochIndex = reader.varint();
    if (epochIndex > 0) {
      this.#epoch = { index: epochIndex, id: reader.u64() };
    }
    this.#appliedEpoch = this.#epoch;
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

  /** Decodes an encoded session table and adds the skipped entries that follow it to those known. */
  #decodeTable(table: SessionTable<L>, sessions: Uint8Array): void {
    const reader = new ByteReader(sessions);
    table.decodeFrom(reader);
    for (const skip of decodeSkips(reader)) this.#skips.add(skip);
  }

  /** Replaces sessions and applied index by those of a snapshot at or below the index the machine opened at. */
  loadSessions({ index, epoch, sessions }: StateMetadata): void {
    const table = this.#newTable();
    this.#decodeTable(table, sessions);
    this.#table = table;
    this.#applied = this.#read = index;
    this.#nextSkip = this.#skips.after(index);
    this.#epoch = this.#appliedEpoch = epoch;
  }

  /** Captures applied index, epoch and sessions; call it between two batches. */
  capture(): StateMetadata {
    return {
      index: this.#applied,
      epoch: this.#epoch,
      sessions: encodeSkips(this.#table.encode(true), this.skips),
    };
  }

  // Between two batches the session table is that of the applied index. While a batch
  // is applied asynchronously, or after it has failed, the table is ahead, since the
  // batch was decoded before: commands whose results are not known, and not reported,
  // must neither look decided nor seem to have lost their session. Only the holder and
  // the acknowledged series may be those of the batch: no result decides them.

  /** Index of the first session above `after` that `clientID` registered (for `owner`, if given) and that exists at the applied index. */
  sessionOf(
    clientID: bigint,
    after: number,
    owner: Uint8Array | undefined,
  ): number | undefined {
    return this.#table.find(clientID, after, this.#applied, owner);
  }

  /** Replicated state of a session at the applied index; undefined for an unknown one. */
  sessionInfo(session: number): SessionInfo | undefined {
    const entry = this.#table.seen(session, this.#applied);
    if (entry === undefined) return undefined;
    const { clientID, holder, owner, responded } = entry;
    const next = this.#nextOf(entry);
    return { clientID, holder, owner, next, responded };
  }

  /** Next series of a session at the applied index: the first whose command is being applied, if there is one. */
  #nextOf(entry: SessionEntry<L>): number {
    const at = this.#sessions.indexOf(entry);
    return at < 0 ? entry.next : this.#series[at]!;
  }

  /** True if up to `uses` registrations and uses of other sessions may evict this session. */
  mayEvict(session: number, uses: number): boolean {
    return this.#table.mayEvict(session, uses);
  }

  /** Recorded outcome of a series at the applied index; undefined if it is undecided or its session is unknown. */
  outcomeOf(
    session: number,
    series: number,
  ): SeriesOutcome | undefined {
    const entry = this.#table.seen(session, this.#applied);
    return entry && recordedOutcome(entry, series, this.#nextOf(entry));
  }

  /** Stops notifying the listener of a session. */
  detach(session: number): void {
    const entry = this.#table.seen(session, Infinity);
    if (entry !== undefined) entry.local = undefined;
  }

  /** Applies batches that follow the applied index; synchronous if the machine is. Must not be called again before it has settled. */
  apply(batches: readonly LogBatch[]): MaybePromise<void> {
    return this.guard.run(Op.Update, () => this.#applyFrom(batches, 0, 0));
  }

  /** Applies from record `i` of batch `b` on. */
  #applyFrom(
    batches: readonly LogBatch[],
    b: number,
    i: number,
  ): MaybePromise<void> {
    for (; b < batches.length; b++, i = 0) {
      const { first, records: { bytes, ends } } = batches[b]!;
      if (i === 0) this.#checkBatch(batches[b]!);
      // Once a batch: the accessor costs as much as a view of a command.
      this.#buffer = bytes.buffer as ArrayBuffer;
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
      throw new ErrLogCorrupted(
        first,
        `records of the batch end at byte ${ends.at(-1)} of ${bytes.length}`,
      );
    }
    if (follows !== this.#read || !(first > follows)) {
      throw new ErrLogCorrupted(
        first,
        `batch follows index ${follows}, but the previous one ended at ${this.#read}`,
      );
    }
  }

  /** Decodes one record: adds its command to the batch, or changes the sessions. */
  #decode(index: number, bytes: Uint8Array, start: number, end: number): void {
    const cursor = this.#cursor;
    try {
      cursor.read(bytes, start, end);
      if (index >= this.#nextSkip && this.#skipEntry(index)) {
        // A skipped entry never reaches the machine.
      } else if (cursor.kind === RecordKind.Proposal) {
        if (!this.#table.begun) this.#table.begin();
        const entry = this.#enqueue(index, bytes, end);
        if (
          cursor.originLow === this.#listener.originLow &&
          cursor.originHigh === this.#listener.originHigh &&
          entry !== undefined
        ) this.#track(entry, cursor.series, undefined, undefined);
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

  /** Adds a command to the batch; undefined if the machine already contains it. */
  #enqueue(index: number, bytes: Uint8Array, end: number): Entry | undefined {
    if (index <= this.#opened) return undefined;
    const { start } = this.#cursor;
    const cmd = new Uint8Array(
      this.#buffer,
      bytes.byteOffset + start,
      end - start,
    );
    const entry: Entry = { index, cmd, result: undefined };
    this.#entries.push(entry);
    this.#bytes += end - start;
    return entry;
  }

  /** Notes that the result of an entry is stored in a slot, or reported to its proposal. */
  #track(
    entry: Entry,
    series: number,
    session: SessionEntry<L> | undefined,
    slot: Slot | undefined,
  ): void {
    this.#tracked.push(entry);
    this.#series.push(series);
    this.#sessions.push(session);
    this.#slots.push(slot);
  }

  #decodeSession(index: number, bytes: Uint8Array, end: number): void {
    const { start, series } = this.#cursor;
    const session = this.#admit(digest(bytes, start, end));
    if (session === undefined) return;
    const slot = this.#table.slot!;
    const entry = this.#enqueue(index, bytes, end);
    if (entry !== undefined) this.#track(entry, series, session, slot);
    else this.#answerLater(session.local, series, "lost", slot);
  }

  /** Runs the proposal at the cursor through the session table; returns its session if it has to be applied. */
  #admit(digest: number): SessionEntry<L> | undefined {
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
    const admission = table.admit(session, series, lag, digest);
    if (admission === "apply") return session;
    if (admission === "gap" && series - lag > session.next) {
      // The client has acknowledged series that were never applied here: it comes
      // from another history, and no later record can fill the gap.
      this.#answerLater(session.local, series, "conflict");
    } else if (admission !== "duplicate") {
      this.#answerLater(session.local, series, admission);
    } else this.#answerLater(session.local, series, "lost", table.slot);
    return undefined;
  }

  /** Notifies the listener of a series once the batch is applied; the slot, if given, overrides `outcome`. */
  #answerLater(
    local: L | undefined,
    series: number,
    outcome: Outcome,
    slot?: Slot,
  ): void {
    if (local === undefined) return;
    this.#notifications.push(() => {
      const known = slot === undefined ? outcome : outcomeOf(slot);
      const result = deepCopy(slot?.result);
      this.#listener.answered(local, series, known, result, slot?.digest);
    });
  }

  #decodeControl(index: number): void {
    const cursor = this.#cursor;
    const table = this.#table;
    if (cursor.kind === RecordKind.Epoch) {
      this.#epoch = { index, id: cursor.epoch() };
      return;
    }
    if (cursor.kind === RecordKind.Config) {
      const max = cursor.sessionsMax();
      // Only the first record of a cluster sets limits; later ones are ignored (H4).
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
      this.#notifications.push(() =>
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
      this.#notifications.push(() =>
        this.#listener.claimed(session, holder, outcome)
      );
    } else {
      const { session } = cursor;
      const entry = table.get(session);
      if (entry !== undefined) table.remove(entry);
      this.#notifications.push(() =>
        this.#listener.unregistered(session, entry && closedSession(entry))
      );
    }
  }

  /** Skips the series of the record at the cursor; `reason` is empty unless the server refused the command. */
  #skipSeries(reason: Uint8Array): void {
    const { series } = this.#cursor;
    const session = this.#admit(SKIPPED);
    if (session === undefined) return;
    const slot = this.#table.slot!;
    if (reason.length > 0) {
      this.#table.fill(session, series, slot, { value: 0n, data: reason });
    }
    this.#answerLater(session.local, series, "skipped", slot);
  }

  /** Skips the record at the cursor if an operator decided so; true if it was skipped. */
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
    // Session control, epoch and configuration records are never skipped.
    if (kind !== RecordKind.Proposal) return false;
    if (!this.#table.begun) this.#table.begin();
    const { series, originLow, originHigh } = this.#cursor;
    if (
      originLow === this.#listener.originLow &&
      originHigh === this.#listener.originHigh
    ) {
      this.#notifications.push(() =>
        this.#listener.proposalSkipped(series, reason)
      );
    }
    return true;
  }

  /**
   * Records an operator's decision to skip an earlier entry.
   *
   * @throws ErrSkippedApplied if the machine has applied it already: the state must be recovered without it
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

  /** Removes an entry from the batch before it reaches the machine. */
  #withdraw(at: number, reason: string): void {
    const [entry] = this.#entries.splice(at, 1);
    this.#bytes -= entry!.cmd.length;
    const tracked = this.#tracked.indexOf(entry!);
    if (tracked < 0) return;
    this.#tracked.splice(tracked, 1);
    const [series] = this.#series.splice(tracked, 1) as [number];
    const [session] = this.#sessions.splice(tracked, 1);
    const [slot] = this.#slots.splice(tracked, 1);
    if (session === undefined) {
      this.#notifications.push(() =>
        this.#listener.proposalSkipped(series, reason)
      );
      return;
    }
    slot!.digest = SKIPPED;
    const data = encodeShown(reason);
    this.#table.fill(session, series, slot!, { value: 0n, data });
    this.#answerLater(session.local, series, "skipped", slot);
  }

  /** Applies the gathered batch to the machine, then delivers results and notifications. */
  #flush(): MaybePromise<void> {
    const { hostState } = this.machine;
    if (this.#read === this.#applied) return;
    // While sessions are restored, host rows would be older than those stored.
    const noRows = hostState === undefined || this.#read < this.#opened;
    if (this.#entries.length === 0 && noRows) return this.#settle();
    this.dirty = true;
    return this.#update();
  }

  #update(): MaybePromise<void> {
    let updated: MaybePromise<void>;
    try {
      updated = this.machine.update(this.#entries, this.#hostState);
    } catch (error) {
      return this.#retryUpdate(error);
    }
    return isPromise(updated)
      ? updated.then(() => this.#settle(), (error) => this.#retryUpdate(error))
      : this.#settle();
  }

  /** Retries the batch after `ErrStoreFull`, which means that nothing of it was applied; any other error is fatal (R5). */
  #retryUpdate(error: unknown): Promise<void> {
    const room = this.#room;
    if (!(error instanceof ErrStoreFull) || room === undefined) {
      this.#updateFailed = this.#failedEntries();
      // Part of the batch may be applied: no read and no save may see it.
      this.guard.fail(recoveringError(this.#clusterID));
      throw error;
    }
    return room(error).then(() => this.#update());
  }

  /** Returns the entries that include the one at which `update()` threw: that one alone for a regular machine. */
  #failedEntries(): FailedEntries {
    const entries = this.#entries;
    // A regular machine is called once per entry. Other kinds may set results in any
    // order before they throw.
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
   * Host rows of the batch, encoded once its results are known. Cached, because a
   * retried batch needs the same rows and the table reports changes only once.
   */
  readonly #hostState = (): HostState => {
    if (this.#host === undefined) {
      this.#fill();
      this.#host = this.#rows(this.#read, this.#epoch, this.#table);
    }
    return this.#host;
  };

  #rows(
    index: number,
    epoch: Epoch | undefined,
    table: SessionTable<L>,
  ): HostState {
    if (this.machine.hostState === undefined) return { index, rows: [] };
    const meta = new ByteWriter(32).varint(index);
    meta.varint(epoch?.index ?? 0);
    if (epoch !== undefined) meta.u64(epoch.id);
    const rows: HostRow[] = [{ key: META_ROW, value: meta.finish() }];
    table.takeChanges(index, (session, value) => {
      rows.push({ key: SESSION_ROW + session, value });
    });
    for (const skip of this.#skips.list()) {
      if (skip.index > index || this.#skipRows.has(skip.index)) continue;
      this.#skipRows.add(skip.index);
      rows.push({ key: SKIP_ROW + skip.index, value: encodeSkip(skip) });
    }
    return { index, rows };
  }

  /** Stores the results of the batch in the session table. */
  #fill(): void {
    for (let i = 0; i < this.#tracked.length; i++) {
      const session = this.#sessions[i];
      if (session === undefined) continue;
      const result = this.#tracked[i]!.result!;
      this.#table.fill(session, this.#series[i]!, this.#slots[i]!, result);
    }
  }

  /** Advances the applied index, then delivers results, notifications and a checkpoint that is due. */
  #settle(): MaybePromise<void> {
    const tracked = this.#tracked;
    const series = this.#series;
    const sessions = this.#sessions;
    const slots = this.#slots;
    const notifications = this.#notifications;
    if (this.machine.hostState === undefined) this.#fill();
    this.#entries = [];
    if (tracked.length > 0) {
      this.#tracked = [];
      this.#series = [];
      this.#sessions = [];
      this.#slots = [];
    }
    this.#notifications = [];
    this.#host = undefined;
    this.#bytes = 0;
    this.#applied = this.#read;
    this.#appliedEpoch = this.#epoch;
    this.#table.settle();
    if (this.#applied > this.reportedUpTo) {
      this.#report(tracked, series, sessions, slots);
      for (const notify of notifications) notify();
    }
    this.#progress.applied?.(this.#applied);
    if (this.#checkpointDue) return this.#checkpoint();
  }

  /** Reports the results of a batch to the listener. */
  #report(
    tracked: readonly Entry[],
    series: readonly number[],
    sessions: readonly (SessionEntry<L> | undefined)[],
    slots: readonly (Slot | undefined)[],
  ): void {
    const listener = this.#listener;
    for (let i = 0; i < tracked.length; i++) {
      const session = sessions[i];
      const { result } = tracked[i]!;
      if (session === undefined) {
        listener.proposalApplied(series[i]!, shallowCopy(result!));
      } else if (session.local !== undefined) {
        listener.answered(
          session.local,
          series[i]!,
          "applied",
          shallowCopy(result!),
          slots[i]!.digest,
        );
      }
    }
  }

  /** Computes the hashes at an index where every replica does (H12); runs under the exclusion of `update()`. */
  #checkpoint(): MaybePromise<void> {
    this.#checkpointDue = false;
    const index = this.#applied;
    // The machine's state is not that of the applied index.
    if (index < this.#opened || this.ahead) return;
    const report = (state: bigint | undefined): void =>
      this.#progress.checkpoint?.({
        index,
        state,
        sessions: this.sessionsHash(),
        ...(this.machine.stateVersion === 0
          ? {}
          : { stateVersion: this.machine.stateVersion }),
      });
    // Not fatal (R5): no caller has requested the hash.
    const failed = (error: unknown): void =>
      this.#progress.checkpointFailed?.(error);
    if (!this.machine.hasHash) return report(undefined);
    let state: MaybePromise<bigint>;
    try {
      state = this.machine.getHash();
    } catch (error) {
      return failed(error);
    }
    return isPromise(state) ? state.then(report, failed) : report(state);
  }

  /** Hash of the machine's state for a snapshot header; undefined if the machine has none or fails to compute it. Call it only while `update()` is excluded. */
  stateHash(): MaybePromise<StateHash | undefined> {
    if (!this.machine.hasHash) return undefined;
    const version = this.machine.stateVersion;
    const failed = (error: unknown): undefined => {
      if (!(error instanceof ErrNotImplemented)) {
        this.#progress.checkpointFailed?.(error);
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

  /** Hash of the session table without results (H4). */
  sessionsHash(): bigint {
    const bytes = this.#table.encode(false);
    return BigInt(digest(bytes, 0, bytes.length));
  }

  /** Queries the present state. */
  lookup(query: unknown): MaybePromise<unknown> {
    return this.guard.run(Op.Lookup, () => this.machine.lookup(query));
  }

  /** Queries the present state with bytes, and answers with bytes. */
  naLookup(query: Uint8Array): MaybePromise<Uint8Array> {
    return this.guard.run(Op.NALookup, () => this.machine.naLookup(query));
  }

  /** Hash of the machine's state, and the applied index it belongs to. */
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
   * Makes applied entries durable like {@linkcode sync}, for a caller that already
   * excludes every other call.
   *
   * @throws MachineFailure if the machine failed
   * @throws ErrStoreFull if there is no room; the call can be retried (U8)
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
   * Makes applied entries durable (D6).
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
   * Replaces state, sessions and applied index by those of a snapshot; `recover`
   * passes the payload to the machine, which is then synced if it is on disk. Until
   * that has ended, sessions and applied index stay as they were. If it throws, they
   * stay, and the machine refuses all later calls (R9).
   *
   * @param recovered called in the turn in which sessions and applied index change
   */
  recover(
    metadata: StateMetadata,
    recover: (host: HostState) => MaybePromise<void>,
    recovered?: () => void,
  ): MaybePromise<void> {
    return this.guard.run(Op.Recover, async () => {
      const { index, epoch, sessions } = metadata;
      const table = this.#newTable();
      try {
        this.#decodeTable(table, sessions);
        this.#skipRows.clear();
        await recover(this.#rows(index, epoch, table));
        await this.syncNow();
      } catch (error) {
        this.guard.fail(recoveringError(this.#clusterID));
        throw error;
      }
      this.#table = table;
      this.#applied = this.#read = this.#opened = index;
      this.#epoch = this.#appliedEpoch = epoch;
      this.#nextSkip = this.#skips.after(index);
      this.dirty = false;
      recovered?.();
      this.#progress.applied?.(index);
    });
  }

  /** Closes the machine after its calls under way have ended; calling it again does nothing (R10). */
  close(): MaybePromise<void> {
    if (this.#closed) return;
    this.#closed = true;
    return this.guard.run(Op.Close, () => this.machine.close());
  }
}
