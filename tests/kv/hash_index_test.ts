import { assert, assertEquals } from "@std/assert";
import { HashIndex, HINT_BITS } from "../../src/kv/hash_index.ts";
import { hashKey } from "../../src/kv/hash.ts";
import { kv, KVStateMachine } from "../../src/kv/mod.ts";
import { viewOf } from "../../src/kv/view.ts";
import { apply, putAll, random } from "./util.ts";
import { bytes, text } from "../support/bytes.ts";

/** The leaves an index has for a hash, in ascending order. */
function leavesOf(index: HashIndex, hash: number): number[] {
  index.locate(hash);
  const { slots, base, mask } = index;
  const leaves: number[] = [];
  for (
    let at = hash << 1 & mask;
    slots[base + at + 1];
    at = at + 2 & mask
  ) {
    if (slots[base + at] === hash) {
      leaves.push(slots[base + at + 1]! >> HINT_BITS);
    }
  }
  return leaves.sort((a, b) => a - b);
}

Deno.test("HashIndex keeps a multiset, as seen by a plain Map", () => {
  for (const seed of [1, 2, 3]) {
    const next = random(seed);
    const index = new HashIndex();
    const model = new Map<number, number[]>();
    // Few hashes that are alike in their leading bits, and many that are not.
    const hashes = Array.from(
      { length: 3000 },
      (_, i) => i % 3 === 0 ? (i & 0xff) << 4 : Math.imul(i, 0x9e3779b1),
    );
    for (let step = 0; step < 60_000; step++) {
      const hash = hashes[next(hashes.length)]!;
      const leaves = model.get(hash) ?? [];
      model.set(hash, leaves);
      const i = next(leaves.length || 1);
      const leaf = 1 + next(50);
      const action = leaves.length === 0 ? 0 : next(3);
      if (action === 0) {
        index.add(hash, leaf, next(64));
        leaves.push(leaf);
      } else if (action === 1) {
        index.move(hash, leaves[i]!, leaf);
        leaves[i] = leaf;
      } else {
        index.move(hash, leaves[i]!, 0);
        leaves.splice(i, 1);
      }
    }
    for (const [hash, leaves] of model) {
      leaves.sort((a, b) => a - b);
      assertEquals(leavesOf(index, hash), leaves, `seed ${seed}, ${hash}`);
    }
  }
});

Deno.test("HashIndex stays small when all hashes are alike", () => {
  const index = new HashIndex();
  for (let i = 1; i <= 5000; i++) index.add(-1, i, 0);
  assertEquals(leavesOf(index, -1).length, 5000);
  index.locate(-1);
  assert(index.mask < 2 * 16_384);
  for (let i = 1; i <= 5000; i++) index.move(-1, i, 0);
  assertEquals(leavesOf(index, -1), []);
});

/** Pairs of keys whose hashes for the index are the same. */
function collisions(): [string, string][] {
  const seen = new Map<number, string>();
  const pairs: [string, string][] = [];
  for (let i = 0; i < 300_000; i++) {
    const key = `k${i}`;
    const encoded = bytes(key);
    const hash = hashKey(viewOf(encoded), 0, encoded.length);
    const other = seen.get(hash);
    if (other !== undefined) pairs.push([other, key]);
    seen.set(hash, key);
  }
  return pairs;
}

Deno.test("KVStateMachine tells keys apart whose hashes are the same", () => {
  const pairs = collisions();
  assert(pairs.length >= 3, `Only ${pairs.length} pairs`);
  const machine = new KVStateMachine();
  for (const [a, b] of pairs) {
    assertEquals(apply(machine, kv.put(a, "a")).value, 1n);
    assertEquals(machine.lookup(kv.get(b)), undefined);
    assertEquals(apply(machine, kv.delete(b)).value, 0n);
    assertEquals(apply(machine, kv.put(b, "b")).value, 1n);
  }
  // Leaves split and merge under the keys that are alike.
  for (let i = 0; i < 2000; i++) putAll(machine, [[`k${i * 150}x`, "x"]]);
  for (const [a, b] of pairs) {
    assertEquals(text(machine.lookup(kv.get(a))), "a");
    assertEquals(text(machine.lookup(kv.get(b))), "b");
    assertEquals(apply(machine, kv.delete(a)).value, 1n);
    assertEquals(text(machine.lookup(kv.get(b))), "b");
  }
  for (let i = 0; i < 2000; i++) apply(machine, kv.delete(`k${i * 150}x`));
  for (const [, b] of pairs) {
    assertEquals(text(machine.lookup(kv.get(b))), "b");
  }
  assertEquals(machine.lookup(kv.count()), pairs.length);
});
