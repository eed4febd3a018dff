/**
 * Fills a disk and checks that stores on it report this, leave no partial
 * writes, and go on once space is free.
 *
 * ```sh
 * deno run -A tests/sqlite/full.ts /mnt/small 123   # a directory on a small disk, and a seed
 * ```
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { kv, KVStateMachine, NodeHost, type Replica } from "../../mod.ts";
import {
  FileSnapshotStore,
  SqliteBlockStore,
  SqliteKVStateMachine,
  SqliteLogDB,
} from "../../src/sqlite/mod.ts";
import { Filler, fits } from "../browser/filler.ts";
import { random } from "../support/random.ts";

/** Size of a file that fills the disk and is removed once it is full, in bytes: more than two databases need for their checkpoints. */
const BALLAST_BYTES = 12 * 1024 * 1024;
/** Number of further writes that are tried on a full disk. */
const TRIES = 50;

/** Wait after which a proposal counts as one that waits for room, in milliseconds. */
const PATIENCE_MS = 200;

const CLUSTER = { clusterID: 1n, nodeID: 1n };

/** Occupies space on the disk until it is disposed of. */
function ballast(directory: string): Disposable {
  const path = `${directory}/ballast`;
  Deno.writeFileSync(path, new Uint8Array(BALLAST_BYTES));
  return { [Symbol.dispose]: () => Deno.removeSync(path) };
}

/** Blocks in a database. */
async function fillBlocks(
  directory: string,
  next: () => number,
): Promise<number> {
  const path = `${directory}/store.db`;
  const filler = new Filler(next);
  {
    using _ = ballast(directory);
    await using store = new SqliteBlockStore(path);
    await filler.fill(store, TRIES);
  }
  // Opened again while the disk is still full.
  {
    using _ = ballast(directory);
    await using store = new SqliteBlockStore(path);
    if (await fits(() => store.identity())) await filler.check(store);
  }
  await using store = new SqliteBlockStore(path);
  await filler.check(store);
  for (let i = 0; i < 5; i++) assert(await filler.write(store), "No room");
  await filler.check(store);
  return filler.failures;
}

/** Snapshots as files. */
async function fillSnapshots(directory: string): Promise<number> {
  await using store = new FileSnapshotStore(`${directory}/snapshots`);
  const save = async (index: number): Promise<void> => {
    const sink = store.create({
      clusterID: 1n,
      nodeID: 1n,
      type: 1,
      kind: "full",
      index,
      compression: "none",
    });
    try {
      await new Blob([new Uint8Array(300_000)]).stream().pipeTo(sink.writable);
      sink.commit({ files: 0 });
    } catch (error) {
      await sink.abort(error);
      throw error;
    }
  };
  const names = (): number =>
    [...Deno.readDirSync(`${directory}/snapshots`)].length;
  let made = 0;
  {
    using _ = ballast(directory);
    while (await fits(() => save(made + 1))) made++;
    for (let i = 0; i < TRIES; i++) {
      assert(!await fits(() => save(made + 1)));
      assertEquals(store.list(1n).length, made);
      assertEquals(names(), made + 1, "Something is left besides the lock");
    }
  }
  assert(await fits(() => save(made + 1)));
  assertEquals(store.list(1n).map(({ index }) => index)[0], made + 1);
  return made;
}

/** A host with its log on the disk, and its machine in memory, or on the disk too. */
async function fillHost(
  kind: "memory" | "disk",
  directory: string,
  next: () => number,
): Promise<number> {
  const answered = new Set<string>();
  /** Proposals whose results have to wait until the machine has room (U8). */
  const waiting: Promise<unknown>[] = [];
  let full = 0;
  let made = 0;
  const propose = async (replica: Replica): Promise<boolean> => {
    const key = `${made++}`;
    const value = new Uint8Array(Math.floor(next() ** 4 * 100_000));
    const fit = fits(async () => {
      await replica.propose(kv.put(key, value));
      answered.add(key);
    });
    let timer: number | undefined;
    const late = new Promise<undefined>((resolve) =>
      timer = setTimeout(resolve, PATIENCE_MS)
    );
    const answer = await Promise.race([fit, late]);
    clearTimeout(timer);
    if (answer === undefined) waiting.push(fit);
    if (!answer) full++;
    return answer ?? false;
  };
  const start = (host: NodeHost): Promise<Replica> =>
    kind === "memory"
      ? host.startCluster(() => new KVStateMachine(), CLUSTER)
      : host.startOnDiskCluster(
        () => new SqliteKVStateMachine(`${directory}/state.db`),
        { ...CLUSTER, snapshotEntries: 20, fullSnapshotInterval: 0 },
      );
  const live = async (
    work: (replica: Replica) => Promise<void>,
  ): Promise<void> => {
    await using logDB = new SqliteLogDB(`${directory}/log.db`);
    await using snapshots = new FileSnapshotStore(`${directory}/snapshots`);
    await using host = new NodeHost({ logDB, snapshots });
    await work(await start(host));
  };
  await live(async (replica) => {
    {
      using _ = ballast(directory);
      while (full === 0) await propose(replica);
      for (let i = 0; i < TRIES; i++) await propose(replica);
    }
    assertEquals(replica.error, undefined);
    await Promise.all(waiting);
    for (let i = 0; i < 5; i++) assert(await propose(replica), "No room");
    assertEquals(await replica.read(kv.count()), answered.size);
  });
  await live(async (replica) => {
    for (let i = 0; i < 5; i++) assert(await propose(replica), "No room");
    for (const key of answered) {
      assert(await replica.read(kv.get(key)) !== undefined, `${key} is lost`);
    }
  });
  // A replay of the log gives the same.
  await using logDB = new SqliteLogDB(`${directory}/log.db`);
  await using host = new NodeHost({ logDB });
  const there = await start(host);
  await using second = new NodeHost({ logDB });
  const memory = await second.startCluster(() => new KVStateMachine(), {
    clusterID: 1n,
    nodeID: 2n,
  });
  assertEquals(await memory.read(kv.count()), await there.read(kv.count()));
  assertEquals(
    (await memory.getHash()).hash,
    (await there.getHash()).hash,
  );
  return full;
}

if (import.meta.main) {
  const [root, seed] = Deno.args;
  const next = random(Number(seed));
  const part = async (
    name: string,
    fill: (directory: string, next: () => number) => Promise<number>,
  ): Promise<void> => {
    const directory = `${root}/${name}`;
    Deno.mkdirSync(directory);
    const count = await fill(directory, next);
    Deno.removeSync(directory, { recursive: true });
    // deno-lint-ignore no-console
    console.log(`${name}: ${count}`);
  };
  await part("blocks", fillBlocks);
  await part("snapshots", fillSnapshots);
  await part("log", (...args) => fillHost("memory", ...args));
  await part("log and state", (...args) => fillHost("disk", ...args));
}
