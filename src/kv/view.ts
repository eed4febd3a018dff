/**
 * Byte access through `DataView`, four bytes at a time: engines compile that to
 * a single load, while each element of a `Uint8Array` has a bounds check.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** Size up to which copying words is faster than `set()`, in bytes. */
const WORDS_BYTES = 384;

/** Creates a view of the same bytes. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Returns the bytes of `view` in [start, end) without copying. */
export function bytesOf(
  view: DataView,
  start: number,
  end: number,
): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset + start, end - start);
}

/** Copies the bytes of `from` in [start, end) to `to`, from `at` on. */
export function copyBytes(
  from: DataView,
  start: number,
  end: number,
  to: DataView,
  at: number,
): void {
  const size = end - start;
  if (size > WORDS_BYTES) {
    bytesOf(to, at, at + size).set(bytesOf(from, start, end));
    return;
  }
  for (; start + 4 <= end; start += 4, at += 4) {
    to.setInt32(at, from.getInt32(start));
  }
  while (start < end) to.setInt8(at++, from.getInt8(start++));
}

/** True if the bytes of `a` in [start, end) equal those of `b` from `at` on. */
export function equalBytes(
  a: DataView,
  start: number,
  end: number,
  b: DataView,
  at: number,
): boolean {
  for (; start + 4 <= end; start += 4, at += 4) {
    if (a.getInt32(start) !== b.getInt32(at)) return false;
  }
  while (start < end) if (a.getInt8(start++) !== b.getInt8(at++)) return false;
  return true;
}

/** Compares `a` in [aStart, aEnd) and `b` in [bStart, bEnd) in byte order: negative, 0 or positive. */
export function compareBytes(
  a: DataView,
  aStart: number,
  aEnd: number,
  b: DataView,
  bStart: number,
  bEnd: number,
): number {
  const aSize = aEnd - aStart;
  const bSize = bEnd - bStart;
  const size = Math.min(aSize, bSize);
  let i = 0;
  for (; i + 4 <= size; i += 4) {
    const order = a.getUint32(aStart + i) - b.getUint32(bStart + i);
    if (order !== 0) return order;
  }
  for (; i < size; i++) {
    const order = a.getUint8(aStart + i) - b.getUint8(bStart + i);
    if (order !== 0) return order;
  }
  return aSize - bSize;
}
