/**
 * Writer of snapshot containers.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ByteWriter, crc32, grown } from "../bytes.ts";
import { SNAPSHOT_SESSIONS_BYTES_MAX } from "../limits.ts";
import { ErrSnapshotStreaming } from "../statemachine/errors.ts";
import { checkFile } from "./snapshot_file_collection.ts";
import { ErrSnapshotUnfinished } from "./errors.ts";
import {
  BLOCK_BYTES_MAX,
  BLOCK_HEAD,
  BlockChain,
  BlockType,
  encodeHeader,
  PREAMBLE,
} from "./format.ts";
import type { SnapshotHeader, SnapshotTotals } from "./store.ts";

/** Size with which the buffer of a block begins. */
const BLOCK_BYTES_FIRST = 4 * 1024;

/** Microtasks within which a `close()` called on an idle stream reaches its sink, in any engine. */
const CLOSE_STEPS = 32;

function noop(): void {}

/** Options of {@linkcode SnapshotWriter}. */
export interface SnapshotWriterOptions {
  /**
   * Set if the sink is a remote receiver: the state machine then gets
   * `ErrSnapshotStreaming` if the sink is lost (D9).
   *
   * @default {false}
   */
  readonly streaming?: boolean;
  /**
   * Called once if the state machine writes to the payload after its end, even
   * after {@linkcode SnapshotWriter.finish} has resolved: the snapshot is invalid.
   */
  readonly onLate?: (error: ErrSnapshotUnfinished) => void;
}

/**
 * Writer of one container: header, sessions, payload, external files, tail. Holds a
 * few blocks in memory besides the queue of the sink.
 *
 * The first failure of any party fails all later calls, so a state machine that
 * swallows an error does not get a snapshot. The caller ends a writer with
 * {@linkcode SnapshotWriter.finish} or {@linkcode SnapshotWriter.abort}.
 */
export class SnapshotWriter {
  /**
   * Stream for the bytes of the state machine, in chunks of any size. The machine
   * may close it, or release its lock and let the host close it, and need not
   * await its writes: everything written before {@linkcode SnapshotWriter.finish}
   * is in the snapshot (R6). A payload that is open and locked then, or is written
   * to later, makes the snapshot invalid (H16). Late writes are dropped and do not
   * fail: the promise of a `pipeTo()` that the machine forgot has no handler, and
   * its rejection would end the process.
   */
  readonly payload: WritableStream<Uint8Array>;
  readonly #sink: WritableStreamDefaultWriter<Uint8Array>;
  readonly #streaming: boolean;
  readonly #onLate: ((error: ErrSnapshotUnfinished) => void) | undefined;
  readonly #compression: SnapshotHeader["compression"];
  readonly #begun: Promise<void>;
  /** Closes the payload section and waits until it is written. */
  readonly #close: () => Promise<void>;
  readonly #chain = new BlockChain();
  /** Aborted by the first failure, with it as the reason. */
  readonly #failed = new AbortController();
  #controller?: WritableStreamDefaultController;
  #ended?: Promise<void>;
  #sinkError: unknown;
  /** Current block; grows up to its largest size, since most snapshots of small states are smaller. */
  #block = new Uint8Array(BLOCK_BYTES_FIRST);
  #filled = BLOCK_HEAD;
  /** Chunks of the state machine that were queued and not yet written. */
  #queued = 0;
  #closed = false;
  /** Set once the payload has ended: later writes are too late. */
  #over = false;
  /** Set once a write was too late. */
  #late = false;
  /** Set once `saveSnapshot()` has returned: later failures do not fail the machine's writes, see `payload`. */
  #returned = false;
  #wake = noop;

  /**
   * Creates a writer that locks `sink`, and closes or aborts it at the end.
   *
   * @throws RangeError if `sessions` is larger than `SNAPSHOT_SESSIONS_BYTES_MAX`
   */
  constructor(
    sink: WritableStream<Uint8Array>,
    header: SnapshotHeader,
    sessions: Uint8Array,
    options: SnapshotWriterOptions = {},
  ) {
    if (sessions.length > SNAPSHOT_SESSIONS_BYTES_MAX) {
      throw new RangeError(
        `Sessions take ${sessions.length} bytes, more than the ${SNAPSHOT_SESSIONS_BYTES_MAX} a snapshot may hold; allow fewer sessions`,
      );
    }
    this.#sink = sink.getWriter();
    this.#streaming = options.streaming ?? false;
    this.#onLate = options.onLate;
    this.#compression = header.compression;
    this.#begun = this.#begin(encodeHeader(header), sessions);
    // The next call reports the error; no call follows if this constructor throws.
    this.#begun.catch(noop);
    const [writable, packed] = this.#section(BlockType.Payload);
    const writer = writable.getWriter();
    this.payload = new WritableStream<Uint8Array>({
      start: (controller) => {
        this.#controller = controller;
        return this.#begun;
      },
      write: async (chunk) => {
        if (this.#over) return this.#tooLate();
        try {
          if (!(chunk instanceof Uint8Array)) {
            throw new TypeError(
              `Chunk of the snapshot is of type ${typeof chunk}; write a Uint8Array`,
            );
          }
          await writer.write(chunk);
        } catch (error) {
          const failure = this.#fail(error);
          if (!this.#returned) throw failure;
        }
        this.#queued--;
        this.#wake();
      },
      close: () => {
        this.#closed = true;
        this.#wake();
      },
      abort: (reason) => {
        this.#fail(reason);
      },
    }, {
      highWaterMark: 1,
      // A stream locked by its writer does not report its queue, so each chunk is
      // counted as it arrives.
      size: () => {
        this.#queued++;
        return 1;
      },
    });
    this.#close = async () => {
      await writer.close();
      await packed;
    };
  }

  /**
   * Error of the sink; undefined if it has not failed. Distinguishes an error of the
   * sink that the state machine passes on from an error of its own (R8).
   */
  get sinkError(): unknown {
    return this.#sinkError;
  }

  /**
   * Writes an external file; ends the payload. Call it again only once the
   * previous call has settled (F1).
   *
   * @throws RangeError if the id is not in 0…2^64-1, or the metadata is too large
   */
  async addFile(
    fileID: bigint,
    metadata: Uint8Array,
    content: ReadableStream<Uint8Array>,
  ): Promise<void> {
    const { signal } = this.#failed;
    try {
      checkFile(fileID, metadata);
      await this.#end();
      const file = new ByteWriter().u64(fileID).raw(metadata).finish();
      await this.#write(BlockType.File, file);
      const [writable, packed] = this.#section(BlockType.Content);
      await content.pipeTo(writable, { signal });
      await packed;
    } catch (error) {
      content.cancel(error).catch(noop);
      throw this.#fail(error);
    }
  }

  /**
   * Ends the payload once all queued chunks are written, writes the tail and
   * closes the sink.
   *
   * @throws ErrSnapshotStreaming if the sink was lost and `streaming` is set (D9); otherwise the first failure
   */
  async finish(): Promise<SnapshotTotals> {
    try {
      await this.#end();
      await this.#write(BlockType.Tail, this.#chain.tail());
    } catch (error) {
      throw this.#fail(error);
    }
    try {
      await this.#sink.close();
    } catch (error) {
      throw this.#lose(error);
    }
    this.#failed.signal.throwIfAborted();
    return { files: this.#chain.files };
  }

  /** Aborts the sink; pending writes fail with `reason`. Never throws; idempotent, and has no effect after `finish()`. */
  async abort(reason: unknown): Promise<void> {
    this.#fail(reason);
    await this.#sink.abort(reason).catch(noop);
  }

  /** Notes that `saveSnapshot()` has settled: writes that it left running no longer fail, since they may have no handler. */
  returned(): void {
    this.#returned = true;
  }

  #end(): Promise<void> {
    this.#returned = true;
    return this.#ended ??= (async () => {
      await this.#begun;
      // Also ends once closed: a write after the close is counted but never queued.
      while (this.#queued && !this.#closed && !this.#failed.signal.aborted) {
        await new Promise<void>((resolve) => this.#wake = resolve);
      }
      this.#failed.signal.throwIfAborted();
      // A close() of the state machine takes a few microtasks to arrive.
      for (let i = 0; i < CLOSE_STEPS && !this.#closed; i++) await undefined;
      this.#over = true;
      if (!this.#closed && this.payload.locked) {
        throw new ErrSnapshotUnfinished(
          "saveSnapshot() ended while its stream was open and locked: await the pipeTo(), or close the writer or release its lock before returning",
        );
      }
      await this.#close();
    })();
  }

  /** Fails the snapshot at the first write after the end. */
  #tooLate(): void {
    if (this.#late) return;
    this.#late = true;
    const error = new ErrSnapshotUnfinished(
      "The stream was written to after saveSnapshot() had ended: await every write and pipeTo() before returning",
    );
    this.#failed.abort(error);
    this.#wake();
    this.#onLate?.(error);
  }

  /** Makes `error` the failure of this writer unless it has one; returns the failure. */
  #fail(error: unknown): unknown {
    const { signal } = this.#failed;
    this.#failed.abort(error);
    if (!this.#returned) this.#controller?.error(signal.reason);
    this.#wake();
    return signal.reason;
  }

  #lose(error: unknown): unknown {
    if (this.#failed.signal.aborted) return this.#fail(error);
    this.#sinkError = error ??
      new Error("Sink of SnapshotWriter failed without a reason");
    return this.#fail(
      this.#streaming
        ? new ErrSnapshotStreaming(undefined, { cause: error })
        : this.#sinkError,
    );
  }

  async #begin(header: Uint8Array, sessions: Uint8Array): Promise<void> {
    await this.#push(PREAMBLE.slice());
    await this.#write(BlockType.Header, header);
    await this.#write(BlockType.Sessions, sessions);
  }

  /** Stream that packs bytes into blocks of a type, and a promise for its last block if it compresses. */
  #section(type: number): [WritableStream<Uint8Array>, Promise<void>?] {
    const blocks = new WritableStream<Uint8Array>({
      write: (chunk) => this.#append(type, chunk),
      close: () => this.#flush(type),
    });
    if (this.#compression === "none") return [blocks];
    const { readable, writable } = new CompressionStream(this.#compression);
    const packed = readable.pipeTo(blocks, { signal: this.#failed.signal });
    packed.catch(noop);
    return [writable as WritableStream<Uint8Array>, packed];
  }

  async #write(type: number, bytes: Uint8Array): Promise<void> {
    await this.#append(type, bytes);
    await this.#flush(type);
  }

  /** Copies bytes into the current block, since the caller may reuse them. */
  async #append(type: number, bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length;) {
      const part = bytes.subarray(at, at + BLOCK_BYTES_MAX - this.#filled);
      this.#block = grown(
        this.#block,
        this.#filled,
        part.length,
        BLOCK_BYTES_MAX,
      );
      this.#block.set(part, this.#filled);
      this.#filled += part.length;
      at += part.length;
      if (this.#filled === BLOCK_BYTES_MAX) await this.#flush(type);
    }
  }

  async #flush(type: number): Promise<void> {
    const length = this.#filled - BLOCK_HEAD;
    if (!length) return;
    let block = this.#block;
    // The sink may keep the block it is given.
    if (this.#filled < BLOCK_BYTES_MAX) block = block.slice(0, this.#filled);
    else this.#block = new Uint8Array(BLOCK_BYTES_MAX);
    this.#filled = BLOCK_HEAD;
    const view = new DataView(block.buffer);
    view.setUint32(4, type << 24 | length, true);
    const crc = crc32(block, this.#chain.crc, 4);
    view.setUint32(0, crc, true);
    this.#chain.add(block, type, crc);
    await this.#push(block);
  }

  async #push(bytes: Uint8Array): Promise<void> {
    try {
      await this.#sink.ready;
    } catch (error) {
      throw this.#lose(error);
    }
    this.#failed.signal.throwIfAborted();
    this.#sink.write(bytes).catch((error) => this.#lose(error));
  }
}
