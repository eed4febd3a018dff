/**
 * Parts of the recovery of a state, which is loaded in two files.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { ErrCompacted } from "../log/errors.ts";
import type { Epoch } from "../log/history.ts";
import type { LogReader, SnapshotSource } from "../log/log.ts";
import type { SnapshotCandidate } from "../rsm/snapshot_candidates.ts";
import type { StateMachine } from "../rsm/state_machine.ts";
import type { SnapshotInfo } from "../snapshot/store.ts";
import type { ReplicaContext } from "./context.ts";
import type { CurrentMachine } from "./current_machine.ts";
import type { SessionState } from "./session.ts";

/** State machine of a replica. */
export type Machine = StateMachine<SessionState>;

/** A recovered state machine, and a reader of the entries after its state. */
export interface Recovered {
  readonly stateMachine: Machine;
  readonly reader: LogReader;
}

/** State with which a replica starts, or with which it is rebuilt. */
export interface InitialState extends Recovered {
  /** For an on-disk machine, the index after which its next start needs the log. */
  readonly retain: number | undefined;
  /** True if the state came from the server. */
  readonly isRemote: boolean;
}

/** Dependencies of a {@linkcode SnapshotRecovery}. */
export interface RecoveryParts {
  readonly context: ReplicaContext;
  readonly machine: CurrentMachine;
  /** True if a snapshot is known to hold the state of the trusted replica. */
  readonly isTrusted: (info: SnapshotInfo) => boolean;
  /** Creates a state machine without entries. */
  readonly newMachine: () => Machine;
  /** Lists the snapshots of some stores, newest first. */
  readonly candidates: (
    stores: readonly SnapshotSource[],
  ) => Promise<SnapshotCandidate[]>;
  /** Reads the log after an index; returns the error if entries there were compacted. */
  readonly readAfter: (
    index: number,
    epoch?: Epoch,
  ) => Promise<LogReader | ErrCompacted>;
}
