/**
 * Read-only access to the log of a replica and to its earlier states, for
 * inspectors: entries as they are in the log, sessions, and the state as of an entry.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { anySignal, onAbort, withResolvers } from "../async.ts";
import { copyOf } from "../bytes.ts";
import {
  APPLY_SLICE_MS,
  HISTORY_FOLLOWED_BATCHES_MAX,
  HISTORY_PART_ENTRIES_MAX,
  HISTORY_SLICE_ENTRIES,
  REPLAY_ENTRIES_MAX,
} from "../limits.ts";
import { ErrCompacted } from "../log/errors.ts";
import { readAgain } from "../log/read_again.ts";
import type { Log, LogBatch, LogReader, SnapshotSource } from "../log/log.ts";
import {
  batchAfter,
  batchUpTo,
  lastOf,
  recordAt,
  RecordKind,
} from "../log/records.ts";
import { MachineFailure } from "../rsm/errors.ts";
import type { MachineFactory } from "../rsm/managed_machine.ts";
import { RecordCursor } from "../rsm/record_codec.ts";
import { decodeSessions } from "../rsm/session_table.ts";
import type { SnapshotCandidate } from "../rsm/snapshot_candidates.ts";
import {
  noopListener,
  type SeriesOutcome,
  StateMachine,
} from "../rsm/state_machine.ts";
import type { FileStore } from "../snapshot/file_store.ts";
import type { Env } from "../env.ts";
import { ErrNotImplemented } from "../statemachine/errors.ts";
import type { MaybePromise, Result } from "../statemachine/types.ts";
import type { Agreed } from "./checkpoints.ts";
import {
  type CreateReplayMachineFunc,
  discard,
  fromBase,
  recoverBase,
  replayFactory,
} from "./replay.ts";

/** Entry of a log as an inspector shows it. */
export interface LoggedEntry {
  /** Index in the log. */
  readonly index: number;
  /**
   * Kind of the record: `command`; a session that is opened, closed or claimed by
   * another holder; `refusal` of a series whose command the server did not order;
   * `skip` of an entry by an operator; `epoch` of a process that opened the log for
   * writing; `configuration` of the cluster; `unknown` for a record of newer code.
   */
  readonly kind:
    | "command"
    | "session opened"
    | "session closed"
    | "session claimed"
    | "refusal"
    | "skip"
    | "epoch"
    | "configuration"
    | "unknown";
  /** Size of the record, in bytes. */
  readonly bytes: number;
  /** Session of the record, if it has one. */
  readonly session?: number;
  /** Number in the session, if it has one. */
  readonly series?: number;
  /** Copy of the command. */
  readonly cmd?: Uint8Array;
  /** Text of the record: the reason of a refusal or a skip, the owner of a session. */
  readonly text?: string;
}

/** Session of a cluster as an inspector shows it. */
export interface LoggedSession {
  /** Id of the session: the index of the entry that opened it. */
  readonly id: number;
  /** Owner of the session, as text; empty if it has none. */
  readonly owner: string;
  /** Number of series that the cluster has decided. */
  readonly decided: number;
  /** Number of decided series that the client has not acknowledged. */
  readonly unacknowledged: number;
}

/** Agreement of a replica with another one: their hashes were equal at an index. */
export interface Agreement {
  /** Index of the last entry that the hashes cover. */
  readonly index: number;
  /** True if the other is the replica whose state counts, such as the server's. */
  readonly isTrusted: boolean;
  /** Time since the comparison, in milliseconds. */
  readonly agoMs: number;
}

/** Outcome of an entry that carries a command. */
export interface LoggedOutcome {
  /** Result of the command; undefined for one that was skipped. */
  readonly result: Result | undefined;
  /** Reason why the command was refused or skipped; undefined if it was not. */
  readonly reason: string | undefined;
}

/** Reader of the entries of a log. */
export interface EntryReader {
  /** Returns the next entries, at least one, waiting until there are some. Must not be called again before the previous call has settled. */
  next(): Promise<readonly LoggedEntry[]>;
  /** Closes the reader; idempotent. */
  close(): void;
}

/** State of a machine as of an entry. Close it after use. */
export interface PastState {
  /** Index of the last entry in the state. */
  readonly index: number;
  /** Index of the snapshot from which it was computed; 0 for the beginning of the log. */
  readonly base: number;
  /** Queries the state. */
  lookup(query: unknown): MaybePromise<unknown>;
  /** Hash of the state; undefined for a machine without `getHash()`. */
  getHash(): Promise<bigint | undefined>;
  /** Closes the machine that has the state. */
  close(): Promise<void>;
}

/** Parts of a replica that its history is read from. */
export interface HistoryContext {
  readonly clusterID: bigint;
  readonly nodeID: bigint;
  readonly factory: MachineFactory;
  readonly config: { readonly replayMachine?: CreateReplayMachineFunc };
  readonly log: Log;
  /** Snapshot stores of this device, the host's own first. */
  readonly deviceStores: readonly SnapshotSource[];
  readonly files: FileStore;
  readonly env: Env;
  /** Aborts once the replica is stopped. */
  readonly stopped: AbortSignal;
  /** Called with each batch that the replica has read. */
  readonly onRead: Set<(batch: LogBatch) => void>;
}

/** Current machine of a replica. */
export interface HistoryMachine {
  readonly current: Pick<
    StateMachine<never>,
    "applied" | "capture" | "skips"
  >;
  /** Recorded outcome of a series of a session; undefined if it is undecided or the session is unknown. */
  outcomeOf(session: number, series: number): SeriesOutcome | undefined;
  /** Reason with which the machine declares a result a refusal; undefined if it does not. */
  refusalOf(result: Result): string | undefined;
}

/** Comparison of the hashes of a replica with those of others. */
export interface HistoryComparison {
  /** Newest index at which another replica had the same hashes; undefined before the first. */
  readonly agreed: Agreed | undefined;
}

/** Read-only access to the log of a replica and to its earlier states. */
export class ReplicaHistory {
  readonly #context: HistoryContext;
  readonly #machine: HistoryMachine;
  readonly #comparison: HistoryComparison;

  /** Creates the history of a replica. */
  constructor(
    context: HistoryContext,
    machine: HistoryMachine,
    comparison: HistoryComparison,
  ) {
    this.#context = context;
    this.#machine = machine;
    this.#comparison = comparison;
  }

  /** Newest agreement of the state with that of another replica, as replicas compare their hashes by themselves; undefined before the first, and after a recovery. */
  agreement(): Agreement | undefined {
    const { agreed } = this.#comparison;
    if (agreed === undefined) return undefined;
    const { index, isTrusted, at } = agreed;
    return { index, isTrusted, agoMs: this.#context.env.now() - at };
  }

  /**
   * Outcome of a command that was proposed in a session; undefined if it is not
   * applied yet, or the client has acknowledged its result, which is then forgotten.
   */
  outcomeOf(session: number, series: number): LoggedOutcome | undefined {
    const known = this.#machine.outcomeOf(session, series);
    if (known === undefined) return undefined;
    const { outcome, result } = known;
    if (outcome === "skipped") {
      return {
        result: undefined,
        reason: new TextDecoder().decode(result?.data) || "It was skipped",
      };
    }
    if (outcome !== "applied" || result === undefined) return undefined;
    return { result, reason: this.#machine.refusalOf(result) };
  }

  /** Lists the open sessions of the cluster at the applied index, the least recently used first. */
  sessions(): readonly LoggedSession[] {
    const { sessions } = this.#machine.current.capture();
    const decoder = new TextDecoder();
    return decodeSessions(sessions).map((
      { index, owner, next, responded },
    ) => ({
      id: index,
      owner: decoder.decode(owner),
      decided: next - 1,
      unacknowledged: next - 1 - responded,
    }));
  }

  /**
   * Reads the entries after an index in order: first those that the log has, then
   * each as it is committed. Until it is closed, the reader keeps the log from being
   * compacted.
   *
   * @throws ErrCompacted if the log does not have them any more
   */
  async read(after: number, signal?: AbortSignal): Promise<EntryReader> {
    const { log, stopped } = this.#context;
    const joined = anySignal(stopped, signal);
    try {
      const reader = await readAgain(log, after, { signal: joined.signal });
      return new LogEntryReader(reader, after, joined.release);
    } catch (error) {
      joined.release();
      throw error;
    }
  }

  /**
   * Follows the entries that the replica reads, from an index on. Of the log, only
   * what the replica has read before is read again: a device whose log a server
   * orders receives no entry twice. Does not keep the log from being compacted.
   *
   * @throws ErrCompacted by `next()`, if the log does not have the entries after the index any more
   */
  follow(after: number, signal?: AbortSignal): EntryReader {
    const { applied } = this.#machine.current;
    // Those that are being applied now are read from the log.
    const last = Math.max(applied, this.#context.log.info?.().last ?? 0);
    return following(this, this.#context, after, last, signal);
  }

  /**
   * Computes the state as of an entry in a new machine of the same factory, from the
   * newest snapshot of this device at or below the entry, or from the beginning of
   * the log. Applies the entries in slices, between which the event loop gets turns,
   * and calls `progress` with the index reached.
   *
   * @throws RangeError if the entry is not applied yet
   * @throws ErrCompacted if the log does not have the entries any more from which the state would be computed
   * @throws ErrNotImplemented if the machine is on disk and the replica has no `replayMachine`
   */
  async stateAt(
    index: number,
    { signal: wanted, progress }: {
      readonly signal?: AbortSignal;
      readonly progress?: (index: number) => void;
    } = {},
  ): Promise<PastState> {
    const { clusterID, nodeID, log, env, files, stopped } = this.#context;
    const { applied, skips } = this.#machine.current;
    if (!Number.isSafeInteger(index) || index < 0 || index > applied) {
      throw new RangeError(
        `Entry ${index} is not applied here; give an index in 0…${applied}`,
      );
    }
    const { factory, config } = this.#context;
    const make = replayFactory(factory, { ...config, clusterID, nodeID });
    if (make === undefined) {
      throw new ErrNotImplemented(
        "Machine on disk has one instance only; give replayMachine in the configuration of the replica to see earlier states",
      );
    }
    const { signal, release } = anySignal(stopped, wanted);
    try {
      const state = await fromBase(
        index,
        {
          factory: make,
          clusterID,
          nodeID,
          log,
          stores: this.#context.deviceStores,
          files,
          env,
          skips,
          signal,
        },
        async (base, reader, options) => {
          const machine = new StateMachine<never>(
            make(),
            clusterID,
            nodeID,
            noopListener(),
            { hashEntries: 0, skips },
          );
          try {
            if (base !== undefined) await recoverBase(machine, base, options);
            await applyUpTo(machine, reader, index, { env, signal, progress });
            return new MachineState(machine, index, base);
          } catch (error) {
            await discard(machine);
            throw error;
          }
        },
        (error) => error instanceof MachineFailure,
      );
      if (state === undefined) throw new ErrCompacted(log.info?.().first ?? 0);
      return state;
    } finally {
      release();
    }
  }

  /** Asks the replica whose state counts, such as the server's, for its state hash after an entry; undefined if there is no such replica, or it cannot compute it. */
  async trustedHash(
    index: number,
    wanted?: AbortSignal,
  ): Promise<bigint | undefined> {
    const { log: { checkpoints }, stopped } = this.#context;
    if (checkpoints?.explain === undefined || index < 1) return undefined;
    const { signal, release } = anySignal(stopped, wanted);
    try {
      const hashes = await checkpoints.explain(index - 1, index, signal);
      return hashes?.find((one) => one.index === index)?.state;
    } finally {
      release();
    }
  }
}

/** Opens the history of a replica. */
export function history(
  context: HistoryContext,
  machine: HistoryMachine,
  comparison: HistoryComparison,
): ReplicaHistory {
  return new ReplicaHistory(context, machine, comparison);
}

/** Reader of entries on a reader of records. */
class LogEntryReader implements EntryReader {
  readonly #reader: LogReader;
  readonly #release: () => void;
  #after: number;
  #rest: LogBatch | undefined;

  constructor(reader: LogReader, after: number, release: () => void) {
    this.#reader = reader;
    this.#after = after;
    this.#release = release;
  }

  async next(): Promise<readonly LoggedEntry[]> {
    const batch = batchAfter(
      this.#rest ?? await this.#reader.next(),
      this.#after,
    );
    const part = partOf(batch);
    this.#after = lastOf(part);
    this.#reader.applied?.(this.#after);
    this.#rest = this.#after < lastOf(batch) ? batch : undefined;
    return entriesOf(part);
  }

  close(): void {
    this.#reader.close();
    this.#release();
  }
}

/** Creates a reader of the entries that a replica reads itself, and of earlier ones from its log; `last` is the index of the last record that the log is known to have. */
function following(
  history: ReplicaHistory,
  { onRead, stopped }: HistoryContext,
  after: number,
  last: number,
  wanted: AbortSignal | undefined,
): EntryReader {
  const closed = new AbortController();
  const { signal, release } = anySignal(stopped, wanted, closed.signal);
  /** Batches that the replica has read, in order. */
  let batches: LogBatch[] = [];
  let arrived = withResolvers<void>();
  /** Reader of what the replica has read before. */
  let log: EntryReader | undefined;
  const add = (batch: LogBatch): void => {
    last = lastOf(batch);
    // At the bound, all of them are read from the log.
    if (batches.push(batch) > HISTORY_FOLLOWED_BATCHES_MAX) batches = [];
    arrived.resolve();
  };
  onRead.add(add);
  onAbort(signal, () => {
    onRead.delete(add);
    release();
    log?.close();
    batches = [];
    arrived.resolve();
  });
  return {
    async next(): Promise<readonly LoggedEntry[]> {
      for (;;) {
        signal.throwIfAborted();
        batches = batches.filter((batch) => lastOf(batch) > after);
        const [batch] = batches;
        const follows = batch !== undefined && batch.follows <= after;
        if (!follows && after < last) {
          log ??= await history.read(after, signal);
          const entries = await log.next();
          after = entries.at(-1)!.index;
          return entries;
        }
        log?.close();
        log = undefined;
        if (follows) {
          const part = partOf(batchAfter(batch, after));
          after = lastOf(part);
          return entriesOf(part);
        }
        arrived = withResolvers();
        await arrived.promise;
      }
    },
    close: () => closed.abort(),
  };
}

/** First part of a batch, of as many entries as a reader returns at once. */
function partOf(batch: LogBatch): LogBatch {
  return batchUpTo(batch, batch.first + HISTORY_PART_ENTRIES_MAX - 1);
}

/** State of a machine that entries were replayed into. */
class MachineState implements PastState {
  readonly index: number;
  readonly base: number;
  readonly #machine: StateMachine<never>;

  constructor(
    machine: StateMachine<never>,
    index: number,
    base: SnapshotCandidate | undefined,
  ) {
    this.#machine = machine;
    this.index = index;
    this.base = base?.info.index ?? 0;
  }

  lookup(query: unknown): MaybePromise<unknown> {
    return this.#machine.lookup(query);
  }

  async getHash(): Promise<bigint | undefined> {
    if (!this.#machine.machine.hasHash) return undefined;
    return (await this.#machine.getHash()).hash;
  }

  async close(): Promise<void> {
    await discard(this.#machine);
  }
}

/** Applies the entries of a log up to an index, in slices. */
async function applyUpTo(
  machine: StateMachine<never>,
  reader: LogReader,
  upTo: number,
  { env, signal, progress }: {
    readonly env: Env;
    readonly signal: AbortSignal;
    readonly progress: ((index: number) => void) | undefined;
  },
): Promise<void> {
  let count = 0;
  let slice = env.now();
  while (machine.applied < upTo) {
    let rest = await reader.next();
    signal.throwIfAborted();
    // Indexes may have gaps: nothing is left to apply.
    if (rest.first > upTo) return;
    while (rest.records.ends.length > 0 && rest.first <= upTo) {
      const last = Math.min(upTo, rest.first + HISTORY_SLICE_ENTRIES - 1);
      const part = batchUpTo(rest, last);
      count += part.records.ends.length;
      if (count > REPLAY_ENTRIES_MAX) {
        throw new RangeError(
          `Entry ${upTo} is more than ${REPLAY_ENTRIES_MAX} entries after the snapshot before it; take snapshots more often`,
        );
      }
      try {
        await machine.apply([part]);
      } catch (cause) {
        throw new MachineFailure(
          `Entries up to ${lastOf(part)} could not be applied`,
          { cause },
        );
      }
      rest = batchAfter(rest, lastOf(part));
      if (env.now() - slice <= APPLY_SLICE_MS) continue;
      progress?.(machine.applied);
      await env.turn();
      signal.throwIfAborted();
      slice = env.now();
    }
  }
}

/** Entries of a batch, with copies of their commands. */
function entriesOf({ first, records }: LogBatch): LoggedEntry[] {
  const cursor = new RecordCursor();
  return records.ends.map((_, i) => {
    const record = recordAt(records, i);
    const head = { index: first + i, bytes: record.length };
    try {
      cursor.read(record, 0, record.length);
      return { ...head, ...contentOf(cursor, record, first + i) };
    } catch {
      return { ...head, kind: "unknown" };
    }
  });
}

/** Content of the record that a cursor has read. */
function contentOf(
  cursor: RecordCursor,
  record: Uint8Array,
  index: number,
): Omit<LoggedEntry, "index" | "bytes"> {
  const { kind, session, series } = cursor;
  const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
  switch (kind) {
    case RecordKind.Proposal:
      return { kind: "command", cmd: copyOf(record.subarray(cursor.start)) };
    case RecordKind.SessionProposal:
      return {
        kind: "command",
        cmd: copyOf(record.subarray(cursor.start)),
        session,
        series,
      };
    case RecordKind.Skip:
      return { kind: "refusal", session, series, text: text(cursor.reason()) };
    case RecordKind.Register: {
      const { owner } = cursor.registration();
      return { kind: "session opened", session: index, text: text(owner) };
    }
    case RecordKind.Unregister:
      return { kind: "session closed", session };
    case RecordKind.Claim:
      return { kind: "session claimed", session };
    case RecordKind.SkipEntry:
      return {
        kind: "skip",
        text: `Entry ${cursor.target}: ${text(cursor.reason())}`,
      };
    case RecordKind.Epoch:
      return { kind: "epoch", text: cursor.epoch().toString(16) };
    default:
      return {
        kind: "configuration",
        text: `At most ${cursor.sessionsMax()} sessions`,
      };
  }
}
