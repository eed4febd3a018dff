/**
 * Benchmarks of offline replication in a page, against a local server.
 *
 * This module is browser compatible.
 *
 * @module
 */

import {
  type IOnDiskStateMachine,
  kv,
  type KVAnswer,
  type KVQuery,
  KVStateMachine,
  NodeHost,
  type Replica,
} from "../../mod.ts";
import {
  IndexedDBKVStateMachine,
  IndexedDBOutbox,
  IndexedDBSnapshotStore,
} from "../../src/indexeddb/mod.ts";
import {
  type Connect,
  connectSocket,
  RemoteLogDB,
} from "../../src/sync/client/mod.ts";
import { Plug } from "../../web/app/plug.ts";
import { drop, freshName } from "../indexeddb/faults.ts";
import { committed, median, openRows } from "../indexeddb/workload.ts";
import type { Figure } from "./bench.ts";

/** Minimum number of rows on the server. */
const ROWS = 100_000;

/** Number of commands pending at the reconnect. */
const PENDING = 10_000;

/** Number of commands pending while the view is measured, and of samples. */
const VIEW_PENDING = 1_000;
const VIEW_SAMPLES = 300;

/**
 * Number of steps that are timed together: some clocks tick once a millisecond.
 */
const GROUP = 20;
const GROUPS = 25;

/** Number of runs of the longer measurements; the best one counts. */
const TIMES = 3;

let url = "";

/** Client whose connection can be cut. */
interface Client {
  readonly replica: Replica;
  readonly logDB: RemoteLogDB;
  readonly plug: Plug;
  close(): Promise<void>;
}

let lastNode = 100n;

async function open(inMemory = false): Promise<Client> {
  const name = freshName();
  const plug = new Plug("bench");
  // The tab remembers a plug that an earlier measurement pulled.
  plug.isIn = true;
  const logDB = new RemoteLogDB(url, { connect: plug.connect });
  const outbox = new IndexedDBOutbox(`${name}-outbox`);
  const snapshots = new IndexedDBSnapshotStore(`${name}-snapshots`);
  const host = new NodeHost({ logDB, outbox, snapshots });
  const config = { clusterID: 1n, nodeID: ++lastNode };
  const machine = (): IOnDiskStateMachine<KVQuery, KVAnswer> =>
    new IndexedDBKVStateMachine(name);
  const replica = inMemory
    ? await host.startCluster(() => new KVStateMachine(), config)
    : await host.startOnDiskCluster(machine, config);
  return {
    replica,
    logDB,
    plug,
    async close(): Promise<void> {
      await host.stop();
      await logDB.close();
      await outbox.close();
      await snapshots.close();
      for (const part of [name, `${name}-outbox`, `${name}-snapshots`]) {
        await drop(part);
      }
    },
  };
}

function plugIn({ plug, logDB }: Client): void {
  plug.isIn = true;
  logDB.reconnect();
}

/** Resolves once the queue is empty. */
function sent({ replica }: Client): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const look = (): void => {
    if (replica.pending().length === 0) resolve();
  };
  const end = replica.onPending(look);
  look();
  return promise.finally(end);
}

/** Resolves once the replica has everything on the server. */
function live(
  { logDB, replica }: Pick<Client, "logDB" | "replica">,
): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const look = (): void => {
    const { state, clusters: [cluster] } = logDB.status;
    if (
      state === "live" && cluster !== undefined && cluster.last > 0 &&
      replica.appliedIndex >= cluster.last
    ) resolve();
  };
  const end = logDB.watch(look);
  // Progress is reported rarely: poll the applied index as well.
  const timer = setInterval(look, 1);
  return promise.finally(() => {
    end();
    clearInterval(timer);
  });
}

/** Salt that makes a command of 16 bytes change its key's value. */
let salt = 0;
function command(key = salt % 10_000): Uint8Array {
  return kv.put(`k${key}`, `${++salt}`.padStart(8, "0"));
}

async function submitAll(client: Client, count: number): Promise<void> {
  for (let at = 0; at < count; at += 1000) {
    await Promise.all(
      Array.from(
        { length: Math.min(1000, count - at) },
        () => client.replica.submit(command()),
      ),
    );
  }
}

async function timed(body: () => Promise<unknown>): Promise<number> {
  const began = performance.now();
  await body();
  return performance.now() - began;
}

/**
 * Time from the reconnect until all pending commands are committed and applied
 * here.
 */
async function reconnect(): Promise<Figure[]> {
  const client = await open();
  await submitAll(client, 1);
  await sent(client);
  const keeping: number[] = [];
  const sending: number[] = [];
  for (let time = 0; time < TIMES; time++) {
    client.plug.isIn = false;
    keeping.push(await timed(() => submitAll(client, PENDING)));
    sending.push(
      await timed(() => {
        plugIn(client);
        return sent(client);
      }),
    );
  }
  await client.close();
  return [
    {
      name: "submit 10,000 commands offline, best of 3",
      value: Math.min(...keeping),
      unit: "ms",
    },
    {
      name: "reconnect with 10,000 pending until all are committed, best of 3",
      value: Math.min(...sending),
      unit: "ms",
    },
    { name: "… median", value: median(sending), unit: "ms" },
  ];
}

/** Time until a new page has all rows. */
async function visit(inMemory: boolean): Promise<Figure> {
  const times: number[] = [];
  for (let time = 0; time < TIMES; time++) {
    let client: Client | undefined;
    times.push(
      await timed(async () => {
        client = await open(inMemory);
        await live(client);
        const count = Number(await client.replica.read(kv.count()));
        if (count < ROWS) throw new Error(`${count} rows came`);
      }),
    );
    await client!.close();
  }
  const machine = inMemory ? "in memory" : "on disk";
  return {
    name:
      `first visit 100,000 entries behind until live, ${machine}, best of 3`,
    value: Math.min(...times),
    unit: "ms",
  };
}

/**
 * Time until a submission is durable, and of the same bytes in one IndexedDB
 * transaction.
 */
async function submission(): Promise<Figure[]> {
  const client = await open();
  await live(client);
  client.plug.isIn = false;
  const name = freshName();
  const db = await openRows(name);
  let row = 0;
  const raw = async (): Promise<void> => {
    const transaction = db.transaction("rows", "readwrite", {
      durability: "relaxed",
    });
    transaction.objectStore("rows").put(command(), ++row);
    await committed(transaction);
  };
  const own = (): Promise<unknown> => client.replica.submit(command());
  const times: [number[], number[]] = [[], []];
  // In turns, so that both meet the same load of the disk.
  for (let group = 0; group < GROUPS; group++) {
    for (const [j, step] of [raw, own].entries()) {
      const ms = await timed(async () => {
        for (let i = 0; i < GROUP; i++) await step();
      });
      times[j]!.push(ms / GROUP);
    }
  }
  const [one, other] = [median(times[0]), median(times[1])];
  db.close();
  await drop(name);
  await client.close();
  return [
    { name: "one raw put per transaction, p50", value: one, unit: "ms" },
    { name: "submit() until it is durable, p50", value: other, unit: "ms" },
    { name: "… against one raw put", value: other / one, unit: "×" },
  ];
}

/** Time from `submit()` until a watch of the optimistic view is notified. */
async function shown(): Promise<Figure[]> {
  const client = await open();
  await live(client);
  client.plug.isIn = false;
  await submitAll(client, VIEW_PENDING);
  const watch = client.replica.watch<Uint8Array>(kv.get("k1"));
  let heard: (() => void) | undefined;
  const end = watch.subscribe(() => heard?.());
  const times: number[] = [];
  for (let i = 0; i < VIEW_SAMPLES; i++) {
    times.push(
      await timed(async () => {
        const told = new Promise<void>((resolve) => heard = resolve);
        const submitted = client.replica.submit(command(1));
        await told;
        await submitted;
      }),
    );
  }
  end();
  await client.close();
  times.sort((one, other) => one - other);
  const at = (share: number): number =>
    times[Math.ceil(share * times.length) - 1]!;
  const what = "100,000 keys, 1,000 pending";
  return [
    {
      name: `submit() until the view shows it, ${what}, p50`,
      value: at(0.5),
      unit: "ms",
    },
    { name: "… p99", value: at(0.99), unit: "ms" },
  ];
}

/**
 * Number of bytes that a visit receives from the server until it is live: the
 * first visit of a replica on disk, or a later one, in which the replica is
 * opened from the stored state.
 */
export async function bytesOfVisit(
  server: string,
  name: string,
): Promise<number> {
  let received = 0;
  const connect: Connect = (url) => {
    const transport = connectSocket(url);
    const listen = transport.listen.bind(transport);
    transport.listen = (listener): void =>
      listen({
        opened: () => listener.opened(),
        frame(bytes): void {
          received += bytes.length;
          listener.frame(bytes);
        },
        closed: (code, reason) => listener.closed(code, reason),
      });
    return transport;
  };
  const logDB = new RemoteLogDB(server, {
    connect,
    async fetch(input, init): Promise<Response> {
      const { body, status, headers } = await fetch(input, init);
      const counted = body?.pipeThrough(
        new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>({
          transform(chunk, controller): void {
            received += chunk.length;
            controller.enqueue(chunk);
          },
        }),
      );
      return new Response(counted ?? null, { status, headers });
    },
  });
  const snapshots = new IndexedDBSnapshotStore(`${name}-snapshots`);
  const host = new NodeHost({ logDB, snapshots });
  const replica = await host.startOnDiskCluster(
    () => new IndexedDBKVStateMachine(name),
    { clusterID: 1n, nodeID: 99n },
  );
  await live({ logDB, replica });
  const count = Number(await replica.read(kv.count()));
  if (count < ROWS) throw new Error(`Replica has ${count} of ${ROWS} rows`);
  await host.stop();
  await logDB.close();
  await snapshots.close();
  return received;
}

/** All figures, against a server with 100,000 rows. */
export async function bench(server: string): Promise<Figure[]> {
  url = server;
  return [
    // First, while the server has nothing else.
    await visit(false),
    await visit(true),
    ...await shown(),
    ...await submission(),
    ...await reconnect(),
  ];
}
