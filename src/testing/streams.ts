/**
 * The two ends of a snapshot as the suite gives them to a machine: a sink that
 * keeps what it gets and a source that cuts it into pieces, each with a hook for
 * what is to happen between two pieces.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { MaybePromise } from "../statemachine/types.ts";

/** Called with the number of the piece, from 0, before it is taken or given; what it throws fails the stream. */
export type Hook = (piece: number) => MaybePromise<void>;

/** A sink that keeps copies of what is written to it. */
export class Sink {
  /** What a machine writes to. */
  readonly writable: WritableStream<Uint8Array>;
  /** Why the sink failed, if it has. */
  failure: { readonly error: unknown } | undefined;
  /** What was written that is not bytes, if anything. */
  stranger: { readonly chunk: unknown } | undefined;
  #chunks: Uint8Array[] = [];
  #ended = false;

  /** A sink; `hook` runs before each write is accepted. */
  constructor(hook?: Hook) {
    let piece = 0;
    this.writable = new WritableStream<Uint8Array>({
      write: async (chunk): Promise<void> => {
        if (!(chunk instanceof Uint8Array)) this.stranger ??= { chunk };
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

  /** Closes the stream unless the machine did, so that all it wrote has arrived; false if the machine left it open and locked (R6). */
  async finish(turn: () => Promise<void>): Promise<boolean> {
    // A close that was not awaited gets here after the writes before it.
    for (let i = 0; i < 8 && this.writable.locked && !this.#ended; i++) {
      await turn();
    }
    if (this.#ended) return true;
    if (this.writable.locked) return false;
    await this.writable.close();
    return true;
  }

  /** All that was written, in one piece. */
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

/** How long the next piece is to be, in bytes; at least 1. */
export type Sizes = () => number;

/** Everything in one piece. */
export const WHOLE: Sizes = (): number => Infinity;

/** Pieces of one byte, up to a length where that would only cost time. */
export function bytewise(): Sizes {
  let pieces = 0;
  return (): number => pieces++ < 4096 ? 1 : 4096;
}

/** Pieces of random sizes. */
export function pieces(random: () => number): Sizes {
  return (): number => 1 + random() % (random() % 4 === 0 ? 1000 : 7);
}

/** A source that gives `bytes` in pieces of `sizes`, on demand. */
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

/** All bytes of a stream. */
export async function collect(
  stream: ReadableStream<Uint8Array>,
): Promise<Uint8Array> {
  return new Uint8Array(await new Response(stream as BodyInit).arrayBuffer());
}
