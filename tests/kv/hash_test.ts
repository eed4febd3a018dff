import { assert, assertEquals } from "@std/assert";
import { hash64, hashKey, hashValue, lanes } from "../../src/kv/hash.ts";
import { KVStateMachine } from "../../src/kv/mod.ts";
import { viewOf } from "../../src/kv/view.ts";
import { bytes } from "../support/bytes.ts";
import { putAll, random } from "./util.ts";

function rowHash(key: Uint8Array, value: Uint8Array): bigint {
  hashKey(viewOf(key), 0, key.length);
  hashValue(viewOf(value), 0, value.length);
  return hash64(lanes[0]!, lanes[1]!);
}

/** Reference implementation of the documented hash algorithm. */
function plainRowHash(key: Uint8Array, value: Uint8Array): bigint {
  const words = (b: Uint8Array): number[] => {
    const padded = new Uint8Array(Math.ceil(b.length / 4) * 4);
    padded.set(b);
    const view = viewOf(padded);
    return Array.from(
      { length: padded.length / 4 },
      (_, i) => view.getUint32(4 * i, true),
    );
  };
  const u32 = (x: bigint): bigint => x & 0xffffffffn;
  const mix = (h: bigint): bigint => {
    h = u32((h ^ h >> 16n) * 0x85ebca6bn);
    h = u32((h ^ h >> 13n) * 0xc2b2ae35n);
    return h ^ h >> 16n;
  };
  let a = u32(BigInt(key.length) * 0x9e3779b9n) ^ 0x7f4a7c15n;
  let b = 0x165667b1n;
  for (const w of [...words(key), ...words(value)]) {
    a = u32((a ^ BigInt(w)) * 0xcc9e2d51n);
    a ^= a >> 15n;
    b ^= a;
    b = u32(u32(b << 13n | b >> 19n) * 0x1b873593n);
  }
  a = u32(a + b + BigInt(value.length) * 0x9e3779b9n);
  b ^= u32(a << 16n) | a >> 16n;
  return mix(b) << 32n | mix(a);
}

Deno.test("E1 U24 the hash of a row is for ever what it is", () => {
  const golden: [string, string, bigint][] = [
    ["", "", 0x6cf31507ad8674c7n],
    ["a", "b", 0x5ccff4dbd2c2fcd8n],
    ["key-000000000001", "value", 0xb72201ff4c50aa1cn],
    ["boat", "sampan, dragon", 0x699fead5c410f91bn],
  ];
  for (const [key, value, hash] of golden) {
    assertEquals(rowHash(bytes(key), bytes(value)), hash, `${key}=${value}`);
  }
});

Deno.test("E1 the hash of a row is the documented one", () => {
  const next = random(3);
  for (let i = 0; i < 500; i++) {
    const key = Uint8Array.from({ length: next(20) }, () => next(256));
    const value = Uint8Array.from({ length: next(40) }, () => next(256));
    assertEquals(rowHash(key, value), plainRowHash(key, value));
  }
});

Deno.test("E1 getHash() is the sum of the rows' hashes in halves, 0n when empty", () => {
  const machine = new KVStateMachine();
  assertEquals(machine.getHash(), 0n);
  const rows: [string, string][] = [["a", "1"], ["b", "2"], ["c", "3"]];
  putAll(machine, rows);
  let low = 0n;
  let high = 0n;
  for (const [key, value] of rows) {
    const hash = plainRowHash(bytes(key), bytes(value));
    low += hash & 0xffffffffn;
    high += hash >> 32n;
  }
  assertEquals(
    machine.getHash(),
    (high & 0xffffffffn) << 32n | low & 0xffffffffn,
  );
});

Deno.test("E1 the hash tells rows apart that differ in a boundary, a length or a few bits", () => {
  const seen = new Map<bigint, string>();
  const see = (key: Uint8Array, value: Uint8Array): void => {
    const hash = rowHash(key, value);
    const row = `${key}|${value}`;
    assertEquals(seen.get(hash) ?? row, row);
    seen.set(hash, row);
  };
  for (let n = 0; n < 40; n++) {
    for (let cut = 0; cut <= n; cut++) {
      see(new Uint8Array(cut), new Uint8Array(n - cut));
      see(new Uint8Array(cut).fill(97), new Uint8Array(n - cut).fill(97));
    }
  }
  const key = bytes("key");
  for (let i = 0; i < 128; i++) {
    for (let j = 0; j < i; j++) {
      for (let k = 0; k <= j; k += 8) {
        const value = new Uint8Array(16);
        for (const bit of [i, j, k]) value[bit >> 3]! ^= 1 << (bit & 7);
        if (value.some((byte) => byte !== 0)) see(key, value);
      }
    }
  }
});

Deno.test("E1 a flipped bit of a row flips each bit of the hash half of the time", () => {
  const flips = new Array<number>(64).fill(0);
  const next = random(11);
  const rounds = 200;
  const bits = 8 * 12;
  for (let round = 0; round < rounds; round++) {
    const row = Uint8Array.from({ length: 12 }, () => next(256));
    const cut = next(13);
    const before = rowHash(row.slice(0, cut), row.slice(cut));
    for (let bit = 0; bit < bits; bit++) {
      row[bit >> 3]! ^= 1 << (bit & 7);
      const changed = before ^ rowHash(row.slice(0, cut), row.slice(cut));
      row[bit >> 3]! ^= 1 << (bit & 7);
      for (let i = 0; i < 64; i++) {
        if (changed >> BigInt(i) & 1n) flips[i]!++;
      }
    }
  }
  for (const [i, count] of flips.entries()) {
    const share = count / (rounds * bits);
    assert(share > 0.47 && share < 0.53, `Bit ${i} flips in ${share}`);
  }
});

Deno.test("hashKey() spreads keys that count up", () => {
  for (const shift of [0, 7, 16, 23]) {
    const buckets = new Int32Array(512);
    for (let i = 0; i < 51_200; i++) {
      const key = bytes(`key-${i}`);
      buckets[hashKey(viewOf(key), 0, key.length) >>> shift & 511]!++;
    }
    const most = Math.max(...buckets);
    assert(most < 160, `${most} of 100 expected at shift ${shift}`);
  }
});
