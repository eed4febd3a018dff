/**
 * Snapshots: the container every one of them is written in, where they are kept
 * ({@linkcode SnapshotStore}), and the external files that belong to them
 * ({@linkcode FileStore}); the two ports with their in-memory twins.
 *
 * A container is one stream, the same for all kinds of machine, stores and
 * runtimes: header, sessions, the machine's payload and external files in
 * checksummed blocks. Reading and writing hold a few blocks in memory, whatever
 * the size, and no byte is handed out before it is verified (H8).
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
 * // Save: what the machine gets is `writer.payload`.
 * const sink = store.create(header);
 * const writer = new SnapshotWriter(sink.writable, header, new Uint8Array());
 * await new Response("the whole state").body?.pipeTo(writer.payload);
 * sink.commit(await writer.finish());
 *
 * // Recover: what the machine gets is `reader.payload`.
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
