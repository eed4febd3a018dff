/**
 * Page with clients of the offline replication, one of each kind, that store
 * their state in IndexedDB.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  IndexedDBBlockStore,
  IndexedDBKVStateMachine,
  IndexedDBOutbox,
  IndexedDBSnapshotStore,
} from "../../src/indexeddb/mod.ts";
import {
  type Exported,
  type Kind,
  Site,
  type SiteReport,
  type Standing,
} from "./sync_site.ts";

/** Options of the clients in a page. */
export interface PageSite {
  readonly kind: Kind;
  /** Name under which the client stores its state. */
  readonly name: string;
  readonly url: string;
  readonly nodeID: number;
  /** Only protocol version that the client speaks; by default all. */
  readonly version?: number;
}

const sites = new Map<Kind, Site>();

/**
 * Starts a client on its stored state, or on an empty store; resolves to the
 * time that takes, in milliseconds.
 */
export async function open(options: PageSite): Promise<number> {
  const { kind, name, url, nodeID, version } = options;
  const began = performance.now();
  const site = await Site.open({
    kind,
    url,
    nodeID,
    outbox: new IndexedDBOutbox(`${name}-outbox`),
    snapshots: new IndexedDBSnapshotStore(`${name}-snapshots`),
    machine: () => new IndexedDBKVStateMachine(`${name}-state`),
    copy: () => new IndexedDBBlockStore(`${name}-copy`),
    versions: version === undefined
      ? undefined
      : { first: version, last: version },
  });
  sites.set(kind, site);
  return performance.now() - began;
}

/** Submits commands; see `Site`. */
export async function submit(
  kind: Kind,
  client: string,
  from: number,
  count: number,
): Promise<void> {
  await sites.get(kind)!.submit(client, from, count);
}

/** Signals that the network is back, as the browser would. */
export function online(): void {
  dispatchEvent(new Event("online"));
}

/**
 * Resolves once no submission is pending, to the time that takes, in
 * milliseconds.
 */
export async function sent(): Promise<number> {
  const began = performance.now();
  await Promise.all([...sites.values()].map((site) => site.sent()));
  return performance.now() - began;
}

/** Resolves once a client has applied that index, to its report. */
export async function reach(kind: Kind, index: number): Promise<SiteReport> {
  await sites.get(kind)!.reach(index);
  return await report(kind);
}

/** Resolves once a client is live and has applied that index, to its report. */
export async function live(kind: Kind, index: number): Promise<SiteReport> {
  await sites.get(kind)!.reach(index);
  await sites.get(kind)!.live();
  return await report(kind);
}

/** Report of a client. */
export async function report(kind: Kind): Promise<SiteReport> {
  return await sites.get(kind)!.report();
}

/** Resolves to a client's report once it knows why it is not connected. */
export async function refused(kind: Kind): Promise<SiteReport> {
  const site = sites.get(kind)!;
  for (;;) {
    const { error } = site.logDB.status;
    if (error !== undefined && error.name !== "ErrConnectionLost") break;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return await report(kind);
}

/**
 * Resolves to a client's status once it makes no progress without intervention.
 */
export async function blocked(kind: Kind): Promise<Standing> {
  return await sites.get(kind)!.blocked();
}

/** Content of an export of a client. */
export async function exported(kind: Kind): Promise<Exported> {
  return await sites.get(kind)!.exported();
}

/** Has a client start over on the server's history. */
export async function startOver(kind: Kind): Promise<void> {
  await sites.get(kind)!.startOver();
}

/**
 * Removes a client's stored state; resolves to the name of the error if that is
 * rejected.
 */
export async function leave(kind: Kind): Promise<string> {
  return await sites.get(kind)!.leave();
}

/**
 * Names of all blocks stored under a name by any client; the clients must be
 * closed.
 */
export async function blocksOf(name: string): Promise<string[]> {
  const found: string[] = [];
  for (const part of ["outbox", "snapshots", "state", "copy"]) {
    const store = new IndexedDBBlockStore(`${name}-${part}`);
    for (const key of await store.keys("", "~")) found.push(`${part}: ${key}`);
    await store.close();
  }
  return found;
}

/** Closes the clients. */
export async function close(): Promise<void> {
  for (const site of sites.values()) await site.close();
  sites.clear();
}
