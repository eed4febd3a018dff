/**
 * Announcements of the live replicas of all processes on one etcd: which changes of
 * behaviour the code of each knows.
 *
 * Each open log has a key under the lease of its process, which etcd removes some
 * seconds after the process has ended or was cut off. So a change is activated only
 * when every live replica knows it.
 *
 * This module needs Deno.
 *
 * @module
 */

import { Backoff, notify, sleep } from "../async.ts";
import type { Env } from "../env.ts";
import {
  ETCD_LEASE_PING_MS,
  ETCD_LEASE_SECONDS,
  ETCD_RETRY_FIRST_MS,
  ETCD_RETRY_LAST_MS,
} from "../limits.ts";
import type { AnnouncementBoard } from "../log/announcements.ts";
import type { Announcements } from "../log/log.ts";
import type { EtcdClient } from "./client.ts";
import type { Keys } from "./keys.ts";
import {
  encodeTxn,
  type KeyValue,
  Method,
  type WatchEvent,
} from "./messages.ts";
import { ProcessLease } from "./process_lease.ts";
import { decodeAnnouncement, encodeAnnouncement } from "./values.ts";

/** Server whose replicas are announced. */
export interface EtcdServer {
  /** Name by which people know it, such as that of its machine. */
  readonly name: string;
  /** URL at which the other servers and its operators reach it. */
  readonly url?: string | undefined;
  /** Returns the fingerprint of the code of a cluster's machine, as `fingerprintOf()` of a typed machine gives it. */
  readonly code?: ((clusterID: bigint) => string | undefined) | undefined;
}

/** Live replica on a log, as it has announced itself. */
export interface LiveReplica {
  /** Name of its server, or of its process. */
  readonly server: string;
  /** Fingerprint of its code, if its server has announced one. */
  readonly code?: string | undefined;
  /** URL of its server, if it has announced one. */
  readonly url?: string | undefined;
  /** True for a replica of this process. */
  readonly isOwn: boolean;
  /** Changes of behaviour that its code knows; undefined while it starts, or if they cannot be read. */
  readonly changes: readonly string[] | undefined;
}

/** Live replica of any process. */
interface Live extends LiveReplica {
  /** Revision at which it was announced first. */
  readonly created: number;
  /** Random number of its process. */
  readonly process: bigint;
}

/** Replica of this process. */
interface Own {
  readonly key: Uint8Array;
  /** Text of `key`. */
  readonly name: string;
  readonly clusterID: bigint;
  changes: readonly string[] | undefined;
  /** True once the replica has announced itself. */
  isAnnounced: boolean;
  /** True once its log is closed. */
  isClosed: boolean;
  /** True while its announcement has to be put. */
  isDue: boolean;
  /** True while it is being put. */
  isPublishing: boolean;
}

/** Live replicas of all clusters below a prefix. */
export class LiveReplicas {
  /** Lease of this process. */
  readonly lease: ProcessLease;
  readonly #client: EtcdClient;
  readonly #keys: Keys;
  readonly #env: Env;
  readonly #writer: bigint;
  readonly #server: EtcdServer;
  readonly #own = new Map<object, Own>();
  readonly #live = new Map<bigint, Map<string, Live>>();
  readonly #listeners = new Map<bigint, Set<() => void>>();
  readonly #unrenew: () => void;
  #count = 0;
  #unwatch: (() => void) | undefined;
  /** True once the replicas of other processes are known. */
  #isLoaded = false;
  #isLoading = false;
  readonly #closing = new AbortController();

  /** Creates the replicas of a process with the random number `writer`, which is `server`. */
  constructor(
    client: EtcdClient,
    keys: Keys,
    env: Env,
    writer: bigint,
    server: EtcdServer = { name: nameOf(writer) },
  ) {
    this.#client = client;
    this.#keys = keys;
    this.#env = env;
    this.#writer = writer;
    this.#server = server;
    this.lease = new ProcessLease(client, env, {
      seconds: ETCD_LEASE_SECONDS,
      pingMs: ETCD_LEASE_PING_MS,
    });
    this.#unrenew = this.lease.watch(() => this.#renew());
  }

  /** Name of the server that is a process, as it has announced itself on the log of a cluster; that of the process if it has not. */
  nameOf(clusterID: bigint, writer: bigint): string {
    if (writer === this.#writer) return this.#server.name;
    for (
      const { process, server } of this.#live.get(clusterID)?.values() ?? []
    ) {
      if (process === writer) return server;
    }
    return nameOf(writer);
  }

  /** Announcements on the log of a cluster. */
  board(clusterID: bigint): AnnouncementBoard {
    return {
      of: (log) => this.#of(clusterID, log),
      remove: (log) => this.#remove(log),
    };
  }

  #of(clusterID: bigint, log: object): Announcements {
    let own = this.#own.get(log);
    if (own === undefined) {
      const key = this.#keys.ofReplica(
        clusterID,
        this.#writer,
        ++this.#count,
      );
      const name = textOf(key);
      own = {
        key,
        name,
        clusterID,
        changes: undefined,
        isAnnounced: false,
        isClosed: false,
        isDue: false,
        isPublishing: false,
      };
      this.#own.set(log, own);
    }
    const one = own;
    const live = (): Map<string, Live> | undefined => this.#live.get(clusterID);
    return {
      get isFirst(): boolean {
        const all = live();
        const mine = all?.get(one.name);
        return mine !== undefined &&
          [...all!.values()].every(({ created }) => created >= mine.created);
      },
      announce: (changes) => {
        one.changes = changes;
        one.isAnnounced = true;
        this.#load();
        // Never rejects: repeated until it succeeds.
        void this.#publish(one);
      },
      isKnown: (change) =>
        this.#isLoaded && live()?.has(one.name) === true &&
        [...live()!.values()].every(({ changes }) => changes?.includes(change)),
      lacking: (change) => {
        // One that starts says in a moment what it knows.
        const lacking = [...live()?.values() ?? []].filter(({ changes }) =>
          changes?.includes(change) === false
        );
        return lacking.length === 0 ? undefined : {
          servers: [...new Set(lacking.map(({ server }) => server))],
          detail: lacking.map(describe).join(" and "),
        };
      },
      watch: (listener) => {
        const own = (): void => listener();
        let listeners = this.#listeners.get(clusterID);
        if (listeners === undefined) {
          this.#listeners.set(clusterID, listeners = new Set());
        }
        listeners.add(own);
        return () => {
          listeners.delete(own);
          if (listeners.size === 0) this.#listeners.delete(clusterID);
        };
      },
    };
  }

  #remove(log: object): void {
    const own = this.#own.get(log);
    if (own === undefined) return;
    this.#own.delete(log);
    own.isClosed = true;
    // Otherwise it is removed after the put that is under way.
    if (own.isAnnounced && !own.isPublishing) this.#unpublish(own);
  }

  #unpublish({ key }: Own): void {
    this.#client.request(Method.Txn, encodeTxn([], [{ remove: key }]))
      .catch(() => {
        // The lease ends some seconds later.
      });
  }

  /**
   * Puts the announcement of a replica under the lease; repeated until it succeeds or
   * is not wanted any more. One put is under way at a time: etcd may carry out two in
   * either order.
   */
  async #publish(own: Own): Promise<void> {
    own.isDue = true;
    if (own.isPublishing) return;
    own.isPublishing = true;
    const { key, clusterID } = own;
    const backoff = this.#newBackoff();
    const isWanted = (): boolean => !this.#isClosed && !own.isClosed;
    while (own.isDue && isWanted()) {
      try {
        const lease = await this.lease.id();
        if (!isWanted()) break;
        own.isDue = false;
        const { name: server, url = "" } = this.#server;
        const code = this.#server.code?.(clusterID) ?? "";
        const { changes } = own;
        const value = encodeAnnouncement(clusterID, {
          changes,
          server,
          url,
          code,
        });
        await this.#client.request(
          Method.Txn,
          encodeTxn([], [{ put: key, value, lease }]),
        );
      } catch {
        own.isDue = true;
        if (isWanted()) await this.#pause(backoff.next());
      }
    }
    own.isPublishing = false;
    if (own.isClosed && !this.#isClosed) this.#unpublish(own);
  }

  #newBackoff(): Backoff {
    return new Backoff(this.#env, ETCD_RETRY_FIRST_MS, ETCD_RETRY_LAST_MS);
  }

  get #isClosed(): boolean {
    return this.#closing.signal.aborted;
  }

  /** Waits; the wait ends when these replicas are closed. */
  #pause(ms: number): Promise<void> {
    return sleep(this.#env, ms, this.#closing.signal).catch(() => {
      // The caller looks whether they are closed.
    });
  }

  /** Announces everything again: the lease has ended. */
  #renew(): void {
    for (const own of this.#own.values()) {
      if (!own.isAnnounced) continue;
      // Never rejects: repeated until it succeeds.
      void this.#publish(own);
    }
  }

  // ----------------------------------------------------------- other processes

  /** Reads what all processes have announced, and follows it. */
  #load(): void {
    if (this.#isLoading || this.#isLoaded || this.#isClosed) return;
    this.#isLoading = true;
    // Never rejects: repeated until it succeeds.
    void this.#loaded();
  }

  async #loaded(): Promise<void> {
    const backoff = this.#newBackoff();
    const range = this.#keys.range("live");
    while (!this.#isClosed) {
      try {
        const { kvs, revision } = await this.#client.list(range);
        if (this.#isClosed) break;
        this.#live.clear();
        for (const kv of kvs) this.#set(kv);
        this.#unwatch?.();
        this.#unwatch = this.#client.watches.add(range, revision + 1, {
          changed: (events) => this.#changed(events),
          compacted: () => this.#reload(),
          failed: () => {},
        });
        this.#isLoaded = true;
        break;
      } catch {
        await this.#pause(backoff.next());
      }
    }
    this.#isLoading = false;
    for (const clusterID of [...this.#listeners.keys()]) {
      this.#notify(clusterID);
    }
  }

  #reload(): void {
    this.#unwatch?.();
    this.#unwatch = undefined;
    this.#isLoaded = false;
    this.#load();
  }

  #set({ key, value, createRevision }: KeyValue): bigint {
    const clusterID = this.#keys.clusterOfReplica(key);
    let live = this.#live.get(clusterID);
    if (live === undefined) this.#live.set(clusterID, live = new Map());
    const name = textOf(key);
    const process = this.#keys.processOfReplica(key);
    let found: Omit<Live, "isOwn" | "created" | "process">;
    try {
      const { changes, server, code, url } = decodeAnnouncement(
        value,
        clusterID,
      );
      found = {
        changes,
        server: server || nameOf(process),
        ...(code === "" ? {} : { code }),
        ...(url === "" ? {} : { url }),
      };
    } catch {
      // Written by newer code: until it is understood, no change counts as known.
      found = { changes: undefined, server: nameOf(process) };
    }
    live.set(name, {
      ...found,
      created: createRevision,
      process,
      isOwn: process === this.#writer,
    });
    return clusterID;
  }

  #changed(events: readonly WatchEvent[]): void {
    const changed = new Set<bigint>();
    for (const { isDelete, kv } of events) {
      if (!isDelete) {
        changed.add(this.#set(kv));
        continue;
      }
      const clusterID = this.#keys.clusterOfReplica(kv.key);
      const live = this.#live.get(clusterID);
      live?.delete(textOf(kv.key));
      if (live?.size === 0) this.#live.delete(clusterID);
      changed.add(clusterID);
    }
    for (const clusterID of changed) this.#notify(clusterID);
  }

  #notify(clusterID: bigint): void {
    for (const listener of [...this.#listeners.get(clusterID) ?? []]) {
      notify(listener);
    }
  }

  /** Ends the lease, as far as etcd can be reached. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#closing.abort();
    this.#unrenew();
    this.#unwatch?.();
    await this.lease.close();
  }
}

/** Live replica that has announced its changes, in words. */
function describe({ server, code, changes }: LiveReplica): string {
  const known = changes?.length ? changes.join(", ") : "no change";
  return `${server} (${
    code === undefined ? "" : `code ${code}, `
  }which knows ${known})`;
}

/** Name of a process that has announced none. */
function nameOf(writer: bigint): string {
  return `process ${writer.toString(16).padStart(16, "0")}`;
}

function textOf(key: Uint8Array): string {
  return new TextDecoder().decode(key);
}
