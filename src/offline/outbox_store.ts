/**
 * Storage port of an outbox: a durable queue of commands for each cluster, with
 * the session they are sent through, so that no submission is lost when a process
 * dies.
 *
 * Commands are numbered from 1 in the order of submission; a number is never used
 * twice. Decided commands are removed in batches, never with one write each.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../env.ts";
import type { HistoryPoint } from "../log/history.ts";
import type { Outbox } from "../nodehost/outbox.ts";
import type { Result } from "../statemachine/types.ts";
import type { StoreLease } from "../store/lease.ts";
import type { BlockStore, Durability } from "../store/store.ts";

/** Session through which the commands of a queue are sent. */
export interface OutboxSession {
  /** Index of its register record. */
  readonly index: number;
  /** Client id that the session was opened with. */
  readonly clientID: bigint;
  /** Ids under which this outbox may be the session holder: the last confirmed one, and those claimed since (H14). */
  readonly holders: readonly bigint[];
  /** Number of the command before the first of the session: command `n` is series `n - base`. */
  readonly base: number;
  /** Newest known point of the log's history when this was written, by which another history is detected. */
  readonly known?: HistoryPoint | undefined;
  /** Set once the device has started over on another history: nothing is sent through the session again, and the outcome of its commands is looked up in the new history first. */
  readonly isSuperseded?: boolean;
}

/** State of a settled command; `dismissed` (without its bytes) lasts until all commands before it are decided too. */
export type SettledState = "refused" | "unknown" | "dismissed";

/** Command that stays in the outbox and is not sent, or not again. */
export interface SettledCommand {
  /** Number of the command. */
  readonly number: number;
  /** State in which it is settled. */
  readonly state: SettledState;
  /** Reason for the state, as text for the user. */
  readonly reason: string;
  /** Bytes of the command. */
  readonly cmd: Uint8Array;
  /** Result of the command, if the state machine itself refused it (R15). */
  readonly result?: Result | undefined;
}

/** Identity with which an outbox opens its sessions. */
export interface OutboxClient {
  /** Client id of its sessions: random, and unchanged while the outbox has commands, so that a copy of the outbox is detected (H14). */
  readonly clientID: bigint;
  /** Last session that the cluster no longer has; 0 for none. */
  readonly lostSession: number;
  /** Owner of its sessions as recorded in the log; undefined before the first. Sessions of other owners are not its own, even with its client id (H14). */
  readonly owner: Uint8Array | undefined;
  /** Principal its commands belong to, if the host was given one. */
  readonly principal?: string | undefined;
}

/** Contents of a queue when it was opened. */
export interface QueueContents extends OutboxClient {
  /** Number up to which all commands are decided. */
  readonly decided: number;
  /** Commands after it, one for each number, as many as belong in memory: at least those up to `sendLimit`. */
  readonly commands: readonly Uint8Array[];
  /** Number of the last command. */
  readonly last: number;
  /** Size of all commands after `decided`, in bytes. */
  readonly bytes: number;
  /** Settled commands, in order. */
  readonly settled: readonly SettledCommand[];
  /** Session of the queue, if there is one. */
  readonly session: OutboxSession | undefined;
  /** Number up to which commands may have been sent through the session. */
  readonly sendLimit: number;
  /** Principal as which a server has last welcomed this device; undefined for the anonymous one, and before the first welcome. */
  readonly author?: string | undefined;
}

/** Change of a queue that is written with the next write. */
export interface QueueNote {
  /** Number up to which all commands are decided. */
  readonly decided?: number;
  /** Newest known point of the log's history at that time. */
  readonly known?: HistoryPoint;
  /** Command that is settled. */
  readonly settle?: SettledCommand;
  /** Number of a settled command to be removed. */
  readonly forget?: number;
}

/** Durable queue of the commands of one cluster. */
export interface OutboxQueue {
  /** Principal its commands belong to; a change is stored with the next write. */
  principal: string | undefined;
  /** Principal as which a server has last welcomed this device; a change is stored soon. */
  author: string | undefined;
  /** Contents when it was opened; without commands after `releaseContents()`. */
  readonly contents: QueueContents;
  /** Most bytes of commands that the queue may have, in bytes. */
  readonly bytesMax: number;
  /** Reads commands from a number on: at least one, and those that are stored with it; none if the number is after the last. */
  read(from: number): Promise<readonly Uint8Array[]>;
  /** Frees the commands in `contents`, which the caller has copied. */
  releaseContents(): void;
  /** Number up to which commands may be sent: durable before any of them is. */
  readonly sendLimit: number;
  /** Set while added commands are sent at once: the write that adds them then raises `sendLimit`, too. */
  sendsAdded: boolean;
  /**
   * Adds a command and resolves with its number once it is durable. The bytes may
   * not change afterwards. Commands added during a write share the next one
   * (group commit).
   *
   * @throws ErrStoreFull if there is no room; the command was not added
   * @throws ErrUnknownOutcome if the store cannot tell whether it was added
   */
  add(cmd: Uint8Array): Promise<number>;
  /**
   * Stores `merged` in the place of the last command, if that has the number `last`,
   * is not settled and was never sent, and otherwise adds `cmd`; resolves with the
   * number of the command once it is durable. Without this method, commands are not
   * merged.
   *
   * @throws ErrStoreFull if there is no room; nothing was changed
   * @throws ErrUnknownOutcome if the store cannot tell whether it was changed
   */
  merge?(
    last: number,
    merged: Uint8Array,
    cmd: Uint8Array,
  ): Promise<number>;
  /** Notes a change, which is written with the next added command, or after a delay. */
  note(note: QueueNote): void;
  /** Writes noted changes. */
  flush(): Promise<void>;
  /**
   * Stores the session, the number up to which commands may be sent through it,
   * noted changes, and the identity of the outbox if it is to change. Survives a
   * power cut.
   */
  assign(
    session: OutboxSession | undefined,
    sendLimit: number,
    client?: OutboxClient,
  ): Promise<void>;
  /** Writes noted changes and closes the queue. Idempotent. */
  close(): Promise<void>;
}

/** Storage of the commands of clusters. */
export interface OutboxStore extends Omit<Outbox, "attach"> {
  /**
   * Opens the queue of a cluster. `onDecided` is called with the number up to
   * which it is durable that all commands were decided.
   *
   * @throws ErrClusterAlreadyExist if it is open already
   * @throws ErrStoreCorrupted if the stored queue is damaged
   * @throws ErrStoreLocked if another process has the store open
   */
  open(
    clusterID: bigint,
    onDecided: (decided: number) => void,
  ): Promise<OutboxQueue>;
}

/** Durable queue to which several processes add commands. */
export interface SharedOutboxQueue extends OutboxQueue {
  /** Called with commands that other processes have added, from a number on, before a command of this process gets a later number. */
  onAdded: (first: number, commands: readonly Uint8Array[]) => void;
  /** Called with commands that this process has added, from a number on, once they are durable; and with the index of the session through which the other process may send them at once, if there is one. */
  onStored: (
    first: number,
    commands: readonly Uint8Array[],
    session?: number,
  ) => void;
  /** Takes note of commands that another process says it has added, from a number on, in one write, to be sent at once through a session unless its index is 0; resolves once those before them are known, too. */
  heard(
    first: number,
    commands: readonly Uint8Array[],
    session: number,
  ): Promise<void>;
  /** Looks for commands that other processes have added. */
  sync(): Promise<void>;
}

/** Queue in a process that adds commands to it, and reads it, while another process sends them. */
export interface JoinedOutboxQueue extends SharedOutboxQueue {
  /** Called with the number of a settled command that this process dismisses; the other one removes it. */
  onDismiss: (number: number) => Promise<void>;
}

/** Storage of commands that several processes share under a lease: its holder opens the queues, the others join them. */
export interface SharedOutboxStore extends OutboxStore {
  /** Shares the store under a lease; called before its first use. */
  share(lease: StoreLease): void;
  /** Opens the queue of a cluster for the holder of the lease, like {@linkcode OutboxStore.open}. */
  open(
    clusterID: bigint,
    onDecided: (decided: number) => void,
  ): Promise<SharedOutboxQueue>;
  /** Store and options with which a process joins a queue that does not hold the lease. */
  joining(): JoiningParts;
}

/** Store and options of an outbox that several processes share. */
export interface JoiningParts {
  /** Store of the queues. */
  readonly store: BlockStore;
  /** Clock, random numbers and timers. */
  readonly env: Env;
  /** Failure that a submission survives. */
  readonly durability: Durability;
  /** Most bytes of commands of one cluster, in bytes. */
  readonly bytesMax: number;
}
