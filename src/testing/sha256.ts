/**
 * SHA-256 that needs no turn of the event loop, for simulations.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** First 32 bits of the fractional part of a root. */
function fraction(root: number): number {
  return (root - Math.floor(root)) * 2 ** 32 | 0;
}

const PRIMES: readonly number[] = [...Array(312).keys()].filter((n) =>
  n > 1 && ![...Array(n).keys()].some((d) => d > 1 && n % d === 0)
);
const ROUNDS: readonly number[] = PRIMES.slice(0, 64).map((p) =>
  fraction(Math.cbrt(p))
);
const START: readonly number[] = PRIMES.slice(0, 8).map((p) =>
  fraction(Math.sqrt(p))
);

function rotate(x: number, n: number): number {
  return x >>> n | x << (32 - n);
}

/** Returns the SHA-256 of bytes. */
export function sha256(bytes: Uint8Array): Uint8Array {
  const blocks = (bytes.length + 72) >> 6;
  const padded = new Uint8Array(blocks << 6);
  padded.set(bytes);
  padded[bytes.length] = 0x80;
  const view = new DataView(padded.buffer);
  view.setBigUint64(padded.length - 8, BigInt(bytes.length) * 8n);
  const state = Int32Array.from(START);
  const words = new Int32Array(64);
  for (let block = 0; block < blocks; block++) {
    for (let i = 0; i < 64; i++) {
      if (i < 16) words[i] = view.getInt32((block << 6) + 4 * i);
      else {
        const a = words[i - 15]!;
        const b = words[i - 2]!;
        words[i] = words[i - 16]! + words[i - 7]! +
          (rotate(a, 7) ^ rotate(a, 18) ^ a >>> 3) +
          (rotate(b, 17) ^ rotate(b, 19) ^ b >>> 10);
      }
    }
    let [a, b, c, d, e, f, g, h] = state as unknown as [
      number,
      number,
      number,
      number,
      number,
      number,
      number,
      number,
    ];
    for (let i = 0; i < 64; i++) {
      const t = h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) +
          (e & f ^ ~e & g) + ROUNDS[i]! + words[i]! | 0;
      const u = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) +
          (a & b ^ a & c ^ b & c) | 0;
      [h, g, f, e, d, c, b, a] = [g, f, e, d + t | 0, c, b, a, t + u | 0];
    }
    [a, b, c, d, e, f, g, h].forEach((word, i) => state[i]! += word);
  }
  const digest = new Uint8Array(32);
  const out = new DataView(digest.buffer);
  state.forEach((word, i) => out.setInt32(4 * i, word));
  return digest;
}
