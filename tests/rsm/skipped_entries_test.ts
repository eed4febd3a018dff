import { assertEquals, assertThrows } from "@std/assert";
import { ByteReader } from "../../src/bytes.ts";
import { SKIPPED_ENTRIES_MAX } from "../../src/limits.ts";
import { RecordKind } from "../../src/log/records.ts";
import { RecordCursor, skipEntryRecord } from "../../src/rsm/record_codec.ts";
import { SessionTable } from "../../src/rsm/session_table.ts";
import {
  decodeSkips,
  encodeSkips,
  isUsable,
  SkippedEntries,
  type SkippedEntry,
} from "../../src/rsm/skipped_entries.ts";

const SKIP: SkippedEntry = { index: 7, decidedAt: 12, reason: "no such field" };

Deno.test("H17 a skip-entry record round-trips, and a truncated one is rejected", () => {
  const record = skipEntryRecord(300, "because");
  const cursor = new RecordCursor();
  cursor.read(record, 0, record.length);
  assertEquals([cursor.kind, cursor.target], [RecordKind.SkipEntry, 300]);
  assertEquals(new TextDecoder().decode(cursor.reason()), "because");
  assertThrows(() => cursor.read(record, 0, 2), RangeError, "too early");
  const long = new Uint8Array(record.length + 600);
  long.set(record);
  assertThrows(
    () => cursor.read(long, 0, long.length),
    RangeError,
    "the limit is",
  );
});

Deno.test("H17 skipped entries follow the session table in a snapshot, which stays readable without them", () => {
  const table = new SessionTable();
  table.register(3, 5n, new Uint8Array());
  const sessions = table.encode(true);
  assertEquals(encodeSkips(sessions, []), sessions);
  for (const skips of [[], [SKIP], [SKIP, { ...SKIP, index: 9 }]]) {
    const reader = new ByteReader(encodeSkips(sessions, skips));
    new SessionTable().decodeFrom(reader);
    assertEquals(decodeSkips(reader), skips);
  }
  const both = encodeSkips(sessions, [SKIP]);
  // Code that does not know of them refuses the whole.
  assertThrows(
    () => new SessionTable().decode(both),
    RangeError,
    "follow",
  );
  for (const bytes of [both.subarray(0, -1), new Uint8Array([...both, 0])]) {
    const reader = new ByteReader(bytes);
    new SessionTable().decodeFrom(reader);
    assertThrows(() => decodeSkips(reader), RangeError);
  }
});

Deno.test("H17 a snapshot is usable before a skipped entry, and after its decision", () => {
  assertEquals(
    [6, 7, 11, 12].map((index) => isUsable(index, [SKIP])),
    [true, false, false, true],
  );
  const skips = new SkippedEntries([SKIP]);
  assertEquals(
    [6, 7, 11, 12].map((index) => skips.isAhead(index)),
    [false, true, true, false],
  );
  assertEquals([skips.after(0), skips.after(7)], [7, Infinity]);
});

Deno.test("H17 skipped entries are bounded in number: the oldest are dropped", () => {
  const skips = new SkippedEntries();
  for (let index = 1; index <= SKIPPED_ENTRIES_MAX + 2; index++) {
    skips.add({ ...SKIP, index, decidedAt: index + 1 });
  }
  assertEquals(skips.list().length, SKIPPED_ENTRIES_MAX);
  assertEquals(skips.list()[0]!.index, 3);
});
