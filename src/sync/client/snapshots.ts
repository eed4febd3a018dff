/**
 * The snapshot of the server, as the place where a replica far behind looks for
 * one.
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
import type { SnapshotSource } from "../../log/log.ts";
import type { MaybePromise, Type } from "../../statemachine/types.ts";
import { ErrSnapshotNotFound } from "../../snapshot/errors.ts";
import type { SnapshotHeader, SnapshotInfo } from "../../snapshot/store.ts";
import { ErrProtocol, ErrRemote } from "../errors.ts";
import type { Snapshot } from "../messages.ts";
import type { Connection, StreamMessage } from "./connection.ts";
import type { Holder, Inbox } from "./inbox.ts";

/** What the snapshots of a log take. */
export interface SnapshotsParts {
  readonly clusterID: bigint;
  readonly channel: number;
  readonly env: Env;
  /** Inbox that counts what is received now. */
  readonly inbox: () => Inbox;
  /** The connection, once the log is open. */
  readonly connection: () => Connection | undefined;
  /** Told of the bytes that have come of how many, 0 if nobody knows; of nothing at the end. */
  readonly progress: (received?: number, size?: number) => void;
}

const COMPRESSIONS: readonly string[] = ["none", "gzip", "deflate-raw"];

/** The newest snapshot of the server, while there is a connection. */
export class RemoteSnapshots implements SnapshotSource {
  readonly #parts: SnapshotsParts;
  #offered: Fetch | undefined;
  readonly #active = new Set<Fetch>();
  #count = 0;

  /** The snapshots of one log. */
  constructor(parts: SnapshotsParts) {
    this.#parts = parts;
  }

  /** The newest one, on offer to be opened for a while; none without a connection. */
  list(clusterID: bigint): MaybePromise<readonly SnapshotInfo[]> {
    const connection = this.#parts.connection();
    if (clusterID !== this.#parts.clusterID || connection === undefined) {
      return [];
    }
    return this.#fetch(connection).then((fetch) => fetch ? [fetch.info] : []);
  }

  async #fetch(connection: Connection): Promise<Fetch | undefined> {
    this.#offered?.end(new ErrSnapshotNotFound(this.#offered.id));
    const fetch: Fetch = new Fetch(
      `${++this.#count}`,
      this.#parts,
      connection,
      () => this.#active.delete(fetch),
    );
    this.#active.add(this.#offered = fetch);
    return await fetch.ready ? fetch : undefined;
  }

  /**
   * The container's bytes, as they come.
   *
   * @throws ErrSnapshotNotFound if the server has another one by now
   */
  async open(info: SnapshotInfo): Promise<ReadableStream<Uint8Array>> {
    let fetch = this.#offered;
    if (fetch?.id !== info.id || fetch.isOver) {
      const connection = this.#parts.connection();
      fetch = connection && await this.#fetch(connection);
    }
    if (fetch?.info.index !== info.index) {
      throw new ErrSnapshotNotFound(info.id);
    }
    this.#offered = undefined;
    return fetch.open();
  }

  /** The connection is lost: what has come whole is good all the same. */
  lost(error: unknown): void {
    for (const fetch of [...this.#active]) fetch.lost(error);
  }

  /** The log is closed. */
  close(error: unknown): void {
    for (const fetch of [...this.#active]) fetch.end(error);
    this.#offered = undefined;
  }
}

/** One snapshot on its way. */
class Fetch implements Holder {
  readonly id: string;
  /** Whether there is one; never rejects. */
  readonly ready: Promise<boolean>;
  readonly #parts: SnapshotsParts;
  readonly #connection: Connection;
  readonly #stream: number;
  readonly #inbox: Inbox;
  readonly #leave: () => void;
  readonly #onEnd: () => void;
  #info: SnapshotInfo | undefined;
  #queue: { bytes: Uint8Array; size: number }[] = [];
  #received = 0;
  /** How often in a row it was asked to let go. */
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
    this.#inbox = parts.inbox();
    this.#leave = this.#inbox.join(this);
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

  get heldBytes(): number {
    return this.#queue.reduce((sum, { size }) => sum + size, 0);
  }

  shed(): void {
    // It cannot be asked for in the middle: whoever takes it has more time.
    if (++this.#stalls * SYNC_STALL_MS < SYNC_SNAPSHOT_OFFER_MS) return;
    this.end(new ErrRemote("Snapshot was not taken as it came"));
  }

  #take(message: StreamMessage, size: number): void {
    switch (message.type) {
      case "snapshot":
        this.#info = this.#infoOf(message);
        if (this.#info === undefined) {
          return this.end(new ErrProtocol("Snapshot is of an unknown kind"));
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
        this.end(new ErrProtocol(`Snapshot was answered by ${message.type}`));
    }
  }

  #infoOf(message: Snapshot): SnapshotInfo | undefined {
    const { nodeID, machine, index, compression, size, files } = message;
    if (
      machine < 1 || machine > 3 || !COMPRESSIONS.includes(compression) ||
      this.#info !== undefined
    ) return undefined;
    const { markIndex, markEpoch } = message;
    return {
      clusterID: this.#parts.clusterID,
      nodeID,
      type: machine as Type,
      kind: "full",
      index,
      epoch: markIndex > 0 ? { index: markIndex, id: markEpoch } : undefined,
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

  /** Its bytes; to be called once. */
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
          return this.#inbox.release(next.size);
        }
        if (this.#isOver) throw this.#failure;
        controller.close();
        this.end(undefined);
      },
      cancel: (reason) => this.end(reason),
    }, { highWaterMark: 0 });
  }

  /** The connection is lost. */
  lost(error: unknown): void {
    if (!this.#isDone) this.end(error);
  }

  /** Ends it, also on the server. */
  end(reason: unknown): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#failure = reason;
    this.#cancelOffer?.();
    this.#connection.stop(this.#stream);
    for (const { size } of this.#queue.splice(0)) {
      this.#inbox.release(size);
    }
    this.#leave();
    this.#onEnd();
    if (this.#isOpened) this.#parts.progress();
    this.#settle(false);
    this.#wake?.();
  }
}
