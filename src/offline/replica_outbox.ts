/**
 * Outbox as attached to one replica: its queue of submissions, the session they
 * are sent through, and the optimistic view of them.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { COMMAND_BYTES_MAX } from "../limits.ts";
import { ErrPayloadTooBig } from "../nodehost/errors.ts";
import type { Log } from "../log/log.ts";
import type {
  OutboxParts,
  PendingPage,
  Purged,
  ReplicaOutbox,
  Submission,
} from "../nodehost/outbox.ts";
import type { SessionState } from "../nodehost/session.ts";
import { DurableSession } from "./durable_session.ts";
import { OptimisticView } from "./optimistic_view.ts";
import type { OutboxQueue, OutboxStore } from "./outbox_store.ts";
import { SubmissionQueue } from "./submission_queue.ts";

/** Attaches an outbox to a replica: `Outbox.attach()` of a class that stores commands by itself. */
export function attachOutbox(
  store: OutboxStore,
  parts: OutboxParts,
): ReplicaOutbox {
  return new AttachedOutbox(store, parts);
}

class AttachedOutbox implements ReplicaOutbox {
  readonly view: OptimisticView<SessionState>;
  readonly #store: OutboxStore;
  readonly #log: Log;
  readonly #clusterID: bigint;
  #author: string | undefined;
  #unwatch: (() => void) | undefined;
  readonly #queue: SubmissionQueue;
  readonly #session: DurableSession;
  #opening: Promise<OutboxQueue> | undefined;
  /** Error of later calls, once the replica was stopped. */
  #closed: unknown;

  constructor(store: OutboxStore, parts: OutboxParts) {
    this.#store = store;
    this.#log = parts.context.log;
    this.#clusterID = parts.context.clusterID;
    this.#queue = new SubmissionQueue(parts);
    this.#session = new DurableSession(parts, this.#queue);
    this.view = new OptimisticView(parts, this.#queue, {
      poisoned: (command, error) => {
        // One that was sent may be in the log already.
        if (command.id > this.#queue.sent) this.#queue.poisoned(command, error);
      },
      caughtUp: () => parts.machine.changed(),
    });
    this.#queue.onChange(() => {
      this.view.changed();
      parts.machine.changed();
    });
    this.#queue.onStored = (submissions) => {
      const ended = this.#closed ?? this.#session.copied;
      if (ended !== undefined) {
        for (const one of submissions) one.reject(ended);
      }
      this.#session.send();
    };
  }

  get author(): string | undefined {
    return this.#author;
  }

  get purged(): Purged | undefined {
    return this.#session.purged;
  }

  submit(cmd: Uint8Array): Promise<Submission> {
    const refusal = this.#refusal(cmd);
    return refusal === undefined
      ? this.#queue.add(cmd)
      : Promise.reject(refusal);
  }

  /** Error of a command that is not accepted; undefined if it is. */
  #refusal(cmd: Uint8Array): unknown {
    if (!(cmd instanceof Uint8Array)) {
      return new TypeError("Command is not a Uint8Array");
    }
    if (cmd.length > COMMAND_BYTES_MAX) {
      return new ErrPayloadTooBig(cmd.length, COMMAND_BYTES_MAX);
    }
    return this.#closed ?? this.#session.refusal;
  }

  pending(): readonly Submission[] {
    return this.#queue.pending();
  }

  async pendingFrom(cursor: number): Promise<PendingPage> {
    if (this.#closed !== undefined) throw this.#closed;
    return await this.#queue.pendingFrom(cursor);
  }

  get pendingCount(): number {
    return this.#queue.size;
  }

  onPending(listener: () => void): () => void {
    return this.#queue.watch(listener);
  }

  adopt(): void {
    this.#session.adopt();
  }

  async load(): Promise<void> {
    if (this.#closed !== undefined) throw this.#closed;
    this.#opening = this.#open();
    const outbox = await this.#opening;
    if (this.#closed !== undefined) throw this.#closed;
    const { contents } = outbox;
    this.#queue.load(outbox);
    this.#author = contents.author;
    await this.#session.load(outbox, contents);
    // Commands that are submitted after a restart, offline, are the same author's.
    const learn = (): void => {
      const { principal } = this.#log;
      if (principal === undefined) return;
      this.#author = outbox.author = principal ?? undefined;
      this.#session.welcomed();
    };
    this.#unwatch = this.#log.onReopened?.(learn);
    learn();
  }

  async #open(): Promise<OutboxQueue> {
    return await this.#store.open(
      this.#clusterID,
      (decided) => this.#session.acknowledge(decided),
    );
  }

  start(): void {
    this.#session.start();
  }

  get decided(): number {
    return this.#queue.undecided - 1;
  }

  get unsynced(): number {
    return this.#queue.unsynced;
  }

  synced(decided: number): void {
    this.#queue.synced(decided);
  }

  close(waiting: unknown, later: unknown): void {
    this.#closed = later;
    this.#unwatch?.();
    this.#session.close(later);
    this.#queue.close(waiting, later);
  }

  async end(): Promise<void> {
    this.view.close();
    const outbox = await this.#opening?.catch(() => undefined);
    await outbox?.close();
  }
}
