/**
 * Streams of snapshots between two threads, chunk by chunk. They are relayed and not
 * transferred: not all engines transfer streams, and a transferred one loses the
 * class of its errors.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { copyOf } from "../bytes.ts";
import type { Link, Sent } from "./link.ts";
import type { SentError, SentErrors } from "./sent_error.ts";

/** Streams of this thread that the other one writes to or reads from, by number. */
export class ServedStreams {
  readonly #writers = new Map<
    number,
    WritableStreamDefaultWriter<Uint8Array>
  >();
  readonly #readers = new Map<
    number,
    ReadableStreamDefaultReader<Uint8Array>
  >();
  #made = 0;
  readonly #errors: SentErrors;

  constructor(errors: SentErrors) {
    this.#errors = errors;
  }

  /** Lets the other thread write to a stream; returns its number. */
  write(stream: WritableStream<Uint8Array>): number {
    this.#writers.set(++this.#made, stream.getWriter());
    return this.#made;
  }

  /** Lets the other thread read from a stream; returns its number. */
  read(stream: ReadableStream<Uint8Array>): number {
    this.#readers.set(++this.#made, stream.getReader());
    return this.#made;
  }

  /** Ends the use of a stream by the other thread; one that it has left locked stays so. */
  release(stream: number, isLocked: boolean): void {
    if (!isLocked) {
      this.#writers.get(stream)?.releaseLock();
      this.#readers.get(stream)?.releaseLock();
    }
    this.#writers.delete(stream);
    this.#readers.delete(stream);
  }

  /** Answers a call of the other thread; undefined if it is about no stream. */
  serve(method: string, args: unknown): Promise<Sent> | undefined {
    switch (method) {
      case "write":
        return this.#write(args as { stream: number; chunk: Uint8Array });
      case "closeStream":
        return this.#close(args as { stream: number });
      case "abortStream":
        return this.#abort(args as { stream: number; reason: SentError });
      case "pull":
        return this.#pull(args as { stream: number });
      case "cancelStream":
        return this.#cancel(args as { stream: number; reason: SentError });
      default:
        return undefined;
    }
  }

  #writer(stream: number): WritableStreamDefaultWriter<Uint8Array> {
    const writer = this.#writers.get(stream);
    if (writer === undefined) throw ended(stream);
    return writer;
  }

  #reader(stream: number): ReadableStreamDefaultReader<Uint8Array> {
    const reader = this.#readers.get(stream);
    if (reader === undefined) throw ended(stream);
    return reader;
  }

  async #write(
    { stream, chunk }: { stream: number; chunk: Uint8Array },
  ): Promise<Sent> {
    await this.#writer(stream).write(chunk);
    return { value: undefined };
  }

  async #close({ stream }: { stream: number }): Promise<Sent> {
    await this.#writer(stream).close();
    return { value: undefined };
  }

  async #abort(
    { stream, reason }: { stream: number; reason: SentError },
  ): Promise<Sent> {
    await this.#writer(stream).abort(this.#errors.received(reason));
    return { value: undefined };
  }

  async #pull({ stream }: { stream: number }): Promise<Sent> {
    const { done, value } = await this.#reader(stream).read();
    if (done) return { value: undefined };
    // The host may go on using its bytes.
    const chunk = copyOf(value);
    return { value: chunk, transfer: [chunk.buffer] };
  }

  async #cancel(
    { stream, reason }: { stream: number; reason: SentError },
  ): Promise<Sent> {
    await this.#reader(stream).cancel(this.#errors.received(reason));
    return { value: undefined };
  }
}

function ended(stream: number): TypeError {
  return new TypeError(
    `Stream ${stream} of the worker is used after the call that it was given to`,
  );
}

/** Sink that writes to a stream of the other thread. */
export function relayedSink(
  link: Link,
  stream: number,
): WritableStream<Uint8Array> {
  return new WritableStream<Uint8Array>({
    async write(written): Promise<void> {
      // The machine may go on using its bytes.
      const chunk = copyOf(written);
      await link.call("write", { stream, chunk }, [chunk.buffer]);
    },
    async close(): Promise<void> {
      await link.call("closeStream", { stream });
    },
    async abort(reason): Promise<void> {
      await link.call("abortStream", {
        stream,
        reason: link.errors.sent(reason),
      });
    },
  });
}

/** Source that reads from a stream of the other thread. */
export function relayedSource(
  link: Link,
  stream: number,
): ReadableStream<Uint8Array> {
  return new ReadableStream<Uint8Array>({
    async pull(controller): Promise<void> {
      const chunk = await link.call("pull", { stream });
      if (chunk === undefined) controller.close();
      else controller.enqueue(chunk as Uint8Array);
    },
    async cancel(reason): Promise<void> {
      await link.call("cancelStream", {
        stream,
        reason: link.errors.sent(reason),
      });
    },
  }, { highWaterMark: 0 });
}
