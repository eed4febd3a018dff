/**
 * The server of the offline replication under load: clients that speak the raw
 * protocol, in a process of their own, each command sent to all of them.
 *
 * @module
 */

import {
  kv,
  KVStateMachine,
  MemoryLogDB,
  newNodeID,
  NodeHost,
} from "../../mod.ts";
import { ByteReader } from "../../src/bytes.ts";
import { SYNC_FRAME_BYTES_MAX } from "../../src/limits.ts";
import { packRecords } from "../../src/log/records.ts";
import {
  proposalHeadLength,
  putProposalHead,
} from "../../src/rsm/record_codec.ts";
import { SqliteKVStateMachine, SqliteLogDB } from "../../src/sqlite/mod.ts";
import { decodeMessage, encodeMessage } from "../../src/sync/message_codec.ts";
import { type Message, PROTOCOL_VERSIONS } from "../../src/sync/messages.ts";
import { unpackFrame } from "../../src/sync/packing.ts";
import { RemoteLogDB } from "../../src/sync/client/mod.ts";
import { serve } from "../../src/sync/server/mod.ts";
import { type Bench, type Cases, percentile } from "./report.ts";

/** Load that the clients generate. */
interface Load {
  /** Number of clients. */
  readonly clients: number;
  /** Number of commands of all clients together. */
  readonly commands: number;
  /** Number of commands per append. */
  readonly batch: number;
  /** Number of appends of one client in flight. */
  readonly inFlight: number;
}

/** Result of a load. */
interface Outcome {
  /**
   * Time from the first append until every client has every command, in
   * milliseconds.
   */
  readonly ms: number;
  /** Latency of each append, in milliseconds. */
  readonly took: number[];
}

/** A record with a command of 16 bytes that sets one of 10,000 keys. */
function makeRecord(i: number): Uint8Array {
  const key = String(i * 7919 % 10_000).padStart(8, "0");
  const empty = kv.put(key, "").length;
  const cmd = kv.put(key, "v".repeat(16 - empty));
  const head = proposalHeadLength(i);
  const record = new Uint8Array(head + cmd.length);
  putProposalHead(record, 0, 1, 2, i);
  record.set(cmd, head);
  return record;
}

/** Number of records in an `entries` message, undefined for another message: a hundred clients on one processor cannot decode all they receive. */
function entriesIn(frame: Uint8Array): number | undefined {
  if (frame[0] !== 9) return undefined;
  const reader = new ByteReader(frame, 1);
  // Stream, follows, first, last.
  for (let i = 0; i < 4; i++) reader.varint();
  return reader.varint();
}

/** One client, from its connection until it has the commands of all clients. */
class Client {
  readonly done: Promise<void>;
  readonly #socket: WebSocket;
  readonly #load: Load;
  readonly #took: number[];
  readonly #records: ReturnType<typeof packRecords>;
  readonly #sentAt = new Map<number, number>();
  readonly #resolve: () => void;
  #stream = 1;
  #left: number;
  #got = 0;
  #owed = 0;
  firstAt = Infinity;

  constructor(url: string, load: Load, took: number[]) {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.done = promise;
    this.#resolve = resolve;
    this.#load = load;
    this.#took = took;
    this.#left = load.commands / load.clients;
    this.#records = packRecords(
      ...Array.from({ length: load.batch }, (_, i) => makeRecord(i)),
    );
    const socket = this.#socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    socket.onopen = (): void =>
      this.#tell({
        type: "hello",
        ...PROTOCOL_VERSIONS,
        token: undefined,
        credit: 4 << 20,
        frameBytesMax: SYNC_FRAME_BYTES_MAX,
        renews: false,
      });
    socket.onmessage = ({ data }): void => this.#frame(new Uint8Array(data));
    socket.onclose = ({ code, reason }): void =>
      reject(new Error(`Closed with ${code}: ${reason}`));
  }

  #tell(message: Message): void {
    this.#socket.send(encodeMessage(message) as Uint8Array<ArrayBuffer>);
  }

  #append(): void {
    if (this.#left <= 0) return;
    const stream = ++this.#stream;
    this.#left -= this.#load.batch;
    const { bytes, ends } = this.#records;
    const lengths = ends.map((end, i) => end - (ends[i - 1] ?? 0));
    const now = performance.now();
    this.firstAt = Math.min(this.firstAt, now);
    this.#sentAt.set(stream, now);
    this.#tell({ type: "append", channel: 1, stream, lengths, bytes });
  }

  #frame(received: Uint8Array): void {
    const frame = unpackFrame(received);
    const count = entriesIn(frame);
    // Credit is counted in bytes as they are before packing.
    if (count !== undefined) return this.#entries(count, frame.length);
    const message = decodeMessage(frame);
    switch (message.type) {
      case "welcome":
        return this.#tell({
          type: "open",
          channel: 1,
          clusterID: 1n,
          nodeID: 2n,
        });
      case "opened":
        this.#tell({
          type: "read",
          channel: 1,
          stream: 1,
          after: 0,
          epochIndex: 0,
          epochID: 0n,
          far: false,
          references: false,
        });
        for (let i = 0; i < this.#load.inFlight; i++) this.#append();
        return;
      case "appended": {
        const sentAt = this.#sentAt.get(message.stream)!;
        this.#took.push(performance.now() - sentAt);
        return this.#append();
      }
      case "ping":
        return this.#tell({ type: "pong" });
    }
  }

  #entries(count: number, bytes: number): void {
    this.#got += count;
    this.#owed += bytes;
    if (this.#owed > 1 << 20) {
      this.#tell({ type: "credit", bytes: this.#owed });
      this.#owed = 0;
    }
    // Plus the epoch record, written when the log was opened.
    if (this.#got <= this.#load.commands) return;
    this.#resolve();
    this.#socket.close();
  }
}

/** Main function of the process with the clients. */
async function runClients(url: string, load: Load): Promise<Outcome> {
  const took: number[] = [];
  const clients = Array.from(
    { length: load.clients },
    () => new Client(url, load, took),
  );
  await Promise.all(clients.map(({ done }) => done));
  const firstAt = Math.min(...clients.map(({ firstAt }) => firstAt));
  return { ms: performance.now() - firstAt, took };
}

/**
 * Serves a cluster under the load of clients, with or without a rehearsal of
 * each command; also resolves to the processor time of this process, in
 * milliseconds.
 */
async function serveLoad(
  load: Load,
  rehearse = true,
): Promise<Outcome & { cpu: number }> {
  const directory = await Deno.makeTempDir();
  try {
    await using logDB = new SqliteLogDB(`${directory}/log.db`, {
      durability: "normal",
    });
    await using host = new NodeHost({ logDB });
    await host.startOnDiskCluster(
      () => new SqliteKVStateMachine(`${directory}/state.db`),
      { clusterID: 1n, nodeID: 1n },
    );
    await using server = serve(host, {
      rehearse,
      limits: { principalConnections: load.clients },
    });
    const before = processorMs();
    const { stdout } = await new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "--allow-all",
        import.meta.url,
        server.url,
        JSON.stringify(load),
      ],
      stderr: "inherit",
    }).output();
    const outcome = JSON.parse(new TextDecoder().decode(stdout)) as Outcome;
    return { ...outcome, cpu: processorMs() - before };
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** Processor time of this process, with a resolution of 10 ms. */
function processorMs(): number {
  const text = Deno.readTextFileSync("/proc/self/stat");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

/** The load of a hundred clients. */
function crowd(bench: Bench): Load {
  const clients = bench.count(100, 2);
  const batch = 50;
  const appends = bench.count(60);
  return {
    clients,
    commands: clients * batch * appends,
    batch,
    inFlight: Math.min(2, appends),
  };
}

async function benchThroughput(bench: Bench): Promise<void> {
  const load = crowd(bench);
  const wall: number[] = [];
  const processor: number[] = [];
  for (let i = 0; i < bench.count(3); i++) {
    const { ms, cpu } = await serveLoad(load);
    wall.push(load.commands / ms);
    processor.push(load.commands / cpu);
  }
  bench.report(
    `sync server, ${load.clients} clients, 16 B, each to all`,
    { wall, processor: [] },
    "k/s",
    { atLeast: 50, note: "clients on the other core" },
  );
  bench.report(
    "… in a second of the server's processor",
    { wall: processor, processor: [] },
    "k/s",
  );
}

/** Cost of rehearsing each command: the same load with and without, in turn. */
async function benchRehearsal(bench: Bench): Promise<void> {
  const load = crowd(bench);
  const ratios: number[] = [];
  const ofProcessor: number[] = [];
  for (let i = 0; i < bench.count(4); i++) {
    const tried = await serveLoad(load);
    const not = await serveLoad(load, false);
    ratios.push(not.ms / tried.ms);
    ofProcessor.push(not.cpu / tried.cpu);
  }
  bench.report(
    "… each command tried on a fork, relative to without",
    { wall: ratios, processor: [] },
    "×",
    { atLeast: 0.8 },
  );
  bench.report(
    "… of the server's processor",
    { wall: ofProcessor, processor: [] },
    "×",
  );
}

async function benchOneClient(bench: Bench): Promise<void> {
  const load = {
    clients: 1,
    commands: bench.count(3000),
    batch: 1,
    inFlight: 1,
  };
  const { took } = await serveLoad(load);
  bench.report(
    "… one client, append to its answer, p50",
    percentile(took, 0.5),
    "ms",
  );
}

/** Downtime of the server, in milliseconds. */
const AWAY_MS = 2_000;

/** Running server, and the function that stops it. */
interface Running {
  readonly url: string;
  stop(): Promise<void>;
}

/** Starts a server on a port, over a log that outlives it. */
async function serveAt(logDB: MemoryLogDB, port: number): Promise<Running> {
  const host = new NodeHost({ logDB });
  await host.startCluster(() => new KVStateMachine(), {
    clusterID: 1n,
    nodeID: 1n,
  });
  const server = serve(host, { port });
  return {
    url: server.url,
    async stop(): Promise<void> {
      await server.shutdown();
      await host.stop();
    },
  };
}

/** Resolves once a page has everything the server has. */
function untilLive(logDB: RemoteLogDB): Promise<void> {
  return new Promise((resolve) => {
    const look = (): void => {
      if (logDB.state !== "live") return;
      end();
      resolve();
    };
    const end = logDB.watch(look);
    look();
  });
}

/** Measures the time from a server's return until pages are live again. */
async function benchRestart(bench: Bench): Promise<void> {
  const count = bench.count(100);
  await using log = new MemoryLogDB();
  let running = await serveAt(log, 0);
  const { url } = running;
  const pages = Array.from({ length: count }, () => new RemoteLogDB(url));
  const hosts: NodeHost[] = [];
  for (const logDB of pages) {
    const host = new NodeHost({ logDB });
    hosts.push(host);
    const config = { clusterID: 1n, nodeID: newNodeID() };
    await host.startCluster(() => new KVStateMachine(), config);
    await untilLive(logDB);
  }
  await running.stop();
  await new Promise((resolve) => setTimeout(resolve, bench.count(AWAY_MS)));
  running = await serveAt(log, Number(new URL(url).port));
  const backAt = performance.now();
  const took = await Promise.all(pages.map(async (logDB) => {
    await untilLive(logDB);
    return performance.now() - backAt;
  }));
  bench.report(
    `server away for ${AWAY_MS / 1000} s: until ${count} pages are live, p95`,
    percentile(took, 0.95),
    "ms",
    { atMost: 3_000 },
  );
  for (const host of hosts) await host.stop();
  for (const logDB of pages) await logDB.close();
  await running.stop();
}

/** Cases of the server. */
export const cases: Cases = {
  "sync/throughput": { run: benchThroughput },
  "sync/rehearsal": { run: benchRehearsal },
  "sync/one-client": { run: benchOneClient },
  "sync/restart": { run: benchRestart },
};

if (import.meta.main) {
  const [url, load] = Deno.args;
  const outcome = await runClients(url!, JSON.parse(load!) as Load);
  // deno-lint-ignore no-console
  console.log(JSON.stringify(outcome));
}
