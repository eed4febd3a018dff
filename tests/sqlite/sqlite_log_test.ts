import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
} from "@std/assert";
import { DatabaseSync } from "node:sqlite";
import { kv, KVStateMachine, NodeHost } from "../../mod.ts";
import { packRecords } from "../../src/ports/mod.ts";
import {
  ErrStoreCorrupted,
  ErrStoreLocked,
  SqliteLogDB,
} from "../../src/sqlite/mod.ts";
import { makeDirectory } from "../support/directory.ts";

const one = packRecords(new Uint8Array([1, 2, 3]));
const config = { clusterID: 1n, nodeID: 1n };

/** Runs a statement on a database that is not open; returns its rows. */
function query(path: string, sql: string): Record<string, unknown>[] {
  const db = new DatabaseSync(path);
  try {
    return db.prepare(sql).all();
  } finally {
    db.close();
  }
}

/** Creates a log with a few blocks and returns their names. */
async function makeLog(path: string): Promise<string[]> {
  await using db = new SqliteLogDB(path);
  const log = await db.open(1n, 1n);
  for (let i = 0; i < 5; i++) await log.append(one);
  await db.close();
  return query(path, "SELECT key FROM blocks ORDER BY key")
    .map(({ key }) => key as string);
}

/** Reads a log to its end and returns the error it fails with. */
async function readLog(path: string): Promise<unknown> {
  await using db = new SqliteLogDB(path);
  try {
    const log = await db.open(1n, 1n);
    const reader = await log.read(0);
    const last = await log.readIndex();
    for (let at = 0; at < last;) {
      const { first, records } = await reader.next();
      at = first + records.ends.length - 1;
    }
    return undefined;
  } catch (error) {
    return error;
  }
}

Deno.test("H11 a second SqliteLogDB on the same database is locked out until the first one closes", async () => {
  using directory = makeDirectory();
  const path = directory.path("log.db");
  const db = new SqliteLogDB(path);
  await (await db.open(1n, 1n)).append(one);
  await using second = new SqliteLogDB(path);
  await assertRejects(() => second.open(1n, 2n), ErrStoreLocked, path);
  await using host = new NodeHost({ logDB: second });
  await assertRejects(
    () => host.startCluster(() => new KVStateMachine(), config),
    ErrStoreLocked,
  );
  await db.close();
  const log = await second.open(1n, 2n);
  assertEquals(await log.readIndex(), 2);
});

Deno.test("D5 SqliteLogDB names the row that is missing or damaged", async () => {
  using directory = makeDirectory();
  const path = directory.path("log.db");
  const keys = await makeLog(path);
  assertEquals(keys.length, 6);
  const good = Deno.readFileSync(path);
  for (const [i, key] of keys.entries()) {
    Deno.writeFileSync(path, good);
    query(path, `DELETE FROM blocks WHERE key = '${key}'`);
    const missing = await readLog(path);
    // The last block is missed by the machine that has applied it (D13).
    const isLast = i === keys.length - 2;
    assertEquals(missing instanceof ErrStoreCorrupted, !isLast, key);
    if (!isLast) assert(key.startsWith((missing as ErrStoreCorrupted).part));
    Deno.writeFileSync(path, good);
    query(
      path,
      `UPDATE blocks SET bytes = CAST(substr(bytes, 1, 16) || x'FF' || substr(bytes, 18) AS BLOB) WHERE key = '${key}'`,
    );
    const damaged = await readLog(path);
    assertInstanceOf(damaged, ErrStoreCorrupted);
    assertEquals(damaged.part, key);
  }
  Deno.writeFileSync(path, good);
  assertEquals(await readLog(path), undefined);
});

Deno.test("D13 a machine detects a SqliteLogDB that lost its end", async () => {
  using directory = makeDirectory();
  const path = directory.path("log.db");
  const keys = await makeLog(path);
  query(path, `DELETE FROM blocks WHERE key = '${keys.at(-2)}'`);
  await using db = new SqliteLogDB(path);
  const log = await db.open(1n, 1n);
  await assertRejects(async () => await log.read(6), Error, "ends at index 5");
});

Deno.test("H1 SqliteLogDB commits the appends of one turn of the event loop together", async () => {
  using directory = makeDirectory();
  const path = directory.path("log.db");
  {
    await using db = new SqliteLogDB(path);
    const log = await db.open(1n, 1n);
    const appended: Promise<number>[] = [];
    for (let i = 0; i < 8; i++) {
      // Each from a callback of its own, as requests come in.
      const { port1, port2 } = new MessageChannel();
      const called = Promise.withResolvers<void>();
      port2.onmessage = () => {
        port1.close();
        port2.close();
        called.resolve();
      };
      port1.postMessage(i);
      appended.push(called.promise.then(() => log.append(one)));
    }
    const indexes = await Promise.all(appended);
    assertEquals(new Set(indexes).size, 8);
  }
  const [row] = query(path, "SELECT count(*) AS count FROM blocks");
  // The head of the log, and one block, or two if they came in too late for it.
  assert(Number(row!.count) <= 3, `${row!.count} rows`);
});

Deno.test("R3 a SqliteLogDB has all proposals when it is reopened", async () => {
  using directory = makeDirectory();
  for (const durability of ["full", "normal"] as const) {
    const path = directory.path(durability);
    let hash: bigint | undefined;
    for (let life = 0; life < 3; life++) {
      await using logDB = new SqliteLogDB(path, { durability });
      await using host = new NodeHost({ logDB });
      const replica = await host.startCluster(
        () => new KVStateMachine(),
        config,
      );
      if (hash !== undefined) {
        assertEquals((await replica.getHash()).hash, hash);
      }
      await Promise.all(
        Array.from(
          { length: 3000 },
          (_, i) => replica.propose(kv.put(`${life}-${i}`, `${i}`)),
        ),
      );
      assertEquals(await replica.read(kv.count()), 3000 * (life + 1));
      hash = (await replica.getHash()).hash;
    }
  }
});
