/**
 * Check of SQLite's WAL (write-ahead log) for damage.
 *
 * SQLite reads its WAL up to the first frame with a wrong checksum, and treats the
 * rest as an unfinished write. If each write is synced before the next begins, only
 * the last write can be unfinished: frames of a later write prove that the wrong one
 * was complete and is damaged.
 *
 * This module needs Deno or Node.
 *
 * @module
 */

/** First word of a WAL; its lowest bit is the byte order of the checksums. */
const MAGIC = 0x377F0682;
const HEADER_BYTES = 32;
const FRAME_HEADER_BYTES = 24;

/** Running checksum of a WAL, over pairs of words. */
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

  /** True if the checksum stored at `at` is the same. */
  isAt(at: number): boolean {
    return this.#view.getInt32(at) === this.#low &&
      this.#view.getInt32(at + 4) === this.#high;
  }
}

function headerChecksum(view: DataView): Checksum {
  return new Checksum(view, (view.getUint32(0) & 1) === 0).add(0, 24);
}

function viewOf(wal: Uint8Array): DataView {
  return new DataView(wal.buffer, wal.byteOffset, wal.byteLength);
}

/** True if a WAL begins with a valid header, as it does from its first write on. */
export function isWALHeader(wal: Uint8Array): boolean {
  if (wal.length < HEADER_BYTES) return false;
  const view = viewOf(wal);
  return (view.getUint32(0) & ~1) === MAGIC && headerChecksum(view).isAt(24);
}

/** Committed writes in a WAL. */
export interface Committed {
  /** Size of the database after the last write, in pages; 0 without writes. */
  readonly size: number;
  /** Numbers of the written pages, from 1. */
  readonly pages: ReadonlySet<number>;
}

/** Finds the writes in a WAL that SQLite accepts. */
export function committedIn(wal: Uint8Array): Committed {
  const pages = new Set<number>();
  let size = 0;
  if (!isWALHeader(wal)) return { size, pages };
  const view = viewOf(wal);
  const checksum = headerChecksum(view);
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

/** True if a WAL, each of whose writes was synced, is damaged before its last write. */
export function isWALDamaged(wal: Uint8Array): boolean {
  if (wal.length < HEADER_BYTES) return false;
  const view = viewOf(wal);
  const checksum = headerChecksum(view);
  if (!checksum.isAt(24)) {
    // The header is within one sector, which is written atomically: all zero or damaged.
    return wal.subarray(0, HEADER_BYTES).some((byte) => byte !== 0);
  }
  const size = FRAME_HEADER_BYTES + view.getUint32(8);
  /** True if a frame was written since the WAL was last restarted. */
  const isCurrent = (at: number): boolean =>
    view.getBigUint64(at + 8) === view.getBigUint64(16);
  const isValid = (at: number): boolean =>
    isCurrent(at) &&
    checksum.add(at, at + 8).add(at + FRAME_HEADER_BYTES, at + size)
      .isAt(at + 16);
  let at = HEADER_BYTES;
  while (at + size <= wal.length && isValid(at)) at += size;
  let isOver = false;
  for (; at + FRAME_HEADER_BYTES <= wal.length; at += size) {
    if (!isCurrent(at)) continue;
    if (isOver) return true;
    // Only the last frame of a write has a database size.
    isOver = view.getUint32(at + 4) !== 0;
  }
  return false;
}
