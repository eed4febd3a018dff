/**
 * Port of a host for tabs that share one replica: a host imports these types and no
 * code of tabs, so a page that does not share carries none of it.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../env.ts";
import type { LogDB } from "../log/log.ts";
import type { SnapshotStore } from "../snapshot/store.ts";
import type { Outbox } from "./outbox.ts";
import type { Replica } from "./replica.ts";

/** Stores of a host. */
export interface HostStores {
  /** Logs of the clusters. */
  readonly logDB: LogDB;
  /** Snapshots of the host. */
  readonly snapshots: SnapshotStore;
  /** Outbox, if the host has one. */
  readonly outbox: Outbox | undefined;
}

/** Host whose replicas are shared. */
export interface SharingHost extends HostStores {
  /** Clock, random numbers and timers of the host. */
  readonly env: Env;
  /** Replica of a cluster, from the resolution of its start until its stop. */
  replica(clusterID: bigint): Replica | undefined;
}

/** Tabs that share the replicas of a host, for its option `tabs`; made by `shareTabs()`. */
export interface HostTabs {
  /** Returns the stores that a host uses instead of its own; called once, when the host is created. */
  share(host: SharingHost): HostStores;
  /** Leaves the other tabs; called when the host has stopped. */
  close(): void;
}
