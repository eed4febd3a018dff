/**
 * Options of an inspector: the replica or the server that it shows, and what it may
 * do with it.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { type Env, systemEnv } from "../env.ts";
import type { NodeHost, Replica } from "../nodehost/mod.ts";
import {
  checkOptions,
  isA,
  isEnv,
  isFunction,
  isObject,
  isText,
  optional,
  type OptionChecks,
} from "../options.ts";
import type { Result } from "../statemachine/types.ts";
import type { RemoteStatus } from "../sync/client/status.ts";
import type { TabStatus } from "../tabs/shared_tabs.ts";
import type { OtherTab } from "../tabs/tab_state.ts";

/** Description of a machine to people. */
export interface MachineView {
  /** Decodes a command, to be shown, with its result where that is known; undefined for bytes that are not a command. */
  decode?(cmd: Uint8Array, result?: Result): unknown;
  /** Reads the state, or the part of it to be shown, through a query function: objects, arrays, maps and plain values, or a promise of them. */
  stateOf?(lookup: (query: unknown) => unknown): unknown;
}

/** State of a connection to a server, as a `RemoteLogDB` has it. */
export interface InspectedConnection {
  /** State, its reason, the time of the next attempt, and the progress of each cluster. */
  readonly status: RemoteStatus;
  /** Reconnects at once. */
  reconnect(): void;
}

/** State of the tabs of an origin, as `shareTabs()` returns it. */
export interface InspectedTabs {
  /** State of this tab, with the reason if nothing is shared. */
  readonly status: TabStatus;
  /** Lists the other tabs. */
  others?(): Promise<readonly OtherTab[]>;
}

/** Switch of the application for its network. */
export interface InspectedNetwork {
  /** True if connections are possible; may be set. */
  isOnline: boolean;
}

/** Options of an inspector. */
export interface InspectorOptions {
  /** Host of the replica: without it nothing is exported, imported or started over. */
  readonly host?: NodeHost;
  /** Replica to show; without it only the server at `source` is shown. */
  readonly replica?: Replica;
  /**
   * Definition of a typed machine, or functions that decode commands and read the
   * state. Without it commands are shown as bytes, and states by their hashes.
   */
  readonly machine?: MachineView;
  /** Connection of the replica, such as its `RemoteLogDB`. */
  readonly connection?: InspectedConnection;
  /** Tabs that share the replica. */
  readonly tabs?: InspectedTabs;
  /** Switch for the network; without it there is no button to go offline. */
  readonly network?: InspectedNetwork;
  /**
   * Starts the cluster over on the server's history.
   *
   * @default {`host.startOver()`}
   */
  readonly startOver?: () => Promise<unknown>;
  /** Starts the cluster with the machine and configuration that it had, after a snapshot was imported; without it no snapshot can be imported. */
  readonly restart?: () => Promise<Replica>;
  /** URL of the inspector of a server, such as `/inspector`; its clients, queues, rates and memory are shown. */
  readonly source?: string;
  /** URLs of the inspectors of the other servers on the same log: all servers are shown beside each other. */
  readonly peers?: readonly string[];
  /** Returns the headers of requests to `source`, such as an authorization. */
  readonly headers?: () => Readonly<Record<string, string>>;
  /**
   * Clock and timers.
   *
   * @default {that of the runtime}
   */
  readonly env?: Env;
}

const CHECKS: OptionChecks<InspectorOptions> = {
  host: optional(isA("a NodeHost", "exportData", "info")),
  replica: optional(isA("a Replica", "history", "pending")),
  machine: optional(isObject),
  connection: optional(isA("a RemoteLogDB", "reconnect")),
  tabs: optional(isObject),
  network: optional(isObject),
  startOver: optional(isFunction),
  restart: optional(isFunction),
  source: optional(isText),
  peers: optional(isObject),
  headers: optional(isFunction),
  env: optional(isEnv),
};

/** Checks the options of an inspector. */
export function checkInspector(options: InspectorOptions): void {
  checkOptions("Options of the inspector", options, CHECKS);
}

/** Clock and timers of an inspector. */
export function envOf({ env = systemEnv }: InspectorOptions): Env {
  return env;
}
