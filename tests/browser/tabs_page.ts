/**
 * Page with a typed list that the tabs of its origin share, for tests that open it
 * in several tabs.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { newNodeID, NodeHost, type Replica } from "../../mod.ts";
import {
  deviceID,
  IndexedDBBlockStore,
  IndexedDBLogDB,
  IndexedDBOutbox,
  IndexedDBSnapshotStore,
  requestPersistence,
  storageMode,
} from "../../src/indexeddb/mod.ts";
import { RemoteLogDB } from "../../src/sync/client/mod.ts";
import { shareTabs } from "../../src/tabs/mod.ts";
import { defineMachine, table, typed } from "../../src/typed/mod.ts";
import { shape } from "../typed/schemas.ts";

interface Item {
  readonly text: string;
}

const definition = defineMachine({
  name: "tabs",
  version: 1,
  state: () => ({ items: table<Item>() }),
  commands: {
    add: {
      args: shape({ id: "string", text: "string" }),
      run: ({ items }, { id, text }) => {
        items.set(id, { text });
      },
      inverse: (_state, { id }) => ({ name: "remove", args: { id } }),
    },
    remove: {
      args: shape({ id: "string" }),
      run: ({ items }, { id }) => {
        items.delete(id);
      },
    },
  },
  queries: {
    all: ({ items }) => [...items.keys()],
  },
});

const parameters = new URLSearchParams(location.search);

/** Time that all tabs have in common, in milliseconds. */
export function now(): number {
  return performance.timeOrigin + performance.now();
}

const name = parameters.get("name") ?? "tabs";
const server = parameters.get("server");
const tabs = shareTabs(name, { code: Number(parameters.get("code") ?? 1) });

/** Times at which this tab has entered each state, in order. */
export const states: [state: string, at: number][] = [];
tabs.watch(({ state }) => states.push([state, now()]));

const host = new NodeHost({
  logDB: server === null ? new IndexedDBLogDB(`${name}-log`) : new RemoteLogDB(
    server,
    { copy: () => new IndexedDBBlockStore(`${name}-copy`) },
  ),
  outbox: new IndexedDBOutbox(`${name}-outbox`),
  snapshots: new IndexedDBSnapshotStore(`${name}-snapshots`),
  tabs,
});

const starting = (async () => {
  const replica = await host.startConcurrentCluster(definition.create, {
    clusterID: 1n,
    // Where nothing may be stored, there is no id to keep.
    nodeID: await deviceID().catch(() => newNodeID()),
    snapshotEntries: 50,
  });
  const app = typed(replica, definition);
  const watch = app.watch.all();
  watch.subscribe(() => {
    for (const id of watch.getSnapshot() ?? []) {
      if (!shown.has(id)) shown.set(id, now());
    }
  });
  return { replica: replica as Replica, app, watch };
})();

/** Times at which this tab has shown each item first, by id. */
export const shown: Map<string, number> = new Map();

/** Resolves once the replica has started; with the state of this tab. */
export async function ready(): Promise<string> {
  await starting;
  return tabs.status.state;
}

/** State of this tab, and the reason. */
export function status(): { state: string; reason?: string; epoch: number } {
  return { ...tabs.status, reason: tabs.status.reason! };
}

/** Asks the browser to keep what is stored; resolves with its answer. */
export function persist(): Promise<string> {
  return requestPersistence();
}

/** Durability of the storage. */
export function mode(): Promise<string> {
  return storageMode();
}

/** Adds an item; resolves with the time of the call once it is durable. */
export async function add(id: string): Promise<number> {
  const { app } = await starting;
  const at = now();
  await app.do.add({ id, text: `Item ${id}` });
  return at;
}

/** Undoes the last edit of this tab. */
export async function undo(): Promise<boolean> {
  const { app } = await starting;
  return await app.undo() !== undefined;
}

/** Ids of the items, as a query answers. */
export async function all(): Promise<string[]> {
  const { app } = await starting;
  return await app.ask.all();
}

/** Number of commands that are not applied here. */
export async function pending(): Promise<number> {
  const { app } = await starting;
  return app.pending().length;
}

/** Ids of the items with a mark. */
export async function marked(): Promise<string[]> {
  const { app } = await starting;
  return [...app.marks.getSnapshot()?.items.keys() ?? []];
}

/** Time at which this tab has shown an item, if it has. */
export function shownAt(id: string): number | undefined {
  return shown.get(id);
}

/** Number of entries that are applied here, once all are that were proposed before. */
export async function read(): Promise<number> {
  const { replica } = await starting;
  await replica.read({ name: "all", args: [] });
  return replica.appliedIndex;
}

/** Time at which a linearizable read was answered that begins now. */
export async function readAt(): Promise<number> {
  await read();
  return now();
}

/** Returns a function whose promises resolve after pauses, in a hidden page, too, where a timer takes a second: those of a worker do not. */
function pauses(ms: number): () => Promise<void> {
  const text = `onmessage = () => setTimeout(() => postMessage(0), ${ms})`;
  const worker = new Worker(URL.createObjectURL(new Blob([text])));
  return () =>
    new Promise((resolve) => {
      worker.onmessage = (): void => resolve();
      worker.postMessage(0);
    });
}

/** Adds many items, one after the other, at intervals; resolves with their ids and times. */
export async function addMany(
  prefix: string,
  count: number,
  pauseMs: number,
): Promise<[id: string, at: number][]> {
  const done: [string, number][] = [];
  const pause = pauses(pauseMs);
  for (let i = 0; i < count; i++) {
    const id = `${prefix}${i}`;
    const at = now();
    await add(id);
    done.push([id, at]);
    await pause();
  }
  return done;
}

/** Times at which items were shown here. */
export function shownTimes(prefix: string): [id: string, at: number][] {
  return [...shown].filter(([id]) => id.startsWith(prefix));
}

/** Subscribes to the marks, so that they are computed. */
export async function watchMarks(): Promise<void> {
  const { app } = await starting;
  app.marks.subscribe(() => {});
}

/** Posts to `/told`, once this tab leads, all items together with one that it adds then. */
export function tellOnceLeading(id: string): void {
  const stop = tabs.watch(({ state }) => {
    if (state !== "leading") return;
    stop();
    // Never rejects: the test waits for the post.
    void (async (): Promise<void> => {
      await add(id);
      await read();
      const body = JSON.stringify(await all());
      await fetch("/told", { method: "POST", body });
    })();
  });
}
