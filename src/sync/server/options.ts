/**
 * Options of a server, its limits, and the records of its log.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  COMMAND_BYTES_MAX,
  SYNC_ADDRESS_MAX,
  SYNC_CHANNELS_MAX,
  SYNC_COMMANDS_PER_SECOND_MAX,
  SYNC_CONNECTION_TRANSFERS_MAX,
  SYNC_CONNECTIONS_MAX,
  SYNC_CREDIT_BYTES,
  SYNC_FAR_ENTRIES,
  SYNC_FRAME_BYTES_MAX,
  SYNC_HEARTBEAT_MS,
  SYNC_HELLO_MS_MAX,
  SYNC_HOOK_MS_MAX,
  SYNC_MESSAGES_PER_SECOND_MAX,
  SYNC_PRINCIPAL_CONNECTIONS_MAX,
  SYNC_PRINCIPAL_TRANSFERS_MAX,
  SYNC_SHUTDOWN_MS_MAX,
  SYNC_SLOW_MS_MAX,
  SYNC_STREAMS_MAX,
  SYNC_TRANSFERS_MAX,
  SYNC_UPLOAD_BYTES_MAX,
} from "../../limits.ts";
import type { MaybePromise } from "../../statemachine/types.ts";
import type { Versions } from "../messages.ts";

/** The authenticated identity of a client. */
export interface Principal {
  /**
   * Permanent id: sessions opened under it belong to it alone. A string of 1 to
   * 1,024 characters, without lone surrogates.
   */
  readonly id: string;
  /**
   * Aborts once the principal is no longer valid: from that moment nothing is sent
   * to its connections or accepted from them. They are closed unless the client
   * sends, within five seconds, a token that `authenticate` accepts.
   */
  readonly signal?: AbortSignal | undefined;
  /**
   * Validity of the principal from now on, in milliseconds; by default it is valid
   * until its signal aborts. Before it expires, the client is asked for another
   * token on the open connection, and continues without a gap if `authenticate`
   * accepts it. Otherwise its connections are closed.
   */
  readonly validMs?: number | undefined;
}

/** Action of a principal on a cluster: read its log and snapshots, append to its log, or upload a snapshot where the cluster has no state. */
export type Action = "read" | "write" | "upload";

/** Limits of a server. Their defaults are {@linkcode SERVER_LIMITS}. */
export interface ServerLimits {
  /** Connections at one time. */
  readonly connections: number;
  /** Connections of one principal at one time; `Infinity` for no limit. Not applied without `authenticate`. */
  readonly principalConnections: number;
  /**
   * Connections from one remote address at one time; `Infinity`, the default, for
   * no limit. An IPv6 address counts as its /64 network. Behind a proxy all clients
   * have the address of the proxy: leave it off there, and limit in the proxy.
   */
  readonly addressConnections: number;
  /** Clusters that are open on one connection. */
  readonly channels: number;
  /** Log streams, snapshot transfers and requests in progress on one connection. */
  readonly streams: number;
  /** Largest frame that is sent or accepted, in bytes; set it to what a proxy in front of the server lets through. Larger messages are split into parts. */
  readonly frameBytes: number;
  /** Largest command, in bytes. */
  readonly commandBytes: number;
  /** Sustained rate of one principal, on all its connections together, in commands per second: past it, credit is granted later. Without `authenticate` it applies to each connection. */
  readonly commandsPerSecond: number;
  /** Sustained rate of one connection besides appends, in messages per second: past it, the connection is closed. Expensive messages count more than once. */
  readonly messagesPerSecond: number;
  /** Flow-control credit of one connection: bytes of appends it may send before it is granted more. It is less where there are many connections, as their total is bounded, too. */
  readonly creditBytes: number;
  /** Snapshots sent or received at one time. */
  readonly transfers: number;
  /** Snapshots sent to one principal, or received from it, at one time; `Infinity` for no limit. Not applied without `authenticate`. */
  readonly principalTransfers: number;
  /** Snapshots sent to one remote address, or received from it, at one time; `Infinity`, the default, for no limit. Addresses count as for `addressConnections`. */
  readonly addressTransfers: number;
  /** Snapshots sent on one connection at one time. */
  readonly connectionTransfers: number;
  /** Largest snapshot that may be uploaded, in bytes. */
  readonly uploadBytes: number;
  /** Number of entries past which a reader that is behind is told to fetch a snapshot instead of the log. */
  readonly farEntries: number;
  /** Silence after which an end of a connection sends a ping, in milliseconds; after twice as long it closes the connection. */
  readonly heartbeatMs: number;
  /** Longest time from the start of a connection to its first message, in milliseconds. */
  readonly helloMs: number;
  /** Timeout of `authenticate`, `authorize` and `validate`, in milliseconds: past it, they count as having thrown. */
  readonly hookMs: number;
  /** Longest time for which a client may read nothing of what waits for it, or send nothing of a snapshot it uploads, in milliseconds. */
  readonly slowMs: number;
  /** Longest time for which a shutdown waits for appends and requests in progress, in milliseconds. */
  readonly shutdownMs: number;
}

/** Default limits of a server. */
export const SERVER_LIMITS: ServerLimits = {
  connections: SYNC_CONNECTIONS_MAX,
  principalConnections: SYNC_PRINCIPAL_CONNECTIONS_MAX,
  addressConnections: SYNC_ADDRESS_MAX,
  channels: SYNC_CHANNELS_MAX,
  streams: SYNC_STREAMS_MAX,
  frameBytes: SYNC_FRAME_BYTES_MAX,
  commandBytes: COMMAND_BYTES_MAX,
  commandsPerSecond: SYNC_COMMANDS_PER_SECOND_MAX,
  messagesPerSecond: SYNC_MESSAGES_PER_SECOND_MAX,
  creditBytes: SYNC_CREDIT_BYTES,
  transfers: SYNC_TRANSFERS_MAX,
  principalTransfers: SYNC_PRINCIPAL_TRANSFERS_MAX,
  addressTransfers: SYNC_ADDRESS_MAX,
  connectionTransfers: SYNC_CONNECTION_TRANSFERS_MAX,
  uploadBytes: SYNC_UPLOAD_BYTES_MAX,
  farEntries: SYNC_FAR_ENTRIES,
  heartbeatMs: SYNC_HEARTBEAT_MS,
  helloMs: SYNC_HELLO_MS_MAX,
  hookMs: SYNC_HOOK_MS_MAX,
  slowMs: SYNC_SLOW_MS_MAX,
  shutdownMs: SYNC_SHUTDOWN_MS_MAX,
};

/** Structured log record of a server. */
export interface ServerLogRecord {
  /** Severity of the event. */
  readonly level: "info" | "warn" | "error";
  /** Name of the event. */
  readonly event: string;
  /** Number of the connection, counted from 1. */
  readonly connection?: number;
  /** Id of the principal at the other end of the connection. */
  readonly principal?: string;
  /** Id of the cluster. */
  readonly clusterID?: bigint;
  /** `CloseCode` with which a connection or a channel was closed. */
  readonly code?: number;
  /** Reason as text. */
  readonly reason?: string;
  /** Error that caused the event. */
  readonly error?: unknown;
}

/** State that a command will meet, for `validate` to decide by. */
export interface ValidateContext {
  /**
   * Answers a query from the state that the command will meet: everything ahead of
   * it in the log and in its client's queue is applied. Absent if the state machine
   * has no `fork()`.
   *
   * A `validate` that is asynchronous is called again if the state has changed
   * before its result. The result is exact where this server alone orders the
   * cluster. Where several hosts append to one log, the query sees the newest state
   * of this server with its own appends in flight; a rule that must hold belongs in
   * `update()`, which can refuse a command, too (`IRefusal`). Must not be called
   * after `validate` has returned its result.
   */
  readonly lookup?: ((query: unknown) => MaybePromise<unknown>) | undefined;
}

/** Permission to inspect a server. */
export interface InspectorPermission {
  /** Clusters that are shown, with their clients; `all` for all of them, and for the totals of the server. */
  readonly clusters: "all" | readonly bigint[];
  /**
   * True if the entries of these clusters may be read, with their commands.
   *
   * @default {false}
   */
  readonly commands?: boolean | undefined;
  /**
   * True if snapshots of these clusters may be requested.
   *
   * @default {false}
   */
  readonly act?: boolean | undefined;
}

/** Inspector of a server, and who may use it. */
export interface ServerInspector {
  /**
   * Returns the permission of a request; undefined, null or false to refuse it. If
   * the hook throws, returns anything else, or takes longer than `hookMs`, the
   * request is refused (503) and the fault is logged.
   */
  readonly authorize: (
    request: Request,
  ) => MaybePromise<InspectorPermission | undefined | null | false>;
  /** Name by which people know the server among those that share its logs. */
  readonly name?: string | undefined;
  /** Returns the fingerprint of the code of a cluster's machine, as `fingerprintOf()` of a typed machine gives it. */
  readonly code?: ((clusterID: bigint) => string | undefined) | undefined;
}

/** Options of a server that do not depend on how it listens. */
export interface CoreOptions {
  /** Limits that differ from the defaults. */
  readonly limits?: Partial<ServerLimits> | undefined;
  /**
   * Returns the principal that sends a request; undefined, null or false for a
   * request that is not authenticated. For a WebSocket, the request is its upgrade
   * request with the token of the client as `Authorization: Bearer …`. Without this
   * hook, all clients are one anonymous principal, to which the limits of a
   * principal do not apply. If the hook throws, returns anything else, or takes
   * longer than `hookMs`, the request is rejected (503, or the connection is
   * closed), the fault is logged, and the client retries with the same token.
   */
  readonly authenticate?:
    | ((
      request: Request,
    ) => MaybePromise<Principal | undefined | null | false>)
    | undefined;
  /**
   * Returns true if a principal may do an action; without this hook, every
   * principal may read and write, and none may upload. Called with "write" for each
   * append, and with "read" when a cluster is opened, for each read and snapshot,
   * and every two seconds while data is sent: three seconds after the last `true`
   * no more data is sent, and the cluster is closed on that connection. Only `true`
   * permits. If the hook throws, returns anything but true or false, or takes longer
   * than `hookMs`, the action is not permitted, the fault is logged, and the client
   * retries, as with `validate`.
   */
  readonly authorize?:
    | ((
      principal: Principal,
      clusterID: bigint,
      action: Action,
    ) => MaybePromise<boolean>)
    | undefined;
  /**
   * Validates a command before it is added to the log: returns the reason to
   * refuse it, or undefined to accept it. Must not change the command or keep a
   * reference to it. If the hook throws, or takes longer than `hookMs`, nothing is
   * refused: the command and those of its client behind it wait, the client is told
   * so, and the hook is called again until it returns. A command that the hook
   * cannot decode should therefore be refused with a reason.
   *
   * If the state machine has `fork()`, the last argument has a `lookup()` that
   * answers queries from the state that the command will meet.
   */
  readonly validate?:
    | ((
      principal: Principal,
      cmd: Uint8Array,
      clusterID: bigint,
      context: ValidateContext,
    ) => MaybePromise<string | undefined>)
    | undefined;
  /**
   * Condition for `/health` to answer 503: `any` cluster of the host has failed or
   * could not be started, or `all` have. Use `all` where a load balancer would
   * otherwise take the working clusters out of service with the failed one.
   *
   * @default {{ fail: "any" }}
   */
  readonly health?: { readonly fail?: "any" | "all" | undefined } | undefined;
  /**
   * True if each command is rehearsed on a fork of the state machine before it is
   * added to the log, where the machine has `fork()`: a command at which it throws
   * is refused with a reason instead of stopping every replica. While the server
   * runs, this applies to commands proposed and submitted on the host, too.
   *
   * @default {true}
   */
  readonly rehearse?: boolean | undefined;
  /**
   * True if the commands of a cluster are decided by one server at a time where several
   * append to its log, so that `validate` and the rehearsal meet exactly the state that
   * a command meets. Each server then appends in turns, which pass to the server that
   * waits for them. False for a `validate` that does not look at the state: each server
   * appends at once.
   *
   * @default {true if there is `validate`}
   */
  readonly decidesAlone?: boolean | undefined;
  /**
   * Inspector of the server: it shows clients, queues, rates, memory and clusters as
   * JSON at `/inspector`, for the element `<sampan-inspector>`. Without this option
   * that path is not handled. The hooks of clients do not apply to it.
   */
  readonly inspector?: ServerInspector | undefined;
  /** Called with each log record. If it throws, or its promise rejects, that is ignored. */
  readonly log?: ((record: ServerLogRecord) => void) | undefined;
  /** Protocol versions to speak; by default all that are supported. */
  readonly versions?: Versions | undefined;
}
