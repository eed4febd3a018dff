/**
 * A snapshot that is sent on one stream of a connection.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { encodeMessage } from "../messages.ts";
import type { Channel } from "./channel.ts";
import type { Peer } from "./peer.ts";
import type { Place } from "./places.ts";
import { endMessage, type Outgoing } from "./reading.ts";
import { type Offer, offerSnapshot } from "./snapshots.ts";
import type { Work } from "./telemetry.ts";

/** A snapshot on its way to one client. */
export class Transfer implements Outgoing {
  /** The channel it is of. */
  readonly channel: Channel;
  readonly #peer: Peer;
  readonly #stream: number;
  readonly #work: Work;
  /** Its place among all transfers. */
  readonly #place: Place;
  #reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
  #chunk: Uint8Array | undefined;
  #isReading = false;
  /** What is still to be over: its beginning, and itself. */
  #places = 2;
  #ended = false;

  /** A transfer, which begins at once. */
  constructor(
    peer: Peer,
    channel: Channel,
    stream: number,
    place: Place,
  ) {
    this.#peer = peer;
    this.channel = channel;
    this.#stream = stream;
    this.#work = peer.core.telemetry.begin("snapshot");
    this.#place = place;
    place.cut = (reason): void =>
      peer.sender.endStream(stream, endMessage(stream, "failed", reason));
    peer.transfers++;
    // Never rejects: it ends the transfer with the error it catches.
    void this.#begin().then(() => this.#leave());
  }

  async #begin(): Promise<void> {
    const { core } = this.#peer;
    try {
      const offer = await offerSnapshot(
        core.host,
        this.channel.hub,
        core.limits.farEntries,
        this.channel.leastSnapshot(),
      );
      this.#reader = offer.content.getReader();
      if (this.#ended) {
        // Nobody would give it back.
        offer.retention.release();
        return this.#cancel();
      }
      this.channel.retain(offer.retention);
      this.#announce(offer);
      this.#place.begin();
      this.#read();
    } catch (error) {
      this.#fail(error);
    }
  }

  #announce({ header, files, size }: Offer): void {
    this.#peer.send({
      type: "snapshot",
      stream: this.#stream,
      nodeID: header.nodeID,
      machine: header.type,
      index: header.index,
      markIndex: header.epoch?.index ?? 0,
      markEpoch: header.epoch?.id ?? 0n,
      compression: header.compression,
      files,
      size,
    });
  }

  /** Whether there is something to send. */
  get ready(): boolean {
    return this.#chunk !== undefined;
  }

  /** Sends a block, if it is at hand. */
  sendNext(): boolean {
    const bytes = this.#chunk;
    if (bytes === undefined || this.#ended) return false;
    if (!this.channel.right.holds) return false;
    this.#chunk = undefined;
    const chunk = { type: "chunk", stream: this.#stream, bytes } as const;
    this.#peer.sender.sendData(encodeMessage(chunk));
    this.#peer.counts.snapshots += bytes.length;
    this.#place.moved(bytes.length);
    this.#read();
    return true;
  }

  /** Gets the next block, so that it is at hand. */
  #read(): void {
    if (this.#isReading) return;
    this.#isReading = true;
    this.#reader!.read().then(({ done, value }) => {
      this.#isReading = false;
      if (this.#ended) return;
      if (done) return this.#end();
      this.#chunk = value;
      this.#peer.sender.pump();
    }).catch((error) => this.#fail(error));
  }

  #end(): void {
    this.#peer.sender.endStream(this.#stream, endMessage(this.#stream, "done"));
  }

  #fail(error: unknown): void {
    if (this.#ended) return;
    const { clusterID } = this.channel;
    this.#peer.log("error", "snapshot failed", { clusterID, error });
    this.#peer.sender.endStream(
      this.#stream,
      endMessage(this.#stream, "failed", "Snapshot could not be read"),
    );
    this.#work.end(error);
  }

  #cancel(): void {
    this.#reader?.cancel().catch(() => {});
  }

  /** Nothing more is to be sent. */
  stop(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#chunk = undefined;
    this.#work.end();
    this.#cancel();
    this.#leave();
  }

  /** Takes no place any more once it has ended, and nothing is made for it either. */
  #leave(): void {
    if (--this.#places > 0) return;
    this.#place.free();
    this.#peer.transfers--;
  }
}
