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

export type {
  CommandGroup,
  CreateConcurrentStateMachineFunc,
  CreateOnDiskStateMachineFunc,
  CreateStateMachineFunc,
  Forked,
  IActivation,
  IAdmit,
  IConcurrentStateMachine,
  IExtended,
  IFork,
  IGroup,
  IHash,
  IMerge,
  IOnDiskStateMachine,
  IRecoveredHash,
  IRefusal,
  IRemoveData,
  IStateMachine,
  IStateVersion,
} from "./src/statemachine/machines.ts";
export {
  ConcurrentStateMachine,
  type Entry,
  type ISnapshotFileCollection,
  type MaybePromise,
  OnDiskStateMachine,
  RegularStateMachine,
  type Result,
  type SnapshotFile,
  type Type,
} from "./src/statemachine/types.ts";
export type { HostRow, HostState, IHostState } from "./src/rsm/host_state.ts";
export {
  ErrClosed,
  ErrCodeNotLoaded,
  ErrNewerCode,
  ErrNotImplemented,
  ErrOpenStopped,
  ErrOtherAuthor,
  ErrSnapshotAborted,
  ErrSnapshotStopped,
  ErrSnapshotStreaming,
  SampanError,
} from "./src/statemachine/errors.ts";

export { preload } from "./src/statemachine/load.ts";
export {
  type Agreement,
  type ClusterData,
  type ClusterInfo,
  type ClusterStatus,
  type CompactionOptions,
  type CreateReplayMachineFunc,
  type EntryReader,
  ErrChangeUnknown,
  ErrClusterNotFound,
  ErrNoOutbox,
  ErrPayloadTooBig,
  ErrSkipRefused,
  ErrSnapshotMismatch,
  ErrUnsynced,
  ErrUpdateFailed,
  type HostEvent,
  type LoggedEntry,
  type LoggedOutcome,
  type LoggedSession,
  newNodeID,
  NodeHost,
  type NodeHostInfo,
  type NodeHostOptions,
  type PastState,
  type PendingPage,
  type Purged,
  type RemoveDataOptions,
  Replica,
  type ReplicaConfig,
  type ReplicaHistory,
  type ReplicaStatus,
  Session,
  type Submission,
  type SubmissionState,
  type Unsynced,
  type View,
  type Watch,
  type WatchOptions,
} from "./src/nodehost/mod.ts";
export {
  ErrInvalidResult,
  ErrInvalidSession,
  ErrProposalRefused,
  ErrProposalSkipped,
  ErrSystemBusy,
  type InvalidSessionReason,
} from "./src/rsm/errors.ts";
export type { SessionInfo } from "./src/rsm/state_machine.ts";
export { ErrSkippedApplied } from "./src/rsm/skipped_entries.ts";
export {
  ErrClusterAlreadyExist,
  ErrClusterClosed,
  ErrCompacted,
  ErrDiverged,
  ErrLogCorrupted,
  ErrNodeIDTaken,
  ErrOtherHistory,
  ErrUnknownOutcome,
} from "./src/log/errors.ts";
export { ErrOtherPrincipal, ErrOutboxCopied } from "./src/offline/errors.ts";
export {
  ErrSnapshotCorrupted,
  ErrSnapshotFile,
  ErrSnapshotNotFound,
  ErrSnapshotUnfinished,
  ErrSnapshotVersion,
  ErrStateMismatch,
} from "./src/snapshot/errors.ts";
export {
  ErrStoreBlocked,
  ErrStoreCorrupted,
  ErrStoreFailed,
  ErrStoreFull,
  ErrStoreLocked,
  ErrStoreVanished,
  ErrStoreVersion,
} from "./src/store/errors.ts";

export {
  ConcurrentKVStateMachine,
  ErrKVInvalidCommand,
  ErrKVInvalidQuery,
  ErrKVInvalidSnapshot,
  kv,
  type KVAnswer,
  type KVCount,
  type KVGet,
  type KVGetMany,
  type KVQuery,
  type KVRange,
  type KVRow,
  KVStateMachine,
  OnDiskKVStateMachine,
  type OnDiskKVStateMachineOptions,
} from "./src/kv/mod.ts";

export { MemoryLogDB } from "./src/log/memory_log.ts";
export { MemoryOutbox } from "./src/offline/memory_outbox.ts";
export { MemoryFileStore } from "./src/snapshot/memory_file_store.ts";
export { MemorySnapshotStore } from "./src/snapshot/memory_snapshot_store.ts";
export { MemoryBlockStore } from "./src/store/memory_block_store.ts";
