/**
 * Messages of the sync protocol. `protocol.md` defines what each message means,
 * `message_codec.ts` encodes them.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { SYNC_RECORD_CREDIT_BYTES } from "../limits.ts";

/** First and last version of the protocol that this release speaks. */
export const PROTOCOL_VERSIONS: Versions = { first: 2, last: 4 };

/** First version with packed frames, and with references. */
export const COMPACT_VERSION = 3;

/** Id of the principal of a server that does not authenticate its clients. */
export const ANONYMOUS_ID = "anybody";

/** First version that says why and for how long appends wait. */
export const WAITS_VERSION = 4;

/** Range of protocol versions that one end speaks. */
export interface Versions {
  /** Oldest version. */
  readonly first: number;
  /** Newest version. */
  readonly last: number;
}

/** Largest protocol version that a hello can carry. */
export const VERSION_MAX = 0x7f;

/** First message of a client: its versions, its token and its limits. */
export interface Hello {
  readonly type: "hello";
  /** Oldest version the client speaks. */
  readonly first: number;
  /** Newest version the client speaks. */
  readonly last: number;
  /** Token by which the server authenticates the client, if it has one. */
  readonly token: string | undefined;
  /** Credit granted to the server: bytes of data frames it may send. */
  readonly credit: number;
  /** Largest frame the client accepts, in bytes. */
  readonly frameBytesMax: number;
  /** True if the client answers `renew`. */
  readonly renews: boolean;
}

/** Reply to `Hello` of a client that is authenticated. */
export interface Welcome {
  readonly type: "welcome";
  /** Version spoken from now on. */
  readonly version: number;
  /** Id of the principal of this connection. */
  readonly principal: string;
  /** Credit granted to the client: bytes of appends it may send. */
  readonly credit: number;
  /** Largest frame the server accepts, in bytes. */
  readonly frameBytesMax: number;
  /** Largest command the server accepts, in bytes. */
  readonly commandBytesMax: number;
  /** Silence after which an end sends `Ping`, in milliseconds; after twice as long it closes the connection. */
  readonly heartbeatMs: number;
}

/** Opens the log of a cluster on a channel whose number the client chooses. */
export interface Open {
  readonly type: "open";
  readonly channel: number;
  readonly clusterID: bigint;
  /** Replica that opens the log. */
  readonly nodeID: bigint;
}

/** Reply to `Open`: the log is open. */
export interface Opened {
  readonly type: "opened";
  readonly channel: number;
  /** Index of the last record of the log. */
  readonly last: number;
  /** Node id of the server's replica, whose state counts when hashes differ; 0 without one. */
  readonly trusted: bigint;
}

/** Notice that a channel was not opened, or was closed by the server: a `CloseCode` and a reason. */
export interface Refused {
  readonly type: "refused";
  readonly channel: number;
  readonly code: number;
  readonly reason: string;
}

/** Closes a channel. */
export interface Close {
  readonly type: "close";
  readonly channel: number;
}

/** Requests the records after an index, and those committed later, on a stream whose number the client chooses. */
export interface Read {
  readonly type: "read";
  readonly channel: number;
  readonly stream: number;
  readonly after: number;
  /** Index of the last epoch the reader knows; 0 without one. */
  readonly epochIndex: number;
  /** Epoch at `epochIndex`. */
  readonly epochID: bigint;
  /** True if the reader recovers from a snapshot when it is far behind. */
  readonly far: boolean;
  /** True if the reader resolves references to its own records; else it gets all bytes. */
  readonly references: boolean;
}

/** Reply to `Read`: the index of the last record that the log has now. */
export interface Reading {
  readonly type: "reading";
  readonly stream: number;
  readonly last: number;
}

/** Records with consecutive indexes, of a `Read`. */
export interface Entries {
  readonly type: "entries";
  readonly stream: number;
  /** Index of the record before the first. */
  readonly follows: number;
  /** Index of the first record. */
  readonly first: number;
  /** Index of the last record of the log. */
  readonly last: number;
  /** Length of each record, in bytes. */
  readonly lengths: readonly number[];
  /** Ranges of records without bytes here, in order of their position. */
  readonly references: readonly Reference[];
  /** Bytes of the other records, without separators. */
  readonly bytes: Uint8Array;
}

/** Range of records that the reader has appended itself over the same connection: named, and not sent again. */
export interface Reference {
  /** Position of the first among the records of the message; its index is `first + at`. */
  readonly at: number;
  /** Number of records; their series are consecutive. */
  readonly count: number;
  /** Session of the records. */
  readonly session: number;
  /** Series of the first in the session. */
  readonly series: number;
  /** Digest of the bytes of the records in the log. */
  readonly digest: bigint;
}

/** Reasons why the server ends a stream. */
export type EndReason =
  /** The client has stopped it, or a transfer is complete. */
  | "done"
  /** The next record was compacted; `first` is the first index of the log. */
  | "compacted"
  /** The reader is so far behind that it should recover from a snapshot; `first` is the first index of the log. */
  | "far"
  /** The log has another history than the reader; `first` is the index at which they differ. */
  | "diverged"
  /** The cluster has no snapshot. */
  | "none"
  /** Any other failure; the request may succeed later. */
  | "failed";

/** Notice that the server has ended a stream. */
export interface End {
  readonly type: "end";
  readonly stream: number;
  readonly reason: EndReason;
  readonly first: number;
  readonly message: string;
}

/** Stops a stream of the server. */
export interface Stop {
  readonly type: "stop";
  readonly stream: number;
}

/** Request to append records to the log. */
export interface Append {
  readonly type: "append";
  readonly channel: number;
  /** Stream of the reply. */
  readonly stream: number;
  readonly lengths: readonly number[];
  readonly bytes: Uint8Array;
}

/** Reply to `Append`: all records but the refused ones are committed. */
export interface Appended {
  readonly type: "appended";
  readonly stream: number;
  /** Index of the first committed record; 0 if all were refused. */
  readonly first: number;
  /** Positions of the refused records in the append. */
  readonly refused: readonly number[];
  /** Reason for each refused record; empty if it is that of the one before. */
  readonly reasons: readonly string[];
}

/** Reply to an append or another request that failed. */
export interface Failed {
  readonly type: "failed";
  readonly stream: number;
  /** True if the append may have taken effect. */
  readonly unknown: boolean;
  readonly message: string;
}

/** Notice that appends of a channel are queued on the server because it cannot validate them now, with the reason; empty once it can. */
export interface Held {
  readonly type: "held";
  readonly channel: number;
  readonly reason: string;
}

/** Causes of a {@linkcode Waits}. */
export const WaitCode = {
  /** Only newer code than the server's knows the command. */
  OlderServer: 1,
  /** Principal is not the author of the command. */
  OtherAuthor: 2,
} as const;

/** Notice that appends of a channel are queued on the server, in place of `Held` where the cause is known; a `Held` with an empty reason ends it. */
export interface Waits {
  readonly type: "waits";
  readonly channel: number;
  /** Cause: one of `WaitCode`. */
  readonly code: number;
  /** Time to the next try, in milliseconds. */
  readonly retryMs: number;
  readonly reason: string;
}

/** Notice that the server rejects all appends of a channel now; the client sends them again later. */
export interface Unable {
  readonly type: "unable";
  readonly channel: number;
  /** Cause: 1 if the server cannot store records, 2 if it does not reach the log, 0 once it can again. */
  readonly code: number;
  /** Reason to show; empty once appends are accepted again. */
  readonly reason: string;
}

/** Request to check that the history of the log includes a point. */
export interface Verify {
  readonly type: "verify";
  readonly channel: number;
  readonly stream: number;
  /** Index that the log has reached, as far as the client knows. */
  readonly index: number;
  /** Index of the last epoch at or before `index`; 0 without one. */
  readonly epochIndex: number;
  readonly epochID: bigint;
}

/** Request for a read index: at or above everything committed before. */
export interface ReadIndex {
  readonly type: "readIndex";
  readonly channel: number;
  readonly stream: number;
}

/** Reply to `ReadIndex` and `Verify`: an index of the log. */
export interface Index {
  readonly type: "index";
  readonly stream: number;
  readonly index: number;
}

/** Hashes of a replica at an index. */
export interface CheckpointAt {
  readonly type: "checkpoint";
  readonly channel: number;
  readonly nodeID: bigint;
  readonly index: number;
  readonly state: bigint | undefined;
  readonly sessions: bigint;
  /** Version of the format of the hashed state. */
  readonly stateVersion: number;
}

/** Request for the hashes after each entry of a range, which the server replays. */
export interface Explain {
  readonly type: "explain";
  readonly channel: number;
  readonly stream: number;
  readonly after: number;
  readonly upTo: number;
}

/** Reply to `Explain`: for each entry its index, the hash of the state and that of the sessions. */
export interface Hashes {
  readonly type: "hashes";
  readonly stream: number;
  readonly indexes: readonly number[];
  /** Empty for a machine without a hash. */
  readonly states: readonly bigint[];
  readonly sessions: readonly bigint[];
  /** Version of the format of each hashed state; empty for a machine without a hash. */
  readonly stateVersions: readonly number[];
}

/** Request for the newest snapshot of the cluster. */
export interface Fetch {
  readonly type: "fetch";
  readonly channel: number;
  readonly stream: number;
}

/** Reply to `Fetch`: description of the snapshot whose container follows in chunks. */
export interface Snapshot {
  readonly type: "snapshot";
  readonly stream: number;
  readonly nodeID: bigint;
  readonly machine: number;
  readonly index: number;
  readonly epochIndex: number;
  readonly epochID: bigint;
  readonly compression: string;
  readonly files: number;
  /** Size of the container in bytes; 0 if it is unknown. */
  readonly size: number;
}

/** Next bytes of the snapshot container. */
export interface Chunk {
  readonly type: "chunk";
  readonly stream: number;
  readonly bytes: Uint8Array;
}

/** Grants the receiver credit for more data frames. */
export interface Credit {
  readonly type: "credit";
  readonly bytes: number;
}

/** Heartbeat request. */
export interface Ping {
  readonly type: "ping";
}

/** Reply to `Ping`. */
export interface Pong {
  readonly type: "pong";
}

/** Part of a message that is larger than the other end's largest frame. */
export interface Part {
  readonly type: "part";
  readonly isLast: boolean;
  readonly bytes: Uint8Array;
}

/** Request for another token: the present one expires in `withinMs` milliseconds. */
export interface Renew {
  readonly type: "renew";
  readonly withinMs: number;
}

/** Reply to `Renew`: another token of the same principal. */
export interface Token {
  readonly type: "token";
  readonly token: string | undefined;
}

/** Closed union of all messages. */
export type Message =
  | Hello
  | Welcome
  | Open
  | Opened
  | Refused
  | Close
  | Read
  | Reading
  | Entries
  | End
  | Stop
  | Append
  | Appended
  | Failed
  | Held
  | Waits
  | Unable
  | ReadIndex
  | Verify
  | Index
  | CheckpointAt
  | Explain
  | Hashes
  | Fetch
  | Snapshot
  | Chunk
  | Credit
  | Ping
  | Pong
  | Part
  | Renew
  | Token;

/** True for messages that count against the credit of their receiver. */
export function isData(type: Message["type"]): boolean {
  return type === "entries" || type === "chunk" || type === "append";
}

/** Credit that a frame with an append uses: its length, but no less than `SYNC_RECORD_CREDIT_BYTES` for each record. */
export function appendCredit(frameBytes: number, records: number): number {
  return Math.max(frameBytes, records * SYNC_RECORD_CREDIT_BYTES);
}
