/**
 * Random numbers and ids: seeded by a command, so that every replica, and the
 * optimistic view before them, draws the same ones (Y5).
 *
 * This module is browser compatible.
 *
 * @module
 */

/** Digits of an id: no letters that look like others. */
const DIGITS = "0123456789abcdefghjkmnpqrstvwxyz";

/** Number of random bits in an id. */
const ID_BITS = 125;

/** Generator of random numbers: xoshiro128** of Blackman and Vigna. */
export class Random {
  readonly #state = new Uint32Array(4);

  /** Creates a generator from a seed of 16 bytes. */
  constructor(seed: Uint8Array) {
    const view = new DataView(seed.buffer, seed.byteOffset, seed.byteLength);
    for (let i = 0; i < 4; i++) this.#state[i] = view.getUint32(4 * i, true);
    // The state must not be zero throughout.
    if (this.#state.every((word) => word === 0)) this.#state[0] = 1;
  }

  /** Returns 32 random bits. */
  next(): number {
    const s = this.#state;
    const x = Math.imul(s[1]!, 5);
    const result = Math.imul(x << 7 | x >>> 25, 9) >>> 0;
    const t = s[1]! << 9;
    s[2] = s[2]! ^ s[0]!;
    s[3] = s[3]! ^ s[1]!;
    s[1] = s[1]! ^ s[2]!;
    s[0] = s[0]! ^ s[3]!;
    s[2] = s[2]! ^ t;
    s[3] = s[3]! << 11 | s[3]! >>> 21;
    return result;
  }

  /** Returns a number in [0, 1), a multiple of 2^-53. */
  float(): number {
    return ((this.next() >>> 5) * 0x4000000 + (this.next() >>> 6)) /
      0x20000000000000;
  }

  /** Returns an id of 25 lower-case letters and digits. */
  id(): string {
    let id = "";
    for (let bits = 0; bits < ID_BITS; bits += 5) {
      id += DIGITS[this.next() >>> 27];
    }
    return id;
  }
}

/** Returns 16 bytes for a seed. */
export function newSeed(): Uint8Array<ArrayBuffer> {
  return crypto.getRandomValues(new Uint8Array(16));
}

/** Returns a new id of 25 lower-case letters and digits, which is unique: for a row that a command adds. */
export function newID(): string {
  return new Random(newSeed()).id();
}
