import { assert, assertEquals } from "@std/assert";
import { ErrDiverged, MemoryBlockStore } from "../../mod.ts";
import { type LogBatch, packRecords } from "../../src/ports/mod.ts";
import { epochRecord, lastOf } from "../../src/log/records.ts";
import {
  SYNC_COPY_BYTES_MAX,
  SYNC_COPY_SNAPSHOT_BYTES,
} from "../../src/limits.ts";
import { LogCopy } from "../../src/sync/client/log_copy.ts";
import { ErrCopyFull } from "../../src/sync/errors.ts";
import { FaultyBlockStore } from "../../src/testing/faulty_block_store.ts";
import { bytes } from "../support/bytes.ts";
import { checked, rejection } from "../support/environment.ts";
import { random32 } from "../support/random.ts";
import {
  closeAndCheck,
  entries,
  reading,
  textOf,
  world,
} from "./client_support.ts";

function test(name: string, run: () => Promise<void>): void {
  Deno.test(name, checked(run));
}

function batch(first: number, text: string, follows = first - 1): LogBatch {
  const records = [...text].map((letter) => bytes(letter));
  return { follows, first, records: packRecords(...records) };
}

/** Reads the records after an index, as "index:record". */
async function all(copy: LogCopy, after: number): Promise<string[]> {
  const reader = copy.read(after);
  const found: string[] = [];
  let last = after;
  for (;;) {
    const next = await reader.next();
    if (next === undefined) break;
    assertEquals(next.follows, last);
    last = lastOf(next);
    [...textOf(next.records)].forEach((letter, i) => {
      found.push(`${next.first + i}:${letter}`);
    });
  }
  reader.close();
  return found;
}

const nothing = (): void => {};

test("U38 the copy gives back what came, gaps and all, also when opened again", async () => {
  const store = new MemoryBlockStore();
  const copy = await LogCopy.open(store, 1n);
  assert(copy.has(0));
  let done = 0;
  copy.add(batch(1, "ab"), undefined, () => done++);
  copy.add(batch(3, "c"), undefined, () => done++);
  copy.add(batch(10, "de", 3), undefined, () => done++);
  const expected = ["1:a", "2:b", "3:c", "10:d", "11:e"];
  assertEquals(await all(copy, 0), expected);
  await copy.settled();
  assertEquals(done, 3);
  // What is there already is no news.
  copy.add(batch(3, "c"), undefined, () => done++);
  assertEquals(done, 4);
  const again = await LogCopy.open(store, 1n);
  assertEquals(again.last, 11);
  assertEquals(await all(again, 0), expected);
  assertEquals(await all(again, 2), expected.slice(2));
  assertEquals(await all(again, 3), expected.slice(3));
  assertEquals(await all(again, 11), []);
  again.add(batch(12, "f"), undefined, nothing);
  await again.settled();
  assertEquals((await all(await LogCopy.open(store, 1n), 10)).length, 2);
  assert((await LogCopy.open(store, 2n)).last === 0);
});

test("U38 a copy starts over when a batch does not follow it", async () => {
  const store = new MemoryBlockStore();
  const copy = await LogCopy.open(store, 1n);
  copy.add(batch(1, "abc"), undefined, nothing);
  copy.add(batch(50, "x"), { index: 7, id: 5n }, nothing);
  await copy.settled();
  for (const one of [copy, await LogCopy.open(store, 1n)]) {
    assertEquals([one.has(3), one.has(49), one.last], [false, true, 50]);
    assertEquals(await all(one, 49), ["50:x"]);
    assertEquals(one.epochAt(50), { index: 7, id: 5n });
  }
});

test("H13 a copy of another log is refused", async () => {
  const copy = await LogCopy.open(new MemoryBlockStore(), 1n);
  copy.add(
    { follows: 0, first: 1, records: packRecords(epochRecord(9n), bytes("a")) },
    undefined,
    nothing,
  );
  copy.check(2, undefined);
  copy.check(2, { index: 1, id: 9n });
  for (const epoch of [{ index: 1, id: 8n }, { index: 2, id: 9n }]) {
    const error = await rejection((async () => await copy.check(2, epoch))());
    assert(error instanceof ErrDiverged);
  }
});

test("H7 the copy is compacted only as far as no reader needs it", async () => {
  const store = new MemoryBlockStore();
  const copy = await LogCopy.open(store, 1n);
  const large = "x".repeat(40_000);
  for (let i = 0; i < 5; i++) {
    copy.add(
      { follows: i, first: i + 1, records: packRecords(bytes(large)) },
      undefined,
      nothing,
    );
    await copy.settled();
  }
  const retained = copy.retain(2);
  await copy.compact(100);
  assertEquals([copy.has(1), copy.has(2)], [false, true]);
  retained.release();
  await copy.compact(4);
  assertEquals([copy.has(3), copy.has(4)], [false, true]);
  const again = await LogCopy.open(store, 1n);
  assertEquals([again.has(3), again.has(4), again.last], [false, true, 5]);
});

test("H8 a damaged copy is discarded, and the records are requested from the server", async () => {
  const store = new FaultyBlockStore();
  const first = world({ copy: store });
  const log = await first.db.open(1n, 1n);
  const reader = await reading(first, log, 0);
  let peer = await first.script.open({}, 3);
  peer.send(entries(peer.take("read").stream, 1, "abc"));
  assertEquals(textOf((await reader.next()).records), "abc");
  await closeAndCheck(first);
  const block = store.names().find((name) => name.includes("/b/"))!;
  store.flip(block, 99);
  const second = world({ copy: store });
  const again = await second.db.open(1n, 1n);
  const next = await again.read(0);
  // It reads the names alone when it is opened.
  assertEquals(next.lastAtStart, 3);
  const got = Promise.resolve(next.next());
  peer = await second.script.open({}, 3);
  const reads = peer.got.filter(({ type }) => type === "read");
  const read = reads.at(-1)!;
  assert(read.type === "read");
  assertEquals(read.after, 0);
  peer.send(entries(read.stream, 1, "abc"));
  assertEquals(textOf((await got).records), "abc");
  assert(second.db.status.clusters[0]!.error !== undefined);
  await closeAndCheck(second);
  store.remove(store.names().find((name) => name.endsWith("meta"))!);
  assertEquals((await LogCopy.open(store, 1n)).last, 3);
});

test("H8 U8 a copy that the platform cannot read is left as it is, and the records are requested from the server", async () => {
  const store = new MemoryBlockStore();
  const copy = await LogCopy.open(store, 1n);
  copy.add(batch(1, "abc"), undefined, nothing);
  await copy.settled();
  const before = storedBytes(store);
  const unreadable: readonly ("get" | "list" | "keys")[] = [
    "get",
    "list",
    "keys",
  ];
  for (const method of unreadable) {
    const broken = new Proxy(store, {
      get: (target, name) => {
        if (name === method) return () => Promise.reject(new Error("EIO"));
        const value: unknown = Reflect.get(target, name);
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
    const opened = await LogCopy.open(broken, 1n);
    if (opened.has(0)) {
      assertEquals(await opened.read(0).next(), undefined);
    }
    assertEquals(opened.has(0), false);
    assert(`${opened.error}`.includes("EIO"), method);
    opened.add(batch(4, "d"), undefined, nothing);
    await opened.settled();
  }
  assertEquals(storedBytes(store), before);
  assertEquals(await all(await LogCopy.open(store, 1n), 0), [
    "1:a",
    "2:b",
    "3:c",
  ]);
});

test("U8 where there is no room for more, the copy is good as far as it goes", async () => {
  const store = new FaultyBlockStore();
  const copy = await LogCopy.open(store, 1n);
  copy.add(batch(1, "ab"), undefined, nothing);
  await copy.settled();
  store.fault = { at: store.writes + 1, error: new Error("full") };
  let done = 0;
  copy.add(batch(3, "c"), undefined, () => done++);
  await copy.settled();
  // There may be room again, but there is a hole.
  copy.add(batch(4, "d"), undefined, () => done++);
  await copy.settled();
  assertEquals(done, 2);
  assert(copy.error !== undefined);
  assertEquals(copy.has(2), false);
  const again = await LogCopy.open(store, 1n);
  assertEquals(await all(again, 0), ["1:a", "2:b"]);
});

/** Size of the stored blocks of a copy, in bytes. */
function storedBytes(store: MemoryBlockStore): number {
  return store.list("copy/", "copy0").reduce(
    (sum, { bytes }) => sum + bytes.length,
    0,
  );
}

test("U26 H7 a copy stops at its size limit, reports that and requests a snapshot, and continues once two snapshots cover it", async () => {
  const store = new MemoryBlockStore();
  const mib = packRecords(bytes("x".repeat(1 << 20)));
  let copy = await LogCopy.open(store, 1n);
  const wanted: number[] = [];
  let index = 0;
  const fill = async (): Promise<void> => {
    while (copy.error === undefined && index < 1_000) {
      const follows = index++;
      copy.add({ follows, first: index, records: mib }, undefined, nothing);
      await copy.settled();
      const { snapshotFrom } = copy;
      if (snapshotFrom !== wanted.at(-1)) wanted.push(snapshotFrom);
    }
  };
  await fill();
  assert(copy.error instanceof ErrCopyFull, `${copy.error}`);
  assert(storedBytes(store) <= SYNC_COPY_BYTES_MAX);
  const { last } = copy;
  assertEquals(last, index - 1);
  assert(last >= SYNC_COPY_BYTES_MAX / (1 << 20) - 2, `${last}`);
  assertEquals(wanted.length, 5);
  // What it has is a part from its beginning, and good for a start.
  assert(copy.has(0) && copy.has(last) && !copy.has(last + 1));
  copy = await LogCopy.open(store, 1n);
  assertEquals([copy.last, copy.error], [last, undefined]);
  assert(copy.snapshotFrom > last - 20);
  await fill();
  assert(copy.error instanceof ErrCopyFull, `${copy.error}`);
  // A snapshot of less than all of it lets it be cut, but leaves a hole.
  await copy.compact(last - 1);
  assert(copy.error instanceof ErrCopyFull);
  await copy.compact(index);
  assertEquals(copy.error, undefined);
  copy.add(
    { follows: index, first: index + 1, records: mib },
    undefined,
    nothing,
  );
  await copy.settled();
  assertEquals([copy.has(index), copy.last], [true, index + 1]);
  assert(storedBytes(store) < 2 << 20);
});

test("U26 blocks of short sessions count too", async () => {
  const store = new MemoryBlockStore();
  let snapshotFrom = 0;
  let lives = 0;
  for (; snapshotFrom === 0 && lives < 20_000; lives++) {
    // Only now and then, since each reads the names of all blocks.
    const copy = await LogCopy.open(store, 1n);
    for (let i = 0; i < 500; i++) {
      const follows = copy.last;
      // A hole begins a block of its own, as a new session does.
      copy.add(batch(follows + 2, "a", follows), undefined, nothing);
    }
    await copy.settled();
    snapshotFrom = copy.snapshotFrom;
  }
  assert(snapshotFrom > 0);
  assert(lives * 500 <= 2 * SYNC_COPY_SNAPSHOT_BYTES / 1024, `${lives}`);
});

for (const seed of [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]) {
  test(`D5 power cut at any moment: the copy is a part of the log without a hole, seed ${seed}`, async () => {
    const random = random32(seed);
    let store = new FaultyBlockStore({ asynchronous: seed % 2 === 0 });
    /** Each record, and the index of the one before it. */
    const log = new Map<number, { letter: string; follows: number }>();
    for (let life = 0; life < 8; life++) {
      const copy = await LogCopy.open(store, 1n);
      let { last } = copy;
      const base = [...log.values()].map(({ follows }) => follows)
        .find((follows) => copy.has(follows));
      if (base !== undefined && last > 0) {
        const found = await all(copy, base);
        const expected = [...log].filter(([index]) =>
          index > base && index <= last
        ).map(([index, { letter }]) => `${index}:${letter}`);
        assertEquals(found, expected, `seed ${seed}`);
      }
      // What was lost comes from the server, the same as before.
      for (const index of [...log.keys()]) if (index > last) log.delete(index);
      for (let step = random() % 30; step > 0; step--) {
        if (random() % 12 === 0) {
          await copy.compact(Math.max(0, last - random() % 5));
        }
        if (random() % 40 === 0) last += 100 + random() % 10;
        const follows = last;
        const first = last + 1 + (random() % 4 === 0 ? random() % 5 : 0);
        const size = random() % 6 === 0 ? 40_000 : 1 + random() % 4;
        const text = String.fromCharCode(97 + random() % 26).repeat(
          Math.min(size, 1000),
        );
        if (!copy.has(follows)) log.clear();
        [...text].forEach((letter, i) =>
          log.set(first + i, {
            letter,
            follows: i === 0 ? follows : first + i - 1,
          })
        );
        copy.add(batch(first, text, follows), undefined, nothing);
        last = first + text.length - 1;
        if (random() % 3 === 0) await copy.settled();
      }
      store = store.crash(random() % 4);
    }
  });
}
