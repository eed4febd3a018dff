/**
 * Logs of clusters on etcd.
 *
 * This module needs Deno.
 *
 * @module
 */

import { type Env, systemEnv } from "../env.ts";
import {
  ETCD_APPEND_MS_MAX,
  ETCD_CALL_MS_MAX,
  PEER_COPIES,
} from "../limits.ts";
import { checkUnused, OpenLogs } from "../log/cluster_log.ts";
import { ErrClusterClosed } from "../log/errors.ts";
import type { Log, LogDB, LogQuorum, SnapshotPeers } from "../log/log.ts";
import {
  type Check,
  checkOptions,
  isCount,
  isEnv,
  isFunction,
  isID,
  isNumber,
  isObject,
  isSnapshotStore,
  isText,
  optional,
  type OptionChecks,
} from "../options.ts";
import type { SnapshotStore } from "../snapshot/store.ts";
import { EtcdClient, type EtcdIdentity, type EtcdUser } from "./client.ts";
import { EtcdClusterLog } from "./cluster_log.ts";
import { parseEndpoint } from "./connection.ts";
import type { EtcdTLS } from "./tls_refusal.ts";
import { type KeyKind, Keys } from "./keys.ts";
import { Compaction } from "./compaction.ts";
import { type EtcdServer, LiveReplicas } from "./live_replicas.ts";
import { encodeTxn, Method } from "./messages.ts";
import type { ErrPeerSnapshot } from "./errors.ts";
import { PeerSnapshots } from "./peer_snapshots.ts";
import { Orders } from "./order.ts";
import { PointedSnapshots } from "./pointed_snapshots.ts";
import { PutLimiter } from "./put_limiter.ts";
import { SharedCheckpoints } from "./shared_checkpoints.ts";
import { SnapshotDuty } from "./snapshot_duty.ts";
import type { EtcdSnapshotPointer } from "./values.ts";

/** Options of {@linkcode EtcdLogDB}. */
export interface EtcdLogOptions {
  /** URLs of the etcd nodes, such as `http://10.0.0.1:2379`; `https` for TLS. One is in use, the others take over when it fails. */
  readonly endpoints: readonly string[];
  /** Prefix of all keys; logs below different prefixes are independent. @default {"sampan"} */
  readonly prefix?: string | undefined;
  /** User and password, if etcd has users. */
  readonly user?: EtcdUser | undefined;
  /** Certificates for TLS. @default {those of the system, and none of this client} */
  readonly tls?: EtcdTLS | undefined;
  /**
   * Identity of the etcd at an earlier start, as `identity` returned it. An etcd with
   * another cluster id or history, or whose revisions have gone back, is refused with
   * `ErrOtherEtcd`. Without it the first etcd that answers is accepted.
   */
  readonly known?: EtcdIdentity | undefined;
  /**
   * Longest wait of an append for etcd, in milliseconds; after that it fails with
   * `ErrUnknownOutcome` if it may have been sent. `Infinity` waits until there is a
   * quorum.
   *
   * @default {10_000}
   */
  readonly appendMs?: number | undefined;
  /**
   * Snapshot store that all processes share; its creator closes it. Pointers in etcd
   * say which snapshots it has, and a log is never compacted past the newest one that
   * was read back. Without it and without `peers` each host compacts the log by its
   * own snapshots, and a replica that is further behind cannot catch up.
   */
  readonly snapshots?: SnapshotStore | undefined;
  /** Server that the other ones see in the announcements of its replicas. @default {the random number of the process} */
  readonly server?: EtcdServer | undefined;
  /**
   * Exchange of snapshots between the servers, where they share no store: each keeps
   * those in its own, and fetches from the others what it lacks. Excludes
   * `snapshots`.
   */
  readonly peers?: EtcdPeersOptions | undefined;
  /** Provides random numbers and timers. @default {systemEnv} */
  readonly env?: Env | undefined;
}

/**
 * Exchange of snapshots between the servers on one etcd.
 *
 * A server that serves its host over HTTP calls `announce()` with its own URL. The
 * others then fetch snapshots from it, with a token made of a secret that is in etcd.
 * One server at a time stores the snapshots that are due; each copies the newest one
 * of the clusters that it has open, and those of which fewer than `copies` live
 * servers have announced that they hold it. A log is compacted behind a snapshot only
 * once `copies` live servers have announced that they hold it, each after it has read
 * it back with the hash in its pointer, and that still answer with it; and a server
 * removes one only when it holds two newer ones. So the loss of `copies - 1` disks at
 * once leaves a live server with a snapshot from which the log continues. A server
 * that is killed and whose disk is kept announces its snapshots again when it starts.
 */
export interface EtcdPeersOptions {
  /** Store of this server's snapshots, as a `FileSnapshotStore`; its creator closes it. */
  readonly store: SnapshotStore;
  /**
   * Number of live servers that must hold a snapshot before a log is compacted behind
   * it. While fewer servers run, nothing is compacted. 1 for a single server.
   *
   * @default {2}
   */
  readonly copies?: number | undefined;
  /** Sends the requests to other servers, as for certificates of a private authority. @default {fetch} */
  readonly fetch?:
    | ((url: string, init: RequestInit) => Promise<Response>)
    | undefined;
  /** Called when the answer of another server was refused, or there was none; the next one is asked. */
  readonly onFault?: ((error: ErrPeerSnapshot) => void) | undefined;
}

const isEndpoints: Check = (name, value) => {
  if (!Array.isArray(value) || value.length === 0) {
    throw new TypeError(`${name} is empty; give the URL of an etcd node`);
  }
  for (const url of value) parseEndpoint(String(url));
};

const isPrefix: Check = (name, value) => {
  isText(name, value);
  if (!/^[\w./-]+$/.test(value as string)) {
    throw new RangeError(
      `${name} is "${value}"; use letters, digits, and any of . / _ -`,
    );
  }
};

const isUser: Check = (name, value) => {
  isObject(name, value);
  checkOptions<EtcdUser>(name, value as EtcdUser, {
    name: isText,
    password: isText,
  });
};

const isPeers: Check = (name, value) => {
  isObject(name, value);
  const checks: OptionChecks<EtcdPeersOptions> = {
    store: isSnapshotStore,
    copies: optional(isCount(1)),
    fetch: optional(isFunction),
    onFault: optional(isFunction),
  };
  checkOptions(name, value as EtcdPeersOptions, checks);
};

const isIdentity: Check = (name, value) => {
  isObject(name, value);
  checkOptions<EtcdIdentity>(name, value as EtcdIdentity, {
    clusterID: isID(0n),
    historyID: isID(0n),
    revision: isNumber(0, Number.MAX_SAFE_INTEGER),
  });
};

const isServer: Check = (name, value) => {
  isObject(name, value);
  checkOptions<EtcdServer>(name, value as EtcdServer, {
    name: isText,
    url: optional(isText),
    code: optional(isFunction),
  });
};

/**
 * Logs of clusters on etcd 3.4 or later, for any number of processes. Each may append
 * to each log; etcd orders the appends.
 *
 * ```ts ignore
 * import { EtcdLogDB } from "@sampan/sampan/etcd";
 * import { KVStateMachine, NodeHost } from "@sampan/sampan";
 *
 * await using logDB = new EtcdLogDB({
 *   endpoints: ["http://10.0.0.1:2379", "http://10.0.0.2:2379"],
 * });
 * await using host = new NodeHost({ logDB });
 * await host.startCluster(() => new KVStateMachine(), {
 *   clusterID: 1n,
 *   nodeID: 1n,
 * });
 * ```
 */
export class EtcdLogDB implements LogDB {
  /** Snapshots of all processes, with their pointers in etcd: of the store that they share, or of the stores of all servers. */
  readonly snapshots: SnapshotStore | undefined;
  readonly #pointed: PointedSnapshots | undefined;
  readonly #peers: PeerSnapshots | undefined;
  readonly #env: Env;
  readonly #client: EtcdClient;
  readonly #keys: Keys;
  readonly #appendMs: number;
  readonly #writer: bigint;
  readonly #limiter = new PutLimiter();
  readonly #compaction: Compaction;
  readonly #live: LiveReplicas;
  readonly #orders: Orders;
  readonly #checkpoints: SharedCheckpoints;
  readonly #clusters = new Map<bigint, Promise<EtcdClusterLog>>();
  readonly #open = new OpenLogs();
  #closing: Promise<void> | undefined;

  /** Creates logs that connect when the first one is opened. */
  constructor(options: EtcdLogOptions) {
    const checks: OptionChecks<EtcdLogOptions> = {
      endpoints: isEndpoints,
      prefix: optional(isPrefix),
      user: optional(isUser),
      tls: optional(isObject),
      known: optional(isIdentity),
      appendMs: optional(isNumber(1, Infinity)),
      snapshots: optional(isSnapshotStore),
      server: optional(isServer),
      peers: optional(isPeers),
      env: optional(isEnv),
    };
    checkOptions("Options of the logs on etcd", options, checks);
    const { prefix = "sampan", env = systemEnv, tls = {} } = options;
    const { endpoints, user, known, snapshots, appendMs, peers } = options;
    if (snapshots !== undefined && peers !== undefined) {
      throw new TypeError(
        `Options of the logs on etcd ${
          endpoints[0]
        } have both snapshots and peers; give the store that is shared, or the exchange with stores that are not`,
      );
    }
    this.#env = env;
    this.#appendMs = appendMs ?? ETCD_APPEND_MS_MAX;
    this.#writer = env.random64();
    this.#keys = new Keys(prefix);
    this.#client = new EtcdClient({
      endpoints: endpoints.map(parseEndpoint),
      keys: this.#keys,
      user,
      tls,
      known,
      env,
    });
    const live = this.#live = new LiveReplicas(
      this.#client,
      this.#keys,
      env,
      this.#writer,
      options.server,
    );
    const duty = new SnapshotDuty(
      this.#client,
      this.#keys,
      this.#writer,
      () => live.lease.id(),
    );
    this.#orders = new Orders({
      client: this.#client,
      keys: this.#keys,
      env,
      writer: this.#writer,
      nameOf: (clusterID, writer) => live.nameOf(clusterID, writer),
    });
    this.#peers = peers && new PeerSnapshots({
      client: this.#client,
      keys: this.#keys,
      env,
      writer: this.#writer,
      live,
      store: peers.store,
      copies: peers.copies ?? PEER_COPIES,
      fetch: peers.fetch ?? ((url, init) => fetch(url, init)),
      onFault: peers.onFault ?? ((): void => {}),
    });
    const store = this.#peers ?? snapshots;
    this.snapshots = this.#pointed = store && new PointedSnapshots(
      store,
      this.#client,
      this.#keys,
      duty,
      this.#peers,
    );
    this.#checkpoints = new SharedCheckpoints(
      this.#client,
      this.#keys,
      env,
      this.#writer,
    );
    this.#compaction = new Compaction(this.#client, this.#keys, env);
  }

  /** Identity of the etcd, to be passed as `known` at the next start; undefined before the first connection. */
  get identity(): EtcdIdentity | undefined {
    return this.#client.identity;
  }

  /** Reach of etcd: a server reports it, and sends its clients to another server while it is lost. */
  get quorum(): LogQuorum {
    return this.#client.quorum;
  }

  /** URL of the etcd node in use; undefined while there is no connection. */
  get endpoint(): string | undefined {
    return this.#client.endpoint;
  }

  /** Exchange of snapshots with the other servers, which `serve()` handles; undefined without the option `peers`. */
  get peers(): SnapshotPeers | undefined {
    return this.#peers;
  }

  /**
   * Announces the base URL at which this process serves its snapshots to the other
   * servers, such as `http://10.0.0.1:8000/`: call it once `serve()` listens. They must be
   * able to reach it.
   *
   * @throws TypeError without the option `peers`, or if the URL is invalid
   */
  announce(url: string): void {
    this.#check();
    const base = URL.parse(url);
    if (base === null || !/^https?:$/.test(base.protocol)) {
      throw new TypeError(
        `URL of this server is "${url}"; give one as http://10.0.0.1:8000/`,
      );
    }
    if (this.#peers === undefined) {
      throw new TypeError(
        `Server at ${url} has no snapshots of its own; give the option peers`,
      );
    }
    if (!base.pathname.endsWith("/")) base.pathname += "/";
    this.#peers.announce(base.href);
  }

  #check(): void {
    if (this.#closing !== undefined) {
      throw new ErrClusterClosed("EtcdLogDB is closed; create another one");
    }
  }

  /**
   * Opens the log of a cluster for one of its replicas.
   *
   * @throws ErrClusterAlreadyExist if that replica has it open in this process already
   * @throws ErrEtcdUnavailable if etcd does not answer with a quorum
   * @throws ErrEtcdAccess if etcd refuses this client
   * @throws ErrOtherEtcd if it is not the known etcd
   * @throws ErrClusterClosed after `close()`
   */
  async open(clusterID: bigint, nodeID: bigint): Promise<Log> {
    this.#check();
    for (;;) {
      const opening = this.#cluster(clusterID);
      const cluster = await opening;
      this.#check();
      // It may have been released during the opening.
      if (this.#clusters.get(clusterID) !== opening) continue;
      if (cluster.hasFailed && cluster.nodes.size === 0) {
        this.#clusters.delete(clusterID);
        continue;
      }
      return this.#open.add(cluster, clusterID, nodeID);
    }
  }

  #cluster(clusterID: bigint): Promise<EtcdClusterLog> {
    let opening = this.#clusters.get(clusterID);
    if (opening === undefined) {
      opening = EtcdClusterLog.open({
        clusterID,
        client: this.#client,
        keys: this.#keys,
        env: this.#env,
        writer: this.#writer,
        limiter: this.#limiter,
        order: this.#orders.open(clusterID),
        announcements: this.#live.board(clusterID),
        board: this.#checkpoints.board(clusterID),
        appendMs: this.#appendMs,
        mayCompact: async (upTo) =>
          await this.#pointed?.mayCompact(clusterID, upTo) ?? upTo,
        compacted: () => this.#compaction.request(),
        released: () => {
          this.#clusters.delete(clusterID);
          this.#peers?.closed(clusterID);
          this.#checkpoints.remove(clusterID);
        },
      });
      this.#clusters.set(clusterID, opening);
      opening.then(
        () => this.#peers?.opened(clusterID),
        // A failed opening may be repeated.
        () => this.#clusters.delete(clusterID),
      );
    }
    return opening;
  }

  /** Ids of the clusters that have data, in ascending order. */
  async clusters(): Promise<readonly bigint[]> {
    this.#check();
    const found = new Set<bigint>();
    for (const kind of ["log", "meta"] as const) {
      const { kvs } = await this.#client.list(this.#keys.range(kind), {
        keysOnly: true,
      });
      for (const { key } of kvs) found.add(this.#keys.clusterOf(key));
    }
    return [...found].sort((a, b) => a < b ? -1 : 1);
  }

  /** Pointers to the newest snapshots of a cluster, newest first; none where servers neither share a store nor exchange snapshots. */
  async snapshotPointers(
    clusterID: bigint,
  ): Promise<readonly EtcdSnapshotPointer[]> {
    this.#check();
    return (await this.#pointed?.pointers(clusterID))?.pointers ?? [];
  }

  /**
   * Compacts the history in etcd that no cluster needs; resolves to the revision up to
   * which it is compacted. Done without a call some time after a log was compacted.
   */
  async compactHistory(): Promise<number> {
    this.#check();
    return await this.#compaction.run();
  }

  /**
   * Removes all data of a cluster's log in one step. Replicas of other processes that
   * have it open fail.
   *
   * @throws ErrClusterAlreadyExist if a replica has it open in this process
   */
  async removeData(clusterID: bigint): Promise<void> {
    this.#check();
    const cluster = await this.#clusters.get(clusterID)?.catch(() => undefined);
    checkUnused(clusterID, cluster?.nodes);
    this.#clusters.delete(clusterID);
    await cluster?.settled();
    cluster?.stop();
    const checkpoints = this.#keys.checkpointsOf(clusterID);
    const kinds: readonly KeyKind[] = ["log", "meta", "snapshot"];
    await this.#client.request(
      Method.Txn,
      encodeTxn(
        [],
        [
          ...kinds.map((kind) => ({ remove: this.#keys.of(kind, clusterID) })),
          { remove: checkpoints.key, end: checkpoints.end },
        ],
      ),
    );
  }

  /** Closes every open log after the appends under way, for which it waits some seconds at most; idempotent. */
  close(): Promise<void> {
    return this.#closing ??= this.#end();
  }

  async #end(): Promise<void> {
    // Without a quorum the appends under way would keep this waiting.
    const cancel = this.#env.setTimer(
      () => this.#client.close(),
      ETCD_CALL_MS_MAX,
    );
    this.#compaction.close();
    this.#checkpoints.close();
    await this.#peers?.close();
    await this.#open.close();
    await this.#orders.close();
    await this.#live.close();
    cancel();
    this.#client.close();
    for (const opening of this.#clusters.values()) {
      (await opening.catch(() => undefined))?.close();
    }
  }

  /** Closes every open log. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
