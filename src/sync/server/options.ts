/**
 * What a server can be told, and what it tells.
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
   * to its connections or taken from them. They are closed unless the client
   * brings, within five seconds, a token that `authenticate` takes.
   */
  readonly signal?: AbortSignal | undefined;
  /**
   * Validity of the principal from now on, in milliseconds; by default as long as
   * its signal does not abort. Before the time is over the client is asked
   * for another token on the open connection, and goes on without a gap if
   * `authenticate` takes that one. Otherwise its connections are closed.
   */
  readonly validMs?: number | undefined;
}

/** What somebody wants to do with a cluster: read its log and snapshots, add to its log, or put a snapshot where there is nothing. */
export type Action = "read" | "write" | "upload";

/** The bounds of a server. Each has its default in `src/limits.ts`. */
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
  /** Clusters open on one connection. */
  readonly channels: number;
  /** Reads, transfers and requests open on one connection. */
  readonly streams: number;
  /** The largest frame that is sent or taken, in bytes: what a proxy in front lets through. Larger messages go in parts. */
  readonly frameBytes: number;
  /** The largest command, in bytes. */
  readonly commandBytes: number;
  /** Sustained rate of one principal, on all its connections together, in commands per second: past it, credit is granted later. Without `authenticate` it bounds each connection. */
  readonly commandsPerSecond: number;
  /** Sustained rate of one connection besides appends, in messages per second: past it, the connection is cut. Those that cost more than others count more than once. */
  readonly messagesPerSecond: number;
  /** Bytes of appends one connection may send before it is granted more, or fewer where there are many connections: all together have a bound of their own. */
  readonly creditBytes: number;
  /** Snapshots sent or taken at one time. */
  readonly transfers: number;
  /** Snapshots sent to one principal, or taken from it, at one time; `Infinity` for no limit. Not applied without `authenticate`. */
  readonly principalTransfers: number;
  /** Snapshots sent to one remote address, or taken from it, at one time; `Infinity`, the default, for no limit. Addresses count as for `addressConnections`. */
  readonly addressTransfers: number;
  /** Snapshots sent on one connection at one time. */
  readonly connectionTransfers: number;
  /** A snapshot that is uploaded, in bytes. */
  readonly uploadBytes: number;
  /** How far behind a reader is told to take a snapshot, in entries. */
  readonly farEntries: number;
  /** Who hears nothing for this long asks whether the other end is there, in milliseconds. */
  readonly heartbeatMs: number;
  /** How long a connection may take to say who it is, in milliseconds. */
  readonly helloMs: number;
  /** How long `authenticate`, `authorize` and `validate` may take, in milliseconds: past it, they count as having thrown. */
  readonly hookMs: number;
  /** How long a reader may take none of what waits for it, and who sends a snapshot may send nothing, in milliseconds. */
  readonly slowMs: number;
  /** How long a shutdown waits for what is under way, in milliseconds. */
  readonly shutdownMs: number;
}

/** The bounds of a server that is told none. */
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

/** What a server says of what happens to it, for machines to read. */
export interface ServerLogRecord {
  /** How much it matters. */
  readonly level: "info" | "warn" | "error";
  /** What happened. */
  readonly event: string;
  /** Which connection it happened on, counted from 1. */
  readonly connection?: number;
  /** Who is at the other end of it. */
  readonly principal?: string;
  /** Which cluster it is about. */
  readonly clusterID?: bigint;
  /** By which code a connection was closed or a channel refused. */
  readonly code?: number;
  /** Why, in words. */
  readonly reason?: string;
  /** What went wrong. */
  readonly error?: unknown;
}

/** State that a command meets, for `validate` to decide by. */
export interface ValidateContext {
  /**
   * Answers a query from the state this command will meet: the one in which
   * everything is applied that is ahead of it in the log, and in its client's
   * queue (H20). It is absent where the machine has no `fork()`.
   *
   * A `validate` that takes time is asked again if others have changed that state
   * before it has answered. The answer is exact where this server alone orders
   * the cluster. Where several hosts append to one log, it is from the newest
   * state this server has, with its own appends in flight: a rule that must hold
   * belongs in `update()`, which may refuse, too (`IRefusal`). Not to be called
   * once `validate` has answered.
   */
  readonly lookup?: ((query: unknown) => MaybePromise<unknown>) | undefined;
}

/** What the part of a server takes that knows nothing of sockets. */
export interface CoreOptions {
  /** Bounds other than the default ones. */
  readonly limits?: Partial<ServerLimits> | undefined;
  /**
   * Principal that sends a request; undefined, null or false for a request that
   * is not authenticated. For a WebSocket, the request is that of its upgrade,
   * with the token of the client as `Authorization: Bearer …`. Without this hook,
   * all clients are one anonymous principal, to which no limit of a principal
   * applies. If the hook throws, answers anything else, or takes longer than
   * `hookMs`, this request is refused (503, or the connection is closed), the
   * fault is logged, and the client retries with the same token.
   */
  readonly authenticate?:
    | ((
      request: Request,
    ) => MaybePromise<Principal | undefined | null | false>)
    | undefined;
  /**
   * True if a principal may do something; without it, every principal may read
   * and write, and none may upload. Asked about writing with each append, and
   * about reading when a cluster is opened, with each read and snapshot, and every
   * two seconds while data is sent: three seconds after the last `true` nothing
   * more is sent, and the cluster is closed on that connection. Only `true`
   * permits. If the hook throws, answers anything but true or false, or takes
   * longer than `hookMs`, nothing is permitted, the fault is logged, and the client
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
   * Looks at a command before it is in the log: gives the reason why it is
   * refused, or undefined. It must not change the command, nor keep it. Where it
   * throws, or takes longer than `hookMs`, that is nobody's fault but its own:
   * the command and those of its client behind it wait, their client is told so,
   * and it is asked again until it answers (U17). So a command that it does not
   * understand it is to refuse.
   *
   * Where the machine offers `fork()`, the last argument has a `lookup()` that
   * answers from the state this command will meet (H20).
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
   * When `/health` answers 503: once `any` cluster of the host has failed or could
   * not be started, or only when `all` have. Use `all` where a load balancer
   * sends clients elsewhere and one bad cluster must not take the others away.
   *
   * @default {{ fail: "any" }}
   */
  readonly health?: { readonly fail?: "any" | "all" | undefined } | undefined;
  /**
   * True if each command is tried on a fork of the machine before it is ordered,
   * where the machine offers `fork()`: one at which the machine throws is refused
   * with a reason, instead of stopping every replica (H17). While it
   * serves, that holds for what is proposed and submitted on the host itself, too.
   *
   * @default {true}
   */
  readonly rehearse?: boolean | undefined;
  /** Called with each log record. If it throws, or its promise rejects, that is ignored. */
  readonly log?: ((record: ServerLogRecord) => void) | undefined;
  /** The versions of the protocol to speak; by default all that are known. */
  readonly versions?: Versions | undefined;
}
