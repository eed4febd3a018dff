/**
 * A page with clients of the offline replication, one of each kind, that keep
 * what they have in IndexedDB.
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

/** What a client in a page is told. */
export interface PageSite {
  readonly kind: Kind;
  /** Under which name it keeps what it has. */
  readonly name: string;
  readonly url: string;
  readonly nodeID: number;
  /** The only version it speaks, if not all. */
  readonly version?: number;
}

const sites = new Map<Kind, Site>();

/** Starts a client on what is kept, or on nothing; resolves to how long it took, in milliseconds. */
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

/** The network is back, as the browser would tell. */
export function online(): void {
  dispatchEvent(new Event("online"));
}

/** Resolves once nothing waits to be decided, to how long that took, in milliseconds. */
export async function sent(): Promise<number> {
  const began = performance.now();
  await Promise.all([...sites.values()].map((site) => site.sent()));
  return performance.now() - began;
}

/** Resolves once a client has applied that much, to what it has. */
export async function reach(kind: Kind, index: number): Promise<SiteReport> {
  await sites.get(kind)!.reach(index);
  return await report(kind);
}

/** Resolves once a client is live and has applied that much, to what it has. */
export async function live(kind: Kind, index: number): Promise<SiteReport> {
  await sites.get(kind)!.reach(index);
  await sites.get(kind)!.live();
  return await report(kind);
}

/** What a client has. */
export async function report(kind: Kind): Promise<SiteReport> {
  return await sites.get(kind)!.report();
}

/** Resolves to what a client has once it is told why it is not connected. */
export async function refused(kind: Kind): Promise<SiteReport> {
  const site = sites.get(kind)!;
  for (;;) {
    const { error } = site.logDB.status;
    if (error !== undefined && error.name !== "ErrConnectionLost") break;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return await report(kind);
}

/** Resolves to where a client stands once it goes no further until someone acts. */
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

/** Removes all that a client keeps; resolves to the name of the error if that is refused. */
export async function leave(kind: Kind): Promise<string> {
  return await sites.get(kind)!.leave();
}

/** Names of all blocks that are kept under a name, by any client, which must be closed. */
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
