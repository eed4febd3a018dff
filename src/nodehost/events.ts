/**
 * Events of a host and its replicas.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { SkippedEntry } from "../rsm/skipped_entries.ts";
import type { SnapshotInfo } from "../snapshot/store.ts";

/** Event of the outbox of a replica. */
export type OutboxEvent =
  | {
    /**
     * The data of this device was purged, or removed, since its last visit: the
     * cluster has a session of the device, and the outbox is empty. Submissions
     * that had not been sent before are lost.
     */
    readonly type: "purged";
    /** Id of the session. */
    readonly session: number;
    /** Number of submissions of the session that the cluster has decided. */
    readonly decided: number;
  }
  | {
    /**
     * Submissions cannot be sent. Permanent if the error is an `ErrOutboxCopied`
     * or `ErrOtherHistory`, otherwise retried. An `ErrProposalRefused` says that
     * the outbox sends through a session of another principal: submissions wait
     * until the principal who made them signs in again (U34).
     */
    readonly type: "outbox failed";
    /** Cause of the failure. */
    readonly error: unknown;
  };

/** Event of a replica, for `NodeHostOptions.onEvent`. */
export type HostEvent =
  & {
    /** Cluster of the replica. */
    readonly clusterID: bigint;
    /** Id of the replica. */
    readonly nodeID: bigint;
  }
  & (
    | {
      /** The replica has failed and applies no more entries (R5). */
      readonly type: "failed";
      /** Cause of the failure. */
      readonly error: unknown;
      /** An `ErrUpdateFailed` that names the entry if `update()` threw, otherwise the same as `error`. */
      readonly failure: unknown;
    }
    | {
      /** The code that activates changes of behaviour could not be loaded; the next start tries again. */
      readonly type: "activation failed";
      /** Cause of the failure. */
      readonly error: unknown;
    }
    | {
      /** A change of behaviour is not activated while a live replica on the log lacks it; reported once for each set of them. */
      readonly type: "activation waits";
      /** Name of the change. */
      readonly change: string;
      /** Names of the servers that lack it. */
      readonly servers: readonly string[];
      /** The same servers with the code and the changes that they have announced, in words. */
      readonly detail: string;
    }
    | {
      /** The replica continues without an entry that an operator decided to skip, after `update()` threw at it or it was applied (H17). */
      readonly type: "entry skipped";
      /** The entry, with the reason. */
      readonly skip: SkippedEntry;
    }
    | OutboxEvent
    | {
      /** A snapshot was taken. */
      readonly type: "snapshot";
      /** The new snapshot. */
      readonly snapshot: SnapshotInfo;
    }
    | {
      /** A snapshot could not be taken, read or recovered, or older ones could not be removed (R7, H7, H8). */
      readonly type: "snapshot failed";
      /** Cause of the failure. */
      readonly error: unknown;
    }
    | {
      /** The state was recovered from a snapshot. */
      readonly type: "recovered";
      /** The snapshot it was recovered from. */
      readonly snapshot: SnapshotInfo;
    }
    | {
      /** The log was compacted: it starts after `upTo`, or earlier if another replica or a transfer needs those entries. */
      readonly type: "compacted";
      /** Index up to which compaction was requested. */
      readonly upTo: number;
    }
    | {
      /** The log cannot be written, as when the disk is full: proposals fail with the error. Retried; reported once. */
      readonly type: "log unwritable";
      /** Error of the write: an `ErrStoreFull` or `ErrStoreFailed`. */
      readonly error: unknown;
    }
    | {
      /** The log can be written again after `log unwritable`. */
      readonly type: "log writable";
    }
    | {
      /** The log could not be read. Retried; reported once for each cause until a read succeeds. */
      readonly type: "log failed";
      /** Cause of the failure. */
      readonly error: unknown;
    }
    | {
      /**
       * The store of an on-disk machine is full. Nothing is lost: committed
       * entries are applied, or made durable, once there is room, which is tried
       * from time to time (U8).
       */
      readonly type: "store full";
      /** An `ErrStoreFull`. */
      readonly error: unknown;
    }
    | {
      /** The state hash could not be computed where replicas compare theirs (H12). */
      readonly type: "hash failed";
      /** Cause of the failure. */
      readonly error: unknown;
    }
    | {
      /** The machine's `refusal()` threw or returned no reason: the result counts as accepted (R15). */
      readonly type: "refusal failed";
      /** Cause of the failure. */
      readonly error: unknown;
    }
    | {
      /**
       * Another replica has a different state after the same entries (H12). If
       * that replica is trusted, this one stops answering at once and looks for
       * the entry after which they differ; a second event names it if it is found.
       */
      readonly type: "diverged";
      /** An `ErrDiverged` with the indexes between which they differ. */
      readonly error: unknown;
      /** Id of the other replica. */
      readonly from: bigint;
    }
    | {
      /**
       * A call of the state machine has not settled for long and holds up the
       * replica. An `update()` that awaits its own replica never settles.
       */
      readonly type: "slow";
      /** Names of the methods that have not settled. */
      readonly calls: readonly string[];
      /** Time that entries have waited for them, in milliseconds. */
      readonly waitedMs: number;
    }
    | {
      /** The state machine, outbox or log failed to close, or did not in time (H10). */
      readonly type: "close failed";
      /** Cause of the failure. */
      readonly error: unknown;
    }
  );

type DistributiveOmit<T, K extends PropertyKey> = T extends unknown ? Omit<T, K>
  : never;

/** Event of one replica, without the ids of cluster and replica. */
export type ReplicaEvent = DistributiveOmit<HostEvent, "clusterID" | "nodeID">;
