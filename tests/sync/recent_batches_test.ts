import { assertEquals } from "@std/assert";
import { SYNC_RECENT_BYTES } from "../../src/limits.ts";
import { packRecords } from "../../src/ports/mod.ts";
import type { LogBatch } from "../../src/log/log.ts";
import { RecentBatches } from "../../src/sync/server/recent_batches.ts";
import { random32 } from "../support/random.ts";

function batch(follows: number, first: number, count: number): LogBatch {
  const records = Array.from(
    { length: count },
    (_, i) => new Uint8Array([(first + i) & 0xff]),
  );
  return { follows, first, records: packRecords(...records) };
}

/** Yields the indexes after an index, checking the first byte of each record. */
function* indexesAfter(
  recent: RecentBatches,
  after: number,
): Generator<number> {
  for (;;) {
    const next = recent.after(after);
    if (next === undefined) return;
    assertEquals(next.follows <= after || next.follows === after, true);
    for (let i = 0; i < next.records.ends.length; i++) {
      assertEquals(next.records.bytes[i], (next.first + i) & 0xff);
      yield next.first + i;
    }
    after = next.first + next.records.ends.length - 1;
  }
}

Deno.test("H15 RecentBatches.after() returns the batch after any index, across gaps of indexes", () => {
  const seed = Math.floor(Math.random() * 2 ** 31);
  // deno-lint-ignore no-console
  console.log(`SEED=${seed}`);
  const random = random32(seed);
  const recent = new RecentBatches(100);
  assertEquals(recent.after(100), undefined);
  const all: number[] = [];
  for (let i = 0; i < 50; i++) {
    const first = recent.last + 1 + (random() % 3 === 0 ? random() % 40 : 0);
    const count = 1 + random() % 5;
    recent.push(batch(recent.last, first, count));
    for (let k = 0; k < count; k++) all.push(first + k);
  }
  assertEquals(recent.base, 100);
  for (let after = 100; after <= recent.last + 2; after++) {
    assertEquals(
      [...indexesAfter(recent, after)],
      all.filter((index) => index > after),
    );
  }
});

Deno.test("U26 RecentBatches keeps a bounded part of what is pushed", () => {
  const recent = new RecentBatches(0);
  const record = new Uint8Array(64 * 1024);
  for (let i = 1; i <= 1000; i++) {
    recent.push({ follows: i - 1, first: i, records: packRecords(record) });
  }
  const kept = (recent.last - recent.base) * record.length;
  assertEquals(
    kept >= SYNC_RECENT_BYTES && kept <= 2 * SYNC_RECENT_BYTES,
    true,
  );
  assertEquals(recent.after(recent.base)!.first, recent.base + 1);
});
