/**
 * One replica of a cluster, as its application uses it.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { clipText } from "../bytes.ts";
import { messageOf } from "../describe.ts";
import type { Env } from "../env.ts";
import {
  APPLY_SLICE_MS,
  BATCH_RECORDS_MAX,
  EXPLAIN_MS_MAX,
  LOCATE_MS_MAX,
  MACHINE_SLOW_MS,
  REFUSAL_BYTES_MAX,
  START_READS_MAX,
  STORE_FULL_RETRY_MS,
  SYNC_ENTRIES_MAX,
  SYNC_INTERVAL_MS,
  SYNC_SUBMISSIONS_MAX,
} from "../limits.ts";
import {
  ErrClusterClosed,
  ErrCompacted,
  ErrDiverged,
  ErrLogCorrupted,
  ErrNodeIDTaken,
  ErrOtherHistory,
} from "../log/errors.ts";
import type {
  Checkpoint,
  Log,
  LogBatch,
  LogInfo,
  LogReader,
} from "../log/log.ts";
import type { Epoch } from "../log/history.ts";
import { batchAfter, lastOf, packRecords } from "../log/records.ts";
import {
  type FailedEntries,
  type SessionInfo,
  StateMachine,
  type StateMetadata,
} from "../rsm/state_machine.ts";
import {
  ErrSkippedApplied,
  SkippedEntries,
  type SkippedEntry,
} from "../rsm/skipped_entries.ts";
import { skipsAfter, skipsIn } from "./skipping.ts";
import {
  abortable,
  anySignal,
  Backoff,
  chain,
  isPromise,
  onAbort,
  sleep,
  withResolvers,
} from "../async.ts";
import type { MachineFactory } from "../rsm/managed_machine.ts";
import { configRecord } from "../rsm/record_codec.ts";
import { MachineFailure } from "../rsm/errors.ts";
import type { FileStore } from "../snapshot/file_store.ts";
import type { SnapshotInfo, SnapshotStore } from "../snapshot/store.ts";
import type { SnapshotSource } from "../log/log.ts";
import {
  ErrStoreCorrupted,
  ErrStoreFull,
  ErrStoreLocked,
  ErrStoreVanished,
} from "../store/errors.ts";
import { ErrOpenStopped, ErrSnapshotStopped } from "../statemachine/errors.ts";
import {
  type MaybePromise,
  OnDiskStateMachine,
  type Result,
  type Type,
} from "../statemachine/types.ts";
import {
  bringUp,
  type BringUpOptions,
  type Candidate,
  candidates,
  discard,
  recoverFrom,
  remoteOf,
} from "./bring_up.ts";
import { Checkpoints } from "../divergence/checkpoints.ts";
import { ErrUpdateFailed } from "./errors.ts";
import { ErrSystemBusy } from "../rsm/errors.ts";
import type { ReplicaConfig } from "./config.ts";
import {
  checkOptions,
  isCount,
  isSignal,
  optional,
  type OptionChecks,
} from "../options.ts";
import type {
  Outbox,
  Purged,
  ReplicaOutbox,
  Submission,
  View,
} from "./outbox.ts";
import { ErrNoOutbox } from "./outbox_errors.ts";
import { Proposals } from "./proposals.ts";
import { Reads } from "./reads.ts";
import type {
  MakeRehearsal,
  OwnRehearsal,
  Rehearsal,
  Rehearsing,
} from "../rehearsal/rehearsal.ts";
import {
  batchUpTo,
  firstDifference,
  locateFailure,
  replay,
  type Replayed,
  replayFactory,
} from "../divergence/replay.ts";
import type { Session, SessionState } from "./session.ts";
import { type ReplicaEvent, Snapshotter } from "./snapshotter.ts";
import {
  checkWatch,
  type Watch,
  Watches,
  type WatchOptions,
} from "../watch/watch.ts";

/** Options of a snapshot or compaction on request. */
export interface CompactionOptions {
  /** Ends the waiting. */
  readonly signal?: AbortSignal;
  /**
   * Entries that the log keeps before the older of the two full snapshots.
   *
   * @default {the replica's own `compactionOverhead`}
   */
  readonly compactionOverhead?: number;
}

/** State of a replica, as `Replica.status` describes it. */
export interface ReplicaStatus {
  /**
   * `running`: what is committed is applied, and what is submitted is sent,
   * connected or not. `blocked`: the replica goes on, but something waits until
   * the user or the application acts, or until it has recovered from a snapshot:
   * `error` is an `ErrOutboxCopied`, `ErrOtherPrincipal` or `ErrOtherHistory` if
   * nothing that is submitted is sent, an `ErrDiverged` if the state is known to
   * be wrong. `failed`: nothing is applied any more, because of `error`; an
   * `ErrOtherHistory` calls for `NodeHost.startOver()`. `stopped`: it was stopped.
   */
  readonly state: "running" | "blocked" | "failed" | "stopped";
  /** Reason for the state, of one that is blocked or has failed. */
  readonly error?: unknown;
}

/** What a replica takes of its host. */
export interface ReplicaParts {
  /** The function that makes its machines. */
  readonly factory: MachineFactory;
  /** How it is to be run. */
  readonly config: ReplicaConfig;
  /** The log, opened for it. */
  readonly log: Log;
  /** The host's own snapshots. */
  readonly store: SnapshotStore;
  /** Whether those outlive the host. */
  readonly kept: boolean;
  /** Where the log shares snapshots. */
  readonly shared: SnapshotStore | undefined;
  /** Where its machine's external files are. */
  readonly files: FileStore;
  /** Outbox for durable submissions, if the host has one. */
  readonly outbox: Outbox | undefined;
  /** Time, random numbers and timers. */
  readonly env: Env;
  /** How long a stop waits, in milliseconds. */
  readonly stopTimeoutMs: number;
  /** Rehearsal of local proposals before they are ordered; undefined while they are not tried. */
  readonly rehearsing: () => Rehearsing | undefined;
  /** Principal who is signed in, if the host was told. */
  readonly principal: string | undefined;
  /** Name of this device, if the host was told. */
  readonly device: string | undefined;
  /** Told what happens. */
  readonly event: (event: ReplicaEvent) => void;
}

/** A replica that is being started. */
export interface Starting {
  /** The replica. */
  readonly replica: Replica;
  /** Settles once it is up, or fails with what it failed with. */
  readonly started: Promise<void>;
  /** Stops it, up or not. */
  readonly stop: () => Promise<void>;
}

/**
 * One replica of a cluster: its machine, and the way to it. Every method that
 * waits ends with `ErrClusterClosed` when the replica is stopped (H10).
 */
export class Replica {
  /** The cluster it belongs to. */
  readonly clusterID: bigint;
  /** Which replica of the cluster it is. */
  readonly nodeID: bigint;
  /** The kind of its machine. */
  readonly type: Type;
  /** The committed state, and what was submitted here and is not committed yet on top of it. */
  readonly view: View;
  readonly #parts: ReplicaParts;
  readonly #proposals: Proposals;
  readonly #outbox: ReplicaOutbox | undefined;
  readonly #reads: Reads;
  readonly #checkpoints: Checkpoints;
  readonly #watches: Watches;
  /** Tries commands before they are ordered, since it was asked to. */
  #rehearsal: Rehearsal | undefined;
  /** Snapshots at the other end of a wire. */
  readonly #remote: SnapshotSource | undefined;
  /** One at a time: each replays a part of the log. */
  #explaining: Promise<unknown> = Promise.resolve();
  /** While the state of an on-disk machine comes from a snapshot and nobody was told of it. */
  #recovering: Promise<void> | undefined;
  /** Machines whose place another one has taken, being closed. */
  #retired: Promise<unknown> = Promise.resolve();
  /** Ends everything; its reason is what later calls get. */
  readonly #stopped = new AbortController();
  /** Count of the times the log's home was reached. */
  #openings = 0;
  /** Ends what still waits once the machine is closed, or will not be. */
  readonly #ended = new AbortController();
  readonly #openStopped = new AbortController();
  readonly #recoverStopped = new AbortController();
  /** The machine of the moment; none before it is up. */
  #current: StateMachine<SessionState> | undefined;
  #snapshotter: Snapshotter | undefined;
  #reader: LogReader | undefined;
  #starting: Promise<void> | undefined;
  #isStarted = false;
  #loop: Promise<void> | undefined;
  #shutdown: Promise<void> | undefined;
  #unwatch: (() => void) | undefined;
  #diverged: ErrDiverged | undefined;
  /** Set once `update()` has thrown. */
  #updateFailed: ErrUpdateFailed | undefined;
  /** Entries that are skipped, known before the state has come to their decision. */
  readonly #skips = new SkippedEntries();
  /** The machine to take the place of the one there is, once it has applied as much. */
  #next:
    | {
      readonly driver: StateMachine<SessionState>;
      readonly isBeyond: boolean;
    }
    | undefined;
  /** Set while a replica whose log is ordered by a server waits, before an entry at which `update()` threw, for the decision to skip it. */
  #parked: Parked | undefined;
  #onParked: (() => void) | undefined;
  /** Cause for which no submission can be sent until the application or a person acts. */
  #blocked: unknown;
  /** Of machines whose place another one has taken, those that were wrong: they may be being saved still. */
  readonly #wrong = new WeakMap<StateMachine<SessionState>, ErrDiverged>();
  #synced = 0;
  #isSyncing = false;
  #cancelSync: (() => void) | undefined;

  private constructor(parts: ReplicaParts) {
    const { config, log, env, factory } = parts;
    this.#parts = parts;
    this.clusterID = config.clusterID;
    this.nodeID = config.nodeID;
    this.type = factory.type;
    this.#proposals = new Proposals({
      clusterID: config.clusterID,
      log,
      env,
      standing: (session) => this.#current?.standing(session),
      sessionOf: (clientID, after, owner) =>
        this.#current?.sessionOf(clientID, after, owner),
      outcomeOf: (session, series) => this.#current?.outcomeOf(session, series),
      detach: (session) => this.#current?.detach(session),
      refusal: (result) => this.#refusalOf(result),
      rehearsal: () => this.#ownRehearsal,
      queue: {
        proposals: config.pendingProposalsMax,
        bytes: config.pendingBytesMax,
      },
    });
    this.#reads = new Reads(log, this.#stopped.signal);
    this.#checkpoints = new Checkpoints((error, from) =>
      this.#onDiverged(error, from)
    );
    onAbort(
      this.#stopped.signal,
      log.storage?.watch((error) =>
        parts.event(
          error === undefined
            ? { type: "log writable" }
            : { type: "log unwritable", error },
        )
      ) ?? ((): void => {}),
    );
    onAbort(
      this.#stopped.signal,
      log.onReopened?.(() => void this.#findLost()) ?? ((): void => {}),
    );
    this.#remote = remoteOf(log, parts.event);
    this.#watches = new Watches(env);
    this.#outbox = this.#attach(parts.outbox);
    this.view = this.#outbox?.view ??
      { lookup: (query) => this.staleRead(query) };
  }

  #attach(outbox: Outbox | undefined): ReplicaOutbox | undefined {
    const { config, factory, log, files, env, principal, device, event } =
      this.#parts;
    return outbox?.attach({
      clusterID: config.clusterID,
      nodeID: config.nodeID,
      factory,
      log,
      files,
      env,
      principal,
      device,
      proposals: this.#proposals,
      stateMachine: () => this.#driver,
      upToDate: (signal) => this.#upToDate(signal),
      check: () => this.#check(),
      recovering: () => this.#recovering,
      onChange: () => this.#watches.wake(),
      onBlocked: (cause) => this.#block(cause),
      onEvent: event,
      onFailure: (cause) => void this.#fail(cause),
      stopped: this.#stopped.signal,
      ended: this.#ended.signal,
    });
  }

  /** For `startReplica()` alone. In a static block instead, it would keep the class in every page. */
  private static start(parts: ReplicaParts): Starting {
    const replica = new Replica(parts);
    replica.#starting = replica.#start();
    replica.#starting.catch((error) => {
      if (!replica.#stopped.signal.aborted) parts.log.block?.(error);
    });
    const { signal } = replica.#stopped;
    const started = abortable(replica.#starting, signal).catch((error) => {
      // Who starts it is told what it failed with (R5), and at which entry.
      throw error === signal.reason ? replica.failure ?? error : error;
    });
    return {
      replica,
      started,
      stop: () => replica.#stop(new ErrClusterClosed()),
    };
  }

  /** For `rehearsalOf()` alone. */
  private static rehearsal(replica: Replica, make: MakeRehearsal): Rehearsal {
    return replica.#rehearsal ??= make({
      driver: () => replica.#current,
      env: replica.#parts.env,
    });
  }

  /** Rehearsal of what is proposed here; undefined while commands are not tried. */
  get #ownRehearsal(): OwnRehearsal | undefined {
    const rehearsing = this.#parts.rehearsing();
    if (rehearsing === undefined) return undefined;
    const rehearsal = Replica.rehearsal(this, rehearsing.make);
    if (!rehearsal.isAble) return undefined;
    return { rehearsal, isTrying: rehearsing.isTrying };
  }

  /**
   * Session that this device has left in the cluster and knows nothing of any
   * more: what was kept here was purged or removed, with what was not sent. Known
   * once the replica has caught up, and only if the host was told the name of the
   * device.
   */
  get purged(): Purged | undefined {
    return this.#outbox?.purged;
  }

  /** State of the replica and of what is submitted through it, and the reason for it. */
  get status(): ReplicaStatus {
    const { aborted } = this.#stopped.signal;
    if (this.error !== undefined) return { state: "failed", error: this.error };
    if (aborted) return { state: "stopped" };
    const error = this.#diverged ?? this.#blocked;
    return error === undefined
      ? { state: "running" }
      : { state: "blocked", error };
  }

  #block(cause: unknown): void {
    this.#blocked = cause;
    this.#parts.log.block?.(cause);
  }

  /** The index of the last entry applied here. */
  get appliedIndex(): number {
    return this.#current?.applied ?? 0;
  }

  /** What the replicated state knows of the session of that id; undefined if it is not, or no longer, there. */
  standing(session: number): SessionInfo | undefined {
    return this.#current?.standing(session);
  }

  /** The number that everything it proposes outside of any session carries, as two halves: by it, it knows its own in the log. */
  get origin(): string {
    const { originLow, originHigh } = this.#proposals;
    return `${originLow} ${originHigh}`;
  }

  /** Reason with which the machine calls a result a refusal. A machine that throws here gives none: its command was applied (R5). */
  #refusalOf(result: Result): string | undefined {
    const refusal = this.#current?.machine.refusal;
    if (refusal === undefined) return undefined;
    try {
      const reason = refusal(result);
      if (reason === undefined) return undefined;
      return clipText(reason || "It is not allowed", REFUSAL_BYTES_MAX);
    } catch (error) {
      this.#parts.event({ type: "refusal failed", error });
      return undefined;
    }
  }

  get #driver(): StateMachine<SessionState> {
    return this.#current!;
  }

  /** Error of the log's last write while nothing can be stored in it; undefined otherwise. */
  get storageError(): unknown {
    return this.#parts.log.storage?.trouble;
  }

  /** What the replica failed with, if it did (R5). */
  get error(): unknown {
    const { aborted, reason } = this.#stopped.signal;
    return aborted
      ? (reason as ErrClusterClosed).cause
      : this.#parked?.error.cause;
  }

  /** Entries that are skipped in its state by an operator's decision, in order (H17). */
  get skips(): SkippedEntry[] {
    return this.#current?.skips ?? [];
  }

  /** Cause of the replica's failure, if it failed: an `ErrUpdateFailed` that names the entry if `update()` threw, else the same as `error`. */
  get failure(): unknown {
    return this.#updateFailed ?? this.error;
  }

  /** Aborts once the replica is stopped or has failed; its reason is the `ErrClusterClosed` that later calls get. */
  get closed(): AbortSignal {
    return this.#stopped.signal;
  }

  /**
   * Proposes a command and resolves with its result once it is applied here
   * (H1). The command is copied before this returns; the result is the caller's.
   * A caller whose signal aborts gets its reason and stops waiting: the command
   * may be applied all the same.
   *
   * @throws ErrProposalRefused if a server refused the command, or the machine says that its result is a refusal, which the error then carries (R15)
   * @throws ErrPayloadTooBig if the command is over the limit
   * @throws ErrSystemBusy if too much waits already
   * @throws ErrUnknownOutcome if it may or may not be applied, or its result is lost
   * @throws ErrInvalidSession if the session is not, or no longer, to be used
   * @throws ErrClusterClosed if the replica was stopped or has failed
   */
  propose(
    cmd: Uint8Array,
    options: { session?: Session; signal?: AbortSignal } = {},
  ): Promise<Result> {
    const parked = this.#whileParked;
    if (parked !== undefined) return Promise.reject(parked);
    return this.#proposals.propose(cmd, options.session, options.signal);
  }

  /**
   * Keeps a command in the outbox and resolves once it is durable there, with
   * or without a connection. From then on it is sent until the cluster has
   * decided it, in the order of submission and through a session: it is applied
   * exactly once, whatever is lost on the way and however often this process
   * dies (H3, U21). The command is copied before this returns.
   *
   * @throws ErrNoOutbox if the host was given no outbox
   * @throws ErrPayloadTooBig if the command is over the limit
   * @throws ErrSystemBusy if too much is in the outbox already
   * @throws ErrStoreFull if there is no room; nothing is kept of the command
   * @throws ErrOutboxCopied if the outbox is a copy of another one (H14)
   * @throws ErrClusterClosed if the replica was stopped or has failed
   */
  submit(cmd: Uint8Array): Promise<Submission> {
    return this.#outbox?.submit(cmd) ?? Promise.reject(new ErrNoOutbox());
  }

  /**
   * What was submitted and is not applied, in order; also what was refused, or
   * is of unknown outcome, until it is dismissed (U15, U18). Known from when the
   * start has resolved. The same array as long as nothing changes.
   */
  pending(): readonly Submission[] {
    return this.#outbox?.pending() ?? NONE;
  }

  /** Calls `listener` when `pending()`, or the state of one of them, has changed, once in a turn of the event loop; returns what ends that. What it throws is ignored. */
  onPending(listener: () => void): () => void {
    return this.#outbox?.onPending(listener) ?? ((): void => {});
  }

  /**
   * Makes an outbox that turned out to be a copy (`ErrOutboxCopied`) one of its
   * own: what it holds is of unknown outcome, since the other holder may have it
   * too; what is submitted from now on goes through a session of its own.
   * Harmless if it is none.
   */
  adoptOutbox(): void {
    this.#outbox?.adopt();
  }

  /**
   * Asks the machine, and reflects everything answered, anywhere, before the
   * call (H2). What the machine throws goes to the caller (R4).
   *
   * @throws ErrClusterClosed if the replica was stopped or has failed
   * @throws ErrDiverged if the replica is known to be wrong (H12)
   */
  async read(
    query: unknown,
    options: { signal?: AbortSignal } = {},
  ): Promise<unknown> {
    await this.#upToDate(options.signal);
    return await abortable(
      Promise.resolve(this.staleRead(query)),
      options.signal,
    );
  }

  /** Asks the machine as it is, at once. */
  staleRead(query: unknown): MaybePromise<unknown> {
    this.#check();
    const closed = this.#closed;
    if (closed !== undefined) return closed.then(() => this.staleRead(query));
    const answer = this.#driver.lookup(query);
    return isPromise(answer) ? abortable(answer, this.#ended.signal) : answer;
  }

  /**
   * Keeps the answer to a query up to date, for as long as somebody watches. By
   * default it shows what is submitted here and not committed yet, too.
   */
  watch<A = unknown>(query: unknown, options: WatchOptions<A> = {}): Watch<A> {
    checkWatch(options as WatchOptions<never>);
    const ask = options.view === "committed"
      ? () => this.staleRead(query)
      : () => this.view.lookup(query);
    return this.#watches.watch(ask as () => MaybePromise<A>, options);
  }

  /**
   * As {@linkcode Replica.read}, from bytes to bytes.
   *
   * @throws ErrNotImplemented if the machine does not implement `naLookup()`
   */
  async naRead(
    query: Uint8Array,
    options: { signal?: AbortSignal } = {},
  ): Promise<Uint8Array> {
    await this.#upToDate(options.signal);
    await this.#closed;
    this.#check();
    const answer = this.#driver.naLookup(query);
    return isPromise(answer)
      ? await abortable(
        abortable(answer, this.#ended.signal),
        options.signal,
      )
      : answer;
  }

  async #upToDate(signal: AbortSignal | undefined): Promise<void> {
    signal?.throwIfAborted();
    this.#check();
    const parked = this.#whileParked;
    if (parked !== undefined) throw parked;
    const index = this.#reads.readIndex();
    if (!isPromise(index) && index <= this.#driver.applied) return;
    await this.#reads.upToDate(index, () => this.#driver.applied, signal);
    this.#check();
  }

  /**
   * Sees to it that nothing waits for ever which the log has acknowledged and
   * lost since, though nothing that is applied here is lost. Never rejects.
   */
  async #findLost(): Promise<void> {
    const opening = ++this.#openings;
    const settle = this.#proposals.acknowledged();
    if (settle === undefined) return;
    const { signal } = this.#stopped;
    const backoff = new Backoff(this.#parts.env);
    // Another opening asks for all that this one does.
    while (opening === this.#openings) {
      try {
        const index = await this.#reads.readIndex();
        if (index > this.appliedIndex) await this.#reads.wait(index, signal);
        if (opening === this.#openings) settle();
        return;
      } catch {
        if (signal.aborted) return;
        try {
          await sleep(this.#parts.env, backoff.next(), signal);
        } catch {
          return;
        }
      }
    }
  }

  /** Throws what a call gets once the replica is stopped, has failed, or is known to be wrong. */
  #check(): void {
    this.#stopped.signal.throwIfAborted();
    if (this.#diverged !== undefined) throw this.#diverged;
    if (this.#driver.closed && this.#recovering === undefined) {
      throw this.#whileParked ?? new ErrSystemBusy("Replica is recovering");
    }
  }

  /** Error for what has to be up to date, while the replica waits before an entry at which `update()` threw. */
  get #whileParked(): ErrClusterClosed | undefined {
    const cause = this.#parked?.error.cause;
    return this.#parked &&
      new ErrClusterClosed("Cluster has failed", { cause });
  }

  /** Settles once there is a machine to be asked, if there is none: its recovery has just failed, and another one takes its place. */
  get #closed(): Promise<void> | undefined {
    return this.#driver.closed && this.#recovering !== undefined
      ? abortable(this.#recovering, this.#ended.signal)
      : undefined;
  }

  /**
   * Opens a session: what is proposed through it is applied exactly once (H3).
   * `owner` is kept with it in the replicated state, for whoever decides who may
   * use which session; at most 256 bytes.
   */
  openSession(
    options: { signal?: AbortSignal; owner?: Uint8Array } = {},
  ): Promise<Session> {
    const { owner = new Uint8Array(), signal } = options;
    const parked = this.#whileParked;
    if (parked !== undefined) return Promise.reject(parked);
    return this.#proposals.openSession(owner, signal);
  }

  /** Closes a session, after what waits in it. */
  closeSession(session: Session): Promise<void> {
    return this.#proposals.closeSession(session);
  }

  /**
   * Takes a snapshot now. Of an on-disk machine it holds no state, as its
   * periodic ones (D10). `compactionOverhead` replaces that of the replica for
   * this snapshot: the log is cut that many entries before the older of the two
   * full snapshots that are kept.
   *
   * @throws ErrSnapshotAborted if the machine chose not to make it (R7)
   * @throws RangeError if `compactionOverhead` is not an integer of at least 0
   */
  async requestSnapshot(
    options: CompactionOptions = {},
  ): Promise<SnapshotInfo> {
    this.#stopped.signal.throwIfAborted();
    checkOptions("Options of the snapshot", options, COMPACTION);
    const { signal, compactionOverhead } = options;
    const taken = this.#snapshotter!.request(signal, compactionOverhead);
    return await abortable(taken, this.#ended.signal);
  }

  /**
   * Cuts the log now, as far as two good full snapshots allow, instead of with
   * the next snapshot; space that is freed in a file is used again, not given
   * back. Resolves with the index up to which it was asked to be cut, which is 0
   * if there are no two such snapshots. Entries that an attached replica or a
   * transfer needs stay (H7).
   *
   * @throws ErrNotImplemented if the log is the server's and has no copy here
   * @throws RangeError if `compactionOverhead` is not an integer of at least 0
   */
  async requestCompaction(options: CompactionOptions = {}): Promise<number> {
    this.#stopped.signal.throwIfAborted();
    checkOptions("Options of the compaction", options, COMPACTION);
    const { signal, compactionOverhead } = options;
    const cut = this.#snapshotter!.compact(signal, compactionOverhead);
    return await abortable(cut, this.#ended.signal);
  }

  /** Extent of its log, where the log can tell. */
  get logInfo(): LogInfo | undefined {
    return this.#parts.log.info?.();
  }

  /**
   * The whole state at the applied index, of any kind of machine, as one stream
   * to be imported elsewhere (H9). It begins with the first read.
   */
  exportSnapshot(): ReadableStream<Uint8Array> {
    this.#check();
    return this.#snapshotter!.export();
  }

  /**
   * The machine's hash, and the index it was taken at (E1).
   *
   * @throws ErrNotImplemented if the machine has none
   */
  async getHash(): Promise<{ index: number; hash: bigint }> {
    this.#stopped.signal.throwIfAborted();
    if (this.#driver.closed) throw new ErrSystemBusy("Replica is recovering");
    return await abortable(
      Promise.resolve(this.#driver.getHash()),
      this.#stopped.signal,
    );
  }

  /**
   * The hashes that a new machine has after each entry in (`after`, `upTo`], by
   * replaying them: what another replica, which differs, compares its own with
   * (H12). Undefined if they cannot be had, as of a machine that is on disk
   * without a `replayMachine`, or has no `getHash()`, or of a part of the log that
   * was cut or is too long.
   *
   * @throws ErrDiverged if this replica is known to be wrong
   * @throws ErrClusterClosed if the replica was stopped or has failed
   */
  async explain(
    after: number,
    upTo: number,
    options: { signal?: AbortSignal } = {},
  ): Promise<readonly Omit<Checkpoint, "nodeID">[] | undefined> {
    this.#check();
    const { signal, release } = anySignal(
      this.#stopped.signal,
      options.signal,
    );
    try {
      const replayed = this.#replay(after, upTo, signal);
      return (await abortable(replayed, signal))?.hashes;
    } catch (error) {
      throw error instanceof MachineFailure ? error.cause : error;
    } finally {
      release();
    }
  }

  #replay(
    after: number,
    upTo: number,
    signal: AbortSignal,
  ): Promise<Replayed | undefined> {
    const { stores, remote, ...options } = this.#bringUpOptions();
    const replayed = this.#explaining.then(() => {
      signal.throwIfAborted();
      const factory = replayFactory(options.factory, this.#parts.config);
      return factory && replay(after, upTo, {
        ...options,
        factory,
        skips: this.#driver.skips,
        stores: remote === undefined ? stores : [...stores, remote],
        signal,
      });
    });
    this.#explaining = replayed.catch(() => {});
    return replayed;
  }

  async #start(): Promise<void> {
    const { log, config, store, kept, shared, files, event, env } = this.#parts;
    const options = this.#bringUpOptions();
    const { driver, reader, retain, remote } = await bringUp(options);
    if (this.#stopped.signal.aborted) {
      reader.close();
      return await driver.close();
    }
    this.#current = driver;
    this.#reader = reader;
    this.#synced = driver.applied;
    this.#snapshotter = new Snapshotter(
      {
        config,
        log,
        store,
        kept,
        shared,
        files,
        env,
        driver: () => this.#driver,
        check: (saved) => {
          this.#check();
          const wrong = saved && this.#wrong.get(saved);
          if (wrong !== undefined) throw wrong;
        },
        event,
        fail: (cause) => void this.#fail(cause),
      },
      driver.applied,
      retain,
    );
    const { checkpoints } = log;
    this.#unwatch = checkpoints?.watch(
      this.nodeID,
      (checkpoint) => this.#checkpoints.other(checkpoint),
    );
    await this.#outbox?.load();
    await this.#writeConfig();
    this.#stopped.signal.throwIfAborted();
    const held = reader.held > driver.applied
      ? this.#reads.wait(reader.held)
      : undefined;
    const parked = new Promise<void>((resolve) => this.#onParked = resolve);
    this.#loop = this.#run(reader);
    if (held !== undefined) await Promise.race([held, parked]);
    this.#isStarted = true;
    this.#outbox?.start();
    if (remote) this.#keep();
  }

  /** Takes a snapshot of what came from afar, so that the next start needs nobody. */
  #keep(): void {
    if (!this.#parts.kept || this.type === OnDiskStateMachine) return;
    this.requestSnapshot().catch(() => {
      // Told by an event.
    });
  }

  #bringUpOptions(): BringUpOptions {
    const { factory, log, store, shared, files, env, event, config } =
      this.#parts;
    return {
      factory,
      env,
      clusterID: this.clusterID,
      nodeID: this.nodeID,
      log,
      stores: shared === undefined ? [store] : [store, shared],
      remote: this.#remote,
      files,
      newDriver: () => this.#newDriver(config.hashEntries ?? 0),
      skips: this.#skips.list(),
      event,
      openStopped: this.#openStopped.signal,
      recoverStopped: this.#recoverStopped.signal,
    };
  }

  #newDriver(hashEntries: number): StateMachine<SessionState> {
    const proposals = this.#proposals;
    const driver: StateMachine<SessionState> = new StateMachine(
      this.#parts.factory,
      this.clusterID,
      this.nodeID,
      {
        originLow: proposals.originLow,
        originHigh: proposals.originHigh,
        locals: proposals.locals,
        proposalApplied: (sequence, result) => {
          if (this.#isNews(driver)) proposals.proposalApplied(sequence, result);
        },
        proposalSkipped: (sequence, reason) => {
          if (this.#isNews(driver)) proposals.proposalSkipped(sequence, reason);
        },
        registered: (clientID, session, owner) => {
          if (!this.#isNews(driver)) return;
          proposals.registered(clientID, session, owner);
        },
        unregistered: (session, next) => {
          if (this.#isNews(driver)) proposals.unregistered(session, next);
        },
        claimed: (session, holder, outcome) => {
          if (this.#isNews(driver)) proposals.claimed(session, holder, outcome);
        },
        answered: (state, series, outcome, result, digest) => {
          if (!this.#isNews(driver)) return;
          proposals.answered(state, series, outcome, result, digest);
        },
        applied: () => {
          // That of a machine that is being recovered counts once it is the one
          // that is asked.
          this.#reads.applied(this.appliedIndex);
          this.#watches.wake();
        },
        checkpoint: (checkpoint) => this.#onCheckpoint(checkpoint),
        checkpointFailed: (error) =>
          this.#parts.event({ type: "hash failed", error }),
      },
      {
        hashEntries,
        skips: this.#skips.list(),
        ...(this.type === OnDiskStateMachine
          ? { room: (error) => this.#awaitRoom(error) }
          : {}),
      },
    );
    return driver;
  }

  /** True if what a machine applies was not told before: one that takes another's place goes over what that one has told. */
  #isNews(driver: StateMachine<SessionState>): boolean {
    return this.#next?.driver !== driver ||
      driver.applied > this.#driver.applied;
  }

  /** Waits until a machine that found no room may be asked again (U8). */
  async #awaitRoom(error: ErrStoreFull): Promise<void> {
    const { env, event } = this.#parts;
    event({ type: "store full", error });
    await sleep(env, STORE_FULL_RETRY_MS, this.#stopped.signal);
  }

  /** The first record of an empty log sets the limits of the cluster, if this replica has some to set (H4). */
  async #writeConfig(): Promise<void> {
    const { log, config: { sessionsMax } } = this.#parts;
    if (sessionsMax === undefined || this.#driver.begun) return;
    if (await log.isEmpty()) {
      await log.append(packRecords(configRecord(sessionsMax)));
    }
  }

  /** Applies what is committed until the replica is stopped. */
  async #run(reader: LogReader): Promise<void> {
    const backoff = new Backoff(this.#parts.env);
    let error: unknown;
    /** Last report: its words, the index, and the failures there. */
    let told = { words: "", at: -1, failures: 0 };
    try {
      for (let open: LogReader | undefined = reader;;) {
        try {
          open ??= await this.#reopen(error, backoff);
          await this.#applyAll(open, backoff);
          // What it waited for has come: read from where the state stands.
          open.close();
          open = error = undefined;
        } catch (caught) {
          open?.close();
          open = undefined;
          error = caught;
          if (this.#stopped.signal.aborted) throw error;
          if (error instanceof ErrSkippedApplied) {
            open = await this.#supersede(error);
            continue;
          }
          if (error instanceof UpdateFailure) {
            open = await this.#afterFailure(error);
            error = undefined;
            continue;
          }
          if (!this.#isPassing(error)) throw error;
          if (error instanceof LogFailure) {
            const { cause } = error;
            const words = messageOf(cause);
            const at = this.appliedIndex;
            if (told.at !== at) told = { words: "", at, failures: 0 };
            if (this.#mustEnd(++told.failures)) throw cause;
            if (told.words === words) continue;
            told.words = words;
            this.#parts.event({ type: "log failed", error: cause });
          }
        }
      }
    } catch (error) {
      if (this.#stopped.signal.aborted) return;
      if (error instanceof UpdateFailure) this.#updateFailed = error.error;
      // Never rejects: what fails while it ends is an event.
      void this.#fail(error instanceof MachineFailure ? error.cause : error);
    }
  }

  /**
   * Goes on after `update()` threw: without the entry, if the log says that it is
   * skipped. Where a server orders the log, the replica waits before the entry
   * until the server's operator has decided; elsewhere it fails (R5).
   */
  async #afterFailure(failure: UpdateFailure): Promise<LogReader> {
    const { entries, error } = failure;
    const { log, event } = this.#parts;
    // What the machine has done to its state before it threw is not known.
    if (this.#remote === undefined) {
      const skips = await guardLog(() => skipsAfter(log, entries.upTo));
      const found = skips.filter((skip) => this.#isNew(skip, entries));
      if (found.length === 0) throw await this.#located(failure);
      this.#skipLater(found);
      return await this.#rebuild(false);
    }
    this.#updateFailed = error;
    this.#parked = { entries, error };
    event({ type: "failed", error: error.cause, failure: error });
    this.#proposals.fail(error.cause);
    const reader = await this.#rebuild(false);
    this.#onParked?.();
    return reader;
  }

  /** The failure with the entry named, of a batch, if a new machine throws at it too. */
  async #located(failure: UpdateFailure): Promise<UpdateFailure> {
    const { entries, error: { cause } } = failure;
    const { factory, config, env } = this.#parts;
    const make = replayFactory(factory, config);
    const driver = this.#next?.driver ?? this.#driver;
    if (entries.index === entries.upTo || make === undefined) return failure;
    const late = new AbortController();
    const cancel = env.setTimer(() => late.abort(), LOCATE_MS_MAX);
    const { signal, release } = anySignal(this.#stopped.signal, late.signal);
    const { stores, remote: _, ...options } = this.#bringUpOptions();
    try {
      const located = locateFailure(entries, {
        ...options,
        factory: make,
        // Also those whose decision is in the batch itself.
        skips: [...driver.knownSkips, ...this.#skips.list()],
        stores,
        signal,
      });
      const ended = located.catch(() => {});
      this.#explaining = Promise.all([this.#explaining, ended]);
      const index = await abortable(located, signal);
      if (index === undefined) return failure;
      const entry = { index, upTo: index };
      return new UpdateFailure(entry, new ErrUpdateFailed(this, entry, cause));
    } catch {
      // The batch is known, and that is what is told.
      return failure;
    } finally {
      release();
      cancel();
    }
  }

  /** True if a decision may help past these entries: another one of the batch may have thrown than the one that is skipped already. */
  #isNew({ index }: SkippedEntry, entries: FailedEntries): boolean {
    return isAmong(index, entries) && this.#skips.get(index) === undefined;
  }

  #skipLater(skips: readonly SkippedEntry[]): void {
    for (const skip of skips) {
      this.#skips.add(skip);
      this.#parts.event({ type: "entry skipped", skip });
    }
  }

  /** Recovers a state without an entry that is skipped, and that the state there is holds. */
  async #supersede(error: ErrSkippedApplied): Promise<LogReader> {
    const { skip } = error;
    this.#skipLater([skip]);
    try {
      // A machine on disk beyond the decision has come there without the entry:
      // only its sessions are being brought up to it.
      const { opened } = this.#next?.driver ?? this.#driver;
      return await this.#rebuild(opened < skip.decidedAt);
    } catch (cause) {
      if (this.#stopped.signal.aborted) throw cause;
      throw new ErrSkippedApplied(skip, { cause });
    }
  }

  /**
   * Brings up another machine, to take the place of the one there is as soon as it
   * has applied as much. Until then, one that is in memory and unharmed answers.
   */
  async #rebuild(discarded: boolean): Promise<LogReader> {
    const before = this.#driver;
    const unfinished = this.#next?.driver;
    this.#next = undefined;
    if (unfinished !== undefined) await discard(unfinished);
    if (this.type === OnDiskStateMachine || before.updateFailed !== undefined) {
      await discard(before);
    }
    const { driver, reader, retain } = await bringUp({
      ...this.#bringUpOptions(),
      discard: discarded,
    });
    if (this.#stopped.signal.aborted) {
      reader.close();
      await discard(driver);
      throw this.#stopped.signal.reason;
    }
    if (retain !== undefined) this.#snapshotter!.retain(retain);
    const isBeyond = driver.applied > before.applied;
    this.#next = { driver, isBeyond };
    this.#takeOver();
    return this.#reader = reader;
  }

  /** Has the machine that was brought up take its place, once it has applied as much as was shown. */
  #takeOver(): void {
    const next = this.#next;
    if (next === undefined) return;
    const before = this.#driver;
    const { driver, isBeyond } = next;
    if (driver.applied < before.applied || driver.behind) return;
    this.#checkHistory(driver.epoch);
    this.#next = undefined;
    this.#moveTo(driver, isBeyond);
    if (!before.closed) {
      // After the lookups that it still answers.
      this.#retired = Promise.all([this.#retired, discard(before)]);
    }
    for (const skip of this.#skips.list()) {
      this.#snapshotter!.removeSuperseded(skip);
    }
  }

  /**
   * Checks that a state at or after the one that was shown is of the same history,
   * by the last epoch of it.
   *
   * @throws ErrOtherHistory if it is not: the log was put back while it was read from the beginning
   */
  #checkHistory(epoch: Epoch | undefined): void {
    const { applied: index, epoch: known } = this.#driver;
    if ((epoch?.index ?? 0) > index) return;
    if (epoch?.index === known?.index && epoch?.id === known?.id) return;
    throw new ErrOtherHistory(
      `The log has another epoch at or before entry ${index}`,
      { known: { index, epoch: known } },
    );
  }

  /** Reads on, before an entry at which `update()` threw, until the log says that it is skipped. */
  async #applyBelow(
    { entries }: Parked,
    reader: LogReader,
    backoff: Backoff,
  ): Promise<void> {
    reader.applied?.(this.appliedIndex);
    for (;;) {
      const next = nextOf(reader);
      const batch = isPromise(next) ? await next : next;
      backoff.reset();
      const found = skipsIn(batch).filter((skip) => this.#isNew(skip, entries));
      if (batch.first < entries.index) {
        const below = batchUpTo(batch, entries.index - 1);
        const applied = this.#apply([below]);
        if (isPromise(applied)) await applied;
        this.#takeOver();
        reader.applied?.(this.appliedIndex);
      }
      if (found.length === 0) continue;
      this.#skipLater(found);
      const driver = this.#next?.driver ?? this.#driver;
      for (const skip of found) driver.skip(skip);
      return this.#unpark();
    }
  }

  #apply(batches: readonly LogBatch[]): MaybePromise<void> {
    const driver = this.#next?.driver ?? this.#driver;
    const { applied: shown } = this.#driver;
    if (driver === this.#current) this.#rehearsal?.read(batches);
    else if (driver.applied < shown && lastOf(batches.at(-1)!) > shown) {
      // It takes the place of the one before it as soon as it has as much.
      const [below, above] = split(batches, shown);
      if (below.length > 0) {
        return chain(this.#apply(below), () => {
          this.#takeOver();
          return this.#apply(above);
        });
      }
    }
    try {
      const applied = driver.apply(batches);
      return isPromise(applied)
        ? applied.catch((cause) => {
          throw this.#judgeApply(driver, cause);
        })
        : undefined;
    } catch (cause) {
      throw this.#judgeApply(driver, cause);
    }
  }

  #judgeApply(driver: StateMachine<SessionState>, cause: unknown): unknown {
    if (cause instanceof ErrSkippedApplied) return cause;
    const failed = driver.updateFailed;
    if (failed !== undefined) {
      const error = new ErrUpdateFailed(this, failed, cause);
      return new UpdateFailure(failed, error);
    }
    // Whatever class it has: reading the log over does not help.
    return new MachineFailure("Entries could not be applied", { cause });
  }

  #unpark(): void {
    this.#parked = this.#updateFailed = undefined;
    this.#watches.wake();
  }

  /** Whether reading the log over, or a snapshot, may help. */
  /** True if a start on a log of this process has failed to read it so many times that it ends. One that is elsewhere is waited for. */
  #mustEnd(failures: number): boolean {
    return !this.#isStarted && this.#remote === undefined &&
      failures >= START_READS_MAX;
  }

  #isPassing(error: unknown): boolean {
    return !this.#stopped.signal.aborted &&
      !(error instanceof MachineFailure) &&
      !(error instanceof ErrOtherHistory) &&
      (this.#diverged !== undefined || error instanceof LogFailure ||
        error instanceof ErrCompacted);
  }

  async #applyAll(reader: LogReader, backoff: Backoff): Promise<void> {
    if (this.#parked !== undefined) {
      return await this.#applyBelow(this.#parked, reader, backoff);
    }
    const { env } = this.#parts;
    let next: MaybePromise<LogBatch> | undefined;
    let slice = env.now();
    reader.applied?.(this.appliedIndex);
    for (;;) {
      const batch = next ?? nextOf(reader);
      const batches = [isPromise(batch) ? await batch : batch];
      backoff.reset();
      if (this.#diverged !== undefined) throw this.#diverged;
      let count = batches[0]!.records.ends.length;
      // What is at hand already goes to the machine in one batch (C7).
      for (;;) {
        try {
          next = nextOf(reader);
        } catch (error) {
          // What was read before it is applied first: each try gets further.
          next = Promise.reject(error);
        }
        if (isPromise(next)) {
          // It may fail while the batch is applied, before anybody awaits it.
          next.catch(() => {});
          break;
        }
        batches.push(next);
        count += next.records.ends.length;
        if (count >= BATCH_RECORDS_MAX) {
          next = undefined;
          break;
        }
      }
      const applied = this.#apply(batches);
      if (isPromise(applied)) await this.#timed(applied);
      if (this.#stopped.signal.aborted) throw this.#stopped.signal.reason;
      this.#takeOver();
      reader.applied?.(this.appliedIndex);
      if (this.#next === undefined) this.#afterApply();
      if (env.now() - slice > APPLY_SLICE_MS) {
        // A page has more to do than to catch up.
        await env.turn();
        slice = env.now();
      }
    }
  }

  /** Waits for the machine; a host whose machine holds it up for long is told. */
  async #timed(applied: Promise<void>): Promise<void> {
    const { env, event } = this.#parts;
    const { guard } = this.#next?.driver ?? this.#driver;
    const cancel = env.setTimer(
      () =>
        event({ type: "slow", calls: guard.calls, waitedMs: MACHINE_SLOW_MS }),
      MACHINE_SLOW_MS,
    );
    try {
      await applied;
    } finally {
      cancel();
    }
  }

  #afterApply(): void {
    const { applied, dirty } = this.#driver;
    this.#snapshotter!.applied(applied);
    if (this.type !== OnDiskStateMachine || !dirty) return;
    const unkept = this.#outbox?.unsynced ?? 0;
    if (
      applied - this.#synced >= SYNC_ENTRIES_MAX ||
      unkept >= SYNC_SUBMISSIONS_MAX && !this.#isSyncing
    ) this.#sync();
    else {
      this.#cancelSync ??= this.#parts.env.setTimer(
        () => this.#sync(),
        SYNC_INTERVAL_MS,
      );
    }
  }

  /** Makes an on-disk machine durable from time to time (D6). */
  #sync(): void {
    this.#cancelSync?.();
    this.#cancelSync = undefined;
    // Its recovery failed; another one is to come (R9).
    if (this.#driver.closed) return;
    const index = this.#driver.applied;
    const decided = this.#outbox?.decided ?? 0;
    this.#synced = index;
    this.#isSyncing = true;
    Promise.resolve().then(() => this.#driver.sync()).then(
      () => {
        this.#isSyncing = false;
        this.#snapshotter!.synced(index);
        this.#outbox?.synced(decided);
      },
      (error) => {
        this.#isSyncing = false;
        if (error instanceof MachineFailure) {
          // Never rejects.
          return void this.#fail(error.cause);
        }
        // Of the host: its recovery failed, and another machine is to come.
        if (!(error instanceof ErrStoreFull)) return;
        this.#parts.event({ type: "store full", error });
        if (this.#stopped.signal.aborted) return;
        this.#cancelSync ??= this.#parts.env.setTimer(
          () => this.#sync(),
          STORE_FULL_RETRY_MS,
        );
      },
    );
  }

  /** The log from where the state stands, when reading it has ended; by way of a snapshot if need be. */
  async #reopen(
    error: unknown,
    backoff: Backoff,
  ): Promise<LogReader> {
    const { log, env } = this.#parts;
    const signal = this.#stopped.signal;
    if (error instanceof LogFailure) await sleep(env, backoff.next(), signal);
    if (this.#diverged !== undefined || error instanceof ErrCompacted) {
      if (await this.#recover()) backoff.reset();
      else {
        this.#parts.event({ type: "log failed", error });
        await sleep(env, backoff.next(), signal);
        // What was cut stays cut; but a snapshot may have been no more than the
        // better way, unless the machine went with one that was lost (R9).
        if (this.#diverged !== undefined || this.#driver.closed) throw error;
      }
    }
    const { applied, epoch } = this.#next?.driver ?? this.#driver;
    const reader = await guardLog(() => log.read(applied, { epoch }));
    if (signal.aborted) {
      // Nobody else would close it: what was there before is closed already.
      reader.close();
      throw signal.reason;
    }
    return this.#reader = reader;
  }

  /** Takes the newest snapshot that helps; false if there is none (yet). */
  async #recover(): Promise<boolean> {
    const { log, event } = this.#parts;
    const wrong = this.#diverged !== undefined;
    const trusted = this.#trusted;
    const { stores, ...options } = this.#bringUpOptions();
    const { remote } = options;
    // A state of the server's history is not to take the place of one that has
    // another, by which it may differ: that is the user's decision.
    const { applied: index, epoch } = this.#driver;
    await guardLog(() =>
      log.verify?.({ index, epoch }, { signal: this.#stopped.signal })
    );
    let list: Candidate[];
    try {
      list = await candidates({
        ...options,
        stores: remote === undefined ? stores : [...stores, remote],
      });
    } catch (error) {
      // A store that fails for a while is no reason to give up (R8).
      event({ type: "snapshot failed", error });
      return false;
    }
    // One that is to take the place of what is shown may be far behind that.
    const base = this.#next?.driver ?? this.#driver;
    for (const candidate of list) {
      const { info } = candidate;
      if (info.kind !== "full") continue;
      if (
        wrong
          ? !this.#checkpoints.agreed(info.nodeID, trusted!, info.index)
          : info.index < base.applied ||
            // One that could not be made durable may have gone with its machine.
            info.index === base.applied && !base.closed
      ) continue;
      const retention = log.retain(info.index);
      try {
        (await log.read(info.index, { epoch: info.epoch })).close();
        await (this.type === OnDiskStateMachine
          ? this.#recoverInPlace(candidate)
          : this.#recoverBeside(candidate));
      } catch (error) {
        if (error instanceof MachineFailure) throw error;
        if (this.#stopped.signal.aborted) throw error;
        if (error instanceof ErrStoreFull) {
          // An older one would find no room either: the same again, later (U8).
          event({ type: "store full", error });
          return false;
        }
        event({ type: "snapshot failed", error });
        continue;
      } finally {
        retention.release();
      }
      if (candidate.store === remote) this.#keep();
      return true;
    }
    return false;
  }

  /**
   * Recovers into a new machine. The one there is answers until that has its
   * state, and goes on to if it never does: a snapshot takes its time on the way,
   * and may be cut off there (R9, U38).
   */
  async #recoverBeside(candidate: Candidate): Promise<void> {
    const driver = this.#newDriver(this.#parts.config.hashEntries ?? 0);
    await recoverFrom(driver, candidate, this.#bringUpOptions());
    const before = this.#driver;
    if (this.#isUnfinished(driver)) return;
    this.#moveTo(driver);
    // After the lookups that it still answers.
    this.#retired = Promise.all([this.#retired, discard(before)]);
  }

  /** True if a machine that has recovered has less than was shown still: it goes on to take the place of that. */
  #isUnfinished(driver: StateMachine<SessionState>): boolean {
    const unfinished = this.#next?.driver;
    if (unfinished === undefined || driver.applied >= this.#driver.applied) {
      return false;
    }
    this.#next = { driver, isBeyond: false };
    // It may be past an entry of the log's beginning.
    if (driver.applied >= (this.#parked?.entries.upTo ?? Infinity)) {
      this.#unpark();
    }
    if (unfinished !== driver) {
      this.#retired = Promise.all([this.#retired, discard(unfinished)]);
    }
    return true;
  }

  /** Recovers a machine that is on disk, of which there are no two. */
  async #recoverInPlace(candidate: Candidate): Promise<void> {
    const { promise, resolve } = withResolvers<void>();
    this.#recovering = promise;
    // Its table is that of what was shown last, also when it is closed.
    const before = this.#driver.capture();
    try {
      let driver = this.#next?.driver ?? this.#driver;
      if (driver.closed) driver = await this.#openAnew();
      // What was shown is to be there again if it fails (U30).
      else await driver.sync();
      try {
        await recoverFrom(driver, candidate, this.#bringUpOptions());
      } catch (error) {
        if (
          !(error instanceof MachineFailure) && !this.#stopped.signal.aborted
        ) await this.#bringBack(before);
        throw error;
      }
      if (!this.#isUnfinished(driver)) this.#moveTo(driver);
    } finally {
      this.#recovering = undefined;
      resolve();
      this.#watches.wake();
    }
  }

  /**
   * The state from before a recovery that failed is on disk still (D11): another
   * machine answers from it, until a recovery succeeds. One that has lost some
   * of it answers nothing.
   */
  async #bringBack(before: StateMetadata): Promise<void> {
    try {
      const driver = await this.#openAnew();
      if (driver.applied < before.index && driver.opened >= before.index) {
        driver.loadSessions(before);
      }
      if (driver.applied < before.index) return await discard(driver);
      // It may have had all of the new one.
      if (driver.applied > before.index) this.#moveTo(driver);
      else this.#current = driver;
    } catch (error) {
      this.#parts.event({ type: "snapshot failed", error });
    }
  }

  /** All is asked of another machine, whose state came from a snapshot, from now on. */
  #moveTo(driver: StateMachine<SessionState>, isBeyond = true): void {
    const unfinished = this.#next?.driver;
    this.#next = undefined;
    if (unfinished !== undefined && unfinished !== driver) {
      this.#retired = Promise.all([this.#retired, discard(unfinished)]);
    }
    if (driver.applied >= (this.#parked?.entries.upTo ?? Infinity)) {
      this.#unpark();
    }
    if (this.#diverged !== undefined && driver !== this.#driver) {
      this.#wrong.set(this.#driver, this.#diverged);
    }
    this.#current = driver;
    this.#rehearsal?.reset();
    this.#diverged = undefined;
    this.#checkpoints.clear();
    // Else it has told all that came after what was shown.
    if (isBeyond) this.#proposals.recovered(driver.applied);
    this.#reads.applied(driver.applied);
    this.#watches.wake();
  }

  /** A new machine on what the one there was has left on disk (R9). */
  async #openAnew(): Promise<StateMachine<SessionState>> {
    const driver = this.#newDriver(this.#parts.config.hashEntries ?? 0);
    try {
      await driver.open(this.#openStopped.signal);
      // It may have paid no heed to the signal.
      this.#openStopped.signal.throwIfAborted();
    } catch (error) {
      await discard(driver);
      throw error;
    }
    return driver;
  }

  #onCheckpoint(checkpoint: Omit<Checkpoint, "nodeID">): void {
    // Put up before it is compared: if it differs, both sides are to know.
    if (this.#diverged === undefined) {
      const { nodeID } = this;
      this.#parts.log.checkpoints?.publish({ ...checkpoint, nodeID });
    }
    this.#checkpoints.own(checkpoint);
  }

  /** Another replica's hashes are not this one's (H12). */
  #onDiverged(error: ErrDiverged, from: bigint): void {
    const { event } = this.#parts;
    if (this.#diverged !== undefined) return;
    event({ type: "diverged", error, from });
    if (from !== this.#trusted) return;
    this.#diverged = error;
    this.#reads.fail(error);
    this.#reader?.close();
    this.#watches.wake();
    this.#explain(error, from).catch((error) => {
      // Anything else than its machine failing says nothing of it.
      if (this.#stopped.signal.aborted || !(error instanceof MachineFailure)) {
        return;
      }
      event({ type: "hash failed", error: error.cause });
    });
  }

  /** The replica that is right when hashes differ. */
  get #trusted(): bigint | undefined {
    const { config: { trustedNode }, log } = this.#parts;
    return trustedNode ?? log.checkpoints?.trusted;
  }

  /** Looks for the entry that parted this replica from the trusted one, and tells (U32). */
  async #explain(
    { after, upTo, message }: ErrDiverged,
    from: bigint,
  ): Promise<void> {
    const { log, env, event } = this.#parts;
    const late = new AbortController();
    const cancel = env.setTimer(() => late.abort(), EXPLAIN_MS_MAX);
    const { signal, release } = anySignal(this.#stopped.signal, late.signal);
    const retention = log.retain(after ?? 0);
    try {
      const asked = log.checkpoints?.explain?.(after ?? 0, upTo!, signal)
        .catch(() => undefined);
      const one = await this.#replay(after ?? 0, upTo!, signal);
      // What is deterministic does the same twice.
      const other = await this.#replay(after ?? 0, upTo!, signal);
      const twice = firstDifference(one?.hashes, other?.hashes) ?? Infinity;
      const right = await (asked && abortable(asked, signal));
      const index = Math.min(
        twice,
        firstDifference(one?.hashes, right) ?? Infinity,
      );
      if (index === Infinity) return;
      const command = one?.commands.get(index);
      const error = new ErrDiverged(
        `${message}: entry ${index} ${
          index === twice
            ? "left two states when it was applied twice"
            : "leaves another one there"
        }`,
        { after, upTo, index, command },
      );
      event({ type: "diverged", error, from });
    } finally {
      retention.release();
      cancel();
      release();
    }
  }

  /** The replica cannot go on (R5). */
  #fail(cause: unknown): Promise<void> {
    if (this.#shutdown === undefined) {
      // What it waited for before says nothing of why it has ended.
      if (this.#updateFailed?.cause !== cause) this.#updateFailed = undefined;
      this.#parts.event({
        type: "failed",
        error: cause,
        failure: this.#updateFailed ?? cause,
      });
    }
    return this.#stop(
      new ErrClusterClosed("Cluster has failed", { cause }),
      cause,
    );
  }

  /** Ends everything, once: what waits gets `waiting`, what comes gets `closed` (H10). */
  #stop(closed: ErrClusterClosed, waiting: unknown = closed): Promise<void> {
    return this.#shutdown ??= this.#end(closed, waiting);
  }

  async #end(closed: ErrClusterClosed, waiting: unknown): Promise<void> {
    const { log, event } = this.#parts;
    // Before the log is closed, which reports it.
    if (closed.cause !== undefined) log.block?.(closed.cause);
    this.#stopped.abort(closed);
    this.#openStopped.abort(new ErrOpenStopped());
    this.#recoverStopped.abort(new ErrSnapshotStopped());
    this.#outbox?.close(waiting, closed);
    this.#proposals.close(waiting, closed);
    this.#reads.fail(waiting);
    this.#watches.end(closed);
    this.#cancelSync?.();
    this.#unwatch?.();
    this.#reader?.close();
    let bound = this.#bound("Machine or log");
    try {
      await abortable(this.#closeMachine(), bound.signal);
    } catch (error) {
      event({ type: "close failed", error });
    }
    this.#ended.abort(closed);
    // Also after a machine that never settles: nothing of it gets there any more.
    if (bound.signal.aborted) bound = this.#bound("Outbox or log");
    try {
      await abortable(Promise.resolve(this.#outbox?.end()), bound.signal);
    } catch (error) {
      event({ type: "close failed", error });
    }
    try {
      await abortable((async () => await log.close())(), bound.signal);
    } catch (error) {
      event({ type: "close failed", error });
    }
    bound.cancel();
  }

  /** How long a stop waits, for what. */
  #bound(what: string): { signal: AbortSignal; cancel: () => void } {
    const { env, stopTimeoutMs } = this.#parts;
    const over = new AbortController();
    const cancel = env.setTimer(() => {
      over.abort(
        new ErrClusterClosed(`${what} did not settle in ${stopTimeoutMs} ms`),
      );
    }, stopTimeoutMs);
    return { signal: over.signal, cancel };
  }

  async #closeMachine(): Promise<void> {
    // A start that failed has closed its machine, and whoever started knows why.
    await this.#starting?.catch(() => {});
    this.#rehearsal?.reset();
    await this.#snapshotter?.stop();
    await this.#loop;
    await this.#explaining;
    await this.#retired;
    const next = this.#next?.driver;
    if (next !== undefined) await discard(next);
    await this.#current?.close();
  }
}

const COMPACTION: OptionChecks<CompactionOptions> = {
  signal: optional(isSignal),
  compactionOverhead: optional(isCount()),
};

/** Nothing was submitted. */
const NONE: readonly Submission[] = [];

/** Starts a replica: for the host alone. */
export function startReplica(parts: ReplicaParts): Starting {
  return Replica["start"](parts);
}

/** Batches up to an index, and those after it. */
function split(
  batches: readonly LogBatch[],
  at: number,
): [below: LogBatch[], above: LogBatch[]] {
  const below: LogBatch[] = [];
  const above: LogBatch[] = [];
  for (const batch of batches) {
    if (batch.first <= at) below.push(batchUpTo(batch, at));
    if (lastOf(batch) > at) above.push(batchAfter(batch, at));
  }
  return [below, above];
}

/** Entries before which a replica waits, and what it threw there. */
interface Parked {
  readonly entries: FailedEntries;
  readonly error: ErrUpdateFailed;
}

/** `update()` threw. */
class UpdateFailure extends MachineFailure {
  readonly entries: FailedEntries;
  readonly error: ErrUpdateFailed;

  constructor(entries: FailedEntries, error: ErrUpdateFailed) {
    super("update() threw", { cause: error.cause });
    this.entries = entries;
    this.error = error;
  }
}

function isAmong(
  index: number,
  { index: first, upTo }: FailedEntries,
): boolean {
  return index >= first && index <= upTo;
}

/** Tries commands of a replica before they are ordered: for servers alone. */
export function rehearsalOf(replica: Replica, make: MakeRehearsal): Rehearsal {
  return Replica["rehearsal"](replica, make);
}

/** The log could not be read, for a reason that may pass. */
class LogFailure extends Error {}

/** What a log says of itself; anything else merely went wrong, and may go right the next time. */
const FINAL = [
  ErrCompacted,
  ErrDiverged,
  ErrLogCorrupted,
  ErrNodeIDTaken,
  ErrClusterClosed,
  ErrStoreCorrupted,
  ErrStoreLocked,
  ErrStoreVanished,
];

function judgeLog(error: unknown): unknown {
  return FINAL.some((known) => error instanceof known)
    ? error
    : new LogFailure("Log could not be read", { cause: error });
}

async function guardLog<T>(call: () => MaybePromise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw judgeLog(error);
  }
}

function nextOf(reader: LogReader): MaybePromise<LogBatch> {
  try {
    const batch = reader.next();
    return isPromise(batch)
      ? batch.catch((error) => {
        throw judgeLog(error);
      })
      : batch;
  } catch (error) {
    throw judgeLog(error);
  }
}
