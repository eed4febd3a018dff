/**
 * Reader of a log on a server: reads the local copy first, if there is one, and then
 * the server, across reconnects.
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
import { epochsIn } from "../../log/epochs.ts";
import type { BufferUser, ReceiveBuffer } from "./receive_buffer.ts";
import type { CopyReader, LogCopy } from "./log_copy.ts";
import type { OwnRecords } from "./own_records.ts";

/** Dependencies of a {@linkcode RemoteReader}. */
export interface ReaderParts {
  readonly env: Env;
  readonly channel: number;
  readonly receiveBuffer: ReceiveBuffer;
  readonly copy: LogCopy | undefined;
  /** Records that references of the server resolve to. */
  readonly own: OwnRecords;
  readonly after: number;
  readonly epoch: Epoch | undefined;
  readonly signal: AbortSignal | undefined;
  /** Returns true if the server may recommend a snapshot instead of the records after an index. */
  readonly acceptsSnapshot: (after: number) => boolean;
  /** Called when the server recommends a snapshot instead of the records after an index. */
  readonly snapshotRecommended: (after: number) => void;
  /** Called when the reader has received or returned records, or learned the last index of the log. */
  readonly progress: (reader: RemoteReader, last: number) => void;
  readonly onEnd: (reader: RemoteReader) => void;
}

/** Index in the log, with the last epoch at or before it. */
interface Position {
  readonly index: number;
  readonly epoch: Epoch | undefined;
}

interface Received {
  readonly batch: LogBatch;
  readonly position: Position;
  /** Called once the batch was returned to the caller. */
  readonly release: () => void;
  readonly size: number;
}

/** Position at the end of a batch that follows `before`. */
function positionAfter(batch: LogBatch, before: Position): Position {
  return {
    index: lastOf(batch),
    epoch: epochsIn(batch).at(-1) ?? before.epoch,
  };
}

/** Reader of a remote log. */
export class RemoteReader implements LogReader, BufferUser {
  readonly lastAtStart: number;
  readonly #parts: ReaderParts;
  /** Position up to which batches were returned to the caller. */
  #returned: Position;
  /** Index applied by the caller, if it reports it. */
  #applied: number | undefined;
  /** Position up to which records were received. */
  #received: Position;
  #queue: Received[] = [];
  #local: CopyReader | undefined;
  /** End of the local copy when the reader was created. */
  readonly #localEnd: Position;
  #connection: Connection | undefined;
  #stream = 0;
  /** Set unless the server has referred, on this connection, to a record that is missing here. */
  #takesReferences = true;
  /** Index after which the present stream reads. */
  #from = 0;
  /** Last index of the server when the present stream began; infinite until it is known. */
  #target = Infinity;
  /** Cancels the delay before the first request, undefined afterwards: a caller that only checks whether the log continues closes the reader before it, and downloads nothing. */
  #cancelIdle: (() => void) | undefined;
  /** Set while the stream is stopped to save memory, until `next()` is called. */
  #isShed = false;
  #failure: unknown;
  #isOver = false;
  #waiting: {
    resolve(batch: MaybePromise<LogBatch>): void;
    reject(reason: unknown): void;
  } | undefined;
  #receiveBuffer: ReceiveBuffer;
  #leave: () => void;
  readonly #ignore: () => void;

  /** Creates a reader that starts with the copy and waits for a connection. */
  constructor(parts: ReaderParts) {
    const { copy, after, epoch, receiveBuffer, signal } = parts;
    this.#parts = parts;
    this.#returned = this.#received = { index: after, epoch };
    if (copy?.has(after) && copy.last > after) {
      const index = copy.last;
      this.#local = copy.read(after);
      this.#received = { index, epoch: copy.epochAt(index) ?? epoch };
    }
    this.#localEnd = this.#received;
    this.lastAtStart = this.#localEnd.index;
    this.#receiveBuffer = receiveBuffer;
    this.#leave = receiveBuffer.join(this);
    this.#cancelIdle = parts.env.setTimer(
      () => this.#begin(),
      SYNC_READ_IDLE_MS,
    );
    this.#ignore = onAbort(signal, (reason) => this.end(reason));
  }

  /** Index of the last record received. */
  get received(): number {
    return this.#received.index;
  }

  /** True if all records that the server had when this connection began were returned, and applied if the caller reports that. */
  get isLive(): boolean {
    return (this.#applied ?? this.#returned.index) >= this.#target;
  }

  applied(index: number): void {
    this.#applied = index;
    if (this.isLive) this.#parts.progress(this, 0);
  }

  /** Bytes received and not returned to the caller. */
  get bufferedBytes(): number {
    return this.#queue.reduce((sum, { size }) => sum + size, 0);
  }

  /** Continues on a connection. */
  connected(connection: Connection): void {
    if (this.#failure !== undefined) return;
    this.#connection = connection;
    this.#takesReferences = true;
    if (!this.#isShed && this.#cancelIdle === undefined) this.#read();
  }

  /** Moves to another link, which is not connected yet. */
  move(receiveBuffer: ReceiveBuffer): void {
    if (this.#queue.length > 0) this.shed();
    this.#leave();
    this.#receiveBuffer = receiveBuffer;
    this.#leave = receiveBuffer.join(this);
  }

  /** Detaches from a connection that was lost, or whose channel was closed. */
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
      this.#onMessage(message, size)
    );
    this.#connection!.send({
      type: "read",
      channel: this.#parts.channel,
      stream: this.#stream,
      after: index,
      epochIndex: epoch?.index ?? 0,
      epochID: epoch?.id ?? 0n,
      far: this.#parts.acceptsSnapshot(index),
      references: this.#takesReferences && this.#connection!.isCompact,
    });
  }

  /** Starts reading from the server, once. */
  #begin(): void {
    this.#cancelIdle?.();
    this.#cancelIdle = undefined;
    if (this.#connection !== undefined && !this.#isShed) this.#read();
  }

  #stop(): void {
    if (this.#stream > 0) this.#connection?.stop(this.#stream);
    this.#stream = 0;
  }

  #onMessage(message: StreamMessage, size: number): void {
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
        this.#fail(
          new ErrRemote(
            `Server replied with ${message.type} to a read of the log`,
          ),
        );
    }
  }

  #reasonOf({ reason, first, message }: End): Error {
    switch (reason) {
      case "far":
        this.#parts.snapshotRecommended(this.#from);
        return new ErrCompacted(first);
      case "compacted":
        return new ErrCompacted(first);
      case "diverged":
        return new ErrOtherHistory(message, {
          upTo: first,
          known: this.#received,
        });
      default:
        return new ErrRemote(
          `Server has ended a read of the log: ${message || reason}`,
        );
    }
  }

  #entries(message: Entries, size: number): void {
    const { copy, progress } = this.#parts;
    const receiveBuffer = this.#receiveBuffer;
    const records = this.#parts.own.resolve(message);
    if (records === "missing") {
      // Requests the bytes of all records from here on.
      receiveBuffer.release(size);
      this.#takesReferences = false;
      this.#stop();
      return this.#read();
    }
    const { follows, first } = message;
    const batch = records && { follows, first, records };
    const wrong = batch === undefined || batch.first <= batch.follows
      ? "references, lengths and bytes of the batch do not match"
      : batch.follows !== this.#received.index
      ? `batch follows ${batch.follows}, not ${this.#received.index}`
      : undefined;
    if (wrong !== undefined) {
      receiveBuffer.release(size);
      this.#stop();
      return this.#fail(new ErrLogCorrupted(message.first, wrong));
    }
    const { epoch } = this.#received;
    const position = this.#received = positionAfter(batch!, this.#received);
    // Buffered until it is both returned to the caller and stored in the copy.
    let owners = copy === undefined ? 1 : 2;
    const release = (): void => {
      if (--owners === 0) receiveBuffer.release(size);
    };
    copy?.add(owned(batch!), epoch, release);
    this.#queue.push({ batch: batch!, position, release, size });
    progress(this, message.last);
    if (this.#waiting !== undefined && this.#local === undefined) {
      const { resolve } = this.#waiting;
      this.#waiting = undefined;
      resolve(this.#shift());
    }
  }

  #shift(): LogBatch {
    const { batch, position, release } = this.#queue.shift()!;
    this.#returned = position;
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
        this.#returned = positionAfter(batch, this.#returned);
        if (this.isLive) this.#parts.progress(this, 0);
        return resolve(batch);
      }
      local.close();
      this.#local = undefined;
      // The copy was compacted or is damaged: the server has the records.
      if (this.#returned.index < this.lastAtStart) this.#rewind(this.#returned);
      try {
        resolve(this.next());
      } catch (error) {
        reject(error);
      }
    };
    local.next().then(proceed, () => proceed(undefined));
    return next;
  }

  /** Drops what was received after a position; the next `next()` requests it again. */
  #rewind(position: Position): void {
    this.#stop();
    for (const { release } of this.#queue.splice(0)) release();
    this.#received = position;
    // A failure of the server concerns records after this position.
    this.#failure = undefined;
    this.#isShed = true;
  }

  /** Drops buffered batches; they are requested again by the next `next()`. */
  shed(): void {
    this.#rewind(this.#local === undefined ? this.#returned : this.#localEnd);
  }

  /** Fails once all batches received before were returned. */
  #fail(reason: unknown): void {
    this.#failure ??= reason;
    if (this.#queue.length > 0 || this.#local !== undefined) return;
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.reject(this.#failure);
  }

  /** Fails the reader after a refusal of the server. */
  refuse(reason: unknown): void {
    this.disconnected();
    this.#fail(reason);
  }

  /** Ends the reader; a pending `next()` fails with `reason`. */
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
    this.end(
      new ErrClusterClosed(
        `Reader at index ${this.#returned.index} of the log is closed`,
      ),
    );
  }
}

/** Copies a batch: a machine that changes the bytes of its commands must not change the stored copy. */
function owned(batch: LogBatch): LogBatch {
  const { bytes, ends } = batch.records;
  return { ...batch, records: { bytes: copyOf(bytes), ends } };
}
