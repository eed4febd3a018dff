/**
 * An outbox on SQLite that takes a million submissions without a connection:
 * memory, rate, and the next start.
 *
 * @module
 */

import {
  ConcurrentKVStateMachine,
  kv,
  NodeHost,
  type Replica,
} from "../../mod.ts";
import { SqliteOutbox } from "../../src/sqlite/mod.ts";
import {
  CloseCode,
  RemoteLogDB,
  type Transport,
} from "../../src/sync/client/mod.ts";
import type { Bench, Cases } from "./report.ts";

const SUBMISSIONS = 1_000_000;
const COMMAND_BYTES = 100;
const KEYS = 10_000;
/** Submissions that are made before the first of them is awaited. */
const GROUP = 512;

/** Transport of a network that is switched off. */
function connect(): Transport {
  return {
    listen: ({ closed }): void =>
      void setTimeout(() =>
        closed(CloseCode.Normal, "Network is switched off")
      ),
    send(): void {},
    close(): void {},
    bufferedBytes: 0,
  };
}

/** Runs `use` with a replica of a device without a connection. */
async function offline(
  file: string,
  use: (replica: Replica) => Promise<void> | void,
): Promise<void> {
  await using logDB = new RemoteLogDB("ws://localhost:1", {
    connect,
    fetch: () =>
      Promise.reject(
        new TypeError("fetch() failed: the network is switched off"),
      ),
  });
  await using outbox = new SqliteOutbox(file);
  await using host = new NodeHost({ logDB, outbox });
  await use(
    await host.startConcurrentCluster(() => new ConcurrentKVStateMachine(), {
      clusterID: 1n,
      nodeID: 2n,
    }),
  );
}

function keyOf(i: number): string {
  return `key ${String(i * 7919 % KEYS).padStart(8, "0")}`;
}

async function submitAll(replica: Replica, count: number): Promise<void> {
  const value = "x".repeat(COMMAND_BYTES - kv.put(keyOf(0), "").length);
  for (let i = 0; i < count;) {
    const group: Promise<unknown>[] = [];
    while (group.length < GROUP && i < count) {
      const text = `${i}${value.slice(String(i).length)}`;
      group.push(replica.submit(kv.put(keyOf(i++), text)));
    }
    await Promise.all(group);
  }
}

function memoryMB(): { heap: number; resident: number } {
  const { heapUsed, external, rss } = Deno.memoryUsage();
  return { heap: (heapUsed + external) / 1e6, resident: rss / 1e6 };
}

async function benchMillion(bench: Bench): Promise<void> {
  const directory = await Deno.makeTempDir();
  const file = `${directory}/outbox.db`;
  const count = bench.count(SUBMISSIONS);
  const what = `${
    count.toLocaleString("en")
  } submissions of ${COMMAND_BYTES} B without a connection`;
  try {
    await offline(file, async (replica) => {
      // Compiles the code, so that its memory is not counted.
      await submitAll(replica, Math.min(count, 20 * GROUP));
      const before = memoryMB();
      const from = performance.now();
      await submitAll(replica, count);
      const seconds = (performance.now() - from) / 1000;
      const after = memoryMB();
      bench.report(what, count / seconds / 1000, "k/s");
      bench.report(
        "… more memory in use, by JavaScript and its buffers",
        Math.max(0, after.heap - before.heap),
        "MB",
        { atMost: 64 },
      );
      bench.report(
        "… more memory of the process",
        Math.max(0, after.resident - before.resident),
        "MB",
        { atMost: 64 },
      );
    });
    const from = performance.now();
    await offline(file, async (replica) => {
      await replica.view.lookup(kv.get(keyOf(0)));
      bench.report(
        "… the next start, until the view is read",
        performance.now() - from,
        "ms",
        { atMost: 1000 },
      );
    });
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** Cases of the outbox. */
export const cases: Cases = { "outbox/million": { run: benchMillion } };
