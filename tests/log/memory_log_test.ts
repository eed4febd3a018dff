import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  ErrClusterClosed,
  ErrCompacted,
  type LogBatch,
  MemoryLogDB,
  packRecords,
} from "../../src/log/mod.ts";
import { systemEnv } from "../../src/env.ts";
import { logDBConformance } from "../../src/testing/log_conformance.ts";

for (
  const { name, run } of logDBConformance({ create: () => new MemoryLogDB() })
) Deno.test(`MemoryLogDB: ${name}`, run);

const one = packRecords(new Uint8Array([1]));

Deno.test("H1 MemoryLog is synchronous unless it has to wait", () => {
  const log = new MemoryLogDB().open(1n, 1n);
  assertEquals(log.append(one), 2);
  assertEquals(log.readIndex(), 2);
  assertEquals(log.isEmpty(), false);
  const reader = log.read(0);
  assert(!(reader instanceof Promise));
  const epoch = reader.next();
  assert(!(epoch instanceof Promise));
  assertEquals([epoch.follows, epoch.first], [0, 1]);
  const batch = reader.next();
  assert(!(batch instanceof Promise));
  assertEquals([batch.follows, batch.first], [1, 2]);
  assertEquals(log.compact?.(2), undefined);
  assertEquals(log.close(), undefined);
});

Deno.test("H13 MemoryLogDB takes its epochs from its env", async () => {
  await using db = new MemoryLogDB({
    env: { ...systemEnv, random64: () => 9n },
  });
  const log = await db.open(1n, 1n);
  await log.append(one);
  (await log.read(2, { epoch: { index: 1, id: 9n } })).close();
});

Deno.test("H1 MemoryLog.append() does not fail if a reader it wakes throws", async () => {
  await using db = new MemoryLogDB();
  const mine = await db.open(1n, 1n);
  const behind = await mine.read(0);
  const waiting = Promise.resolve(behind.next());
  await mine.startAt(100, undefined);
  const good = await mine.read(100);
  const woken = Promise.resolve(good.next());
  assertEquals(await mine.append(one), 102);
  const error = await assertRejects(() => waiting, ErrCompacted);
  assertEquals(error.firstIndex, 101);
  assertEquals((await woken).first, 101);
});

Deno.test("R11 a machine that modifies its commands does not affect other replicas", async () => {
  await using db = new MemoryLogDB();
  const [mine, theirs] = [await db.open(1n, 1n), await db.open(1n, 2n)];
  await mine.append(packRecords(new Uint8Array([1, 2])));
  const here = await (await mine.read(1)).next();
  here.records.bytes.fill(9);
  const there = await (await theirs.read(1)).next();
  assertEquals([...there.records.bytes], [1, 2]);
});

Deno.test("H10 MemoryLog wakes a reader once, even if it is closed later", async () => {
  await using db = new MemoryLogDB();
  const log = await db.open(1n, 1n);
  const controller = new AbortController();
  const reader = await log.read(0, { signal: controller.signal });
  const next = reader.next() as Promise<LogBatch>;
  await log.append(one);
  reader.close();
  controller.abort(new Error("Enough"));
  assertEquals((await next).first, 1);
  assertThrows(() => reader.next());
});

Deno.test("H7 MemoryLog.compact() keeps a batch that is needed in part", async () => {
  await using db = new MemoryLogDB();
  const log = await db.open(1n, 1n);
  const record = new Uint8Array(3);
  await log.append(packRecords(record, record, record));
  await log.compact!(3);
  const error = assertThrows(() => log.read(0), ErrCompacted);
  assertEquals(error.firstIndex, 2);
  const reader = await log.read(3);
  assertEquals((await reader.next()).records.ends, [3]);
});

Deno.test("H10 MemoryLogDB closes the snapshots it shares", async () => {
  const db = new MemoryLogDB();
  const log = await db.open(1n, 1n);
  await db.close();
  assertThrows(() => db.snapshots.list(1n), Error, "closed");
  assertThrows(() => log.append(one), ErrClusterClosed);
});
