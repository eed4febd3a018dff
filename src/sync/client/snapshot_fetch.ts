/**
 * Transfer of a snapshot of the server. Loaded when the first one is asked for.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../../env.ts";
import {
  SYNC_SNAPSHOT_MS_MAX,
  SYNC_SNAPSHOT_OFFER_MS,
  SYNC_STALL_MS,
} from "../../limits.ts";
import type { Type } from "../../statemachine/types.ts";
import { ErrSnapshotNotFound } from "../../snapshot/errors.ts";
import type { SnapshotHeader, SnapshotInfo } from "../../snapshot/store.ts";
import { ErrProtocol, ErrRemote } from "../errors.ts";
import type { Snapshot } from "../messages.ts";
import type { Connection, StreamMessage } from "./connection.ts";
import type { BufferUser, ReceiveBuffer } from "./receive_buffer.ts";

/** Dependencies of a {@linkcode RemoteSnapshots}. */
export interface SnapshotsParts {
  readonly clusterID: bigint;
  readonly channel: number;
  readonly env: Env;
  /** Returns the receive buffer of the present link. */
  readonly receiveBuffer: () => ReceiveBuffer;
  /** Returns the connection on which the log is open. */
  readonly connection: () => Connection | undefined;
  /** Called with the bytes received and the size, 0 if unknown; without arguments at the end. */
  readonly progress: (received?: number, size?: number) => void;
}

const COMPRESSIONS: readonly string[] = ["none", "gzip", "deflate-raw"];

/** Transfer of one snapshot. */
export class SnapshotFetch implements BufferUser {
  readonly id: string;
  /** Resolves to true once the description has arrived, to false if the transfer ended before; never rejects. */
  readonly ready: Promise<boolean>;
  readonly #parts: SnapshotsParts;
  readonly #connection: Connection;
  readonly #stream: number;
  readonly #receiveBuffer: ReceiveBuffer;
  readonly #leave: () => void;
  readonly #onEnd: () => void;
  #info: SnapshotInfo | undefined;
  #queue: { bytes: Uint8Array; size: number }[] = [];
  #received = 0;
  /** Consecutive calls of `shed()` without progress. */
  #stalls = 0;
  #isDone = false;
  #isOpened = false;
  #failure: unknown;
  #isOver = false;
  #settle!: (ready: boolean) => void;
  #wake: (() => void) | undefined;
  #cancelOffer: (() => void) | undefined;

  constructor(
    id: string,
    parts: SnapshotsParts,
    connection: Connection,
    onEnd: () => void,
  ) {
    this.id = id;
    this.#onEnd = onEnd;
    this.#parts = parts;
    this.#connection = connection;
    this.ready = new Promise((resolve) => this.#settle = resolve);
    this.#receiveBuffer = parts.receiveBuffer();
    this.#leave = this.#receiveBuffer.join(this);
    this.#stream = connection.stream((message, size) =>
      this.#take(message, size)
    );
    this.#cancelOffer = parts.env.setTimer(
      () => this.end(new ErrSnapshotNotFound(id)),
      SYNC_SNAPSHOT_MS_MAX,
    );
    const { channel } = parts;
    connection.send({ type: "fetch", channel, stream: this.#stream });
  }

  get info(): SnapshotInfo {
    return this.#info!;
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  get bufferedBytes(): number {
    return this.#queue.reduce((sum, { size }) => sum + size, 0);
  }

  shed(): void {
    // A transfer cannot be resumed, so its reader gets more time than that of a log.
    if (++this.#stalls * SYNC_STALL_MS < SYNC_SNAPSHOT_OFFER_MS) return;
    this.end(
      new ErrRemote(
        `Snapshot was not read for ${SYNC_SNAPSHOT_OFFER_MS} ms while it was received`,
      ),
    );
  }

  #take(message: StreamMessage, size: number): void {
    switch (message.type) {
      case "snapshot":
        this.#info = this.#infoOf(message);
        if (this.#info === undefined) {
          return this.end(
            new ErrProtocol(
              `Snapshot has an unknown machine type ${message.machine} or compression ${message.compression}, or was described twice`,
            ),
          );
        }
        this.#cancelOffer?.();
        this.#cancelOffer = this.#parts.env.setTimer(
          () => this.end(new ErrSnapshotNotFound(this.id)),
          SYNC_SNAPSHOT_OFFER_MS,
        );
        return this.#settle(true);
      case "chunk":
        this.#queue.push({ bytes: message.bytes, size });
        this.#received += message.bytes.length;
        if (this.#isOpened) this.#tell();
        return this.#wake?.();
      case "end":
        this.#connection.forget(this.#stream);
        if (message.reason !== "done") {
          return this.end(
            new ErrRemote(
              `Snapshot has ended: ${message.message || message.reason}`,
            ),
          );
        }
        this.#isDone = true;
        return this.#wake?.();
      default:
        this.end(
          new ErrProtocol(
            `Server replied with ${message.type} to a request for a snapshot`,
          ),
        );
    }
  }

  #infoOf(message: Snapshot): SnapshotInfo | undefined {
    const { nodeID, machine, index, compression, size, files } = message;
    if (
      machine < 1 || machine > 3 || !COMPRESSIONS.includes(compression) ||
      this.#info !== undefined
    ) return undefined;
    const { epochIndex, epochID } = message;
    return {
      clusterID: this.#parts.clusterID,
      nodeID,
      type: machine as Type,
      kind: "full",
      index,
      epoch: epochIndex > 0 ? { index: epochIndex, id: epochID } : undefined,
      compression: compression as SnapshotHeader["compression"],
      id: this.id,
      size,
      files,
      imported: false,
    };
  }

  #tell(): void {
    this.#parts.progress(this.#received, this.#info?.size ?? 0);
  }

  /** Streams the bytes; called once. */
  open(): ReadableStream<Uint8Array> {
    this.#isOpened = true;
    this.#cancelOffer?.();
    this.#cancelOffer = undefined;
    this.#tell();
    return new ReadableStream<Uint8Array>({
      pull: async (controller) => {
        while (this.#queue.length === 0 && !this.#isDone && !this.#isOver) {
          await new Promise<void>((resolve) => this.#wake = resolve);
        }
        this.#stalls = 0;
        const next = this.#queue.shift();
        if (next !== undefined) {
          controller.enqueue(next.bytes);
          return this.#receiveBuffer.release(next.size);
        }
        if (this.#isOver) throw this.#failure;
        controller.close();
        this.end(undefined);
      },
      cancel: (reason) => this.end(reason),
    }, { highWaterMark: 0 });
  }

  /** Ends the transfer after a lost connection, unless it is complete. */
  lost(error: unknown): void {
    if (!this.#isDone) this.end(error);
  }

  /** Ends the transfer, also on the server. */
  end(reason: unknown): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#failure = reason;
    this.#cancelOffer?.();
    this.#connection.stop(this.#stream);
    for (const { size } of this.#queue.splice(0)) {
      this.#receiveBuffer.release(size);
    }
    this.#leave();
    this.#onEnd();
    if (this.#isOpened) this.#parts.progress();
    this.#settle(false);
    this.#wake?.();
  }
}
