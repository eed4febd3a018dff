/**
 * Divergence: comparison of state hashes between replicas, and replay of the log
 * to find the entry after which they differ.
 *
 * This module is browser compatible.
 *
 * @module
 */

export { Checkpoints, type Hashes, isDifferent } from "./checkpoints.ts";
export { explainDivergence } from "./explain.ts";
export type {
  Agreement,
  EntryReader,
  LoggedEntry,
  LoggedOutcome,
  LoggedSession,
  PastState,
  ReplicaHistory,
} from "./replica_history.ts";
export {
  type CreateReplayMachineFunc,
  firstDifference,
  locateFailure,
  replay,
  type Replayed,
  replayFactory,
  type ReplayOptions,
} from "./replay.ts";
