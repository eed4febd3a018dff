/**
 * Streams that leave time for everything else. Web Streams go from chunk to chunk
 * without giving the event loop a turn: a page would stand still for the length of
 * a snapshot, and every step of a proposal would wait for a block of its own.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Env } from "../env.ts";

/** A way into `sink` that gives the event loop a turn after each chunk. */
export function pacedSink(
  sink: WritableStream<Uint8Array>,
  env: Env,
): WritableStream<Uint8Array> {
  const writer = sink.getWriter();
  return new WritableStream({
    async write(chunk): Promise<void> {
      await writer.write(chunk);
      await env.turn();
    },
    close: () => writer.close(),
    abort: (reason) => writer.abort(reason),
  });
}

/** What comes out of `source`, with a turn of the event loop after each chunk. */
export function pacedSource(
  source: ReadableStream<Uint8Array>,
  env: Env,
): ReadableStream<Uint8Array> {
  const reader = source.getReader();
  return new ReadableStream({
    async pull(controller): Promise<void> {
      const { done, value } = await reader.read();
      await env.turn();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    cancel: (reason) => reader.cancel(reason),
  }, { highWaterMark: 0 });
}
