/**
 * Process of a soak: a host with a replica of each cluster under load, which
 * answers the requests of the coordinator.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  ConcurrentKVStateMachine,
  type HostEvent,
  type IOnDiskStateMachine,
  type KVAnswer,
  type KVQuery,
  KVStateMachine,
  type NodeHost,
  type Replica,
  type ReplicaConfig,
} from "../../mod.ts";
import { random, seedFrom } from "../support/random.ts";
import type { LogDB } from "../../src/ports/mod.ts";
import type { Line, ReplicaReport, Request, Write } from "./record.ts";
import { replay } from "./replay.ts";
import { Workload } from "./workload.ts";

/** Kinds of machines that replicas of one cluster may have. */
export const KINDS = ["regular", "concurrent", "on disk"] as const;

/** Kind of a replica's machine. */
export type Kind = (typeof KINDS)[number];

/** Options of a process, as JSON. */
export interface StationSettings {
  /** Name of the client, the same in each of its lives. */
  readonly client: string;
  readonly nodeID: number;
  /** Number of the life. */
  readonly life: number;
  readonly seed: number;
  /** Kind of the machine in each cluster, whose ids count from 1. */
  readonly kinds: readonly Kind[];
  /** Entries between snapshots. */
  readonly snapshotEntries: number;
  /** Entries that the log of each cluster keeps before its snapshots. */
  readonly compactionOverhead: readonly number[];
  /** False for a client of a server without a copy of the log. */
  readonly hasCopy?: boolean;
}

/** Options of a client of the server. */
export interface ClientSettings extends StationSettings {
  /** URL of the server. */
  readonly url: string;
  readonly hasCopy: boolean;
}

/** Parts of a process that depend on its platform. */
export interface StationParts {
  readonly settings: StationSettings;
  readonly host: NodeHost;
  /** Host of one more cluster whose log is in this process, with that log. */
  readonly own?: { readonly host: NodeHost; readonly logDB: LogDB };
  /** Creates the on-disk machine of a cluster. */
  readonly machine: (
    cluster: number,
  ) => IOnDiskStateMachine<KVQuery, KVAnswer>;
  readonly reconnect: () => void;
  readonly write: Write;
}

/** Running process of a soak. */
export class Station {
  readonly #parts: StationParts;
  /** Replicas of the clusters. */
  readonly replicas: Replica<KVQuery, KVAnswer>[] = [];
  readonly #workloads: Workload[] = [];
  /** Replica whose log is in this process. */
  #own: Replica<KVQuery, KVAnswer> | undefined;
  #started: Promise<void> | undefined;

  constructor(parts: StationParts) {
    this.#parts = parts;
  }

  /** Starts the replicas. */
  async start(): Promise<void> {
    const { settings, host, own, machine } = this.#parts;
    const { kinds, nodeID, snapshotEntries, compactionOverhead } = settings;
    if (own !== undefined) {
      const cluster = kinds.length + 1;
      this.#own = await own.host.startOnDiskCluster(() => machine(cluster), {
        clusterID: BigInt(cluster),
        nodeID: BigInt(nodeID),
        snapshotEntries: 100,
        // The log is not compacted, so that it can be replayed.
        compactionOverhead: Number.MAX_SAFE_INTEGER,
        fullSnapshotInterval: 1,
      });
    }
    for (const [i, kind] of kinds.entries()) {
      const cluster = i + 1;
      const config: ReplicaConfig = {
        clusterID: BigInt(cluster),
        nodeID: BigInt(nodeID),
        snapshotEntries,
        compactionOverhead: compactionOverhead[i]!,
        hashEntries: 64,
        fullSnapshotInterval: 1,
      };
      const replica = kind === "on disk"
        ? await host.startOnDiskCluster(() => machine(cluster), config)
        : kind === "concurrent"
        ? await host.startConcurrentCluster(
          () => new ConcurrentKVStateMachine(),
          config,
        )
        : await host.startCluster(() => new KVStateMachine(), config);
      this.replicas.push(replica as Replica<KVQuery, KVAnswer>);
    }
    if (this.#own !== undefined) this.replicas.push(this.#own);
  }

  /** Starts the load. */
  async work(): Promise<void> {
    this.#started = this.#work();
    await this.#started;
  }

  async #work(): Promise<void> {
    const { settings, write } = this.#parts;
    const { client, life, seed, kinds, hasCopy = true } = settings;
    const next = random(seed);
    for (const [i, replica] of this.replicas.entries()) {
      this.#workloads.push(
        await Workload.start({
          replica,
          cluster: i + 1,
          client,
          life,
          seed: seedFrom(next),
          // A machine in memory starts from its last snapshot, or empty, without a copy.
          keepsState: hasCopy || replica === this.#own ||
            kinds[i] === "on disk",
          write,
        }),
      );
    }
  }

  /** Answers a request. */
  async answer({ request, what, argument }: Request): Promise<void> {
    const { write } = this.#parts;
    try {
      await write({
        type: "answer",
        request,
        value: await this.#do(what, argument),
      });
    } catch (error) {
      const text = `${(error as Error)?.stack ?? error}`;
      await write({ type: "answer", request, error: text });
    }
  }

  async #do(what: Request["what"], argument: unknown): Promise<unknown> {
    if (what === "reconnect") return this.#parts.reconnect();
    // A request may come while the replicas start.
    while (this.#started === undefined) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    await this.#started;
    if (what === "quiesce") {
      await Promise.all(this.#workloads.map((workload) => workload.quiesce()));
      return;
    }
    const indexes = argument as readonly number[];
    return await Promise.all(
      this.#workloads.map((workload, i) =>
        this.#report(workload, i, indexes[i] ?? 0)
      ),
    );
  }

  async #report(
    workload: Workload,
    i: number,
    index: number,
  ): Promise<ReplicaReport> {
    const report = await workload.report(index);
    const { own } = this.#parts;
    if (own === undefined || this.replicas[i] !== this.#own) return report;
    const replayed = await replay(own.logDB, i + 1, report.index);
    return { ...report, replayed };
  }
}

/** Events that no fault of a soak explains. */
const WRONG = new Set<HostEvent["type"]>([
  "failed",
  "diverged",
  "purged",
  "store full",
  "hash failed",
  "refusal failed",
  "log failed",
  "log unwritable",
  "snapshot failed",
  "close failed",
]);

/**
 * Names of errors that a killed server, or a cut connection, explains: it reports
 * that a snapshot would be faster and is killed before it sends one, or the
 * connection is lost while a snapshot is made or fetched, and the server has another
 * one afterwards. All are tried again, and the end of a soak checks the state.
 */
const EXPLAINED: Partial<Record<HostEvent["type"], readonly string[]>> = {
  "log failed": ["ErrCompacted"],
  "snapshot failed": ["ErrConnectionLost", "ErrSnapshotNotFound"],
};

/** Writes down an event that means a violation. */
export function onEvent(write: Write): (event: HostEvent) => void {
  return (event) => {
    if (!WRONG.has(event.type)) return;
    const { error } = event as { error?: unknown };
    const { name } = Object(error) as Error;
    if (EXPLAINED[event.type]?.includes(name) === true) return;
    const line: Line = {
      type: "violation",
      text: `Event ${event.type} of cluster ${event.clusterID}: ${
        (error as Error)?.stack ?? error
      }`,
    };
    void write(line);
  };
}
