/**
 * Packed frames: a message with repetitions, such as records of one kind, takes a
 * fraction of its bytes on the wire.
 *
 * The format is a code, the size of the message as a varint, and sequences as in
 * the block format of LZ4: a byte with two lengths, literals, and a reference to
 * bytes before them. It is read and written in one step, since a stream of the
 * platform would delay each message by a turn of the event loop.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ByteReader, putVarint, varintLength } from "../bytes.ts";
import { messageOf } from "../describe.ts";
import { SYNC_FRAME_BYTES_MAX, SYNC_PACK_BYTES_MIN } from "../limits.ts";
import { ErrProtocol } from "./errors.ts";

/** Code of a packed frame; no message has it. */
const PACKED_CODE = 33;

/** Shortest repetition that is referred to, in bytes. */
const MATCH_MIN = 4;
/** Farthest repetition, in bytes. */
const DISTANCE_MAX = 0xffff;
const HASH_BITS = 13;

/** Offset after the last place of each hash of four bytes; 0 for none. */
const places = /* @__PURE__ */ new Int32Array(1 << HASH_BITS);

/** Packs a frame; returns the frame itself if it is small, or packing would not help. */
export function packFrame(frame: Uint8Array): Uint8Array {
  const { length } = frame;
  if (length < SYNC_PACK_BYTES_MIN) return frame;
  const head = 1 + varintLength(length);
  // At most seven eighths, and room for the last lengths.
  const out = new Uint8Array(head + length - (length >>> 3) + 16);
  out[0] = PACKED_CODE;
  putVarint(out, 1, length);
  const end = compress(frame, out, head);
  return end === 0 ? frame : out.subarray(0, end);
}

/** Appends the rest of a length that does not fit into four bits. */
function putLength(out: Uint8Array, at: number, rest: number): number {
  for (; rest >= 255; rest -= 255) out[at++] = 255;
  out[at++] = rest;
  return at;
}

/** Compresses `input` into `out` from `at` on; returns the end, 0 if there is not enough room. */
function compress(input: Uint8Array, out: Uint8Array, at: number): number {
  places.fill(0);
  const { length } = input;
  const last = length - MATCH_MIN;
  const room = out.length - 16;
  /** Start of the literals that are not written yet. */
  let from = 0;
  for (let i = 0; i <= last;) {
    const four = input[i]! | input[i + 1]! << 8 | input[i + 2]! << 16 |
      input[i + 3]! << 24;
    const hash = Math.imul(four, 0x9E3779B1) >>> (32 - HASH_BITS);
    let match = places[hash]! - 1;
    places[hash] = i + 1;
    if (
      match < 0 || i - match > DISTANCE_MAX || input[match] !== input[i] ||
      input[match + 1] !== input[i + 1] || input[match + 2] !== input[i + 2] ||
      input[match + 3] !== input[i + 3]
    ) {
      // Bytes without repetitions are passed faster and faster.
      i += 1 + (i - from >>> 6);
      continue;
    }
    let end = i + MATCH_MIN;
    // Past the end, the second is undefined.
    while (input[match + end - i] === input[end]) end++;
    while (i > from && match > 0 && input[i - 1] === input[match - 1]) {
      i--;
      match--;
    }
    const literals = i - from;
    const more = end - i - MATCH_MIN;
    if (at + literals + (literals >>> 7) + (more >>> 7) + 8 > room) return 0;
    out[at++] = Math.min(literals, 15) << 4 | Math.min(more, 15);
    if (literals >= 15) at = putLength(out, at, literals - 15);
    while (from < i) out[at++] = input[from++]!;
    const distance = i - match;
    out[at++] = distance & 0xff;
    out[at++] = distance >>> 8;
    if (more >= 15) at = putLength(out, at, more - 15);
    from = i = end;
  }
  const literals = length - from;
  if (at + literals + (literals >>> 7) + 4 > room) return 0;
  out[at++] = Math.min(literals, 15) << 4;
  if (literals >= 15) at = putLength(out, at, literals - 15);
  out.set(input.subarray(from), at);
  return at + literals;
}

/**
 * Unpacks a frame; returns the frame itself if it is not packed.
 *
 * @throws ErrProtocol if it is malformed, or larger than a frame may be
 */
export function unpackFrame(frame: Uint8Array): Uint8Array {
  if (frame[0] !== PACKED_CODE) return frame;
  try {
    const reader = new ByteReader(frame, 1);
    const size = reader.varint();
    if (size > SYNC_FRAME_BYTES_MAX) {
      throw new RangeError(
        `${size} bytes are over the limit of ${SYNC_FRAME_BYTES_MAX}`,
      );
    }
    return decompress(reader.raw(reader.remaining), size);
  } catch (cause) {
    throw new ErrProtocol(`Packed frame is malformed: ${messageOf(cause)}`, {
      cause,
    });
  }
}

function decompress(input: Uint8Array, size: number): Uint8Array {
  const out = new Uint8Array(size);
  const { length } = input;
  let at = 0;
  let to = 0;
  /** Length whose first four bits are `bits`. */
  const lengthOf = (bits: number): number => {
    if (bits < 15) return bits;
    for (let sum = bits;;) {
      const byte = input[at++];
      if (byte === undefined || sum > size) break;
      sum += byte;
      if (byte < 255) return sum;
    }
    throw new RangeError(
      `length before byte ${at} of ${length} is over ${size}, or incomplete`,
    );
  };
  while (at < length) {
    const token = input[at++]!;
    const literals = lengthOf(token >>> 4);
    if (literals > length - at || literals > size - to) {
      throw new RangeError(`${literals} literal bytes are too many`);
    }
    for (const end = at + literals; at < end;) out[to++] = input[at++]!;
    // The last sequence has no reference.
    if (at === length) break;
    const distance = input[at]! | (input[at + 1] ?? 0) << 8;
    at += 2;
    const repeated = lengthOf(token & 15) + MATCH_MIN;
    if (distance === 0 || distance > to || repeated > size - to) {
      throw new RangeError(
        `${repeated} bytes repeated from ${distance} before byte ${to} of ${size}`,
      );
    }
    for (const end = to + repeated; to < end; to++) {
      out[to] = out[to - distance]!;
    }
  }
  if (to !== size) throw new RangeError(`${to} bytes of ${size}`);
  return out;
}
