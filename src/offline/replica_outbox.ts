/**
 * Outbox as attached to one replica of one process, which sends what is queued.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { OutboxParts, ReplicaOutbox } from "../nodehost/outbox.ts";
import { DurableSession } from "./durable_session.ts";
import type { OutboxQueue, OutboxStore } from "./outbox_store.ts";
import { QueuedSubmissions } from "./queued_submissions.ts";

/** Attaches an outbox to a replica: `Outbox.attach()` of a class that stores commands by itself. */
export function attachOutbox(
  store: OutboxStore,
  parts: OutboxParts,
): ReplicaOutbox {
  return new AttachedOutbox(store, parts);
}

class AttachedOutbox extends QueuedSubmissions implements ReplicaOutbox {
  protected readonly session: DurableSession;
  readonly #open: () => Promise<OutboxQueue>;
  #opening: Promise<OutboxQueue> | undefined;

  constructor(store: OutboxStore, parts: OutboxParts) {
    super(parts);
    const session = this.session = new DurableSession(parts, this.queue);
    this.#open = () =>
      store.open(
        parts.context.clusterID,
        (decided) => session.acknowledge(decided),
      );
  }

  async load(): Promise<void> {
    if (this.closed !== undefined) throw this.closed;
    this.#opening = this.#open();
    const outbox = await this.#opening;
    if (this.closed !== undefined) throw this.closed;
    const { contents } = outbox;
    this.author = contents.author;
    this.queue.load(outbox);
    this.view.loaded();
    await this.session.load(outbox, contents);
    this.outbox = outbox;
    this.learnAuthor();
  }

  start(): void {
    this.session.start();
  }

  async end(): Promise<void> {
    this.view.close();
    const outbox = await this.#opening?.catch(() => undefined);
    await outbox?.close();
  }
}
