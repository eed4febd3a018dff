/**
 * Decoding of what clients send: a hello of any version, or another message.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ByteReader } from "../../bytes.ts";
import { ErrProtocol } from "../errors.ts";
import {
  decodeFields,
  decodeMessage,
  PREAMBLE,
  PREAMBLE_BYTES,
  PREAMBLE_LENGTH_AT,
} from "../message_codec.ts";
import { type Message, VERSION_MAX, type Versions } from "../messages.ts";

/** First version whose hello has the fields of the codec. */
const VERSION_LEAST = 2;

/**
 * Decodes a frame of a client. Its bytes must not change afterwards: the message
 * refers to them.
 *
 * @throws ErrProtocol if the frame is not the encoding of a message
 */
export function decodeFromClient(frame: Uint8Array): Message {
  if (!isHello(frame)) return decodeMessage(frame);
  const { fields, ...versions } = splitHello(frame);
  const start = { type: "hello", ...versions } as const;
  return decodeFields(start, new ByteReader(fields));
}

/** True for a hello of any version: a short array of MessagePack with code 1. */
function isHello(frame: Uint8Array): boolean {
  return (frame[0]! & 0xf0) === 0x90 && frame[1] === 1;
}

function splitHello(
  frame: Uint8Array,
): Versions & { readonly fields: Uint8Array } {
  const [, , first = 0, last = 0] = frame;
  if (last < first || first < 1 || last > VERSION_MAX) {
    throw new ErrProtocol(`Message hello has the versions ${first} to ${last}`);
  }
  // The fields of such a hello are unknown, and not needed to refuse it.
  if (last < VERSION_LEAST) return { first, last, fields: NO_FIELDS };
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  const isPreamble = frame.length >= PREAMBLE_BYTES &&
    PREAMBLE.every((byte, i) => i === 2 || i === 3 || frame[i] === byte) &&
    view.getUint16(PREAMBLE_LENGTH_AT) === frame.length - PREAMBLE_BYTES;
  if (!isPreamble) {
    throw new ErrProtocol(
      `Message hello of ${frame.length} bytes has no valid preamble`,
    );
  }
  return { first, last, fields: frame.subarray(PREAMBLE_BYTES) };
}

/** Encoded fields of a hello without token or credit. */
const NO_FIELDS = /* @__PURE__ */ new Uint8Array(4);
