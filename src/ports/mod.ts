/**
 * Ports: the interfaces that logs, stores and outboxes implement, with the types
 * and errors in them, for authors of new ones. The conformance suite of each port
 * is in `src/testing`.
 *
 * This module is browser compatible.
 *
 * ```ts
 * import { MemoryBlockStore } from "../../mod.ts";
 * import { BlockOutbox, type BlockStore } from "./mod.ts";
 *
 * // Any block store makes an outbox.
 * const store: BlockStore = new MemoryBlockStore();
 * const outbox = new BlockOutbox(store);
 * await outbox.close();
 * ```
 *
 * @module
 */

export type { Env } from "../env.ts";

export type {
  Announcements,
  Checkpoint,
  CheckpointBoard,
  HeldSnapshot,
  KeeperRequest,
  LackingServers,
  Log,
  LogBatch,
  LogDB,
  LogInfo,
  LogKeeper,
  LogOrder,
  LogOrderWait,
  LogQuorum,
  LogReader,
  LogStorage,
  LogTurn,
  ReadOptions,
  Records,
  Retention,
  SnapshotFetch,
  SnapshotPeers,
  SnapshotSource,
} from "../log/log.ts";
export type { Epoch, HistoryPoint } from "../log/history.ts";
export { packRecords, recordAt } from "../log/records.ts";
export {
  type Divergence,
  ErrRecordsRefused,
  type Refusal,
} from "../log/errors.ts";
export { ErrOrderLost, ErrOrderShared } from "../log/order_errors.ts";
export type { SkippedEntry } from "../rsm/skipped_entries.ts";

export type {
  Block,
  BlockStore,
  Changes,
  Durability,
  ListOptions,
  UpdateFound,
  UpdateReads,
} from "../store/store.ts";
export type { LeaseMember, StoreLease } from "../store/lease.ts";

export {
  compareSnapshots,
  isSameSnapshot,
  type SnapshotHeader,
  type SnapshotInfo,
  type SnapshotSink,
  type SnapshotStore,
  type SnapshotTotals,
  type StateHash,
} from "../snapshot/store.ts";
export { openSnapshot, SnapshotReader } from "../snapshot/reader.ts";
export { type SnapshotVerifier, verifySnapshot } from "../snapshot/verifier.ts";
export {
  type FileStore,
  type OpenFile,
  partsOfPath,
} from "../snapshot/file_store.ts";
export { ErrFileIsDirectory, ErrFileNotFound } from "../snapshot/errors.ts";

export {
  attachOutbox,
  BlockOutbox,
  type BlockOutboxOptions,
  type JoinedOutboxQueue,
  type JoiningParts,
  type OutboxClient,
  type OutboxQueue,
  type OutboxSession,
  type OutboxStore,
  type QueueContents,
  type QueueNote,
  type SettledCommand,
  type SettledState,
  type SharedOutboxQueue,
  type SharedOutboxStore,
} from "../offline/mod.ts";
export type { OutboxEvent } from "../nodehost/events.ts";
export type { Outbox, OutboxParts, ReplicaOutbox } from "../nodehost/outbox.ts";
