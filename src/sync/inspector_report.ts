/**
 * State of a server as its inspector answers in JSON. 64-bit numbers are strings.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** Snapshot of a cluster on a server. */
export interface SnapshotReport {
  /** Index of the last entry in its state. */
  readonly index: number;
  /** Kind of the snapshot: with the state, or without it. */
  readonly kind: string;
  /** Size of the snapshot, in bytes. */
  readonly size: number;
}

/** State of a cluster on a server. */
export interface ClusterReport {
  /** Id of the cluster. */
  readonly clusterID: string;
  /** Id of the server's replica. */
  readonly nodeID: string;
  /** State of the replica, as in `ClusterInfo`. */
  readonly state: string;
  /** Reason why it has failed, or nothing can be stored. */
  readonly reason?: string;
  /** Index of the last entry applied. */
  readonly appliedIndex: number;
  /** Last index that is committed. */
  readonly committedIndex: number;
  /** First index in the log. */
  readonly firstIndex?: number;
  /** Size of the log, in bytes. */
  readonly logBytes?: number;
  /** State hash at `hashIndex`, as hexadecimal digits. */
  readonly hash?: string;
  /** Index that the hash belongs to. */
  readonly hashIndex?: number;
  /** Newest index at which a client had the hashes of the server; absent before the first, and while no client has the cluster open. */
  readonly agreedIndex?: number;
  /** Time since that comparison, in milliseconds. */
  readonly agreedMs?: number;
  /** True if this server has the turn to append to the log, false if another one may have it; absent where every server appends at once. */
  readonly hasTurn?: boolean;
  /** Wait of this server for the turn to append; absent while it does not wait. */
  readonly turnWait?: TurnWaitReport;
  /** Fingerprint of the code of the machine, if the server gives one. */
  readonly code?: string;
  /** Number of open sessions. */
  readonly sessions: number;
  /** Number of clients that have the cluster open. */
  readonly clients: number;
  /** Snapshots, the newest first. */
  readonly snapshots: readonly SnapshotReport[];
}

/** Wait of a server for the turn to append to a log. */
export interface TurnWaitReport {
  /** Time for which it waits, in milliseconds. */
  readonly waitedMs: number;
  /** Name of the server that has the turn; absent while none is known to have it. */
  readonly holder?: string;
  /** Time for which that server is known to have it, in milliseconds. */
  readonly heldMs?: number;
}

/** Client of a server. */
export interface ClientReport {
  /** Number of the connection, counted from 1. */
  readonly connection: number;
  /** Id of the principal; absent for the anonymous one, and before it is known. */
  readonly principal?: string;
  /** Remote address, if it is known. */
  readonly address?: string;
  /** Time since the start of the connection, in milliseconds. */
  readonly connectedMs: number;
  /** Clusters that it has open, among those that may be inspected. */
  readonly clusters: readonly string[];
  /** Node ids of its replicas of those clusters; absent in older servers. */
  readonly nodes?: readonly string[];
  /** Log streams and snapshot transfers in progress. */
  readonly streams: number;
  /** Bytes that wait in the socket because the client has not read them. */
  readonly queuedBytes: number;
  /** True if an append waits for its answer. */
  readonly isAppending: boolean;
}

/** Queues and rates of a whole server. */
export interface ServerTotals {
  /** Memory of the process, in bytes: all, and of the JavaScript heap; absent if unknown. */
  readonly memory?: { readonly rss: number; readonly heap: number };
  /** Counters since the start, as `Server.counts`. */
  readonly counts: Readonly<Record<string, number>>;
  /** Bytes that wait in all sockets. */
  readonly queuedBytes: number;
  /** Connections with an append that waits for its answer. */
  readonly appending: number;
  /** Time until new credit is granted, in milliseconds: above 0 while the server is at its limit. */
  readonly creditWaitMs: number;
  /** Median time of the last appends, and the one below which 95 % are, in milliseconds; null without any. */
  readonly appendMs: {
    readonly median: number | null;
    readonly high: number | null;
  };
}

/** Reach of the engine that orders the logs of a server. */
export interface ReachReport {
  /** True if a quorum is reached. */
  readonly hasQuorum: boolean;
  /** Time since the quorum was lost, in milliseconds. */
  readonly lostMs?: number;
}

/** State of a server at one moment, as far as the permission covers it. */
export interface ServerReport {
  /** Time since the start of the server, in milliseconds. */
  readonly uptimeMs: number;
  /** Name of the server, if it gives one. */
  readonly name?: string;
  /** True if this server takes the snapshots that the servers share or exchange; absent if none are, or that is not known now. */
  readonly isOnDuty?: boolean;
  /** Reach of the engine that orders the logs; absent where this process orders them. */
  readonly reach?: ReachReport;
  /** Totals of the server; only for a permission that covers all clusters. */
  readonly totals?: ServerTotals;
  /** Clients that have one of these clusters open; all clients for a permission that covers all clusters. */
  readonly clients: readonly ClientReport[];
  /** Number of those clients; the list is bounded. */
  readonly clientCount: number;
  /** Clusters that the permission covers. */
  readonly clusters: readonly ClusterReport[];
  /** Permission beside reading this report. */
  readonly may: {
    /** True if entries with their commands may be read. */
    readonly commands: boolean;
    /** True if snapshots may be requested. */
    readonly act: boolean;
  };
}

/** Entry of the log of a server. */
export interface EntryReport {
  /** Index in the log. */
  readonly index: number;
  /** Kind of the record, as in `LoggedEntry`. */
  readonly kind: string;
  /** Size of the record, in bytes. */
  readonly bytes: number;
  /** Session of the record, if it has one. */
  readonly session?: number;
  /** Number in the session, if it has one. */
  readonly series?: number;
  /** Text of the record, if it has one. */
  readonly text?: string;
  /** Command in Base64, if it is one. */
  readonly cmd?: string;
}
