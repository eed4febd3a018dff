/**
 * Replicated state machines for Deno and the browser. You write one
 * deterministic machine, in memory, concurrent or on disk; the host orders
 * commands, applies each exactly once, takes snapshots and recovers.
 *
 * This module is browser compatible and depends on nothing.
 *
 * ```ts
 * import { type IStateMachine, MemoryLogDB, NodeHost, type Result } from "./mod.ts";
 *
 * class Counter implements IStateMachine {
 *   #count = 0n;
 *   update(cmd: Uint8Array): Result {
 *     return { value: this.#count += BigInt(cmd.length) };
 *   }
 *   lookup(): bigint {
 *     return this.#count;
 *   }
 *   async saveSnapshot(w: WritableStream<Uint8Array>): Promise<void> {
 *     await new Blob([`${this.#count}`]).stream().pipeTo(w);
 *   }
 *   async recoverFromSnapshot(r: ReadableStream<Uint8Array>): Promise<void> {
 *     this.#count = BigInt(await new Response(r).text());
 *   }
 *   close(): void {}
 * }
 *
 * // Two replicas of one cluster, on one log.
 * await using logDB = new MemoryLogDB();
 * await using here = new NodeHost({ logDB });
 * await using there = new NodeHost({ logDB });
 * const one = await here.startCluster(() => new Counter(), { clusterID: 1n, nodeID: 1n });
 * const two = await there.startCluster(() => new Counter(), { clusterID: 1n, nodeID: 2n });
 *
 * const session = await one.openSession();
 * await one.propose(new Uint8Array(3), { session });
 * console.log(await two.read(null)); // 3n
 * ```
 *
 * @module
 */

export * from "./src/statemachine/mod.ts";
export * from "./src/log/mod.ts";
export * from "./src/store/mod.ts";
export * from "./src/offline/mod.ts";
export * from "./src/snapshot/errors.ts";
export * from "./src/snapshot/file_store.ts";
export * from "./src/snapshot/memory_file_store.ts";
export * from "./src/snapshot/memory_snapshot_store.ts";
export * from "./src/snapshot/store.ts";
export { openSnapshot, SnapshotReader } from "./src/snapshot/reader.ts";
export {
  type SnapshotVerifier,
  verifySnapshot,
} from "./src/snapshot/verifier.ts";
export * from "./src/nodehost/mod.ts";
export * from "./src/kv/mod.ts";
export {
  ErrInvalidResult,
  ErrInvalidSession,
  ErrProposalRefused,
  ErrProposalSkipped,
  ErrSystemBusy,
  type InvalidSessionReason,
} from "./src/rsm/errors.ts";
export type { SessionInfo } from "./src/rsm/state_machine.ts";
export {
  ErrSkippedApplied,
  type SkippedEntry,
} from "./src/rsm/skipped_entries.ts";
export type { HostRow, HostState, IHostState } from "./src/rsm/host_state.ts";
export type { Env } from "./src/env.ts";
