/**
 * Tabs that share the replicas of a host, as one of them sees them: routes what
 * changes with the leader to the logs and outboxes of the clusters.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { Backoff, notify, withResolvers } from "../async.ts";
import {
  RETRY_LAST_MS,
  TAB_PAUSE_MS,
  TAB_PAUSE_MS_MAX,
  TAB_PING_MS,
  TAB_RETRY_FIRST_MS,
  TAB_START_MS_MAX,
} from "../limits.ts";
import { ErrClusterClosed, ErrUnknownOutcome } from "../log/errors.ts";
import type { Log, LogDB } from "../log/log.ts";
import type { HostStores, HostTabs, SharingHost } from "../nodehost/tabs.ts";
import { newNodeID } from "../nodehost/node_id.ts";
import type { Replica } from "../nodehost/replica.ts";
import { defaultLogDB, defaultSnapshots } from "../nodehost/default_stores.ts";
import { MemoryOutbox } from "../offline/memory_outbox.ts";
import type { SharedOutboxStore } from "../offline/outbox_store.ts";
import type { SnapshotStore } from "../snapshot/store.ts";
import { loadOnce } from "../statemachine/load.ts";
import { isLeasable } from "../store/lease.ts";
import { ErrStoreLocked, ErrStoreVersion } from "../store/errors.ts";
import {
  type CallMessage,
  type ClusterMessage,
  codeIn,
  type Envelope,
  joinedCode,
  type OutboxMessage,
  type TabMessage,
} from "./messages.ts";
import { formOf, type SentError } from "../worker/sent_error.ts";
import type { TabPlatform } from "./platform.ts";
import { LeadsHere, TabCalls } from "./tab_calls.ts";
import { TabGroup } from "./tab_group.ts";
import type { OtherTab, TabState } from "./tab_state.ts";
import { TabLog } from "./tab_log.ts";
import { type AttachedTabOutbox, TabOutbox } from "./tab_outbox.ts";
import { TabSnapshots } from "./tab_snapshots.ts";

/** State of a tab, with its reason. */
export interface TabStatus {
  /** State of the tab. */
  readonly state: TabState;
  /** Reason why nothing is shared, or why the page has to be reloaded, as text for the user; undefined in every other state. */
  readonly reason: string | undefined;
  /** Epoch of the leader: it increases with each change of the leader. */
  readonly epoch: number;
}

/** Loads what answers calls of other tabs. */
const loadServe = /* @__PURE__ */ loadOnce(
  "answers other tabs",
  () => import("./serve_calls.ts"),
);

/** Options of a {@linkcode SharedTabs}. */
export interface SharedTabsOptions {
  readonly code: number;
  readonly onCluster: ((clusterID: bigint) => unknown) | undefined;
}

/** Stores of a tab that is a device in memory of its own. */
interface InMemory {
  readonly logDB: LogDB;
  readonly snapshots: SnapshotStore;
  readonly outbox: MemoryOutbox;
}

/** One cluster in a tab. */
interface TabCluster {
  log: TabLog | undefined;
  outbox: AttachedTabOutbox | undefined;
}

/** Tabs under a name, for the host of one tab. */
export class SharedTabs implements HostTabs {
  readonly #platform: TabPlatform;
  readonly #options: SharedTabsOptions;
  readonly #group: TabGroup;
  readonly #calls: TabCalls;
  readonly #clusters = new Map<bigint, TabCluster>();
  /** Number of changes of the role. */
  #roles = 0;
  /** Clusters that this tab was asked to start. */
  readonly #asked = new Set<bigint>();
  readonly #watchers = new Set<(status: TabStatus) => void>();
  #host: SharingHost | undefined;
  /** Logs, snapshots and outbox of a tab that is a device of its own. */
  #memory: InMemory | undefined;
  readonly #ready = withResolvers<void>();
  #leads = withResolvers<void>();
  /** Error of what waits for the lead, once this tab has left. */
  #closed: Error | undefined;

  /** Creates the tabs under a name. */
  constructor(
    name: string,
    platform: TabPlatform,
    options: SharedTabsOptions,
  ) {
    this.#platform = platform;
    this.#options = options;
    const hasQueued = (): boolean => {
      for (const { outbox } of this.#clusters.values()) {
        if (outbox?.hasQueued) return true;
      }
      return false;
    };
    this.#group = new TabGroup(name, joinedCode(options.code), platform, {
      get hasQueued(): boolean {
        return hasQueued();
      },
      changed: () => this.#changed(),
      led: () => this.#led(),
      lost: () => this.#lost(),
      asked: () => {
        // A tab may have ended between its submission and its message.
        for (const { outbox } of this.#clusters.values()) outbox?.look();
      },
      message: (message, envelope) => this.#received(message, envelope),
    });
    this.#calls = new TabCalls(this.#group);
    this.#ready.promise.catch(() => {});
  }

  /** State of this tab. */
  get status(): TabStatus {
    const { state, epoch, reason } = this.#group;
    const isTold = state === "memory" || state === "outdated";
    return { state, epoch, reason: isTold ? reason : undefined };
  }

  /** Calls `listener` after each change of the status; returns a function that ends the calls. */
  watch(listener: (status: TabStatus) => void): () => void {
    const own = (status: TabStatus): void => listener(status);
    this.#watchers.add(own);
    return () => void this.#watchers.delete(own);
  }

  /** Asks the other tabs what they are, and lists those that answer in time, the leader first. */
  async others(): Promise<readonly OtherTab[]> {
    const others = await this.#group.others();
    return others.map((one) => ({ ...one, code: codeIn(one.code) }));
  }

  /** Leaves the lead to another tab, if one waits for it. */
  handOver(): void {
    this.#group.handOver();
  }

  /** Leaves the tabs. */
  close(): void {
    this.#group.close();
    const closed = this.#closed ??= new ErrClusterClosed(
      `Tab ${this.#group.id} has left the others`,
    );
    this.#calls.end(closed);
    this.#ready.reject(closed);
  }

  #changed(): void {
    const { status } = this;
    for (const watcher of [...this.#watchers]) notify(watcher, status);
  }

  // ----------------------------------------------------------------------- host

  /** Returns the stores of a host, which tabs share. */
  share(host: SharingHost): HostStores {
    if (this.#host !== undefined) {
      throw new TypeError(
        "Tabs are used by another host: call shareTabs() for each host",
      );
    }
    this.#host = host;
    const { logDB, snapshots, outbox } = host;
    if (outbox !== undefined && !("joining" in outbox)) {
      throw new TypeError(
        "Outbox cannot be shared by tabs: use an IndexedDBOutbox, or another BlockOutbox",
      );
    }
    for (const part of new Set([logDB, snapshots, outbox])) {
      if (part !== undefined && isLeasable(part)) part.share(this.#group);
    }
    // The host is created first.
    queueMicrotask(() => this.#group.join());
    return {
      logDB: this.#logDB(logDB),
      snapshots: this.#tabSnapshots(() => this.#snapshots),
      outbox: outbox && this.#outbox(outbox as unknown as SharedOutboxStore),
    };
  }

  /** True while this tab has stores of its own: it leads, or is a device in memory. */
  get #isLeading(): boolean {
    return this.#group.isLeading || this.#group.isVoid;
  }

  get #inMemory(): InMemory {
    const { env } = this.#platform;
    return this.#memory ??= {
      logDB: defaultLogDB(env),
      snapshots: defaultSnapshots(),
      outbox: new MemoryOutbox({ env }),
    };
  }

  /** Snapshots of the device. */
  get #snapshots(): SnapshotStore {
    return this.#group.isVoid
      ? this.#inMemory.snapshots
      : this.#host!.snapshots;
  }

  #tabSnapshots(store: () => SnapshotStore | undefined): TabSnapshots {
    return new TabSnapshots({
      store,
      isLeading: () => this.#isLeading,
      lead: () => this.#lead(),
    });
  }

  #logDB(logDB: LogDB): LogDB {
    const isCopy = logDB.isCopy ?? false;
    const open = async (clusterID: bigint, nodeID: bigint): Promise<Log> => {
      await this.#ready.promise;
      const log = this.#openLog(logDB, clusterID, nodeID);
      const { epoch } = this.#group;
      try {
        if (this.#isLeading) await log.lead();
      } catch (error) {
        // If another tab has taken the lead, its log is read.
        if (this.#isLeading && epoch === this.#group.epoch) {
          await log.close();
          throw error;
        }
      }
      return log;
    };
    const { removeData, clusters, openReadOnly } = logDB;
    return {
      isCopy,
      open,
      openForHost: (clusterID, nodeID) =>
        this.#leading(async () => await this.#ownLogDB.open(clusterID, nodeID)),
      ...(logDB.snapshots === undefined ? {} : {
        snapshots: this.#tabSnapshots(() => this.#ownLogDB.snapshots),
      }),
      ...(openReadOnly === undefined ? {} : {
        openReadOnly: async (clusterID) => {
          await this.#lead();
          return await logDB.openReadOnly!(clusterID);
        },
      }),
      ...(clusters === undefined ? {} : {
        clusters: async () => {
          await this.#ready.promise;
          return await this.#ownLogDB.clusters?.() ?? [];
        },
      }),
      ...(removeData === undefined ? {} : {
        removeData: (clusterID) =>
          this.#leading(async () =>
            await this.#ownLogDB.removeData!(clusterID)
          ),
      }),
      close: () => Promise.resolve(),
      [Symbol.asyncDispose]: () => Promise.resolve(),
    };
  }

  /** Logs that this tab opens itself: while it leads, or is a device in memory. */
  get #ownLogDB(): LogDB {
    const { logDB } = this.#host!;
    return this.#group.isVoid && !logDB.isCopy ? this.#inMemory.logDB : logDB;
  }

  #blocked(clusterID: bigint, cause: SentError | undefined): void {
    const { outbox } = this.#cluster(clusterID);
    outbox?.received({ kind: "blocked", cause }, true);
  }

  #openLog(logDB: LogDB, clusterID: bigint, nodeID: bigint): TabLog {
    const isCopy = logDB.isCopy ?? false;
    const cluster = this.#cluster(clusterID);
    const log: TabLog = new TabLog({
      clusterID,
      calls: this.#calls,
      isCopy,
      open: () =>
        // A device in memory must not have the node id of another tab.
        this.#ownLogDB.open(
          clusterID,
          this.#group.isVoid ? newNodeID() : nodeID,
        ),
      post: (message) => this.#post(clusterID, message),
      blocked: (cause) => this.#blocked(clusterID, cause),
      replica: () => this.#replica(clusterID),
      pauses: () => this.#pauses(),
      verify: () => this.#group.verify(),
      onClose: () => {
        if (cluster.log === log) cluster.log = undefined;
      },
    });
    return cluster.log = log;
  }

  #outbox(store: SharedOutboxStore): TabOutbox {
    const tabs = (): { group: TabGroup; memory: MemoryOutbox } => ({
      group: this.#group,
      memory: this.#inMemory.outbox,
    });
    return new TabOutbox({
      get store(): SharedOutboxStore {
        const { group, memory } = tabs();
        return group.isVoid ? memory : store;
      },
      get isLeading(): boolean {
        const { group } = tabs();
        return group.isLeading || group.isVoid;
      },
      get refusal(): Error | undefined {
        const { group } = tabs();
        return group.state === "outdated"
          ? new ErrStoreVersion(0, group.reason!)
          : undefined;
      },
      post: (clusterID, message) => {
        this.#post(clusterID, message);
        this.#group.watchLeader();
      },
      dismiss: async (clusterID, number) => {
        await this.#calls.call(clusterID, "dismiss", { number });
      },
      adopt: async (clusterID) => {
        try {
          await this.#calls.call(clusterID, "adopt", undefined);
        } catch (error) {
          // The session of this tab finds out by itself that the outbox is a copy.
          if (!(error instanceof LeadsHere)) throw error;
        }
      },
      rejoin: (clusterID) => {
        if (this.#isLeading) return;
        // Never rejects: a failure is reported, and the change repeated.
        void this.#rejoin(this.#cluster(clusterID));
      },
      attached: (clusterID, outbox) => {
        this.#cluster(clusterID).outbox = outbox;
      },
      leading: (work) => this.#leading(work),
    });
  }

  #cluster(clusterID: bigint): TabCluster {
    let cluster = this.#clusters.get(clusterID);
    if (cluster === undefined) {
      cluster = { log: undefined, outbox: undefined };
      this.#clusters.set(clusterID, cluster);
    }
    return cluster;
  }

  #post(clusterID: bigint, message: ClusterMessage): void {
    this.#group.post(message, clusterID);
  }

  /** Resolves once this tab leads; what changes the stores as a whole is done there. */
  async #lead(): Promise<void> {
    await this.#ready.promise;
    if (this.#isLeading) return;
    const { env } = this.#platform;
    const done = this.#group.awaiting();
    try {
      while (!this.#isLeading) {
        if (this.#closed !== undefined) throw this.#closed;
        this.#group.demand();
        await new Promise<void>((resolve) => {
          const cancel = env.setTimer(resolve, TAB_PING_MS);
          const end = (): void => {
            cancel();
            resolve();
          };
          this.#leads.promise.then(end, end);
        });
      }
    } finally {
      done();
    }
  }

  /** Does something with the stores once this tab leads; again, if another tab takes the lead before it is done. */
  async #leading<T>(work: () => Promise<T>): Promise<T> {
    for (;;) {
      await this.#lead();
      try {
        return await work();
      } catch (error) {
        if (!(error instanceof ErrStoreLocked) || this.#isLeading) throw error;
      }
    }
  }

  // ------------------------------------------------------------ change of leader

  #led(): void {
    this.#roles++;
    this.#ready.resolve();
    const isLeading = this.#isLeading;
    if (isLeading) this.#leads.resolve();
    this.#calls.led();
    this.#asked.clear();
    for (const cluster of this.#clusters.values()) {
      // Never rejects: a failure is reported, and the change repeated.
      void (isLeading ? this.#leadOne(cluster) : this.#followOne(cluster));
    }
  }

  /** Has one cluster follow another tab. Never rejects. */
  async #followOne(cluster: TabCluster): Promise<void> {
    const { log } = cluster;
    // Entries are shown together with the commands that are still pending.
    log?.pause();
    log?.follow();
    await this.#rejoin(cluster);
  }

  /** Has one cluster open its outbox beside the leader. Never rejects. */
  async #rejoin(cluster: TabCluster): Promise<void> {
    const { outbox } = cluster;
    await this.#change(cluster, async () => await outbox?.follow());
  }

  /** Has one cluster go on with the stores of this tab. Never rejects. */
  async #leadOne(cluster: TabCluster): Promise<void> {
    const { log, outbox } = cluster;
    if (log === undefined) return;
    await this.#change(cluster, async () => {
      if (log.isFollower) await log.lead();
      await outbox?.lead(log.delivered);
    });
  }

  /**
   * Makes a change of the role, during which the replica gets no records; repeated
   * after a failure, which the log or the outbox has reported, until another change
   * takes its place. Never rejects.
   */
  async #change(
    cluster: TabCluster,
    change: () => Promise<void>,
  ): Promise<void> {
    const { log } = cluster;
    const { env } = this.#platform;
    const role = this.#roles;
    const backoff = new Backoff(env, TAB_RETRY_FIRST_MS, RETRY_LAST_MS);
    for (let isDone = false; !isDone;) {
      const pause = log?.pause();
      try {
        await change();
        isDone = true;
      } catch {
        isDone = role !== this.#roles || cluster.log !== log;
      }
      if (pause !== undefined) log!.resume(pause);
      if (isDone) return;
      await this.#pause(backoff.next());
      isDone = role !== this.#roles || cluster.log !== log;
    }
  }

  #lost(): void {
    this.#roles++;
    this.#leads = withResolvers();
    this.#calls.lost();
    for (const { log, outbox } of this.#clusters.values()) {
      outbox?.lost();
      log?.lost();
    }
  }

  // ------------------------------------------------------------------- messages

  #received(
    message: TabMessage,
    { from, clusterID, epoch }: Envelope,
  ): void {
    switch (message.kind) {
      case "answer":
      case "failed":
      case "again":
      case "part":
        return this.#calls.received(message);
      case "call":
        // Never rejects: the caller gets the error.
        return void this.#serve(from, clusterID!, message);
      case "entries":
      case "reached":
      case "principal":
        return this.#clusters.get(clusterID!)?.log?.received(message);
      case "added":
      case "sending":
      case "session":
      case "settled":
      case "dismissed":
      case "blocked":
        this.#clusters.get(clusterID!)?.outbox?.received(
          message as OutboxMessage,
          epoch === this.#group.epoch,
        );
        return this.#group.watchLeader();
    }
  }

  async #serve(
    from: string,
    clusterID: bigint,
    { id, method, args }: Extract<CallMessage, { readonly kind: "call" }>,
  ): Promise<void> {
    if (!this.#group.isLeading) return;
    const { epoch } = this.#group;
    const reply = (message: CallMessage): void => {
      // A leader that was replaced answers nothing.
      if (this.#group.isLeading && this.#group.epoch === epoch) {
        this.#group.postTo(from, message, clusterID);
      }
    };
    let log: TabLog | undefined;
    try {
      log = await this.#startedLog(clusterID);
      const { answerCall } = await loadServe();
      const answer = await answerCall(method, args, {
        log: log.served,
        replica: () => this.#replica(clusterID),
        outbox: this.#clusters.get(clusterID)?.outbox,
        part: (bytes) => reply({ kind: "part", id, bytes }),
      });
      reply({ kind: "answer", id, answer });
    } catch (error) {
      if (log === undefined || log === this.#cluster(clusterID).log) {
        return reply({ kind: "failed", id, error: formOf(error) });
      }
      // The replica has ended in this tab. The next leader answers, or this tab once it
      // has started the cluster again; an append may have taken effect.
      if (method !== "append") return reply({ kind: "again", id });
      const unknown = new ErrUnknownOutcome(
        `Leading tab has stopped cluster ${clusterID} during an append`,
        { cause: error },
      );
      reply({ kind: "failed", id, error: formOf(unknown) });
    }
  }

  /** Replica of a cluster, once this tab has started it. */
  #replica(clusterID: bigint): Promise<Replica> {
    return this.#until(clusterID, () => this.#host!.replica(clusterID));
  }

  /** Log of a cluster, once this tab has started it. */
  async #startedLog(clusterID: bigint): Promise<TabLog> {
    if (
      this.#clusters.get(clusterID)?.log === undefined &&
      !this.#asked.has(clusterID)
    ) {
      this.#asked.add(clusterID);
      const { onCluster } = this.#options;
      if (onCluster !== undefined) notify(onCluster, clusterID);
    }
    return await this.#until(
      clusterID,
      () => this.#clusters.get(clusterID)?.log,
    );
  }

  /**
   * Value of `get`, once it has one.
   *
   * @throws ErrClusterClosed if it has none in time, or this tab leads no more
   */
  async #until<T>(clusterID: bigint, get: () => T | undefined): Promise<T> {
    const { env } = this.#platform;
    const last = env.now() + TAB_START_MS_MAX;
    const pause = this.#pauses();
    for (;;) {
      const value = get();
      if (value !== undefined) return value;
      if (!this.#group.isLeading) {
        throw new ErrClusterClosed(`Tab ${this.#group.id} leads no more`);
      }
      if (env.now() >= last) {
        this.#asked.delete(clusterID);
        throw new ErrClusterClosed(
          `Leading tab has not started cluster ${clusterID} within ${TAB_START_MS_MAX} ms: start it in every tab, or give shareTabs() the option onCluster`,
        );
      }
      await pause();
    }
  }

  /** Returns a function whose promises resolve after pauses that get longer. */
  #pauses(): () => Promise<void> {
    const { env } = this.#platform;
    const backoff = new Backoff(env, TAB_PAUSE_MS, TAB_PAUSE_MS_MAX);
    return () => this.#pause(backoff.next());
  }

  #pause(ms: number): Promise<void> {
    const { env } = this.#platform;
    return new Promise((resolve) => void env.setTimer(resolve, ms));
  }
}
