/**
 * Which block has the rows of which keys: the directory of pages as it is on
 * disk, in memory. It is kept there as a whole from time to time, and as what
 * changed in the records of the log since.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { ByteReader, ByteWriter } from "../../bytes.ts";
import { bytesOf, compareBytes, viewOf } from "../view.ts";

/** A page on disk. */
export interface Ref {
  /** Number of its block, -1 until it has one; 0 for a page without rows, which has none. */
  id: number;
  /** Checksum of its block. */
  readonly crc: number;
  /** Size of its block, in bytes. */
  readonly size: number;
  /** The last record of the log that is worked in; those after it have to be. */
  readonly seq: number;
  /** Entries that name it. */
  uses: number;
  /** Whether its block is written. */
  written: boolean;
}

/** A page that has no block. */
export function emptyRef(seq: number): Ref {
  return { id: 0, crc: 0, size: 0, seq, uses: 0, written: true };
}

/** The keys from `first` to before the next entry's are in this page. */
export interface DirectoryEntry {
  readonly first: DataView;
  readonly ref: Ref;
}

/** A page that takes the place of what was there in [from, to). */
export interface Install {
  readonly space: number;
  readonly from: DataView;
  readonly to: DataView | undefined;
  readonly ref: Ref;
}

/** The key that is before all others. */
export const LEAST: DataView = /* @__PURE__ */ viewOf(
  /* @__PURE__ */ new Uint8Array(),
);

/** Separate orders of rows in one store. */
export const SPACES = 2;

/** The last of `items` whose first key is not above the given one. */
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

/** Bytes of `view`, read or written behind their length. */
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

/** Writes what changed in a directory. */
export function writeInstalls(w: ByteWriter, all: readonly Install[]): void {
  w.varint(all.length);
  for (const { space, from, to, ref } of all) {
    w.u8(space << 1 | (to ? 1 : 0));
    writeKey(w, from);
    if (to) writeKey(w, to);
    writeRef(w, ref);
  }
}

/** Reads what {@linkcode writeInstalls} wrote. */
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

/** The entries of all spaces, in order of their keys. */
export class Directory {
  readonly spaces: DirectoryEntry[][];
  /** Bytes its pages take on disk. */
  bytes = 0;
  readonly #free: (ref: Ref) => void;

  /** A directory that tells of pages it names no more. */
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

  /** Puts a page in the place of what was there; those at the ends keep the keys outside. */
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

  /** Names these pages, in place of those it named. */
  replace(spaces: readonly (readonly DirectoryEntry[])[]): void {
    this.bytes = 0;
    spaces.forEach((entries, space) => {
      this.spaces[space] = entries.map(({ first, ref }) =>
        this.#entry(first, ref)
      );
    });
  }

  /** The pages it names. */
  refs(): Set<Ref> {
    return new Set(this.spaces.flat().map(({ ref }) => ref));
  }

  /** Writes all of it. */
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

  /** Reads what {@linkcode write} wrote, in place of what is here. */
  read(r: ByteReader): void {
    const refs = Array.from({ length: r.varint() }, () => readRef(r));
    this.bytes = 0;
    for (const entries of this.spaces) {
      entries.length = 0;
      for (let left = r.varint(); left > 0; left--) {
        const first = copyOf(r);
        const ref = refs[r.varint()];
        if (!ref) throw new RangeError("Entry names no page");
        entries.push(this.#entry(first, ref));
      }
      if (entries.length === 0) throw new RangeError("Space has no entry");
    }
  }
}
