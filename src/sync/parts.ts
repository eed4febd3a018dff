/**
 * Messages in parts, for connections on which something on the way refuses large
 * frames.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { SYNC_FRAME_BYTES_MAX } from "../limits.ts";
import { ErrProtocol } from "./errors.ts";
import { encodeMessage, type Part } from "./messages.ts";

/** What a part takes besides its bytes of the message: the array, its code, a flag, and the length. */
const PART_HEAD_BYTES = 8;

/** Calls `send` with a frame, or with the parts of its message if it is larger than `max` bytes. */
export function sendInParts(
  frame: Uint8Array,
  max: number,
  send: (frame: Uint8Array) => void,
): void {
  if (frame.length <= max) return send(frame);
  const step = max - PART_HEAD_BYTES;
  for (let at = 0; at < frame.length; at += step) {
    const bytes = frame.subarray(at, at + step);
    const isLast = at + step >= frame.length;
    send(encodeMessage({ type: "part", isLast, bytes }));
  }
}

/** Puts messages together of which the parts arrive. */
export class Assembler {
  #parts: Uint8Array[] = [];
  #bytes = 0;

  /**
   * Takes the next part; returns the frame of the message once it is whole.
   *
   * @throws ErrProtocol if the message is larger than any may be
   */
  take({ isLast, bytes }: Part): Uint8Array | undefined {
    this.#bytes += bytes.length;
    if (this.#bytes > SYNC_FRAME_BYTES_MAX || bytes.length === 0) {
      throw new ErrProtocol(
        `Message in parts has ${this.#bytes} bytes, over the limit of ${SYNC_FRAME_BYTES_MAX}, or an empty part`,
      );
    }
    this.#parts.push(bytes);
    if (!isLast) return undefined;
    const frame = new Uint8Array(this.#bytes);
    let at = 0;
    for (const part of this.#parts) {
      frame.set(part, at);
      at += part.length;
    }
    this.#parts = [];
    this.#bytes = 0;
    return frame;
  }
}
