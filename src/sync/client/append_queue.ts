/**
 * Queue of appends to the server. They take effect in the order of `push()`, or not
 * at all.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { SYNC_FRAME_BYTES_MAX } from "../../limits.ts";
import {
  ErrLogCorrupted,
  ErrRecordsRefused,
  ErrUnknownOutcome,
} from "../../log/errors.ts";
import type { Records } from "../../log/log.ts";
import { ErrConnectionLost, ErrRemote } from "../errors.ts";
import {
  appendFrame,
  type Connection,
  type StreamMessage,
} from "./connection.ts";
import { OwnRecords } from "./own_records.ts";

interface Waiting {
  readonly records: Records;
  resolve(first: number): void;
  reject(reason: unknown): void;
}

/** Appends of one log that are unsent or unanswered. */
export class AppendQueue {
  /** Appends not sent yet, in order. */
  #waiting: Waiting[] = [];
  /** Appends sent and not answered. */
  readonly #inFlight = new Set<Waiting>();
  /** Records sent over this connection that the server may refer to. */
  readonly own: OwnRecords = new OwnRecords();

  /** Queues records; resolves to the index of the first once all are committed. */
  push(records: Records): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ records, resolve, reject });
    });
  }

  /** Sends queued appends within the server's credit. */
  pump(connection: Connection, channel: number): void {
    while (this.#waiting.length > 0 && connection.isWritable) {
      this.#send(this.#waiting.shift()!, connection, channel);
    }
  }

  #send(waiting: Waiting, connection: Connection, channel: number): void {
    const { bytes, ends } = waiting.records;
    const lengths = ends.map((end, i) => end - (ends[i - 1] ?? 0));
    const stream = connection.stream((message) => {
      connection.forget(stream);
      this.#inFlight.delete(waiting);
      this.#answered(waiting, message);
    });
    const frame = appendFrame(channel, stream, lengths, bytes);
    if (frame.length > SYNC_FRAME_BYTES_MAX) {
      connection.forget(stream);
      return waiting.reject(
        new RangeError(
          `Batch of ${bytes.length} bytes is over the limit of a message of the protocol, ${SYNC_FRAME_BYTES_MAX} bytes`,
        ),
      );
    }
    this.#inFlight.add(waiting);
    this.own.add(waiting.records);
    connection.sendData(frame, ends.length, stream);
  }

  #answered(waiting: Waiting, message: StreamMessage): void {
    const { resolve, reject } = waiting;
    if (message.type === "appended") {
      const { first, refused, reasons } = message;
      if (refused.length === 0) return resolve(first);
      let reason = "";
      return reject(
        new ErrRecordsRefused(refused.map((at, i) => {
          // An empty reason repeats the previous one.
          reason = reasons[i] || reason;
          return { at, reason };
        })),
      );
    }
    if (message.type === "failed") {
      return reject(
        message.unknown
          ? new ErrUnknownOutcome(message.message)
          : new ErrRemote(message.message),
      );
    }
    reject(
      new ErrLogCorrupted(
        0,
        `Server replied with ${message.type} to an append`,
      ),
    );
  }

  /**
   * Fails the appends after a lost connection. Those in flight may still take
   * effect, at any time; those queued behind them are not sent, as they could
   * overtake them.
   */
  lost(error: ErrConnectionLost): void {
    this.own.clear();
    if (this.#inFlight.size === 0) return;
    const unknown = new ErrUnknownOutcome(
      `Connection was lost (code ${error.code}) before the server answered the append`,
      { cause: error },
    );
    const unsent = new ErrConnectionLost(
      error.code,
      "Records were not sent: the connection was lost, and the outcome of records before them is unknown",
      { cause: error },
    );
    const inFlight = [...this.#inFlight];
    const waiting = this.#waiting;
    this.#inFlight.clear();
    this.#waiting = [];
    for (const { reject } of inFlight) reject(unknown);
    for (const { reject } of waiting) reject(unsent);
  }

  /** Fails the queued appends, and those in flight too if `inFlight` is set. */
  fail(reason: unknown, inFlight = false): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    if (inFlight) {
      waiting.unshift(...this.#inFlight);
      this.#inFlight.clear();
    }
    for (const { reject } of waiting) reject(reason);
  }
}
