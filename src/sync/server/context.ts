/**
 * Services of a server that all its connections share.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../../env.ts";
import type { NodeHost } from "../../nodehost/node_host.ts";
import type { Versions } from "../messages.ts";
import type { FairScheduler } from "./fair_scheduler.ts";
import type { Hooks } from "./hooks.ts";
import type { LoadLimiter } from "./load_limiter.ts";
import type { LogReach } from "./log_reach.ts";
import type { ServerLimits } from "./options.ts";
import type { Quotas } from "./quotas.ts";
import type { ServedClusters } from "./served_clusters.ts";
import type { ServerLog } from "./server_log.ts";
import type { Telemetry } from "./telemetry.ts";

/** Services that a server hands down to its connections and their channels. */
export interface ServerContext {
  /** Host whose clusters are served. */
  readonly host: NodeHost;
  /** Time, timers and random numbers. */
  readonly env: Env;
  /** Bounds of the server. */
  readonly limits: ServerLimits;
  /** Protocol versions that the server speaks. */
  readonly versions: Versions;
  /** Hooks of the application. */
  readonly hooks: Hooks;
  /** True if commands at which the state machine throws are refused. */
  readonly rehearses: boolean;
  /** True if commands are decided by one server at a time. */
  readonly decidesAlone: boolean;
  /** Counters, histograms and traces. */
  readonly telemetry: Telemetry;
  /** Reach of the engine that orders the logs. */
  readonly reach: LogReach;
  /** Log of the server. */
  readonly log: ServerLog;
  /** Limits the share of time spent on client messages. */
  readonly load: LoadLimiter;
  /** Schedules client messages fairly under load. */
  readonly scheduler: FairScheduler;
  /** Quotas of principals, addresses and the server. */
  readonly quotas: Quotas;
  /** Clusters that are served. */
  readonly clusters: ServedClusters;
  /** True once the server accepts no new work. */
  readonly isStopping: boolean;
}
