/**
 * In-memory twin of the log.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { checkOptions, isEnv, optional } from "../options.ts";
import { type Env, systemEnv } from "../env.ts";
import { MemorySnapshotStore } from "../snapshot/memory_snapshot_store.ts";
import { Batches, checkUnused, ClusterLog, OpenLogs } from "./cluster_log.ts";
import { ErrClusterClosed, ErrCompacted } from "./errors.ts";
import type { Log, LogBatch, LogDB, Records } from "./log.ts";
import type { Epoch } from "./history.ts";
import { epochRecord, lastOf, packRecords } from "./records.ts";

class MemoryClusterLog extends ClusterLog {
  readonly #env: Env;
  readonly #batches = new Batches();
  /** Index after which the log starts. */
  #base = 0;
  #opened = false;

  constructor(env: Env) {
    super();
    this.#env = env;
  }

  get last(): number {
    const batch = this.#batches.all.at(-1);
    return batch === undefined ? this.#base : lastOf(batch);
  }

  get first(): number {
    return this.#base + 1;
  }

  get isEmpty(): boolean {
    return !this.#opened;
  }

  get bytes(): number {
    return this.#batches.all.reduce(
      (sum, { records }) => sum + records.bytes.length,
      0,
    );
  }

  append(records: Records): number {
    if (!this.#opened) {
      this.#opened = true;
      const epoch = this.#env.random64();
      this.epochs.push({ index: this.last + 1, id: epoch });
      this.#push(packRecords(epochRecord(epoch)));
    }
    const first = this.#push(records);
    this.wake();
    return first;
  }

  #push(records: Records): number {
    const follows = this.last;
    this.#batches.all.push({ follows, first: follows + 1, records });
    return follows + 1;
  }

  batch(after: number): LogBatch | undefined {
    if (after >= this.last) return undefined;
    if (after < this.#base) throw new ErrCompacted(this.first);
    return this.#batches.after(after);
  }

  compact(upTo: number): void {
    this.#base = this.#batches.compact(this.unneeded(upTo)) ?? this.#base;
  }

  startAt(index: number, epoch: Epoch | undefined): void {
    this.#base = index;
    this.epochs = epoch === undefined ? [] : [epoch];
  }
}

/**
 * Logs of clusters in memory, for tests and for clusters that need not outlive the
 * process. Hosts that share one can run several replicas of a cluster in one process.
 *
 * ```ts
 * import { MemoryLogDB, NodeHost } from "../../mod.ts";
 *
 * await using logDB = new MemoryLogDB();
 * await using one = new NodeHost({ logDB });
 * await using two = new NodeHost({ logDB });
 * ```
 */
export class MemoryLogDB implements LogDB {
  /** Snapshot store shared by the hosts that share these logs. */
  readonly snapshots: MemorySnapshotStore = new MemorySnapshotStore();
  readonly #env: Env;
  readonly #clusters = new Map<bigint, MemoryClusterLog>();
  readonly #open = new OpenLogs();
  #closed = false;

  /** Creates a LogDB without logs. `env` provides the random ids of their epochs. */
  constructor(options: { readonly env?: Env } = {}) {
    checkOptions("Options of the logs", options, { env: optional(isEnv) });
    this.#env = options.env ?? systemEnv;
  }

  /**
   * Opens the log of a cluster for one of its replicas.
   *
   * @throws ErrClusterAlreadyExist if that replica has it open already
   * @throws ErrClusterClosed after `close()`
   */
  open(clusterID: bigint, nodeID: bigint): Log {
    if (this.#closed) {
      throw new ErrClusterClosed("MemoryLogDB is closed; create another one");
    }
    let cluster = this.#clusters.get(clusterID);
    if (cluster === undefined) {
      this.#clusters.set(clusterID, cluster = new MemoryClusterLog(this.#env));
    }
    return this.#open.add(cluster, clusterID, nodeID);
  }

  /** Ids of the clusters that have a log, in ascending order. */
  clusters(): readonly bigint[] {
    return [...this.#clusters.keys()].sort((a, b) => a < b ? -1 : 1);
  }

  /**
   * Removes the log of a cluster.
   *
   * @throws ErrClusterAlreadyExist if a replica has it open
   */
  removeData(clusterID: bigint): void {
    checkUnused(clusterID, this.#clusters.get(clusterID)?.nodes);
    this.#clusters.delete(clusterID);
  }

  /** Closes every open log; idempotent. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#open.close();
    await this.snapshots.close();
  }

  /** Closes every open log. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
