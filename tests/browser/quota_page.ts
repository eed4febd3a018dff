/**
 * Page whose storage is full, or cleared by the browser.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { kv, KVStateMachine, NodeHost, type Replica } from "../../mod.ts";
import {
  IndexedDBBlockStore,
  IndexedDBLogDB,
} from "../../src/indexeddb/mod.ts";
import { Filler, fits } from "./filler.ts";
import { random } from "../support/random.ts";

const CLUSTER = { clusterID: 1n, nodeID: 1n };
/** Size of a proposal's value, in bytes. */
const VALUE_BYTES = 100_000;

let store: IndexedDBBlockStore | undefined;
let filler: Filler | undefined;
let logDB: IndexedDBLogDB | undefined;
let host: NodeHost | undefined;
let replica: Replica | undefined;
let proposed = 0;
let answered = 0;

/** Opens a store; resolves to its identity, or to the name of the error. */
export async function open(identity?: string): Promise<string> {
  store = new IndexedDBBlockStore(
    "quota-blocks",
    identity === undefined ? {} : { identity },
  );
  try {
    return await store.identity();
  } catch (error) {
    await store.close();
    return (error as Error).name;
  }
}

/** Fills the store, then makes further attempts. */
export async function fill(seed: number, more: number): Promise<number> {
  filler = new Filler(random(seed));
  await filler.fill(store!, more);
  return filler.failures;
}

/** Reopens the store, and writes after space was freed. */
export async function writeMore(writes: number): Promise<number> {
  await filler!.check(store!);
  await store!.close();
  await open();
  await filler!.check(store!);
  let done = 0;
  for (let i = 0; i < writes; i++) if (await filler!.write(store!)) done++;
  await filler!.check(store!);
  return done;
}

/** Writes once; resolves to the name of the error, if it fails. */
export async function write(): Promise<string | undefined> {
  const put = [{ key: "key", bytes: new Uint8Array(1) }];
  try {
    await store!.write({ put }, "strict");
    return undefined;
  } catch (error) {
    return (error as Error).name;
  }
}

/** Proposes once; resolves to the name of the error, if it fails. */
export async function proposeOnce(): Promise<string | undefined> {
  try {
    await replica!.propose(kv.put("key", ""));
    return undefined;
  } catch (error) {
    return (error as Error).name;
  }
}

/** Starts a replica with a durable log. */
export async function start(): Promise<void> {
  logDB = new IndexedDBLogDB("quota-log");
  host = new NodeHost({ logDB });
  replica = await host.startCluster(() => new KVStateMachine(), CLUSTER);
}

/**
 * Proposes until the store is full, or `count` times; resolves to the number of
 * proposals that failed for lack of space.
 */
export async function propose(count: number): Promise<number> {
  let full = 0;
  const next = random(count);
  for (let i = 0; i < count; i++) {
    const value = new Uint8Array(VALUE_BYTES).map(() => next() * 256);
    const cmd = kv.put(`${proposed++}`, value);
    if (await fits(() => replica!.propose(cmd))) answered++;
    else full++;
  }
  return full;
}

/**
 * Number of acknowledged proposals, and of those in the machine: now, and after
 * a replay of the log.
 */
export async function counts(): Promise<readonly number[]> {
  const now = await replica!.read(kv.count()) as number;
  await host!.stop();
  await logDB!.close();
  await start();
  return [answered, now, await replica!.read(kv.count()) as number];
}

/** Closes the stores and the host. */
export async function close(): Promise<void> {
  await host?.stop();
  await logDB?.close();
  await store?.close();
}
