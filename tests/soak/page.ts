/**
 * Page of a soak, which stores everything in IndexedDB. It sends its lines to the
 * coordinator, and begins a call only once the coordinator has its line.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { NodeHost } from "../../mod.ts";
import {
  IndexedDBBlockStore,
  IndexedDBKVStateMachine,
  IndexedDBLogDB,
  IndexedDBOutbox,
  IndexedDBSnapshotStore,
} from "../../src/indexeddb/mod.ts";
import { RemoteLogDB } from "../../src/sync/client/mod.ts";
import type { Line, Request } from "./record.ts";
import { type ClientSettings, onEvent, Station } from "./station.ts";

/** Message of the coordinator to a page: it has written down the next line, or requests something. */
export type PageMessage = "written" | Request;

/** Connects to the coordinator. */
async function connect(address: string): Promise<WebSocket> {
  const socket = new WebSocket(address);
  await new Promise((resolve, reject) => {
    socket.onopen = resolve;
    socket.onerror = () => reject(new Error(`${address} cannot be reached`));
  });
  return socket;
}

/** Starts the load of a life. */
export async function start(
  coordinator: string,
  settings: ClientSettings,
): Promise<void> {
  const socket = await connect(coordinator);
  const waiting: (() => void)[] = [];
  const write = (line: Line): Promise<void> | void => {
    socket.send(JSON.stringify(line));
    if (line.type !== "call") return;
    return new Promise((resolve) => waiting.push(resolve));
  };
  const wrong = (error: unknown): void =>
    void write({
      type: "violation",
      text: `Page: ${(error as Error)?.stack ?? error}`,
    });
  addEventListener("error", ({ error, message }) => wrong(error ?? message));
  addEventListener("unhandledrejection", ({ reason }) => wrong(reason));
  const { url, hasCopy } = settings;
  const logDB = new RemoteLogDB(url, {
    copy: hasCopy ? () => new IndexedDBBlockStore("soak-copy") : undefined,
  });
  const ownLogDB = new IndexedDBLogDB("soak-own-log");
  const own = {
    logDB: ownLogDB,
    host: new NodeHost({
      logDB: ownLogDB,
      snapshots: new IndexedDBSnapshotStore("soak-own-snapshots"),
      outbox: new IndexedDBOutbox("soak-own-outbox"),
      onEvent: onEvent(write),
    }),
  };
  const station = new Station({
    settings,
    own,
    host: new NodeHost({
      logDB,
      snapshots: new IndexedDBSnapshotStore("soak-snapshots"),
      outbox: new IndexedDBOutbox("soak-outbox"),
      onEvent: onEvent(write),
    }),
    machine: (cluster) => new IndexedDBKVStateMachine(`soak-state-${cluster}`),
    reconnect: () => logDB.reconnect(),
    write,
  });
  socket.onmessage = ({ data }): void => {
    const message = JSON.parse(data as string) as PageMessage;
    if (message === "written") waiting.shift()!();
    else station.answer(message).catch(wrong);
  };
  await station.start();
  await station.work();
}
