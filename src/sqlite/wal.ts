/**
 * Telling a damaged WAL from one that a power cut left unfinished.
 *
 * SQLite reads its WAL up to the first frame whose checksum is wrong, and takes
 * what comes after for the rest of a write that was under way. Where each write
 * is synced before the next one begins, that is right for the last write alone:
 * frames of a later one say that this one was complete, and is damaged.
 *
 * This module needs Deno or Node.
 *
 * @module
 */

/** First word of a WAL; its lowest bit says in which order of bytes its checksums are. */
const MAGIC = 0x377F0682;
const HEADER_BYTES = 32;
const FRAME_HEADER_BYTES = 24;

/** The running checksum of a WAL, over words in pairs. */
class Checksum {
  #view: DataView;
  #isLittle: boolean;
  #low = 0;
  #high = 0;

  constructor(view: DataView, isLittle: boolean) {
    this.#view = view;
    this.#isLittle = isLittle;
  }

  add(from: number, to: number): this {
    for (let at = from; at < to; at += 8) {
      this.#low += this.#view.getUint32(at, this.#isLittle) + this.#high | 0;
      this.#low |= 0;
      this.#high += this.#view.getUint32(at + 4, this.#isLittle) + this.#low |
        0;
      this.#high |= 0;
    }
    return this;
  }

  /** Whether it is the one that stands at `at`. */
  isAt(at: number): boolean {
    return this.#view.getInt32(at) === this.#low &&
      this.#view.getInt32(at + 4) === this.#high;
  }
}

function beginOf(view: DataView): Checksum {
  return new Checksum(view, (view.getUint32(0) & 1) === 0).add(0, 24);
}

function viewOf(wal: Uint8Array): DataView {
  return new DataView(wal.buffer, wal.byteOffset, wal.byteLength);
}

/** True if a WAL begins with a good header, as one does from its first write on. */
export function isWALHeader(wal: Uint8Array): boolean {
  if (wal.length < HEADER_BYTES) return false;
  const view = viewOf(wal);
  return (view.getUint32(0) & ~1) === MAGIC && beginOf(view).isAt(24);
}

/** Writes in a WAL that were committed. */
export interface Committed {
  /** Size of the database after the last of them, in pages; 0 if there are none. */
  readonly size: number;
  /** Numbers of the pages they hold, from 1. */
  readonly pages: ReadonlySet<number>;
}

/** Content that SQLite would accept from a WAL. */
export function committedIn(wal: Uint8Array): Committed {
  const pages = new Set<number>();
  let size = 0;
  if (!isWALHeader(wal)) return { size, pages };
  const view = viewOf(wal);
  const checksum = beginOf(view);
  const frame = FRAME_HEADER_BYTES + view.getUint32(8);
  let write: number[] = [];
  for (let at = HEADER_BYTES; at + frame <= wal.length; at += frame) {
    if (view.getBigUint64(at + 8) !== view.getBigUint64(16)) break;
    checksum.add(at, at + 8).add(at + FRAME_HEADER_BYTES, at + frame);
    if (!checksum.isAt(at + 16)) break;
    write.push(view.getUint32(at));
    const end = view.getUint32(at + 4);
    if (end === 0) continue;
    for (const page of write) pages.add(page);
    write = [];
    size = end;
  }
  return { size, pages };
}

/** Whether a WAL, each of whose writes was synced, is damaged before the last of them. */
export function isWALDamaged(wal: Uint8Array): boolean {
  if (wal.length < HEADER_BYTES) return false;
  const view = viewOf(wal);
  const checksum = beginOf(view);
  if (!checksum.isAt(24)) {
    // It is one sector, written whole; before that there is nothing.
    return wal.subarray(0, HEADER_BYTES).some((byte) => byte !== 0);
  }
  const size = FRAME_HEADER_BYTES + view.getUint32(8);
  /** Whether a frame was written since the WAL last began anew. */
  const isOfNow = (at: number): boolean =>
    view.getBigUint64(at + 8) === view.getBigUint64(16);
  const isGood = (at: number): boolean =>
    isOfNow(at) &&
    checksum.add(at, at + 8).add(at + FRAME_HEADER_BYTES, at + size)
      .isAt(at + 16);
  let at = HEADER_BYTES;
  while (at + size <= wal.length && isGood(at)) at += size;
  let isOver = false;
  for (; at + FRAME_HEADER_BYTES <= wal.length; at += size) {
    if (!isOfNow(at)) continue;
    if (isOver) return true;
    // The last frame of a write says how many pages the database has then.
    isOver = view.getUint32(at + 4) !== 0;
  }
  return false;
}
