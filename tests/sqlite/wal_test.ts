import { assert, assertEquals, assertRejects } from "@std/assert";
import { packRecords } from "../../src/ports/mod.ts";
import {
  ErrStoreCorrupted,
  SqliteBlockStore,
  SqliteLogDB,
} from "../../src/sqlite/mod.ts";
import { isWALDamaged } from "../../src/sqlite/wal.ts";
import { makeDirectory } from "../support/directory.ts";

/** Makes the database file and WAL that a killed process leaves of a log with a few records. */
async function makeLog(path: string): Promise<[Uint8Array, Uint8Array]> {
  await using db = new SqliteLogDB(path);
  const log = await db.open(1n, 1n);
  for (let i = 0; i < 8; i++) {
    await log.append(packRecords(new Uint8Array(i === 5 ? 20_000 : 10)));
  }
  await log.compact!(4);
  for (let i = 0; i < 3; i++) await log.append(packRecords(new Uint8Array(10)));
  return [Deno.readFileSync(path), Deno.readFileSync(`${path}-wal`)];
}

const FRAME = 24 + 4096;

/** Ends of the writes in a WAL, in bytes. */
function ends(wal: Uint8Array): number[] {
  const view = new DataView(wal.buffer);
  const found: number[] = [];
  for (let at = 32; at < wal.length; at += FRAME) {
    if (view.getUint32(at + 4) !== 0) found.push(at + FRAME);
  }
  return found;
}

Deno.test("D5 isWALDamaged() distinguishes damage from an unfinished write", async () => {
  using directory = makeDirectory();
  const [, wal] = await makeLog(directory.path("log.db"));
  const writes = ends(wal);
  assert(writes.length > 10);
  assertEquals(isWALDamaged(wal), false);
  assertEquals(isWALDamaged(new Uint8Array()), false);
  assertEquals(isWALDamaged(new Uint8Array(1000)), false);
  // Cut off anywhere, or its end not written yet.
  for (let at = 32; at < wal.length; at += 500) {
    assertEquals(isWALDamaged(wal.slice(0, at)), false);
    const cut = wal.slice();
    cut.fill(0, at);
    assertEquals(isWALDamaged(cut), false);
  }
  const last = writes.at(-2)!;
  for (let at = 0; at < wal.length; at += 97) {
    const damaged = wal.slice();
    damaged[at]! ^= 1 << at % 8;
    const frame = Math.floor((at - 32) / FRAME);
    // Where it is not known where a write ended, it may go on to the next end.
    if (at < 32 || 32 + frame * FRAME < writes.at(-3)!) {
      assert(isWALDamaged(damaged), `Byte ${at}`);
    }
    // A power cut may have left anything of a page, the last ones.
    if ((at - last) % FRAME > 24 && at > last) {
      assert(!isWALDamaged(damaged), `Byte ${at}`);
    }
  }
  // The last write lost its first half, and then its commit.
  for (let at = last; at < wal.length; at += FRAME) {
    const torn = wal.slice();
    torn.fill(0, at, at + FRAME);
    assertEquals(isWALDamaged(torn), false);
  }
});

Deno.test("D5 SqliteLogDB does not drop writes after damage in its WAL", async () => {
  using directory = makeDirectory();
  const [database, wal] = await makeLog(directory.path("log.db"));
  const path = directory.path("copy.db");
  const put = (wal: Uint8Array): void => {
    Deno.writeFileSync(path, database);
    Deno.writeFileSync(`${path}-wal`, wal);
  };
  put(wal);
  {
    await using db = new SqliteLogDB(path);
    assertEquals(await (await db.open(1n, 1n)).readIndex(), 12);
  }
  const damaged = wal.slice();
  damaged[ends(wal)[3]! + 200]! ^= 1;
  put(damaged);
  await using db = new SqliteLogDB(path);
  const error = await assertRejects(() => db.open(1n, 1n), ErrStoreCorrupted);
  assertEquals(error.part, `${path}-wal`);
  // An unfinished write does not count.
  put(wal.slice(0, ends(wal).at(-1)! - 500));
  await using cut = new SqliteLogDB(path);
  assertEquals(await (await cut.open(1n, 1n)).readIndex(), 11);
});

Deno.test("D5 a SqliteBlockStore whose durability is normal accepts its WAL as it is", async () => {
  using directory = makeDirectory();
  const [database, wal] = await makeLog(directory.path("log.db"));
  const path = directory.path("copy.db");
  Deno.writeFileSync(path, database);
  wal[ends(wal)[3]! + 200]! ^= 1;
  Deno.writeFileSync(`${path}-wal`, wal);
  await using store = new SqliteBlockStore(path);
  assert(store.keys("", "~").length > 0);
});

/** Cuts the power during a write: of the pages it wrote the first is not on the disk, the others are. */
function cutPower(path: string, to: string, write: () => void): void {
  const before = Deno.readFileSync(`${path}-wal`);
  write();
  const wal = Deno.readFileSync(`${path}-wal`);
  let at = 32;
  while (
    wal.subarray(at, at + FRAME).every((byte, i) => byte === before[at + i])
  ) at += FRAME;
  wal.fill(0, at, at + FRAME);
  Deno.copyFileSync(path, to);
  Deno.writeFileSync(`${to}-wal`, wal);
}

Deno.test("D5 an unfinished write that a power cut left in a WAL does not count as damage after another one", async () => {
  using directory = makeDirectory();
  const open = (name: string): SqliteBlockStore =>
    new SqliteBlockStore(directory.path(name), { durability: "full" });
  const put = (store: SqliteBlockStore, key: string, size: number): void =>
    store.write({ put: [{ key, bytes: new Uint8Array(size) }] }, "strict");
  await using first = open("1");
  put(first, "a", 5_000);
  cutPower(first.path, directory.path("2"), () => put(first, "b", 60_000));
  await using second = open("2");
  assertEquals(second.keys("", "~"), ["a"]);
  put(second, "c", 5_000);
  cutPower(second.path, directory.path("3"), () => put(second, "d", 9_000));
  await using third = open("3");
  assertEquals(third.keys("", "~"), ["a", "c"]);
});
