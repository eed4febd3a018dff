/**
 * Streams that the suite passes to a machine: a sink that stores what is
 * written, and a source that yields pieces, each with a hook between pieces.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { MaybePromise } from "../statemachine/types.ts";

/** Called with the number of the piece, from 0, before it is accepted or yielded; an error fails the stream. */
export type Hook = (piece: number) => MaybePromise<void>;

/** Sink that stores copies of what is written. */
export class Sink {
  /** Stream for the machine. */
  readonly writable: WritableStream<Uint8Array>;
  /** Error of the sink, if it has failed. */
  failure: { readonly error: unknown } | undefined;
  /** First chunk that is not bytes, if there was one. */
  nonBytes: { readonly chunk: unknown } | undefined;
  #chunks: Uint8Array[] = [];
  #ended = false;

  /** Creates a sink; `hook` is called before each write is accepted. */
  constructor(hook?: Hook) {
    let piece = 0;
    this.writable = new WritableStream<Uint8Array>({
      write: async (chunk): Promise<void> => {
        if (!(chunk instanceof Uint8Array)) this.nonBytes ??= { chunk };
        else this.#chunks.push(chunk.slice());
        try {
          await hook?.(piece++);
        } catch (error) {
          this.failure = { error };
          throw error;
        }
      },
      close: (): void => void (this.#ended = true),
      abort: (): void => void (this.#ended = true),
    });
  }

  /**
   * Closes the stream unless the machine did, so that all writes have arrived;
   * false if the machine left it locked (R6).
   */
  async finish(turn: () => Promise<void>): Promise<boolean> {
    // An unawaited close arrives after the writes before it.
    for (let i = 0; i < 8 && this.writable.locked && !this.#ended; i++) {
      await turn();
    }
    if (this.#ended) return true;
    if (this.writable.locked) return false;
    await this.writable.close();
    return true;
  }

  /** Returns everything written, in one array. */
  bytes(): Uint8Array {
    const length = this.#chunks.reduce((sum, chunk) => sum + chunk.length, 0);
    const bytes = new Uint8Array(length);
    let at = 0;
    for (const chunk of this.#chunks) {
      bytes.set(chunk, at);
      at += chunk.length;
    }
    return bytes;
  }
}

/** Length of the next piece, in bytes; at least 1. */
export type Sizes = () => number;

/** One piece of everything. */
export const WHOLE: Sizes = (): number => Infinity;

/** Creates pieces of one byte, up to a total beyond which they would only cost time. */
export function bytewise(): Sizes {
  let pieces = 0;
  return (): number => pieces++ < 4096 ? 1 : 4096;
}

/** Creates pieces of random sizes. */
export function pieces(random: () => number): Sizes {
  return (): number => 1 + random() % (random() % 4 === 0 ? 1000 : 7);
}

/** Streams `bytes` in pieces of `sizes`, on demand. */
export function source(
  bytes: Uint8Array,
  sizes: Sizes,
  hook?: Hook,
): ReadableStream<Uint8Array> {
  let at = 0;
  let piece = 0;
  return new ReadableStream<Uint8Array>({
    async pull(controller): Promise<void> {
      await hook?.(piece++);
      if (at >= bytes.length) return controller.close();
      const end = Math.min(bytes.length, at + sizes());
      controller.enqueue(bytes.slice(at, end));
      at = end;
    },
  }, { highWaterMark: 0 });
}

/** Reads a stream to its end. */
export async function collect(
  stream: ReadableStream<Uint8Array>,
): Promise<Uint8Array> {
  return new Uint8Array(await new Response(stream as BodyInit).arrayBuffer());
}
