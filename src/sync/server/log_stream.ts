/**
 * Stream of log entries to one reader.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ErrCompacted, ErrDiverged } from "../../log/errors.ts";
import type { LogBatch, LogReader } from "../../log/log.ts";
import { lastOf } from "../../log/records.ts";
import { isPromise } from "../../async.ts";
import { encodeMessage } from "../message_codec.ts";
import type { End, EndReason, Reference } from "../messages.ts";
import { BatchCoalescer } from "./batch_coalescer.ts";
import type { ReadPermission } from "./read_permission.ts";
import type { OutboundStream, Sender } from "./sender.ts";
import {
  NO_REFERENCES,
  type SentRecords,
  withoutReferenced,
} from "./sent_records.ts";
import type {
  ClusterFollower,
  FrameCache,
  ServedCluster,
} from "./served_cluster.ts";
import type { Counts } from "./telemetry.ts";

/** Message that ends a stream. */
export function endMessage(
  stream: number,
  reason: EndReason,
  message = "",
  first = 0,
): End {
  return { type: "end", stream, reason, first, message };
}

/** Message that ends a log stream that failed with `error`. */
export function endOf(stream: number, error: unknown): End {
  if (error instanceof ErrCompacted) {
    return endMessage(stream, "compacted", error.message, error.firstIndex);
  }
  if (error instanceof ErrDiverged) {
    return endMessage(stream, "diverged", error.message, error.upTo ?? 0);
  }
  return endMessage(stream, "failed", "Log could not be read");
}

function entriesFrame(
  stream: number,
  { follows, first, records }: LogBatch,
  last: number,
  references: readonly Reference[] = NO_REFERENCES,
): Uint8Array {
  let start = 0;
  const lengths = records.ends.map((end) => {
    const length = end - start;
    start = end;
    return length;
  });
  return encodeMessage({
    type: "entries",
    stream,
    follows,
    first,
    last,
    lengths,
    references,
    bytes: withoutReferenced(records, references),
  });
}

/** Dependencies of a {@linkcode LogStream}. */
export interface LogStreamOptions {
  /** Number of the channel. */
  readonly channel: number;
  /** Number of the stream. */
  readonly stream: number;
  /** Cluster whose log is sent. */
  readonly cluster: ServedCluster;
  /** Permission to read the cluster. */
  readonly permission: ReadPermission;
  /** Sender of the connection. */
  readonly sender: Sender;
  /** Counters of the server. */
  readonly counts: Counts;
  /** Records to refer to instead of sending them; undefined if the client does not resolve references. */
  readonly sentRecords: SentRecords | undefined;
}

/**
 * Sends the entries of a log after some index. A reader that is far behind gets
 * them from the log; one that has caught up gets the recent batches that all
 * readers share, and then each batch as it is committed.
 */
export class LogStream implements OutboundStream, ClusterFollower {
  readonly #options: LogStreamOptions;
  /** Index of the last entry sent. */
  #position: number;
  /** Reader of the log while the next entry is not among the recent ones. */
  #reader: LogReader | undefined;
  #source: BatchCoalescer | undefined;
  /** Batch read from the log and not sent yet. */
  #batch: LogBatch | undefined;
  #isReading = false;
  #isStopped = false;

  /** Creates a stream of the entries after index `after`, which `reader` reads. */
  constructor(options: LogStreamOptions, after: number, reader: LogReader) {
    this.#options = options;
    this.#position = after;
    this.#use(reader);
    options.cluster.followers.add(this);
  }

  #use(reader: LogReader): void {
    this.#reader = reader;
    this.#source = new BatchCoalescer(reader);
  }

  /** Number of the channel. */
  get channel(): number {
    return this.#options.channel;
  }

  /** True if entries can be sent. */
  get isReady(): boolean {
    return this.#batch !== undefined ||
      (!this.#isReading &&
        this.#position < this.#options.cluster.recent.last);
  }

  /** True if records of this client were received and not sent back. */
  get isAuthor(): boolean {
    return this.#options.sentRecords?.isEmpty === false;
  }

  get #isCaughtUp(): boolean {
    return this.#position >= this.#options.cluster.recent.base;
  }

  /** Sends the next entries if they are available without waiting. */
  sendNext(): boolean {
    const { permission, cluster } = this.#options;
    if (this.#isStopped || !permission.isValid) return false;
    if (this.#isCaughtUp) {
      this.#closeReader();
      const batch = cluster.recent.after(this.#position);
      return batch !== undefined && this.#send(batch);
    }
    if (this.#batch === undefined) this.#read();
    const batch = this.#batch;
    this.#batch = undefined;
    return batch !== undefined && this.#send(batch);
  }

  #send(batch: LogBatch): boolean {
    const { stream, cluster } = this.#options;
    const last = Math.max(cluster.recent.last, lastOf(batch));
    const references = this.#referencesIn(batch);
    this.#sendFrame(entriesFrame(stream, batch, last, references), batch);
    return true;
  }

  #referencesIn({ records }: LogBatch): readonly Reference[] {
    const { sentRecords, channel } = this.#options;
    return sentRecords?.take(channel, records) ?? NO_REFERENCES;
  }

  #sendFrame(frame: Uint8Array, batch: LogBatch): void {
    const { sender, counts } = this.#options;
    this.#position = lastOf(batch);
    sender.sendData(frame, true);
    counts.entries += batch.records.ends.length;
  }

  /** Sends a committed batch at once if this reader has caught up: such readers share one encoded frame, unless it holds records of their own. */
  committed(batch: LogBatch, frames: FrameCache): void {
    const { stream, sender, permission } = this.#options;
    if (
      this.#position !== batch.follows || this.#reader !== undefined ||
      !sender.hasRoom || !permission.isValid
    ) return sender.pump();
    const references = this.#referencesIn(batch);
    if (references.length > 0) {
      const own = entriesFrame(stream, batch, lastOf(batch), references);
      return this.#sendFrame(own, batch);
    }
    let frame = frames.get(stream);
    if (frame === undefined) {
      frame = entriesFrame(stream, batch, lastOf(batch));
      frames.set(stream, frame);
    }
    this.#sendFrame(frame, batch);
  }

  /** Reads the next batch from the log. */
  #read(): void {
    if (this.#isReading) return;
    try {
      const next = this.#source?.next() ?? this.#openReader();
      if (!isPromise(next)) {
        this.#batch = next;
        return;
      }
      this.#isReading = true;
      next.then((batch) => {
        this.#isReading = false;
        if (this.#isStopped || this.#reader === undefined) return;
        this.#batch = batch;
        this.#options.sender.pump();
      }, (error) => this.#fail(error));
    } catch (error) {
      this.#fail(error);
    }
  }

  async #openReader(): Promise<LogBatch> {
    const reader = await this.#options.cluster.log.read(this.#position);
    if (this.#isStopped) reader.close();
    this.#use(reader);
    return await this.#source!.next();
  }

  #closeReader(): void {
    const reader = this.#reader;
    this.#reader = this.#source = this.#batch = undefined;
    reader?.close();
  }

  #fail(error: unknown): void {
    this.#isReading = false;
    // A reader that was closed after catching up fails its pending read.
    if (this.#isStopped || (this.#reader === undefined && this.#isCaughtUp)) {
      return;
    }
    const { sender, stream } = this.#options;
    sender.endStream(stream, endOf(stream, error));
  }

  /** Ends the stream and closes its reader. */
  stop(): void {
    this.#isStopped = true;
    this.#options.cluster.followers.delete(this);
    this.#closeReader();
  }
}
