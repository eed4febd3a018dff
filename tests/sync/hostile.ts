/**
 * Attack by many misbehaving connections while one client goes on working.
 *
 * ```sh
 * deno run -A tests/sync/hostile.ts           # 1,000 connections
 * deno run -A tests/sync/hostile.ts 1000 123  # with this seed
 * ```
 *
 * This module needs Deno.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { bytesInUse } from "../support/garbage.ts";
import { kv, KVStateMachine, MemoryLogDB, NodeHost } from "../../mod.ts";
import { RemoteLogDB, serve } from "../../src/sync/mod.ts";
import { newSeed } from "../support/random.ts";
import type { Attack } from "./hostile_worker.ts";
import { sleep, WAIT_MS_MAX } from "./server_process.ts";

const MIB = 1024 * 1024;

/** Entries in the log before the attack, for connections that request them and do not read. */
const PRELOAD_ENTRIES = 2_000;
const PRELOAD_BYTES = 4_096;

/** Most memory in use after the attack beyond that before it, in MiB: opened sessions, owners of proposals, and recent entries. */
const LEFT_MIB_MAX = 48;

/** Time after which a silent connection is closed, in milliseconds. */
const PATIENCE_MS = 1_000;

/** Duration of the attack, in milliseconds. */
const ATTACK_MS = 1_500;

/** Result of an attack. */
export interface HostileReport {
  /** Proposals of the good client during the attack, and the longest latency in milliseconds. */
  readonly proposals: number;
  readonly longestMs: number;
  /** Memory in use before the attack, at its peak, and after it, in MiB. */
  readonly before: number;
  readonly peak: number;
  readonly after: number;
  /** Peak resident set size of the process, in MiB. */
  readonly rss: number;
  /** Most connections at one time. */
  readonly connections: number;
  /** Number of connections closed or refused, by close code. */
  readonly codes: Readonly<Record<number, number>>;
}

async function until(what: string, isSo: () => boolean): Promise<void> {
  for (const end = performance.now() + WAIT_MS_MAX; !isSo();) {
    if (performance.now() > end) {
      throw new Error(`Timed out waiting for ${what}`);
    }
    await sleep(10);
  }
}

/** Attacks a server that accepts a quarter of `count` connections at a time. */
export async function beHostile(
  count: number,
  seed: number,
): Promise<HostileReport> {
  const log = new MemoryLogDB();
  const host = new NodeHost({ logDB: log });
  const replica = await host.startCluster(() => new KVStateMachine(), {
    clusterID: 1n,
    nodeID: 1n,
  });
  for (let i = 0; i < PRELOAD_ENTRIES; i++) {
    await replica.propose(kv.put(`k${i}`, new Uint8Array(PRELOAD_BYTES)));
  }
  const codes: Record<number, number> = {};
  const connections = Math.ceil(count / 4);
  const server = serve(host, {
    sigterm: false,
    limits: {
      connections,
      helloMs: PATIENCE_MS,
      heartbeatMs: PATIENCE_MS,
      slowMs: PATIENCE_MS,
      shutdownMs: PATIENCE_MS,
    },
    authenticate: ({ headers }) => {
      const id = headers.get("authorization")!.slice("Bearer ".length);
      return id.startsWith("unknown") ? undefined : { id };
    },
    // Otherwise the attackers would decide how large the log becomes.
    validate: ({ id }) => id === "good" ? undefined : "Not you",
    log: ({ code }) => {
      if (code !== undefined) codes[code] = (codes[code] ?? 0) + 1;
    },
  });
  const logDB = new RemoteLogDB(server.url, { token: "good" });
  const page = new NodeHost({ logDB });
  const good = await page.startCluster(() => new KVStateMachine(), {
    clusterID: 1n,
    nodeID: 2n,
  });
  await good.propose(kv.put("boat", "sampan"));

  // The good client may lose its connection to them; it reconnects without loss.
  const session = await good.openSession();
  const before = bytesInUse() / MIB;
  let [peak, rss, most, proposals, longestMs] = [before, 0, 0, 0, 0];
  let isOver = false;
  const work = async (): Promise<void> => {
    for (; !isOver; proposals++) {
      const from = performance.now();
      await good.propose(kv.put("boat", `${proposals}`), { session });
      longestMs = Math.max(longestMs, performance.now() - from);
    }
  };
  const watch = async (): Promise<void> => {
    while (!isOver) {
      peak = Math.max(peak, bytesInUse() / MIB);
      rss = Math.max(rss, Deno.memoryUsage().rss / MIB);
      most = Math.max(most, server.counts.connections);
      await sleep(100);
    }
  };
  const working = work();
  const watching = watch();
  const worker = new Worker(
    new URL("hostile_worker.ts", import.meta.url),
    { type: "module" },
  );
  const said = (what: string): Promise<void> =>
    new Promise((resolve, reject) => {
      worker.onmessage = ({ data }): void => {
        if (data === what) resolve();
      };
      worker.onerror = ({ message }): void => reject(new Error(message));
    });
  const all = said("all");
  const { port } = new URL(server.url);
  const attack: Attack = {
    port: Number(port),
    count,
    seed,
    tokens: Math.ceil(count / 100),
  };
  worker.postMessage(attack);
  await all;
  await sleep(ATTACK_MS);
  const wasServed = proposals;
  // The attackers never leave by themselves: the server closes their connections.
  await until("the end of all but one", () => server.counts.connections === 1);
  assert(wasServed > 0, `Good client was not served, seed ${seed}`);
  await until("an answer for the good client", () => proposals > wasServed);
  const gone = said("over");
  worker.postMessage("leave");
  await gone;
  isOver = true;
  await Promise.all([working, watching]);
  worker.terminate();
  assert(most <= connections, `${most} connections, seed ${seed}`);
  assertEquals(
    await good.read(kv.get("boat")),
    await replica.read(kv.get("boat")),
  );
  await sleep(100);
  const after = bytesInUse() / MIB;
  assert(
    after < before + LEFT_MIB_MAX,
    `${after} MiB in use, ${before} before, seed ${seed}`,
  );
  await page.stop();
  await logDB.close();
  await server.shutdown();
  await host.stop();
  await log.close();
  return {
    proposals,
    longestMs,
    before,
    peak,
    after,
    rss,
    connections: most,
    codes,
  };
}

if (import.meta.main) {
  const [count = 1_000, seed = newSeed()] = Deno.args.map(Number);
  // deno-lint-ignore no-console
  console.log(`seed ${seed}`, await beHostile(count, seed));
}
