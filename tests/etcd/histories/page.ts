/**
 * Page of a history with one client of the servers. It sends its lines to the
 * coordinator, and begins an operation only once the coordinator has its line.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { NodeHost } from "../../../mod.ts";
import { RemoteLogDB } from "../../../src/sync/client/mod.ts";
import { answerOf, CLUSTER, onEvent } from "./answers.ts";
import { HistoryClient, numbers } from "./client.ts";
import { Ledger } from "./ledger.ts";
import type { Line, Request } from "./record.ts";

/** Settings of a page. */
export interface PageSettings {
  readonly name: string;
  readonly seed: number;
  readonly nodeID: number;
  readonly urls: readonly string[];
  readonly isStrict: boolean;
  readonly pauseMsMax: number;
  /** Time of the coordinator, in nanoseconds. */
  readonly now: number;
}

/** Message of the coordinator: it has written down the next call, or requests something. */
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

/** Starts the client. */
export async function start(
  coordinator: string,
  settings: PageSettings,
): Promise<void> {
  const socket = await connect(coordinator);
  const waiting: (() => void)[] = [];
  const write = (line: Line): Promise<void> | void => {
    socket.send(JSON.stringify(line));
    if (line.type !== "call") return;
    return new Promise((resolve) => waiting.push(resolve));
  };
  const { name, nodeID, now } = settings;
  const wrong = (error: unknown): void =>
    void write({
      type: "violation",
      text: `${name}: ${(error as Error)?.stack ?? error}`,
    });
  addEventListener("error", ({ error, message }) => wrong(error ?? message));
  addEventListener("unhandledrejection", ({ reason }) => wrong(reason));
  const from = performance.now();
  const logDB = new RemoteLogDB(settings.urls);
  const host = new NodeHost({ logDB, onEvent: onEvent(name, write) });
  const replica = await host.startCluster(() => new Ledger(), {
    clusterID: CLUSTER,
    nodeID: BigInt(nodeID),
  });
  const client = new HistoryClient({
    ...settings,
    replica,
    hasSession: true,
    nextNumber: numbers(),
    now: () => now + (performance.now() - from) * 1e6,
    rejected: [],
    write,
  });
  socket.onmessage = ({ data }): void => {
    const message = JSON.parse(data as string) as PageMessage;
    if (message === "written") return waiting.shift()!();
    if (message.what === "shut down" || message.what === "jump") return;
    answerOf(message, [client], [replica]).then(
      (value) => write({ type: "answer", value }),
      wrong,
    );
  };
  void write({ type: "started" });
}
