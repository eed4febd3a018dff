/**
 * Index from the hash of a key to its leaf. It grows by a few hundred slots at
 * a time (extendible hashing), so that no update pays for rehashing all of it.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** Slots of a new segment; a power of two. */
const SEGMENT_SLOTS = 512;

/** Low bits of a place that hint at the row where the key was last found. */
export const HINT_BITS = 6;

/** Mask of those bits. */
export const HINT_MASK: number = (1 << HINT_BITS) - 1;

/** Open-addressing table of (hash, place) pairs; place 0 is a free slot. */
class Segment {
  used = 0;
  /** Number of leading bits that all hashes in the segment share. */
  readonly bits: number;
  slots: Int32Array;

  constructor(bits: number, slots: number) {
    this.bits = bits;
    this.slots = new Int32Array(2 * slots);
  }

  add(hash: number, place: number): void {
    const { slots } = this;
    const mask = slots.length - 1;
    let at = hash << 1 & mask;
    while (slots[at + 1] !== 0) at = at + 2 & mask;
    slots[at] = hash;
    slots[at + 1] = place;
    this.used++;
  }

  /** Frees a slot, and moves displaced entries closer to their home slot. */
  remove(at: number): void {
    const { slots } = this;
    const mask = slots.length - 1;
    let next = at;
    this.used--;
    while (slots[(next = next + 2 & mask) + 1] !== 0) {
      const home = slots[next]! << 1 & mask;
      // An entry must not move before its home slot.
      if ((next - home & mask) < (next - at & mask)) continue;
      slots[at] = slots[next]!;
      slots[at + 1] = slots[next + 1]!;
      at = next;
    }
    slots[at + 1] = 0;
  }
}

/** Multiset of (hash, leaf) pairs; leaves are positive numbers. Leaf and hint together form the place. */
export class HashIndex {
  #segments = [
    new Segment(1, SEGMENT_SLOTS),
    new Segment(1, SEGMENT_SLOTS),
  ];
  /** Number of hash bits that do not select the segment. */
  #shift = 31;
  #size = 0;

  /**
   * Returns the slots to search for `hash`: pairs of (hash, place) from `hash
   * << 1` on, wrapping around, up to a place of 0. The reader may set hints.
   */
  slots(hash: number): Int32Array {
    return this.#segments[hash >>> this.#shift]!.slots;
  }

  /** Adds a pair. */
  add(hash: number, leaf: number, hint: number): void {
    const segment = this.#segments[hash >>> this.#shift]!;
    segment.add(hash, leaf << HINT_BITS | hint);
    this.#size++;
    if (segment.used * 8 > segment.slots.length * 3) this.#grow(segment, hash);
  }

  /** Moves a pair to another leaf, or removes it if that is 0. */
  move(hash: number, from: number, to: number): void {
    const segment = this.#segments[hash >>> this.#shift]!;
    const { slots } = segment;
    const mask = slots.length - 1;
    let at = hash << 1 & mask;
    while (slots[at] !== hash || slots[at + 1]! >> HINT_BITS !== from) {
      at = at + 2 & mask;
    }
    if (to !== 0) slots[at + 1] = to << HINT_BITS;
    else {
      segment.remove(at);
      this.#size--;
    }
  }

  #grow(segment: Segment, hash: number): void {
    const directory = this.#segments;
    // Splitting separates only hashes that differ. With many equal hashes the
    // directory would double without effect; then the segment doubles instead.
    const split = segment.bits < 32 - this.#shift ||
      directory.length * 32 < this.#size;
    const old = segment.slots;
    if (split) {
      if (segment.bits === 32 - this.#shift) {
        this.#segments = directory.flatMap((s) => [s, s]);
        this.#shift--;
      }
      const bits = segment.bits + 1;
      const span = this.#segments.length >> bits;
      const first = (hash >>> this.#shift) & ~(2 * span - 1);
      for (const half of [first, first + span]) {
        this.#segments.fill(
          new Segment(bits, old.length >> 1),
          half,
          half + span,
        );
      }
    } else {
      segment.used = 0;
      segment.slots = new Int32Array(2 * old.length);
    }
    for (let at = 0; at < old.length; at += 2) {
      if (old[at + 1] !== 0) {
        this.#segments[old[at]! >>> this.#shift]!.add(old[at]!, old[at + 1]!);
      }
    }
  }
}
