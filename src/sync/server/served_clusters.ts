/**
 * Clusters that a server serves now.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { type NodeHost, rehearseOn } from "../../nodehost/node_host.ts";
import { makeRehearsal } from "../../rehearsal/mod.ts";
import { rehearsalOf } from "../../nodehost/replica.ts";
import { CloseCode } from "../transport.ts";
import type { CoreOptions } from "./options.ts";
import { ServedCluster } from "./served_cluster.ts";
import type { ServerLog } from "./server_log.ts";

/** Opens clusters of a host on first use, and closes those without users. */
export class ServedClusters {
  readonly #host: NodeHost;
  readonly #log: ServerLog;
  readonly #opened: () => void;
  readonly #clusters = new Map<bigint, Promise<ServedCluster>>();
  /** Clusters without users at the last sweep: a new one gets its first user after it is opened. */
  readonly #idle = new WeakSet<ServedCluster>();
  /** Ends the rehearsal of the host's own proposals; undefined where commands are not rehearsed. */
  readonly #endRehearsal: (() => void) | undefined;
  #isStopping = false;

  /** Creates a registry without clusters; `opened` is called when one is opened. */
  constructor(
    host: NodeHost,
    { rehearse = true, validate }: CoreOptions,
    log: ServerLog,
    opened: () => void,
  ) {
    this.#host = host;
    this.#log = log;
    this.#opened = opened;
    if (!rehearse && validate === undefined) return;
    this.#endRehearsal = rehearseOn(host, {
      make: makeRehearsal,
      isRefusing: rehearse,
    });
  }

  /** Number of clusters that are open. */
  get size(): number {
    return this.#clusters.size;
  }

  /** Cluster that is open now; undefined if it is not. */
  async peek(clusterID: bigint): Promise<ServedCluster | undefined> {
    return await this.#clusters.get(clusterID)?.catch(() => undefined);
  }

  /** Cluster that runs on the host, opened if needed; undefined if it does not run or the server stops. */
  async get(clusterID: bigint): Promise<ServedCluster | undefined> {
    const replica = this.#host.replica(clusterID);
    if (
      replica === undefined || replica.failure !== undefined ||
      this.#isStopping
    ) return undefined;
    for (;;) {
      const opening = this.#clusters.get(clusterID);
      if (opening === undefined) break;
      const cluster = await opening;
      if (cluster.isLive && cluster.replica === replica) return cluster;
      this.#close(clusterID, opening, cluster);
    }
    const opening = ServedCluster.open(
      this.#host,
      replica,
      this.#endRehearsal && rehearsalOf(replica, makeRehearsal),
    );
    this.#clusters.set(clusterID, opening);
    opening.then((cluster) => this.#logChanges(cluster)).catch(() => {
      if (this.#clusters.get(clusterID) === opening) {
        this.#clusters.delete(clusterID);
      }
    });
    this.#opened();
    return await opening;
  }

  /** Logs changes of a cluster once each, however many appends fail with it. */
  #logChanges(cluster: ServedCluster): void {
    const { clusterID } = cluster;
    if (cluster.isEnded) return;
    const unwatch = cluster.log.storage?.watch((error) =>
      this.#log.write(
        error === undefined
          ? { level: "info", event: "storing again", clusterID }
          : { level: "error", event: "cannot store", clusterID, error },
      )
    );
    cluster.onEnd(() => {
      unwatch?.();
      const error = cluster.failure;
      if (error === undefined) return;
      this.#log.write({
        level: "error",
        event: "cluster failed",
        clusterID,
        error,
      });
    });
  }

  #close(
    clusterID: bigint,
    opening: Promise<ServedCluster>,
    cluster: ServedCluster,
  ): void {
    if (this.#clusters.get(clusterID) === opening) {
      this.#clusters.delete(clusterID);
    }
    cluster.end(CloseCode.GoingAway, "Cluster was stopped on the server");
  }

  /** Closes clusters that have ended, and those without users since the last sweep. */
  sweep(): void {
    for (const [clusterID, opening] of this.#clusters) {
      void opening.then((cluster) => {
        const isIdle = cluster.users.size === 0;
        if (!cluster.isLive || (isIdle && this.#idle.has(cluster))) {
          this.#close(clusterID, opening, cluster);
        } else if (isIdle) this.#idle.add(cluster);
        else this.#idle.delete(cluster);
      }).catch(() => {});
    }
  }

  /** Opens no more clusters. */
  stopOpening(): void {
    this.#isStopping = true;
  }

  /** Closes every cluster. */
  async closeAll(): Promise<void> {
    for (const [clusterID, opening] of [...this.#clusters]) {
      const cluster = await opening.catch(() => undefined);
      if (cluster !== undefined) this.#close(clusterID, opening, cluster);
    }
  }

  /** Ends the rehearsal of the host's own proposals. */
  endRehearsal(): void {
    this.#endRehearsal?.();
  }
}
