/**
 * Messages between the tabs of an origin. Each is idempotent, and carries the epoch
 * of the leader that its sender knows, so that one of an earlier leader is ignored.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Epoch } from "../log/history.ts";
import type { LogBatch, LogInfo } from "../log/log.ts";
import type { TabState } from "./tab_state.ts";
import type { SettledCommand } from "../offline/outbox_store.ts";
import type { SnapshotInfo } from "../snapshot/store.ts";
import type { SentError } from "../worker/sent_error.ts";

/** Message about who leads. */
export type GroupMessage =
  /** A tab has joined, or asks who leads. */
  | { readonly kind: "hello" }
  /** The sender leads, or takes the lead at this moment. */
  | { readonly kind: "leading"; readonly isReady: boolean }
  /** The sender leads no more. */
  | { readonly kind: "leaving" }
  /** Asks the leader to answer. */
  | { readonly kind: "ping" }
  /** Asks the leader to leave the lead to the tabs that wait for it. */
  | { readonly kind: "demand" }
  /** Asks every tab what it is. */
  | { readonly kind: "roll" }
  /** The sender is in a state, for a time in milliseconds. */
  | {
    readonly kind: "here";
    readonly state: TabState;
    readonly sinceMs: number;
    readonly isVisible: boolean;
  }
  /** Sent to the sender itself, to find out whether its channel works. */
  | { readonly kind: "echo" };

/** Version of these messages. Tabs with an older one stop, as those with older code of the application do. */
export const MESSAGES_VERSION = 2;

/** Bound of that version. */
const VERSIONS = 256;

/** Joins a version of the application's code and that of the messages to one integer, which says which tab is newer. */
export function joinedCode(code: number): number {
  return code * VERSIONS + MESSAGES_VERSION;
}

/** Version of the application's code in a joined one. */
export function codeIn(joined: number): number {
  return Math.floor(joined / VERSIONS);
}

/** Joined version as messages for people give it. */
export function describeCode(joined: number): string {
  return `${codeIn(joined)}.${joined % VERSIONS}`;
}

/** Message about the log of a cluster. */
export type LogMessage =
  /** Records that were committed, in batches of which each follows the one before it. */
  | { readonly kind: "entries"; readonly batches: readonly LogBatch[] }
  /** The leader goes on after an index, with the state of a snapshot: it sends no records up to there. */
  | { readonly kind: "reached"; readonly index: number }
  /** Principal as which the server has welcomed the leader. */
  | { readonly kind: "principal"; readonly principal: string | null };

/** Session of an outbox as followers know it: command `n` is series `n - base`. */
export interface SharedSession {
  /** Index of its register record. */
  readonly index: number;
  /** Client id that it was opened with. */
  readonly clientID: bigint;
  /** Number of the command before the first of the session. */
  readonly base: number;
}

/** Message about the outbox of a cluster. */
export type OutboxMessage =
  /** Commands were stored in one write, from a number on; with the index of the session through which they may be sent at once, if there is one. */
  | {
    readonly kind: "added";
    readonly first: number;
    readonly commands: readonly Uint8Array[];
    readonly session?: number | undefined;
  }
  /** The leader sends added commands at once, or does so no more. */
  | { readonly kind: "sending"; readonly sendsAdded: boolean }
  /** Commands are sent through that session; all up to `base` are decided. */
  | { readonly kind: "session"; readonly session: SharedSession | undefined }
  /** A command is settled, and is not sent, or not again. */
  | { readonly kind: "settled"; readonly settled: SettledCommand }
  /** A settled command was dismissed. */
  | { readonly kind: "dismissed"; readonly number: number }
  /** Nothing is sent, because of a cause for which the user or the application has to act; without a cause once it is sent again. */
  | { readonly kind: "blocked"; readonly cause: SentError | undefined };

/** Message about one cluster. */
export type ClusterMessage = LogMessage | OutboxMessage;

/** Call of the leader by a follower, by method. */
export interface Calls {
  /** Reads the records after an index, if the leader has them in memory; with `isStored`, also those that it has to read from its log, a part at a time. */
  read: {
    args: {
      readonly after: number;
      readonly epoch: Epoch | undefined;
      readonly isStored: boolean;
    };
    answer: {
      readonly result: "read" | "compacted" | "diverged";
      readonly batches: readonly LogBatch[];
      /** Index of the last record that the leader has read. */
      readonly last: number;
      /** Extent of the leader's log. */
      readonly log: LogInfo;
      readonly principal: string | null | undefined;
      readonly blocked: SentError | undefined;
    };
  };
  /** Appends records. */
  append: {
    args: { readonly bytes: Uint8Array; readonly ends: readonly number[] };
    answer: number;
  };
  /** Returns the read index. */
  readIndex: { args: undefined; answer: number };
  /** Exports the state; the bytes arrive in parts before the answer. */
  snapshot: { args: undefined; answer: undefined };
  /** Takes a snapshot in the stores of the device. */
  requestSnapshot: { args: StoreRequest; answer: SnapshotInfo };
  /** Compacts the log of the device. */
  requestCompaction: { args: StoreRequest; answer: number };
  /** Dismisses a settled command. */
  dismiss: { args: { readonly number: number }; answer: undefined };
  /** Makes an outbox that is a copy independent. */
  adopt: { args: undefined; answer: undefined };
}

/** Arguments of a request that concerns the stores of the device. */
export interface StoreRequest {
  readonly compactionOverhead: number | undefined;
}

/** Name of a call. */
export type Method = keyof Calls;

/** Message of a call. */
export type CallMessage =
  | {
    readonly kind: "call";
    readonly id: number;
    readonly method: Method;
    readonly args: unknown;
  }
  | { readonly kind: "part"; readonly id: number; readonly bytes: Uint8Array }
  | { readonly kind: "answer"; readonly id: number; readonly answer: unknown }
  | { readonly kind: "failed"; readonly id: number; readonly error: SentError }
  /** The replica has ended in the leader while it answered: to be asked again. */
  | { readonly kind: "again"; readonly id: number };

/** Part of every message. */
export interface Envelope {
  /** Id of the sending tab. */
  readonly from: string;
  /** Epoch of the leader that the sender knows. */
  readonly epoch: number;
  /** Version of the application's code in the sending tab. */
  readonly code: number;
  /** Cluster that the message is about, if it is about one. */
  readonly clusterID?: bigint;
}

/** Message between tabs. */
export type TabMessage = GroupMessage | ClusterMessage | CallMessage;
