/**
 * Local copy of a remote log, opened as a log of its own: for a replica that is
 * started only to be exported, whatever became of the remote log.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ErrNotImplemented } from "../statemachine/errors.ts";
import type { MaybePromise } from "../statemachine/types.ts";
import { ErrClusterClosed, ErrCompacted } from "./errors.ts";
import type { Log, LogBatch, LogReader, Retention } from "./log.ts";

/** Records that are kept, from some index to some other. */
export interface KeptRecords {
  /** Last index. */
  readonly last: number;
  /** True if it has all that comes after `after`, as far as it goes. */
  has(after: number): boolean;
  /** Reads what comes after `after`; undefined at the end. */
  read(
    after: number,
  ): { next(): Promise<LogBatch | undefined>; close(): void };
}

class KeptReader implements LogReader {
  readonly held: number;
  readonly #source: ReturnType<KeptRecords["read"]> | undefined;
  #reject: ((reason: unknown) => void) | undefined;
  #isClosed = false;

  constructor(after: number, records: KeptRecords | undefined) {
    const isThere = records?.has(after) && records.last > after;
    this.#source = isThere ? records!.read(after) : undefined;
    this.held = isThere ? records!.last : after;
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
    this.#reject?.(new ErrClusterClosed("Reader of the log is closed"));
  }
}

/** A log that ends with what is kept; without records it ends wherever its reader stands. */
export class KeptLog implements Log {
  readonly #records: KeptRecords | undefined;
  readonly #onClose: () => void;
  readonly #readers = new Set<KeptReader>();

  /** The log of these records; `onClose` is called when it is closed. */
  constructor(
    records: KeptRecords | undefined,
    onClose: () => void = (): void => {},
  ) {
    this.#records = records;
    this.#onClose = onClose;
  }

  append(): MaybePromise<number> {
    throw new ErrNotImplemented(
      "Local copy of a remote log is read-only",
    );
  }

  read(after: number): LogReader {
    const records = this.#records;
    // What a machine in memory starts from must not be taken for all there was.
    if (after === 0 && records !== undefined && !records.has(0)) {
      throw new ErrCompacted(records.last + 1);
    }
    const reader = new KeptReader(after, records);
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
      "Local copy of a remote log is read-only",
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
