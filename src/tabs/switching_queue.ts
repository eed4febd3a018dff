/**
 * Queue of an outbox in a tab, whatever its role: it goes on when the role changes.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { withResolvers } from "../async.ts";
import { OUTBOX_BYTES_MAX } from "../limits.ts";
import { ErrClusterClosed } from "../log/errors.ts";
import type {
  OutboxClient,
  OutboxQueue,
  OutboxSession,
  QueueContents,
  QueueNote,
} from "../offline/outbox_store.ts";
import { ErrStoreLocked } from "../store/errors.ts";

/** Command that is not durable yet. */
interface Adding {
  readonly cmd: Uint8Array;
  readonly resolve: (number: number) => void;
  readonly reject: (reason: unknown) => void;
}

const EMPTY: QueueContents = {
  decided: 0,
  commands: [],
  last: 0,
  bytes: 0,
  settled: [],
  session: undefined,
  sendLimit: 0,
  clientID: 0n,
  lostSession: 0,
  owner: undefined,
};

/** Queue that passes on to that of the present role. */
export class SwitchingQueue implements OutboxQueue {
  #present: OutboxQueue | undefined;
  /** Commands that are not durable, in order. */
  #adding: Adding[] = [];
  /** Changes that were noted between two roles. */
  #notes: QueueNote[] = [];
  #switched = withResolvers<void>();
  /** Resolves once the queue of the present role is left. */
  #left = withResolvers<void>();
  #closed: unknown;

  /** Goes on with the queue of another role, once that of the last one is closed. */
  use(queue: OutboxQueue): void {
    this.#present = queue;
    this.#left = withResolvers();
    for (const note of this.#notes.splice(0)) queue.note(note);
    for (const one of this.#adding) this.#send(one, queue);
    this.#switched.resolve();
  }

  /** Leaves the queue of a role: commands and changes wait for the next one. Resolves once those under way have ended. */
  async leave(): Promise<void> {
    const queue = this.#present;
    if (queue === undefined) return;
    this.#present = undefined;
    this.#switched = withResolvers();
    this.#left.resolve();
    await queue.close();
  }

  #send(one: Adding, queue: OutboxQueue): void {
    queue.add(one.cmd).then(
      (number) => {
        this.#remove(one);
        one.resolve(number);
      },
      (error) => {
        // Nothing was written: the queue of the next role takes it.
        const isLost = error instanceof ErrStoreLocked ||
          error instanceof ErrClusterClosed;
        if (isLost && this.#closed === undefined) return;
        this.#remove(one);
        one.reject(isLost ? this.#closed : error);
      },
    );
  }

  #remove(one: Adding): void {
    const at = this.#adding.indexOf(one);
    if (at >= 0) this.#adding.splice(at, 1);
  }

  /** Principal its commands belong to. */
  get principal(): string | undefined {
    return this.#present?.principal;
  }

  set principal(principal: string | undefined) {
    if (this.#present !== undefined) this.#present.principal = principal;
  }

  /** Principal as which a server has last welcomed this device. */
  get author(): string | undefined {
    return this.#present?.author;
  }

  set author(author: string | undefined) {
    if (this.#present !== undefined) this.#present.author = author;
  }

  /** Contents when the queue of the present role was opened. */
  get contents(): QueueContents {
    return this.#present?.contents ?? EMPTY;
  }

  /** Most bytes of commands, in bytes. */
  get bytesMax(): number {
    return this.#present?.bytesMax ?? OUTBOX_BYTES_MAX;
  }

  /** Number up to which commands may be sent. */
  get sendLimit(): number {
    return this.#present?.sendLimit ?? 0;
  }

  /** Set while added commands are sent at once. */
  get sendsAdded(): boolean {
    return this.#present?.sendsAdded ?? false;
  }

  set sendsAdded(sendsAdded: boolean) {
    if (this.#present !== undefined) this.#present.sendsAdded = sendsAdded;
  }

  /** Reads commands from a number on. */
  async read(from: number): Promise<readonly Uint8Array[]> {
    return await (await this.#ready()).read(from);
  }

  async #ready(): Promise<OutboxQueue> {
    for (;;) {
      if (this.#closed !== undefined) throw this.#closed;
      if (this.#present !== undefined) return this.#present;
      await this.#switched.promise;
    }
  }

  /** Frees the commands in `contents`. */
  releaseContents(): void {
    this.#present?.releaseContents();
  }

  /** Adds a command and resolves with its number once it is durable, in whatever role. */
  add(cmd: Uint8Array): Promise<number> {
    if (this.#closed !== undefined) return Promise.reject(this.#closed);
    return new Promise((resolve, reject) => {
      const one = { cmd, resolve, reject };
      this.#adding.push(one);
      if (this.#present !== undefined) this.#send(one, this.#present);
    });
  }

  /** Notes a change. */
  note(note: QueueNote): void {
    if (this.#present !== undefined) return this.#present.note(note);
    if (note.decided === undefined) this.#notes.push(note);
  }

  /** Notes a change in the queue of the next role, and resolves once it is durable. */
  async noteNext(note: QueueNote): Promise<void> {
    await this.#left.promise;
    for (;;) {
      const queue = await this.#ready();
      queue.note(note);
      try {
        return await queue.flush();
      } catch (error) {
        if (queue === this.#present) throw error;
      }
    }
  }

  /** Writes noted changes. */
  async flush(): Promise<void> {
    await (await this.#ready()).flush();
  }

  /** Stores the session. */
  async assign(
    session: OutboxSession | undefined,
    sendLimit: number,
    client?: OutboxClient,
  ): Promise<void> {
    await (await this.#ready()).assign(session, sendLimit, client);
  }

  /** Ends all that waits with a reason, and closes the queue. */
  async end(reason: unknown): Promise<void> {
    this.#closed = reason;
    this.#switched.resolve();
    this.#left.resolve();
    try {
      await this.#present?.close();
    } finally {
      // Those that no queue has, or has taken.
      for (const { reject } of this.#adding.splice(0)) reject(reason);
    }
  }

  /** Closes the queue. */
  close(): Promise<void> {
    return this.end(new ErrClusterClosed());
  }
}
