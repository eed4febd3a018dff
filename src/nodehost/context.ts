/**
 * Context shared by the parts of one replica.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../env.ts";
import type { ErrClusterClosed, ErrDiverged } from "../log/errors.ts";
import type { Log, LogBatch, SnapshotSource } from "../log/log.ts";
import type { MachineFactory } from "../rsm/managed_machine.ts";
import type { FileStore } from "../snapshot/file_store.ts";
import type { SnapshotInfo, SnapshotStore } from "../snapshot/store.ts";
import { ErrOpenStopped, ErrSnapshotStopped } from "../statemachine/errors.ts";
import type { Type } from "../statemachine/types.ts";
import type { ErrUpdateFailed } from "./errors.ts";
import type { ReplicaEvent } from "./events.ts";
import type { ReplicaConfig } from "./replica_config.ts";

/**
 * Identity, ports, failure state and stop signals of one replica, shared by its
 * parts.
 */
export class ReplicaContext {
  /** Id of the cluster. */
  readonly clusterID: bigint;
  /** Id of the replica in the cluster. */
  readonly nodeID: bigint;
  /** Kind of the state machine. */
  readonly type: Type;
  /** Creates instances of the state machine. */
  readonly factory: MachineFactory;
  /** Configuration of the replica. */
  readonly config: ReplicaConfig;
  /** Log of the cluster, opened for this replica. */
  readonly log: Log;
  /** Snapshot store of the host. */
  readonly store: SnapshotStore;
  /** True if that store outlives the host. */
  readonly isDurable: boolean;
  /** Store in which the replicas on this log share snapshots, if there is one. */
  readonly shared: SnapshotStore | undefined;
  /** External files of the state machine. */
  readonly files: FileStore;
  /** Clock, random numbers and timers. */
  readonly env: Env;
  /** Time a stop waits for the machine, the outbox and the log, in milliseconds. */
  readonly stopTimeoutMs: number;
  /** Called with each event of the replica. */
  readonly event: (event: ReplicaEvent) => void;
  /** Ends the replica because of an error. Never throws. */
  readonly fail: (cause: unknown) => void;
  /** Set once a trusted replica is known to have another state. */
  diverged: ErrDiverged | undefined;
  /** Cause for which no submission is sent until the application or the user acts. */
  blocked: unknown;
  /** Error of the last `update()` that threw, until the replica continues without the entry. */
  updateFailed: ErrUpdateFailed | undefined;
  /** Called with each batch that the apply loop has read, before it is applied; they must not throw. */
  readonly onRead: Set<(batch: LogBatch) => void> = new Set();
  #source: SnapshotSource | undefined;
  #remote: SnapshotSource | undefined;
  readonly #stopped = new AbortController();
  readonly #ended = new AbortController();
  readonly #openStopped = new AbortController();
  readonly #recoverStopped = new AbortController();

  /** Creates the context of a replica; `fail` is called with an error that ends the replica. */
  constructor(ports: ReplicaPorts, fail: (cause: unknown) => void) {
    const { config, factory, log } = ports;
    this.clusterID = config.clusterID;
    this.nodeID = config.nodeID;
    this.type = factory.type;
    this.factory = factory;
    this.config = config;
    this.log = log;
    this.store = ports.store;
    this.isDurable = ports.isDurable;
    this.shared = ports.shared;
    this.files = ports.files;
    this.env = ports.env;
    this.stopTimeoutMs = ports.stopTimeoutMs;
    this.event = ports.event;
    this.fail = fail;
  }

  /** Takes note of a batch that the apply loop has read. */
  noteRead(batch: LogBatch): void {
    for (const listener of this.onRead) listener(batch);
  }

  /** Snapshots where the log is ordered, on a server or in another process; undefined if this process orders it. */
  get remote(): SnapshotSource | undefined {
    const { snapshots } = this.log;
    if (this.#source !== snapshots) {
      this.#source = snapshots;
      this.#remote = snapshots && reporting(snapshots, this.event);
    }
    return this.#remote;
  }

  /** True if a server orders the log. */
  get isOrderedByServer(): boolean {
    const { isRemote, snapshots } = this.log;
    return isRemote ?? snapshots !== undefined;
  }

  /** Snapshot stores of this device, the host's own first. */
  get deviceStores(): readonly SnapshotSource[] {
    const { store, shared } = this;
    return shared === undefined ? [store] : [store, shared];
  }

  /** Snapshot stores of this process, the host's own first; none while another process keeps those of the device. */
  get localStores(): readonly SnapshotSource[] {
    return this.log.keeper === undefined ? this.deviceStores : [];
  }

  /** All places where a snapshot may be found, the nearest first. */
  get allStores(): readonly SnapshotSource[] {
    const { localStores, remote } = this;
    return remote === undefined ? localStores : [...localStores, remote];
  }

  /** Node id of the replica whose state counts when state hashes differ. */
  get trusted(): bigint | undefined {
    return this.config.trustedNode ?? this.log.checkpoints?.trusted;
  }

  /** Aborts once the replica is stopped or has failed, with the `ErrClusterClosed` that later calls get. */
  get stopped(): AbortSignal {
    return this.#stopped.signal;
  }

  /** Aborts once the state machine is closed, or a stop no longer waits for it. */
  get ended(): AbortSignal {
    return this.#ended.signal;
  }

  /** Passed to `open()` of a machine: aborts with `ErrOpenStopped`. */
  get openStopped(): AbortSignal {
    return this.#openStopped.signal;
  }

  /** Passed to `recoverFromSnapshot()` of a machine: aborts with `ErrSnapshotStopped`. */
  get recoverStopped(): AbortSignal {
    return this.#recoverStopped.signal;
  }

  /** Sets the cause for which no submission is sent, and reports it to the log; undefined if submissions are sent again. */
  block(cause: unknown): void {
    this.blocked = cause;
    this.log.block?.(cause);
  }

  /** Stops all parts: their later calls get `reason`. */
  stop(reason: ErrClusterClosed): void {
    this.#stopped.abort(reason);
    this.#openStopped.abort(new ErrOpenStopped());
    this.#recoverStopped.abort(new ErrSnapshotStopped());
  }

  /** Ends calls of the state machine that have not returned. */
  end(reason: ErrClusterClosed): void {
    this.#ended.abort(reason);
  }
}

/** Ports and settings that a host gives to a replica. */
export type ReplicaPorts = Pick<
  ReplicaContext,
  | "factory"
  | "config"
  | "log"
  | "store"
  | "isDurable"
  | "shared"
  | "files"
  | "env"
  | "stopTimeoutMs"
  | "event"
>;

/** Wraps a remote source whose list may fail for a while: the failure is an event, and no snapshot is found. */
function reporting(
  source: SnapshotSource,
  event: (event: ReplicaEvent) => void,
): SnapshotSource {
  return {
    async list(clusterID): Promise<readonly SnapshotInfo[]> {
      try {
        return await source.list(clusterID);
      } catch (error) {
        event({ type: "snapshot failed", error });
        return [];
      }
    },
    open: (info) => source.open(info),
  };
}
