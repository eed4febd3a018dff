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
import { ErrClusterAlreadyExist, ErrClusterClosed } from "../log/errors.ts";
import type { Log, LogDB } from "../log/log.ts";
import { abortable, notify, withResolvers } from "../async.ts";
import {
  checkFactory,
  type MachineFactory,
  tryFactory,
} from "../rsm/managed_machine.ts";
import { type FileStore, HOST_DIRECTORY } from "../snapshot/file_store.ts";
import type { SnapshotStore } from "../snapshot/store.ts";
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
  type MaybePromise,
  OnDiskStateMachine,
  RegularStateMachine,
} from "../statemachine/types.ts";
import { ErrClusterNotFound } from "./errors.ts";
import type { HostEvent } from "./events.ts";
import { checkHostOptions, type NodeHostOptions } from "./host_options.ts";
import type { ClusterData, ClusterStatus, NodeHostInfo } from "./info.ts";
import {
  defaultFiles,
  defaultLogDB,
  defaultSnapshots,
} from "./default_stores.ts";
import { loadOnDemand } from "./load.ts";
import type { Outbox, Unsynced } from "./outbox.ts";
import { ErrUnsynced } from "./outbox_errors.ts";
import type { SkippedEntry } from "../rsm/skipped_entries.ts";
import type { RehearsalRequest } from "../rehearsal/mod.ts";
import { type Replica, startReplica } from "./replica.ts";
import type { HostStores, HostTabs } from "./tabs.ts";
import { checkConfig, checkID, type ReplicaConfig } from "./replica_config.ts";

/** A replica or an import, which can be stopped. */
interface Stoppable {
  readonly stop: () => Promise<void>;
}

interface Started extends Stoppable {
  readonly replica: Replica;
}

/** Last start of a cluster on a host. */
interface LastStart {
  readonly factory: MachineFactory;
  readonly config: ReplicaConfig;
  /** Set if the start failed, with its error. */
  failed?: { readonly error: unknown } | undefined;
  /** Set once the start has resolved; stays set after a stop. */
  replica?: Replica;
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
  readonly #tabs: HostTabs | undefined;
  readonly #principal: string | undefined;
  readonly #device: string | undefined;
  readonly #stopTimeoutMs: number;
  readonly #onEvent: (event: HostEvent) => void;
  /** Stores that this host created, and closes. */
  readonly #own: { close(): Promise<void> }[] = [];
  /** Replicas whose start has resolved, by cluster. */
  readonly #replicas = new Map<bigint, Replica>();
  /** Last start of each cluster. */
  readonly #lastStarts = new Map<bigint, LastStart>();
  /** Clusters that are started, or are being started or imported. */
  readonly #clusters = new Map<bigint, Promise<Stoppable | undefined>>();
  /** Rehearsals requested by servers on this host. */
  readonly #rehearsals = new Set<RehearsalRequest>();
  /** Strictest of these requests. */
  #rehearsing: RehearsalRequest | undefined;
  #stopping: Promise<void> | undefined;

  /** Creates a host; stores that are not given are in memory. */
  constructor(options: NodeHostOptions = {}) {
    checkHostOptions(options);
    this.env = options.env ?? systemEnv;
    const logDB = options.logDB ?? this.#made(defaultLogDB(this.env));
    const snapshots = options.snapshots ?? logDB.snapshots ??
      this.#made(defaultSnapshots());
    const { outbox } = options;
    const stores: HostStores = { logDB, snapshots, outbox };
    const shared = options.tabs?.share({
      ...stores,
      env: this.env,
      replica: (clusterID) => this.replica(clusterID),
    }) ?? stores;
    this.logDB = shared.logDB;
    this.#snapshots = shared.snapshots;
    this.#outbox = shared.outbox;
    this.#tabs = options.tabs;
    this.#isDurable = options.snapshots !== undefined;
    this.#files = options.files ?? this.#made(defaultFiles());
    this.#principal = options.principal;
    this.#device = options.device;
    this.#stopTimeoutMs = options.stopTimeoutMs ?? STOP_TIMEOUT_MS;
    this.#onEvent = options.onEvent ?? ((): void => {});
  }

  /** Called by `rehearseOn()` only. */
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
    if (this.#tabs !== undefined && factory.type === OnDiskStateMachine) {
      throw new ErrNotImplemented(
        `Machine of cluster ${config.clusterID} is on disk, where it can have one instance only: tabs that follow would have no state of their own to read. Start the cluster with startCluster() or startConcurrentCluster(), whose state survives restarts in the snapshots of the host; or leave out the option \`tabs\`, and have one tab create the host`,
      );
    }
    const lastStart: LastStart = { factory, config: { ...config } };
    const { replica } = await this.#reserve(
      config.clusterID,
      async (started) => {
        this.#lastStarts.set(config.clusterID, lastStart);
        try {
          const up = await this.#startReplica(
            factory,
            lastStart.config,
            started,
          );
          lastStart.replica = up.replica;
          return up;
        } catch (error) {
          // A start that was stopped has not failed.
          if (!(error instanceof ErrClusterClosed)) {
            lastStart.failed = { error };
          }
          throw error;
        }
      },
    );
    return replica as Replica<Q, A>;
  }

  /**
   * Restarts a cluster that has failed, or whose start has failed, with the machine
   * and configuration of its last start: for example after an entry was skipped.
   *
   * @throws ErrClusterNotFound if it was never started on this host
   * @throws ErrClusterAlreadyExist if it has not failed
   * @throws the errors of `startCluster()`
   */
  async restartCluster(clusterID: bigint): Promise<Replica> {
    const lastStart = this.#lastStarts.get(clusterID);
    if (lastStart === undefined) throw new ErrClusterNotFound(clusterID);
    const starting = this.#clusters.get(clusterID);
    if (this.#statusOf(clusterID, lastStart).state === "failed" && starting) {
      await this.#stopOne(clusterID, starting);
    }
    return await this.#start(lastStart.factory, lastStart.config);
  }

  /**
   * Makes every replica of a cluster, present and future, skip an entry. The
   * decision is appended to the log, with its reason, and cannot be undone. The
   * proposer of the entry gets `ErrProposalRefused` with the reason. A replica that
   * failed because `update()` threw at the entry continues once it is restarted
   * ({@linkcode NodeHost.restartCluster}); a replica that has applied the entry
   * recovers a state without it. The cluster need not run on this host. Resolves
   * once the decision is committed. Idempotent: the first reason stays.
   *
   * @throws ErrSkipRefused if there is no such entry, it is not a command, it is compacted, neither log nor snapshots lead to a state without it, or the log is ordered by a server
   * @throws RangeError if the index is not an integer of at least 1
   * @throws TypeError if the reason is not a non-empty text
   */
  async skipEntry(
    clusterID: bigint,
    index: number,
    reason: string,
  ): Promise<SkippedEntry> {
    checkID("clusterID", clusterID, 0n);
    if (this.#stopping !== undefined) throw new ErrClusterClosed();
    const { appendSkip } = await loadOnDemand();
    const stopped = new AbortController();
    // With a reserved node id, since a replica or an import may have opened the log.
    const log = await this.#openForHost(
      clusterID,
      this.env.random64() | 1n << 63n,
      stopped.signal,
    );
    try {
      const stores = [this.#snapshots, this.logDB.snapshots];
      return await appendSkip(log, clusterID, index, reason, stores);
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
        `Cluster ${clusterID} is already started on this host; stop it with stopCluster() first`,
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
    // From now on the cluster can be stopped, also while its log is being opened.
    onStarting({
      stop: async () => {
        if (running.stop !== undefined) return await running.stop();
        opening.abort(new ErrClusterClosed());
      },
    });
    // A factory that throws fails the start before anything is written to the log.
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

  #openLog(
    clusterID: bigint,
    nodeID: bigint,
    signal: AbortSignal,
  ): Promise<Log> {
    return this.#opened(() => this.logDB.open(clusterID, nodeID), signal);
  }

  /** Opens a log under a node id that no replica has. */
  #openForHost(
    clusterID: bigint,
    nodeID: bigint,
    signal: AbortSignal,
  ): Promise<Log> {
    const { logDB } = this;
    return this.#opened(
      () =>
        logDB.openForHost?.(clusterID, nodeID) ?? logDB.open(clusterID, nodeID),
      signal,
    );
  }

  async #opened(
    open: () => MaybePromise<Log>,
    signal: AbortSignal,
  ): Promise<Log> {
    const opening = (async () => await open())();
    try {
      return await abortable(opening, signal);
    } catch (error) {
      // The log may still open later: close it then.
      if (signal.aborted) opening.then((log) => log.close()).catch(() => {});
      throw error;
    }
  }

  /** Snapshot store of the host. */
  get snapshots(): SnapshotStore {
    return this.#snapshots;
  }

  /** Replica of a cluster, from the resolution of its start until its stop; undefined otherwise. */
  replica(clusterID: bigint): Replica | undefined {
    return this.#replicas.get(clusterID);
  }

  /**
   * Imports a snapshot that another host exported, before the cluster is first
   * started here (H9). The log, which must be empty, continues after its index.
   *
   * @throws ErrClusterAlreadyExist if the cluster is started here, or has a log or a snapshot; an import from which the cluster failed to start can be replaced by another one
   * @throws ErrSnapshotMismatch if the snapshot is of another cluster, has no state, or no replica can start from it
   * @throws ErrSnapshotCorrupted if the snapshot is damaged; nothing of it is stored
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
      // The source is not read: its sender must not wait.
      if (!snapshot.locked) await snapshot.cancel(error).catch(() => {});
      throw error;
    }
  }

  async #import(
    clusterID: bigint,
    snapshot: ReadableStream<Uint8Array>,
    signal: AbortSignal,
  ): Promise<void> {
    const { importData } = await loadOnDemand();
    await importData(snapshot, {
      clusterID,
      logDB: this.logDB,
      snapshots: this.#snapshots,
      env: this.env,
      signal,
      openLog: (nodeID) => this.#openForHost(clusterID, nodeID, signal),
      hasFailed: this.#lastStarts.get(clusterID)?.failed !== undefined,
    });
  }

  /**
   * Stops a cluster: pending calls reject with `ErrClusterClosed` and its machine
   * is closed (H10). A cluster whose start has failed is no longer reported as
   * failed.
   *
   * @throws ErrClusterNotFound if it is not started here
   */
  async stopCluster(clusterID: bigint): Promise<void> {
    const starting = this.#clusters.get(clusterID);
    if (starting === undefined) {
      const lastStart = this.#lastStarts.get(clusterID);
      if (lastStart?.failed === undefined) {
        throw new ErrClusterNotFound(clusterID);
      }
      // Its start has failed: nothing runs.
      lastStart.failed = undefined;
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
    return [...this.#lastStarts].sort(([a], [b]) => a < b ? -1 : 1)
      .map(([clusterID, lastStart]) => this.#statusOf(clusterID, lastStart));
  }

  /** Status of one cluster, as {@linkcode NodeHost.clusters} lists it; undefined if it was never started here. */
  clusterStatus(clusterID: bigint): ClusterStatus | undefined {
    const lastStart = this.#lastStarts.get(clusterID);
    return lastStart && this.#statusOf(clusterID, lastStart);
  }

  #statusOf(
    clusterID: bigint,
    { factory, config: { nodeID }, failed }: LastStart,
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

  /** Describes the clusters that were started on this host: indexes, log, snapshots, sizes and the causes of failures. */
  async info(): Promise<NodeHostInfo> {
    const { describeCluster } = await loadOnDemand();
    const clusters = this.clusters().map((status) =>
      describeCluster(status, {
        replica: this.#replicas.get(status.clusterID),
        snapshots: this.#snapshots,
        unsynced: () => this.#unsynced(status.clusterID),
      })
    );
    return { clusters: await Promise.all(clusters) };
  }

  /**
   * Removes all data of a stopped cluster from this host: its log or copy of the
   * log, its snapshots and their files, the state of its on-disk machine, and its
   * outbox (Dragonboat's `RemoveData`). Data on other devices and on the server
   * stay. Can be called again after a crash.
   *
   * @throws ErrUnsynced if the outbox has submissions that are not synced, unless `discardPending` is set; nothing is removed
   * @throws ErrClusterAlreadyExist if the cluster runs on this host, or on another one that shares the log; nothing is removed
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
        `Cluster ${clusterID} runs on this host; stop it with stopCluster() before its data are removed`,
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
      this.#lastStarts.delete(clusterID);
    });
  }

  /** Lists submissions that the cluster may not have, in order. */
  async #unsynced(clusterID: bigint): Promise<readonly Unsynced[]> {
    // The outbox may still have some that are applied; a replica, also a stopped one, does not.
    const pending = this.#lastStarts.get(clusterID)?.replica?.pending();
    if (pending === undefined) {
      return await this.#outbox?.unsynced(clusterID) ?? [];
    }
    return pending.flatMap(({ id, state, cmd }) =>
      state === "applied" ? [] : [{ id, state, cmd }]
    );
  }

  /** Removes all data of a cluster but its outbox; `useOutbox` is called once it is certain that the data can be removed. */
  async #removeState(
    clusterID: bigint,
    make: RemoveDataOptions["machine"],
    useOutbox: () => unknown,
  ): Promise<void> {
    const { logDB } = this;
    if (logDB.removeData === undefined) {
      throw new ErrNotImplemented(
        `LogDB of cluster ${clusterID} has no removeData()`,
      );
    }
    const machine = this.#removable(clusterID, make);
    await logDB.removeData(clusterID);
    await useOutbox();
    await machine?.removeData();
    for (const store of new Set([this.#snapshots, logDB.snapshots])) {
      for (const info of await store?.list(clusterID) ?? []) {
        await store!.remove(info);
      }
    }
    for (const purpose of await this.#files.list(HOST_DIRECTORY)) {
      const directory = `${HOST_DIRECTORY}/${purpose}`;
      for (const name of await this.#files.list(directory)) {
        if (!name.startsWith(`${clusterID}-`)) continue;
        await this.#files.remove(`${directory}/${name}`);
      }
    }
  }

  /** Creates the on-disk machine of a cluster to remove its data, without opening it; undefined for a machine in memory. */
  #removable(
    clusterID: bigint,
    make: RemoveDataOptions["machine"],
  ): IRemoveData | undefined {
    const lastStart = this.#lastStarts.get(clusterID);
    const create = make ??
      (lastStart?.factory.type === OnDiskStateMachine
        ? lastStart.factory.create
        : undefined);
    const machine = create?.(clusterID, lastStart?.config.nodeID ?? 0n);
    if (machine === undefined) return undefined;
    if (!("removeData" in machine)) {
      throw new ErrNotImplemented(
        `Machine of cluster ${clusterID} has no removeData(); remove its data yourself, and pass machine: () => undefined`,
      );
    }
    return machine as IOnDiskStateMachine & IRemoveData;
  }

  /**
   * Stops every cluster and removes the data of all clusters from this host, also of
   * those that this `NodeHost` never started. Called at logout, so that the next
   * user of the device finds nothing of the last one (U35). The data of an on-disk
   * machine that was not started here are removed only if `machine` creates it.
   * Clusters can be started afterwards.
   *
   * @throws ErrUnsynced if an outbox has submissions that are not synced, unless `discardPending` is set; nothing is stopped or removed
   * @throws ErrNotImplemented as `removeData()`
   */
  async leave(options: RemoveDataOptions = {}): Promise<void> {
    checkRemoval("leave", options);
    const clusters = new Set([
      ...this.#clusters.keys(),
      ...this.#lastStarts.keys(),
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
   * Exports the data of a cluster on this device: the whole state at the applied
   * index, and the submissions that the cluster may not have. Works without the
   * server, and also after the replica was stopped, has failed or could not be
   * started, for example because the server has another history. Stops a replica
   * that has failed, unless it waits for a decision to skip an entry. The cluster of
   * a stopped replica can be started again once the stream is read to its end or
   * cancelled.
   *
   * @throws ErrClusterNotFound if the cluster was never started on this host
   * @throws the errors of a start from the data on this device
   */
  async exportData(clusterID: bigint): Promise<ClusterData> {
    checkID("clusterID", clusterID, 0n);
    const lastStart = this.#lastStarts.get(clusterID);
    if (lastStart === undefined) throw new ErrClusterNotFound(clusterID);
    const pending = await this.#unsynced(clusterID);
    const running = this.#replicas.get(clusterID);
    // Also one that waits before an entry at which `update()` threw: it continues
    // once the entry is skipped.
    if (running !== undefined && !running.closed.aborted) {
      return {
        clusterID,
        appliedIndex: running.appliedIndex,
        snapshot: running.exportSnapshot(),
        pending,
      };
    }
    await this.#stopFailed(clusterID);
    const { exportData } = await loadOnDemand();
    return await exportData({
      clusterID,
      nodeID: lastStart.config.nodeID,
      logDB: this.logDB,
      pending,
      reserve: (work) => this.#reserve(clusterID, work),
      start: (log) => this.#startOffline(lastStart, log),
    });
  }

  /** Stops a replica that has failed; its status stays failed, with the cause. */
  async #stopFailed(clusterID: bigint): Promise<void> {
    const lastStart = this.#lastStarts.get(clusterID);
    const failed = this.#replicas.get(clusterID);
    const starting = this.#clusters.get(clusterID);
    if (failed?.error === undefined || starting === undefined) return;
    if (lastStart !== undefined) lastStart.failed = { error: failed.failure };
    await this.#stopOne(clusterID, starting);
  }

  /** Starts a replica from the data on this device only, with a log that gets no records. */
  async #startOffline(
    { factory, config }: LastStart,
    log: Log,
  ): Promise<Started> {
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
  }

  /**
   * Starts a cluster over on the server's history, after `ErrOtherHistory`: the
   * server's log was reset, or restored from an older backup. Removes the state, the
   * snapshots and the copy of the log from this device, leaves the outbox, and
   * starts the cluster again, connected or not; use the replica it returns. Works
   * whether the replica runs, has failed or could not be started. Call
   * `exportData()` before, to save the old state.
   *
   * Submissions that were never sent go through a new session. Those that may have
   * been sent are looked up on the server: if it has their session, each command is
   * applied in its history, or sent again; if not, the command is of `unknown`
   * outcome until it is dismissed.
   *
   * @throws ErrClusterNotFound if the cluster was never started on this host
   * @throws ErrNotImplemented if the log is ordered on this host, or an on-disk machine cannot remove its data; nothing is changed
   * @throws the errors of `startCluster()`
   */
  async startOver(
    clusterID: bigint,
    options: Pick<RemoveDataOptions, "machine"> = {},
  ): Promise<Replica> {
    checkID("clusterID", clusterID, 0n);
    const lastStart = this.#lastStarts.get(clusterID);
    if (lastStart === undefined) throw new ErrClusterNotFound(clusterID);
    if (!this.logDB.isCopy) {
      throw new ErrNotImplemented(
        `Log of cluster ${clusterID} is ordered on this host, so no server has another history of it; restore a backup, or import a snapshot`,
      );
    }
    this.#removable(clusterID, options.machine);
    const starting = this.#clusters.get(clusterID);
    if (starting !== undefined) await this.#stopOne(clusterID, starting);
    // The outbox may not have stored yet that some were applied.
    const pending = lastStart.replica?.pending().map(({ id }) => id);
    await this.#reserve(
      clusterID,
      () =>
        this.#removeState(
          clusterID,
          options.machine,
          () => this.#outbox?.startOver(clusterID, pending),
        ),
    );
    return await this.#start(lastStart.factory, lastStart.config);
  }

  /** Stops every cluster and closes the stores that the host created; idempotent (H10). */
  stop(): Promise<void> {
    return this.#stopping ??= this.#stop();
  }

  async #stop(): Promise<void> {
    await Promise.all(
      [...this.#clusters].map(([clusterID, starting]) =>
        this.#stopOne(clusterID, starting)
      ),
    );
    this.#tabs?.close();
    for (const part of this.#own) await part.close();
  }

  /** Stops the host like {@linkcode NodeHost.stop}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }
}

/** Starts to rehearse the proposals and submissions of a host before they are ordered, until the returned function is called. For servers only. */
export function rehearseOn(
  host: NodeHost,
  request: RehearsalRequest,
): () => void {
  return NodeHost["rehearse"](host, request);
}
