/**
 * What a host and a replica can be told.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { encodeText } from "../bytes.ts";
import type { Env } from "../env.ts";
import { SESSIONS_MAX, TIMER_MS_MAX } from "../limits.ts";
import type { LogDB } from "../log/log.ts";
import {
  checkOptions,
  isA,
  isCount,
  isEnv,
  isFunction,
  isID,
  isNumber,
  isOneOf,
  isSnapshotStore,
  optional,
  type OptionChecks,
} from "../options.ts";
import type { FileStore } from "../snapshot/file_store.ts";
import type { SkippedEntry } from "../rsm/skipped_entries.ts";
import type {
  SnapshotHeader,
  SnapshotInfo,
  SnapshotStore,
} from "../snapshot/store.ts";
import type {
  IConcurrentStateMachine,
  IStateMachine,
} from "../statemachine/machines.ts";
import type { Outbox, OutboxEvent } from "./outbox.ts";

/** Makes a machine in memory. */
export type CreateReplayMachineFunc = (
  clusterID: bigint,
  nodeID: bigint,
) => IStateMachine | IConcurrentStateMachine;

/** How a replica is to be run. */
export interface ReplicaConfig {
  /** The cluster it belongs to, in 0…2^64-1. */
  clusterID: bigint;
  /** Which replica of the cluster it is, in 1…2^64-1. */
  nodeID: bigint;
  /**
   * Applied entries after which a snapshot is taken; 0 for on request only, and
   * when what a log keeps on this device gets too long (H7).
   *
   * @default {0}
   */
  snapshotEntries?: number;
  /**
   * Entries the log keeps before the older of the two full snapshots, for
   * replicas that are a little behind (H7).
   *
   * @default {0}
   */
  compactionOverhead?: number;
  /**
   * For an on-disk machine: of its snapshots, every how many-th holds the state
   * and is shared, which lets the log be cut; the others are metadata only (D10).
   * 0 for none, so that the log is never cut.
   *
   * @default {8}
   */
  fullSnapshotInterval?: number;
  /**
   * How payload and files of snapshots are compressed.
   *
   * @default {"none"}
   */
  compression?: SnapshotHeader["compression"];
  /**
   * How many sessions the cluster may have. Counts only when this replica writes
   * the cluster's first record; every other follows the log (H4).
   *
   * @default {4096}
   */
  sessionsMax?: number;
  /**
   * Distance of the indexes at which replicas compare their hashes, the same on
   * every replica; 0 for none (H12).
   *
   * @default {0}
   */
  hashEntries?: number;
  /**
   * For an on-disk machine: makes one in memory that does the same with the same
   * commands, has the same hash, and recovers from its full snapshots. A host
   * finds with it which command parted this replica from the trusted one (U32),
   * for which there would have to be two on one disk. For the key-value machines
   * it is `() => new KVStateMachine()`. What has a `prepareSnapshot()` is taken
   * for a concurrent machine.
   */
  replayMachine?: CreateReplayMachineFunc;
  /**
   * The replica that is right when hashes differ; without it nobody is, and a
   * difference is only reported (H12).
   *
   * @default {the one the log names, as a server's does}
   */
  trustedNode?: bigint;
  /**
   * Proposals that may wait for an answer; past it `ErrSystemBusy`.
   *
   * @default {65536}
   */
  pendingProposalsMax?: number;
  /**
   * Bytes of commands that may wait for an answer; past it `ErrSystemBusy`.
   *
   * @default {67108864}
   */
  pendingBytesMax?: number;
}

/** What happened at a replica that its host's owner may want to know. */
export type HostEvent =
  & {
    /** The cluster it happened in. */
    readonly clusterID: bigint;
    /** The replica it happened to. */
    readonly nodeID: bigint;
  }
  & (
    | {
      /** The replica failed and applies nothing any more (R5). */
      readonly type: "failed";
      /** What it failed with. */
      readonly error: unknown;
      /** An `ErrUpdateFailed` that names the entry if `update()` threw, else the same as `error`. */
      readonly failure: unknown;
    }
    | {
      /** The replica goes on without an entry that an operator has had skipped, at which it had stopped, or which it had applied (H17). */
      readonly type: "entry skipped";
      /** The entry, and why it is skipped. */
      readonly skip: SkippedEntry;
    }
    | OutboxEvent
    | {
      /** A snapshot was taken. */
      readonly type: "snapshot";
      /** Which. */
      readonly snapshot: SnapshotInfo;
    }
    | {
      /** A snapshot was not taken, one that was is of no use, or what it makes superfluous could not be removed (R7, H7, H8). */
      readonly type: "snapshot failed";
      /** Cause of it. */
      readonly error: unknown;
    }
    | {
      /** The state came from a snapshot. */
      readonly type: "recovered";
      /** Which. */
      readonly snapshot: SnapshotInfo;
    }
    | {
      /** The log was cut: it starts after this index now, or later where somebody needs more. */
      readonly type: "compacted";
      /** The index asked for. */
      readonly upTo: number;
    }
    | {
      /** Nothing can be stored in the log, as when the disk is full: proposals fail with the error. It is tried again by itself, and said once. */
      readonly type: "log unwritable";
      /** Error of the write: an `ErrStoreFull`, or an `ErrStoreFailed`. */
      readonly error: unknown;
    }
    | {
      /** The log can be written again after `log unwritable`. */
      readonly type: "log writable";
    }
    | {
      /** The log could not be read; it is tried again. Said once for each cause until something was read. */
      readonly type: "log failed";
      /** Cause of it. */
      readonly error: unknown;
    }
    | {
      /**
       * The machine on disk found no room. Nothing is lost: what is committed is
       * applied, or made durable, once there is some, and is tried from time to
       * time (U8).
       */
      readonly type: "store full";
      /** An `ErrStoreFull`. */
      readonly error: unknown;
    }
    | {
      /** The machine's hash could not be had where replicas compare theirs (H12). */
      readonly type: "hash failed";
      /** Cause of it. */
      readonly error: unknown;
    }
    | {
      /** The machine's `refusal()` threw, or gave no reason: the result it was asked about counts as none (R15). */
      readonly type: "refusal failed";
      /** Cause of it. */
      readonly error: unknown;
    }
    | {
      /**
       * Another replica has another state after the same entries (H12). If that
       * one is trusted, the replica stops answering at once, and looks for the
       * entry that parted them: if it is found, there is a second such event,
       * whose error names it.
       */
      readonly type: "diverged";
      /** Between which indexes: an `ErrDiverged`. */
      readonly error: unknown;
      /** The other replica. */
      readonly from: bigint;
    }
    | {
      /**
       * The machine holds up the replica: a call of it has not settled for so long.
       * An `update()` that awaits its own replica never does.
       */
      readonly type: "slow";
      /** Names of the methods that have not settled. */
      readonly calls: readonly string[];
      /** Time entries have waited for them, in milliseconds. */
      readonly waitedMs: number;
    }
    | {
      /** The machine could not be closed, or did not settle in time (H10). */
      readonly type: "close failed";
      /** Cause of it. */
      readonly error: unknown;
    }
  );

type DistributiveOmit<T, K extends PropertyKey> = T extends unknown ? Omit<T, K>
  : never;

/** An event of one replica, without the ids of cluster and replica. */
export type ReplicaEvent = DistributiveOmit<HostEvent, "clusterID" | "nodeID">;

/** What a host is made of; everything has a default in memory. */
export interface NodeHostOptions {
  /** The logs of its clusters; by default in memory, of its own. */
  logDB?: LogDB;
  /** Where its snapshots are kept; by default where the logs share theirs, else in memory. */
  snapshots?: SnapshotStore;
  /** Where its machines' external files are; by default in memory. */
  files?: FileStore;
  /** Outbox that stores submissions until the cluster has decided them; without one `submit()` is refused. */
  outbox?: Outbox;
  /**
   * Principal who is signed in, by the id the server knows; undefined if there is
   * only one, or none. An outbox notes whose its commands are: with those of
   * another principal a cluster is not started (`ErrOtherPrincipal`), and once they
   * are sent or removed it is the next one's (U35).
   */
  principal?: string | undefined;
  /**
   * Name of this device that outlives its storage, such as the value of a cookie
   * the server has set, or the name the user gave it. The cluster then knows the
   * sessions of the device, and a device that comes back with an empty outbox is
   * told that what it kept was purged (`Replica.purged`, event `purged`). The name
   * belongs to one outbox: no two may have it at a time.
   */
  device?: string | undefined;
  /** Time, random numbers and timers; by default the real ones. */
  env?: Env;
  /**
   * How long a stop waits for a machine that does not settle, in milliseconds (H10).
   *
   * @default {5000}
   */
  stopTimeoutMs?: number;
  /** Called when something has happened. Its errors are ignored, also those of the promise of an async function. */
  onEvent?: (event: HostEvent) => void;
}

/** Refuses a configuration that cannot be, with a `TypeError` or `RangeError` that names the option. */
export function checkConfig(config: ReplicaConfig): void {
  const checks: OptionChecks<ReplicaConfig> = {
    clusterID: isID(0n),
    nodeID: isID(1n),
    snapshotEntries: optional(isCount()),
    compactionOverhead: optional(isCount()),
    fullSnapshotInterval: optional(isCount()),
    compression: optional(isOneOf("none", "gzip", "deflate-raw")),
    sessionsMax: optional(isCount(1, SESSIONS_MAX)),
    hashEntries: optional(isCount()),
    replayMachine: optional(isFunction),
    trustedNode: optional(isID(1n)),
    pendingProposalsMax: optional(isCount(1)),
    pendingBytesMax: optional(isCount(1)),
  };
  checkOptions("Configuration of a replica", config, checks);
}

/** A principal no server can know, or that could not be told from another one, is refused. */
function isPrincipal(name: string, principal: unknown): void {
  if (typeof principal !== "string" || principal === "") {
    throw new TypeError(
      `${name} is not a non-empty string; leave it out where there is no sign-in`,
    );
  }
  encodeText(principal, name);
}

/** Refuses the options of a host that cannot be, with a `TypeError` or `RangeError` that names the option. */
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
    env: optional(isEnv),
    stopTimeoutMs: optional(isNumber(0, TIMER_MS_MAX)),
    onEvent: optional(isFunction),
  };
  checkOptions("Options of a host", options, checks);
}

/** Refuses an id that is no unsigned 64-bit number, or below `min`. */
export function checkID(name: string, id: bigint, min: bigint): void {
  isID(min)(name, id);
}
