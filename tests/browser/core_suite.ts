/**
 * Cases that every engine must pass with nothing on disk: hosts over an
 * in-memory log, the ready-made machines, snapshots between them, and every
 * suite of `src/testing/` over the in-memory implementations.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import {
  ConcurrentKVStateMachine,
  ErrClusterClosed,
  ErrNotImplemented,
  ErrSnapshotCorrupted,
  type HostEvent,
  kv,
  KVStateMachine,
  MemoryFileStore,
  MemoryLogDB,
  MemorySnapshotStore,
  NodeHost,
  type Replica,
  SampanError,
} from "../../mod.ts";
import { fileStoreConformance } from "../../src/testing/file_store_conformance.ts";
import { logDBConformance } from "../../src/testing/log_conformance.ts";
import {
  checkConcurrentStateMachine,
  checkOnDiskStateMachine,
  checkStateMachine,
} from "../../src/testing/mod.ts";
import { snapshotStoreConformance } from "../../src/testing/snapshot_store_conformance.ts";
import { commands, diskOf, OnDiskNotes, queries } from "../machines/notes.ts";
import type { Case } from "./runner.ts";

/** Histories of each rule of the contract suite; Deno runs many more. */
const RUNS = 4;

const KV_SAMPLES = {
  runs: RUNS,
  commands: [
    kv.put("a", "1"),
    kv.put("b", "2"),
    kv.delete("a"),
    kv.compareAndSwap("a", "1", "3"),
    kv.batch([kv.put("b", ""), kv.put("", "4")]),
    new Uint8Array([255]),
  ],
  queries: [kv.get("a"), kv.get("b"), kv.count(), kv.range()],
  naQueries: [kv.encodeQuery(kv.range())],
};

/** Cases of a suite, with the subject under test in their names. */
function under(subject: string, cases: readonly Case[]): Case[] {
  return cases.map(({ name, run }) => ({ name: `${subject}: ${name}`, run }));
}

function startKV(
  host: NodeHost,
  nodeID: bigint,
  config: { snapshotEntries?: number; compression?: "none" | "gzip" } = {},
): Promise<Replica> {
  return host.startConcurrentCluster(() => new ConcurrentKVStateMachine(), {
    clusterID: 1n,
    nodeID,
    ...config,
  });
}

/** Writes the same rows into any cluster. */
async function fill(replica: Replica, rows: number): Promise<void> {
  const session = await replica.openSession();
  const waiting: Promise<unknown>[] = [];
  for (let i = 0; i < rows; i++) {
    waiting.push(replica.propose(kv.put(`key ${i}`, `${i * i}`), { session }));
  }
  await Promise.all(waiting);
}

const hosts: Case[] = [
  {
    name: "H1 H2 replicas on one log give the same answers and the same hash",
    async run(): Promise<void> {
      const logDB = new MemoryLogDB();
      const one = new NodeHost({ logDB });
      const two = new NodeHost({ logDB });
      const here = await startKV(one, 1n);
      const there = await startKV(two, 2n);
      await fill(here, 3_000);
      assertEquals(await there.read(kv.count()), 3_000);
      const value = await there.read(kv.get("key 9")) as Uint8Array;
      assertEquals(new TextDecoder().decode(value), "81");
      assertEquals((await there.getHash()).hash, (await here.getHash()).hash);
      await one.stop();
      await two.stop();
      await logDB.close();
    },
  },
  {
    name: "H3 a session's proposals are applied once each and in order",
    async run(): Promise<void> {
      const host = new NodeHost();
      const replica = await startKV(host, 1n);
      const session = await replica.openSession();
      const results = await Promise.all(
        Array.from({ length: 500 }, (_, i) =>
          replica.propose(
            kv.compareAndSwap("n", i === 0 ? undefined : `${i - 1}`, `${i}`),
            { session },
          )),
      );
      assertEquals(results.every(({ value }) => value === 1n), true);
      await replica.closeSession(session);
      await host.stop();
    },
  },
  ...(["none", "gzip"] as const).map((compression): Case => ({
    name:
      `H9 a snapshot exported from one kind of machine (${compression}) is imported into another`,
    async run(): Promise<void> {
      const from = new NodeHost();
      const source = await startKV(from, 1n, { compression });
      await fill(source, 2_000);
      const to = new NodeHost();
      await to.importSnapshot(1n, source.exportSnapshot());
      const target = await to.startCluster(() => new KVStateMachine(), {
        clusterID: 1n,
        nodeID: 1n,
      });
      const { hash } = await source.getHash();
      assertEquals((await target.getHash()).hash, hash);
      await target.propose(kv.put("more", ""));
      assertEquals(await target.read(kv.count()), 2_001);
      await from.stop();
      await to.stop();
    },
  })),
  {
    name: "H8 a damaged snapshot is refused, and nothing is kept of it",
    async run(): Promise<void> {
      const from = new NodeHost();
      const source = await startKV(from, 1n);
      await fill(source, 200);
      const bytes = new Uint8Array(
        await new Response(source.exportSnapshot()).arrayBuffer(),
      );
      bytes[bytes.length >> 1]! ^= 1;
      const to = new NodeHost();
      let error: unknown;
      await to.importSnapshot(1n, new Blob([bytes]).stream()).catch((e) =>
        error = e
      );
      assert(error instanceof ErrSnapshotCorrupted);
      assertEquals(await (await startKV(to, 1n)).read(kv.count()), 0);
      await from.stop();
      await to.stop();
    },
  },
  {
    name: "H7 a replica comes back from its snapshot and the log that was cut",
    async run(): Promise<void> {
      const logDB = new MemoryLogDB();
      const events: HostEvent[] = [];
      const first = new NodeHost({ logDB });
      const replica = await startKV(first, 1n, { snapshotEntries: 100 });
      for (let i = 0; i < 5; i++) await fill(replica, 150);
      await replica.requestSnapshot();
      const { hash } = await replica.getHash();
      await first.stop();
      const second = new NodeHost({
        logDB,
        onEvent: (event) => events.push(event),
      });
      const again = await startKV(second, 1n);
      assertEquals((await again.getHash()).hash, hash);
      assert(events.some(({ type }) => type === "recovered"));
      await second.stop();
      await logDB.close();
    },
  },
  {
    name: "H10 what waits fails when its host is stopped",
    async run(): Promise<void> {
      const host = new NodeHost();
      const replica = await startKV(host, 1n);
      await host.stop();
      let error: unknown;
      await replica.propose(kv.put("a", "b")).catch((e) => error = e);
      assert(error instanceof ErrClusterClosed);
      await host.stop();
    },
  },
  {
    name: "T5 errors go by their names",
    run(): void {
      const error = new ErrNotImplemented();
      assertEquals(error.name, "ErrNotImplemented");
      assert(error instanceof SampanError && error instanceof Error);
      assert(!(error instanceof ErrClusterClosed));
    },
  },
];

const contract: Case[] = [
  {
    name: "R12 KVStateMachine passes the contract suite",
    run: () =>
      checkStateMachine({
        ...KV_SAMPLES,
        create: () => new KVStateMachine(),
      }),
  },
  {
    name: "C6 ConcurrentKVStateMachine passes the contract suite",
    run: () =>
      checkConcurrentStateMachine({
        ...KV_SAMPLES,
        create: () => new ConcurrentKVStateMachine(),
      }),
  },
  {
    name: "D12 an on-disk machine passes the contract suite",
    run: () =>
      checkOnDiskStateMachine({
        commands,
        queries,
        runs: RUNS,
        disk: () => diskOf(OnDiskNotes),
      }),
  },
];

/** The cases of this suite. */
export const cases: Case[] = [
  ...hosts,
  ...contract,
  ...under(
    "MemoryLogDB",
    logDBConformance({ create: () => new MemoryLogDB() }),
  ),
  ...under(
    "MemorySnapshotStore",
    snapshotStoreConformance({ create: () => new MemorySnapshotStore() }),
  ),
  ...under(
    "MemoryFileStore",
    fileStoreConformance({ create: () => new MemoryFileStore() }),
  ),
];
