/**
 * The state hash of the key-value machines: a 64-bit number that depends on the
 * rows of a state and not on how the state came about. It is fixed permanently:
 * replicas of different kinds, versions and runtimes compare it.
 *
 * The hash of a state is the sum of the hashes of its rows, in two halves of 32
 * bits, each modulo 2^32; so that of the empty state is 0, and a change costs
 * one subtraction and one addition. The hash of a row comes from two 32-bit
 * lanes `a` and `b`; all arithmetic is modulo 2^32, `*` is multiplication,
 * `<<<` rotation to the left, `>>` the shift that brings in zeros:
 *
 * ```text
 * a = (length(key) * 0x9e3779b9) ^ 0x7f4a7c15,  b = 0x165667b1
 * for each word w of words(key), then of words(value):
 *   a = (a ^ w) * 0xcc9e2d51;  a = a ^ (a >> 15)
 *   b = ((b ^ a) <<< 13) * 0x1b873593
 * a = a + b + length(value) * 0x9e3779b9;  b = b ^ (a <<< 16)
 * a = mix(a);  b = mix(b)
 * mix(h):
 *   h = (h ^ (h >> 16)) * 0x85ebca6b;  h = (h ^ (h >> 13)) * 0xc2b2ae35
 *   h ^ (h >> 16)
 * ```
 *
 * `words()` cuts bytes into little-endian words of four bytes, the last one
 * filled up with zeros. The hash is `b * 2^32 + a`. It finds accidents, not
 * forgeries: a client that chooses keys and values can make two states collide.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** Lanes of the hash between its steps, and its result: two numbers that a function could only return by allocating. */
export const lanes: Int32Array = /* @__PURE__ */ new Int32Array(2);

/** Mixes the bytes of `view` in [start, end) into the lanes. */
function absorb(view: DataView, start: number, end: number): void {
  let a = lanes[0]!;
  let b = lanes[1]!;
  while (start < end) {
    let word: number;
    if (start + 4 <= end) word = view.getInt32(start, true);
    else {
      word = view.getUint8(start);
      if (start + 1 < end) word |= view.getUint8(start + 1) << 8;
      if (start + 2 < end) word |= view.getUint8(start + 2) << 16;
    }
    a = Math.imul(a ^ word, 0xcc9e2d51);
    a ^= a >>> 15;
    b ^= a;
    b = Math.imul(b << 13 | b >>> 19, 0x1b873593);
    start += 4;
  }
  lanes[0] = a;
  lanes[1] = b;
}

function mix(h: number): number {
  h = Math.imul(h ^ h >>> 16, 0x85ebca6b);
  h = Math.imul(h ^ h >>> 13, 0xc2b2ae35);
  return h ^ h >>> 16;
}

/**
 * Starts the hash of a row with its key. Returns a signed 32-bit hash for the
 * hash index; it is not part of the state hash.
 */
export function hashKey(view: DataView, start: number, end: number): number {
  lanes[0] = Math.imul(end - start, 0x9e3779b9) ^ 0x7f4a7c15;
  lanes[1] = 0x165667b1;
  absorb(view, start, end);
  const h = lanes[0] ^ lanes[1];
  return h ^ h >>> 15;
}

/** Completes the hash of a row after its key; leaves low and high half in the lanes. */
export function hashValue(view: DataView, start: number, end: number): void {
  absorb(view, start, end);
  // Independent chains, so that the processor computes both at once.
  const a = lanes[0]! + lanes[1]! + Math.imul(end - start, 0x9e3779b9);
  lanes[1] = mix(lanes[1]! ^ (a << 16 | a >>> 16));
  lanes[0] = mix(a);
}

/** Combines the two halves of a hash. */
export function hash64(low: number, high: number): bigint {
  return BigInt(high >>> 0) << 32n | BigInt(low >>> 0);
}
