/**
 * Byte streams into memory and out of it, for the in-memory stores.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { copyOf } from "../bytes.ts";

/** Chunks that belong to nobody else. */
export type Chunks = readonly Uint8Array[];

/**
 * A stream that keeps copies of the chunks it gets, and gives them to `done`
 * when it is closed; and what makes it fail, also when somebody has it locked.
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

/** A stream of copies of chunks, each made when it is asked for. */
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
