/**
 * Time until a submitted command is durable, compared with one raw transaction
 * of the same bytes. A page for `bench()`.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { kv, KVStateMachine, NodeHost, type Submission } from "../../mod.ts";
import {
  IndexedDBBlockStore,
  IndexedDBOutbox,
} from "../../src/indexeddb/mod.ts";
import { systemEnv } from "../../src/env.ts";
import type { Figure } from "../browser/bench.ts";

const ROUNDS = 9;
const WRITES = 200;

/** Milliseconds for each; a browser's clock is coarse, but does not favour any. */
async function timed(work: () => Promise<unknown>): Promise<number> {
  let sum = 0;
  for (let i = 0; i < WRITES; i++) {
    const start = performance.now();
    const done = await work();
    sum += performance.now() - start;
    // The result of a submission is not part of its durability.
    const { result } = done as Partial<Submission>;
    await result;
    await systemEnv.turn();
  }
  return sum / WRITES;
}

function openRaw(): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(crypto.randomUUID());
    request.onupgradeneeded = () => request.result.createObjectStore("blocks");
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

function put(db: IDBDatabase, key: string, bytes: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    const transaction = db.transaction("blocks", "readwrite", {
      durability: "relaxed",
    });
    transaction.objectStore("blocks").put(bytes, key);
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error);
    transaction.commit();
  });
}

/** Measures one run and returns its figures. */
export async function bench(): Promise<Figure[]> {
  const raw = await openRaw();
  const outbox = new IndexedDBOutbox(crypto.randomUUID());
  const host = new NodeHost({ outbox });
  const replica = await host.startCluster(
    () => new KVStateMachine(),
    { clusterID: 1n, nodeID: 1n },
  );
  const cmd = kv.put("boat", new Uint8Array(120));
  let key = 0;
  const queue = await new IndexedDBOutbox(crypto.randomUUID())
    .open(1n, () => {});
  const store = new IndexedDBBlockStore(crypto.randomUUID());
  const kinds: Record<string, () => Promise<unknown>> = {
    "one raw transaction": () => put(raw, `${key++}`, new Uint8Array(160)),
    "a write of the store": () =>
      store.write(
        { put: [{ key: `${key++}`, bytes: new Uint8Array(160) }] },
        "relaxed",
      ),
    "into the outbox alone": () => queue.add(cmd),
    "submit, until durable": () => replica.submit(cmd),
  };
  const names = Object.keys(kinds);
  for (const name of names) await timed(kinds[name]!);
  const rounds: number[][] = [];
  for (let i = 0; i < ROUNDS; i++) {
    const round: number[] = [];
    for (const name of names) round.push(await timed(kinds[name]!));
    rounds.push(round);
  }
  await host.stop();
  await outbox.close();
  await store.close();
  raw.close();
  return names.flatMap((name, i) => [
    { name, value: Math.min(...rounds.map((round) => round[i]!)), unit: "ms" },
    {
      name: `${name}, beside raw`,
      value: rounds.map((round) => round[i]! / round[0]!)
        .sort((a, b) => a - b)[ROUNDS >> 1]!,
      unit: "×",
    },
  ]);
}
