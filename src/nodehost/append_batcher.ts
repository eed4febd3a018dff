/**
 * Group commit of the records that a replica proposes, with backpressure.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { Backoff, isPromise } from "../async.ts";
import {
  APPENDS_IN_FLIGHT_MAX,
  PENDING_BYTES_MAX,
  PENDING_PROPOSALS_MAX,
} from "../limits.ts";
import type { Records } from "../log/log.ts";
import { recordAt, RecordPacker } from "../log/records.ts";
import type { LocalRehearsal } from "../rehearsal/mod.ts";
import { type ErrProposalRefused, ErrSystemBusy } from "../rsm/errors.ts";
import type { MaybePromise } from "../statemachine/types.ts";
import type { ReplicaContext } from "./context.ts";
import type { Control } from "./control.ts";
import type { SessionState } from "./session.ts";

/** Records that are appended together, with the proposals and requests they carry. */
export interface AppendBatch {
  /** Packed records; undefined while records are still added. */
  records: Records | undefined;
  /** Sequence number of the first proposal outside of any session. */
  readonly from: number;
  /** Sequence number after the last such proposal. */
  upTo: number;
  /** Sessions with proposals in the batch, with the last series of each. */
  readonly sessions: Map<SessionState, number>;
  /** Session control records of the batch, in order. */
  readonly controls: Control[];
}

/** Receiver of the outcome of appends. */
export interface AppendListener {
  /** Called when the log has acknowledged a batch. */
  appended(batch: AppendBatch): void;
  /** Called when an append failed, or the log refused records of the batch. */
  failed(batch: AppendBatch, error: unknown): void;
  /** Called when the state machine threw at a command in a rehearsal: it is not appended. */
  threw(record: Uint8Array, refused: ErrProposalRefused): void;
}

/**
 * Batches records into appends. Records added in one turn of the event loop share
 * an append, and records added while the log is busy share the next one.
 */
export class AppendBatcher {
  /** Backoff of retries after failed appends. */
  readonly backoff: Backoff;
  /** First proposal outside of any session that was not passed to the log. */
  unsent = 1;
  readonly #context: ReplicaContext;
  readonly #rehearsal: () => LocalRehearsal | undefined;
  readonly #listener: AppendListener;
  readonly #proposalsMax: number;
  readonly #bytesMax: number;
  readonly #packer = new RecordPacker();
  /** Batch that records are added to. */
  #open: AppendBatch = newBatch(1);
  /** Full batches that wait for the log. */
  #queue: AppendBatch[] = [];
  #inFlight = 0;
  #isScheduled = false;
  #closed: unknown;
  #count = 0;
  #bytes = 0;

  /** Creates a batcher; `rehearsal` returns the rehearsal of commands before they are appended, undefined while they are not tried. */
  constructor(
    context: ReplicaContext,
    rehearsal: () => LocalRehearsal | undefined,
    listener: AppendListener,
  ) {
    this.backoff = new Backoff(context.env);
    const { config } = context;
    this.#proposalsMax = config.pendingProposalsMax ?? PENDING_PROPOSALS_MAX;
    this.#bytesMax = config.pendingBytesMax ?? PENDING_BYTES_MAX;
    this.#context = context;
    this.#rehearsal = rehearsal;
    this.#listener = listener;
  }

  // ------------------------------------------------------------- backpressure

  /** Error for one more proposal of that size; undefined if it is accepted. */
  refusal(bytes: number): unknown {
    if (this.#closed !== undefined) return this.#closed;
    return this.#count < this.#proposalsMax &&
        this.#bytes + bytes <= this.#bytesMax
      ? undefined
      : new ErrSystemBusy(
        `${this.#count} proposals of ${this.#bytes} bytes wait for their results; propose again once some have settled`,
      );
  }

  /** Counts a proposal that waits for its result. */
  count(bytes: number): void {
    this.#count++;
    this.#bytes += bytes;
  }

  /** Ends the counting of a proposal. */
  uncount(bytes: number): void {
    this.#count--;
    this.#bytes -= bytes;
  }

  // ------------------------------------------------------------------ records

  /** Reserves `length` bytes for a record in `bytes`, and returns their offset. */
  reserve(length: number): number {
    const packer = this.#packer;
    if (packer.length > 0 && !packer.fits(length)) this.#seal();
    if (!this.#isScheduled) {
      this.#isScheduled = true;
      queueMicrotask(() => this.#flush());
    }
    return packer.begin(length);
  }

  /** Buffer of the batch that records are added to. */
  get bytes(): Uint8Array {
    return this.#packer.bytes;
  }

  /** Notes that the record reserved last is the proposal `sequence` outside of any session. */
  addSingle(sequence: number): void {
    this.#open.upTo = sequence + 1;
  }

  /** Notes that the record reserved last is a series of a session. */
  addSeries(state: SessionState, series: number): void {
    this.#open.sessions.set(state, series);
  }

  /** Adds a session control record. */
  addControl(control: Control): void {
    const at = this.reserve(control.record.length);
    this.bytes.set(control.record, at);
    this.#open.controls.push(control);
  }

  #seal(): void {
    this.#open.records = this.#packer.seal();
    this.#queue.push(this.#open);
    this.#open = newBatch(this.#open.upTo);
  }

  // ------------------------------------------------------------------ appends

  #flush(): void {
    this.#isScheduled = false;
    while (this.#inFlight < APPENDS_IN_FLIGHT_MAX) {
      if (this.#queue.length === 0) {
        if (this.#packer.length === 0) return;
        this.#seal();
      }
      this.#send(this.#queue.shift()!);
    }
  }

  #send(batch: AppendBatch): void {
    if (this.#closed !== undefined) return;
    this.unsent = batch.upTo;
    try {
      const appended = this.#append(batch);
      if (!isPromise(appended)) return this.backoff.reset();
      this.#inFlight++;
      const done = (): void => {
        this.#inFlight--;
        this.#flush();
      };
      // Never rejects: both outcomes are handled.
      appended.then(() => {
        this.backoff.reset();
        this.#listener.appended(batch);
      }, (error) => {
        this.#fail(batch, error);
      }).then(done);
    } catch (error) {
      this.#fail(batch, error);
    }
  }

  #fail(batch: AppendBatch, error: unknown): void {
    if (this.#closed === undefined) this.#listener.failed(batch, error);
  }

  /** Appends a batch, without the commands at which the machine throws if they are tried (H17). */
  #append(batch: AppendBatch): MaybePromise<number> {
    const { log } = this.#context;
    const own = this.#rehearsal();
    const records = batch.records!;
    if (own === undefined) return log.append(records);
    return own.rehearsal.append(
      records,
      own.isRefusing,
      (passed) => {
        // The rehearsal may have waited for its turn.
        if (this.#closed !== undefined) throw this.#closed;
        batch.records = passed;
        return log.append(passed);
      },
      (at, error) => this.#listener.threw(recordAt(records, at), error),
    );
  }

  /** Drops unsent batches; later proposals are refused with `reason`. */
  close(reason: unknown): void {
    this.#closed = reason;
    this.#queue = [];
  }
}

function newBatch(from: number): AppendBatch {
  return {
    records: undefined,
    from,
    upTo: from,
    sessions: new Map(),
    controls: [],
  };
}
