/**
 * Host that runs replicas of clusters over a log and a snapshot store.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  checkOptions,
  isBoolean,
  isFunction,
  optional,
  type OptionChecks,
} from "../options.ts";
import { type Env, systemEnv } from "../env.ts";
import { STOP_TIMEOUT_MS } from "../limits.ts";
import {
  ErrClusterAlreadyExist,
  ErrClusterClosed,
  ErrDiverged,
} from "../log/errors.ts";
import { ReadOnlyLog } from "../log/read_only_log.ts";
import type { Log, LogDB } from "../log/log.ts";
import { MemoryLogDB } from "../log/memory_log.ts";
import { abortable, notify, pacedSource, withResolvers } from "../async.ts";
import {
  checkFactory,
  type MachineFactory,
  tryFactory,
} from "../rsm/managed_machine.ts";
import { type FileStore, HOST_DIRECTORY } from "../snapshot/file_store.ts";
import { MemoryFileStore } from "../snapshot/memory_file_store.ts";
import { MemorySnapshotStore } from "../snapshot/memory_snapshot_store.ts";
import type { SnapshotInfo, SnapshotStore } from "../snapshot/store.ts";
import { ErrNotImplemented } from "../statemachine/errors.ts";
import type {
  CreateConcurrentStateMachineFunc,
  CreateOnDiskStateMachineFunc,
  CreateStateMachineFunc,
  IOnDiskStateMachine,
  IRemoveData,
} from "../statemachine/machines.ts";
import {
  ConcurrentStateMachine,
  OnDiskStateMachine,
  RegularStateMachine,
} from "../statemachine/types.ts";
import { ErrClusterNotFound } from "./errors.ts";
import type { HostEvent } from "./events.ts";
import { checkHostOptions, type NodeHostOptions } from "./host_options.ts";
import { checkImport, inspectSnapshot } from "./import_check.ts";
import type { ClusterInfo, ClusterStatus, NodeHostInfo } from "./info.ts";
import type { Outbox, Unsynced } from "./outbox.ts";
import { ErrUnsynced } from "./outbox_errors.ts";
import type { SkippedEntry } from "../rsm/skipped_entries.ts";
import { appendSkip } from "./skip_decisions.ts";
import type { RehearsalRequest } from "../rehearsal/mod.ts";
import { type Replica, startReplica } from "./replica.ts";
import { checkConfig, checkID, type ReplicaConfig } from "./replica_config.ts";
import { copySnapshot } from "./snapshotter.ts";

/** A replica or an import, which can be stopped. */
interface Stoppable {
  readonly stop: () => Promise<void>;
}

interface Started extends Stoppable {
  readonly replica: Replica;
}

/** Last start of a cluster on a host. */
interface Known {
  readonly factory: MachineFactory;
  readonly config: ReplicaConfig;
  /** Set if the start failed, with what was thrown. */
  failed?: { readonly error: unknown } | undefined;
  /** Set once the start has resolved; stays set after a stop. */
  replica?: Replica;
}

/** Data of a cluster on a device, as `NodeHost.exportData()` returns it. */
export interface ClusterData {
  /** Id of the cluster. */
  readonly clusterID: bigint;
  /** Index of the last entry that was applied when the export began. */
  readonly appliedIndex: number;
  /** Snapshot of the whole state, as `NodeHost.importSnapshot()` takes it. */
  readonly snapshot: ReadableStream<Uint8Array>;
  /** Submissions that the cluster may not have, in order. */
  readonly pending: readonly Unsynced[];
}

/** Passes a stream on and calls `ended` once it has ended, failed or was cancelled. */
function untilEnd(
  source: ReadableStream<Uint8Array>,
  ended: () => void,
): ReadableStream<Uint8Array> {
  const reader = source.getReader();
  return new ReadableStream<Uint8Array>({
    async pull(controller): Promise<void> {
      try {
        const { done, value } = await reader.read();
        if (!done) return controller.enqueue(value);
      } catch (error) {
        ended();
        throw error;
      }
      ended();
      controller.close();
    },
    async cancel(reason): Promise<void> {
      try {
        await reader.cancel(reason);
      } finally {
        ended();
      }
    },
  }, { highWaterMark: 0 });
}

/** Options of `NodeHost.removeData()` and `NodeHost.leave()`. */
export interface RemoveDataOptions {
  /**
   * True to remove submissions that the cluster may not have, and those that were
   * refused or are of unknown outcome and were not dismissed.
   *
   * @default {false}
   */
  readonly discardPending?: boolean;
  /**
   * Makes the on-disk machine of a cluster that was not started on this host;
   * undefined for a cluster whose machine is in memory.
   *
   * @default {the function the cluster was started with last}
   */
  readonly machine?: (
    clusterID: bigint,
    nodeID: bigint,
  ) => IOnDiskStateMachine | undefined;
}

/** Checks the options of a method that removes data. */
function checkRemoval(method: string, options: RemoveDataOptions): void {
  const checks: OptionChecks<RemoveDataOptions> = {
    discardPending: optional(isBoolean),
    machine: optional(isFunction),
  };
  checkOptions(`Options of ${method}()`, options, checks);
}

/** Node id under which a log is opened for an import; no replica may have it. */
const IMPORTER = 0n;

/**
 * Host of replicas, at most one for each cluster. It closes the stores it created
 * itself, never those it was given; several hosts may share a log and a store.
 *
 * ```ts
 * import { kv, KVStateMachine, NodeHost } from "../../mod.ts";
 *
 * await using host = new NodeHost();
 * const replica = await host.startCluster(() => new KVStateMachine(), {
 *   clusterID: 1n,
 *   nodeID: 1n,
 * });
 * await replica.propose(kv.put("boat", "sampan"));
 * const value = await replica.read(kv.get("boat")) as Uint8Array;
 * console.log(new TextDecoder().decode(value)); // sampan
 * ```
 */
export class NodeHost {
  /** Logs of its clusters. */
  readonly logDB: LogDB;
  /** Clock, random numbers and timers of the host. */
  readonly env: Env;
  readonly #snapshots: SnapshotStore;
  /** True if the snapshot store outlives the host. */
  readonly #isDurable: boolean;
  readonly #files: FileStore;
  readonly #outbox: Outbox | undefined;
  readonly #principal: string | undefined;
  readonly #device: string | undefined;
  readonly #stopTimeoutMs: number;
  readonly #onEvent: (event: HostEvent) => void;
  /** Stores that this host created, and closes. */
  readonly #own: { close(): Promise<void> }[] = [];
  /** Replicas whose start has resolved, by cluster. */
  readonly #replicas = new Map<bigint, Replica>();
  /** Last start of each cluster. */
  readonly #known = new Map<bigint, Known>();
  /** Clusters that are started, or are being started or imported. */
  readonly #clusters = new Map<bigint, Promise<Stoppable | undefined>>();
  /** Rehearsals requested by servers on this host. */
  readonly #rehearsals = new Set<RehearsalRequest>();
  /** The strictest of them. */
  #rehearsing: RehearsalRequest | undefined;
  #stopping: Promise<void> | undefined;

  /** Creates a host; stores that are not given are in memory. */
  constructor(options: NodeHostOptions = {}) {
    checkHostOptions(options);
    this.env = options.env ?? systemEnv;
    this.logDB = options.logDB ??
      this.#made(new MemoryLogDB({ env: this.env }));
    this.#snapshots = options.snapshots ?? this.logDB.snapshots ??
      this.#made(new MemorySnapshotStore());
    this.#isDurable = options.snapshots !== undefined;
    this.#files = options.files ?? this.#made(new MemoryFileStore());
    this.#outbox = options.outbox;
    this.#principal = options.principal;
    this.#device = options.device;
    this.#stopTimeoutMs = options.stopTimeoutMs ?? STOP_TIMEOUT_MS;
    this.#onEvent = options.onEvent ?? ((): void => {});
  }

  /** For `rehearseOn()` alone. */
  private static rehearse(
    host: NodeHost,
    request: RehearsalRequest,
  ): () => void {
    const own = { ...request };
    const all = host.#rehearsals;
    const choose = (): void => {
      const [first] = all;
      host.#rehearsing = [...all].find(({ isRefusing }) => isRefusing) ?? first;
    };
    all.add(own);
    choose();
    return () => {
      all.delete(own);
      choose();
    };
  }

  #made<T extends { close(): Promise<void> }>(part: T): T {
    this.#own.push(part);
    return part;
  }

  /**
   * Starts a replica whose machine is in memory. Resolves once all entries that
   * the log on this host has are applied: with an in-memory log, all that were
   * committed before.
   *
   * @throws RangeError if an id or number of `config` is out of range
   * @throws ErrClusterAlreadyExist if the cluster is started here, also if it has failed and was not stopped, or the replica is started elsewhere on this log
   * @throws ErrDiverged if the stored state of the replica goes beyond the log, or belongs to another log (D13, H13)
   * @throws ErrCompacted if the log was compacted and no good snapshot reaches it (H8)
   * @throws ErrClusterClosed if the host or the cluster was stopped during the start
   */
  startCluster<Q = unknown, A = unknown>(
    create: CreateStateMachineFunc<Q, A>,
    config: ReplicaConfig,
  ): Promise<Replica<Q, A>> {
    const factory = { type: RegularStateMachine, create } as MachineFactory;
    return this.#start(factory, config);
  }

  /** Starts a replica like {@linkcode NodeHost.startCluster}, for a concurrent machine. */
  startConcurrentCluster<Q = unknown, A = unknown>(
    create: CreateConcurrentStateMachineFunc<Q, A>,
    config: ReplicaConfig,
  ): Promise<Replica<Q, A>> {
    const factory = { type: ConcurrentStateMachine, create } as MachineFactory;
    return this.#start(factory, config);
  }

  /**
   * Starts a replica like {@linkcode NodeHost.startCluster}, for an on-disk machine.
   *
   * @throws ErrStoreVanished if the machine has lost its state, and neither log nor snapshots restore it (D14)
   */
  startOnDiskCluster<Q = unknown, A = unknown>(
    create: CreateOnDiskStateMachineFunc<Q, A>,
    config: ReplicaConfig,
  ): Promise<Replica<Q, A>> {
    const factory = { type: OnDiskStateMachine, create } as MachineFactory;
    return this.#start(factory, config);
  }

  async #start<Q, A>(
    factory: MachineFactory,
    config: ReplicaConfig,
  ): Promise<Replica<Q, A>> {
    checkConfig(config);
    checkFactory(factory);
    const known: Known = { factory, config: { ...config } };
    const { replica } = await this.#reserve(
      config.clusterID,
      async (started) => {
        this.#known.set(config.clusterID, known);
        try {
          const up = await this.#startReplica(factory, known.config, started);
          known.replica = up.replica;
          return up;
        } catch (error) {
          // A start that was stopped has not failed.
          if (!(error instanceof ErrClusterClosed)) known.failed = { error };
          throw error;
        }
      },
    );
    return replica as Replica<Q, A>;
  }

  /**
   * Starts a cluster that has failed, or could not be started, again as it was
   * started last, say after an entry was skipped.
   *
   * @throws ErrClusterNotFound if it was not started here
   * @throws ErrClusterAlreadyExist if it has not failed
   * @throws what starting it throws
   */
  async restartCluster(clusterID: bigint): Promise<Replica> {
    const known = this.#known.get(clusterID);
    if (known === undefined) throw new ErrClusterNotFound(clusterID);
    const starting = this.#clusters.get(clusterID);
    if (this.#statusOf(clusterID, known).state === "failed" && starting) {
      await this.#stopOne(clusterID, starting);
    }
    return await this.#start(known.factory, known.config);
  }

  /**
   * Has an entry skipped by every replica of a cluster, present and future: a
   * decision that is recorded in the log, with its reason, and cannot be taken
   * back. Its proposer is refused with that reason. A replica that `update()`
   * stopped at the entry goes on once it is started again
   * ({@linkcode NodeHost.restartCluster}); one that has applied it recovers its
   * state without it. The cluster need not run here. Resolves once the decision is
   * committed; an entry that is skipped already stays so, with its first reason.
   *
   * @throws ErrSkipRefused if there is no such entry, it is not a command, the log was cut past it, neither log nor snapshots give a state without it, or the log is ordered by a server
   * @throws RangeError if the index is not that of an entry
   * @throws TypeError if there is no reason
   */
  async skipEntry(
    clusterID: bigint,
    index: number,
    reason: string,
  ): Promise<SkippedEntry> {
    checkID("clusterID", clusterID, 0n);
    if (this.#stopping !== undefined) throw new ErrClusterClosed();
    const stopped = new AbortController();
    // Of a node id of its own: the replica, or an import, may have the log open.
    const log = await this.#openLog(
      clusterID,
      this.env.random64() | 1n << 63n,
      stopped.signal,
    );
    try {
      const snapshots: SnapshotInfo[] = [];
      for (const store of new Set([this.#snapshots, this.logDB.snapshots])) {
        snapshots.push(...await store?.list(clusterID) ?? []);
      }
      return await appendSkip(log, clusterID, index, reason, snapshots);
    } finally {
      await log.close();
    }
  }

  /** Runs `work` with exclusive use of a cluster. */
  async #reserve<T extends Started | void>(
    clusterID: bigint,
    work: (started: (started: Stoppable) => void) => Promise<T>,
  ): Promise<T> {
    if (this.#stopping !== undefined) throw new ErrClusterClosed();
    if (this.#clusters.has(clusterID)) {
      throw new ErrClusterAlreadyExist(
        `Cluster ${clusterID} is started on this host already`,
      );
    }
    const { promise, resolve } = withResolvers<Stoppable | undefined>();
    this.#clusters.set(clusterID, promise);
    try {
      const done = await work(resolve);
      if (done === undefined) this.#clusters.delete(clusterID);
      return done;
    } catch (error) {
      if (this.#clusters.get(clusterID) === promise) {
        this.#clusters.delete(clusterID);
      }
      throw error;
    } finally {
      resolve(undefined);
    }
  }

  async #startReplica(
    factory: MachineFactory,
    config: ReplicaConfig,
    onStarting: (started: Stoppable) => void,
  ): Promise<Started> {
    const { clusterID, nodeID } = config;
    const opening = new AbortController();
    const running: { stop?: () => Promise<void> } = {};
    // It can be stopped from here on, also while its log is being opened.
    onStarting({
      stop: async () => {
        if (running.stop !== undefined) return await running.stop();
        opening.abort(new ErrClusterClosed());
      },
    });
    // A wrong machine is refused before anything is written to the log.
    const tried = tryFactory(factory, clusterID, nodeID);
    const log = await this.#openLog(clusterID, nodeID, opening.signal);
    const { replica, started, stop } = startReplica({
      factory: tried,
      config,
      log,
      store: this.#snapshots,
      isDurable: this.#isDurable,
      shared: this.logDB.snapshots,
      files: this.#files,
      outbox: this.#outbox,
      principal: this.#principal,
      device: this.#device,
      env: this.env,
      stopTimeoutMs: this.#stopTimeoutMs,
      rehearsing: () => this.#rehearsing,
      event: (event) => {
        notify(this.#onEvent, { ...event, clusterID, nodeID });
      },
    });
    running.stop = stop;
    try {
      await started;
    } catch (error) {
      await stop();
      throw error;
    }
    this.#replicas.set(clusterID, replica);
    return { replica, stop };
  }

  async #openLog(
    clusterID: bigint,
    nodeID: bigint,
    signal: AbortSignal,
  ): Promise<Log> {
    const opening = (async () => await this.logDB.open(clusterID, nodeID))();
    try {
      return await abortable(opening, signal);
    } catch (error) {
      // It may still open, and has to be closed then.
      if (signal.aborted) opening.then((log) => log.close()).catch(() => {});
      throw error;
    }
  }

  /** Snapshot store of the host. */
  get snapshots(): SnapshotStore {
    return this.#snapshots;
  }

  /** The replica of a cluster, if it is started here: from when its start has resolved until it is stopped. */
  replica(clusterID: bigint): Replica | undefined {
    return this.#replicas.get(clusterID);
  }

  /**
   * Imports a snapshot that another host exported, before the cluster is first
   * started here (H9). An empty log goes on after its index.
   *
   * @throws ErrClusterAlreadyExist if the cluster is started here, or has a log or a snapshot; an import from which the cluster then failed to start may be replaced by another one
   * @throws ErrSnapshotMismatch if the snapshot is another cluster's, holds no state, or is one from which no replica could go on
   * @throws ErrSnapshotCorrupted if the snapshot is damaged; nothing is kept of it
   * @throws ErrSnapshotVersion if the snapshot was written by a newer version
   */
  async importSnapshot(
    clusterID: bigint,
    snapshot: ReadableStream<Uint8Array>,
  ): Promise<void> {
    checkID("clusterID", clusterID, 0n);
    const stopped = new AbortController();
    try {
      await this.#reserve(clusterID, (started) => {
        const done = this.#import(clusterID, snapshot, stopped.signal);
        const stop = async (): Promise<void> => {
          stopped.abort(new ErrClusterClosed());
          await done.catch(() => {});
        };
        started({ stop });
        return done;
      });
    } catch (error) {
      // Refused before it was read: its sender need not wait.
      if (!snapshot.locked) await snapshot.cancel(error).catch(() => {});
      throw error;
    }
  }

  async #import(
    clusterID: bigint,
    snapshot: ReadableStream<Uint8Array>,
    signal: AbortSignal,
  ): Promise<void> {
    let log = await this.#openLog(clusterID, IMPORTER, signal);
    try {
      const present = await this.#snapshots.list(clusterID);
      const isFree = await log.isEmpty() &&
        (present.length === 0 || this.#mayReplace(clusterID, present));
      if (!isFree) {
        throw new ErrClusterAlreadyExist(
          `Cluster ${clusterID} has a log or a snapshot here already`,
        );
      }
      const info = await copySnapshot(snapshot, this.#snapshots, (header) => {
        checkImport(clusterID, header);
      }, {
        imported: true,
        signal,
        inspect: inspectSnapshot,
        // Before the snapshot is there: an import that is cut off between the
        // two can be made again.
        beforeCommit: async ({ index, epoch }) => {
          if (present.length > 0) {
            await log.close();
            await this.#removeImport(clusterID, present);
            log = await this.#openLog(clusterID, IMPORTER, signal);
          }
          await log.startAt(index, epoch);
        },
      });
      await this.#shareImport(info);
    } finally {
      await log.close();
    }
  }

  /** True if a cluster has only an import, from which no replica could start, such as a snapshot its machine cannot read. */
  #mayReplace(clusterID: bigint, present: readonly SnapshotInfo[]): boolean {
    return this.#known.get(clusterID)?.failed !== undefined &&
      this.logDB.removeData !== undefined &&
      present.every(({ imported }) => imported);
  }

  /** Removes an import from which no replica has started. */
  async #removeImport(
    clusterID: bigint,
    present: readonly SnapshotInfo[],
  ): Promise<void> {
    for (const info of present) await this.#snapshots.remove(info);
    const shared = this.logDB.snapshots;
    if (shared !== undefined && shared !== this.#snapshots) {
      for (const info of await shared.list(clusterID)) {
        if (info.imported) await shared.remove(info);
      }
    }
    await this.logDB.removeData!(clusterID);
  }

  /** Shares an import with the replicas of the cluster on other hosts. */
  async #shareImport(info: SnapshotInfo): Promise<void> {
    const shared = this.logDB.snapshots;
    if (shared === undefined || shared === this.#snapshots) return;
    const source = pacedSource(await this.#snapshots.open(info), this.env);
    await copySnapshot(source, shared, () => {}, { imported: true });
  }

  /**
   * Stops a cluster: pending calls reject with `ErrClusterClosed` and its machine
   * is closed (H10). Idempotent. A cluster whose start has failed is no longer
   * reported as failed.
   *
   * @throws ErrClusterNotFound if it is not started here
   */
  async stopCluster(clusterID: bigint): Promise<void> {
    const starting = this.#clusters.get(clusterID);
    if (starting === undefined) {
      const known = this.#known.get(clusterID);
      if (known?.failed === undefined) throw new ErrClusterNotFound(clusterID);
      // One that could not be started has nothing to be stopped.
      known.failed = undefined;
      return;
    }
    await this.#stopOne(clusterID, starting);
  }

  async #stopOne(
    clusterID: bigint,
    starting: Promise<Stoppable | undefined>,
  ): Promise<void> {
    const started = await starting;
    this.#replicas.delete(clusterID);
    await started?.stop();
    if (this.#clusters.get(clusterID) === starting) {
      this.#clusters.delete(clusterID);
    }
  }

  /** States of the clusters that were started on this host, in order of their ids. */
  clusters(): ClusterStatus[] {
    return [...this.#known].sort(([a], [b]) => a < b ? -1 : 1)
      .map(([clusterID, known]) => this.#statusOf(clusterID, known));
  }

  /** Status of one cluster, as {@linkcode NodeHost.clusters} lists it; undefined if it was never started here. */
  clusterStatus(clusterID: bigint): ClusterStatus | undefined {
    const known = this.#known.get(clusterID);
    return known && this.#statusOf(clusterID, known);
  }

  #statusOf(
    clusterID: bigint,
    { factory, config: { nodeID }, failed }: Known,
  ): ClusterStatus {
    const replica = this.#replicas.get(clusterID);
    const storageError = replica?.storageError;
    const error = replica?.failure ?? failed?.error;
    const hasFailed = error !== undefined || failed !== undefined;
    return {
      clusterID,
      nodeID,
      type: factory.type,
      state: hasFailed
        ? "failed"
        : replica !== undefined
        ? "running"
        : this.#clusters.has(clusterID)
        ? "starting"
        : "stopped",
      ...(hasFailed ? { error } : {}),
      ...(storageError === undefined ? {} : { storageError }),
      appliedIndex: replica?.appliedIndex ?? 0,
    };
  }

  /** Describes the clusters that were started on this host: indexes, log, snapshots and sizes, and of those that failed the cause. */
  async info(): Promise<NodeHostInfo> {
    const known = [...this.#known].sort(([a], [b]) => a < b ? -1 : 1);
    const clusters = known.map(([clusterID, start]) =>
      this.#infoOf(clusterID, start)
    );
    return { clusters: await Promise.all(clusters) };
  }

  async #infoOf(
    clusterID: bigint,
    known: Known,
  ): Promise<ClusterInfo> {
    const status = this.#statusOf(clusterID, known);
    const replica = this.#replicas.get(clusterID);
    let snapshots: readonly SnapshotInfo[] = [];
    let pending = 0;
    let unreadable: { readonly error: unknown } | undefined;
    // A store that fails is no reason to tell nothing of the others.
    try {
      snapshots = await this.#snapshots.list(clusterID);
      pending = replica?.pending().length ??
        (await this.#unsynced(clusterID)).length;
    } catch (error) {
      unreadable = { error };
    }
    const log = status.state === "failed" ? undefined : replica?.logInfo;
    return {
      ...status,
      committedIndex: Math.max(
        log?.committed ?? 0,
        replica?.appliedIndex ?? 0,
      ),
      ...(log === undefined ? {} : { log }),
      snapshots,
      snapshotBytes: snapshots.reduce((sum, { size }) => sum + size, 0),
      pending,
      ...(unreadable === undefined ? {} : { listError: unreadable.error }),
    };
  }

  /**
   * Removes all that is kept here of a cluster that does not run: its log, or
   * the copy of it, its snapshots, the state of its machine, its outbox, and the
   * files of its snapshots (Dragonboat's `RemoveData`). What other devices or the
   * server have stays. Cut off by a crash it can be called again.
   *
   * @throws ErrUnsynced if the outbox holds what is not synced, unless `discardPending` is set; nothing is removed
   * @throws ErrClusterAlreadyExist if the cluster runs here, or on another host that shares the log; nothing is removed
   * @throws ErrNotImplemented if the log, or an on-disk machine, cannot remove its data; nothing is removed
   */
  async removeData(
    clusterID: bigint,
    options: RemoveDataOptions = {},
  ): Promise<void> {
    checkRemoval("removeData", options);
    checkID("clusterID", clusterID, 0n);
    if (this.#clusters.has(clusterID)) {
      throw new ErrClusterAlreadyExist(
        `Cluster ${clusterID} runs on this host: stop it with stopCluster() before its data is removed`,
      );
    }
    await this.#reserve(clusterID, async () => {
      const outbox = this.#outbox;
      if (!options.discardPending) {
        const unsynced = await this.#unsynced(clusterID);
        if (unsynced.length > 0) throw new ErrUnsynced(unsynced);
      }
      await this.#removeState(
        clusterID,
        options.machine,
        () => outbox?.clear(clusterID, { discard: true }),
      );
      this.#known.delete(clusterID);
    });
  }

  /** Submissions of a cluster that it may not have, in order. */
  async #unsynced(clusterID: bigint): Promise<readonly Unsynced[]> {
    // What is applied may be in the outbox still: the replica, up or stopped, knows.
    const pending = this.#known.get(clusterID)?.replica?.pending();
    if (pending === undefined) {
      return await this.#outbox?.unsynced(clusterID) ?? [];
    }
    return pending.flatMap(({ id, state, cmd }) =>
      state === "applied" ? [] : [{ id, state, cmd }]
    );
  }

  /** Removes all of a cluster but its outbox, with which `use` deals once it is sure that the rest can go. */
  async #removeState(
    clusterID: bigint,
    make: RemoveDataOptions["machine"],
    use: () => unknown,
  ): Promise<void> {
    const { logDB } = this;
    if (logDB.removeData === undefined) {
      throw new ErrNotImplemented("LogDB has no removeData()");
    }
    const machine = this.#removable(clusterID, make);
    await logDB.removeData(clusterID);
    await use();
    await machine?.removeData();
    for (const store of new Set([this.#snapshots, logDB.snapshots])) {
      for (const info of await store?.list(clusterID) ?? []) {
        await store!.remove(info);
      }
    }
    for (const use of await this.#files.list(HOST_DIRECTORY)) {
      const directory = `${HOST_DIRECTORY}/${use}`;
      for (const name of await this.#files.list(directory)) {
        if (!name.startsWith(`${clusterID}-`)) continue;
        await this.#files.remove(`${directory}/${name}`);
      }
    }
  }

  /** The on-disk machine of a cluster, never opened, to have its data removed. */
  #removable(
    clusterID: bigint,
    make: RemoveDataOptions["machine"],
  ): IRemoveData | undefined {
    const known = this.#known.get(clusterID);
    const create = make ??
      (known?.factory.type === OnDiskStateMachine
        ? known.factory.create
        : undefined);
    const machine = create?.(clusterID, known?.config.nodeID ?? 0n);
    if (machine === undefined) return undefined;
    if (!("removeData" in machine)) {
      throw new ErrNotImplemented(
        `Machine of cluster ${clusterID} has no removeData(): remove what it keeps, and pass machine: () => undefined`,
      );
    }
    return machine as IOnDiskStateMachine & IRemoveData;
  }

  /**
   * Stops every cluster and removes all that is kept here of any cluster, also of
   * those that were not started in this life of the host: what a log-out calls,
   * so that one user of a device leaves nothing to the next (U35). An on-disk
   * machine that was not started here is removed only if `machine` makes it. The
   * host can start clusters afterwards.
   *
   * @throws ErrUnsynced if an outbox holds what is not synced, unless `discardPending` is set; nothing is stopped or removed
   * @throws ErrNotImplemented as `removeData()`
   */
  async leave(options: RemoveDataOptions = {}): Promise<void> {
    checkRemoval("leave", options);
    const clusters = new Set([
      ...this.#clusters.keys(),
      ...this.#known.keys(),
      ...await this.logDB.clusters?.() ?? [],
      ...await this.#snapshots.clusters?.() ?? [],
      ...await this.#outbox?.clusters() ?? [],
    ]);
    if (!options.discardPending) {
      const unsynced: Unsynced[] = [];
      const holders: bigint[] = [];
      for (const clusterID of clusters) {
        const found = await this.#unsynced(clusterID);
        if (found.length === 0) continue;
        holders.push(clusterID);
        unsynced.push(...found);
      }
      if (unsynced.length > 0) throw new ErrUnsynced(unsynced, holders);
    }
    for (const [clusterID, starting] of [...this.#clusters]) {
      await this.#stopOne(clusterID, starting);
    }
    for (const clusterID of clusters) await this.removeData(clusterID, options);
  }

  /**
   * Exports what this device has of a cluster: the whole state at its applied
   * index, and what was submitted and may not be in the cluster. Works while the
   * replica runs, or waits before an entry at which its machine threw, and without
   * the server or its log once it was stopped, has failed or could not be started,
   * as when the server has another history. A replica that has failed and does not
   * go on by itself is stopped by it. While the stream of a stopped one
   * is not read to its end or cancelled, the cluster cannot be started.
   *
   * @throws ErrClusterNotFound if the cluster was never started on this host
   * @throws what starting a machine from what is here throws
   */
  async exportData(clusterID: bigint): Promise<ClusterData> {
    checkID("clusterID", clusterID, 0n);
    const known = this.#known.get(clusterID);
    if (known === undefined) throw new ErrClusterNotFound(clusterID);
    const pending = await this.#unsynced(clusterID);
    const running = this.#replicas.get(clusterID);
    // Also one that waits before an entry at which `update()` threw: it goes on by
    // itself once the entry is skipped, and is not to be stopped.
    if (running !== undefined && !running.closed.aborted) {
      return {
        clusterID,
        appliedIndex: running.appliedIndex,
        snapshot: running.exportSnapshot(),
        pending,
      };
    }
    await this.#settle(clusterID);
    const { promise, resolve, reject } = withResolvers<ClusterData>();
    const exported = this.#reserve(clusterID, async (started) => {
      const ended = withResolvers<void>();
      started({
        stop: async () => {
          ended.resolve();
          await exported.catch(() => {});
        },
      });
      const replica = await this.#startKept(known);
      try {
        const { appliedIndex } = replica.replica;
        const source = replica.replica.exportSnapshot();
        const snapshot = untilEnd(source, ended.resolve);
        resolve({ clusterID, appliedIndex, snapshot, pending });
        await ended.promise;
      } finally {
        await replica.stop();
      }
    });
    exported.catch(reject);
    return await promise;
  }

  /** Stops a replica that has failed, and keeps what it failed with. */
  async #settle(clusterID: bigint): Promise<void> {
    const known = this.#known.get(clusterID);
    const failed = this.#replicas.get(clusterID);
    const starting = this.#clusters.get(clusterID);
    if (failed?.error === undefined || starting === undefined) return;
    if (known !== undefined) known.failed = { error: failed.failure };
    await this.#stopOne(clusterID, starting);
  }

  /** Starts a replica on nothing but what is here. */
  async #startKept({ factory, config }: Known): Promise<Started> {
    const { clusterID, nodeID } = config;
    const start = async (log: Log): Promise<Started> => {
      const { replica, started, stop } = startReplica({
        factory,
        config: { ...config, snapshotEntries: 0, hashEntries: 0 },
        log,
        store: this.#snapshots,
        isDurable: false,
        shared: this.logDB.snapshots,
        files: this.#files,
        outbox: undefined,
        principal: undefined,
        device: undefined,
        rehearsing: () => undefined,
        env: this.env,
        stopTimeoutMs: this.#stopTimeoutMs,
        event: () => {},
      });
      try {
        await started;
      } catch (error) {
        await stop();
        throw error;
      }
      return { replica, stop };
    };
    const { logDB } = this;
    if (logDB.openReadOnly !== undefined) {
      return await start(await logDB.openReadOnly(clusterID));
    }
    try {
      return await start(await logDB.open(clusterID, nodeID));
    } catch (error) {
      if (!(error instanceof ErrDiverged)) throw error;
      return await start(new ReadOnlyLog(undefined));
    }
  }

  /**
   * Starts a cluster over on the server's history, for a device that knows another
   * one: the server's log was reset, or restored from an older backup
   * (`ErrOtherHistory`). Removes the state, the snapshots and the copy of the log
   * that are here, keeps everything in the outbox, and starts the cluster again,
   * connected or not: use the replica that is returned. Works whether the replica
   * runs, has failed or could not be started. `exportData()` first, if what is here
   * is wanted.
   *
   * Of what was submitted, everything that was never sent goes through a new
   * session. What may have been sent is looked up on the server: if it knows the
   * session, each command is found to have been applied in its history, or is sent
   * again; if it does not, the command is of `unknown` outcome until it is
   * dismissed.
   *
   * @throws ErrClusterNotFound if the cluster was never started on this host
   * @throws ErrNotImplemented if the home of the log is here, or an on-disk machine cannot remove its data; nothing is changed
   * @throws what starting the cluster throws
   */
  async startOver(
    clusterID: bigint,
    options: Pick<RemoveDataOptions, "machine"> = {},
  ): Promise<Replica> {
    checkID("clusterID", clusterID, 0n);
    const known = this.#known.get(clusterID);
    if (known === undefined) throw new ErrClusterNotFound(clusterID);
    if (!this.logDB.isCopy) {
      throw new ErrNotImplemented(
        `Log of cluster ${clusterID} is stored on this host, so no server has another history of it: restore a backup, or import a snapshot`,
      );
    }
    this.#removable(clusterID, options.machine);
    const starting = this.#clusters.get(clusterID);
    if (starting !== undefined) await this.#stopOne(clusterID, starting);
    // The outbox need not know yet what was applied here.
    const pending = known.replica?.pending().map(({ id }) => id);
    await this.#reserve(
      clusterID,
      () =>
        this.#removeState(
          clusterID,
          options.machine,
          () => this.#outbox?.startOver(clusterID, pending),
        ),
    );
    return await this.#start(known.factory, known.config);
  }

  /** Stops every cluster, then what the host made itself; idempotent (H10). */
  stop(): Promise<void> {
    return this.#stopping ??= this.#stop();
  }

  async #stop(): Promise<void> {
    await Promise.all(
      [...this.#clusters].map(([clusterID, starting]) =>
        this.#stopOne(clusterID, starting)
      ),
    );
    for (const part of this.#own) await part.close();
  }

  /** Stops the host like {@linkcode NodeHost.stop}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }
}

/** Has proposals and submissions of a host rehearsed before they are ordered, until the returned function is called. For servers only. */
export function rehearseOn(
  host: NodeHost,
  request: RehearsalRequest,
): () => void {
  return NodeHost["rehearse"](host, request);
}
