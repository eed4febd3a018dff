/**
 * Stores in memory, loaded for a host that was given no others when it first uses them.
 *
 * This module is browser compatible.
 *
 * @module
 */

export { MemoryLogDB } from "../log/memory_log.ts";
export { MemoryFileStore } from "../snapshot/memory_file_store.ts";
export { MemorySnapshotStore } from "../snapshot/memory_snapshot_store.ts";
