/**
 * An index from the hash of a key to the leaf the key is in. It grows by a few
 * hundred slots at a time (extendible hashing), so that no update ever pays for
 * moving all of it.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** Slots of a new segment; a power of two. */
const SEGMENT_SLOTS = 512;

/** Low bits of a place that say where in the leaf the key was last seen. */
export const HINT_BITS = 6;

/** Mask of those bits. */
export const HINT_MASK: number = (1 << HINT_BITS) - 1;

/** Open addressing over pairs of (hash, place); place 0 marks a free slot. */
class Segment {
  used = 0;
  /** Leading bits that all hashes in here share. */
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

  /** Frees a slot, and moves up what had to give way to it. */
  remove(at: number): void {
    const { slots } = this;
    const mask = slots.length - 1;
    let next = at;
    this.used--;
    while (slots[(next = next + 2 & mask) + 1] !== 0) {
      const home = slots[next]! << 1 & mask;
      // What lies between its home and here must not move before its home.
      if ((next - home & mask) < (next - at & mask)) continue;
      slots[at] = slots[next]!;
      slots[at + 1] = slots[next + 1]!;
      at = next;
    }
    slots[at + 1] = 0;
  }
}

/**
 * A multiset of (hash, leaf), a leaf being a positive number. Leaf and hint make
 * one number, the place.
 */
export class HashIndex {
  #segments = [
    new Segment(1, SEGMENT_SLOTS),
    new Segment(1, SEGMENT_SLOTS),
  ];
  /** Bits of a hash that do not choose the segment. */
  #shift = 31;
  #size = 0;

  /**
   * The pairs of (hash, place) among which those of `hash` are, from
   * `hash << 1` on up to a place of 0, going around. The reader may set hints.
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

  /** Makes a pair point to another leaf, or removes it: leaf 0. */
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
    // Splitting parts only hashes that differ. When many are alike, the
    // directory would double in vain: then the segment doubles instead.
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
