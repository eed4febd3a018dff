/**
 * Hosts, the replicas they run, and the sessions of clients.
 *
 * This module is browser compatible.
 *
 * ```ts
 * import { NodeHost } from "./mod.ts";
 * import { KVStateMachine, kv } from "../kv/mod.ts";
 *
 * await using host = new NodeHost();
 * const replica = await host.startCluster(() => new KVStateMachine(), {
 *   clusterID: 1n,
 *   nodeID: 1n,
 * });
 * const session = await replica.openSession();
 * const { value } = await replica.propose(kv.put("a", "1"), { session });
 * console.log(value, await replica.read(kv.count())); // 1n 1
 * ```
 *
 * @module
 */

export type {
  Agreement,
  CreateReplayMachineFunc,
  EntryReader,
  LoggedEntry,
  LoggedOutcome,
  LoggedSession,
  PastState,
  ReplicaHistory,
} from "../divergence/mod.ts";
export * from "./errors.ts";
export type { HostEvent, OutboxEvent } from "./events.ts";
export type { NodeHostOptions } from "./host_options.ts";
export type {
  ClusterData,
  ClusterInfo,
  ClusterStatus,
  NodeHostInfo,
} from "./info.ts";
export { NodeHost, type RemoveDataOptions } from "./node_host.ts";
export { newNodeID } from "./node_id.ts";
export type {
  Outbox,
  OutboxParts,
  PendingPage,
  Purged,
  ReplicaOutbox,
  Submission,
  SubmissionState,
  Unsynced,
  View,
} from "./outbox.ts";
export * from "./outbox_errors.ts";
export {
  type CompactionOptions,
  Replica,
  type ReplicaStatus,
} from "./replica.ts";
export type { ReplicaConfig } from "./replica_config.ts";
export { Session } from "./session.ts";
export type { Watch, WatchOptions } from "../watch/mod.ts";
