import { assert, assertEquals, assertFalse } from "@std/assert";
import {
  BATCH_BYTES_MAX,
  BATCH_RECORDS_MAX,
  COMMAND_BYTES_MAX,
  SLAB_BYTES,
} from "../../src/limits.ts";
import {
  batchAfter,
  epochOf,
  epochRecord,
  lastOf,
  packRecords,
  recordAt,
  RecordPacker,
} from "../../src/log/records.ts";
import type { LogBatch, Records } from "../../src/log/log.ts";
import { random } from "../support/random.ts";

function unpack(records: Records): number[][] {
  return records.ends.map((_, i) => [...recordAt(records, i)]);
}

/** Writes a record as the host does, and says whether a batch was sealed for it. */
function put(packer: RecordPacker, record: Uint8Array): Records | undefined {
  const sealed = packer.length > 0 && !packer.fits(record.length)
    ? packer.seal()
    : undefined;
  const at = packer.begin(record.length);
  packer.bytes.set(record, at);
  return sealed;
}

Deno.test("H13 epochOf() reads what epochRecord() writes, and nothing else", () => {
  for (const epoch of [0n, 1n, 0x0123456789abcdefn, (1n << 64n) - 1n]) {
    const record = epochRecord(epoch);
    assertEquals(record.length, 9);
    assertEquals(epochOf(record), epoch);
    // As a view into something larger.
    const around = new Uint8Array(20);
    around.set(record, 5);
    assertEquals(epochOf(around.subarray(5, 14)), epoch);
    assertEquals(epochOf(record.subarray(0, 8)), undefined);
    assertEquals(epochOf(around.subarray(5, 15)), undefined);
    record[0] = 0x14;
    assertEquals(epochOf(record), undefined);
  }
  assertEquals(epochOf(new Uint8Array(0)), undefined);
});

Deno.test("H1 packRecords() and recordAt() are inverse", () => {
  for (
    const records of [
      [[]],
      [[1]],
      [[], []],
      [[1, 2, 3], [], [4], [5, 6]],
      Array.from({ length: 300 }, (_, i) => [i & 255, i >> 8]),
    ]
  ) {
    const pack = packRecords(...records.map((r) => new Uint8Array(r)));
    assertEquals(unpack(pack), records);
    assertEquals(pack.bytes.length, pack.ends.at(-1));
  }
  const record = new Uint8Array([1, 2]);
  const pack = packRecords(record);
  record.fill(0);
  assertEquals(unpack(pack), [[1, 2]]);
});

Deno.test("H15 batchAfter() returns the rest of a batch with the index it follows", () => {
  const records = [[1], [2, 2], [], [4, 4, 4]];
  const batch: LogBatch = {
    follows: 7,
    first: 10,
    records: packRecords(...records.map((r) => new Uint8Array(r))),
  };
  assertEquals(lastOf(batch), 13);
  // At or before what it follows the batch is whole.
  for (const after of [7, 9]) {
    assert(batchAfter(batch, after) === batch);
  }
  for (let after = 10; after < 13; after++) {
    const rest = batchAfter(batch, after);
    assertEquals([rest.follows, rest.first], [after, after + 1]);
    assertEquals(unpack(rest.records), records.slice(after - 9));
    assertEquals(lastOf(rest), 13);
    assertEquals(rest.records.bytes.length, rest.records.ends.at(-1));
    // And again from within.
    if (after < 12) {
      assertEquals(batchAfter(rest, after + 1), batchAfter(batch, after + 1));
    }
  }
});

Deno.test("H11 RecordPacker packs records into batches within the limits", () => {
  const seed = Math.floor(Math.random() * 2 ** 32);
  // deno-lint-ignore no-console
  console.log(`seed ${seed}`);
  const next = random(seed);
  const packer = new RecordPacker();
  const written: number[] = [];
  const batches: Records[] = [];
  for (let i = 0; i < 20_000; i++) {
    const length = next() < 0.001
      ? Math.floor(next() * 3 * SLAB_BYTES)
      : Math.floor(next() * 40);
    const record = new Uint8Array(length).fill(i);
    written.push(length);
    const sealed = put(packer, record);
    if (sealed) batches.push(sealed);
    if (next() < 0.001) batches.push(packer.seal());
  }
  if (packer.length > 0) batches.push(packer.seal());
  // Nothing that was sealed has been written to since.
  let i = 0;
  for (const { bytes, ends } of batches) {
    assert(ends.length > 0 && ends.length <= BATCH_RECORDS_MAX);
    assert(bytes.length <= BATCH_BYTES_MAX);
    assertEquals(bytes.length, ends.at(-1));
    let start = 0;
    for (const end of ends) {
      assertEquals(end - start, written[i]);
      for (let at = start; at < end; at++) {
        if (bytes[at] !== (i & 255)) throw new Error(`Record ${i} is damaged`);
      }
      start = end;
      i++;
    }
  }
  assertEquals(i, written.length);
});

Deno.test("H11 RecordPacker has room for the largest command", () => {
  const packer = new RecordPacker();
  assertFalse(packer.fits(1));
  const large = new Uint8Array(COMMAND_BYTES_MAX + 40).fill(7);
  assertEquals(put(packer, new Uint8Array([1, 2])), undefined);
  const first = put(packer, large)!;
  assertEquals(unpack(first), [[1, 2]]);
  const second = put(packer, new Uint8Array([3]))!;
  assertEquals(second.ends, [large.length]);
  assertEquals(second.bytes.length, large.length);
  assertEquals(unpack(packer.seal()), [[3]]);
  assertEquals(packer.length, 0);
});

Deno.test("H11 RecordPacker ends a batch at the most records", () => {
  const packer = new RecordPacker();
  const sealed: Records[] = [];
  for (let i = 0; i < 2 * BATCH_RECORDS_MAX + 1; i++) {
    const records = put(packer, new Uint8Array([i]));
    if (records) sealed.push(records);
  }
  assertEquals(sealed.map(({ ends }) => ends.length), [
    BATCH_RECORDS_MAX,
    BATCH_RECORDS_MAX,
  ]);
  assertEquals(packer.length, 1);
});

Deno.test("case C13: the buffer of a cluster with few small proposals is small, and doubles with use up to its limit", () => {
  const packer = new RecordPacker();
  const sizes = new Set<number>();
  for (let i = 0; i < 20_000; i++) {
    put(packer, new Uint8Array(40).fill(i));
    packer.seal();
    sizes.add(packer.bytes.length);
    if (i === 0) assert(packer.bytes.length <= 1024);
  }
  const grown = [...sizes];
  assertEquals(grown.at(-1), SLAB_BYTES);
  for (let i = 1; i < grown.length; i++) {
    assertEquals(grown[i], 2 * grown[i - 1]!);
  }
});
