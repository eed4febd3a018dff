/**
 * Client of the offline replication under test, in a page as in Deno.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  ErrOtherHistory,
  type HostEvent,
  type IOnDiskStateMachine,
  kv,
  type KVAnswer,
  type KVQuery,
  type KVRow,
  KVStateMachine,
  NodeHost,
  type Replica,
  type Submission,
} from "../../mod.ts";
import type { BlockStore, Outbox, SnapshotStore } from "../../src/ports/mod.ts";
import { RemoteLogDB, type Versions } from "../../src/sync/client/mod.ts";
import {
  entry,
  type Journal,
  JournalMachine,
} from "../machines/client_counters.ts";

/**
 * Kinds of clients: with the key-value machine on disk, or with a journal in
 * memory and a copy of the log.
 */
export type Kind = "disk" | "memory";

/** Components of a client. */
export interface SiteParts {
  /** Kind of the client. */
  readonly kind: Kind;
  /** URL of the server. */
  readonly url: string;
  /** Node id of the replica. */
  readonly nodeID: number;
  /** Outbox with the unsent submissions. */
  readonly outbox: Outbox;
  /** Store of the client's snapshots. */
  readonly snapshots: SnapshotStore;
  /** Creates the machine of a client on disk. */
  readonly machine: () => IOnDiskStateMachine<KVQuery, KVAnswer>;
  /** Opens the copy of the log of a client in memory. */
  readonly copy: () => BlockStore;
  /** Protocol versions that the client speaks. */
  readonly versions?: Versions | undefined;
}

/** State of a client. */
export interface SiteReport {
  /** Applied index. */
  readonly index: number;
  /** Hash of the machine. */
  readonly hash: string;
  /** State of the connection, and the reason for it. */
  readonly state: string;
  readonly error: string;
  /** Number of submissions that are queued or sent, and of all others. */
  readonly queued: number;
  readonly other: number;
  /** Last number of each client, as committed and in the optimistic view. */
  readonly last: Readonly<Record<string, number>>;
  readonly shown: Readonly<Record<string, number>>;
  /** Violations that were found. */
  readonly wrong: readonly string[];
  /** Number of results since the client was started. */
  readonly results: number;
  /** Events of the host. */
  readonly events: readonly string[];
  /**
   * Largest number of snapshot bytes reported as received, and the reported
   * size.
   */
  readonly snapshot: readonly [received: number, size: number];
}

/** Status of a client. */
export interface Standing {
  /** State of the client, and the code of the reason for it. */
  readonly state: string;
  readonly reason: string;
  /** State of the replica, and the name of the error behind it. */
  readonly replica: string;
  readonly error: string;
  /** States of what is pending. */
  readonly pending: readonly string[];
}

/** Content of an export. */
export interface Exported {
  /** The last number of each client. */
  readonly last: Readonly<Record<string, number>>;
  /** Commands beside it. */
  readonly pending: number;
}

/** Number of submissions handed over at a time. */
const AT_ONCE = 500;

const COUNTERS = kv.range({ start: "count/", end: "count0" });

/** Command on a key-value machine for a client's number. */
export function step(client: string, number: number): Uint8Array {
  const before = number === 1 ? undefined : `${number - 1}`;
  return kv.batch([
    kv.compareAndSwap(`count/${client}`, before, `${number}`),
    kv.put(`${client}/${number}`, `${number}`),
  ]);
}

/** Last number of each client, as committed or in the optimistic view. */
export async function lastOf(
  replica: Replica,
  isShown = false,
): Promise<Record<string, number>> {
  const answer =
    await (isShown
      ? replica.view.lookup(COUNTERS)
      : replica.staleRead(COUNTERS)) as KVRow[] | Journal;
  if (!Array.isArray(answer)) return { ...answer.last };
  const rows = answer.map(({ key, value }) =>
    [textOf(key).slice("count/".length), Number(textOf(value))] as const
  );
  return Object.fromEntries(rows);
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function textOf(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}

/** Running client. */
export class Site {
  readonly kind: Kind;
  readonly logDB: RemoteLogDB;
  replica: Replica;
  readonly #host: NodeHost;
  readonly #parts: SiteParts;
  readonly #events: string[];
  readonly #wrong: string[] = [];
  #results = 0;
  #snapshot: [number, number] = [0, 0];

  private constructor(
    parts: SiteParts,
    logDB: RemoteLogDB,
    host: NodeHost,
    replica: Replica,
    events: string[],
  ) {
    this.kind = parts.kind;
    this.#parts = parts;
    this.logDB = logDB;
    this.#host = host;
    this.replica = replica;
    this.#events = events;
    const pending = (replica as Replica | undefined)?.pending() ?? [];
    for (const submission of pending) this.#await(submission);
  }

  /** Starts the client, connected or not. */
  static async open(parts: SiteParts): Promise<Site> {
    const { kind, url, nodeID, outbox, snapshots, versions } = parts;
    const logDB = new RemoteLogDB(url, {
      versions,
      copy: kind === "memory" ? parts.copy : undefined,
    });
    const events: string[] = [];
    const host = new NodeHost({
      logDB,
      outbox,
      snapshots,
      onEvent(event: HostEvent): void {
        const { type, error } = event as { type: string; error?: unknown };
        events.push(error === undefined ? type : `${type}: ${error}`);
      },
    });
    const config = { nodeID: BigInt(nodeID), hashEntries: 64 };
    const seen: [number, number] = [0, 0];
    logDB.watch(({ clusters }) => {
      for (const { snapshot } of clusters) {
        if (snapshot === undefined) continue;
        seen[0] = Math.max(seen[0], snapshot.received);
        seen[1] = snapshot.size;
      }
    });
    const starting = kind === "disk"
      ? host.startOnDiskCluster(parts.machine, { ...config, clusterID: 1n })
      : host.startCluster(() => new JournalMachine(), {
        ...config,
        clusterID: 2n,
        snapshotEntries: 300,
      });
    // The site has no replica until it has started over.
    const replica = await starting.catch((error) => {
      if (error instanceof ErrOtherHistory) return undefined as never;
      throw error;
    });
    const site = new Site(parts, logDB, host, replica, events);
    site.#snapshot = seen;
    return site;
  }

  #await(submission: Submission): void {
    const { cmd } = submission;
    submission.result.then(({ value }) => {
      this.#results++;
      const expected = this.kind === "disk"
        ? 1n
        : BigInt(textOf(cmd).split(" ")[1]!);
      if (value !== expected) {
        this.#wrong.push(`${submission.id} gave ${value}`);
      }
    }).catch((error) => {
      // It is still in the outbox.
      if (submission.state !== "queued") {
        this.#wrong.push(`${submission.id}: ${error}`);
      }
    });
  }

  /**
   * Submits `count` commands of a client, numbered from `from`; resolves once
   * they are durable.
   */
  async submit(client: string, from: number, count: number): Promise<void> {
    const make = this.kind === "disk" ? step : entry;
    for (let at = 0; at < count; at += AT_ONCE) {
      const made = Array.from(
        { length: Math.min(AT_ONCE, count - at) },
        (_, i) => this.replica.submit(make(client, from + at + i)),
      );
      for (const submission of await Promise.all(made)) {
        this.#await(submission);
      }
    }
  }

  /** Resolves once no submission is pending. */
  async sent(): Promise<void> {
    while (this.replica.pending().some(({ state }) => state === "queued")) {
      this.#check();
      await sleep(5);
    }
  }

  /** Resolves once that index is applied. */
  async reach(index: number): Promise<void> {
    while (this.replica.appliedIndex < index) {
      this.#check();
      await sleep(5);
    }
  }

  /**
   * Resolves once the replica reports that it has everything the server had.
   */
  async live(): Promise<void> {
    while (this.logDB.state !== "live") {
      this.#check();
      await sleep(5);
    }
  }

  #check(): void {
    if (this.replica.error !== undefined) throw this.replica.error;
  }

  /** Report of the client's state. */
  async report(): Promise<SiteReport> {
    try {
      return await this.#report();
    } catch (error) {
      const { appliedIndex } = this.replica;
      throw new Error(
        `At ${appliedIndex}, after ${this.#events.join(", ")}: ${error}`,
        { cause: error },
      );
    }
  }

  async #report(): Promise<SiteReport> {
    const { replica } = this;
    const last = await lastOf(replica);
    const shown = await lastOf(replica, true);
    const wrong = this.kind === "disk"
      ? []
      : (await replica.staleRead(undefined) as Journal).wrong;
    const { index, hash } = await this.replica.getHash();
    const pending = this.replica.pending();
    const queued = pending.filter(({ state }) => state === "queued").length;
    const { state, error } = this.logDB.status;
    return {
      index,
      hash: `${hash}`,
      state,
      error: error === undefined ? "" : `${error.name}: ${error.message}`,
      queued,
      other: pending.length - queued,
      last,
      shown,
      wrong: [...this.#wrong, ...wrong],
      results: this.#results,
      events: this.#events,
      snapshot: this.#snapshot,
    };
  }

  get #clusterID(): bigint {
    return this.kind === "disk" ? 1n : 2n;
  }

  /**
   * Resolves to the status once the client makes no progress without
   * intervention.
   */
  async blocked(): Promise<Standing> {
    while (this.logDB.state !== "blocked") await sleep(5);
    return await this.sessionInfo();
  }

  /**
   * Status of the client, also when its replica has failed or could not be
   * started.
   */
  async sessionInfo(): Promise<Standing> {
    const { state, reason } = this.logDB.status;
    const replica: Replica | undefined = this.replica;
    const { clusters: [info] } = await this.#host.info();
    const error = replica?.status.error ?? info?.error;
    const pending = replica?.pending() ??
      await this.#parts.outbox.unsynced(this.#clusterID);
    return {
      state,
      reason: reason?.code ?? "",
      replica: replica?.status.state ?? info!.state,
      error: error instanceof Error ? error.name : "",
      pending: pending.map(({ state }) => state),
    };
  }

  /** Content of an export, as another host imports it. */
  async exported(): Promise<Exported> {
    const clusterID = this.#clusterID;
    const { snapshot, pending } = await this.#host.exportData(clusterID);
    const host = new NodeHost();
    await host.importSnapshot(clusterID, snapshot);
    const replica = await host.startCluster<unknown, unknown>(
      () => this.kind === "disk" ? new KVStateMachine() : new JournalMachine(),
      { clusterID, nodeID: 1n },
    );
    const last = await lastOf(replica);
    await host.stop();
    return { last, pending: pending.length };
  }

  /** Starts over on the server's history. */
  async startOver(): Promise<void> {
    this.replica = await this.#host.startOver(this.#clusterID);
    for (const submission of this.replica.pending()) this.#await(submission);
  }

  /**
   * Removes the stored state; resolves to the name of the error if that is
   * rejected.
   */
  async leave(): Promise<string> {
    try {
      await this.#host.leave();
      return "";
    } catch (error) {
      return (error as Error).name;
    }
  }

  /** Stops the client and closes its stores. */
  async close(): Promise<void> {
    await this.#host.stop();
    await this.logDB.close();
    await this.#parts.outbox.close();
    await this.#parts.snapshots.close();
  }
}
