/**
 * Session and client of an outbox, as its durable queue has them.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../env.ts";
import {
  OUTBOX_HOLDERS_MAX,
  OUTBOX_PERMITTED_COMMANDS_MAX,
} from "../limits.ts";
import type { CurrentMachine } from "../nodehost/current_machine.ts";
import type {
  OutboxClient,
  OutboxQueue,
  OutboxSession,
} from "./outbox_store.ts";

/** Stored session and client of one outbox. */
export class StoredSession {
  /** Durable queue of the outbox. */
  readonly outbox: OutboxQueue;
  /** Session; undefined without one. */
  record: OutboxSession | undefined;
  /** Identity with which sessions are opened. */
  client: OutboxClient;
  readonly #machine: CurrentMachine;
  readonly #env: Env;
  /** Holder under which this process claims the session. */
  #holder: bigint | undefined;

  /** Creates it over a queue that is open, without a session. */
  constructor(
    outbox: OutboxQueue,
    client: OutboxClient,
    machine: CurrentMachine,
    env: Env,
  ) {
    this.outbox = outbox;
    this.client = client;
    this.#machine = machine;
    this.#env = env;
  }

  /** Stores a session, the number up to which commands may be sent through it, and the client. */
  async write(
    session: OutboxSession | undefined,
    sendLimit: number,
  ): Promise<void> {
    const known = this.#machine.history;
    await this.outbox.assign(
      session && { ...session, known },
      sendLimit,
      this.client,
    );
  }

  /** Stores that more commands may be sent, after those up to `sent`, as far as there are any. */
  async permit(
    session: OutboxSession | undefined,
    sent: number,
    last: number,
  ): Promise<void> {
    const upTo = Math.min(last, sent + OUTBOX_PERMITTED_COMMANDS_MAX);
    await this.write(session, upTo);
  }

  /** Stores the holder under which the session is claimed, before it is, and returns it. */
  async addHolder(): Promise<bigint> {
    const record = this.record!;
    const { holders } = record;
    // With too many to store, a copy may be mistaken for the original, but never the
    // original for a copy.
    const holder = this.#holder ??= holders.length < OUTBOX_HOLDERS_MAX
      ? this.#env.random64()
      : holders.at(-1)!;
    if (holders.includes(holder)) return holder;
    const next = { ...record, holders: [...holders, holder] };
    await this.write(next, this.outbox.sendLimit);
    this.record = next;
    return holder;
  }

  /** Removes the session, which the cluster does not have any more; commands after `decided` were not sent through it. */
  async remove(decided: number): Promise<void> {
    const lostSession = this.record?.index ?? this.client.lostSession;
    this.client = { ...this.client, lostSession };
    await this.write(undefined, decided);
    this.record = this.#holder = undefined;
  }

  /** Chooses another client id for the next session, which distinguishes it from those of another holder. */
  renewClient(): void {
    const clientID = this.#env.random64();
    this.client = { ...this.client, clientID, owner: undefined };
  }

  /** Notes the owner of the first session, as the log has recorded it. */
  setOwner(owner: Uint8Array | undefined): void {
    this.client = { ...this.client, owner: this.client.owner ?? owner };
  }
}
