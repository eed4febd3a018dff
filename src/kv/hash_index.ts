/**
 * Index from the hash of a key to its leaf. It grows by a few hundred slots at
 * a time (extendible hashing), so that no update pays for rehashing all of it.
 * Segments lie side by side in large arrays, and the directory is an array of
 * numbers, so that a search touches little memory besides the slots themselves.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** Slots of a segment; a power of two. */
const SEGMENT_SLOTS = 512;

/** Numbers of a segment: two for each slot. */
const SEGMENT_NUMBERS: number = 2 * SEGMENT_SLOTS;

/** Bits of a segment's position in its array. */
const POSITION_BITS = 8;

/** Segments of the largest array, which has 1 MiB. */
const ARRAY_SEGMENTS: number = 1 << POSITION_BITS;

/** Low bits of a place that hint at the row where the key was last found. */
export const HINT_BITS = 6;

/** Mask of those bits. */
export const HINT_MASK: number = (1 << HINT_BITS) - 1;

/**
 * Multiset of (hash, leaf) pairs; leaves are positive numbers. Leaf and hint
 * together form the place; place 0 is a free slot. Pairs are in open-addressing
 * tables, the segments, selected by the leading bits of the hash.
 */
export class HashIndex {
  /** Array of the segment located last. */
  slots: Int32Array;
  /** Offset of that segment in `slots`. */
  base = 0;
  /** Numbers of that segment less one, a mask for offsets in it. */
  mask: number = SEGMENT_NUMBERS - 1;

  /** Segments by their leading bits: array and position of each. */
  #directory: Int32Array = Int32Array.of(0, 1);
  /** Arrays of segments. One that grew beyond a segment's size is an array of its own. */
  readonly #arrays: Int32Array[];
  /** Mask of the segments in each array. */
  readonly #masks: number[] = [SEGMENT_NUMBERS - 1];
  /** Number of pairs in each segment. */
  #used = new Int32Array(ARRAY_SEGMENTS);
  /** Number of leading bits that all hashes in each segment share. */
  #bits = new Uint8Array(ARRAY_SEGMENTS);
  /** Next segment without pairs, and the end of those in its array. */
  #next = 2;
  #end = 2;
  /** Number of hash bits that do not select the segment. */
  #shift = 31;
  #size = 0;

  constructor() {
    this.#arrays = [this.slots = new Int32Array(2 * SEGMENT_NUMBERS)];
    this.#bits[0] = this.#bits[1] = 1;
  }

  /**
   * Locates the segment of a hash: pairs of (hash, place) in `slots`, starting
   * at `base`, from offset `hash << 1 & mask` on, wrapping around, up to a place
   * of 0. The reader may set hints.
   */
  locate(hash: number): void {
    this.#select(this.#directory[hash >>> this.#shift]!);
  }

  #select(segment: number): void {
    const array = segment >> POSITION_BITS;
    this.slots = this.#arrays[array]!;
    this.mask = this.#masks[array]!;
    this.base = (segment & ARRAY_SEGMENTS - 1) * SEGMENT_NUMBERS;
  }

  /** Adds a pair. */
  add(hash: number, leaf: number, hint: number): void {
    const segment = this.#directory[hash >>> this.#shift]!;
    this.#select(segment);
    this.#size++;
    this.#put(hash, leaf << HINT_BITS | hint);
    const used = ++this.#used[segment]!;
    if (used * 8 > (this.mask + 1) * 3) this.#grow(segment, hash);
  }

  /** Writes a pair to the segment located last. */
  #put(hash: number, place: number): void {
    const { slots, base, mask } = this;
    let at = hash << 1 & mask;
    while (slots[base + at + 1] !== 0) at = at + 2 & mask;
    slots[base + at] = hash;
    slots[base + at + 1] = place;
  }

  /** Moves a pair to another leaf, or removes it if that is 0. */
  move(hash: number, from: number, to: number): void {
    const segment = this.#directory[hash >>> this.#shift]!;
    this.#select(segment);
    const { slots, base, mask } = this;
    let at = hash << 1 & mask;
    while (
      slots[base + at] !== hash || slots[base + at + 1]! >> HINT_BITS !== from
    ) at = at + 2 & mask;
    if (to !== 0) slots[base + at + 1] = to << HINT_BITS;
    else {
      this.#remove(at);
      this.#used[segment]!--;
      this.#size--;
    }
  }

  /** Frees a slot of the segment located last, and moves displaced pairs closer to their home slot. */
  #remove(at: number): void {
    const { slots, base, mask } = this;
    let next = at;
    while (slots[base + (next = next + 2 & mask) + 1] !== 0) {
      const home = slots[base + next]! << 1 & mask;
      // A pair must not move before its home slot.
      if ((next - home & mask) < (next - at & mask)) continue;
      slots[base + at] = slots[base + next]!;
      slots[base + at + 1] = slots[base + next + 1]!;
      at = next;
    }
    slots[base + at + 1] = 0;
  }

  /** Splits a full segment, which is the one located last, or doubles it. */
  #grow(segment: number, hash: number): void {
    const { slots, base, mask } = this;
    const old = slots.slice(base, base + mask + 1);
    const selecting = 32 - this.#shift;
    // Splitting separates only hashes that differ. With many equal hashes the
    // directory would double without effect; then the segment doubles instead.
    const split = this.#bits[segment]! < selecting ||
      this.#directory.length * 32 < this.#size;
    this.#used[segment] = 0;
    if (split) {
      slots.fill(0, base, base + mask + 1);
      const bits = ++this.#bits[segment]!;
      if (bits > selecting) this.#doubleDirectory();
      const half = mask + 1 === SEGMENT_NUMBERS
        ? this.#newSegment()
        : this.#newArray(mask + 1);
      this.#bits[half] = bits;
      const span = this.#directory.length >> bits;
      const first = (hash >>> this.#shift) & ~(2 * span - 1);
      this.#directory.fill(half, first + span, first + 2 * span);
    } else {
      const larger = this.#newArray(2 * (mask + 1));
      // An array of its own is free now; a segment among others is left unused.
      if (mask + 1 > SEGMENT_NUMBERS) {
        this.#arrays[segment >> POSITION_BITS] = new Int32Array();
      }
      this.#bits[larger] = this.#bits[segment]!;
      const span = this.#directory.length >> this.#bits[segment]!;
      const first = (hash >>> this.#shift) & ~(span - 1);
      this.#directory.fill(larger, first, first + span);
    }
    for (let at = 0; at < old.length; at += 2) {
      const place = old[at + 1]!;
      if (place === 0) continue;
      const to = this.#directory[old[at]! >>> this.#shift]!;
      this.#select(to);
      this.#put(old[at]!, place);
      this.#used[to]!++;
    }
  }

  #doubleDirectory(): void {
    const old = this.#directory;
    const directory = this.#directory = new Int32Array(2 * old.length);
    for (let i = 0; i < old.length; i++) {
      directory[2 * i] = directory[2 * i + 1] = old[i]!;
    }
    this.#shift--;
  }

  /** Allocates a segment side by side with others; each array is twice as large as the one before. */
  #newSegment(): number {
    if (this.#next === this.#end) {
      const size = Math.min(ARRAY_SEGMENTS, this.#size * 8 / SEGMENT_NUMBERS);
      const segments = Math.max(2, Math.floor(size));
      this.#next = this.#newArray(segments * SEGMENT_NUMBERS);
      this.#masks[this.#arrays.length - 1] = SEGMENT_NUMBERS - 1;
      this.#end = this.#next + segments;
    }
    return this.#next++;
  }

  /** Allocates an array of slots; returns its first segment. */
  #newArray(numbers: number): number {
    const segment = this.#arrays.length << POSITION_BITS;
    this.#arrays.push(new Int32Array(numbers));
    this.#masks.push(numbers - 1);
    if (segment >= this.#used.length) {
      const used = this.#used;
      const bits = this.#bits;
      this.#used = new Int32Array(2 * used.length);
      this.#bits = new Uint8Array(2 * used.length);
      this.#used.set(used);
      this.#bits.set(bits);
    }
    return segment;
  }
}
