/**
 * The replica of a board on this device: its stores, its connection, and the typed
 * access of the page to it. This is all that an application has to set up.
 *
 * This module runs in a browser.
 *
 * @module
 */

import {
  type HostEvent,
  MemoryOutbox,
  NodeHost,
  type Replica,
} from "../../mod.ts";
import {
  deviceID,
  IndexedDBBlockStore,
  IndexedDBOutbox,
  IndexedDBSnapshotStore,
  type StorageStatus,
  storageStatus,
} from "../../src/indexeddb/mod.ts";
import { RemoteLogDB } from "../../src/sync/client/mod.ts";
import { shareTabs, type Tabs } from "../../src/tabs/mod.ts";
import { typed, type TypedQuery } from "../../src/typed/mod.ts";
import { board } from "./board.ts";
import { type Feed, openFeed } from "./feed.ts";
import { clusterOf, HASH_ENTRIES, type Place } from "./names.ts";
import { peerURLs } from "./peers.ts";
import { Plug } from "./plug.ts";

/** Typed access of the page to the board. */
const access = (replica: BoardReplica) => typed(replica, board);

/** Replica of a board. */
export type BoardReplica = Replica<TypedQuery, unknown>;

/** Commands, queries and watches of the board. */
export type BoardApp = ReturnType<typeof access>;

/** Version of this code: a tab with a lower one stops when it meets one with a higher one. */
const CODE = 1;

/** Applied entries after which a snapshot is taken. */
const SNAPSHOT_ENTRIES = 500;

/** Name of this browser, which the server set as a cookie: it outlives the storage of the page (U1). */
function browserName(): string | undefined {
  return /(?:^|; )sampan-device=([^;]+)/.exec(document.cookie)?.[1];
}

/** Device with a board, before its replica has started. */
export interface Device {
  /** Id of the board's cluster. */
  readonly clusterID: bigint;
  /** Host of the replica. */
  readonly host: NodeHost;
  /** Logs of the server, with the state of the connection. */
  readonly logDB: RemoteLogDB;
  /** Switch for the network. */
  readonly plug: Plug;
  /** Other tabs with this board. */
  readonly tabs: Tabs;
  /** Durability of what is stored. */
  readonly storage: StorageStatus;
  /** Log of this device in sentences. */
  readonly feed: Feed;
  /** Starts the replica from what is on the device, and returns it with typed access. */
  start(): Promise<Started>;
}

/** Board that can be shown and edited. */
export interface Started {
  /** Replica on this device. */
  readonly replica: BoardReplica;
  /** Typed access to it. */
  readonly app: BoardApp;
}

/** Addresses of the server of this page, and of the others on the same log. */
function serverURLs(): string[] {
  return [location.href, ...peerURLs()].map((at) => new URL("sync", at).href);
}

/** Opens the stores of a device, and connects it. */
export async function openDevice(
  place: Place,
  onEvent: (event: HostEvent) => void,
): Promise<Device> {
  const { board: name, device } = place;
  const clusterID = clusterOf(name);
  const storage = await storageStatus();
  const plug = new Plug(device);
  // Each board of each device has databases of its own.
  const database = (part: string): string => `sampan ${device} ${name} ${part}`;
  const isKept = storage.mode !== "memory";
  const logDB = new RemoteLogDB(serverURLs(), {
    connect: plug.connect,
    fetch: plug.fetch,
    // The log is kept on the device, too: without a network, the machine starts from
    // its last snapshot and the entries after it.
    ...(isKept ? { copy: () => new IndexedDBBlockStore(database("log")) } : {}),
  });
  const browser = browserName();
  // All tabs of this browser with the same board share one replica.
  const tabs = shareTabs(`sampan ${device} ${name}`, { code: CODE });
  const host = new NodeHost({
    logDB,
    // By this name, the server knows a device again whose storage was cleared.
    ...(isKept && browser !== undefined
      ? { device: `${browser} ${device} ${name}` }
      : {}),
    outbox: isKept
      ? new IndexedDBOutbox(database("outbox"))
      : new MemoryOutbox(),
    ...(isKept
      ? { snapshots: new IndexedDBSnapshotStore(database("snapshots")) }
      : {}),
    onEvent,
    tabs,
  });
  const feed = await openFeed(name, device);
  const start = async (): Promise<Started> => {
    const replica = await host.startConcurrentCluster(feed.create, {
      clusterID,
      nodeID: await deviceID({
        name: `sampan ${device}`,
        ...(isKept ? {} : { indexedDB: null }),
      }),
      snapshotEntries: SNAPSHOT_ENTRIES,
      hashEntries: HASH_ENTRIES,
      // Entries that the inspector replays are no news for the feed.
      replayMachine: board.create,
    });
    feed.pending = () => replica.pending();
    return { replica, app: access(replica) };
  };
  return { clusterID, host, logDB, plug, tabs, storage, feed, start };
}
