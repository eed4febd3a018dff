import { assert, assertEquals } from "@std/assert";
import { hash64, hashKey, hashValue, lanes } from "../../src/kv/hash.ts";
import { Leaf } from "../../src/kv/leaf.ts";
import { Tree } from "../../src/kv/tree.ts";
import { bytesOf, headOf, viewOf } from "../../src/kv/view.ts";
import { random } from "./util.ts";

/** Seeds that are always tried, and one that is new each time. */
const seeds = [1, 2, 3, Math.floor(Math.random() * 2 ** 31)];

/** Bytes of a Latin-1 string. */
function latin(text: string): Uint8Array {
  return Uint8Array.from(text, (c) => c.charCodeAt(0));
}

/** Makers of keys that are hard to tell apart by four bytes after a common prefix. */
const families: Record<string, (next: (n: number) => number) => string> = {
  "long common prefixes": (next) =>
    `a table/of rows/${"x".repeat(next(3) * 7)}${next(3000)}`,
  "keys shorter than four bytes": (next) =>
    String.fromCharCode(...Array.from({ length: next(4) }, () => next(16))),
  "keys that continue each other": (next) => "ab".repeat(next(300)),
  "trailing zeros": (next) => `${next(40)}${"\0".repeat(next(12))}`,
  "bytes from 0x80": (next) =>
    String.fromCharCode(
      ...Array.from({ length: 1 + next(6) }, () => 0x7e + 64 * next(3)),
    ),
  "equal heads": (next) =>
    `same${["", "same", "\xff\xff\xff\xff"][next(3)]}${next(900)}`,
  "everything": (next) =>
    String.fromCharCode(
      ...Array.from({ length: next(9) }, () => next(4) * 85),
    ),
  "long keys": (next) => `${"k".repeat(120 + next(20))}${next(90)}`,
};

for (const [family, make] of Object.entries(families)) {
  for (const seed of seeds) {
    Deno.test(`Leaf finds the place of every key: ${family}, seed ${seed}`, () => {
      const next = random(seed);
      const leaf = new Leaf({}, 1, viewOf(new Uint8Array()), 8);
      const rows: string[] = [];
      for (let step = 0; step < 600; step++) {
        const key = make(next);
        const bytes = latin(key);
        const at = leaf.lowerBound(viewOf(bytes), 0, bytes.length);
        const expected = rows.filter((row) => row < key).length;
        assertEquals(at, expected, `Row of ${JSON.stringify(key)}`);
        const found = leaf.hasKey(at, viewOf(bytes), 0, bytes.length);
        assertEquals(found, rows.includes(key));
        if (found && next(2) === 0) {
          leaf.remove(at);
          rows.splice(at, 1);
        } else if (!found && rows.length < 200) {
          leaf.write(at, true, viewOf(bytes), 0, bytes.length, 0, 0);
          rows.splice(at, 0, key);
        }
        if (rows.length > 100 && next(50) === 0) {
          leaf.cut(50);
          rows.length = 50;
        }
      }
    });

    Deno.test(`Tree equals a sorted list: ${family}, seed ${seed}`, () => {
      const next = random(seed);
      let tree = new Tree();
      const model = new Map<string, string>();
      for (let step = 0; step < 9000; step++) {
        const key = make(next);
        const row = latin(`${key}value ${next(50)}`);
        const view = viewOf(row);
        const size = key.length;
        const value = String.fromCharCode(...row.subarray(size));
        // Mostly growing, then mostly shrinking.
        if (next(10) < (step < 5000 ? 8 : 3)) {
          const changed = model.get(key) !== value;
          assertEquals(tree.put(view, 0, size, size, row.length), changed);
          model.set(key, value);
        } else {
          assertEquals(tree.delete(view, 0, size), model.delete(key));
        }
        const other = make(next);
        const found = tree.copy(viewOf(latin(other)), 0, other.length);
        assertEquals(
          found && String.fromCharCode(...found),
          model.get(other),
          `Value of ${JSON.stringify(other)}, seed ${seed}`,
        );
        if (next(300) === 0) tree.freeze();
        if (next(1500) === 0) check(tree, model, make(next));
        // A clone has no hash index.
        if (next(3000) === 0) tree = new Tree(tree);
      }
      check(tree, model, "");
    });
  }
}

/** Compares rows from `from` on, number and hash with those of the model. */
function check(tree: Tree, model: Map<string, string>, from: string): void {
  const rows: string[] = [];
  for (const { leaf, start, end } of tree.spans(viewOf(latin(from)))) {
    for (let row = start; row < end; row++) {
      const key = bytesOf(leaf.view, leaf.keyAt(row), leaf.valueAt(row));
      rows.push(String.fromCharCode(...key));
    }
  }
  const keys = [...model.keys()].filter((key) => key >= from);
  assertEquals(rows, keys.sort((a, b) => a < b ? -1 : 1));
  assertEquals(tree.count, model.size);
  assertEquals(tree.hash, hashOf(model));
}

/** Sum of the hashes of the rows. */
function hashOf(model: Map<string, string>): bigint {
  let low = 0;
  let high = 0;
  for (const [key, value] of model) {
    const row = viewOf(latin(key + value));
    hashKey(row, 0, key.length);
    hashValue(row, key.length, row.byteLength);
    low = low + lanes[0]! | 0;
    high = high + lanes[1]! | 0;
  }
  return hash64(low, high);
}

Deno.test("E1 the state hash is the same whenever and however often it is asked for", () => {
  for (const seed of seeds) {
    const next = random(seed);
    const asked = new Tree();
    const seldom = new Tree();
    const model = new Map<string, string>();
    for (let step = 0; step < 15_000; step++) {
      const key = `key ${next(10_000)}`;
      // Beyond 1,024 bytes the hash of a value is taken at once.
      const value = String(next(9)).repeat(next(40) === 0 ? 1500 : 8);
      const row = viewOf(latin(key + value));
      const isDelete = next(6) === 0;
      for (const tree of [asked, seldom]) {
        if (isDelete) tree.delete(row, 0, key.length);
        else tree.put(row, 0, key.length, key.length, row.byteLength);
      }
      if (isDelete) model.delete(key);
      else model.set(key, value);
      if (step % 7 === 0) asked.hash;
      if (step % 4000 === 0) assertEquals(asked.hash, seldom.hash);
      if (step % 5000 === 0) {
        assertEquals(new Tree(seldom).hash, asked.hash, `seed ${seed}`);
      }
    }
    assertEquals(seldom.hash, hashOf(model), `seed ${seed}`);
    assertEquals(asked.hash, seldom.hash, `seed ${seed}`);
  }
});

Deno.test("headOf() orders keys like their first four bytes", () => {
  const next = random(7);
  for (let i = 0; i < 20_000; i++) {
    const [a, b] = [0, 1].map(() =>
      Uint8Array.from({ length: next(7) }, () => next(3) * 127)
    ) as [Uint8Array, Uint8Array];
    const one = headOf(viewOf(a), 0, a.length);
    const other = headOf(viewOf(b), 0, b.length);
    const text = (key: Uint8Array): string => String.fromCharCode(...key);
    if (one < other) assert(text(a) < text(b), `${a} and ${b}`);
  }
});
