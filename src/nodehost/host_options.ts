/**
 * Options of a host.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { encodeText } from "../bytes.ts";
import type { Env } from "../env.ts";
import { TIMER_MS_MAX } from "../limits.ts";
import type { LogDB } from "../log/log.ts";
import {
  checkOptions,
  isA,
  isEnv,
  isFunction,
  isNumber,
  isSnapshotStore,
  optional,
  type OptionChecks,
} from "../options.ts";
import type { FileStore } from "../snapshot/file_store.ts";
import type { SnapshotStore } from "../snapshot/store.ts";
import type { HostEvent } from "./events.ts";
import type { Outbox } from "./outbox.ts";
import type { HostTabs } from "./tabs.ts";

/** Options of a `NodeHost`. All storage is in memory by default. */
export interface NodeHostOptions {
  /** Logs of the clusters. By default the host has its own, in memory. */
  logDB?: LogDB;
  /** Store of the host's snapshots. By default the one in which the logs share theirs, else memory. */
  snapshots?: SnapshotStore;
  /** External files of the state machines. By default in memory. */
  files?: FileStore;
  /** Outbox that stores submissions until the cluster has decided them; without one `submit()` is refused. */
  outbox?: Outbox;
  /**
   * Id of the principal who is signed in, as the server knows it; undefined
   * without sign-in, or if there is one principal only. An outbox belongs to the
   * principal of its submissions: a cluster is not started for another one
   * (`ErrOtherPrincipal`) until they are sent or removed (U35).
   */
  principal?: string | undefined;
  /**
   * Name of this device that outlives its storage, such as the value of a cookie
   * set by the server, or a name the user chose. The cluster then knows the
   * sessions of the device, and a device that comes back with an empty outbox
   * reports that its data were purged (`Replica.purged`, event `purged`). Two
   * outboxes must not have the same name at a time.
   */
  device?: string | undefined;
  /**
   * Shares the replicas with the other tabs of the origin: one of them leads, and
   * keeps the stores; in the others the host has the same replicas, without stores.
   * From `shareTabs()`. By default a page is alone with its stores.
   */
  tabs?: HostTabs | undefined;
  /** Clock, random numbers and timers. By default those of the runtime. */
  env?: Env;
  /**
   * Time a stop waits for a state machine that does not settle, in milliseconds (H10).
   *
   * @default {5000}
   */
  stopTimeoutMs?: number;
  /** Called with each event. What it throws, or its promise rejects with, is ignored. */
  onEvent?: (event: HostEvent) => void;
}

/** Validates the name of a principal or device. */
function isPrincipal(name: string, principal: unknown): void {
  if (typeof principal !== "string" || principal === "") {
    throw new TypeError(
      `${name} is not a non-empty string; leave it out where there is no sign-in`,
    );
  }
  encodeText(principal, name);
}

/** Validates the options of a host; throws a `TypeError` or `RangeError` that names the option. */
export function checkHostOptions(options: NodeHostOptions): void {
  const checks: OptionChecks<NodeHostOptions> = {
    logDB: optional(isA("a LogDB", "open", "close")),
    snapshots: optional(isSnapshotStore),
    files: optional(
      isA("a FileStore", "open", "create", "remove", "list", "close"),
    ),
    outbox: optional(isA("an Outbox", "attach", "close")),
    principal: optional(isPrincipal),
    device: optional(isPrincipal),
    tabs: optional(isA("the value of shareTabs()", "share", "close")),
    env: optional(isEnv),
    stopTimeoutMs: optional(isNumber(0, TIMER_MS_MAX)),
    onEvent: optional(isFunction),
  };
  checkOptions("Options of a host", options, checks);
}
