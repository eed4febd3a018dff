/**
 * Reading a log at the other end of a wire: from the copy, as far as there is
 * one, and then from the server, over any number of connections.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { copyOf } from "../../bytes.ts";
import type { Env } from "../../env.ts";
import { SYNC_READ_IDLE_MS } from "../../limits.ts";
import {
  ErrClusterClosed,
  ErrCompacted,
  ErrLogCorrupted,
  ErrOtherHistory,
} from "../../log/errors.ts";
import type { LogBatch, LogReader } from "../../log/log.ts";
import type { Epoch } from "../../log/history.ts";
import { lastOf } from "../../log/records.ts";
import { onAbort } from "../../async.ts";
import type { MaybePromise } from "../../statemachine/types.ts";
import { ErrRemote } from "../errors.ts";
import type { End, Entries } from "../messages.ts";
import type { Connection, StreamMessage } from "./connection.ts";
import { epochsIn } from "./epochs.ts";
import type { Holder, Inbox } from "./inbox.ts";
import type { CopyReader, LogCopy } from "./log_copy.ts";
import type { OwnRecords } from "./own_records.ts";

/** What a reader takes of its log. */
export interface ReaderParts {
  readonly env: Env;
  readonly channel: number;
  readonly inbox: Inbox;
  readonly copy: LogCopy | undefined;
  /** Records the server may refer to. */
  readonly own: OwnRecords;
  readonly after: number;
  readonly epoch: Epoch | undefined;
  readonly signal: AbortSignal | undefined;
  /** Whether a snapshot is welcome in place of what comes after an index. */
  readonly far: (after: number) => boolean;
  /** The server has said that a snapshot is the better way from there. */
  readonly wasFar: (after: number) => void;
  /** It has received, or handed on, more; or learned the last index of the log. */
  readonly progress: (reader: RemoteReader, last: number) => void;
  readonly onEnd: (reader: RemoteReader) => void;
}

/** A place in the log, and the last epoch at or before it. */
interface Place {
  readonly index: number;
  readonly epoch: Epoch | undefined;
}

interface Received {
  readonly batch: LogBatch;
  readonly place: Place;
  /** Says that whoever reads has taken it. */
  readonly release: () => void;
  readonly size: number;
}

/** The place at the end of a batch that comes after `before`. */
function placeAfter(batch: LogBatch, before: Place): Place {
  return {
    index: lastOf(batch),
    epoch: epochsIn(batch).at(-1) ?? before.epoch,
  };
}

/** One reader of a remote log. */
export class RemoteReader implements LogReader, Holder {
  readonly held: number;
  readonly #parts: ReaderParts;
  /** Where whoever reads stands. */
  #given: Place;
  /** What it has applied, if whoever reads says so. */
  #applied: number | undefined;
  /** Where what was received ends. */
  #received: Place;
  #queue: Received[] = [];
  #local: CopyReader | undefined;
  /** Where the copy ended when the reading began. */
  readonly #localEnd: Place;
  #connection: Connection | undefined;
  #stream = 0;
  /** Set unless the server has referred to a record that is missing here, on this connection. */
  #takesReferences = true;
  /** Where it begins to read on the present stream. */
  #from = 0;
  /** What was at hand on the server when the present stream began; unknown before. */
  #target = Infinity;
  /** Ends the time in which nothing is downloaded, for a reader that only looks whether the log goes on from there; undefined once it is over. */
  #cancelIdle: (() => void) | undefined;
  /** Whether it has let go of its stream until somebody reads. */
  #isShed = false;
  #failure: unknown;
  #isOver = false;
  #waiting: {
    resolve(batch: MaybePromise<LogBatch>): void;
    reject(reason: unknown): void;
  } | undefined;
  #inbox: Inbox;
  #leave: () => void;
  readonly #ignore: () => void;

  /** A reader that begins with the copy, and waits for a connection. */
  constructor(parts: ReaderParts) {
    const { copy, after, epoch, inbox, signal } = parts;
    this.#parts = parts;
    this.#given = this.#received = { index: after, epoch };
    if (copy?.has(after) && copy.last > after) {
      const index = copy.last;
      this.#local = copy.read(after);
      this.#received = { index, epoch: copy.epochAt(index) ?? epoch };
    }
    this.#localEnd = this.#received;
    this.held = this.#localEnd.index;
    this.#inbox = inbox;
    this.#leave = inbox.join(this);
    this.#cancelIdle = parts.env.setTimer(
      () => this.#begin(),
      SYNC_READ_IDLE_MS,
    );
    this.#ignore = onAbort(signal, (reason) => this.end(reason));
  }

  /** The last index it has received. */
  get received(): number {
    return this.#received.index;
  }

  /** Whether all was handed on, and applied if that is told, that the server had when this connection began. */
  get isLive(): boolean {
    return (this.#applied ?? this.#given.index) >= this.#target;
  }

  applied(index: number): void {
    this.#applied = index;
    if (this.isLive) this.#parts.progress(this, 0);
  }

  /** What was received and not handed on, in bytes. */
  get heldBytes(): number {
    return this.#queue.reduce((sum, { size }) => sum + size, 0);
  }

  /** Goes on reading where it stands. */
  connected(connection: Connection): void {
    if (this.#failure !== undefined) return;
    this.#connection = connection;
    this.#takesReferences = true;
    if (!this.#isShed && this.#cancelIdle === undefined) this.#read();
  }

  /** Goes on over another link, which is not connected yet. */
  move(inbox: Inbox): void {
    if (this.#queue.length > 0) this.shed();
    this.#leave();
    this.#inbox = inbox;
    this.#leave = inbox.join(this);
  }

  /** The connection, or the channel, is of no use any more. */
  disconnected(): void {
    this.#connection?.forget(this.#stream);
    this.#connection = undefined;
    this.#stream = 0;
    this.#target = Infinity;
  }

  #read(): void {
    const { index, epoch } = this.#received;
    this.#from = index;
    this.#stream = this.#connection!.stream((message, size) =>
      this.#take(message, size)
    );
    this.#connection!.send({
      type: "read",
      channel: this.#parts.channel,
      stream: this.#stream,
      after: index,
      markIndex: epoch?.index ?? 0,
      markEpoch: epoch?.id ?? 0n,
      far: this.#parts.far(index),
      references: this.#takesReferences,
    });
  }

  /** Has the server send what it has, and will have. */
  #begin(): void {
    this.#cancelIdle?.();
    this.#cancelIdle = undefined;
    if (this.#connection !== undefined && !this.#isShed) this.#read();
  }

  #stop(): void {
    if (this.#stream > 0) this.#connection?.stop(this.#stream);
    this.#stream = 0;
  }

  #take(message: StreamMessage, size: number): void {
    switch (message.type) {
      case "reading":
        this.#target = message.last;
        return this.#parts.progress(this, message.last);
      case "entries":
        return this.#entries(message, size);
      case "end":
        this.#connection?.forget(this.#stream);
        this.#stream = 0;
        return this.#fail(this.#reasonOf(message));
      default:
        this.#stop();
        this.#fail(new ErrRemote(`Reading was answered by ${message.type}`));
    }
  }

  #reasonOf({ reason, first, message }: End): Error {
    switch (reason) {
      case "far":
        this.#parts.wasFar(this.#from);
        return new ErrCompacted(first);
      case "compacted":
        return new ErrCompacted(first);
      case "diverged":
        return new ErrOtherHistory(message, {
          upTo: first,
          known: this.#received,
        });
      default:
        return new ErrRemote(`Reading has ended: ${message || reason}`);
    }
  }

  #entries(message: Entries, size: number): void {
    const { copy, progress } = this.#parts;
    const inbox = this.#inbox;
    const records = this.#parts.own.resolve(message);
    if (records === "missing") {
      // Asks for the bytes of all records from here on.
      inbox.release(size);
      this.#takesReferences = false;
      this.#stop();
      return this.#read();
    }
    const { follows, first } = message;
    const batch = records && { follows, first, records };
    const wrong = batch === undefined || batch.first <= batch.follows
      ? "batch is none"
      : batch.follows !== this.#received.index
      ? `batch follows ${batch.follows}, not ${this.#received.index}`
      : undefined;
    if (wrong !== undefined) {
      inbox.release(size);
      this.#stop();
      return this.#fail(new ErrLogCorrupted(message.first, wrong));
    }
    const { epoch } = this.#received;
    const place = this.#received = placeAfter(batch!, this.#received);
    // It is held until it is both handed on and kept.
    let holders = copy === undefined ? 1 : 2;
    const release = (): void => {
      if (--holders === 0) inbox.release(size);
    };
    copy?.add(owned(batch!), epoch, release);
    this.#queue.push({ batch: batch!, place, release, size });
    progress(this, message.last);
    if (this.#waiting !== undefined && this.#local === undefined) {
      const { resolve } = this.#waiting;
      this.#waiting = undefined;
      resolve(this.#shift());
    }
  }

  #shift(): LogBatch {
    const { batch, place, release } = this.#queue.shift()!;
    this.#given = place;
    release();
    if (this.isLive) this.#parts.progress(this, 0);
    return batch;
  }

  next(): MaybePromise<LogBatch> {
    if (this.#isOver) throw this.#failure;
    if (this.#cancelIdle !== undefined) this.#begin();
    if (this.#local !== undefined) return this.#nextLocal(this.#local);
    if (this.#queue.length > 0) return this.#shift();
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#isShed) {
      this.#isShed = false;
      if (this.#connection !== undefined) this.#read();
    }
    return this.#wait();
  }

  #wait(): Promise<LogBatch> {
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
    });
  }

  #nextLocal(local: CopyReader): Promise<LogBatch> {
    const next = this.#wait();
    const { resolve, reject } = this.#waiting!;
    const proceed = (batch: LogBatch | undefined): void => {
      if (this.#isOver) return;
      this.#waiting = undefined;
      if (batch !== undefined) {
        this.#given = placeAfter(batch, this.#given);
        if (this.isLive) this.#parts.progress(this, 0);
        return resolve(batch);
      }
      local.close();
      this.#local = undefined;
      // It was cut or damaged: the server has what is missing.
      if (this.#given.index < this.held) this.#rewind(this.#given);
      try {
        resolve(this.next());
      } catch (error) {
        reject(error);
      }
    };
    local.next().then(proceed, () => proceed(undefined));
    return next;
  }

  /** Lets go of what was received, to receive it again. */
  #rewind(place: Place): void {
    this.#stop();
    for (const { release } of this.#queue.splice(0)) release();
    this.#received = place;
    // What the server has said of what comes later says nothing of this.
    this.#failure = undefined;
    this.#isShed = true;
  }

  /** Lets go of what nobody takes; reads it again once somebody does. */
  shed(): void {
    this.#rewind(this.#local === undefined ? this.#given : this.#localEnd);
  }

  /** Fails once what was received before is handed on. */
  #fail(reason: unknown): void {
    this.#failure ??= reason;
    if (this.#queue.length > 0 || this.#local !== undefined) return;
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.reject(this.#failure);
  }

  /** The server refuses to be read. */
  refuse(reason: unknown): void {
    this.disconnected();
    this.#fail(reason);
  }

  /** Ends the reading; a `next()` that waits fails with `reason`. */
  end(reason: unknown): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#failure = reason;
    this.#cancelIdle?.();
    this.#ignore?.();
    this.#stop();
    this.#local?.close();
    for (const { release } of this.#queue.splice(0)) release();
    this.#leave();
    this.#parts.onEnd(this);
    this.#waiting?.reject(reason);
    this.#waiting = undefined;
  }

  close(): void {
    this.end(new ErrClusterClosed("Reader of the log is closed"));
  }
}

/** A machine that writes into its commands must not change what is kept. */
function owned(batch: LogBatch): LogBatch {
  const { bytes, ends } = batch.records;
  return { ...batch, records: { bytes: copyOf(bytes), ends } };
}
