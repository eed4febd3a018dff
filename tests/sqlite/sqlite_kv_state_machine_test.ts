import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
} from "@std/assert";
import {
  ErrClusterClosed,
  kv,
  KVStateMachine,
  NodeHost,
  OnDiskKVStateMachine,
  type Replica,
} from "../../mod.ts";
import {
  type Block,
  type BlockStore,
  type Changes,
  type Durability,
  ErrStoreLocked,
  FileSnapshotStore,
  type ListOptions,
  SqliteBlockStore,
  SqliteKVStateMachine,
  SqliteLogDB,
} from "../../src/sqlite/mod.ts";
import { exists, removeFile } from "../../src/sqlite/files.ts";
import { checkOnDiskStateMachine, type Disk } from "../../src/testing/mod.ts";
import { makeDirectory } from "../support/directory.ts";

const config = { clusterID: 1n, nodeID: 1n };

const commands = [
  kv.put("a", "1"),
  kv.put("a", "2"),
  kv.put("b", new Uint8Array(5000)),
  kv.put("", ""),
  kv.delete("a"),
  kv.compareAndSwap("a", "1", "3"),
  kv.compareAndSwap("c", undefined, "4"),
  kv.batch([kv.put("d", "5"), kv.delete("b")]),
  new Uint8Array([1, 2, 3]),
];
const queries = [kv.get("a"), kv.get("b"), kv.range(), kv.count()];

/** Copies the files of a database, as they are at this moment. */
function copyDatabase(from: string, to: string): void {
  for (const suffix of ["", "-wal"]) {
    if (exists(from + suffix)) Deno.copyFileSync(from + suffix, to + suffix);
    else removeFile(to + suffix);
  }
}

Deno.test("D5 SqliteKVStateMachine keeps the contract when its process is killed", async () => {
  using directory = makeDirectory();
  let made = 0;
  const disk = (): Disk => {
    let path = directory.path(`${made++}.db`);
    return {
      create: () => new SqliteKVStateMachine(path),
      // What a killed process leaves: its files, and no lock.
      crash(): void {
        const to = directory.path(`${made++}.db`);
        copyDatabase(path, to);
        path = to;
      },
    };
  };
  await checkOnDiskStateMachine({ disk, commands, queries, runs: 5 });
});

/** Store that loses the writes since the last strict one in a power cut. */
class PowerCutStore implements BlockStore {
  readonly #path: string;
  readonly #inner: SqliteBlockStore;
  #isOff = false;

  constructor(path: string) {
    this.#path = path;
    this.#inner = new SqliteBlockStore(path);
  }

  #on(): SqliteBlockStore {
    if (this.#isOff) throw new Error("EIO: power is off");
    return this.#inner;
  }

  identity(): string {
    return this.#on().identity();
  }
  get(keys: readonly string[]): (Uint8Array | undefined)[] {
    return this.#on().get(keys);
  }
  list(from: string, to: string, options?: ListOptions): Block[] {
    return this.#on().list(from, to, options);
  }
  keys(from: string, to: string, options?: ListOptions): string[] {
    return this.#on().keys(from, to, options);
  }
  write(changes: Changes, durability: Durability): void {
    this.#on().write(changes, durability);
    if (durability === "strict") copyDatabase(this.#path, `${this.#path}.kept`);
  }
  /** Nothing is written any more. */
  cut(): void {
    this.#isOff = true;
    void this.#inner.close();
  }
  async close(): Promise<void> {
    await this.#inner.close();
    // What is closed is synced.
    if (!this.#isOff) copyDatabase(this.#path, `${this.#path}.kept`);
  }
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

Deno.test("D6 SqliteKVStateMachine keeps the contract when the power is cut", async () => {
  using directory = makeDirectory();
  let made = 0;
  const disk = (): Disk => {
    let path = directory.path(`${made++}.db`);
    let stores: PowerCutStore[] = [];
    return {
      create: () =>
        new OnDiskKVStateMachine(() => {
          const store = new PowerCutStore(path);
          stores.push(store);
          return store;
        }),
      crash(): void {
        for (const store of stores) store.cut();
        stores = [];
        const to = directory.path(`${made++}.db`);
        copyDatabase(`${path}.kept`, to);
        copyDatabase(`${path}.kept`, `${to}.kept`);
        path = to;
      },
    };
  };
  await checkOnDiskStateMachine({ disk, commands, queries, runs: 5 });
});

Deno.test("H11 a second SqliteKVStateMachine on the same database is locked out", async () => {
  using directory = makeDirectory();
  const { signal } = new AbortController();
  const one = new SqliteKVStateMachine(directory.path("state.db"));
  assertEquals(await one.open(signal), 0);
  const two = new SqliteKVStateMachine(directory.path("state.db"));
  await assertRejects(() => Promise.resolve(two.open(signal)), ErrStoreLocked);
  await one.close();
  assertEquals(await two.open(signal), 0);
  await two.close();
});

/** Proposes commands of all kinds, many of them waiting at any time. */
async function work(replica: Replica, from: number): Promise<void> {
  const session = await replica.openSession();
  const waiting: Promise<unknown>[] = [];
  for (let i = from; i < from + 2000; i++) {
    const key = `key-${i * 7919 % 500}`;
    const cmd = i % 5 === 0
      ? kv.delete(key)
      : kv.put(key, `${i}`.repeat(i % 9));
    waiting.push(replica.propose(cmd, i % 2 === 0 ? { session } : {}));
  }
  await Promise.all(waiting);
}

Deno.test("D3 SqliteKVStateMachine continues from its state after log and snapshots were compacted", async () => {
  using directory = makeDirectory();
  for (const durability of ["full", "normal"] as const) {
    const at = (name: string): string =>
      directory.path(`${durability}/${name}`);
    let hash: bigint | undefined;
    for (let life = 0; life < 3; life++) {
      await using logDB = new SqliteLogDB(at("log.db"), { durability });
      await using snapshots = new FileSnapshotStore(at("snapshots"));
      await using host = new NodeHost({ logDB, snapshots });
      const replica = await host.startOnDiskCluster(
        () => new SqliteKVStateMachine(at("state.db"), { durability }),
        { ...config, snapshotEntries: 300, fullSnapshotInterval: 2 },
      );
      if (hash !== undefined) {
        assertEquals((await replica.getHash()).hash, hash);
      }
      await work(replica, life * 2000);
      hash = (await replica.getHash()).hash;
      const query = kv.encodeQuery(kv.count());
      const answer = await replica.naRead(query);
      assertEquals(
        kv.decodeAnswer(kv.count(), answer),
        await replica.read(kv.count()),
      );
    }
  }
});

Deno.test("H9 a snapshot of SqliteKVStateMachine recovers a machine in memory, and back", async () => {
  using directory = makeDirectory();
  await using logDB = new SqliteLogDB(directory.path("log.db"));
  await using host = new NodeHost({ logDB });
  const replica = await host.startOnDiskCluster(
    () => new SqliteKVStateMachine(directory.path("state.db")),
    config,
  );
  await work(replica, 0);
  const { hash } = await replica.getHash();
  await using memory = new NodeHost();
  await memory.importSnapshot(1n, replica.exportSnapshot());
  const there = await memory.startCluster(() => new KVStateMachine(), config);
  assertEquals((await there.getHash()).hash, hash);
  await work(there, 2000);
  await using backDB = new SqliteLogDB(directory.path("back/log.db"));
  await using snapshots = new FileSnapshotStore(directory.path("back"));
  await using back = new NodeHost({ logDB: backDB, snapshots });
  await back.importSnapshot(1n, there.exportSnapshot());
  const again = await back.startOnDiskCluster(
    () => new SqliteKVStateMachine(directory.path("back/state.db")),
    config,
  );
  assertEquals((await again.getHash()).hash, (await there.getHash()).hash);
});

Deno.test("D7 a lookup during close() of SqliteKVStateMachine is answered correctly, or fails as closed", async () => {
  using directory = makeDirectory();
  const rows = 2000;
  const keyOf = (row: number): string => `key-${row % rows}`;
  const options = { memoryBudgetBytes: 256 * 1024 };
  await using blocks = new SqliteBlockStore(directory.path("given.db"));
  for (const store of ["own", "given"] as const) {
    const machine = store === "own"
      ? new SqliteKVStateMachine(directory.path("own.db"), options)
      : new OnDiskKVStateMachine(blocks, options);
    await machine.open(new AbortController().signal);
    for (let row = 0; row < rows; row++) {
      const cmd = kv.put(keyOf(row), new Uint8Array(1000).fill(row));
      await machine.update([{ index: row + 1, cmd }]);
    }
    const of = async (row: number): Promise<"right" | "refused"> => {
      try {
        const value = await machine.lookup(kv.get(keyOf(row)));
        assertEquals(value, new Uint8Array(1000).fill(row % rows));
        return "right";
      } catch (error) {
        assertInstanceOf(error, ErrClusterClosed);
        return "refused";
      }
    };
    // Some are under way when it is closed.
    const before = Array.from({ length: 40 }, (_, i) => of(i * 50));
    const closing = machine.close();
    const concurrent = Array.from({ length: 40 }, (_, i) => of(i * 50 + 1));
    await closing;
    assertEquals(new Set(await Promise.all(before)), new Set(["right"]));
    await Promise.all(concurrent);
    const after = new Set<string>();
    for (let row = 0; row < rows; row++) after.add(await of(row));
    assert(after.has("right"), "What is in memory can be looked up");
    assertEquals(after.has("refused"), store === "own");
    assertEquals(await machine.lookup(kv.count()), rows);
    const range = machine.lookup(kv.range());
    if (store === "own") {
      await assertRejects(async () => await range, ErrClusterClosed);
    } else assertEquals((await range).length, rows);
    // Nothing of that is to keep it from being opened again.
    if (store === "own") {
      const again = new SqliteKVStateMachine(directory.path("own.db"));
      assertEquals(await again.open(new AbortController().signal), rows);
      assertEquals(again.getHash(), machine.getHash());
      await again.close();
    }
  }
});
