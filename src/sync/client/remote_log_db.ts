/**
 * Logs of clusters on a server.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { type Env, systemEnv } from "../../env.ts";
import { SYNC_FRAME_BYTES_MAX, SYNC_FRAME_BYTES_MIN } from "../../limits.ts";
import { ErrClusterAlreadyExist, ErrClusterClosed } from "../../log/errors.ts";
import { ReadOnlyLog } from "../../log/read_only_log.ts";
import type { Log, LogDB } from "../../log/log.ts";
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
import { clustersUnder } from "../../store/names.ts";
import type { BlockStore } from "../../store/store.ts";
import { SYNC_LINKS_MAX } from "../../limits.ts";
import { ErrTooManyClusters } from "../errors.ts";
import { PROTOCOL_VERSIONS, VERSION_MAX, type Versions } from "../messages.ts";
import { type Connect, connectSocket } from "../transport.ts";
import { serverURL } from "./address.ts";
import { browserHints, type Hints } from "./hints.ts";
import type { Link } from "./link.ts";
import { Links } from "./links.ts";
import { COPIES, LogCopy } from "./log_copy.ts";
import type { Fetch } from "./probe.ts";
import { RemoteLog } from "./remote_log.ts";
import {
  type ClusterState,
  type RemoteState,
  type RemoteStatus,
  Watchers,
} from "./status.ts";

/** What a {@linkcode RemoteLogDB} can be told. */
export interface RemoteLogOptions {
  /**
   * Token by which the server authenticates this client, or a function that gives
   * one: asked with each attempt to connect, and again when the server needs
   * another one on the open connection, since the one before is about to expire.
   */
  readonly token?:
    | string
    | (() => MaybePromise<string | undefined>)
    | undefined;
  /**
   * Where what comes is kept too, so that machines in memory start with no
   * network from their last snapshot and what came after it. A function makes a
   * store that is closed with the logs. On-disk machines need none.
   *
   * It is bounded: where snapshots outlive the host, one is taken when the copy
   * gets long, also without `snapshotEntries`, and lets it be cut; else it keeps
   * what it has and nothing more, and its status says so (`ErrCopyFull`).
   */
  readonly copy?: BlockStore | (() => BlockStore) | undefined;
  /** Begins a connection; a WebSocket by default. */
  readonly connect?: Connect | undefined;
  /**
   * Sends the HTTP requests that find out why no WebSocket comes about; by default
   * the global `fetch`, or none where `connect` is given.
   */
  readonly fetch?: Fetch | undefined;
  /** Time, random numbers and timers; by default the real ones. */
  readonly env?: Env | undefined;
  /** Tells when connecting may go well again; by default what a browser tells of network and page. */
  readonly hints?: Hints | undefined;
  /** The versions of the protocol to speak; by default all there are. */
  readonly versions?: Versions | undefined;
  /**
   * The largest frame to send and to take, in bytes, where a gateway on the way
   * lets through no larger one: larger messages go in parts. By default, and at
   * most, as large as a batch of the log needs. Frames get smaller by themselves
   * once a gateway has refused one; larger ones are tried again ten minutes later
   * at the earliest.
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

/** Refuses options that cannot be used, with a `TypeError` or `RangeError` that names the option. */
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

/** States of clusters, the worst with the highest rank. */
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
 * The logs of a server that `serve()` offers, over one WebSocket for all of
 * them (over further ones where a server serves no more clusters on one). It connects by itself, and again whenever the connection ends: to the
 * addresses in turn, at growing distances, and at once when the browser tells
 * that the network is back or the page is seen again (U38).
 *
 * Without a connection nothing fails. `open()` and `read()` resolve at once, with
 * what is in the copy; `append()`, `readIndex()` and `next()` wait. An append
 * whose connection is lost before the answer is `ErrUnknownOutcome`, and those
 * handed over behind it fail with `ErrConnectionLost`: they were not sent. A
 * session sends all of them again.
 *
 * When the token is not, or not any more, good, everything waits (U34): the
 * state is `needs-auth`, the token is asked for again with each attempt, and
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
  readonly #links: Links;
  #nextChannel = 1;
  readonly #watchers: Watchers;
  readonly #makeStore: (() => BlockStore) | undefined;
  #store: BlockStore | undefined;
  readonly #copies = new Map<bigint, Promise<LogCopy>>();
  /** By cluster and node; those being opened too. */
  readonly #names = new Set<string>();
  /** True: the home of these logs is the server. */
  readonly isCopy = true;
  readonly #open = new Set<RemoteLog>();
  /** Logs that were closed when they could go no further, by their cluster. */
  readonly #ended = new Map<bigint, RemoteLog>();
  /** The state as it was told last. */
  #told: RemoteState = "offline";
  #closing: Promise<void> | undefined;

  /**
   * Logs at these addresses, such as `wss://example.com/sync`; an address without
   * a path means `/sync`. Connects once the first log is opened.
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
    this.#links = new Links({
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
        this.#told = this.state;
        this.#watchers.changed();
      },
    });
  }

  /** State of the connection and of all clusters together. */
  get state(): RemoteState {
    const { state } = this.#links.worst;
    if (this.#blocked !== undefined) return "blocked";
    if (state !== "connected") return state;
    // Of nothing it could not be said that it is live.
    if (this.#open.size === 0) return "catching up";
    let worst: ClusterState = "live";
    for (const { state } of this.#open) {
      if (RANKS[state] > RANKS[worst]) worst = state;
    }
    return worst === "waiting" ? "catching up" : worst;
  }

  /** State, the reason for it, the time of the next attempt, and the progress of each cluster. */
  get status(): RemoteStatus {
    const link = this.#links.worst;
    const { trouble, addresses } = link;
    const { state } = this;
    const log = this.#worstLog;
    const told = this.#blocked?.trouble ?? trouble ?? log?.trouble;
    const retryAt = link.retryAt ?? log?.progress.retryAt;
    const now = this.#env.now();
    return {
      state,
      ...(told === undefined ? {} : { reason: told.reason, error: told.error }),
      ...(retryAt === undefined
        ? {}
        : { retryAt, retryInMs: Math.max(0, retryAt - now) }),
      addresses: addresses.map(({ url, trouble }) => ({
        url,
        ...(trouble === undefined ? {} : { reason: trouble.reason }),
      })),
      clusters: [...this.#open, ...this.#ended.values()]
        .map(({ progress }) => progress),
    };
  }

  /** A log that goes no further until someone acts, if there is one. */
  get #blocked(): RemoteLog | undefined {
    for (const log of this.#ended.values()) return log;
    for (const log of this.#open) if (log.state === "blocked") return log;
    return undefined;
  }

  /** The worst of the logs that are not live for more than a moment, while there is a connection. */
  get #worstLog(): RemoteLog | undefined {
    if (this.#links.worst.state !== "connected") return undefined;
    let worst: RemoteLog | undefined;
    for (const log of this.#open) {
      if (log.trouble === undefined) continue;
      if (worst === undefined || RANKS[log.state] > RANKS[worst.state]) {
        worst = log;
      }
    }
    return worst;
  }

  /**
   * Calls `listener` whenever the state is another one, and now and then while
   * something comes; returns what ends that. It is not called with what is there
   * already: that is `status`.
   */
  watch(listener: (status: RemoteStatus) => void): () => void {
    return this.#watchers.add(listener);
  }

  /** Tries to connect at once, say because there is a new token; harmless at any time. */
  reconnect(): void {
    this.#links.reconnect();
  }

  #check(): void {
    if (this.#closing !== undefined) {
      throw new ErrClusterClosed("LogDB is closed");
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
      troubled: () => {
        this.#told = this.state;
        this.#watchers.changed();
      },
      onClose: () => {
        this.#open.delete(log);
        this.#links.left(log.link);
        this.#names.delete(name);
        // With it, what it reports would be gone, and all would seem well.
        if (log.state === "blocked") this.#ended.set(clusterID, log);
        this.#changed();
      },
    });
    this.#open.add(log);
    this.#ended.delete(clusterID);
    this.#changed();
    return log;
  }

  /** Another link for a cluster that a server does not serve on this one, if there may be one. */
  #overflow(link: Link): Link | undefined {
    // One that is refused alone would be refused anywhere.
    if (link.size < 2) return undefined;
    this.#links.learn(link.size - 1);
    return this.#links.take();
  }

  /** Something of a log is different; whether that makes a difference to the state is told once. */
  #changed(): void {
    const { state } = this;
    if (state === this.#told) return;
    this.#told = state;
    this.#watchers.changed();
  }

  #copyOf(clusterID: bigint): Promise<LogCopy> | undefined {
    const store = this.#store ??= this.#makeStore?.();
    if (store === undefined) return undefined;
    let opening = this.#copies.get(clusterID);
    if (opening === undefined) {
      opening = LogCopy.open(store, clusterID);
      this.#copies.set(clusterID, opening);
      // It may be tried again.
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
      const copy = await this.#copyOf(clusterID);
      return new ReadOnlyLog(copy, () => void this.#names.delete(name));
    } catch (error) {
      this.#names.delete(name);
      throw error;
    }
  }

  #checkUnused(clusterID: bigint): void {
    for (const name of this.#names) {
      if (!name.startsWith(`${clusterID}/`)) continue;
      throw new ErrClusterAlreadyExist(
        `Replica ${
          name.split("/")[1]
        } of cluster ${clusterID} has the log open: stop it first`,
      );
    }
  }

  /** Clusters of whose log a copy is kept here, in order of their ids. */
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
    // One that is being opened lets go of the store first.
    await Promise.allSettled(this.#copies.values());
    await this.#store?.close();
  }

  /** As `close()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
