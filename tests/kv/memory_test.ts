import { assert, assertEquals } from "@std/assert";
import { LEAF_BYTES, LEAF_ROWS } from "../../src/kv/leaf.ts";
import { kv, KVStateMachine } from "../../src/kv/mod.ts";
import { loadPayload } from "../../src/kv/snapshot.ts";
import { applyCommand } from "../../src/kv/command.ts";
import { spans, Tree } from "../../src/kv/tree.ts";
import { apply, machines, never, random, save, source } from "./util.ts";
import { text } from "../support/bytes.ts";

/** Number of leaves, size of their buffers, and bytes used in them. */
function memory(tree: Tree): { leaves: number; held: number; used: number } {
  let leaves = 0;
  let held = 0;
  let used = 0;
  for (const { leaf } of spans(tree.present.root)) {
    leaves++;
    held += leaf.view.byteLength;
    used += leaf.used;
  }
  return { leaves, held, used };
}

Deno.test("Tree holds in proportion to its rows under endless overwrites", () => {
  const tree = new Tree();
  const next = random(5);
  for (let step = 0; step < 200_000; step++) {
    const size = next(10) === 0 ? next(4000) : next(60);
    applyCommand(tree, kv.put(`key ${next(300)}`, new Uint8Array(size)));
  }
  for (let i = 0; i < 300; i++) {
    applyCommand(tree, kv.put(`key ${i}`, new Uint8Array(4000)));
  }
  const large = memory(tree);
  assert(
    large.held < 2 * large.used + 1024 * large.leaves,
    JSON.stringify(large),
  );
  for (let i = 0; i < 300; i++) {
    applyCommand(tree, kv.put(`key ${i}`, new Uint8Array(10)));
  }
  const small = memory(tree);
  assertEquals(tree.count, 300);
  assert(
    small.held < 2 * small.used + 1024 * small.leaves,
    JSON.stringify(small),
  );
});

Deno.test("Tree gives leaves back when rows are deleted, and stays whole", () => {
  const tree = new Tree();
  const next = random(9);
  const keys = new Set<string>();
  while (keys.size < 60_000) keys.add(`${next(1e9)}`);
  for (const key of keys) applyCommand(tree, kv.put(key, "0123456789"));
  const full = memory(tree);
  assert(full.leaves < keys.size / 30, JSON.stringify(full));
  // All but one of a hundred, in no order.
  let n = 0;
  const left = new Map<string, string>();
  for (const key of keys) {
    if (n++ % 100 === 0) left.set(key, "0123456789");
    else assertEquals(applyCommand(tree, kv.delete(key)).value, 1n);
  }
  const sparse = memory(tree);
  assertEquals(tree.count, left.size);
  assert(sparse.leaves < left.size / 8, JSON.stringify(sparse));
  assert(sparse.held < 1024 * sparse.leaves + 2 * sparse.used);
  const twin = new Tree();
  for (const [key, value] of left) applyCommand(twin, kv.put(key, value));
  assertEquals(tree.hash, twin.hash);
  for (const key of left.keys()) {
    assertEquals(applyCommand(tree, kv.delete(key)).value, 1n);
  }
  assertEquals(memory(tree).leaves, 0);
  assertEquals(tree.hash, 0n);
});

Deno.test("Tree fills its leaves when keys come in order", () => {
  const tree = new Tree();
  for (let i = 0; i < 20_000; i++) {
    applyCommand(tree, kv.put(`${1e6 + i}`, "x"));
  }
  assert(memory(tree).leaves <= 20_000 / 63 + 1);
});

Deno.test("Tree recovered from a snapshot has leaves as small as one that grew", async () => {
  const machine = new KVStateMachine();
  for (let i = 0; i < 2000; i++) {
    apply(machine, kv.put(`${i}`, new Uint8Array(i % 40 ? 1000 : 30_000)));
  }
  const tree = await loadPayload(source([await save(machine)]), never);
  for (const { leaf } of spans(tree.present.root)) {
    assert(leaf.rows < LEAF_ROWS);
    assert(leaf.used <= LEAF_BYTES || leaf.rows === 1, `${leaf.used} bytes`);
    assertEquals(leaf.view.byteLength, leaf.used);
  }
});

for (const [name, create] of machines) {
  Deno.test(`${name}.clone() gives a machine of its own`, async () => {
    const machine = create();
    for (let i = 0; i < 5000; i++) apply(machine, kv.put(`key ${i}`, "old"));
    const before = await save(machine);
    const hash = machine.getHash();
    const fork = machine.clone();
    assertEquals(fork.constructor, machine.constructor);
    assertEquals(fork.getHash(), hash);
    for (let i = 0; i < 5000; i += 2) {
      apply(fork, kv.put(`key ${i}`, "new"));
      apply(fork, kv.delete(`key ${i + 1}`));
    }
    assertEquals(machine.getHash(), hash);
    assertEquals(await save(machine), before);
    assertEquals(text(machine.lookup(kv.get("key 4"))), "old");
    const second = fork.clone();
    const forked = await save(fork);
    for (let i = 0; i < 5000; i += 2) apply(machine, kv.put(`key ${i}`, "its"));
    apply(second, kv.put("key 4", "second"));
    assertEquals(await save(fork), forked);
    assertEquals(text(fork.lookup(kv.get("key 4"))), "new");
    assertEquals(text(machine.lookup(kv.get("key 4"))), "its");
    assertEquals(text(second.lookup(kv.get("key 4"))), "second");
    assertEquals(fork.lookup(kv.count()), 2500);
  });
}
