import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { encodeBlock } from "../../src/log/block.ts";
import { BlockRun, blocksFrom } from "../../src/log/block_run.ts";
import { packRecords } from "../../src/log/records.ts";
import { ErrStoreCorrupted } from "../../src/store/errors.ts";
import { MemoryBlockStore } from "../../src/store/memory_block_store.ts";

const CLUSTER = 1n;
/** Ends as the names of all blocks begin. */
const PREFIX = "log/b/";

/** Stores blocks of one record each at these indexes, after a base of 0; returns a run of them. */
function runOf(
  store: MemoryBlockStore,
  indexes: readonly number[],
  options: { hasGaps?: boolean } = {},
): BlockRun {
  const run = new BlockRun(store, CLUSTER, PREFIX, options);
  store.write(
    { put: [run.meta({ base: 0, opened: true, epochs: [] })] },
    "strict",
  );
  for (const first of indexes) {
    const records = packRecords(new Uint8Array([first]));
    const bytes = encodeBlock(CLUSTER, first, [records]);
    const block = { follows: run.last, first, count: 1, size: bytes.length };
    store.write({ put: [{ key: run.keyOf(block), bytes }] }, "strict");
    run.blocks.push(block);
  }
  return run;
}

Deno.test("H15 BlockRun.load() and read() return what was written, with and without gaps", async () => {
  for (
    const [indexes, hasGaps] of [[[1, 2, 3], false], [[2, 5, 6], true]] as const
  ) {
    const store = new MemoryBlockStore();
    const written = runOf(store, indexes, { hasGaps });
    const run = new BlockRun(store, CLUSTER, PREFIX, { hasGaps });
    await run.load();
    assertEquals(run.blocks, written.blocks);
    assertEquals(run.last, indexes[2]);
    const batches = await run.read(run.blocks);
    assertEquals(
      batches.map(({ follows, first }) => [follows, first]),
      indexes.map((first, i) => [indexes[i - 1] ?? 0, first]),
    );
  }
});

Deno.test("H7 BlockRun.compact() removes the blocks that end at or before an index", () => {
  const run = runOf(new MemoryBlockStore(), [1, 2, 3, 4]);
  assertEquals(run.compact(0), []);
  assertEquals(run.compact(2).map(({ first }) => first), [1, 2]);
  assertEquals([run.base, run.last, run.firstAfter(2)], [2, 4, 0]);
  run.compact(9);
  assertEquals([run.base, run.last, run.bytes], [4, 4, 0]);
});

Deno.test("D5 BlockRun.load() names a missing block, and keeps what it had", async () => {
  const store = new MemoryBlockStore();
  const run = runOf(store, [1, 2, 3]);
  store.write({ delete: [run.keyOf(run.blocks[1]!)] }, "strict");
  const error = await assertRejects(() => run.load(), ErrStoreCorrupted);
  assertEquals(error.part, `${PREFIX}b/00000000000002`);
  assertEquals(run.last, 3);
  assertThrows(() => run.read(run.blocks), ErrStoreCorrupted);
});

Deno.test("D5 BlockRun.load() names the last block if it is missing and the metadata have its epoch", async () => {
  for (const hasGaps of [false, true]) {
    const store = new MemoryBlockStore();
    const run = runOf(store, [1, 2, 3], { hasGaps });
    const epochs = [{ index: 1, id: 5n }, { index: 3, id: 6n }];
    const meta = run.meta({ base: 0, opened: true, epochs });
    store.write({ put: [meta] }, "strict");
    await run.load();
    store.write({ delete: [run.keyOf(run.blocks[2]!)] }, "strict");
    const error = await assertRejects(() => run.load(), ErrStoreCorrupted);
    assertEquals(error.part, `${PREFIX}b/00000000000003`);
  }
});

Deno.test("D5 BlockRun.load() names the metadata if a block is in their place", async () => {
  for (const hasGaps of [false, true]) {
    const store = new MemoryBlockStore();
    const run = new BlockRun(store, CLUSTER, PREFIX, { hasGaps });
    // As metadata: base 1, and an epoch of 9 bytes at index 1.
    const records = packRecords(new Uint8Array(7));
    const block = encodeBlock(CLUSTER, 1, [records]);
    const name = { follows: 0, first: 1, count: 1, size: block.length };
    store.write({
      put: [
        { key: run.keyOf(name), bytes: block },
        { key: run.metaKey, bytes: block },
      ],
    }, "strict");
    const error = await assertRejects(() => run.load(), ErrStoreCorrupted);
    assertEquals(error.part, run.metaKey);
    const later = encodeBlock(CLUSTER, 2, [records]);
    store.write({ put: [{ key: run.metaKey, bytes: later }] }, "strict");
    await assertRejects(() => run.load(), ErrStoreCorrupted, run.metaKey);
  }
});

Deno.test("D5 BlockRun.verify() names a block that has the content of another one", async () => {
  for (const hasGaps of [false, true]) {
    const store = new MemoryBlockStore();
    const run = runOf(store, [1, 2], { hasGaps });
    const [first, second] = await run.fetch(run.blocks);
    const [bytes] = store.get([run.metaKey]);
    const meta = { key: run.metaKey, bytes: bytes! };
    for (const one of [first!, second!, meta]) run.verify(one);
    for (
      const [one, other] of [[first, second], [second, first], [first, meta], [
        meta,
        first,
      ]]
    ) {
      const { key } = one!;
      const error = assertThrows(
        () => run.verify({ key, bytes: other!.bytes }),
        ErrStoreCorrupted,
      );
      assertEquals(error.part, key);
    }
  }
});

Deno.test("H11 blocksFrom() returns at least one block, and bounds their bytes", () => {
  const { blocks } = runOf(new MemoryBlockStore(), [1, 2, 3]);
  const size = blocks[0]!.size;
  assertEquals(blocksFrom(blocks, 1, 1).map(({ first }) => first), [2]);
  assertEquals(blocksFrom(blocks, 0, size + 1).length, 2);
  assertEquals(blocksFrom(blocks, 0, Infinity).length, 3);
});
