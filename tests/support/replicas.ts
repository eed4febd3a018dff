/**
 * Replicas of a key-value machine on a data folder, for tests of what operators do.
 *
 * This module needs Deno.
 *
 * @module
 */

import {
  ConcurrentKVStateMachine,
  kv,
  NodeHost,
  type ReplicaConfig,
} from "../../mod.ts";
import { DataFolder } from "../../src/sqlite/mod.ts";

/** Replica on a data folder. */
export type FolderReplica = Awaited<
  ReturnType<NodeHost["startConcurrentCluster"]>
>;

/** Runs `work` with a data folder, and with the replica of its cluster 1 on a host. */
export async function withReplica<T>(
  path: string,
  work: (
    data: DataFolder,
    replica: FolderReplica,
    host: NodeHost,
  ) => Promise<T>,
  config: Partial<ReplicaConfig> = {},
): Promise<T> {
  await using data = await DataFolder.open(path);
  await using host = new NodeHost({
    logDB: data.logDB,
    snapshots: data.snapshots,
  });
  const replica = await host.startConcurrentCluster(
    () => new ConcurrentKVStateMachine(),
    { clusterID: 1n, nodeID: 1n, ...config },
  );
  return await work(data, replica, host);
}

/** Takes two snapshots of newer states: older ones are removed, and the log is compacted up to the first of the two. */
export async function takeSnapshots(replica: FolderReplica): Promise<void> {
  for (let i = 0; i < 2; i++) {
    await replica.propose(kv.put(`key ${replica.appliedIndex}`, "value"));
    await replica.requestSnapshot();
  }
}
