/**
 * Page that stores a key-value machine, its log and its snapshots in IndexedDB,
 * for tests that reload it, restart the browser or kill it.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  kv,
  type KVRow,
  KVStateMachine,
  NodeHost,
  type Replica,
} from "../../mod.ts";
import { random } from "../support/random.ts";
import {
  IndexedDBKVStateMachine,
  IndexedDBLogDB,
  IndexedDBSnapshotStore,
} from "../../src/indexeddb/mod.ts";

/** Acknowledged proposal: its command, and the value of the result. */
export type Answer = readonly [command: string, value: number];

/** State of the page's replica. */
export interface ReplicaState {
  /** Applied index. */
  readonly index: number;
  /** Hash of the machine. */
  readonly hash: string;
  /**
   * Hash of a new in-memory machine after a replay of the log from its start.
   */
  readonly replayed: string;
  /** Keys that acknowledged commands have written. */
  readonly marks: readonly string[];
}

const CLUSTER = 1n;
/** Number of proposals in flight. */
const IN_FLIGHT = 8;
/**
 * Number of keys whose values are swapped at random, and of those values: few
 * enough that a swap succeeds every now and then.
 */
const SWAP_KEYS = 4;
const SWAP_VALUES = 8;

let logDB: IndexedDBLogDB | undefined;
let host: NodeHost | undefined;
let replica: Replica | undefined;

/** Starts the replica on its stored state, or on an empty store. */
export async function open(): Promise<void> {
  logDB = new IndexedDBLogDB("kept-log");
  host = new NodeHost({
    logDB,
    snapshots: new IndexedDBSnapshotStore("kept-snapshots"),
  });
  replica = await host.startOnDiskCluster(
    () => new IndexedDBKVStateMachine("kept-state"),
    // The log is not compacted, so that it can be replayed.
    {
      clusterID: CLUSTER,
      nodeID: 1n,
      snapshotEntries: 100,
      fullSnapshotInterval: 0,
    },
  );
}

function text(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}

/** State of the replica, and of a replay of its log. */
export async function state(): Promise<ReplicaState> {
  const marks = await replica!.read(kv.range({ start: "mark/", end: "mark0" }));
  const { index, hash } = await replica!.getHash();
  const second = new NodeHost({ logDB: logDB! });
  const replay = await second.startCluster(() => new KVStateMachine(), {
    clusterID: CLUSTER,
    nodeID: 2n,
  });
  await replay.read(kv.count());
  const { hash: replayed } = await replay.getHash();
  await second.stop();
  return {
    index,
    hash: `${hash}`,
    replayed: `${replayed}`,
    marks: (marks as KVRow[]).map(({ key }) => text(key).slice(5)),
  };
}

/** Generator of numbers below `n`, from a seed. */
function picker(seed: number): (n: number) => number {
  const next = random(seed);
  return (n) => Math.floor(next() * n);
}

/**
 * Command that changes the state only if an earlier swap did, and records that
 * permanently. If a sequence of them is applied twice, different swaps succeed.
 */
function swap(name: string, pick: (n: number) => number): Uint8Array {
  const key = `swap/${pick(SWAP_KEYS)}`;
  const [from, to] = [`${pick(SWAP_VALUES)}`, `${pick(SWAP_VALUES)}`];
  return pick(SWAP_VALUES) === 0
    ? kv.put(key, to)
    : kv.batch([kv.compareAndSwap(key, from, to), kv.put(`done/${name}`, "")]);
}

async function report(answer: Answer): Promise<void> {
  await fetch("/told", { method: "POST", body: JSON.stringify(answer) });
}

/**
 * Proposes until `count` keys named after `life` are written in a session, and
 * reports each acknowledged proposal to the server. Swaps drawn from the seed
 * run at the same time, outside any session: a session would deduplicate
 * commands that the machine receives twice.
 */
export async function work(
  life: string,
  count: number,
  seed: number,
): Promise<void> {
  const pick = picker(seed);
  const session = await replica!.openSession();
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < count) {
      const name = `${life}/${next++}`;
      const swapped = replica!.propose(swap(name, pick));
      const mark = kv.put(`mark/${name}`, "");
      const { value } = await replica!.propose(mark, { session });
      await report([name, Number(value)]);
      await swapped;
    }
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, worker));
}

/** Stops the host and closes its stores. */
export async function close(): Promise<void> {
  await host!.stop();
  await logDB!.close();
}
