/**
 * Snapshots: reader and writer of their container, the ports
 * {@linkcode SnapshotStore} and {@linkcode FileStore} (for their external files),
 * and the in-memory twins of both.
 *
 * A container is one stream, the same for all kinds of state machines, stores and
 * runtimes: header, sessions, the machine's payload and external files in
 * checksummed blocks. Reading and writing hold only a few blocks in memory, and no
 * byte is returned before it is verified (H8).
 *
 * This module is browser compatible.
 *
 * ```ts
 * import { MemorySnapshotStore, openSnapshot, SnapshotWriter } from "./mod.ts";
 * import type { SnapshotHeader } from "./mod.ts";
 *
 * const header: SnapshotHeader = {
 *   clusterID: 1n,
 *   nodeID: 2n,
 *   type: 1,
 *   kind: "full",
 *   index: 300,
 *   compression: "gzip",
 * };
 * await using store = new MemorySnapshotStore();
 *
 * // Save: the state machine writes to `writer.payload`.
 * const sink = store.create(header);
 * const writer = new SnapshotWriter(sink.writable, header, new Uint8Array());
 * await new Response("the whole state").body?.pipeTo(writer.payload);
 * sink.commit(await writer.finish());
 *
 * // Recover: the state machine reads from `reader.payload`.
 * const [newest] = store.list(1n);
 * if (!newest) throw new Error("There is no snapshot");
 * const reader = await openSnapshot(store.open(newest));
 * console.log(await new Response(reader.payload).text()); // the whole state
 * await reader.finish();
 * ```
 *
 * @module
 */

export * from "./errors.ts";
export * from "./file_store.ts";
export * from "./memory_file_store.ts";
export * from "./memory_snapshot_store.ts";
export * from "./reader.ts";
export { SnapshotFileCollection } from "./snapshot_file_collection.ts";
export * from "./store.ts";
export * from "./verifier.ts";
export * from "./writer.ts";
