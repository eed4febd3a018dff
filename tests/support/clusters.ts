/**
 * Hosts and replicas on machines that record their calls.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  ErrCompacted,
  type HostEvent,
  NodeHost,
  type NodeHostOptions,
  type Replica,
  type ReplicaConfig,
} from "../../mod.ts";
import type { Checkpoint, LogDB, Records } from "../../src/ports/mod.ts";
import { bytes } from "./bytes.ts";
import {
  ConcurrentJournal,
  Disk,
  HostedDiskJournal,
  type Journal,
  type MachineFaults,
  PlainDiskJournal,
  RegularJournal,
} from "../machines/journal.ts";
import { logOfHost } from "./log_tests.ts";

/** Host with its first replica, its events and the machines it made. */
export interface Started {
  readonly host: NodeHost;
  readonly replica: Replica;
  readonly events: HostEvent[];
  /** Machines in the order they were made. */
  readonly machines: Journal[];
}

/** Options of the host, and of the machine and replica on it. */
export interface StartOptions extends NodeHostOptions {
  readonly kind?: "regular" | "concurrent" | "disk" | "hosted";
  readonly faults?: MachineFaults;
  readonly disk?: Disk;
  readonly config?: Partial<ReplicaConfig>;
}

/** Makes a host that appends its events to `events`. */
export function hostOf(
  options: NodeHostOptions,
  events: HostEvent[] = [],
): NodeHost {
  const logDB = options.logDB ??
    (options.env === undefined ? logOfHost() : undefined);
  return new NodeHost({
    ...options,
    ...(logDB === undefined ? {} : { logDB }),
    onEvent: (event) => events.push(event),
  });
}

/** Starts a replica on a host. */
export async function startOn(
  host: NodeHost,
  options: StartOptions,
  machines: Journal[] = [],
): Promise<Replica> {
  const { kind = "regular", faults = {}, disk = new Disk() } = options;
  const config = { clusterID: 1n, nodeID: 1n, ...options.config };
  const keep = <T extends Journal>(machine: T): T => {
    machines.push(machine);
    return machine;
  };
  switch (kind) {
    case "regular":
      return await host.startCluster(
        (c, n) => keep(new RegularJournal(faults, c, n)),
        config,
      );
    case "concurrent":
      return await host.startConcurrentCluster(
        (c, n) => keep(new ConcurrentJournal(faults, c, n)),
        config,
      );
    case "disk":
      return await host.startOnDiskCluster(
        (c, n) => keep(new PlainDiskJournal(disk, faults, c, n)),
        config,
      );
    case "hosted":
      return await host.startOnDiskCluster(
        (c, n) => keep(new HostedDiskJournal(disk, faults, c, n)),
        config,
      );
  }
}

/** Makes a host and starts a replica on it. */
export async function start(options: StartOptions = {}): Promise<Started> {
  const { kind: _, faults: __, disk: ___, config: ____, ...rest } = options;
  const events: HostEvent[] = [];
  const machines: Journal[] = [];
  const host = hostOf(rest, events);
  try {
    const replica = await startOn(host, options, machines);
    return { host, replica, events, machines };
  } catch (error) {
    await host.stop();
    throw error;
  }
}

/** Starts three replicas on one log, each on a host of its own. */
export async function startThree(
  logDB: LogDB,
  options: StartOptions = {},
): Promise<Started[]> {
  const started: Started[] = [];
  for (const nodeID of [1n, 2n, 3n]) {
    const config = { ...options.config, nodeID };
    started.push(await start({ ...options, logDB, config }));
  }
  return started;
}

/** Stops the hosts. */
export async function stopAll(started: readonly Started[]): Promise<void> {
  for (const { host } of started) await host.stop();
}

/** Lists the types of events in order. */
export function typesOf(events: readonly HostEvent[]): string[] {
  return events.map(({ type }) => type);
}

/** Reads the commands a replica has applied, without the log. */
export async function listOf(replica: Replica): Promise<string[]> {
  return await replica.staleRead(null) as string[];
}

/** Proposes commands one after the other. */
export async function proposeAll(
  replica: Replica,
  ...commands: readonly string[]
): Promise<void> {
  for (const command of commands) await replica.propose(bytes(command));
}

/** Proposes commands one after the other and takes a snapshot after each. */
export async function snapshotAfterEach(
  replica: Replica,
  ...commands: readonly string[]
): Promise<void> {
  for (const command of commands) {
    await proposeAll(replica, command);
    await replica.requestSnapshot();
  }
}

/** Returns the index of the first entry that the log of a cluster has; 1 if it was never compacted. */
export async function firstIndex(
  logDB: LogDB,
  clusterID = 1n,
): Promise<number> {
  const log = await logDB.open(clusterID, 0n);
  try {
    (await log.read(0)).close();
    return 1;
  } catch (error) {
    if (!(error instanceof ErrCompacted)) throw error;
    return error.firstIndex;
  } finally {
    await log.close();
  }
}

/** Kinds of machine; the on-disk one without and with host rows. */
export const KINDS = ["regular", "concurrent", "disk", "hosted"] as const;

/** Appends records to the log of a cluster without a host. */
export async function forge(
  logDB: LogDB,
  records: Records,
  clusterID = 1n,
): Promise<number> {
  const log = await logDB.open(clusterID, 0n);
  try {
    return await log.append(records);
  } finally {
    await log.close();
  }
}

/** Publishes a checkpoint of a cluster without a host. */
export async function publish(
  logDB: LogDB,
  checkpoint: Checkpoint,
  clusterID = 1n,
): Promise<void> {
  const log = await logDB.open(clusterID, 0n);
  log.checkpoints!.publish(checkpoint);
  await log.close();
}
