/**
 * Watches of keys, which share one stream and go on by themselves on the next
 * connection, each from the revision after the last one it has seen.
 *
 * This module needs Deno.
 *
 * @module
 */

import type { Connection, WatchStream } from "./connection.ts";
import {
  decodeWatch,
  encodeUnwatch,
  encodeWatch,
  Method,
  type WatchEvent,
} from "./messages.ts";

/** Keys that are watched: one, or all from `key` to before `end`. */
export interface WatchRange {
  readonly key: Uint8Array;
  readonly end?: Uint8Array;
}

/** Receiver of the changes of keys. */
export interface WatchListener {
  /** Called with changes in the order of their revisions. */
  changed(events: readonly WatchEvent[]): void;
  /** Called when changes before `revision` were compacted; the watch goes on from there. */
  compacted(revision: number): void;
  /** Called when etcd refuses the watch, or none of its nodes may be used. */
  failed(error: Error): void;
}

/** Watch of a key, or of a range. */
interface Watch {
  /** Number on the stream; another one each time the watch begins again. */
  id: number;
  readonly range: WatchRange;
  readonly listener: WatchListener;
  /** Revision of the next change to receive. */
  next: number;
}

/** Dependencies of {@linkcode Watches}. */
export interface WatchesParts {
  /** Returns the connection, which is opened first if necessary. */
  readonly connect: () => Promise<Connection>;
  /** Called when the stream has failed. */
  readonly failed: (connection: Connection) => void;
  /** Called when etcd refuses watches on a connection that was authenticated before. */
  readonly refused: (connection: Connection, reason: string) => void;
  /** Waits before the stream is opened again. */
  readonly pause: () => Promise<void>;
}

/** Watches on one stream. */
export class Watches {
  readonly #parts: WatchesParts;
  readonly #watches = new Map<number, Watch>();
  #lastID = 0;
  #stream: WatchStream | undefined;
  #isOpening = false;
  #isClosed = false;

  /** Creates an empty set of watches. */
  constructor(parts: WatchesParts) {
    this.#parts = parts;
  }

  /** Watches keys from a revision on; returns a function that ends the watch. */
  add(
    range: WatchRange,
    revision: number,
    listener: WatchListener,
  ): () => void {
    const watch: Watch = {
      id: ++this.#lastID,
      range,
      listener,
      next: revision,
    };
    this.#watches.set(watch.id, watch);
    if (this.#stream === undefined) this.#open();
    else this.#send(watch);
    return () => {
      if (this.#watches.delete(watch.id)) {
        this.#stream?.send(encodeUnwatch(watch.id));
      }
    };
  }

  #send({ id, range, next }: Watch): void {
    this.#stream?.send(encodeWatch(id, range, next));
  }

  /** Opens the stream, unless that is under way. */
  #open(): void {
    if (this.#isOpening || this.#isClosed) return;
    this.#isOpening = true;
    // Never rejects: a failure goes to the listeners.
    void this.#opened();
  }

  async #opened(): Promise<void> {
    try {
      const connection = await this.#parts.connect();
      this.#isOpening = false;
      if (this.#isClosed || this.#watches.size === 0) return;
      const stream = connection.watch(
        Method.Watch,
        (message) => {
          if (stream === this.#stream) this.#received(message, connection);
        },
        () => {
          if (stream !== this.#stream) return;
          this.#stream = undefined;
          this.#parts.failed(connection);
          // Never rejects: it ends with the client.
          void this.#reopen();
        },
      );
      this.#stream = stream;
      for (const watch of this.#watches.values()) this.#send(watch);
    } catch (error) {
      this.#isOpening = false;
      if (this.#isClosed) return;
      for (const { listener } of [...this.#watches.values()]) {
        listener.failed(error as Error);
      }
      // Never rejects: it ends with the client.
      void this.#reopen();
    }
  }

  async #reopen(): Promise<void> {
    try {
      await this.#parts.pause();
    } catch {
      return;
    }
    if (this.#stream === undefined && this.#watches.size > 0) this.#open();
  }

  #received(message: Uint8Array, connection: Connection): void {
    const { watchID, created, canceled, compactRevision, events, reason } =
      decodeWatch(message);
    const watch = this.#watches.get(watchID);
    if (watch === undefined) {
      // The token has expired: etcd does not say which watch it refuses.
      if (created && canceled) this.#parts.refused(connection, reason);
      return;
    }
    if (canceled) {
      if (compactRevision > 0) {
        watch.next = Math.max(watch.next, compactRevision);
        watch.listener.compacted(compactRevision);
        if (this.#watches.has(watchID)) this.#restart(watch);
        return;
      }
      // Never rejects: it ends with the client.
      void this.#restartLater(watch);
      return;
    }
    if (events.length === 0) return;
    const fresh = events.filter(({ kv }) => kv.modRevision >= watch.next);
    watch.next = events.at(-1)!.kv.modRevision + 1;
    if (fresh.length > 0) watch.listener.changed(fresh);
  }

  /** Begins a watch again that etcd has cancelled, unless it was ended or the stream was opened again. */
  async #restartLater(watch: Watch): Promise<void> {
    const { id } = watch;
    const stream = this.#stream;
    try {
      await this.#parts.pause();
    } catch {
      return;
    }
    if (this.#stream === stream && this.#watches.get(id) === watch) {
      this.#restart(watch);
    }
  }

  /** Begins a cancelled watch again, under another id: messages of the old one may be under way. */
  #restart(watch: Watch): void {
    this.#watches.delete(watch.id);
    watch.id = ++this.#lastID;
    this.#watches.set(watch.id, watch);
    this.#send(watch);
  }

  /** Notes the loss of the connection: opens the stream on the next one. */
  lost(): void {
    this.#stream?.close();
    this.#stream = undefined;
    if (this.#watches.size > 0) this.#open();
  }

  /** Ends all watches. */
  close(): void {
    this.#isClosed = true;
    this.#watches.clear();
    this.#stream?.close();
    this.#stream = undefined;
  }
}
