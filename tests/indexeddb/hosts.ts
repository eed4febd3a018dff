/**
 * Hosts whose log and snapshots are in IndexedDB, as cases that run over any
 * IndexedDB, and the two halves of a case that has a reload between them.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  type HostEvent,
  kv,
  KVStateMachine,
  NodeHost,
  type Replica,
} from "../../mod.ts";
import {
  ErrStoreLocked,
  ErrStoreVanished,
  IndexedDBBlockStore,
  IndexedDBKVStateMachine,
  IndexedDBLogDB,
  IndexedDBSnapshotStore,
} from "../../src/indexeddb/mod.ts";
import type { Case } from "../browser/runner.ts";
import { drop, freshName } from "./faults.ts";

/** A host and one replica of a regular machine, in databases that begin with a name. */
class TestHost {
  readonly logDB: IndexedDBLogDB;
  readonly snapshots: IndexedDBSnapshotStore;
  readonly host: NodeHost;
  readonly events: HostEvent[] = [];

  readonly #name: string;

  constructor(name: string) {
    this.#name = name;
    this.logDB = new IndexedDBLogDB(`${name}-log`);
    this.snapshots = new IndexedDBSnapshotStore(`${name}-snapshots`);
    this.host = new NodeHost({
      logDB: this.logDB,
      snapshots: this.snapshots,
      onEvent: (event) => this.events.push(event),
    });
  }

  start(): Promise<Replica> {
    return this.host.startCluster(() => new KVStateMachine(), {
      clusterID: 1n,
      nodeID: 1n,
    });
  }

  startOnDisk(): Promise<Replica> {
    return this.host.startOnDiskCluster(
      () => new IndexedDBKVStateMachine(`${this.#name}-state`),
      { clusterID: 1n, nodeID: 1n },
    );
  }

  async end(): Promise<void> {
    await this.host.stop();
    await this.logDB.close();
    await this.snapshots.close();
  }
}

async function dropData(name: string): Promise<void> {
  await drop(`${name}-log`);
  await drop(`${name}-state`);
  await drop(`${name}-snapshots`);
}

async function fill(
  replica: Replica,
  from: number,
  to: number,
): Promise<void> {
  const session = await replica.openSession();
  await Promise.all(
    Array.from(
      { length: to - from },
      (_, i) => replica.propose(kv.put(`key ${from + i}`, `${i}`), { session }),
    ),
  );
}

/** The cases of this suite. */
export const cases: Case[] = [
  {
    name: "R3 a host over IndexedDB has all answered commands after a restart",
    async run(): Promise<void> {
      const name = freshName();
      let hash = 0n;
      for (let life = 0; life < 3; life++) {
        const host = new TestHost(name);
        const replica = await host.start();
        assertEquals(await replica.read(kv.count()), life * 300);
        assertEquals((await replica.getHash()).hash, hash);
        assertEquals(
          host.events.some(({ type }) => type === "recovered"),
          life > 0,
        );
        await fill(replica, life * 300, life * 300 + 300);
        await replica.requestSnapshot();
        await fill(replica, life * 300, life * 300 + 10);
        hash = (await replica.getHash()).hash;
        await host.end();
      }
      await dropData(name);
    },
  },
  {
    name:
      "U36 a cluster in IndexedDB is exported to one file and imported from it",
    async run(): Promise<void> {
      const name = freshName();
      const host = new TestHost(name);
      const replica = await host.start();
      await fill(replica, 0, 500);
      const { hash } = await replica.getHash();
      const file = await new Response(replica.exportSnapshot()).blob();
      await host.end();
      const other = new TestHost(`${name}-other`);
      await other.host.importSnapshot(1n, file.stream());
      const imported = await other.start();
      assertEquals((await imported.getHash()).hash, hash);
      await imported.propose(kv.put("more", ""));
      await other.end();
      const again = new TestHost(`${name}-other`);
      assertEquals(await (await again.start()).read(kv.count()), 501);
      await again.end();
      await dropData(name);
      await dropData(`${name}-other`);
    },
  },
  {
    name:
      "U36 D10 an on-disk machine in IndexedDB has its state after a restart, and its export starts any machine",
    async run(): Promise<void> {
      const name = freshName();
      let hash = 0n;
      for (let life = 0; life < 2; life++) {
        const host = new TestHost(name);
        const replica = await host.startOnDisk();
        assertEquals(await replica.read(kv.count()), life * 300);
        assertEquals((await replica.getHash()).hash, hash);
        await fill(replica, life * 300, life * 300 + 300);
        hash = (await replica.getHash()).hash;
        if (life > 0) {
          const file = await new Response(replica.exportSnapshot()).blob();
          for (const start of ["start", "startOnDisk"] as const) {
            const other = new TestHost(`${name}-${start}`);
            await other.host.importSnapshot(1n, file.stream());
            const imported = await other[start]();
            assertEquals((await imported.getHash()).hash, hash);
            await imported.propose(kv.put("more", ""));
            assertEquals(await imported.read(kv.count()), 601);
            await other.end();
            await dropData(`${name}-${start}`);
          }
        }
        await host.end();
      }
      await dropData(name);
    },
  },
];

/** State that a page must find after a reload. */
export interface ExpectedState {
  readonly name: string;
  readonly identity: string;
  readonly hash: string;
}

const open: TestHost[] = [];

/** Fills databases and leaves them open, as a page does that is reloaded. */
export async function beforeReload(): Promise<ExpectedState> {
  const name = freshName();
  const store = new IndexedDBBlockStore(`${name}-blocks`);
  await store.write({
    put: [{ key: "a", bytes: new Uint8Array([1]) }],
  }, "relaxed");
  const host = new TestHost(name);
  open.push(host);
  const replica = await host.start();
  await fill(replica, 0, 700);
  const hash = `${(await replica.getHash()).hash}`;
  return { name, identity: await store.identity(), hash };
}

/** Finds the state that {@linkcode beforeReload} left, in another page of the same browser or after a reload. */
export async function afterReload(
  { name, identity, hash }: ExpectedState,
): Promise<void> {
  const store = new IndexedDBBlockStore(`${name}-blocks`, { identity });
  assertEquals((await store.get(["a"]))[0]?.[0], 1);
  await store.close();
  const host = new TestHost(name);
  const replica = await host.start();
  assertEquals(`${(await replica.getHash()).hash}`, hash);
  await fill(replica, 700, 710);
  assertEquals(await replica.read(kv.count()), 710);
  await host.end();
  await drop(`${name}-blocks`);
  await dropData(name);
  const gone = new IndexedDBBlockStore(`${name}-blocks`, { identity });
  await assertRejects(() => gone.get(["a"]), ErrStoreVanished);
}

/** Tries, in a second page, to open what a first one has open. */
export async function whileOpen({ name }: ExpectedState): Promise<void> {
  const host = new TestHost(name);
  const error = await host.start().then(() => undefined, (error) => error);
  assert(error instanceof ErrStoreLocked, `${error}`);
  await host.end();
}
