/**
 * Stream of one snapshot to one client.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { encodeMessage } from "../message_codec.ts";
import { endMessage } from "./log_stream.ts";
import type { ReadPermission } from "./read_permission.ts";
import type { OutboundStream, Sender } from "./sender.ts";
import type { SnapshotOffer } from "./snapshot_offer.ts";
import type { Telemetry, TracedWork } from "./telemetry.ts";
import type { TransferSlot } from "./transfer_slots.ts";

/** Dependencies of a {@linkcode SnapshotTransfer}. */
export interface SnapshotTransferOptions {
  /** Number of the channel. */
  readonly channel: number;
  /** Number of the stream. */
  readonly stream: number;
  /** Slot of the transfer, released at its end. */
  readonly slot: TransferSlot;
  /** Permission to read the cluster. */
  readonly permission: ReadPermission;
  /** Sender of the connection. */
  readonly sender: Sender;
  /** Counters and traces of the server. */
  readonly telemetry: Telemetry;
  /** Opens the snapshot. */
  readonly open: () => Promise<SnapshotOffer>;
  /** Called with the opened snapshot before it is announced; takes over its log retention. */
  readonly opened: (offer: SnapshotOffer) => void;
  /** Called with the error that ended the transfer. */
  readonly failed: (error: unknown) => void;
}

/** Sends a snapshot, one verified block ahead of the client's credit. */
export class SnapshotTransfer implements OutboundStream {
  readonly #options: SnapshotTransferOptions;
  readonly #work: TracedWork;
  #reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
  /** Block read and not sent yet. */
  #chunk: Uint8Array | undefined;
  #isReading = false;
  /** The slot is in use while the snapshot is being opened, also after the transfer has ended. */
  #isOpening = true;
  #isStopped = false;
  /** Error that ended the transfer. */
  #error: unknown;

  /** Creates a transfer and starts it. */
  constructor(options: SnapshotTransferOptions) {
    const { slot, sender, stream, telemetry } = options;
    this.#options = options;
    this.#work = telemetry.begin("snapshot");
    slot.evict = (reason): void =>
      sender.endStream(stream, endMessage(stream, "failed", reason));
    // Never rejects: an error ends the transfer.
    void this.#open().then(() => {
      this.#isOpening = false;
      this.#releaseSlot();
    });
  }

  /** Number of the channel. */
  get channel(): number {
    return this.#options.channel;
  }

  async #open(): Promise<void> {
    const { open, opened, slot } = this.#options;
    try {
      const offer = await open();
      this.#reader = offer.content.getReader();
      if (this.#isStopped) {
        offer.retention.release();
        return this.#cancel();
      }
      opened(offer);
      this.#announce(offer);
      slot.start();
      this.#read();
    } catch (error) {
      this.#fail(error);
    }
  }

  #announce({ header, files, size }: SnapshotOffer): void {
    const { sender, stream } = this.#options;
    sender.send({
      type: "snapshot",
      stream,
      nodeID: header.nodeID,
      machine: header.type,
      index: header.index,
      epochIndex: header.epoch?.index ?? 0,
      epochID: header.epoch?.id ?? 0n,
      compression: header.compression,
      files,
      size,
    });
  }

  /** True if a block can be sent. */
  get isReady(): boolean {
    return this.#chunk !== undefined;
  }

  /** Sends the next block if it is available without waiting. */
  sendNext(): boolean {
    const { permission, sender, slot, stream, telemetry } = this.#options;
    const bytes = this.#chunk;
    if (bytes === undefined || this.#isStopped || !permission.isValid) {
      return false;
    }
    this.#chunk = undefined;
    sender.sendData(encodeMessage({ type: "chunk", stream, bytes }));
    telemetry.counts.snapshots += bytes.length;
    slot.transferred(bytes.length);
    this.#read();
    return true;
  }

  /** Reads the next block ahead. */
  #read(): void {
    if (this.#isReading) return;
    this.#isReading = true;
    this.#reader!.read().then(({ done, value }) => {
      this.#isReading = false;
      if (this.#isStopped) return;
      if (done) return this.#end();
      this.#chunk = value;
      this.#options.sender.pump();
    }).catch((error) => this.#fail(error));
  }

  #end(): void {
    const { sender, stream } = this.#options;
    sender.endStream(stream, endMessage(stream, "done"));
  }

  #fail(error: unknown): void {
    if (this.#isStopped) return;
    const { failed, sender, stream } = this.#options;
    this.#error = error;
    failed(error);
    sender.endStream(
      stream,
      endMessage(stream, "failed", "Snapshot could not be read"),
    );
  }

  #cancel(): void {
    this.#reader?.cancel().catch(() => {});
  }

  /** Ends the transfer. */
  stop(): void {
    if (this.#isStopped) return;
    this.#isStopped = true;
    this.#chunk = undefined;
    this.#work.end(this.#error);
    this.#cancel();
    this.#releaseSlot();
  }

  /** Releases the slot once the transfer has ended and its snapshot is not being opened any more. */
  #releaseSlot(): void {
    if (this.#isStopped && !this.#isOpening) this.#options.slot.release();
  }
}
