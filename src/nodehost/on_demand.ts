/**
 * Parts of a host that a new page does not need: what makes snapshots, recovers from
 * them, imports them, syncs on-disk machines, appends decisions to skip an entry, and
 * activates changes of behaviour. A device that has a snapshot has loaded this once
 * to make it. Loaded by `loadOnDemand()` only, so that bundlers put it into a file of
 * its own.
 *
 * This module is browser compatible.
 *
 * @module
 */

export { copyMachine } from "../rsm/copy_machine.ts";
export { MemorySnapshotStore } from "../snapshot/memory_snapshot_store.ts";
export { copySnapshot } from "../snapshot/copy_snapshot.ts";
export { exportData, importData } from "./data_transfer.ts";
export { describeCluster } from "./describe_cluster.ts";
export { ReadOnlyLog } from "../log/read_only_log.ts";
export { activateChange, activateChanges } from "./activation.ts";
export { DiskSync } from "./disk_sync.ts";
export { appendSkip } from "./skip_request.ts";
export { SnapshotMaker } from "./snapshot_maker.ts";
export { SnapshotRecovery } from "./snapshot_recovery.ts";
