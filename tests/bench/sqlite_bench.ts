/**
 * The durable log and the on-disk machine on SQLite, from a proposal to its
 * answer, beside SQLite itself.
 *
 * @module
 */

import { DatabaseSync } from "node:sqlite";
import { kv, NodeHost, type Replica } from "../../mod.ts";
import {
  FileSnapshotStore,
  SqliteKVStateMachine,
  SqliteLogDB,
} from "../../src/sqlite/mod.ts";
import {
  type Bench,
  type Cases,
  convert,
  percentile,
  wallOnly,
} from "./report.ts";

const KEYS = 100_000;

/** A command of 16 bytes that sets one of the keys. */
function makeCommand(i: number): Uint8Array {
  const key = String(i * 7919 % KEYS).padStart(8, "0");
  const empty = kv.put(key, "").length;
  return kv.put(key, String(i).padStart(16 - empty, "0").slice(-16 + empty));
}

/** Runs `use` with a replica on SQLite, then removes its files. */
async function withReplica(
  durability: "full" | "normal",
  run: (replica: Replica) => Promise<void>,
): Promise<void> {
  const directory = await Deno.makeTempDir();
  try {
    await using logDB = new SqliteLogDB(`${directory}/log.db`, { durability });
    await using snapshots = new FileSnapshotStore(`${directory}/snapshots`);
    await using host = new NodeHost({ logDB, snapshots });
    const replica = await host.startOnDiskCluster(
      () => new SqliteKVStateMachine(`${directory}/state.db`),
      // Keeps the log short, as a real one would be.
      { clusterID: 1n, nodeID: 1n, snapshotEntries: 100_000 },
    );
    await run(replica);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** Proposes commands with a fixed number of them in flight. */
async function propose(
  replica: Replica,
  commands: readonly Uint8Array[],
  inFlight: number,
): Promise<void> {
  let next = 0;
  const client = async (): Promise<void> => {
    while (next < commands.length) await replica.propose(commands[next++]!);
  };
  await Promise.all(Array.from({ length: inFlight }, client));
}

async function benchThroughput(
  bench: Bench,
  durability: "full" | "normal",
): Promise<void> {
  const commands = Array.from(
    { length: bench.count(200_000) },
    (_, i) => makeCommand(i),
  );
  await withReplica(durability, async (replica) => {
    const ms = await bench.rounds(() => propose(replica, commands, 1024));
    bench.report(
      `SQLite log and machine, durability ${durability}, 1,024 in flight, 16 B`,
      convert(wallOnly(ms), (round) => commands.length / round),
      "k/s",
      durability === "full"
        ? { atLeast: 120, dragonboat: 117, note: "both with fsync" }
        : {},
    );
  });
}

/**
 * One client and a raw commit of as many bytes, in turns: both meet the same
 * load of the disk.
 */
async function benchOneClient(bench: Bench): Promise<void> {
  const path = await Deno.makeTempFile();
  const db = new DatabaseSync(path);
  db.exec(`PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
    CREATE TABLE log (id INTEGER PRIMARY KEY, bytes BLOB)`);
  const insert = db.prepare("INSERT INTO log (bytes) VALUES (?)");
  // What the log writes for a record of this size.
  const bytes = new Uint8Array(60);
  await withReplica("full", async (replica) => {
    const ours: number[] = [];
    const raw: number[] = [];
    for (let i = 0; i < bench.count(3000); i++) {
      const cmd = makeCommand(i);
      const start = performance.now();
      await replica.propose(cmd);
      const proposed = performance.now();
      insert.run(bytes);
      const inserted = performance.now();
      ours.push(proposed - start);
      raw.push(inserted - proposed);
    }
    const least = percentile(raw, 0.5);
    bench.report(
      "raw SQLite commit of one record, full, p50",
      least * 1e3,
      "µs",
    );
    const p50 = percentile(ours, 0.5);
    bench.report("… one client, p50", p50 * 1e3, "µs", { dragonboat: 161 });
    bench.report("… relative to the raw commit", p50 / least, "×", {
      atMost: 1.3,
    });
  });
  db.close();
  await Deno.remove(path);
}

/** Cases of what is on SQLite. */
export const cases: Cases = {
  "sqlite/full": { run: (bench) => benchThroughput(bench, "full") },
  "sqlite/normal": { run: (bench) => benchThroughput(bench, "normal") },
  "sqlite/one-client": { processes: 3, run: benchOneClient },
};
