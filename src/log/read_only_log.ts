/**
 * Local copy of a remote log, opened as a log without the remote one, for a replica
 * that is started only to export its data.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ErrNotImplemented } from "../statemachine/errors.ts";
import type { MaybePromise } from "../statemachine/types.ts";
import { ErrClusterClosed, ErrCompacted } from "./errors.ts";
import type { Log, LogBatch, LogReader, Retention } from "./log.ts";

/** Range of records in storage. */
export interface StoredRecords {
  /** Index of the last record. */
  readonly last: number;
  /** True if all records after `after`, up to the last, are in storage. */
  has(after: number): boolean;
  /** Reads the records after `after`; `next()` resolves with undefined at the end. */
  read(
    after: number,
  ): { next(): Promise<LogBatch | undefined>; close(): void };
}

class ReadOnlyLogReader implements LogReader {
  readonly lastAtStart: number;
  readonly #source: ReturnType<StoredRecords["read"]> | undefined;
  #reject: ((reason: unknown) => void) | undefined;
  #isClosed = false;

  constructor(after: number, records: StoredRecords | undefined) {
    const isThere = records?.has(after) && records.last > after;
    this.#source = isThere ? records!.read(after) : undefined;
    this.lastAtStart = isThere ? records!.last : after;
  }

  async next(): Promise<LogBatch> {
    const batch = await this.#source?.next();
    if (batch !== undefined) return batch;
    return await new Promise((_, reject) => {
      if (this.#isClosed) return reject(new ErrClusterClosed());
      this.#reject = reject;
    });
  }

  close(): void {
    this.#isClosed = true;
    this.#source?.close();
    this.#reject?.(new ErrClusterClosed("LogReader is closed"));
  }
}

/** Log that ends with the stored records; without records it ends where each reader starts. */
export class ReadOnlyLog implements Log {
  readonly #records: StoredRecords | undefined;
  readonly #onClose: () => void;
  readonly #readers = new Set<ReadOnlyLogReader>();

  /** Creates a log over `records`; `onClose` is called when it is closed. */
  constructor(
    records: StoredRecords | undefined,
    onClose: () => void = (): void => {},
  ) {
    this.#records = records;
    this.#onClose = onClose;
  }

  append(): MaybePromise<number> {
    throw new ErrNotImplemented(
      "append() of a local copy: start the replica on the remote log to propose",
    );
  }

  read(after: number): LogReader {
    const records = this.#records;
    // A machine in memory must not mistake the rest of a compacted log for all of it.
    if (after === 0 && records !== undefined && !records.has(0)) {
      throw new ErrCompacted(records.last + 1);
    }
    const reader = new ReadOnlyLogReader(after, records);
    this.#readers.add(reader);
    return reader;
  }

  readIndex(): number {
    return this.#records?.last ?? 0;
  }

  retain(): Retention {
    return { move: (): void => {}, release: (): void => {} };
  }

  startAt(): MaybePromise<void> {
    throw new ErrNotImplemented(
      "startAt() of a local copy: it is opened read-only",
    );
  }

  isEmpty(): boolean {
    return false;
  }

  close(): void {
    for (const reader of this.#readers) reader.close();
    this.#readers.clear();
    this.#onClose();
  }
}
