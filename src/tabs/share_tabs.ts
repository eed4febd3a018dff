/**
 * One replica for the tabs of an origin.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { TAB_CODE_MAX } from "../limits.ts";
import type { HostTabs } from "../nodehost/tabs.ts";
import {
  checkOptions,
  isCount,
  isFunction,
  isText,
  optional,
  type OptionChecks,
} from "../options.ts";
import { browserPlatform } from "./platform.ts";
import { SharedTabs, type TabStatus } from "./shared_tabs.ts";
import type { OtherTab } from "./tab_state.ts";

/** Options of {@linkcode shareTabs}. */
export interface ShareTabsOptions {
  /**
   * Version of the application's code: one integer, which increases with each
   * version that older code must not work beside. A tab that hears of a higher one
   * stops (`outdated`) and has to be reloaded; the stores are closed to older code
   * from then on.
   *
   * @default {1}
   */
  readonly code?: number;
  /**
   * Called in the leading tab when another tab uses a cluster that this one has not
   * started: start it on the same host. Not needed where every tab starts the same
   * clusters.
   */
  readonly onCluster?: (clusterID: bigint) => unknown;
}

/** Tabs that share the replicas of a host. */
export interface Tabs extends HostTabs {
  /** State of this tab, with the reason if nothing is shared or the page has to be reloaded. */
  readonly status: TabStatus;
  /** Calls `listener` after each change of the status; returns a function that ends the calls. */
  watch(listener: (status: TabStatus) => void): () => void;
  /** Asks the other tabs what they are, and lists those that answer in time, the leader first; a frozen page may not. */
  others(): Promise<readonly OtherTab[]>;
  /** Leaves the lead to another tab, if this one leads and another waits for it. */
  handOver(): void;
}

const CHECKS: OptionChecks<ShareTabsOptions> = {
  code: optional(isCount(0, TAB_CODE_MAX)),
  onCluster: optional(isFunction),
};

/**
 * Has all tabs of the origin that call this with the same name share the replicas of
 * their hosts. One tab leads: it has the stores and the connection, and sends what
 * all of them submit. In the others the host has the same replicas, with the same
 * interface: they apply the same entries in memory, submit into the same outbox,
 * with or without a leader, and propose and read through the leader. When the leader
 * is closed, crashes or is frozen, another tab takes over; it never shows an older
 * state than before, and no submission is lost or applied twice.
 *
 * ```ts ignore
 * import { NodeHost } from "../../mod.ts";
 * import { IndexedDBOutbox, IndexedDBSnapshotStore } from "../indexeddb/mod.ts";
 * import { RemoteLogDB } from "../sync/client/mod.ts";
 * import { shareTabs } from "./mod.ts";
 *
 * const tabs = shareTabs("board");
 * tabs.watch(({ state, reason }) => console.log(state, reason));
 * const host = new NodeHost({
 *   logDB: new RemoteLogDB("wss://example.com/sync"),
 *   outbox: new IndexedDBOutbox("board-outbox"),
 *   snapshots: new IndexedDBSnapshotStore("board-snapshots"),
 *   tabs,
 * });
 * ```
 *
 * Machines are in memory, those of `startCluster()` and `startConcurrentCluster()`:
 * one on disk can have one instance only, so that the other tabs would have no state
 * of their own to read.
 *
 * A tab that follows has the stores changed by the leader (`requestSnapshot()`,
 * `requestCompaction()`, `adoptOutbox()`), or takes the lead for what changes them as
 * a whole: `importSnapshot()`, `skipEntry()`, `removeData()`, `startOver()` and
 * `leave()`. It exports its own state, which it holds in memory until it is read.
 *
 * Without Web Locks, or where nothing can be stored, nothing is shared: each tab is
 * a device in memory of its own, its state is `memory`, and the reason says why.
 *
 * @throws TypeError or RangeError if an option is wrong
 */
export function shareTabs(name: string, options: ShareTabsOptions = {}): Tabs {
  isText("Name of the tabs", name);
  checkOptions("Options of the tabs", options, CHECKS);
  const { code = 1, onCluster } = options;
  return new SharedTabs(name, browserPlatform(), { code, onCluster });
}
