/**
 * Measurements of the key-value machine in IndexedDB in a page, compared with one
 * IndexedDB row for each key in the same run.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { kv, NodeHost } from "../../mod.ts";
import {
  IndexedDBKVStateMachine,
  IndexedDBLogDB,
} from "../../src/indexeddb/mod.ts";
import { answer, drop, freshName } from "./faults.ts";
import { bench as benchPeers } from "./peers_bench.ts";
import {
  committed,
  keyOf,
  KEYS,
  median,
  openRows,
  overwrites,
  type Peer,
  rateOf,
  type Row,
  rowsOf,
} from "./workload.ts";

/** A figure, as the table shows it. */
export interface Figure {
  /** Name of the measurement. */
  readonly name: string;
  /** The value, or a few words. */
  readonly value: number | string;
  /** Unit of the figure, or its baseline. */
  readonly unit?: string;
  /** Largest value that is good enough, if there is an aim. */
  readonly aim?: number;
}

const never = new AbortController().signal;

/** Baseline: rows written one by one. */
async function rowPerKey(name: string): Promise<Peer> {
  const db = await openRows(name);
  return {
    name: "row per key",
    async put(rows: readonly Row[]): Promise<void> {
      const transaction = db.transaction("rows", "readwrite", {
        durability: "relaxed",
      });
      const store = transaction.objectStore("rows");
      for (const { key, value } of rows) store.put(value, key);
      await committed(transaction);
    },
    async get(key: string): Promise<unknown> {
      return await answer(db.transaction("rows").objectStore("rows").get(key));
    },
    end: () => db.close(),
  };
}

/** The machine, as a host drives it. */
class Machine implements Peer {
  readonly name = "machine";
  readonly #machine: IndexedDBKVStateMachine;
  #index = 0;

  constructor(name: string, memoryBudgetBytes?: number) {
    this.#machine = new IndexedDBKVStateMachine(name, { memoryBudgetBytes });
  }

  async open(): Promise<void> {
    this.#index = await this.#machine.open(never);
  }

  async put(rows: readonly Row[]): Promise<void> {
    const entries = rows.map(({ key, value }) => ({
      index: ++this.#index,
      cmd: kv.put(key, value),
    }));
    await this.#machine.update(entries);
  }

  async get(key: string): Promise<unknown> {
    return await this.#machine.lookup(kv.get(key));
  }

  async sync(): Promise<void> {
    await this.#machine.sync();
  }

  async end(): Promise<void> {
    await this.#machine.close();
  }
}

/** A host with log and machine in IndexedDB, whose log survives the end of the browser. */
async function hosted(name: string): Promise<Peer> {
  const logDB = new IndexedDBLogDB(`${name}-log`, { durability: "normal" });
  const host = new NodeHost({ logDB });
  const replica = await host.startOnDiskCluster(
    () => new IndexedDBKVStateMachine(name),
    { clusterID: 1n, nodeID: 1n },
  );
  const session = await replica.openSession();
  return {
    name: "host",
    async put(rows: readonly Row[]): Promise<void> {
      await Promise.all(
        rows.map(({ key, value }) =>
          replica.propose(kv.put(key, value), { session })
        ),
      );
    },
    get: (key: string) => replica.read(kv.get(key)),
    async end(): Promise<void> {
      await host.stop();
      await logDB.close();
      await drop(name);
      await drop(`${name}-log`);
    },
  };
}

/** Measures the duration of `body`, in milliseconds. */
async function timed(body: () => Promise<unknown>): Promise<number> {
  const began = performance.now();
  await body();
  return performance.now() - began;
}

/** Some clocks tick once a millisecond: single steps are timed by so many. */
const GROUP = 20;

/**
 * The time of a single step of each peer, in milliseconds: the median of groups
 * of steps, one peer after the other in turns, so that all meet the same disk.
 */
async function inTurns(
  peers: readonly Peer[],
  groups: number,
  step: (peer: Peer, i: number) => Promise<unknown>,
): Promise<number[]> {
  const times: number[][] = peers.map(() => []);
  for (let group = 0; group < groups; group++) {
    for (const [j, peer] of peers.entries()) {
      const time = await timed(async () => {
        for (let i = 0; i < GROUP; i++) await step(peer, group * GROUP + i);
      });
      times[j]!.push(time / GROUP);
    }
  }
  return times.map(median);
}

/** Keeps what was filled from being collected. */
const kept: Machine[] = [];

/** Fills a machine that stays open. */
export async function fill(keys: number = KEYS): Promise<void> {
  const machine = new Machine(freshName());
  kept.push(machine);
  await machine.open();
  for (let from = 0; from < keys; from += 1000) {
    await machine.put(rowsOf(from, Math.min(1000, keys - from)));
  }
  await machine.sync();
}

/** All figures of this engine. */
export async function bench(): Promise<Figure[]> {
  const figures: Figure[] = [];
  const add = (
    name: string,
    value: number,
    unit: string,
    aim?: number,
  ): void => {
    figures.push({ name, value, unit, ...aim !== undefined && { aim } });
  };
  const [name, rowsName] = [freshName(), freshName()];
  let raw = await rowPerKey(rowsName);
  let machine = new Machine(name);
  await machine.open();
  for (let from = 0; from < KEYS; from += 1000) {
    await raw.put(rowsOf(from, 1000));
    await machine.put(rowsOf(from, 1000));
  }
  await machine.sync();

  const byRow = await overwrites(raw, 15);
  const packed = await overwrites(machine, 300);
  add("row per key, batches of 1000", rateOf(byRow), "entries/s");
  add("machine, batches of 1000", rateOf(packed), "entries/s");
  add("… against row per key", rateOf(packed) / rateOf(byRow), "×");
  add("… longest update of 300", Math.max(...packed), "ms", 50);
  add("row per key, longest transaction of 15", Math.max(...byRow), "ms");

  const host = await hosted(freshName());
  const [hostPut, ownPut, rawPut] = await inTurns(
    [host, machine, raw],
    25,
    (peer, i) => peer.put(rowsOf(i, 1)),
  );
  add("one raw put per transaction, p50", rawPut!, "ms");
  add("machine, one entry at a time, p50", ownPut!, "ms");
  add("host, one proposal at a time, p50", hostPut!, "ms");
  add("… against one raw put", hostPut! / rawPut!, "×", 1.2);
  const proposals = await overwrites(host, 30);
  add("host, 1000 proposals at a time", rateOf(proposals), "proposals/s");
  await host.end();

  await machine.end();
  machine = new Machine(name);
  const reopened = await timed(async () => {
    await machine.open();
    await machine.get(keyOf(KEYS >> 1));
  });
  add("reopen, until the first lookup", reopened, "ms", 150);
  await machine.end();
  await raw.end();
  const rowsReopened = await timed(async () => {
    raw = await rowPerKey(rowsName);
    await raw.get(keyOf(KEYS >> 1));
  });
  add("row per key, reopen, until the first get", rowsReopened, "ms");

  machine = new Machine(name, 1024 * 1024);
  await machine.open();
  const [ownGet, rawGet] = await inTurns(
    [machine, raw],
    25,
    (peer, i) => peer.get(keyOf((i * 7919) % KEYS)),
  );
  add("raw get, p50", rawGet!, "ms");
  add("machine, cold lookup, p50", ownGet!, "ms");
  add("… against a raw get", ownGet! / rawGet!, "×", 1.5);

  await machine.end();
  await raw.end();
  await drop(name);
  await drop(rowsName);

  for (const peer of await benchPeers()) {
    figures.push(peer);
    if (typeof peer.value === "number") {
      add(`machine against ${peer.name}`, rateOf(packed) / peer.value, "×");
    }
  }
  return figures;
}

/** A state many times the memory it may take: fills it, opens it again, looks up and overwrites. */
export async function large(
  mebibytes = 256,
  memoryBudgetBytes: number = 16 * 1024 * 1024,
): Promise<Figure[]> {
  const name = freshName();
  let machine = new Machine(name, memoryBudgetBytes);
  await machine.open();
  const rows = Math.round(mebibytes * 1024 * 1024 / 144);
  const filled = await timed(async () => {
    for (let from = 0; from < rows; from += 1000) {
      await machine.put(rowsOf(from, 1000));
    }
    await machine.sync();
  });
  await machine.end();
  machine = new Machine(name, memoryBudgetBytes);
  const reopened = await timed(() => machine.open());
  const found: number[] = [];
  for (let i = 0; i < 200; i++) {
    found.push(await timed(() => machine.get(keyOf((i * 7919) % rows))));
  }
  const times = await overwrites(machine, 20, rows);
  await machine.end();
  await drop(name);
  return [
    {
      name: `filling ${mebibytes} MiB`,
      value: rows / filled * 1000,
      unit: "entries/s",
    },
    { name: "… reopen", value: reopened, unit: "ms" },
    { name: "… lookup, p50", value: median(found), unit: "ms" },
    { name: "… overwrites", value: rateOf(times), unit: "entries/s" },
    { name: "… longest update", value: Math.max(...times), unit: "ms" },
  ];
}
