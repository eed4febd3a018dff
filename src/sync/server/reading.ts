/**
 * What is sent on one stream of a connection: the records of a log after some
 * index, from the log itself where somebody is far behind, else from what all
 * share.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ErrCompacted, ErrDiverged } from "../../log/errors.ts";
import type { LogBatch, LogReader } from "../../log/log.ts";
import { lastOf } from "../../log/records.ts";
import { isPromise } from "../../async.ts";
import { encodeMessage, type End, type EndReason } from "../messages.ts";
import type { Channel } from "./channel.ts";
import type { Follower, Frames, Hub } from "./hub.ts";
import type { Peer } from "./peer.ts";
import { Gatherer } from "./ring.ts";

/** What a connection sends as far as the other end takes it. */
export interface Outgoing {
  /** Whether there is something to send. */
  readonly ready: boolean;
  /** The channel it is of. */
  readonly channel: Channel;
  /** Sends a frame, if there is one at hand; whether it did. */
  sendNext(): boolean;
  /** Nothing more is to be sent. */
  stop(): void;
}

/** The message that ends a stream. */
export function endMessage(
  stream: number,
  reason: EndReason,
  message = "",
  first = 0,
): End {
  return { type: "end", stream, reason, first, message };
}

/** Why a reading ends that failed with `error`. */
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
  { follows, first, records: { bytes, ends } }: LogBatch,
  last: number,
): Uint8Array {
  let start = 0;
  const lengths = ends.map((end) => {
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
    bytes,
  });
}

/** The records of a cluster on their way to one reader. */
export class Reading implements Outgoing, Follower {
  /** The channel it is of. */
  readonly channel: Channel;
  readonly #peer: Peer;
  readonly #hub: Hub;
  readonly #stream: number;
  /** The index of the last record sent. */
  #position: number;
  /** The log itself, as long as what comes next is not in the ring. */
  #reader: LogReader | undefined;
  #source: Gatherer | undefined;
  #batch: LogBatch | undefined;
  #isFetching = false;
  #ended = false;

  /** A reading that goes on from index `after`, where `reader` stands. */
  constructor(
    peer: Peer,
    channel: Channel,
    stream: number,
    after: number,
    reader: LogReader,
  ) {
    this.#peer = peer;
    this.channel = channel;
    this.#hub = channel.hub;
    this.#stream = stream;
    this.#position = after;
    this.#use(reader);
    this.#hub.followers.add(this);
  }

  #use(reader: LogReader): void {
    this.#reader = reader;
    this.#source = new Gatherer(reader);
  }

  /** Whether there is something to send. */
  get ready(): boolean {
    return this.#batch !== undefined ||
      (!this.#isFetching && this.#position < this.#hub.ring.position);
  }

  /** Sends the next records, if they are at hand. */
  sendNext(): boolean {
    if (this.#ended || !this.channel.right.holds) return false;
    const { ring } = this.#hub;
    if (this.#position >= ring.base) {
      this.#leaveLog();
      const batch = ring.after(this.#position);
      return batch !== undefined && this.#send(batch);
    }
    if (this.#batch === undefined) this.#fetch();
    const batch = this.#batch;
    this.#batch = undefined;
    return batch !== undefined && this.#send(batch);
  }

  #send(batch: LogBatch): boolean {
    const last = Math.max(this.#hub.ring.position, lastOf(batch));
    this.#sendFrame(entriesFrame(this.#stream, batch, last), batch);
    return true;
  }

  #sendFrame(frame: Uint8Array, batch: LogBatch): void {
    this.#position = lastOf(batch);
    this.#peer.sender.sendData(frame);
    this.#peer.counts.entries += batch.records.ends.length;
  }

  /** What was committed goes to all who are up to it in the same bytes. */
  offer(batch: LogBatch, frames: Frames): void {
    if (
      this.#position !== batch.follows || this.#reader !== undefined ||
      !this.#peer.sender.hasRoom || !this.channel.right.holds
    ) return this.#peer.sender.pump();
    let frame = frames.get(this.#stream);
    if (frame === undefined) {
      frame = entriesFrame(this.#stream, batch, lastOf(batch));
      frames.set(this.#stream, frame);
    }
    this.#sendFrame(frame, batch);
  }

  /** Takes the next records out of the log. */
  #fetch(): void {
    if (this.#isFetching) return;
    try {
      const next = this.#source?.next() ?? this.#openLog();
      if (!isPromise(next)) {
        this.#batch = next;
        return;
      }
      this.#isFetching = true;
      next.then((batch) => {
        this.#isFetching = false;
        if (this.#ended || this.#reader === undefined) return;
        this.#batch = batch;
        this.#peer.sender.pump();
      }, (error) => this.#fail(error));
    } catch (error) {
      this.#fail(error);
    }
  }

  async #openLog(): Promise<LogBatch> {
    const reader = await this.#hub.log.read(this.#position);
    if (this.#ended) reader.close();
    this.#use(reader);
    return await this.#source!.next();
  }

  #leaveLog(): void {
    const reader = this.#reader;
    this.#reader = this.#source = this.#batch = undefined;
    reader?.close();
  }

  #fail(error: unknown): void {
    this.#isFetching = false;
    // Whoever left the log has closed the reader that fails.
    if (this.#ended || this.#reader === undefined && this.#caughtUp()) return;
    this.#peer.sender.endStream(this.#stream, endOf(this.#stream, error));
  }

  #caughtUp(): boolean {
    return this.#position >= this.#hub.ring.base;
  }

  /** Nothing more is to be sent. */
  stop(): void {
    this.#ended = true;
    this.#hub.followers.delete(this);
    this.#leaveLog();
  }
}
