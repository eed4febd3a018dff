/**
 * Submissions of one replica, as its host sees them: the queue and the optimistic
 * view of it, in the process that sends what is queued as in others.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { invalidCommand } from "../nodehost/invalid_command.ts";
import type {
  OutboxParts,
  PendingPage,
  Purged,
  Submission,
} from "../nodehost/outbox.ts";
import type { SessionState } from "../nodehost/session.ts";
import type { DurableSession } from "./durable_session.ts";
import { OptimisticView } from "./optimistic_view.ts";
import type { OutboxQueue } from "./outbox_store.ts";
import type { QueuedSubmission } from "./submission.ts";
import { SubmissionQueue } from "./submission_queue.ts";

/** Part of `ReplicaOutbox` that does not depend on who sends. */
export abstract class QueuedSubmissions {
  readonly view: OptimisticView<SessionState>;
  protected readonly queue: SubmissionQueue;
  /** Session through which this process sends; undefined while another one does. */
  protected abstract readonly session: DurableSession | undefined;
  /** Stored queue; undefined until it is opened, and between two roles of a tab. */
  protected outbox: OutboxQueue | undefined;
  author: string | undefined;
  /** Error of later calls, once the replica was stopped. */
  protected closed: unknown;
  /** Stores the author of the connection, once the queue is opened: commands that are submitted after a restart, offline, are the same author's. */
  protected readonly learnAuthor: () => void;
  /** Errors of the commands at which the machine threw in the view. */
  readonly #thrown = new WeakMap<QueuedSubmission, unknown>();
  readonly #unwatch: (() => void) | undefined;

  /** Creates the queue and the view of a replica. */
  constructor(parts: OutboxParts) {
    const { machine, context: { log } } = parts;
    const queue = this.queue = new SubmissionQueue(parts);
    this.view = new OptimisticView(parts, queue, {
      poisoned: (command, error) => {
        this.#thrown.set(command, error);
        // The process that sends decides; one that was sent may be in the log already.
        if (this.session !== undefined && command.id > queue.sent) {
          queue.poisoned(command, error);
        }
      },
      caughtUp: () => machine.changed(),
    });
    queue.onChange(() => {
      this.view.changed();
      machine.changed();
    });
    queue.onStored = (submissions) => {
      const ended = this.closed ?? this.session?.copied;
      for (const one of submissions) {
        if (ended !== undefined) one.reject(ended);
      }
      this.session?.send();
    };
    queue.onMerged = (number) => this.view.merged(number);
    this.learnAuthor = () => {
      const { outbox } = this;
      const { principal } = log;
      if (principal === undefined || outbox === undefined) return;
      this.author = outbox.author = principal ?? undefined;
      this.session?.welcomed();
    };
    this.#unwatch = log.onReopened?.(this.learnAuthor);
  }

  /** Refuses what the machine threw at in the view while another process sent, and what is queued again since its refusal was lost. */
  protected refuseThrown(): void {
    const { queue } = this;
    for (const one of queue.list(0).commands) {
      if (one.id > queue.sent && this.#thrown.has(one)) {
        queue.poisoned(one, this.#thrown.get(one));
      }
    }
  }

  close(waiting: unknown, later: unknown): void {
    this.closed = later;
    this.#unwatch?.();
    this.session?.close(later);
    this.queue.close(waiting, later);
  }

  get purged(): Purged | undefined {
    return this.session?.purged;
  }

  submit(cmd: Uint8Array): Promise<Submission> {
    const refusal = invalidCommand(cmd) ?? this.closed ?? this.session?.refusal;
    return refusal === undefined
      ? this.queue.add(cmd)
      : Promise.reject(refusal);
  }

  pending(): readonly Submission[] {
    return this.queue.pending();
  }

  pendingFrom(cursor: number): Promise<PendingPage> {
    return this.queue.pendingFrom(cursor);
  }

  get pendingCount(): number {
    return this.queue.size;
  }

  onPending(listener: () => void): () => void {
    return this.queue.watch(listener);
  }

  adopt(): void {
    this.session?.adopt();
  }

  get decided(): number {
    return this.queue.undecided - 1;
  }

  get unsynced(): number {
    return this.queue.unsynced;
  }

  synced(decided: number): void {
    this.queue.synced(decided);
  }
}
