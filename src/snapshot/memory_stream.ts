/**
 * Byte streams into and out of memory, for the in-memory stores.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { copyOf } from "../bytes.ts";

/** Chunks of bytes owned by a store. */
export type Chunks = readonly Uint8Array[];

/**
 * Stream that copies its chunks and passes them to `done` when it is closed; and a
 * function that fails the stream, even while it is locked.
 */
export function collectChunks(
  done: (chunks: Chunks, size: number) => void,
): [WritableStream<Uint8Array>, (reason: unknown) => void] {
  let controller: WritableStreamDefaultController;
  let chunks: Uint8Array[] = [];
  let size = 0;
  const writable = new WritableStream<Uint8Array>({
    start(own): void {
      controller = own;
    },
    write(chunk): void {
      chunks.push(copyOf(chunk));
      size += chunk.length;
    },
    close: () => done(chunks, size),
  });
  return [writable, (reason) => {
    chunks = [];
    controller.error(reason);
  }];
}

/** Stream of copies of chunks, each made on demand. */
export function replayChunks(chunks: Chunks): ReadableStream<Uint8Array> {
  let next = 0;
  return new ReadableStream<Uint8Array>({
    pull(controller): void {
      const chunk = chunks[next++];
      if (chunk) controller.enqueue(copyOf(chunk));
      else controller.close();
    },
  }, { highWaterMark: 0 });
}
