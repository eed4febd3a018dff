/**
 * Queue of an outbox in the leading tab, which tells the other tabs what changes.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { copyOf } from "../bytes.ts";
import type {
  OutboxClient,
  OutboxQueue,
  OutboxSession,
  QueueContents,
  QueueNote,
  SharedOutboxQueue,
} from "../offline/outbox_store.ts";
import type { OutboxMessage, SharedSession } from "./messages.ts";

/** Part of a session that followers need to know. */
export function sharedSession(
  session: OutboxSession | undefined,
): SharedSession | undefined {
  return session && !session.isSuperseded
    ? {
      index: session.index,
      clientID: session.clientID,
      base: session.base,
    }
    : undefined;
}

/** Message about commands that were stored. */
export function addedMessage(
  first: number,
  commands: readonly Uint8Array[],
  session?: number,
): OutboxMessage {
  // A view would send its whole buffer.
  return { kind: "added", first, commands: commands.map(copyOf), session };
}

/** Queue of the leader. */
export class ReportingQueue implements OutboxQueue {
  readonly #queue: SharedOutboxQueue;
  readonly #post: (message: OutboxMessage) => void;
  /** Messages to the other tabs about changes that are not known to be durable, in order. */
  #untold: OutboxMessage[] = [];

  /** Wraps a queue. */
  constructor(
    queue: SharedOutboxQueue,
    post: (message: OutboxMessage) => void,
  ) {
    this.#queue = queue;
    this.#post = post;
    queue.onStored = (first, commands) => post(addedMessage(first, commands));
  }

  /** Principal its commands belong to. */
  get principal(): string | undefined {
    return this.#queue.principal;
  }

  set principal(principal: string | undefined) {
    this.#queue.principal = principal;
  }

  /** Principal as which a server has last welcomed this device. */
  get author(): string | undefined {
    return this.#queue.author;
  }

  set author(author: string | undefined) {
    this.#queue.author = author;
  }

  /** Contents when it was opened. */
  get contents(): QueueContents {
    return this.#queue.contents;
  }

  /** Most bytes of commands, in bytes. */
  get bytesMax(): number {
    return this.#queue.bytesMax;
  }

  /** Number up to which commands may be sent. */
  get sendLimit(): number {
    return this.#queue.sendLimit;
  }

  /** Set while added commands are sent at once. */
  get sendsAdded(): boolean {
    return this.#queue.sendsAdded;
  }

  set sendsAdded(sendsAdded: boolean) {
    if (this.#queue.sendsAdded === sendsAdded) return;
    this.#queue.sendsAdded = sendsAdded;
    this.#post({ kind: "sending", sendsAdded });
  }

  /** Reads commands from a number on. */
  read(from: number): Promise<readonly Uint8Array[]> {
    return this.#queue.read(from);
  }

  /** Frees the commands in `contents`. */
  releaseContents(): void {
    this.#queue.releaseContents();
  }

  /** Adds a command and resolves with its number once it is durable. */
  add(cmd: Uint8Array): Promise<number> {
    return this.#queue.add(cmd);
  }

  /** Notes a change, and tells the other tabs which commands are settled once that is durable. */
  note(note: QueueNote): void {
    this.#queue.note(note);
    const { settle, forget } = note;
    const untold = this.#untold;
    const before = untold.length;
    if (settle !== undefined && settle.state !== "dismissed") {
      untold.push({ kind: "settled", settled: settle });
    }
    const number = forget ?? settle?.number;
    if (forget !== undefined || settle?.state === "dismissed") {
      untold.push({ kind: "dismissed", number: number! });
    }
    if (untold.length === before) return;
    this.flush().catch(() => {
      // Told after the next write, or read from the store by the tab that leads next.
    });
  }

  /** Writes noted changes. */
  async flush(): Promise<void> {
    const last = this.#untold.at(-1);
    await this.#queue.flush();
    // Another flush may have told some of them.
    const count = last === undefined ? 0 : this.#untold.indexOf(last) + 1;
    for (const message of this.#untold.splice(0, count)) this.#post(message);
  }

  /** Stores the session, and tells the other tabs. */
  async assign(
    session: OutboxSession | undefined,
    sendLimit: number,
    client?: OutboxClient,
  ): Promise<void> {
    await this.#queue.assign(session, sendLimit, client);
    this.#post({ kind: "session", session: sharedSession(session) });
  }

  /** Takes note of commands that another tab says it has added. */
  heard(
    first: number,
    commands: readonly Uint8Array[],
    session: number,
  ): Promise<void> {
    return this.#queue.heard(first, commands, session);
  }

  /** Looks for commands that other tabs have added. */
  sync(): Promise<void> {
    return this.#queue.sync();
  }

  /** Writes noted changes and closes the queue. */
  close(): Promise<void> {
    return this.#queue.close();
  }
}
