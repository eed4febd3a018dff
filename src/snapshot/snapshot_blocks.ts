/**
 * Data blocks of the snapshots in a block store: written, and read back. Loaded when a
 * store makes or reads its first snapshot.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { grown } from "../bytes.ts";
import { SNAPSHOT_CHUNK_BYTES } from "../limits.ts";
import { ErrStoreCorrupted } from "../store/errors.ts";
import type { BlockStore } from "../store/store.ts";
import { ErrSnapshotCorrupted, ErrSnapshotNotFound } from "./errors.ts";
import type { SnapshotInfo } from "./store.ts";

function blockKey(prefix: string, block: number): string {
  return `${prefix}${`${block}`.padStart(8, "0")}`;
}

/** Error of a snapshot for the damage of one of its blocks. */
function corrupted(
  offset: number,
  cause: ErrStoreCorrupted,
): ErrSnapshotCorrupted {
  return new ErrSnapshotCorrupted(
    `Stored block ${cause.part} is unusable`,
    offset,
    {
      cause,
    },
  );
}

/** Info block of a snapshot. */
export interface InfoBlock {
  readonly key: string;
  /** Bytes that the block must have. */
  readonly seal: Uint8Array;
  /** Resolves to true if the snapshot was not removed in between. */
  readonly exists: () => Promise<boolean>;
}

/**
 * Checks the info block of a snapshot that is about to be read.
 *
 * @throws ErrSnapshotNotFound if the snapshot was removed
 * @throws ErrSnapshotCorrupted if the block is damaged
 */
export async function checkInfo(
  store: BlockStore,
  { id }: SnapshotInfo,
  { key, seal, exists }: InfoBlock,
): Promise<void> {
  try {
    const [bytes] = await store.get([key]);
    if (bytes?.join() === seal.join()) return;
  } catch (error) {
    if (error instanceof ErrStoreCorrupted) throw corrupted(0, error);
    throw error;
  }
  if (!await exists()) throw new ErrSnapshotNotFound(id);
  throw corrupted(
    0,
    new ErrStoreCorrupted(key, "Info block of a snapshot is damaged"),
  );
}

/** Streams the blocks of a snapshot, whose names begin with `prefix`; calls `end` once when the stream ends. */
export function readBlocks(
  store: BlockStore,
  prefix: string,
  { size, end }: { readonly size: number; readonly end: () => Promise<void> },
): ReadableStream<Uint8Array> {
  let at = 0;
  return new ReadableStream<Uint8Array>({
    pull: async (controller): Promise<void> => {
      try {
        if (at < size) {
          const bytes = await readBlock(store, prefix, { size, at });
          controller.enqueue(bytes);
          at += bytes.length;
        }
      } catch (error) {
        controller.error(error);
        return await end();
      }
      if (at < size) return;
      controller.close();
      await end();
    },
    cancel: end,
  }, { highWaterMark: 0 });
}

async function readBlock(
  store: BlockStore,
  prefix: string,
  { size, at }: { readonly size: number; readonly at: number },
): Promise<Uint8Array> {
  const key = blockKey(prefix, at / SNAPSHOT_CHUNK_BYTES);
  let bytes: Uint8Array | undefined;
  try {
    [bytes] = await store.get([key]);
  } catch (error) {
    throw error instanceof ErrStoreCorrupted ? corrupted(at, error) : error;
  }
  if (bytes?.length === Math.min(SNAPSHOT_CHUNK_BYTES, size - at)) {
    return bytes;
  }
  const what = `Block of a snapshot is ${bytes ? "truncated" : "missing"}`;
  throw corrupted(at, new ErrStoreCorrupted(key, what));
}

/** Size with which the buffer of a data block begins. */
const BLOCK_BYTES_FIRST = 4 * 1024;

/** Stream that writes bytes as data blocks. */
export class BlockWriter {
  /** Stream to write the container to. */
  readonly writable: WritableStream<Uint8Array>;
  /** Size of the container in bytes, once it is written to its end. */
  size: number | undefined;
  readonly #store: BlockStore;
  readonly #prefix: string;
  /** Current data block; grows up to `SNAPSHOT_CHUNK_BYTES`. */
  #block = new Uint8Array(BLOCK_BYTES_FIRST);
  #filled = 0;
  #blocks = 0;
  #controller: WritableStreamDefaultController | undefined;
  #failed = false;

  /** Creates a stream; the names of its blocks begin with `prefix`. */
  constructor(store: BlockStore, prefix: string) {
    this.#store = store;
    this.#prefix = prefix;
    this.writable = new WritableStream<Uint8Array>({
      start: (controller): void => void (this.#controller = controller),
      write: (bytes) => this.#write(bytes),
      close: async (): Promise<void> => {
        const size = this.#blocks * SNAPSHOT_CHUNK_BYTES + this.#filled;
        if (this.#filled > 0) await this.#flush();
        if (!this.#failed) this.size = size;
      },
    });
  }

  async #write(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length;) {
      const count = Math.min(
        bytes.length - at,
        SNAPSHOT_CHUNK_BYTES - this.#filled,
      );
      this.#block = grown(
        this.#block,
        this.#filled,
        count,
        SNAPSHOT_CHUNK_BYTES,
      );
      this.#block.set(bytes.subarray(at, at + count), this.#filled);
      at += count;
      this.#filled += count;
      if (this.#filled === SNAPSHOT_CHUNK_BYTES) await this.#flush();
    }
  }

  /** Writes one block and waits for it, so that the writer feels the backpressure of the store. */
  async #flush(): Promise<void> {
    if (this.#failed) return;
    const key = blockKey(this.#prefix, this.#blocks++);
    const bytes = this.#block.subarray(0, this.#filled);
    this.#filled = 0;
    await this.#store.write({ put: [{ key, bytes }] }, "relaxed");
  }

  /** Fails the stream, even while it is locked, and stops writing. */
  fail(reason: unknown): void {
    this.#failed = true;
    this.size = undefined;
    this.#controller?.error(reason);
  }
}
