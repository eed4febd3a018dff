import { assertEquals } from "@std/assert";
import { BATCH_RECORDS_MAX } from "../../src/limits.ts";
import { MemoryLogDB } from "../../mod.ts";
import { packRecords } from "../../src/ports/mod.ts";
import type { LogReader } from "../../src/log/log.ts";
import { BatchCoalescer } from "../../src/sync/server/batch_coalescer.ts";

Deno.test("C7 BatchCoalescer merges small batches up to the bounds, and waits for the next record", async () => {
  await using logDB = new MemoryLogDB();
  const log = logDB.open(1n, 1n);
  for (let i = 0; i < 2500; i++) {
    await log.append(packRecords(new Uint8Array([i])));
  }
  const reader = await log.read(1) as LogReader;
  const source = new BatchCoalescer(reader);
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
