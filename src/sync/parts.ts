/**
 * Splitting of messages into parts, for connections through a gateway that
 * rejects large frames.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { SYNC_FRAME_BYTES_MAX, SYNC_PART_BYTES_MIN } from "../limits.ts";
import { ErrProtocol } from "./errors.ts";
import type { Message, Part } from "./messages.ts";

/** Message code of a part. */
const PART_CODE = 30;

/** Bytes of a part before its payload: the code and the flag. */
const PART_HEAD_BYTES = 2;

/** Sends a frame, in parts if it is larger than `max` bytes. */
export function sendInParts(
  frame: Uint8Array,
  max: number,
  send: (frame: Uint8Array) => void,
): void {
  if (frame.length <= max) return send(frame);
  const step = max - PART_HEAD_BYTES;
  for (let at = 0; at < frame.length; at += step) {
    const bytes = frame.subarray(at, at + step);
    send(partFrame(bytes, at + step >= frame.length));
  }
}

/** Encodes a part like `encodeMessage()`, without the table of layouts: a large message has many parts. */
function partFrame(bytes: Uint8Array, isLast: boolean): Uint8Array {
  const frame = new Uint8Array(PART_HEAD_BYTES + bytes.length);
  frame[0] = PART_CODE;
  frame[1] = isLast ? 1 : 0;
  frame.set(bytes, PART_HEAD_BYTES);
  return frame;
}

/** Assembles messages from their parts. */
export class Assembler {
  #parts: Uint8Array[] = [];
  #bytes = 0;

  /** Bytes received of the incomplete message; 0 without one. */
  get bytes(): number {
    return this.#bytes;
  }

  /**
   * Checks that no other message comes between the parts of one.
   *
   * @throws ErrProtocol if `type` is another message and parts are missing
   */
  expect(type: Message["type"]): void {
    if (this.#bytes > 0 && type !== "part") {
      throw new ErrProtocol(`Message ${type} came between parts of another`);
    }
  }

  /**
   * Adds the next part; returns the frame of the message once it is complete.
   *
   * @throws ErrProtocol if the message is too large, or the part too small
   */
  add({ isLast, bytes }: Part): Uint8Array | undefined {
    const { length } = bytes;
    const least = isLast ? 1 : SYNC_PART_BYTES_MIN;
    if (length < least) {
      throw new ErrProtocol(
        `Part of a message has ${length} byte${
          length === 1 ? "" : "s"
        }, under the minimum of ${least}`,
      );
    }
    this.#bytes += length;
    if (this.#bytes > SYNC_FRAME_BYTES_MAX) {
      throw new ErrProtocol(
        `Message in parts has ${this.#bytes} bytes, over the limit of ${SYNC_FRAME_BYTES_MAX}`,
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
