import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { encodeBlock } from "../../src/log/block.ts";
import { BlockRun, blocksFrom } from "../../src/log/block_run.ts";
import { packRecords } from "../../src/log/records.ts";
import { ErrStoreCorrupted } from "../../src/store/errors.ts";
import { MemoryBlockStore } from "../../src/store/memory_block_store.ts";

const CLUSTER = 1n;
const PREFIX = "log/1/";

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

Deno.test("H11 blocksFrom() returns at least one block, and bounds their bytes", () => {
  const { blocks } = runOf(new MemoryBlockStore(), [1, 2, 3]);
  const size = blocks[0]!.size;
  assertEquals(blocksFrom(blocks, 1, 1).map(({ first }) => first), [2]);
  assertEquals(blocksFrom(blocks, 0, size + 1).length, 2);
  assertEquals(blocksFrom(blocks, 0, Infinity).length, 3);
});
