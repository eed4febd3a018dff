/**
 * A text document as a state machine: what a shared editor replicates. A
 * command is one transaction of an editing history, that is its patches one
 * after the other:
 *
 *     position  varint, in code points
 *     deleted   varint, in code points
 *     size      varint, in bytes
 *     inserted  UTF-8
 *
 * until the command ends.
 *
 * @module
 */

import { ByteReader, ByteWriter, putVarint } from "../../src/bytes.ts";
import type {
  Entry,
  IConcurrentStateMachine,
  IHash,
  ISnapshotFileCollection,
  Result,
  SnapshotFile,
} from "../../src/statemachine/mod.ts";
import { GapBuffer } from "./gap_buffer.ts";

/** Change of a text: position, number of deleted code points, inserted text. */
export type Patch = readonly [
  position: number,
  deleted: number,
  inserted: string,
];

/** Query: the text itself, or its length in code points. */
export type TextQuery = "text" | "length";

/**
 * Maximum length of a text, in code points. A patch that exceeds it is rejected
 * like one out of range.
 */
export const TEXT_LENGTH_MAX: number = 16 * 1024 * 1024;

/** Largest number in a command: a varint of at most five bytes. */
const NUMBER_MAX = 0x7fffffff;

// Allocated once, as a result costs more than an edit; frozen, as it is shared.
const APPLIED: Result = Object.freeze({ value: 1n });
const REFUSED: Result = Object.freeze({ value: 0n });

const encoder = new TextEncoder();

/**
 * Upper bound of the bytes that `encodeTransaction()` writes for these patches.
 */
export function transactionBytesMax(patches: readonly Patch[]): number {
  let bytes = 0;
  for (let i = 0; i < patches.length; i++) {
    bytes += 15 + 3 * patches[i]![2].length;
  }
  return bytes;
}

/** Writes a transaction as a command at `offset` of `bytes`; returns the offset after it. */
export function encodeTransaction(
  patches: readonly Patch[],
  bytes: Uint8Array,
  offset: number,
): number {
  // By index: destructuring patches as iterables costs as much as the rest.
  for (let i = 0; i < patches.length; i++) {
    const patch = patches[i]!;
    const inserted = patch[2];
    offset = putVarint(bytes, offset, patch[0]);
    offset = putVarint(bytes, offset, patch[1]);
    const code = inserted.length === 1 ? inserted.charCodeAt(0) : 0x80;
    if (code < 0x80) {
      bytes[offset++] = 1;
      bytes[offset++] = code;
    } else if (inserted.length === 0) {
      bytes[offset++] = 0;
    } else {
      // The size precedes the text but is known only after encoding it.
      const room = bytes.subarray(offset + 5);
      const { written } = encoder.encodeInto(inserted, room);
      const at = putVarint(bytes, offset, written);
      bytes.copyWithin(at, offset + 5, offset + 5 + written);
      offset = at + written;
    }
  }
  return offset;
}

/** Encodes a transaction as a separate command. */
export function encodeCommand(
  patches: readonly Patch[],
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(transactionBytesMax(patches));
  return bytes.subarray(0, encodeTransaction(patches, bytes, 0));
}

/** Number of code points in `bytes[start..end)`; -1 if that is not UTF-8. */
function countCodePoints(
  bytes: Uint8Array,
  start: number,
  end: number,
): number {
  let count = 0;
  for (let at = start; at < end; count++) {
    const lead = bytes[at++]!;
    if (lead < 0x80) continue;
    // Ranges of the second byte from table 3-7 of the Unicode standard: they
    // exclude overlong forms, surrogates and code points beyond U+10FFFF.
    let low = 0x80;
    let high = 0xbf;
    let more = 1;
    if (lead < 0xc2 || lead > 0xf4) return -1;
    if (lead >= 0xf0) {
      more = 3;
      if (lead === 0xf0) low = 0x90;
      else if (lead === 0xf4) high = 0x8f;
    } else if (lead >= 0xe0) {
      more = 2;
      if (lead === 0xe0) low = 0xa0;
      else if (lead === 0xed) high = 0x9f;
    }
    if (more > end - at) return -1;
    const second = bytes[at]!;
    if (second < low || second > high) return -1;
    for (let i = 1; i < more; i++) {
      if ((bytes[at + i]! & 0xc0) !== 0x80) return -1;
    }
    at += more;
  }
  return count;
}

const MAGIC = 0x54584554; // "TEXT", little-endian
const VERSION = 1;
const HEADER_BYTES = 9;
const PIECE_BYTES = 64 * 1024;

/** Error of a text snapshot that is damaged or of another kind. */
export class TextSnapshotError extends Error {
  /** Always `TextSnapshotError`. */
  override readonly name = "TextSnapshotError";
}

/** UTF-8 of code points, in pieces. */
function* utf8Pieces(codes: Uint32Array): Generator<Uint8Array<ArrayBuffer>> {
  for (let at = 0; at < codes.length;) {
    const piece = new Uint8Array(PIECE_BYTES);
    let size = 0;
    for (; at < codes.length && size <= PIECE_BYTES - 4; at++) {
      const code = codes[at]!;
      if (code < 0x80) {
        piece[size++] = code;
        continue;
      }
      if (code < 0x800) {
        piece[size++] = 0xc0 | code >> 6;
      } else {
        if (code < 0x10000) {
          piece[size++] = 0xe0 | code >> 12;
        } else {
          piece[size++] = 0xf0 | code >> 18;
          piece[size++] = 0x80 | code >> 12 & 0x3f;
        }
        piece[size++] = 0x80 | code >> 6 & 0x3f;
      }
      piece[size++] = 0x80 | code & 0x3f;
    }
    yield piece.subarray(0, size);
  }
}

/**
 * Text document as a concurrent state machine. A transaction is applied
 * atomically; it is rejected if one of its patches is out of range or the
 * command is malformed. The value of the result is 1 or 0.
 *
 * Concurrent rather than regular so that edits go on while a snapshot is
 * written: `prepareSnapshot()` copies the code points, which takes less time
 * than a hundred edits take through a log.
 */
export class TextStateMachine
  implements IConcurrentStateMachine<TextQuery, string | number>, IHash {
  #text = new GapBuffer();
  /** Read position in the present command. */
  #at = 0;

  /**
   * Applies transactions; the value of each result is 1 if it changed the text.
   */
  update(entries: Entry[]): Entry[] {
    for (let i = 0; i < entries.length; i++) {
      const entry = entries[i]!;
      const { cmd } = entry;
      if (this.#accepts(cmd)) {
        this.#apply(cmd);
        entry.result = APPLIED;
      } else {
        entry.result = REFUSED;
      }
    }
    return entries;
  }

  /** Next varint of a command; -1 if there is no varint or it is too large. */
  #varint(cmd: Uint8Array): number {
    let at = this.#at;
    let value = 0;
    for (let scale = 1; at < cmd.length && scale <= 0x10000000; scale *= 0x80) {
      const byte = cmd[at++]!;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) {
        this.#at = at;
        return value <= NUMBER_MAX ? value : -1;
      }
    }
    return -1;
  }

  /**
   * True if the command is well-formed and in range; checked before any of it
   * is applied.
   */
  #accepts(cmd: Uint8Array): boolean {
    let { length } = this.#text;
    this.#at = 0;
    while (this.#at < cmd.length) {
      const position = this.#varint(cmd);
      if (position < 0) return false;
      const deleted = this.#varint(cmd);
      if (deleted < 0 || position + deleted > length) return false;
      const size = this.#varint(cmd);
      if (size < 0 || size > cmd.length - this.#at) return false;
      const inserted = countCodePoints(cmd, this.#at, this.#at + size);
      if (inserted < 0) return false;
      length += inserted - deleted;
      if (length > TEXT_LENGTH_MAX) return false;
      this.#at += size;
    }
    return true;
  }

  #apply(cmd: Uint8Array): void {
    const text = this.#text;
    this.#at = 0;
    while (this.#at < cmd.length) {
      const position = this.#varint(cmd);
      const deleted = this.#varint(cmd);
      const size = this.#varint(cmd);
      const end = this.#at + size;
      // There are at most as many code points as bytes, so no count is needed.
      text.splice(position, deleted, size);
      for (let at = this.#at; at < end;) {
        const lead = cmd[at++]!;
        if (lead < 0x80) {
          text.put(lead);
        } else if (lead < 0xe0) {
          text.put((lead & 0x1f) << 6 | cmd[at++]! & 0x3f);
        } else if (lead < 0xf0) {
          text.put(
            (lead & 0xf) << 12 | (cmd[at++]! & 0x3f) << 6 | cmd[at++]! & 0x3f,
          );
        } else {
          text.put(
            (lead & 7) << 18 | (cmd[at++]! & 0x3f) << 12 |
              (cmd[at++]! & 0x3f) << 6 | cmd[at++]! & 0x3f,
          );
        }
      }
      this.#at = end;
    }
  }

  /** The text, or its length in code points. */
  lookup(query: TextQuery): string | number {
    switch (query) {
      case "text":
        return this.#text.toString();
      case "length":
        return this.#text.length;
      default:
        throw new TypeError(`Unknown query: ${String(query)}`);
    }
  }

  /** Hash of the text, independent of its history. */
  getHash(): bigint {
    return this.#text.hash();
  }

  /** Copy of the present code points. */
  prepareSnapshot(): Uint32Array {
    return this.#text.toCodePoints();
  }

  /** Writes the length and the text in UTF-8. */
  async saveSnapshot(
    context: unknown,
    w: WritableStream<Uint8Array>,
    _files: ISnapshotFileCollection,
    stopped: AbortSignal,
  ): Promise<void> {
    const codes = context as Uint32Array;
    const writer = w.getWriter();
    try {
      stopped.throwIfAborted();
      await writer.write(
        new ByteWriter(HEADER_BYTES).u32(MAGIC).u8(VERSION).u32(codes.length)
          .finish(),
      );
      for (const piece of utf8Pieces(codes)) {
        stopped.throwIfAborted();
        await writer.write(piece);
      }
    } finally {
      writer.releaseLock();
    }
  }

  /**
   * Replaces the text by a saved one; keeps the present text if the snapshot is
   * damaged.
   */
  async recoverFromSnapshot(
    r: ReadableStream<Uint8Array>,
    _files: readonly SnapshotFile[],
    stopped: AbortSignal,
  ): Promise<void> {
    const text = new GapBuffer();
    const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    const head = new Uint8Array(HEADER_BYTES);
    let held = 0;
    let length = 0;
    const reader = r.getReader();
    try {
      for (let at = 0;;) {
        stopped.throwIfAborted();
        const { done, value } = await reader.read();
        if (held < HEADER_BYTES) {
          if (done) {
            throw new TextSnapshotError(
              `Snapshot ends after ${held} of ${HEADER_BYTES} header bytes`,
            );
          }
          const part = value.subarray(0, HEADER_BYTES - held);
          head.set(part, held);
          held += part.length;
          if (held < HEADER_BYTES) continue;
          length = readHeader(head);
          text.splice(0, 0, length);
          at = append(text, decoder, value.subarray(part.length), at, length);
          continue;
        }
        at = append(text, decoder, value, at, length);
        if (!done) continue;
        if (at < length) {
          throw new TextSnapshotError(
            `Snapshot ends after ${at} of ${length} code points`,
          );
        }
        break;
      }
    } finally {
      reader.releaseLock();
    }
    this.#text = text;
  }

  /** Frees nothing: the text is in memory. */
  close(): void {}
}

/** Length in a snapshot's header. */
function readHeader(head: Uint8Array): number {
  const reader = new ByteReader(head);
  if (reader.u32() !== MAGIC) {
    throw new TextSnapshotError("Snapshot is not of a TextStateMachine");
  }
  const version = reader.u8();
  if (version !== VERSION) {
    throw new TextSnapshotError(`Snapshot has unknown version ${version}`);
  }
  const length = reader.u32();
  if (length > TEXT_LENGTH_MAX) {
    throw new TextSnapshotError(`Snapshot has too long a text: ${length}`);
  }
  return length;
}

/**
 * Decodes `bytes`, or the end of the text if undefined, after the first `at`
 * code points; returns the new number of code points.
 */
function append(
  text: GapBuffer,
  decoder: TextDecoder,
  bytes: Uint8Array | undefined,
  at: number,
  length: number,
): number {
  let piece: string;
  try {
    piece = decoder.decode(bytes, { stream: bytes !== undefined });
  } catch (cause) {
    throw new TextSnapshotError("Snapshot is not UTF-8", { cause });
  }
  for (const character of piece) {
    if (++at > length) {
      throw new TextSnapshotError(
        `Snapshot goes on after ${length} code points`,
      );
    }
    text.put(character.codePointAt(0) as number);
  }
  return at;
}
