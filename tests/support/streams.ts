/**
 * Byte streams for tests.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** Passes bytes through and changes the one at `at`. */
export function flipByte(
  at: number,
): TransformStream<Uint8Array, Uint8Array> {
  let offset = 0;
  return new TransformStream({
    transform: (chunk, controller) => {
      const copy = chunk.slice();
      if (at >= offset && at < offset + copy.length) copy[at - offset]! ^= 0x40;
      offset += copy.length;
      controller.enqueue(copy);
    },
  });
}

/** Streams bytes in chunks. */
export function streamOf(
  bytes: Uint8Array,
  chunk = 1000,
): ReadableStream<Uint8Array> {
  let at = 0;
  return new ReadableStream({
    pull: (controller) => {
      if (at >= bytes.length) controller.close();
      else controller.enqueue(bytes.slice(at, at += chunk));
    },
  });
}

/** Streams parts as they are, one for each pull. */
export function streamOfParts(
  parts: readonly Uint8Array[],
): ReadableStream<Uint8Array> {
  let at = 0;
  return new ReadableStream({
    pull: (controller) => {
      if (at >= parts.length) controller.close();
      else controller.enqueue(parts[at++]!);
    },
  });
}
