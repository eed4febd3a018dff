/**
 * One replica of a cluster, as its application uses it.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { abortable, isPromise, onAbort } from "../async.ts";
import { ErrClusterClosed } from "../log/errors.ts";
import type { Checkpoint, LogInfo } from "../log/log.ts";
import { packRecords } from "../log/records.ts";
import {
  checkOptions,
  isCount,
  isSignal,
  optional,
  type OptionChecks,
} from "../options.ts";
import type {
  MakeRehearsal,
  OwnRehearsal,
  Rehearsal,
  Rehearsing,
} from "../rehearsal/rehearsal.ts";
import { ErrSystemBusy } from "../rsm/errors.ts";
import { configRecord } from "../rsm/record_codec.ts";
import type { SkippedEntry } from "../rsm/skipped_entries.ts";
import type { SessionInfo } from "../rsm/state_machine.ts";
import type { SnapshotInfo } from "../snapshot/store.ts";
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
import { DiskSync } from "./disk_sync.ts";
import { DivergenceMonitor } from "./divergence.ts";
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
import { Recovery } from "./recovery.ts";
import type { Session } from "./session.ts";
import { Snapshotter } from "./snapshotter.ts";

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

/** What a host gives to a replica. */
export interface ReplicaParts extends ReplicaPorts {
  /** Outbox of the host, if it has one. */
  readonly outbox: Outbox | undefined;
  /** Returns the rehearsal of local proposals before they are ordered; undefined while they are not tried. */
  readonly rehearsing: () => Rehearsing | undefined;
  /** Principal who is signed in, if the host was told. */
  readonly principal: string | undefined;
  /** Name of this device, if the host was told. */
  readonly device: string | undefined;
}

/** A replica that is being started. */
export interface Starting {
  /** The replica. */
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
export class Replica {
  /** Cluster of the replica. */
  readonly clusterID: bigint;
  /** Id of the replica in its cluster. */
  readonly nodeID: bigint;
  /** Kind of its state machine. */
  readonly type: Type;
  /** Committed state with the pending submissions of this replica applied to it. */
  readonly view: View;
  readonly #parts: ReplicaParts;
  readonly #context: ReplicaContext;
  readonly #machine: CurrentMachine;
  readonly #proposals: Proposals;
  readonly #outbox: ReplicaOutbox | undefined;
  readonly #reads: Reads;
  readonly #divergence: DivergenceMonitor;
  readonly #recovery: Recovery;
  readonly #watches: Watches;
  /** Set once a server, or the host, asked for commands to be tried before they are ordered. */
  #rehearsal: Rehearsal | undefined;
  #running: Running | undefined;
  #starting: Promise<void> | undefined;
  #shutdown: Promise<void> | undefined;
  /** Reason why no submission can be sent until the application or the user acts. */
  #blocked: unknown;

  private constructor(parts: ReplicaParts) {
    const context = new ReplicaContext(
      parts,
      // Never rejects: errors while it ends are events.
      (cause) => void this.#fail(cause),
    );
    const { log, stopped } = context;
    this.clusterID = context.clusterID;
    this.nodeID = context.nodeID;
    this.type = context.type;
    this.#parts = parts;
    this.#context = context;
    const machine = this.#machine = new CurrentMachine(context);
    const rehearsal = (): OwnRehearsal | undefined => this.#ownRehearsal;
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
    this.#watches = new Watches(context.env);
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
      void this.#reads.afterReopening(this.#proposals.acknowledged())
    );
    onAbort(stopped, () => {
      unwatchStorage?.();
      unwatchReopening?.();
    });
    this.#outbox = this.#attach(parts);
    this.view = this.#outbox?.view ??
      { lookup: (query) => machine.lookup(query) };
  }

  #attach(
    { outbox, principal, device }: ReplicaParts,
  ): ReplicaOutbox | undefined {
    const machine = this.#machine;
    const context = this.#context;
    const { clusterID, nodeID, factory, log, files, env } = context;
    return outbox?.attach({
      clusterID,
      nodeID,
      factory,
      log,
      files,
      env,
      principal,
      device,
      proposals: this.#proposals,
      stateMachine: () => machine.current,
      upToDate: (signal) => this.#upToDate(signal),
      check: () => machine.check(),
      recovering: () => machine.recovering,
      onChange: () => machine.changed(),
      onBlocked: (cause) => this.#block(cause),
      onEvent: context.event,
      onFailure: context.fail,
      stopped: context.stopped,
      ended: context.ended,
    });
  }

  /** For `startReplica()` alone. In a static block instead, it would keep the class in every page. */
  private static start(parts: ReplicaParts): Starting {
    const replica = new Replica(parts);
    const { stopped } = replica.#context;
    replica.#starting = replica.#start();
    replica.#starting.catch((error) => {
      if (!stopped.aborted) parts.log.block?.(error);
    });
    const started = abortable(replica.#starting, stopped).catch((error) => {
      // The caller of the start gets the cause of the failure (R5), and its entry.
      throw error === stopped.reason ? replica.failure ?? error : error;
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
      driver: () =>
        replica.#machine.isStarted ? replica.#machine.current : undefined,
      env: replica.#context.env,
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
    const { error: failure } = this;
    if (failure !== undefined) return { state: "failed", error: failure };
    if (this.#context.stopped.aborted) return { state: "stopped" };
    const error = this.#context.diverged ?? this.#blocked;
    return error === undefined
      ? { state: "running" }
      : { state: "blocked", error };
  }

  #block(cause: unknown): void {
    this.#blocked = cause;
    this.#context.log.block?.(cause);
  }

  /** The index of the last entry applied here. */
  get appliedIndex(): number {
    return this.#machine.applied;
  }

  /**
   * Resolves once all entries up to `index` are applied here.
   *
   * @throws the reason of `signal` if that aborts first, or `ErrClusterClosed` if the replica ends
   */
  untilApplied(index: number, signal?: AbortSignal): MaybePromise<void> {
    return this.#machine.until(index, signal);
  }

  /** What the replicated state knows of the session of that id; undefined if it is not, or no longer, there. */
  standing(session: number): SessionInfo | undefined {
    return this.#machine.standing(session);
  }

  /** The number that everything it proposes outside of any session carries, as two halves: by it, it knows its own in the log. */
  get origin(): string {
    const { originLow, originHigh } = this.#proposals;
    return `${originLow} ${originHigh}`;
  }

  /** Error of the log's last write while nothing can be stored in it; undefined otherwise. */
  get storageError(): unknown {
    return this.#context.log.storage?.trouble;
  }

  /** What the replica failed with, if it did (R5). */
  get error(): unknown {
    const { aborted, reason } = this.#context.stopped;
    return aborted
      ? (reason as ErrClusterClosed).cause
      : this.#machine.parked?.error.cause;
  }

  /** Entries that are skipped in its state by an operator's decision, in order (H17). */
  get skips(): SkippedEntry[] {
    return this.#machine.isStarted ? this.#machine.current.skips : [];
  }

  /** Cause of the replica's failure, if it failed: an `ErrUpdateFailed` that names the entry if `update()` threw, else the same as `error`. */
  get failure(): unknown {
    return this.#context.updateFailed ?? this.error;
  }

  /** Aborts once the replica is stopped or has failed; its reason is the `ErrClusterClosed` that later calls get. */
  get closed(): AbortSignal {
    return this.#context.stopped;
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
    const parked = this.#machine.parkedError;
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
    return this.#machine.lookup(query);
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
    return await abortable(this.#machine.naLookup(query), options.signal);
  }

  async #upToDate(signal: AbortSignal | undefined): Promise<void> {
    signal?.throwIfAborted();
    this.#machine.check();
    const parked = this.#machine.parkedError;
    if (parked !== undefined) throw parked;
    const upToDate = this.#reads.upToDate(signal);
    if (!isPromise(upToDate)) return;
    await upToDate;
    this.#machine.check();
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
    const parked = this.#machine.parkedError;
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
    this.#context.stopped.throwIfAborted();
    checkOptions("Options of the snapshot", options, COMPACTION);
    const { signal, compactionOverhead } = options;
    const taken = this.#running!.snapshotter.request(
      signal,
      compactionOverhead,
    );
    return await abortable(taken, this.#context.ended);
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
    this.#context.stopped.throwIfAborted();
    checkOptions("Options of the compaction", options, COMPACTION);
    const { signal, compactionOverhead } = options;
    const cut = this.#running!.snapshotter.compact(signal, compactionOverhead);
    return await abortable(cut, this.#context.ended);
  }

  /** Extent of its log, where the log can tell. */
  get logInfo(): LogInfo | undefined {
    return this.#context.log.info?.();
  }

  /**
   * The whole state at the applied index, of any kind of machine, as one stream
   * to be imported elsewhere (H9). It begins with the first read.
   */
  exportSnapshot(): ReadableStream<Uint8Array> {
    this.#machine.check();
    return this.#running!.snapshotter.export();
  }

  /**
   * The machine's hash, and the index it was taken at (E1).
   *
   * @throws ErrNotImplemented if the machine has none
   */
  async getHash(): Promise<{ index: number; hash: bigint }> {
    const { stopped } = this.#context;
    stopped.throwIfAborted();
    const { current } = this.#machine;
    if (current.closed) throw new ErrSystemBusy("Replica is recovering");
    return await abortable(Promise.resolve(current.getHash()), stopped);
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
    this.#machine.check();
    return await this.#divergence.hashes(after, upTo, options.signal);
  }

  async #start(): Promise<void> {
    const context = this.#context;
    const { stopped } = context;
    const machine = this.#machine;
    const { stateMachine, reader, retain, isRemote } = await this.#recovery
      .base();
    if (stopped.aborted) {
      reader.close();
      return await stateMachine.close();
    }
    machine.start(stateMachine);
    const snapshotter = new Snapshotter(context, machine, retain);
    const diskSync = this.type === OnDiskStateMachine
      ? new DiskSync(context, machine, snapshotter, this.#outbox)
      : undefined;
    const loop = new ApplyLoop(context, reader, {
      machine,
      proposals: this.#proposals,
      recovery: this.#recovery,
      divergence: this.#divergence,
      snapshotter,
      rehearsal: () => this.#rehearsal,
      onApplied: () => {
        snapshotter.applied(machine.applied);
        diskSync?.applied();
      },
      onRemoteState: () => this.#saveRemoteState(),
    });
    this.#running = { loop, snapshotter, diskSync };
    this.#divergence.start();
    await this.#outbox?.load();
    await this.#writeConfig();
    stopped.throwIfAborted();
    await loop.start();
    this.#outbox?.start();
    if (isRemote) this.#saveRemoteState();
  }

  /** Saves a local snapshot after recovering from the server, so that the next start works offline. */
  #saveRemoteState(): void {
    if (!this.#context.isDurable || this.type === OnDiskStateMachine) return;
    this.requestSnapshot().catch(() => {
      // Reported as an event.
    });
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
      // An entry it waited for before is not the cause of another error.
      if (context.updateFailed?.cause !== cause) {
        context.updateFailed = undefined;
      }
      const failure = context.updateFailed ?? cause;
      context.event({ type: "failed", error: cause, failure });
    }
    const closed = new ErrClusterClosed("Cluster has failed", { cause });
    return this.#stop(closed, cause);
  }

  /** Ends the replica, once: pending calls reject with `pending`, later ones with `closed` (H10). */
  #stop(closed: ErrClusterClosed, pending: unknown = closed): Promise<void> {
    return this.#shutdown ??= this.#end(closed, pending);
  }

  async #end(closed: ErrClusterClosed, pending: unknown): Promise<void> {
    const context = this.#context;
    const { log, event } = context;
    // Before the log is closed, which reports it.
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
    // Time for the rest, also after a machine that never settles.
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
        new ErrClusterClosed(`${what} did not settle in ${stopTimeoutMs} ms`),
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
    await this.#machine.close();
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

/** Tries commands of a replica before they are ordered: for servers alone. */
export function rehearsalOf(replica: Replica, make: MakeRehearsal): Rehearsal {
  return Replica["rehearsal"](replica, make);
}
