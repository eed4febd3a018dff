/**
 * Replica of a cluster: façade of its state machine, proposals, reads, sessions
 * and snapshots.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { abortable, onAbort } from "../async.ts";
import type { ReplicaHistory } from "../divergence/mod.ts";
import { ErrClusterClosed } from "../log/errors.ts";
import type { Checkpoint, LogInfo } from "../log/log.ts";
import { packRecords } from "../log/records.ts";
import { VIEW_EAGER_COMMANDS_MAX } from "../limits.ts";
import {
  checkOptions,
  isCount,
  isSignal,
  optional,
  type OptionChecks,
} from "../options.ts";
import type {
  LocalRehearsal,
  MakeRehearsal,
  Rehearsal,
  RehearsalRequest,
} from "../rehearsal/mod.ts";
import { recoveringError } from "../rsm/errors.ts";
import { configRecord } from "../rsm/record_codec.ts";
import type { SkippedEntry } from "../rsm/skipped_entries.ts";
import type { SessionInfo } from "../rsm/state_machine.ts";
import type { SnapshotInfo } from "../snapshot/store.ts";
import type { IActivation } from "../statemachine/machines.ts";
import {
  type MaybePromise,
  OnDiskStateMachine,
  type Result,
  type Type,
} from "../statemachine/types.ts";
import {
  checkWatch,
  type Watch,
  Watches,
  type WatchOptions,
} from "../watch/watch.ts";
import { ApplyLoop } from "./apply_loop.ts";
import { ReplicaContext, type ReplicaPorts } from "./context.ts";
import { CurrentMachine } from "./current_machine.ts";
import type { DiskSync } from "./disk_sync.ts";
import { DivergenceMonitor } from "./divergence_monitor.ts";
import { loadOnDemand, loadReplays } from "./load.ts";
import type {
  Outbox,
  PendingPage,
  Purged,
  ReplicaOutbox,
  Submission,
  View,
} from "./outbox.ts";
import { ErrNoOutbox } from "./outbox_errors.ts";
import { Proposals } from "./proposals.ts";
import { Reads } from "./reads.ts";
import { Recovery } from "./recovery.ts";
import type { Session } from "./session.ts";
import { Snapshotter } from "./snapshotter.ts";

/** Options of a snapshot or compaction on request. */
export interface CompactionOptions {
  /** Aborts the request. */
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
   * `running`: committed entries are applied and submissions are sent, connected
   * or not. `blocked`: the replica runs, but waits for the user or the
   * application, or for a recovery from a snapshot: `error` is an
   * `ErrOutboxCopied`, `ErrOtherPrincipal` or `ErrOtherHistory` if no submission
   * is sent, an `ErrDiverged` if the state is known to be wrong. `failed`: no
   * entry is applied any more, because of `error`; after an `ErrOtherHistory`
   * call `NodeHost.startOver()`, after an `ErrNewerCode` load the newer code.
   * `stopped`: the replica was stopped.
   */
  readonly state: "running" | "blocked" | "failed" | "stopped";
  /** Cause, if the state is `blocked` or `failed`. */
  readonly error?: unknown;
  /** Number of the newest submissions that the answers of `view` do not have yet, if there are any: more are pending than fit into memory. */
  readonly viewLag?: number;
}

/** Ports and settings of a replica, its outbox and its rehearsal. */
export interface ReplicaParts extends ReplicaPorts {
  /** Outbox of the host, if it has one. */
  readonly outbox: Outbox | undefined;
  /** Returns the rehearsal of local proposals before they are ordered; undefined while they are not tried. */
  readonly rehearsing: () => RehearsalRequest | undefined;
  /** Principal who is signed in, if the host was given one. */
  readonly principal: string | undefined;
  /** Name of this device, if the host was given one. */
  readonly device: string | undefined;
}

/** Replica that is being started. */
export interface Starting {
  /** Replica, usable once `started` has resolved. */
  readonly replica: Replica;
  /** Resolves once the replica is ready; rejects with the error of the start. */
  readonly started: Promise<void>;
  /** Stops the replica, also during its start. */
  readonly stop: () => Promise<void>;
}

/** Parts of a replica that exist once it has a state. */
interface Running {
  readonly loop: ApplyLoop;
  readonly snapshotter: Snapshotter;
  /** Set for an on-disk machine. */
  readonly diskSync: DiskSync | undefined;
}

/**
 * One replica of a cluster: proposals, submissions, reads, watches, sessions and
 * snapshots of its state machine. Every method that waits rejects with
 * `ErrClusterClosed` once the replica is stopped (H10).
 */
export class Replica<Q = unknown, A = unknown> {
  /** Cluster of the replica. */
  readonly clusterID: bigint;
  /** Id of the replica in its cluster. */
  readonly nodeID: bigint;
  /** Kind of its state machine. */
  readonly type: Type;
  /** Committed state with the pending submissions of this replica applied to it. */
  readonly view: View<Q, A>;
  readonly #parts: ReplicaParts;
  readonly #context: ReplicaContext;
  readonly #machine: CurrentMachine;
  readonly #proposals: Proposals;
  readonly #outbox: ReplicaOutbox | undefined;
  readonly #reads: Reads;
  readonly #divergence: DivergenceMonitor;
  readonly #recovery: Recovery;
  readonly #watches: Watches;
  /** Set once a server has requested that commands are rehearsed. */
  #rehearsal: Rehearsal | undefined;
  #running: Running | undefined;
  #starting: Promise<void> | undefined;
  #shutdown: Promise<void> | undefined;

  private constructor(parts: ReplicaParts) {
    const context = new ReplicaContext(
      parts,
      // Never rejects: errors while it ends are events.
      (cause) => void this.#fail(cause),
    );
    const { log, stopped } = context;
    log.announcements?.announce(undefined);
    this.clusterID = context.clusterID;
    this.nodeID = context.nodeID;
    this.type = context.type;
    this.#parts = parts;
    this.#context = context;
    const machine = this.#machine = new CurrentMachine(context);
    const rehearsal = (): LocalRehearsal | undefined => this.#localRehearsal;
    this.#proposals = new Proposals(context, machine, rehearsal);
    this.#reads = new Reads(context, machine);
    this.#divergence = new DivergenceMonitor(context, machine, (error) => {
      machine.failWaiters(error);
      this.#running?.loop.interrupt();
      machine.changed();
    });
    this.#recovery = new Recovery(
      context,
      machine,
      this.#proposals,
      this.#divergence,
    );
    this.#watches = new Watches(
      context.env,
      () => this.pendingCount > VIEW_EAGER_COMMANDS_MAX,
    );
    machine.watch((isBeyond) => {
      this.#rehearsal?.reset();
      this.#divergence.reset();
      if (isBeyond) this.#proposals.recovered(machine.applied);
    }, () => this.#watches.wake());
    const unwatchStorage = log.storage?.watch((error) =>
      context.event(
        error === undefined
          ? { type: "log writable" }
          : { type: "log unwritable", error },
      )
    );
    const unwatchReopening = log.onReopened?.(() =>
      void this.#reads.afterReopening(this.#proposals.collectAcknowledged())
    );
    onAbort(stopped, () => {
      unwatchStorage?.();
      unwatchReopening?.();
    });
    this.#outbox = this.#attach(parts);
    const view: View = this.#outbox?.view ??
      { lag: 0, lookup: (query) => machine.lookup(query) };
    this.view = view as View<Q, A>;
  }

  #attach(
    { outbox, principal, device }: ReplicaParts,
  ): ReplicaOutbox | undefined {
    return outbox?.attach({
      context: this.#context,
      machine: this.#machine,
      proposals: this.#proposals,
      reads: this.#reads,
      principal,
      device,
    });
  }

  /** Starts a replica; only for `startReplica()`. A static block instead would prevent tree shaking of the class. */
  private static start(parts: ReplicaParts): Starting {
    const replica = new Replica(parts);
    const { stopped } = replica.#context;
    replica.#starting = replica.#start();
    replica.#starting.catch((error) => {
      if (!stopped.aborted) parts.log.block?.(error);
    });
    const started = abortable(replica.#starting, stopped).catch((error) => {
      // The caller of the start gets the cause of the failure (R5), with the entry
      // at which it happened.
      throw error === stopped.reason ? replica.failure ?? error : error;
    });
    return {
      replica,
      started,
      stop: () => replica.#stop(new ErrClusterClosed()),
    };
  }

  /** Rehearsal of a replica; only for `rehearsalOf()`. */
  private static rehearsal(replica: Replica, make: MakeRehearsal): Rehearsal {
    return replica.#rehearsal ??= make({
      stateMachine: () =>
        replica.#machine.isStarted ? replica.#machine.current : undefined,
      env: replica.#context.env,
    });
  }

  /** Admission of a command by its machine; only for `admitTo()`. */
  private static admit(
    replica: Replica,
    cmd: Uint8Array,
    principal: string | null,
  ): string | undefined {
    return replica.#machine.admit(cmd, principal);
  }

  /** Rehearsal of the proposals of this host; undefined while they are not rehearsed. */
  get #localRehearsal(): LocalRehearsal | undefined {
    const rehearsing = this.#parts.rehearsing();
    if (rehearsing === undefined) return undefined;
    const rehearsal = Replica.rehearsal(this, rehearsing.make);
    if (!rehearsal.isAble) return undefined;
    return { rehearsal, isRefusing: rehearsing.isRefusing };
  }

  /**
   * Session that this device opened in the cluster before its data was purged or
   * removed, together with submissions that were not sent. Known once the replica
   * has caught up, and only if the host was given the name of the device.
   */
  get purged(): Purged | undefined {
    return this.#outbox?.purged;
  }

  /**
   * Author of what is submitted now: id of the principal as which a server has last
   * welcomed this client, also before the last restart if the host has an outbox;
   * before the first welcome the `principal` of the host. Null for the anonymous
   * principal, and if none is known.
   */
  get principal(): string | null {
    const { principal } = this.#context.log;
    if (principal !== undefined) return principal;
    return this.#parts.principal ?? this.#outbox?.author ?? null;
  }

  /** State of the replica and its submissions, with the cause. */
  get status(): ReplicaStatus {
    const { error: failure } = this;
    if (failure !== undefined) return { state: "failed", error: failure };
    if (this.#context.stopped.aborted) return { state: "stopped" };
    const error = this.#context.diverged ?? this.#context.blocked;
    const { lag: viewLag } = this.view;
    return {
      ...(error === undefined
        ? { state: "running" }
        : { state: "blocked", error }),
      ...(viewLag > 0 ? { viewLag } : {}),
    };
  }

  /** Index of the last entry applied here. */
  get appliedIndex(): number {
    return this.#machine.applied;
  }

  /**
   * Resolves once all entries up to `index` are applied here; synchronous if they
   * are already.
   *
   * @throws ErrClusterClosed if the replica was stopped or has failed
   * @throws ErrDiverged if the replica is found to have diverged before (H12)
   */
  untilApplied(index: number, signal?: AbortSignal): MaybePromise<void> {
    return this.#machine.until(index, signal);
  }

  /** State of the session of that id; undefined if it is not, or no longer, open. */
  sessionInfo(session: number): SessionInfo | undefined {
    return this.#machine.sessionInfo(session);
  }

  /** Random origin of its proposals outside of any session, as two halves: the replica recognizes its own entries by it. */
  get origin(): string {
    const { originLow, originHigh } = this.#proposals;
    return `${originLow} ${originHigh}`;
  }

  /** Error of the log's last write while the log cannot be written; undefined otherwise. */
  get storageError(): unknown {
    return this.#context.log.storage?.trouble;
  }

  /** Cause of the replica's failure; undefined if it has not failed (R5). */
  get error(): unknown {
    const { aborted, reason } = this.#context.stopped;
    return aborted
      ? (reason as ErrClusterClosed).cause
      : this.#machine.newerSnapshot ?? this.#machine.parked?.error.cause;
  }

  /** Entries that its state does not contain because an operator decided to skip them, in order (H17). */
  get skips(): SkippedEntry[] {
    return this.#machine.isStarted ? this.#machine.current.skips : [];
  }

  /** Cause of the replica's failure: an `ErrUpdateFailed` that names the entry if `update()` threw, otherwise the same as `error`. */
  get failure(): unknown {
    return this.#context.updateFailed ?? this.error;
  }

  /** Aborts once the replica is stopped or has failed; its reason is the `ErrClusterClosed` that later calls get. */
  get closed(): AbortSignal {
    return this.#context.stopped;
  }

  /**
   * Proposes a command and resolves with its result once it is applied here
   * (H1). The command is copied before this returns; the caller owns the result.
   * If the signal aborts, the promise rejects with its reason, but the command may
   * still be applied.
   *
   * @throws ErrProposalRefused if a server refused the command, or the machine calls its result a refusal; the error then has the result (R15)
   * @throws ErrPayloadTooBig if the command is over the limit
   * @throws ErrSystemBusy if too many proposals are pending
   * @throws ErrUnknownOutcome if it is not known whether the command is applied, or its result is lost
   * @throws ErrInvalidSession if the session cannot be used (any more)
   * @throws ErrClusterClosed if the replica was stopped or has failed
   */
  propose(
    cmd: Uint8Array,
    options: { session?: Session; signal?: AbortSignal } = {},
  ): Promise<Result> {
    const parked = this.#machine.parkedError;
    if (parked !== undefined) return Promise.reject(parked);
    return this.#proposals.propose(cmd, options.session, options.signal);
  }

  /**
   * Stores a command in the outbox and resolves once it is durable there, with or
   * without a connection. It is then sent in a session, in the order of
   * submission, until the cluster has decided it: it is applied exactly once, also
   * if messages are lost or this process dies (H3, U21). The command is copied
   * before this returns.
   *
   * If the state machine merges the command with the newest submission, and that was
   * never sent, the two are one submission from then on: this resolves to it, and
   * result, refusal and dismissal are those of both (U41).
   *
   * @throws ErrNoOutbox if the host was given no outbox
   * @throws ErrPayloadTooBig if the command is over the limit
   * @throws ErrSystemBusy if the outbox has too many submissions
   * @throws ErrStoreFull if there is no room; the command is not stored
   * @throws ErrOutboxCopied if the outbox is a copy of another outbox (H14)
   * @throws ErrClusterClosed if the replica was stopped or has failed
   */
  submit(cmd: Uint8Array): Promise<Submission> {
    return this.#outbox?.submit(cmd) ?? Promise.reject(new ErrNoOutbox());
  }

  /**
   * Submissions that are not applied, in order: all that were refused or are of
   * unknown outcome, until they are dismissed (U15, U18), and the oldest 1,024 of
   * those that are queued; `pendingCount` counts all. Complete once the start has
   * resolved. The same array until something changes.
   */
  pending(): readonly Submission[] {
    return this.#outbox?.pending() ?? NONE;
  }

  /**
   * Lists submissions that are not applied, from a number on, in order: up to 1,024
   * at once. Those that are not in memory are read from the outbox.
   *
   * @throws ErrClusterClosed if the replica was stopped or has failed
   */
  async pendingFrom(cursor: number = 0): Promise<PendingPage> {
    return await this.#outbox?.pendingFrom(cursor) ??
      { submissions: NONE, next: undefined };
  }

  /** Number of submissions that are not applied, including those that were refused or are of unknown outcome until they are dismissed. */
  get pendingCount(): number {
    return this.#outbox?.pendingCount ?? 0;
  }

  /** Calls `listener` when `pending()`, or the state of a submission, has changed, at most once in a turn of the event loop; returns a function that removes it. What it throws is ignored. */
  onPending(listener: () => void): () => void {
    return this.#outbox?.onPending(listener) ?? ((): void => {});
  }

  /**
   * Makes an outbox that turned out to be a copy (`ErrOutboxCopied`) independent:
   * its submissions become of unknown outcome, since the other holder may send
   * them too; later submissions go through a new session. Has no effect on an
   * outbox that is not a copy.
   */
  adoptOutbox(): void {
    this.#outbox?.adopt();
  }

  /**
   * Activates a change of behaviour that the machine knows. Resolves once it is
   * applied here. With `force` it does not matter that a live replica on the log has
   * not announced that it knows the change: replicas with older code stop at it.
   * Needed only for that: otherwise the host that orders the log activates it.
   *
   * @throws ErrChangeUnknown without `force`, if a live replica may not know it; nothing was proposed
   * @throws ErrNotImplemented if the machine has no such changes, or a server orders its log
   */
  async activateChange(
    change: string,
    options: { readonly force?: boolean } = {},
  ): Promise<void> {
    const { activateChange } = await loadOnDemand();
    const cmd = activateChange(this.#context, this.#machine, change, options);
    if (cmd !== undefined) await this.propose(cmd);
  }

  /**
   * Queries the state machine. Linearizable: the answer reflects every proposal
   * that had its result, on any replica, before the call (H2). Rejects with what
   * `lookup()` throws (R4).
   *
   * @throws ErrClusterClosed if the replica was stopped or has failed
   * @throws ErrDiverged if the replica is known to have diverged (H12)
   */
  async read(
    query: Q,
    options: { signal?: AbortSignal } = {},
  ): Promise<A> {
    await this.#reads.upToDate(options.signal);
    return await abortable(
      Promise.resolve(this.staleRead(query)),
      options.signal,
    );
  }

  /** Queries the state machine in its present state, which may be behind that of other replicas. */
  staleRead(query: Q): MaybePromise<A> {
    return this.#machine.lookup(query) as MaybePromise<A>;
  }

  /**
   * Keeps the answer to a query up to date while it has subscribers. By default the
   * answer includes the pending submissions of this replica.
   */
  watch<B = A>(query: Q, options: WatchOptions<B> = {}): Watch<B> {
    checkWatch(options as WatchOptions<never>);
    const ask = options.view === "committed"
      ? () => this.staleRead(query)
      : () => this.view.lookup(query);
    return this.#watches.watch(
      ask as () => MaybePromise<unknown> as () => MaybePromise<B>,
      options,
    );
  }

  /**
   * Queries the state machine like {@linkcode Replica.read}, from bytes to bytes.
   *
   * @throws ErrNotImplemented if the machine does not implement `naLookup()`
   */
  async naRead(
    query: Uint8Array,
    options: { signal?: AbortSignal } = {},
  ): Promise<Uint8Array> {
    await this.#reads.upToDate(options.signal);
    return await abortable(this.#machine.naLookup(query), options.signal);
  }

  /**
   * Opens a session, whose proposals are applied exactly once (H3). `owner` is
   * stored with it in the replicated state, so that a server can decide which
   * principal may use the session; at most 256 bytes.
   */
  openSession(
    options: { signal?: AbortSignal; owner?: Uint8Array } = {},
  ): Promise<Session> {
    const { owner = new Uint8Array(), signal } = options;
    const parked = this.#machine.parkedError;
    if (parked !== undefined) return Promise.reject(parked);
    return this.#proposals.openSession(owner, signal);
  }

  /** Closes a session, after its pending proposals. */
  closeSession(session: Session): Promise<void> {
    return this.#proposals.closeSession(session);
  }

  /**
   * Takes a snapshot now; of an on-disk machine, one that is full as often as the
   * periodic ones are (D10). `compactionOverhead` replaces that of the replica for
   * this snapshot: the log is compacted up to that many entries before the older
   * of the two full snapshots.
   *
   * @throws ErrSnapshotAborted if the machine declined to save its state (R7)
   * @throws RangeError if `compactionOverhead` is not an integer of at least 0
   */
  async requestSnapshot(
    options: CompactionOptions = {},
  ): Promise<SnapshotInfo> {
    this.#context.stopped.throwIfAborted();
    checkCompaction("Options of the snapshot", options);
    const { signal, compactionOverhead } = options;
    const taken = this.#context.log.keeper?.requestSnapshot(options) ??
      this.#running!.snapshotter.request(signal, compactionOverhead);
    return await abortable(taken, this.#context.ended);
  }

  /**
   * Compacts the log now, as far as two good full snapshots allow, instead of
   * after the next snapshot; space freed in a file is reused, not returned.
   * Resolves with the index up to which compaction was requested, 0 without two
   * such snapshots. Entries that an attached replica or a transfer needs stay
   * (H7).
   *
   * @throws ErrNotImplemented if the log is the server's and has no copy here
   * @throws RangeError if `compactionOverhead` is not an integer of at least 0
   */
  async requestCompaction(options: CompactionOptions = {}): Promise<number> {
    this.#context.stopped.throwIfAborted();
    checkCompaction("Options of the compaction", options);
    const { signal, compactionOverhead } = options;
    const compacted = this.#context.log.keeper?.requestCompaction(options) ??
      this.#running!.snapshotter.compact(signal, compactionOverhead);
    return await abortable(compacted, this.#context.ended);
  }

  /** Extent of its log, if the log reports it. */
  get logInfo(): LogInfo | undefined {
    return this.#context.log.info?.();
  }

  /**
   * Exports the whole state at the applied index, of any kind of machine, as one
   * stream that another host can import (H9). It starts with the first read.
   */
  exportSnapshot(): ReadableStream<Uint8Array> {
    this.#machine.check();
    return this.#running!.snapshotter.export();
  }

  /**
   * State hash of the machine, and the index it was computed at (E1).
   *
   * @throws ErrNotImplemented if the machine has none
   */
  async getHash(): Promise<{ index: number; hash: bigint }> {
    const { stopped } = this.#context;
    stopped.throwIfAborted();
    const { current } = this.#machine;
    if (current.closed) throw recoveringError(this.clusterID);
    return await abortable(Promise.resolve(current.getHash()), stopped);
  }

  /**
   * Computes the state hash after each entry in (`after`, `upTo`] by replaying
   * them into a new machine, for another replica that has diverged (H12).
   * Undefined if that is not possible: for an on-disk machine without
   * `replayMachine`, a machine without `getHash()`, or entries that are compacted
   * or too many.
   *
   * @throws ErrDiverged if this replica is known to be wrong
   * @throws ErrClusterClosed if the replica was stopped or has failed
   */
  async explain(
    after: number,
    upTo: number,
    options: { signal?: AbortSignal } = {},
  ): Promise<readonly Omit<Checkpoint, "nodeID">[] | undefined> {
    this.#machine.check();
    return await this.#divergence.hashes(after, upTo, options.signal);
  }

  /** Read-only access to the log and to earlier states, for inspectors. Its code is loaded at the first call. */
  async history(): Promise<ReplicaHistory> {
    const { history } = await loadReplays();
    return history(this.#context, this.#machine, this.#divergence);
  }

  async #start(): Promise<void> {
    const context = this.#context;
    const { stopped } = context;
    const machine = this.#machine;
    const Sync = this.type === OnDiskStateMachine
      ? (await abortable(loadOnDemand(), stopped)).DiskSync
      : undefined;
    const { stateMachine, reader, retain, isRemote } = await this.#recovery
      .recoverInitial();
    if (stopped.aborted) {
      reader.close();
      return await stateMachine.close();
    }
    machine.start(stateMachine);
    const { activation } = stateMachine.machine;
    context.log.announcements?.announce(activation?.changes ?? []);
    const snapshotter = new Snapshotter(context, machine, retain);
    const diskSync = Sync &&
      new Sync(
        context,
        machine,
        (index) => snapshotter.synced(index),
        this.#outbox,
      );
    const loop = new ApplyLoop(context, reader, {
      machine,
      proposals: this.#proposals,
      recovery: this.#recovery,
      divergence: this.#divergence,
      snapshotter,
      diskSync,
      rehearsal: () => this.#rehearsal,
    });
    this.#running = { loop, snapshotter, diskSync };
    this.#divergence.start();
    await this.#outbox?.load();
    await this.#writeConfig();
    stopped.throwIfAborted();
    await loop.start();
    if (activation !== undefined && context.remote === undefined) {
      await this.#activateChanges(activation);
    }
    this.#outbox?.start();
    if (isRemote) snapshotter.saveRemoteState();
  }

  /** Activates changes of behaviour that this code knows, as the log is ordered here. */
  async #activateChanges({ changes }: IActivation): Promise<void> {
    if (changes.length === 0) return;
    try {
      const { activateChanges } = await loadOnDemand();
      activateChanges(
        this.#context,
        this.#machine,
        (cmd) => this.#proposals.propose(cmd, undefined, undefined),
      );
    } catch (error) {
      // The code could not be loaded: the next start tries again.
      this.#context.event({ type: "activation failed", error });
    }
  }

  /** Appends the configuration of the cluster as the first record of an empty log, if this replica has some to set (H4). */
  async #writeConfig(): Promise<void> {
    const { log, config: { sessionsMax } } = this.#context;
    if (sessionsMax === undefined || this.#machine.current.begun) return;
    if (await log.isEmpty()) {
      await log.append(packRecords(configRecord(sessionsMax)));
    }
  }

  /** Ends the replica because of an error (R5). */
  #fail(cause: unknown): Promise<void> {
    const context = this.#context;
    if (this.#shutdown === undefined) {
      // `updateFailed` may name an entry that is not the cause of this error.
      if (context.updateFailed?.cause !== cause) {
        context.updateFailed = undefined;
      }
      const failure = context.updateFailed ?? cause;
      context.event({ type: "failed", error: cause, failure });
    }
    const closed = new ErrClusterClosed(
      `Cluster ${this.clusterID} has failed`,
      { cause },
    );
    return this.#stop(closed, cause);
  }

  /** Ends the replica, once: pending calls reject with `pending`, later ones with `closed` (H10). */
  #stop(closed: ErrClusterClosed, pending: unknown = closed): Promise<void> {
    return this.#shutdown ??= this.#end(closed, pending);
  }

  async #end(closed: ErrClusterClosed, pending: unknown): Promise<void> {
    const context = this.#context;
    const { log, event } = context;
    // Before the log is closed, since the log's status reports the cause.
    if (closed.cause !== undefined) log.block?.(closed.cause);
    context.stop(closed);
    this.#outbox?.close(pending, closed);
    this.#proposals.close(pending, closed);
    this.#machine.failWaiters(pending);
    this.#watches.end(closed);
    this.#running?.diskSync?.stop();
    this.#divergence.close();
    this.#running?.loop.interrupt();
    let timeout = this.#timeout("Machine or log");
    const close = async (work: () => unknown): Promise<void> => {
      try {
        await abortable((async () => void await work())(), timeout.signal);
      } catch (error) {
        event({ type: "close failed", error });
      }
    };
    await close(() => this.#closeMachine());
    context.end(closed);
    // A machine that never settles must not use up the time of the outbox and the log.
    if (timeout.signal.aborted) timeout = this.#timeout("Outbox or log");
    await close(() => this.#outbox?.end());
    await close(() => log.close());
    timeout.cancel();
  }

  /** Signal that aborts when a stop has waited for `what` long enough. */
  #timeout(what: string): { signal: AbortSignal; cancel: () => void } {
    const { env, stopTimeoutMs } = this.#context;
    const controller = new AbortController();
    const cancel = env.setTimer(() => {
      controller.abort(
        new ErrClusterClosed(
          `${what} did not settle within ${stopTimeoutMs} ms`,
        ),
      );
    }, stopTimeoutMs);
    return { signal: controller.signal, cancel };
  }

  async #closeMachine(): Promise<void> {
    // A start that failed has closed its machine and rejected with the cause.
    await this.#starting?.catch(() => {});
    this.#rehearsal?.reset();
    await this.#running?.snapshotter.stop();
    await this.#running?.loop.ended();
    await this.#divergence.ended();
    await this.#running?.diskSync?.finish();
    await this.#machine.close();
  }
}

/** Checks the options of a snapshot or a compaction; `what` names them in messages. */
function checkCompaction(what: string, options: CompactionOptions): void {
  const checks: OptionChecks<CompactionOptions> = {
    signal: optional(isSignal),
    compactionOverhead: optional(isCount()),
  };
  checkOptions(what, options, checks);
}

/** Pending submissions of a replica without an outbox. */
const NONE: readonly Submission[] = [];

/** Starts a replica; for `NodeHost` only. */
export function startReplica(parts: ReplicaParts): Starting {
  return Replica["start"](parts);
}

/** Returns the rehearsal of a replica's commands before they are ordered; for servers only. */
export function rehearsalOf(replica: Replica, make: MakeRehearsal): Rehearsal {
  return Replica["rehearsal"](replica, make);
}

/** Reason for which the machine of a replica refuses a client's command before it is ordered; throws if the command has to wait; for servers only. */
export function admitTo(
  replica: Replica,
  cmd: Uint8Array,
  principal: string | null,
): string | undefined {
  return Replica["admit"](replica, cmd, principal);
}
