/**
 * Proposals while a backup of their data folder is taken, beside the same
 * proposals without it.
 *
 * @module
 */

import { ConcurrentKVStateMachine, kv, NodeHost } from "../../mod.ts";
import { DataFolder } from "../../src/sqlite/mod.ts";
import { type Bench, type Cases, percentile } from "./report.ts";

const MIB = 1024 * 1024;
const VALUE = new Uint8Array(64 * 1024).map((_, i) => i * 7);

/** Measures a backup of a folder of 1 GiB under load. */
async function benchBackup(bench: Bench): Promise<void> {
  const path = await Deno.makeTempDir();
  try {
    await using data = await DataFolder.open(`${path}/data`);
    await using host = new NodeHost({
      logDB: data.logDB,
      snapshots: data.snapshots,
    });
    const replica = await host.startConcurrentCluster(
      () => new ConcurrentKVStateMachine(),
      { clusterID: 1n, nodeID: 1n },
    );
    for (
      let size = 0;
      size < bench.count(1024) * MIB;
      size += 16 * VALUE.length
    ) {
      await Promise.all(
        Array.from(
          { length: 16 },
          // A few keys: the log grows, the state does not.
          (_, i) => replica.propose(kv.put(String(i), VALUE)),
        ),
      );
    }
    let isOver = false;
    let count = 0;
    let waits: number[] = [];
    const client = async (i: number): Promise<void> => {
      while (!isOver) {
        const from = performance.now();
        await replica.propose(kv.put(`load ${i}`, String(count++)));
        waits.push(performance.now() - from);
      }
    };
    const clients = Array.from({ length: 64 }, (_, i) => client(i));
    const measure = async (work: () => Promise<void>) => {
      count = 0;
      waits = [];
      const from = performance.now();
      await work();
      const ms = performance.now() - from;
      return { rate: count / ms, p99: percentile(waits, 0.99), ms };
    };
    const pause = (ms: number) => () =>
      new Promise<void>((resolve) => void setTimeout(resolve, ms));
    await pause(bench.count(2_000))();
    const before = await measure(pause(bench.count(5_000)));
    const during = await measure(async () => {
      const file = await Deno.open(`${path}/backup`, {
        create: true,
        write: true,
      });
      await data.backup().pipeTo(file.writable);
    });
    const after = await measure(pause(bench.count(5_000)));
    isOver = true;
    await Promise.all(clients);
    const alone = (before.rate + after.rate) / 2;
    const mib = Math.round((await Deno.stat(`${path}/backup`)).size / MIB);
    bench.report("proposals, 64 in flight, log on SQLite, full", alone, "k/s");
    bench.report(
      "… while the data folder is backed up, slower by",
      alone / during.rate,
      "×",
      {
        atMost: 1.5,
        note: `${mib} MiB in ${(during.ms / 1000).toFixed(1)} s`,
      },
    );
    bench.report("… p99 then", during.p99, "ms", {
      note: `${((before.p99 + after.p99) / 2).toFixed(1)} ms without`,
    });
  } finally {
    await Deno.remove(path, { recursive: true });
  }
}

/** The case of the backup. */
export const cases: Cases = { "backup": { run: benchBackup } };
