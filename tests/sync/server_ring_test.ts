import { assertEquals } from "@std/assert";
import { BATCH_RECORDS_MAX, SYNC_RING_BYTES } from "../../src/limits.ts";
import { MemoryLogDB, packRecords } from "../../mod.ts";
import type { LogBatch, LogReader } from "../../src/log/log.ts";
import { Gatherer, Ring } from "../../src/sync/server/ring.ts";
import { random32 } from "../support/random.ts";

function batch(follows: number, first: number, count: number): LogBatch {
  const records = Array.from(
    { length: count },
    (_, i) => new Uint8Array([(first + i) & 0xff]),
  );
  return { follows, first, records: packRecords(...records) };
}

/** The indexes and first bytes of all that comes after an index. */
function* indexesAfter(ring: Ring, after: number): Generator<number> {
  for (;;) {
    const next = ring.after(after);
    if (next === undefined) return;
    assertEquals(next.follows <= after || next.follows === after, true);
    for (let i = 0; i < next.records.ends.length; i++) {
      assertEquals(next.records.bytes[i], (next.first + i) & 0xff);
      yield next.first + i;
    }
    after = next.first + next.records.ends.length - 1;
  }
}

Deno.test("H15 Ring.after() gives what comes after any index, over gaps of indexes too", () => {
  const seed = Math.floor(Math.random() * 2 ** 31);
  // deno-lint-ignore no-console
  console.log(`SEED=${seed}`);
  const random = random32(seed);
  const ring = new Ring(100);
  assertEquals(ring.after(100), undefined);
  const all: number[] = [];
  for (let i = 0; i < 50; i++) {
    const first = ring.position + 1 + (random() % 3 === 0 ? random() % 40 : 0);
    const count = 1 + random() % 5;
    ring.push(batch(ring.position, first, count));
    for (let k = 0; k < count; k++) all.push(first + k);
  }
  assertEquals(ring.base, 100);
  for (let after = 100; after <= ring.position + 2; after++) {
    assertEquals(
      [...indexesAfter(ring, after)],
      all.filter((index) => index > after),
    );
  }
});

Deno.test("U26 Ring holds a bounded part of what was put in", () => {
  const ring = new Ring(0);
  const record = new Uint8Array(64 * 1024);
  for (let i = 1; i <= 1000; i++) {
    ring.push({ follows: i - 1, first: i, records: packRecords(record) });
  }
  const held = (ring.position - ring.base) * record.length;
  assertEquals(held >= SYNC_RING_BYTES && held <= 2 * SYNC_RING_BYTES, true);
  assertEquals(ring.after(ring.base)!.first, ring.base + 1);
});

Deno.test("C7 Gatherer makes large batches of small ones, within bounds, and waits for what comes", async () => {
  await using logDB = new MemoryLogDB();
  const log = logDB.open(1n, 1n);
  for (let i = 0; i < 2500; i++) {
    await log.append(packRecords(new Uint8Array([i])));
  }
  const reader = await log.read(1) as LogReader;
  const source = new Gatherer(reader);
  const sizes: number[] = [];
  for (let at = 1; at < 2501;) {
    const { follows, first, records } = await source.next();
    assertEquals([follows, first], [at, at + 1]);
    sizes.push(records.ends.length);
    at += records.ends.length;
  }
  assertEquals(sizes, [BATCH_RECORDS_MAX, BATCH_RECORDS_MAX, 452]);
  const next = source.next();
  await log.append(packRecords(new Uint8Array([1]), new Uint8Array([2])));
  assertEquals((await next).records.ends, [1, 2]);
  reader.close();
  await log.close();
});
