import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertThrows,
} from "@std/assert";
import { DatabaseSync } from "node:sqlite";
import {
  ErrStoreCorrupted,
  ErrStoreFull,
  ErrStoreLocked,
  ErrStoreVersion,
  SqliteBlockStore,
} from "../../src/sqlite/mod.ts";
import { makeDirectory } from "../support/directory.ts";

function makeBytes(length: number, seed: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length }, (_, i) => seed + i * 31 + (i >> 8));
}

/** Runs a statement on a database that is not open. */
function tamper(path: string, sql: string): void {
  const db = new DatabaseSync(path);
  db.exec(sql);
  db.close();
}

/** Result of opening the store in another process. */
async function openElsewhere(path: string): Promise<string> {
  const url = new URL("../../src/sqlite/mod.ts", import.meta.url);
  const { stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      "eval",
      `
      import { SqliteBlockStore } from "${url}";
      try {
        console.log(new SqliteBlockStore("${path}").identity());
      } catch (error) {
        console.log(error.name);
      }
    `,
    ],
  }).output();
  const decoder = new TextDecoder();
  return decoder.decode(stdout).trim() || decoder.decode(stderr);
}

/** True if `strace` works here. */
async function hasStrace(): Promise<boolean> {
  try {
    return (await new Deno.Command("strace", { args: ["true"] }).output())
      .success;
  } catch {
    return false;
  }
}

Deno.test("H11 a second SqliteBlockStore on the same database is locked out, here and in another process", async () => {
  using directory = makeDirectory();
  const path = directory.path("store.db");
  const store = new SqliteBlockStore(path);
  const identity = store.identity();
  const second = new SqliteBlockStore(path);
  assertThrows(() => second.identity(), ErrStoreLocked, path);
  assertThrows(() => second.write({}, "strict"), ErrStoreLocked);
  assertEquals(await openElsewhere(path), "ErrStoreLocked");
  store.write({ put: [{ key: "a", bytes: makeBytes(3, 1) }] }, "relaxed");
  await store.close();
  // The refused store can open it now, and then locks it.
  assertEquals(second.identity(), identity);
  assertEquals(second.get(["a"]), [makeBytes(3, 1)]);
  assertEquals(await openElsewhere(path), "ErrStoreLocked");
  await second.close();
  assertEquals(await openElsewhere(path), identity);
});

Deno.test("H11 the lock of a SqliteBlockStore ends with its killed process", async () => {
  using directory = makeDirectory();
  const path = directory.path("store.db");
  const url = new URL("../../src/sqlite/mod.ts", import.meta.url);
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "eval",
      `
      import { SqliteBlockStore } from "${url}";
      const store = new SqliteBlockStore("${path}");
      store.write({ put: [{ key: "a", bytes: new Uint8Array([1]) }] }, "relaxed");
      console.log(store.identity());
      await new Promise((resolve) => setTimeout(resolve, 60_000));
    `,
    ],
    stdout: "piped",
  }).spawn();
  const reader = child.stdout.getReader();
  const { value } = await reader.read();
  await using store = new SqliteBlockStore(path);
  assertThrows(() => store.get(["a"]), ErrStoreLocked);
  child.kill("SIGKILL");
  await child.status;
  assertEquals(`${store.identity()}\n`, new TextDecoder().decode(value));
  assertEquals(store.get(["a"]), [new Uint8Array([1])]);
  await reader.cancel();
});

Deno.test("D14 SqliteBlockStore has another identity after it was deleted and created again", async () => {
  using directory = makeDirectory();
  const identities = new Set<string>();
  for (const name of ["a.db", "b.db", "a.db"]) {
    await using store = new SqliteBlockStore(directory.path(name));
    identities.add(store.identity());
  }
  assertEquals(identities.size, 2);
  Deno.removeSync(directory.path("a.db"));
  await using store = new SqliteBlockStore(directory.path("a.db"));
  assert(!identities.has(store.identity()));
});

Deno.test("U8 SqliteBlockStore that is full fails without a change, and accepts writes again later", async () => {
  using directory = makeDirectory();
  await using store = new SqliteBlockStore(directory.path("store.db"), {
    bytesMax: 400_000,
  });
  const put = (key: string): void =>
    store.write({
      put: [
        { key: `${key}/1`, bytes: makeBytes(50_000, 1) },
        { key: `${key}/2`, bytes: makeBytes(50_000, 2) },
      ],
      delete: ["kept"],
    }, "strict");
  put("a");
  put("b");
  put("c");
  store.write({ put: [{ key: "kept", bytes: makeBytes(9, 1) }] }, "strict");
  const before = store.list("", "~");
  for (let i = 0; i < 3; i++) {
    assertThrows(() => put("d"), ErrStoreFull);
    assertEquals(store.list("", "~"), before);
  }
  store.write({ deleteRanges: [["a", "b"]] }, "strict");
  put("d");
  assertEquals(store.keys("", "~"), ["b/1", "b/2", "c/1", "c/2", "d/1", "d/2"]);
});

Deno.test("D5 SqliteBlockStore rolls back a write that fails half way", async () => {
  using directory = makeDirectory();
  await using store = new SqliteBlockStore(directory.path("store.db"));
  const good = { key: "a", bytes: makeBytes(9, 1) };
  store.write({ put: [good] }, "strict");
  const bad = { key: "c", bytes: null as unknown as Uint8Array };
  const put = [{ key: "b", bytes: makeBytes(9, 2) }, bad];
  for (let i = 0; i < 3; i++) {
    assertThrows(() => store.write({ delete: ["a"], put }, "relaxed"), Error);
    assertEquals(store.list("", "~"), [good]);
  }
  store.write({ delete: ["a"] }, "strict");
  assertEquals(store.keys("", "~"), []);
});

Deno.test("D5 SqliteBlockStore detects a damaged database", async () => {
  using directory = makeDirectory();
  const path = directory.path("store.db");
  const fill = async (): Promise<void> => {
    await using store = new SqliteBlockStore(path);
    const put = Array.from({ length: 50 }, (_, i) => ({
      key: `key-${i}`,
      bytes: makeBytes(5000, i),
    }));
    store.write({ put }, "strict");
  };
  const read = async (): Promise<unknown> => {
    const store = new SqliteBlockStore(path);
    try {
      return store.list("", "~").length;
    } catch (error) {
      return error;
    } finally {
      await store.close();
    }
  };
  await fill();
  assertEquals(await read(), 50);
  const good = Deno.readFileSync(path);
  for (const page of [0, 1, 2, 3]) {
    const damaged = good.slice();
    damaged.fill(0xA5, page * 4096, page * 4096 + 4096);
    Deno.writeFileSync(path, damaged);
    const error = await read();
    assertInstanceOf(error, ErrStoreCorrupted, `Page ${page}`);
    assertEquals(error.part, path);
  }
  Deno.writeFileSync(path, good.subarray(0, 3 * 4096));
  assertInstanceOf(await read(), ErrStoreCorrupted);
  Deno.writeFileSync(path, good);
  tamper(path, "UPDATE blocks SET bytes = 'text' WHERE key = 'key-7'");
  assertEquals((await read() as ErrStoreCorrupted).part, "key-7");
  tamper(path, "DELETE FROM store");
  assertInstanceOf(await read(), ErrStoreCorrupted);
});

Deno.test("H11 SqliteBlockStore does not change a database of another application", async () => {
  using directory = makeDirectory();
  const path = directory.path("other.db");
  tamper(path, "CREATE TABLE blocks (key TEXT, bytes BLOB)");
  await using store = new SqliteBlockStore(path);
  assertThrows(() => store.keys("", "~"), ErrStoreCorrupted, path);
  tamper(path, "DROP TABLE blocks; PRAGMA user_version = 3");
  assertThrows(() => store.keys("", "~"), ErrStoreCorrupted, path);
  const newer = directory.path("newer.db");
  {
    await using store = new SqliteBlockStore(newer);
    store.identity();
  }
  tamper(newer, "PRAGMA user_version = 2");
  await using late = new SqliteBlockStore(newer);
  assertThrows(() => late.keys("", "~"), ErrStoreVersion, newer);
});

Deno.test("D6 a strict write of SqliteBlockStore commits even without changes", async () => {
  using directory = makeDirectory();
  const path = directory.path("store.db");
  await using store = new SqliteBlockStore(path);
  const put = [{ key: "a", bytes: makeBytes(1, 1) }];
  const grows = (...args: Parameters<typeof store.write>): boolean => {
    const before = Deno.statSync(`${path}-wal`).size;
    store.write(...args);
    return Deno.statSync(`${path}-wal`).size > before;
  };
  store.write({ put }, "relaxed");
  // SQLite itself commits nothing when what is put is there already.
  assert(grows({ put }, "strict"));
  assert(!grows({}, "strict"), "There was nothing to be synced");
  store.write({ delete: ["a"] }, "relaxed");
  assert(grows({}, "strict"));
});

Deno.test("D6 a strict write of SqliteBlockStore is synced, a relaxed one is not", async () => {
  if (!await hasStrace()) return;
  using directory = makeDirectory();
  const url = new URL("../../src/sqlite/mod.ts", import.meta.url);
  const run = await new Deno.Command("strace", {
    args: [
      "-f",
      "-e",
      "trace=fsync,fdatasync,write",
      Deno.execPath(),
      "eval",
      `import { SqliteBlockStore } from "${url}";
       const store = new SqliteBlockStore("${directory.path("store.db")}");
       const put = [{ key: "a", bytes: new Uint8Array(1) }];
       store.write({ put }, "relaxed");
       console.log("RELAXED");
       store.write({ put }, "relaxed");
       console.log("EMPTY");
       store.write({}, "strict");
       console.log("OVER");`,
    ],
  }).output();
  const trace = new TextDecoder().decode(run.stderr);
  const part = (from: string, to: string): string => {
    const [start, end] = [trace.indexOf(from), trace.indexOf(to)];
    assert(start >= 0 && end > start, trace);
    return trace.slice(start, end);
  };
  assert(!/sync\(/.test(part('"RELAXED', '"EMPTY')), "Relaxed one was synced");
  assert(/sync\(/.test(part('"EMPTY', '"OVER')), "Strict one was not synced");
});

Deno.test("H10 SqliteBlockStore is opened by the first call, and cannot be reopened", async () => {
  using directory = makeDirectory();
  const path = directory.path("a/b/store.db");
  const unused = new SqliteBlockStore(path);
  await unused.close();
  await unused.close();
  assertThrows(() => Deno.statSync(directory.path("a")), Deno.errors.NotFound);
  assertThrows(() => unused.identity(), Error, "closed");
});
