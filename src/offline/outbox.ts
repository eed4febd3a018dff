/**
 * Where commands are kept until the cluster has them, as a port: what a host
 * needs so that nothing submitted is lost, whichever process dies.
 *
 * Commands are numbered in the order they were submitted, from 1, and no number
 * is used twice. What of them was decided is removed now and then, many at once
 * and never with a write for each.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { HistoryPoint } from "../log/history.ts";
import type { MaybePromise, Result } from "../statemachine/types.ts";

/** The session through which the commands of a queue are sent. */
export interface OutboxSession {
  /** The index of its register record. */
  readonly index: number;
  /** What it was opened with. */
  readonly clientID: bigint;
  /** As whom this outbox may hold it: the last one that is sure, and those claimed since (H14). */
  readonly holders: readonly bigint[];
  /** The number of the command before its first: command `n` is its series `n - base`. */
  readonly base: number;
  /** Newest point of the log's history that was known when this was written, so that another history is recognised. */
  readonly known?: HistoryPoint | undefined;
  /** Set once the device has started over on another history: nothing is sent through it again, and what became of its commands there is looked up first. */
  readonly isOver?: boolean;
}

/** Why a command is kept though it is not to be sent; `dismissed`: until those before it are decided too, and without its bytes. */
export type KeptState = "refused" | "unknown" | "dismissed";

/** A command that is not to be sent, or not again. */
export interface KeptCommand {
  /** Its number. */
  readonly number: number;
  /** What became of it. */
  readonly state: KeptState;
  /** Why, for a person to read. */
  readonly reason: string;
  /** The command. */
  readonly cmd: Uint8Array;
  /** Its result, if the machine itself refused it (R15). */
  readonly result?: Result | undefined;
}

/** A command that the cluster may not have. */
export interface Unsynced {
  /** Its number. */
  readonly id: number;
  /** Whether it is still to be sent, was refused, or nobody can know. */
  readonly state: "queued" | "refused" | "unknown";
  /** The command. */
  readonly cmd: Uint8Array;
}

/** What a queue held when it was opened. */
export interface HeldCommands {
  /** All up to this number were decided. */
  readonly done: number;
  /** The commands after it, one for each number. */
  readonly commands: readonly Uint8Array[];
  /** Those that are kept though they are not to be sent, in order. */
  readonly kept: readonly KeptCommand[];
  /** The session, if there is one. */
  readonly session: OutboxSession | undefined;
  /** Up to this number commands may have been sent through it. */
  readonly mark: number;
  /** What its sessions are opened with: random, and the same as long as it holds anything, so that a copy of it is found out (H14). */
  readonly clientID: bigint;
  /** The last of its sessions that is gone, 0 if none is. */
  readonly lost: number;
  /** Whose its sessions are, as the log has it; undefined before the first. Somebody else's are none of its own, whatever they were opened with (H14). */
  readonly owner: Uint8Array | undefined;
  /** Principal its commands belong to, if the host was told one. */
  readonly principal?: string | undefined;
}

/** As whom an outbox opens its sessions. */
export type OutboxClient = Pick<
  HeldCommands,
  "clientID" | "lost" | "owner" | "principal"
>;

/** What was decided of commands. */
export interface Decided {
  /** All up to this number are decided. */
  readonly done?: number;
  /** Newest point of the log's history that is known by then. */
  readonly known?: HistoryPoint;
  /** One that is to be kept. */
  readonly keep?: KeptCommand;
  /** The number of one that is no longer to be kept. */
  readonly forget?: number;
}

/** The commands of one cluster. */
export interface OutboxQueue {
  /** Principal its commands belong to, noted with what is written next. */
  principal: string | undefined;
  /** What it held when it was opened; without commands once they were taken. */
  readonly held: HeldCommands;
  /** Lets go of the commands it held: whoever opened it has taken them over. */
  taken(): void;
  /** Up to this number commands may be sent: a crash is survived with that knowledge. */
  readonly mark: number;
  /** Whether what is added now is to be sent at once, and so is marked in the write that adds it. */
  sending: boolean;
  /**
   * Adds a command and resolves with its number once it is durable. Nobody
   * changes its bytes afterwards. Those that are added while a write is under
   * way share the next one.
   *
   * @throws ErrStoreFull if there is no room; it was not added
   * @throws ErrUnknownOutcome if the store cannot tell whether it was
   */
  add(cmd: Uint8Array): Promise<number>;
  /** Notes what was decided: written with what is added next, or after a while. */
  note(decided: Decided): void;
  /** Writes what was noted. */
  flush(): Promise<void>;
  /**
   * Names the session and how far commands may be sent through it, and writes
   * what was noted; and as whom sessions are opened, if that is to be another.
   * Survives a power cut.
   */
  assign(
    session: OutboxSession | undefined,
    mark: number,
    client?: OutboxClient,
  ): Promise<void>;
  /** Writes what was noted and gives the queue back; idempotent. */
  close(): Promise<void>;
}

/**
 * The code that sends what an outbox holds, and shows it before it is committed:
 * `submitting`, and nothing else. A host calls it; what it is made of is its own.
 */
export type Submitting = (parts: never) => unknown;

/** Commands kept for clusters. Whoever makes one closes it; a host never closes what it was given. */
export interface Outbox extends AsyncDisposable {
  /** Always `submitting`: it comes with the outbox, so that a page without one does not carry it. */
  readonly submitting: Submitting;
  /**
   * Opens the queue of a cluster. `onDone` is called with the number up to which
   * it is durable that commands were decided.
   *
   * @throws ErrClusterAlreadyExist if it is open already
   * @throws ErrStoreCorrupted if what is kept is damaged
   * @throws ErrStoreLocked if somebody else has the store
   */
  open(
    clusterID: bigint,
    onDone: (done: number) => void,
  ): MaybePromise<OutboxQueue>;
  /**
   * What of a cluster may not be synced, in order. While its queue is open, the
   * replica knows better: some may have been applied since.
   */
  unsynced(clusterID: bigint): Promise<readonly Unsynced[]>;
  /**
   * Forgets all of a cluster, as at a logout (U35).
   *
   * @throws ErrUnsynced if something is not synced, unless it is to be discarded
   * @throws ErrClusterAlreadyExist if the queue is open
   */
  clear(
    clusterID: bigint,
    options?: { readonly discard?: boolean },
  ): Promise<void>;
  /**
   * Prepares a queue for another history of its cluster: nothing is sent through
   * its session again; of what may have been sent, the replica that opens it next
   * finds out whether that history has it. Of commands that are not in `pending`,
   * where it is given, it is known that they were decided. Survives a power cut.
   *
   * @throws ErrClusterAlreadyExist if the queue is open
   */
  startOver(clusterID: bigint, pending?: readonly number[]): Promise<void>;
  /** Clusters of which something is kept, in order of their ids. */
  clusters(): Promise<readonly bigint[]>;
  /** Closes the queues; idempotent. */
  close(): Promise<void>;
}
