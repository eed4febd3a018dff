/**
 * Measurements of other stores in a page with the same rows: idb-keyval, Dexie, PouchDB.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { Dexie } from "dexie";
import { createStore, get, setMany } from "idb-keyval";
// @ts-types="./pouchdb.d.ts"
import PouchDB from "pouchdb-browser";
import type { Figure } from "./browser_bench.ts";
import { freshName } from "./faults.ts";
import {
  keyOf,
  overwrites,
  type Peer,
  rateOf,
  type Row,
  rowsOf,
} from "./workload.ts";

/** Fewer than for the machine: the rate does not depend on it, and the wait does. */
const PEER_KEYS = 5_000;

function idbKeyval(): Peer {
  const store = createStore(freshName(), "rows");
  return {
    name: "idb-keyval setMany",
    put: (rows: readonly Row[]) =>
      setMany(rows.map(({ key, value }) => [key, value]), store),
    get: (key: string) => get(key, store),
    end(): void {},
  };
}

function dexie(): Peer {
  const db = new Dexie(freshName());
  db.version(1).stores({ rows: "" });
  const table = db.table("rows");
  return {
    name: "Dexie bulkPut",
    async put(rows: readonly Row[]): Promise<void> {
      await table.bulkPut(
        rows.map(({ value }) => value),
        rows.map(({ key }) => key),
      );
    },
    get: (key: string) => Promise.resolve(table.get(key)),
    end: () => db.delete(),
  };
}

/** Documents of PouchDB are JSON, and each change needs the revision before it. */
function pouch(): Peer {
  const db = new PouchDB(freshName(), { auto_compaction: true });
  const revisions = new Map<string, string>();
  return {
    name: "PouchDB bulkDocs",
    async put(rows: readonly Row[]): Promise<void> {
      const docs = new Map(rows.map(({ key, value }) => [key, {
        _id: key,
        _rev: revisions.get(key),
        value: btoa(String.fromCharCode(...value)),
      }]));
      for (const done of await db.bulkDocs([...docs.values()])) {
        if (!("rev" in done)) throw new Error(`${JSON.stringify(done)}`);
        revisions.set(done.id, done.rev);
      }
    },
    get: (key: string) => db.get(key),
    end: () => db.destroy(),
  };
}

/** Longest time for one store, in milliseconds; not all of them work in every engine. */
const PEER_MS_MAX = 20_000;

async function measure(peer: Peer): Promise<number> {
  for (let from = 0; from < PEER_KEYS; from += 1000) {
    await peer.put(rowsOf(from, 1000));
  }
  const times = await overwrites(peer, 5, PEER_KEYS);
  if (await peer.get(keyOf(1)) === undefined) {
    throw new Error(`Row ${keyOf(1)} is missing`);
  }
  await peer.end();
  return rateOf(times);
}

/** Measures the other stores. */
export async function bench(
  peerMsMax: number = PEER_MS_MAX,
): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const peer of [idbKeyval(), dexie(), pouch()]) {
    const { name } = peer;
    const late = new Promise<undefined>((resolve) =>
      setTimeout(() => resolve(undefined), peerMsMax)
    );
    const rate = await Promise.race([measure(peer), late]);
    figures.push(
      rate === undefined
        ? { name, value: `no answer in ${peerMsMax} ms` }
        : { name, value: rate, unit: "entries/s" },
    );
  }
  return figures;
}
