/**
 * Directory of pages: maps ranges of keys to blocks. Stored as a whole from
 * time to time, and as changes in the log records since.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { ByteReader, ByteWriter } from "../../bytes.ts";
import { bytesOf, compareBytes, viewOf } from "../view.ts";

/** Reference to a page on disk. */
export interface Ref {
  /** Number of the block, -1 until it is assigned; 0 for an empty page, which has no block. */
  id: number;
  /** Checksum of the block. */
  readonly crc: number;
  /** Size of the block, in bytes. */
  readonly size: number;
  /** Last log record whose changes the block contains; later changes must be merged in. */
  readonly seq: number;
  /** Number of directory entries that refer to it. */
  uses: number;
  /** True once the block is written. */
  written: boolean;
}

/** Creates the reference of an empty page. */
export function emptyRef(seq: number): Ref {
  return { id: 0, crc: 0, size: 0, seq, uses: 0, written: true };
}

/** Range of keys, up to the first key of the next entry, and its page. */
export interface DirectoryEntry {
  readonly first: DataView;
  readonly ref: Ref;
}

/** Change of the directory: a page that replaces the range [from, to). */
export interface Install {
  readonly space: number;
  readonly from: DataView;
  readonly to: DataView | undefined;
  readonly ref: Ref;
}

/** Least of all keys. */
export const LEAST: DataView = /* @__PURE__ */ viewOf(
  /* @__PURE__ */ new Uint8Array(),
);

/** Number of spaces: independent key ranges in one store. */
export const SPACES = 2;

/** Returns the index of the last item whose first key is not above the given one. */
export function indexOf(
  items: readonly { readonly first: DataView }[],
  view: DataView,
  start: number,
  end: number,
): number {
  let low = 0;
  let high = items.length - 1;
  while (low < high) {
    const i = low + high + 1 >> 1;
    const { first } = items[i]!;
    if (compareBytes(first, 0, first.byteLength, view, start, end) <= 0) {
      low = i;
    } else high = i - 1;
  }
  return low;
}

/** Decodes a key into bytes of its own. */
function copyOf(r: ByteReader): DataView {
  return viewOf(r.bytes().slice());
}

function writeKey(w: ByteWriter, key: DataView): void {
  w.bytes(bytesOf(key, 0, key.byteLength));
}

function writeRef(w: ByteWriter, { id, crc, size, seq }: Ref): void {
  w.varint(id).u32(crc).varint(size).varint(seq);
}

function readRef(r: ByteReader): Ref {
  return {
    id: r.varint(),
    crc: r.u32(),
    size: r.varint(),
    seq: r.varint(),
    uses: 0,
    written: true,
  };
}

/** Encodes changes of a directory. */
export function writeInstalls(w: ByteWriter, all: readonly Install[]): void {
  w.varint(all.length);
  for (const { space, from, to, ref } of all) {
    w.u8(space << 1 | (to ? 1 : 0));
    writeKey(w, from);
    if (to) writeKey(w, to);
    writeRef(w, ref);
  }
}

/** Decodes changes encoded by {@linkcode writeInstalls}. */
export function readInstalls(r: ByteReader): Install[] {
  const all: Install[] = [];
  for (let left = r.varint(); left > 0; left--) {
    const kind = r.u8();
    const from = copyOf(r);
    const to = kind & 1 ? copyOf(r) : undefined;
    all.push({ space: kind >> 1, from, to, ref: readRef(r) });
  }
  return all;
}

/** Entries of all spaces, in key order. */
export class Directory {
  readonly spaces: DirectoryEntry[][];
  /** Bytes of its pages on disk. */
  bytes = 0;
  readonly #free: (ref: Ref) => void;

  /** Creates an empty directory; `free` is called for each page it no longer refers to. */
  constructor(free: (ref: Ref) => void) {
    this.#free = free;
    this.spaces = Array.from(
      { length: SPACES },
      () => [this.#entry(LEAST, emptyRef(0))],
    );
  }

  #entry(first: DataView, ref: Ref): DirectoryEntry {
    if (ref.uses++ === 0) this.bytes += ref.size;
    return { first, ref };
  }

  /** Installs a page over a range; entries that extend beyond the range keep their other keys. */
  install({ space, from, to, ref }: Install): void {
    const entries = this.spaces[space]!;
    const start = indexOf(entries, from, 0, from.byteLength);
    const last = to ? indexOf(entries, to, 0, to.byteLength) : entries.length;
    const { first } = entries[start]!;
    const keep = compareBytes(
      first,
      0,
      first.byteLength,
      from,
      0,
      from.byteLength,
    ) < 0;
    const added = [this.#entry(from, ref)];
    let end = last;
    if (to) {
      const { first, ref } = entries[last]!;
      const size = first.byteLength;
      if (compareBytes(first, 0, size, to, 0, to.byteLength) < 0) {
        added.push(this.#entry(to, ref));
        end++;
      }
    }
    const begin = start + (keep ? 1 : 0);
    for (const { ref } of entries.splice(begin, end - begin, ...added)) {
      if (--ref.uses > 0) continue;
      this.bytes -= ref.size;
      this.#free(ref);
    }
  }

  /** Replaces all entries. */
  replace(spaces: readonly (readonly DirectoryEntry[])[]): void {
    this.bytes = 0;
    spaces.forEach((entries, space) => {
      this.spaces[space] = entries.map(({ first, ref }) =>
        this.#entry(first, ref)
      );
    });
  }

  /** References to all pages. */
  refs(): Set<Ref> {
    return new Set(this.spaces.flat().map(({ ref }) => ref));
  }

  /** Encodes the directory. */
  write(w: ByteWriter): void {
    const refs = [...this.refs()];
    const numbers = new Map(refs.map((ref, i) => [ref, i]));
    w.varint(refs.length);
    for (const ref of refs) writeRef(w, ref);
    for (const entries of this.spaces) {
      w.varint(entries.length);
      for (const { first, ref } of entries) {
        writeKey(w, first);
        w.varint(numbers.get(ref)!);
      }
    }
  }

  /** Replaces the entries by an encoded directory. */
  read(r: ByteReader): void {
    const refs = Array.from({ length: r.varint() }, () => readRef(r));
    this.bytes = 0;
    for (const entries of this.spaces) {
      entries.length = 0;
      for (let left = r.varint(); left > 0; left--) {
        const first = copyOf(r);
        const number = r.varint();
        const ref = refs[number];
        if (!ref) {
          throw new RangeError(
            `Entry refers to page ${number} of ${refs.length}`,
          );
        }
        entries.push(this.#entry(first, ref));
      }
      if (entries.length === 0) {
        throw new RangeError(`Space ${this.spaces.indexOf(entries)} is empty`);
      }
    }
  }
}
