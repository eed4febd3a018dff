/**
 * Text as bytes and back.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** Encodes a text as UTF-8. */
export function bytes(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text);
}

/** Decodes UTF-8; without bytes, to the empty text. */
export function text(bytes: Uint8Array | undefined): string {
  return new TextDecoder().decode(bytes);
}

/** Concatenates chunks. */
export function concat(
  chunks: readonly Uint8Array[],
): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(chunks.reduce((n, { length }) => n + length, 0));
  let at = 0;
  for (const chunk of chunks) {
    all.set(chunk, at);
    at += chunk.length;
  }
  return all;
}
