/**
 * Process of a history: a server on etcd with clients of its host, or clients of
 * the servers. It writes its lines to its standard output, and ends when its
 * standard input does.
 *
 * This module needs Deno.
 *
 * @module
 */

import { NodeHost, type Replica, type ReplicaConfig } from "../../../mod.ts";
import { FileSnapshotStore } from "../../../src/sqlite/mod.ts";
import {
  ErrEtcdUnavailable,
  ErrPeerSnapshot,
  EtcdLogDB,
} from "../../../src/etcd/mod.ts";
import { RemoteLogDB } from "../../../src/sync/client/mod.ts";
import { serve } from "../../../src/sync/server/mod.ts";
import { answerOf, CLUSTER, onEvent } from "./answers.ts";
import { HistoryClient, numbers } from "./client.ts";
import { jump, nanoseconds } from "./clock.ts";
import { Ledger } from "./ledger.ts";
import type { Line, Request } from "./record.ts";

/** Settings of a process, as JSON. */
export interface ProcessSettings {
  /** Name of the process in this life. */
  readonly name: string;
  readonly seed: number;
  /** Number of clients. */
  readonly clients: number;
  /** True if no client may see an error. */
  readonly isStrict: boolean;
  /** Longest pause of a client between two operations, in milliseconds. */
  readonly pauseMsMax: number;
  /** Of a server. */
  readonly server?: {
    readonly nodeID: number;
    readonly port: number;
    readonly endpoints: readonly string[];
    /** Folder of its snapshots, and the URL at which the others fetch them. */
    readonly folder: string;
    readonly announced: string;
    /** Origins whose pages may connect. */
    readonly origins: readonly string[];
  };
  /** Of clients of servers: URLs of the servers. */
  readonly urls?: readonly string[];
  /** First node id of the clients. */
  readonly firstNodeID?: number;
}

/** Longest wait of an append for etcd, in milliseconds. */
const APPEND_MS = 4_000;

const settings = JSON.parse(Deno.args[0]!) as ProcessSettings;
const { name } = settings;
const clients: HistoryClient[] = [];
const replicas: Replica[] = [];
const nextNumber = numbers();
let shutDown = async (): Promise<void> => {};

function write(line: Line): void {
  const bytes = new TextEncoder().encode(`${JSON.stringify(line)}\n`);
  for (let at = 0; at < bytes.length;) {
    at += Deno.stdout.writeSync(bytes.subarray(at));
  }
}

function startClient(replica: Replica, i: number): void {
  clients.push(
    new HistoryClient({
      name: `${name}.${i}`,
      replica,
      seed: settings.seed + i,
      hasSession: settings.isStrict || i % 2 === 0,
      isStrict: settings.isStrict,
      pauseMsMax: settings.pauseMsMax,
      nextNumber,
      now: nanoseconds,
      rejected: [ErrEtcdUnavailable],
      write,
    }),
  );
}

/** Entries after which a server takes a snapshot, and how many of those before it the log keeps. */
const SNAPSHOT_ENTRIES = 100;
const OVERHEAD = 20;

/** Starts a replica; where etcd cannot be reached, again and again. */
async function startReplica(
  host: NodeHost,
  nodeID: number,
  snapshots: Partial<ReplicaConfig> = {},
): Promise<Replica> {
  const config = {
    clusterID: CLUSTER,
    nodeID: BigInt(nodeID),
    hashEntries: 256,
    ...snapshots,
  };
  for (;;) {
    try {
      return await host.startCluster(() => new Ledger(), config);
    } catch (error) {
      if (!(error instanceof ErrEtcdUnavailable)) throw error;
    }
  }
}

async function startServer(
  { nodeID, port, endpoints, folder, announced, origins }: NonNullable<
    ProcessSettings["server"]
  >,
): Promise<void> {
  const store = new FileSnapshotStore(folder);
  const logDB = new EtcdLogDB({
    endpoints,
    appendMs: APPEND_MS,
    peers: { store },
  });
  const host = new NodeHost({
    logDB,
    onEvent: onEvent(name, write, [ErrEtcdUnavailable, ErrPeerSnapshot]),
  });
  // Before it starts: it may lack a snapshot that only the others have.
  const server = serve(host, { port, origins: [...origins] });
  logDB.announce(announced);
  const replica = await startReplica(host, nodeID, {
    snapshotEntries: SNAPSHOT_ENTRIES,
    compactionOverhead: OVERHEAD,
  });
  replicas.push(replica);
  shutDown = async (): Promise<void> => {
    await server.shutdown();
    await host.stop();
    await logDB.close();
    await store.close();
  };
  write({ type: "started", url: server.url });
  for (let i = 0; i < settings.clients; i++) startClient(replica, i);
}

async function startClients(urls: readonly string[]): Promise<void> {
  const all = Array.from({ length: settings.clients }, async (_, i) => {
    // Each prefers another server.
    const at = i % urls.length;
    const order = [...urls.slice(at), ...urls.slice(0, at)];
    const logDB = new RemoteLogDB(order);
    const host = new NodeHost({
      logDB,
      onEvent: onEvent(name, write),
    });
    const replica = await startReplica(host, settings.firstNodeID! + i);
    replicas.push(replica);
    startClient(replica, i);
  });
  await Promise.all(all);
  write({ type: "started" });
}

async function answer(request: Request): Promise<unknown> {
  if (request.what === "shut down") return await shutDown();
  if (request.what === "jump") return jump(request.ms);
  return await answerOf(request, clients, replicas);
}

const { server, urls } = settings;
const starting = server === undefined
  ? startClients(urls!)
  : startServer(server);
starting.catch((error) => {
  write({ type: "violation", text: `${name}: ${error.stack}` });
});
const decoder = new TextDecoder();
let rest = "";
for await (const chunk of Deno.stdin.readable) {
  const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
  rest = lines.pop()!;
  for (const line of lines) {
    const request = JSON.parse(line) as Request;
    starting.then(() => answer(request)).then(
      (value) => write({ type: "answer", value }),
      (error) =>
        write({
          type: "violation",
          text: `${name}: ${request.what}: ${error.stack}`,
        }),
    );
  }
}
Deno.exit();
