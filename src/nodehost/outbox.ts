/**
 * Outbox port of a host: durable submissions of its clusters, and the optimistic
 * view of the state with them applied. A host imports these types and no code of
 * an outbox, so a page without one does not carry it.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { MaybePromise, Result } from "../statemachine/types.ts";
import type { ReplicaContext } from "./context.ts";
import type { CurrentMachine } from "./current_machine.ts";
import type { Proposals } from "./proposals.ts";
import type { Reads } from "./reads.ts";

/**
 * State of a submission: `queued` until the cluster has decided it; `applied`;
 * `refused` permanently, with a reason; `unknown` if it may have been applied and
 * that cannot be found out.
 */
export type SubmissionState = "queued" | "applied" | "refused" | "unknown";

/** Command that is kept durably in the outbox and sent until the cluster has decided it. */
export interface Submission {
  /** Number of the submission in the outbox of its cluster, in the order of submission; the same after a restart. */
  readonly id: number;
  /** Copy of the command; another one after a later submission was merged into this one, which was never sent. */
  readonly cmd: Uint8Array;
  /** State of the submission as far as this replica knows. */
  readonly state: SubmissionState;
  /** Reason for which it was refused or its outcome is unknown, as text for the user. */
  readonly reason: string | undefined;
  /**
   * Result of the command, once it is applied here (U16). May be ignored: a
   * rejection that nothing handles is not reported as unhandled.
   *
   * Rejects with `ErrProposalRefused` if the server or the state machine refused
   * the command (then with its result in the error); with `ErrUnknownOutcome` if
   * the outcome cannot be known, or the command was applied and its result is
   * lost; with `ErrOutboxCopied` if nothing is sent any more; with
   * `ErrClusterClosed`, or the cause of the replica's failure, if the replica
   * ended first: the command then stays in the outbox.
   */
  readonly result: Promise<Result>;
  /**
   * Removes a submission that was refused, or whose outcome is unknown, from the
   * outbox; resolves once the removal is durable. Idempotent.
   *
   * @throws ErrUnsynced if the submission is still queued
   */
  dismiss(): Promise<void>;
}

/** Part of the submissions of a replica. */
export interface PendingPage {
  /** Submissions in order. */
  readonly submissions: readonly Submission[];
  /** Cursor of the next part; undefined after the last. */
  readonly next: number | undefined;
}

/** Command in an outbox that the cluster may not have. */
export interface Unsynced {
  /** Number of the submission. */
  readonly id: number;
  /** State of the submission: still to be sent, refused, or of unknown outcome. */
  readonly state: "queued" | "refused" | "unknown";
  /** Bytes of the command. */
  readonly cmd: Uint8Array;
}

/** Session that a device opened in the cluster before its data was purged. */
export interface Purged {
  /** Id of the session. */
  readonly session: number;
  /** Number of submissions of the session that the cluster has decided. */
  readonly decided: number;
}

/** State that the replica would have if everything submitted through it were committed. */
export interface View<Q = unknown, A = unknown> {
  /**
   * Number of the newest pending submissions that the last answer did not have; 0
   * unless there are more than fit into memory. They are run in the background, and
   * `watch()` asks again then.
   */
  readonly lag: number;
  /**
   * Queries the committed state with all pending submissions applied to it, in
   * order, also those that are still being stored; the state machine itself when
   * nothing is pending. Pending submissions
   * are re-run on every newly committed state, so that the state machine decides
   * them again. Each command is in the answer exactly once, whether it is pending
   * or committed; a command at which the state machine throws is left out.
   *
   * Re-running costs as much as applying all pending commands after each commit,
   * and otherwise only those submitted since the last call. A state machine
   * without `fork()` is saved and recovered into another instance each time,
   * which takes time in proportion to its state.
   *
   * @throws ErrNotImplemented if something is pending and the state machine is on disk without `fork()`
   * @throws ErrSystemBusy if the replica is recovering
   * @throws ErrDiverged if the replica is known to have diverged (H12)
   * @throws ErrClusterClosed if the replica was stopped or has failed
   */
  lookup(query: Q): MaybePromise<A>;
}

/**
 * Parts of a replica that its outbox works with.
 *
 * @internal
 */
export interface OutboxParts {
  readonly context: ReplicaContext;
  readonly machine: CurrentMachine;
  readonly proposals: Proposals;
  readonly reads: Reads;
  /** Principal who is signed in, if the host was given one. */
  readonly principal: string | undefined;
  /** Name of this device, if the host was given one. */
  readonly device: string | undefined;
}

/**
 * Outbox as attached to one replica.
 *
 * @internal
 */
export interface ReplicaOutbox {
  readonly view: View;
  readonly purged: Purged | undefined;
  /** Principal as which a server has last welcomed this device, also before a restart; undefined if none or the anonymous one. */
  readonly author: string | undefined;
  submit(cmd: Uint8Array): Promise<Submission>;
  pending(): readonly Submission[];
  /** Number of submissions that are queued or to be dismissed. */
  readonly pendingCount: number;
  /** Lists a part of the submissions, from a number on. */
  pendingFrom(cursor: number): Promise<PendingPage>;
  onPending(listener: () => void): () => void;
  adopt(): void;
  /** Loads the stored submissions once the first state is ready; nothing is applied in the meantime. */
  load(): Promise<void>;
  /** Starts to send. */
  start(): void;
  /** Number of the last submission up to which all are decided. */
  readonly decided: number;
  /** Number of decided submissions whose effect on the state is not known to be durable. */
  readonly unsynced: number;
  /** Notes that the effects of all submissions up to `decided` are durable. */
  synced(decided: number): void;
  /** Rejects pending results with `waiting` and later calls with `later`; queued submissions stay in the outbox. */
  close(waiting: unknown, later: unknown): void;
  /** Closes view and outbox after pending writes. */
  end(): Promise<void>;
}

/** Durable submissions of clusters, as a host uses them. The application closes the outbox; a host never does. */
export interface Outbox extends AsyncDisposable {
  /** Attaches the outbox to a replica that is starting. */
  attach(parts: OutboxParts): ReplicaOutbox;
  /**
   * Lists submissions of a cluster that may not be synced, in order. While the
   * cluster runs, its replica knows more: some may have been applied since.
   */
  unsynced(clusterID: bigint): Promise<readonly Unsynced[]>;
  /**
   * Removes all submissions of a cluster, as at a logout (U35).
   *
   * @throws ErrUnsynced if some are not synced, unless `discard` is set
   * @throws ErrClusterAlreadyExist if the cluster runs
   */
  clear(
    clusterID: bigint,
    options?: { readonly discard?: boolean },
  ): Promise<void>;
  /**
   * Prepares the submissions of a cluster for another history of its log:
   * nothing is sent through the present session again. The replica that starts
   * next finds out which of the commands that may have been sent are in that
   * history. Commands that are not in `pending`, if given, are known to have been
   * decided. Survives a power cut.
   *
   * @throws ErrClusterAlreadyExist if the cluster runs
   */
  startOver(clusterID: bigint, pending?: readonly number[]): Promise<void>;
  /** Lists the clusters that have submissions, in order of their ids. */
  clusters(): Promise<readonly bigint[]>;
  /** Closes the outbox. Idempotent. */
  close(): Promise<void>;
}
