/**
 * Reader of snapshot containers.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ByteReader } from "../bytes.ts";
import { SNAPSHOT_INFLATE_BYTES_MAX } from "../limits.ts";
import { ErrSnapshotCorrupted } from "./errors.ts";
import { BlockType, decodeHeader } from "./format.ts";
import { parseSnapshot } from "./parser.ts";
import type { SnapshotHeader, SnapshotTotals } from "./store.ts";

function noop(): void {}

/** Reads the blocks of a source one at a time. */
class BlockReader {
  /** First error of reading, or the reason for which it was cancelled. */
  failure: unknown;
  /** Damage that was found, or the error of the source. */
  sourceError: unknown;
  /** Position of the block returned last, in bytes. */
  offset = 0;
  readonly #source: ReadableStreamDefaultReader<Uint8Array>;
  readonly #parser = parseSnapshot();
  #step = this.#parser.next();
  #isConsumed = false;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(source: ReadableStream<Uint8Array>) {
    this.#source = source.getReader();
  }

  /** Returns the data of the next block if it has that type; otherwise undefined, and the block remains the next one. */
  take(type: number): Promise<Uint8Array | undefined> {
    const taken = this.#turn.then(() => this.#take(type));
    this.#turn = taken.catch(noop);
    return taken;
  }

  async #take(type: number): Promise<Uint8Array | undefined> {
    try {
      if (this.failure) throw this.failure;
      if (this.#isConsumed) this.#step = this.#parser.next();
      this.#isConsumed = false;
      while (!this.#step.value) {
        const { value } = await this.#source.read();
        if (this.failure) throw this.failure;
        this.#step = this.#parser.next(value);
      }
    } catch (error) {
      throw this.fail(error);
    }
    if (this.#step.done || this.#step.value.type !== type) return;
    this.#isConsumed = true;
    this.offset = this.#step.value.offset;
    return this.#step.value.data;
  }

  /** Returns the totals once the tail is verified and the source has ended. */
  async end(): Promise<SnapshotTotals> {
    await this.take(BlockType.Tail);
    await this.take(BlockType.Preamble);
    return this.#step.value as SnapshotTotals;
  }

  fail(error: unknown): unknown {
    const first = !this.failure;
    // Never rejects: errors of cancelling the source are ignored.
    this.cancel(error);
    if (first) this.sourceError = this.failure;
    return this.failure;
  }

  async cancel(reason?: unknown): Promise<void> {
    this.failure ??= reason ?? new Error("SnapshotReader was cancelled");
    await this.#source.cancel(reason).catch(noop);
  }
}

/**
 * Reader of one container, created by {@linkcode openSnapshot}. It verifies each
 * block before it returns any of its bytes, and reads the source on demand (H8).
 */
export class SnapshotReader {
  /** Header of the snapshot. */
  readonly header: SnapshotHeader;
  /** Encoded sessions, as they were passed to the writer. */
  readonly sessions: Uint8Array;
  /**
   * Bytes that the state machine wrote (R9). Fails with `ErrSnapshotCorrupted` at
   * the first damaged block, or with the error of the source.
   */
  readonly payload: ReadableStream<Uint8Array>;
  readonly #blocks: BlockReader;
  /** Ends the current section. */
  #seal: () => Promise<void>;

  private constructor(
    blocks: BlockReader,
    header: SnapshotHeader,
    sessions: Uint8Array,
  ) {
    this.#blocks = blocks;
    this.header = header;
    this.sessions = sessions;
    [this.payload, this.#seal] = this.#section(BlockType.Payload);
  }

  /** Opens a container; use {@linkcode openSnapshot}. */
  static async open(
    source: ReadableStream<Uint8Array>,
  ): Promise<SnapshotReader> {
    const blocks = new BlockReader(source);
    try {
      const start = new ByteReader(
        await blocks.take(BlockType.Preamble) as Uint8Array,
      );
      const header = decodeHeader(
        await blocks.take(BlockType.Header) as Uint8Array,
        start.u32(),
      );
      const parts: Uint8Array[] = [];
      let length = 0;
      for (
        let part;
        (part = await blocks.take(BlockType.Sessions)) !== undefined;
      ) {
        parts.push(part);
        length += part.length;
      }
      const sessions = new Uint8Array(length);
      for (const part of parts.reverse()) {
        sessions.set(part, length -= part.length);
      }
      return new SnapshotReader(blocks, header, sessions);
    } catch (error) {
      throw blocks.fail(error);
    }
  }

  /**
   * Damage that was found, or the error of the source; undefined if neither.
   * Distinguishes it from an error of the state machine that reads (R8).
   */
  get sourceError(): unknown {
    return this.#blocks.sourceError;
  }

  /**
   * Calls `onFile` with each external file. The payload and each file end here:
   * bytes that were not read are verified and discarded (F3).
   *
   * @throws ErrSnapshotCorrupted if the container is damaged; otherwise the error of the source or of `onFile`
   */
  async files(
    onFile: (
      fileID: bigint,
      metadata: Uint8Array,
      content: ReadableStream<Uint8Array>,
    ) => Promise<void> | void,
  ): Promise<void> {
    await this.#seal();
    for (
      let file;
      (file = await this.#blocks.take(BlockType.File)) !== undefined;
    ) {
      const [content, seal] = this.#section(BlockType.Content);
      this.#seal = seal;
      await onFile(new ByteReader(file).u64(), file.slice(8), content);
      await seal();
    }
  }

  /**
   * Verifies the rest of the container, including bytes that were not read (R9).
   *
   * @throws ErrSnapshotCorrupted if the container is damaged; otherwise the error of the source, or the reason passed to `cancel()`
   */
  async finish(): Promise<SnapshotTotals> {
    await this.files(noop);
    return await this.#blocks.end();
  }

  /** Cancels the source; pending reads fail with `reason`. Never throws; idempotent. */
  cancel(reason?: unknown): Promise<void> {
    return this.#blocks.cancel(reason);
  }

  /** Stream of a section, and a function that ends it and discards its unread bytes. */
  #section(type: number): [ReadableStream<Uint8Array>, () => Promise<void>] {
    const blocks = this.#blocks;
    const { compression } = this.header;
    let sealed = false;
    let over = false;
    let reading: Promise<void> | undefined;
    let inflated: ReadableStreamDefaultReader<Uint8Array> | undefined;
    if (compression !== "none") {
      const stored = new ReadableStream<BufferSource>({
        async pull(controller): Promise<void> {
          const data = over ? undefined : await blocks.take(type);
          if (!data) return controller.close();
          // In small parts: each may inflate to a thousand times its size.
          for (let at = 0; at < data.length;) {
            const part = data.slice(at, at += SNAPSHOT_INFLATE_BYTES_MAX);
            controller.enqueue(part);
          }
        },
      }, { highWaterMark: 0 });
      inflated = stored.pipeThrough(new DecompressionStream(compression))
        .getReader();
    }

    async function next(): Promise<Uint8Array | undefined> {
      if (!inflated) return blocks.take(type);
      try {
        return (await inflated.read()).value;
      } catch (cause) {
        const what = "Compressed data is invalid";
        throw blocks.failure ??
          blocks.fail(new ErrSnapshotCorrupted(what, blocks.offset, { cause }));
      }
    }

    const stream = new ReadableStream<Uint8Array>({
      pull(controller): Promise<void> {
        if (sealed) {
          throw new TypeError(
            "Section of the snapshot was ended by files() or finish(); read it before calling them",
          );
        }
        return reading = next().then((data) =>
          data ? controller.enqueue(data) : controller.close()
        );
      },
    }, { highWaterMark: 0 });

    return [stream, async () => {
      sealed = true;
      // Let a read under way complete: failing it could reject a promise that has no handler.
      await reading?.catch(noop);
      over = true;
      await inflated?.cancel().catch(noop);
      while (await blocks.take(type));
    }];
  }
}

/**
 * Opens a container and reads its header and sessions. Locks `source`, and cancels
 * it on an error.
 *
 * @throws ErrSnapshotCorrupted if header or sessions are damaged, or `source` is not a snapshot (H8)
 * @throws ErrSnapshotVersion if its format version is not supported
 */
export function openSnapshot(
  source: ReadableStream<Uint8Array>,
): Promise<SnapshotReader> {
  return SnapshotReader.open(source);
}
