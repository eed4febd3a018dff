/**
 * LogDB whose logs are on a server.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { type Env, systemEnv } from "../../env.ts";
import { SYNC_FRAME_BYTES_MAX, SYNC_FRAME_BYTES_MIN } from "../../limits.ts";
import { checkUnused } from "../../log/cluster_log.ts";
import { ErrClusterAlreadyExist, ErrClusterClosed } from "../../log/errors.ts";
import type { Log, LogDB } from "../../log/log.ts";
import { loadOnDemand } from "../../nodehost/load.ts";
import { wrongType } from "../../describe.ts";
import {
  checkOptions,
  isBlockStore,
  isCount,
  isEnv,
  isFunction,
  optional,
  type OptionChecks,
} from "../../options.ts";
import type { MaybePromise } from "../../statemachine/types.ts";
import type { StoreLease } from "../../store/lease.ts";
import { clustersUnder } from "../../store/names.ts";
import type { BlockStore } from "../../store/store.ts";
import { SYNC_LINKS_MAX } from "../../limits.ts";
import { ErrTooManyClusters } from "../errors.ts";
import { PROTOCOL_VERSIONS, VERSION_MAX, type Versions } from "../messages.ts";
import { type Connect, connectSocket } from "../transport.ts";
import { serverURL } from "./server_address.ts";
import { browserHints, type Hints } from "./reconnect_hints.ts";
import type { Link } from "./link.ts";
import { LinkPool } from "./link_pool.ts";
import { COPIES, LogCopy } from "./log_copy.ts";
import type { Fetch } from "./http_probe.ts";
import { RemoteLog } from "./remote_log.ts";
import {
  type ClusterState,
  type RemoteState,
  type RemoteStatus,
  Watchers,
} from "./status.ts";

/** Options of a {@linkcode RemoteLogDB}. */
export interface RemoteLogOptions {
  /**
   * Token by which the server authenticates this client, or a function that returns
   * one: called for each attempt to connect, and on an open connection when the
   * token is about to expire. Default: no token.
   */
  readonly token?:
    | string
    | (() => MaybePromise<string | undefined>)
    | undefined;
  /**
   * Store for a copy of the records received, from which machines in memory start
   * offline: from their last snapshot and the records after it. A function creates a
   * store that is closed with the logs. On-disk machines need no copy. Default: no
   * copy; a machine in memory then starts from its last snapshot, or empty, and
   * shows what was committed after that, its own commands too, once the server has
   * sent it.
   *
   * The copy is bounded. With durable snapshots, one is taken when the copy gets
   * long, also without `snapshotEntries`, and the copy is compacted; otherwise it
   * stops growing, and the status says so (`ErrCopyFull`).
   */
  readonly copy?: BlockStore | (() => BlockStore) | undefined;
  /** Opens a connection. Default: a WebSocket. */
  readonly connect?: Connect | undefined;
  /**
   * Sends the HTTP requests that find out why a WebSocket handshake failed. Default:
   * the global `fetch`, or no requests if `connect` is set.
   */
  readonly fetch?: Fetch | undefined;
  /** Clock, random numbers and timers. Default: those of the platform. */
  readonly env?: Env | undefined;
  /** Calls back when reconnecting may succeed. Default: `browserHints`, events of the network and the page. */
  readonly hints?: Hints | undefined;
  /** Protocol versions to speak. Default: all versions of this release. */
  readonly versions?: Versions | undefined;
  /**
   * Largest frame to send and to accept, in bytes, for a gateway that rejects larger
   * ones; larger messages go in parts. Default and maximum: the size that a batch of
   * the log needs. Frames shrink automatically when a gateway has rejected one;
   * larger ones are tried again after ten minutes at the earliest.
   */
  readonly frameBytes?: number | undefined;
}

function isToken(name: string, value: unknown): void {
  if (typeof value === "string" || typeof value === "function") return;
  throw wrongType(name, value, "a string, or a function that returns one");
}

function isVersions(name: string, value: unknown): void {
  const { first, last } = Object(value) as Partial<Versions>;
  isCount(1, VERSION_MAX)(`${name}.first`, first);
  isCount(first, VERSION_MAX)(`${name}.last`, last);
}

/** Validates options; throws a `TypeError` or `RangeError` that names the option. */
function checkRemoteOptions(options: RemoteLogOptions): void {
  const checks: OptionChecks<RemoteLogOptions> = {
    token: optional(isToken),
    copy: optional(isBlockStore),
    connect: optional(isFunction),
    fetch: optional(isFunction),
    env: optional(isEnv),
    hints: optional(isFunction),
    versions: optional(isVersions),
    frameBytes: optional(isCount(SYNC_FRAME_BYTES_MIN, SYNC_FRAME_BYTES_MAX)),
  };
  checkOptions("Options of a RemoteLogDB", options, checks);
}

const globalFetch: Fetch = (url, init) => fetch(url, init);

/** Ranks of cluster states: the worst has the highest. */
const RANKS: Readonly<Record<ClusterState, number>> = {
  "live": 0,
  "not accepting": 1,
  "catching up": 2,
  "waiting": 3,
  "failed": 4,
  "forbidden": 5,
  "blocked": 6,
};

/**
 * LogDB of the clusters that a server offers with `serve()`. All logs share one
 * WebSocket; more are opened if a server limits the clusters on one connection. It
 * reconnects automatically: to each address in turn, with backoff, and at once when
 * the browser reports that the network is back or the page is visible again (U38).
 *
 * Calls do not fail while offline: `open()` and `read()` resolve at once, with the
 * records in the copy; `append()`, `readIndex()` and `next()` wait. An append whose
 * connection is lost before the answer fails with `ErrUnknownOutcome`, and those
 * queued behind it with `ErrConnectionLost`, as they were not sent. A session sends
 * all of them again.
 *
 * If the token is invalid or expired, all calls wait (U34): the state is
 * `needs-auth`, each attempt requests a token from the application, and
 * `reconnect()` tries at once.
 *
 * ```ts
 * import { RemoteLogDB } from "./mod.ts";
 *
 * await using logDB = new RemoteLogDB("wss://example.com/sync");
 * const end = logDB.watch(({ state }) => console.log(state));
 * end();
 * ```
 */
export class RemoteLogDB implements LogDB {
  readonly #env: Env;
  readonly #links: LinkPool;
  #nextChannel = 1;
  readonly #watchers: Watchers;
  readonly #makeStore: (() => BlockStore) | undefined;
  #store: BlockStore | undefined;
  /** Lease under which the tabs of an origin share the copies; undefined if one page has them. */
  #lease: StoreLease | undefined;
  readonly #copies = new Map<bigint, Promise<LogCopy>>();
  /** Logs that are open or being opened, by cluster and node. */
  readonly #names = new Set<string>();
  /** True: these logs are copies of the server's. */
  readonly isCopy = true;
  readonly #open = new Set<RemoteLog>();
  /** Logs that were closed while blocked, by cluster. */
  readonly #ended = new Map<bigint, RemoteLog>();
  /** State of which the watchers were notified last. */
  #notified: RemoteState = "offline";
  #closing: Promise<void> | undefined;

  /**
   * Creates a LogDB for the servers at these addresses, such as
   * `wss://example.com/sync`; the default path is `/sync`. Connects once the first
   * log is opened.
   *
   * @throws ErrServerURL if one is not the address of a server
   * @throws RangeError if no URL is given, or an option is out of range
   * @throws TypeError if an option is of another type
   */
  constructor(
    urls: string | readonly string[],
    options: RemoteLogOptions = {},
  ) {
    const list = (Array.isArray(urls) ? urls : [urls]).map(serverURL);
    if (list.length === 0) {
      throw new RangeError("At least one server URL is required");
    }
    checkRemoteOptions(options);
    const { token, copy, env = systemEnv } = options;
    const { frameBytes = SYNC_FRAME_BYTES_MAX } = options;
    this.#env = env;
    if (typeof copy === "function") this.#makeStore = copy;
    else this.#store = copy;
    this.#watchers = new Watchers(env, () => this.status);
    this.#links = new LinkPool({
      urls: list,
      token: typeof token === "function" ? token : () => token,
      connect: options.connect ?? connectSocket,
      fetch: options.fetch ??
        (options.connect === undefined ? globalFetch : undefined),
      versions: options.versions ?? PROTOCOL_VERSIONS,
      hints: options.hints ?? browserHints,
      frameBytes,
      env,
      changed: () => {
        this.#notified = this.state;
        this.#watchers.changed();
      },
    });
  }

  /** State of the connection and of all clusters together. */
  get state(): RemoteState {
    const { state } = this.#links.worst;
    if (this.#blocked !== undefined) return "blocked";
    if (state !== "connected") return state;
    // Without an open log there is nothing that could be live.
    if (this.#open.size === 0) return "catching up";
    let worst: ClusterState = "live";
    for (const { state } of this.#open) {
      if (RANKS[state] > RANKS[worst]) worst = state;
    }
    return worst === "waiting" ? "catching up" : worst;
  }

  /** State, its reason, the time of the next attempt, and the progress of each cluster. */
  get status(): RemoteStatus {
    const link = this.#links.worst;
    const { failure, addresses } = link;
    const { state } = this;
    const log = this.#worstLog;
    const reported = this.#blocked?.failure ?? failure ?? log?.failure;
    const retryAt = link.retryAt ?? log?.progress.retryAt;
    const now = this.#env.now();
    return {
      state,
      ...(reported === undefined
        ? {}
        : { reason: reported.reason, error: reported.error }),
      ...(retryAt === undefined
        ? {}
        : { retryAt, retryInMs: Math.max(0, retryAt - now) }),
      addresses: addresses.map(({ url, failure }) => ({
        url,
        ...(failure === undefined ? {} : { reason: failure.reason }),
      })),
      clusters: [...this.#open, ...this.#ended.values()]
        .map(({ progress }) => progress),
    };
  }

  /** Log that is blocked until someone acts, if there is one. */
  get #blocked(): RemoteLog | undefined {
    for (const log of this.#ended.values()) return log;
    for (const log of this.#open) if (log.state === "blocked") return log;
    return undefined;
  }

  /** Log in the worst state for a reason other than catching up, while connected. */
  get #worstLog(): RemoteLog | undefined {
    if (this.#links.worst.state !== "connected") return undefined;
    let worst: RemoteLog | undefined;
    for (const log of this.#open) {
      if (log.failure === undefined) continue;
      if (worst === undefined || RANKS[log.state] > RANKS[worst.state]) {
        worst = log;
      }
    }
    return worst;
  }

  /**
   * Calls `listener` after each change of the state, and at intervals while data is
   * received; returns a function that stops it. The first call is for the next
   * change; read `status` for the present one.
   */
  watch(listener: (status: RemoteStatus) => void): () => void {
    return this.#watchers.add(listener);
  }

  /** Reconnects at once, for example with a new token; safe to call at any time. */
  reconnect(): void {
    this.#links.reconnect();
  }

  #check(): void {
    if (this.#closing !== undefined) {
      throw new ErrClusterClosed(
        `LogDB of ${this.#links.worst.addresses[0]?.url} is closed`,
      );
    }
  }

  /**
   * Opens the log of a cluster for one of its replicas, connected or not.
   *
   * @throws ErrClusterAlreadyExist if that replica has it open already
   * @throws ErrClusterClosed after `close()`
   * @throws ErrTooManyClusters if more are open than connections carry
   * @throws what the store of the copy throws if it cannot be read
   */
  async open(clusterID: bigint, nodeID: bigint): Promise<Log> {
    this.#check();
    const name = `${clusterID}/${nodeID}`;
    if (this.#names.has(name)) {
      throw new ErrClusterAlreadyExist(
        `Replica ${nodeID} of cluster ${clusterID} has the log open already`,
      );
    }
    this.#names.add(name);
    try {
      const copy = await this.#copyOf(clusterID);
      this.#check();
      return this.#add(name, clusterID, nodeID, copy);
    } catch (error) {
      this.#names.delete(name);
      throw error;
    }
  }

  #add(
    name: string,
    clusterID: bigint,
    nodeID: bigint,
    copy: LogCopy | undefined,
  ): RemoteLog {
    const link = this.#links.take();
    if (link === undefined) {
      throw new ErrTooManyClusters(
        `${this.#open.size} clusters are open over ${SYNC_LINKS_MAX} connections, as many as there may be: close one, or use another RemoteLogDB`,
      );
    }
    const log: RemoteLog = new RemoteLog({
      channel: this.#nextChannel++,
      clusterID,
      nodeID,
      link,
      overflow: (link) => this.#overflow(link),
      env: this.#env,
      copy,
      progressed: () => this.#watchers.progressed(),
      changed: () => this.#changed(),
      failureChanged: () => {
        this.#notified = this.state;
        this.#watchers.changed();
      },
      onClose: () => {
        this.#open.delete(log);
        this.#links.left(log.link);
        this.#names.delete(name);
        // Its reason must stay in the status: the cluster is still blocked.
        if (log.state === "blocked") this.#ended.set(clusterID, log);
        this.#changed();
      },
    });
    this.#open.add(log);
    this.#ended.delete(clusterID);
    this.#changed();
    return log;
  }

  /** Link for a cluster that the server refuses on this one for lack of room, if another is possible. */
  #overflow(link: Link): Link | undefined {
    // A cluster that is refused alone would be refused on any link.
    if (link.size < 2) return undefined;
    this.#links.learn(link.size - 1);
    return this.#links.take();
  }

  /** Notifies the watchers if the state has changed. */
  #changed(): void {
    const { state } = this;
    if (state === this.#notified) return;
    this.#notified = state;
    this.#watchers.changed();
  }

  /** Shares the copies of the logs between the tabs of an origin under a lease. */
  share(lease: StoreLease): void {
    this.#lease = lease;
    const store = this.#store ??= this.#makeStore?.();
    store?.share?.(lease);
    lease.add({
      release: () => {
        for (const opening of this.#copies.values()) {
          opening.then((copy) => copy.leave(), () => {});
        }
      },
      forget: () => this.#copies.clear(),
    });
  }

  #copyOf(clusterID: bigint): Promise<LogCopy> | undefined {
    if (this.#lease?.isVoid) return undefined;
    const store = this.#store ??= this.#makeStore?.();
    if (store === undefined) return undefined;
    let opening = this.#copies.get(clusterID);
    if (opening === undefined) {
      opening = LogCopy.open(store, clusterID);
      this.#copies.set(clusterID, opening);
      // A later call may succeed.
      opening.catch(() => this.#copies.delete(clusterID));
    }
    return opening;
  }

  /**
   * Opens the copy of the log of a cluster without the server: no record comes, and
   * none can be added.
   *
   * @throws ErrClusterAlreadyExist if a replica has the log open
   */
  async openReadOnly(clusterID: bigint): Promise<Log> {
    this.#check();
    this.#checkUnused(clusterID);
    const name = `${clusterID}/kept`;
    this.#names.add(name);
    try {
      const { ReadOnlyLog } = await loadOnDemand();
      const copy = await this.#copyOf(clusterID);
      return new ReadOnlyLog(copy, () => void this.#names.delete(name));
    } catch (error) {
      this.#names.delete(name);
      throw error;
    }
  }

  #checkUnused(clusterID: bigint): void {
    const names = [...this.#names].filter((name) =>
      name.startsWith(`${clusterID}/`)
    );
    checkUnused(clusterID, names.map((name) => name.split("/")[1]));
  }

  /** Clusters with a local copy of their log, in order of their ids. */
  async clusters(): Promise<readonly bigint[]> {
    this.#check();
    const store = this.#store ??= this.#makeStore?.();
    return store === undefined ? [] : await clustersUnder(store, COPIES);
  }

  /**
   * Removes the copy of the log of a cluster; the log itself is the server's.
   *
   * @throws ErrClusterAlreadyExist if a replica has the log open
   */
  async removeData(clusterID: bigint): Promise<void> {
    this.#check();
    this.#checkUnused(clusterID);
    this.#ended.delete(clusterID);
    this.#changed();
    const store = this.#store ??= this.#makeStore?.();
    if (store === undefined) return;
    const copy = await this.#copies.get(clusterID)?.catch(() => undefined);
    this.#copies.delete(clusterID);
    await copy?.settled();
    await LogCopy.remove(store, clusterID);
  }

  /** Closes the logs and the connection; idempotent. */
  close(): Promise<void> {
    return this.#closing ??= this.#end();
  }

  async #end(): Promise<void> {
    const closed = [...this.#open].map((log) => log.close());
    this.#links.close();
    this.#watchers.close();
    await Promise.all(closed);
    if (this.#makeStore === undefined) return;
    // A copy that is being opened still uses the store.
    await Promise.allSettled(this.#copies.values());
    await this.#store?.close();
  }

  /** Calls `close()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
