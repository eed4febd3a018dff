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

/** Size up to which copying bytes one by one is faster than a view and `set()`, in bytes. */
const COPY_BYTES = 48;

/** Copies the bytes of `view` in [start, end) to an array of their own. */
export function copyOf(
  view: DataView,
  start: number,
  end: number,
): Uint8Array {
  const size = end - start;
  const copy = new Uint8Array(size);
  if (size > COPY_BYTES) copy.set(bytesOf(view, start, end));
  else for (let i = 0; i < size; i++) copy[i] = view.getUint8(start + i);
  return copy;
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

/**
 * Returns four bytes of a key from `at` on, padded with zeros, as a signed
 * number in the same order. Keys of which one continues the other may have
 * equal heads.
 */
export function headOf(view: DataView, at: number, end: number): number {
  if (at + 4 <= end) return view.getInt32(at) ^ 0x80000000;
  let head = 0;
  for (let i = 0; i < 4; i++) {
    head = head << 8 | (at + i < end ? view.getUint8(at + i) : 0);
  }
  return head ^ 0x80000000;
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
