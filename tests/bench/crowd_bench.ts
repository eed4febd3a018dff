/**
 * The server of the offline replication among many, or hostile, connections:
 * server and crowd each in a process of their own, over real sockets.
 *
 * @module
 */

import { kv, KVStateMachine, NodeHost } from "../../mod.ts";
import { epochRecord, packRecords } from "../../src/log/records.ts";
import { unregisterRecord } from "../../src/rsm/record_codec.ts";
import { encodeMessage } from "../../src/sync/message_codec.ts";
import { RemoteLogDB } from "../../src/sync/mod.ts";
import {
  idleConnections,
  linesOf,
  spawnServer,
  untilServed,
} from "../sync/crowd_server.ts";
import {
  clientFrame,
  helloFrame,
  messageFrame,
  UPGRADE,
  writeAll,
} from "../sync/raw_frames.ts";
import { type Bench, type Cases, percentile } from "./report.ts";

const MIB = 1024 * 1024;

/** Content of the frames of an attack: bytes that are not records, records that only a server writes, or those of a session that is not there. */
type Kind = "not records" | "a server's" | "refused";

/** Records of one frame. */
const RECORDS = 1024;

/** Frames that are sent on one connection, without a look at what is granted. */
const FRAMES = 128;

/**
 * Frames that cost the server more than the sender: one per stream, as many as
 * a connection is granted.
 */
function badFrames(kind: Kind): Uint8Array[] {
  const record = {
    "not records": new Uint8Array([0xff]),
    "a server's": epochRecord(1n),
    "refused": unregisterRecord(2 ** 40),
  }[kind];
  const { bytes, ends } = packRecords(
    ...Array.from({ length: RECORDS }, () => record),
  );
  const lengths = ends.map((end, i) => end - (ends[i - 1] ?? 0));
  return Array.from({ length: FRAMES }, (_, stream) =>
    clientFrame(
      encodeMessage({ type: "append", channel: 1, stream, lengths, bytes }),
    ));
}

/** Connects, and asks for the cluster. */
async function connect(port: number): Promise<Deno.TcpConn> {
  const conn = await Deno.connect({ hostname: "127.0.0.1", port });
  await writeAll(conn, UPGRADE);
  await conn.read(new Uint8Array(1024));
  await writeAll(conn, helloFrame());
  await conn.read(new Uint8Array(1024));
  await writeAll(
    conn,
    messageFrame({ type: "open", channel: 1, clusterID: 1n, nodeID: 9n }),
  );
  return conn;
}

/**
 * Sends bad frames until `bytes` bytes were sent, on successive connections:
 * the server closes each one soon.
 */
async function attack(port: number, kind: Kind, bytes: number): Promise<void> {
  const frames = badFrames(kind);
  for (let sent = 0; sent < bytes;) {
    const conn = await connect(port).catch(() => undefined);
    if (conn === undefined) continue;
    try {
      // Pipelined, as fast as the connection accepts them.
      for (const frame of frames) {
        sent += frame.length;
        await writeAll(conn, frame);
      }
    } catch {
      // It was cut.
    }
    conn.close();
  }
}

/** Connects visitors that open one cluster each and stay; says when all are there. */
async function visit(port: number, count: number): Promise<void> {
  const listen = async (conn: Deno.TcpConn): Promise<void> => {
    const buffer = new Uint8Array(4096);
    while (await conn.read(buffer) !== null);
  };
  const read = messageFrame({
    type: "read",
    channel: 1,
    stream: 1,
    after: 0,
    epochIndex: 0,
    epochID: 0n,
    far: false,
    references: false,
  });
  for (let i = 0; i < count; i++) {
    const conn = await connect(port);
    await writeAll(conn, read);
    listen(conn).catch(() => {});
  }
  // deno-lint-ignore no-console
  console.log("all");
}

function spawnCrowd(...args: string[]): Deno.ChildProcess {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "--allow-all", import.meta.url, ...args],
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
}

/** Runs a server in a process of its own while `use` uses it. */
async function withServer(
  descriptors: number,
  use: (url: string, pid: number) => Promise<void>,
): Promise<void> {
  const child = spawnServer(descriptors);
  const lines = linesOf(child);
  let url = "";
  while (!url.startsWith("ws")) url = (await lines.next()).value as string;
  const drained = (async (): Promise<void> => {
    for await (const _ of lines);
  })();
  try {
    await use(url, child.pid);
  } finally {
    child.kill("SIGTERM");
    await drained;
    await child.status;
  }
}

/**
 * Latency of each proposal of a well-behaved client while `isOver` returns
 * false, in milliseconds.
 */
async function proposeUntil(
  url: string,
  isOver: () => boolean,
): Promise<number[]> {
  await using logDB = new RemoteLogDB(url);
  await using host = new NodeHost({ logDB });
  const replica = await host.startCluster(() => new KVStateMachine(), {
    clusterID: 1n,
    nodeID: 2n,
  });
  await replica.propose(kv.put("boat", "sampan"));
  const took: number[] = [];
  while (!isOver()) {
    const from = performance.now();
    await replica.propose(kv.put("boat", `${took.length}`));
    took.push(performance.now() - from);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return took;
}

async function benchAttack(bench: Bench, kind: Kind): Promise<void> {
  const megabytes = bench.count(33);
  await withServer(0, async (url) => {
    const crowd = spawnCrowd(
      "attack",
      new URL(url).port,
      kind,
      String(megabytes * 1e6),
    );
    let isOver = false;
    const ended = crowd.status.then(() => isOver = true);
    const took = await proposeUntil(url, () => isOver);
    await ended;
    await crowd.stdout.cancel();
    bench.report(
      `p99 of a good client, 8 connections send ${megabytes} MB: ${kind}`,
      percentile(took, 0.99),
      "ms",
      { atMost: 100, note: `${took.length} proposals` },
    );
  });
}

async function benchDescriptors(bench: Bench): Promise<void> {
  const descriptors = 256;
  await withServer(descriptors, async (url) => {
    const { port } = new URL(url);
    const idle = await idleConnections(Number(port), 2 * descriptors);
    for (const conn of idle) conn.close();
    bench.report(
      "descriptors used up, then free: until newcomers are served",
      await untilServed(`http://127.0.0.1:${port}/`),
      "ms",
      { atMost: 5_000, note: "without a restart" },
    );
  });
}

/** Resident memory of a process, in MiB. */
function residentMiB(pid: number): number {
  const status = Deno.readTextFileSync(`/proc/${pid}/status`);
  return Number(/VmRSS:\s+(\d+)/.exec(status)![1]) / 1024;
}

async function benchVisitors(bench: Bench): Promise<void> {
  const visitors = bench.count(5_000);
  await withServer(0, async (url, pid) => {
    const before = residentMiB(pid);
    const crowd = spawnCrowd("visit", new URL(url).port, String(visitors));
    await linesOf(crowd).next();
    // Idle time in which garbage is collected.
    await new Promise((resolve) => setTimeout(resolve, bench.count(5_000)));
    const after = residentMiB(pid);
    bench.report(
      `${visitors.toLocaleString("en")} visitors, one cluster each: memory`,
      after,
      "MiB",
      { atMost: 300e6 / MIB, note: `${Math.round(before)} before they came` },
    );
    crowd.kill("SIGKILL");
    await crowd.status;
  });
}

/** Processor time that a process has used, in milliseconds. */
function processorMsOf(pid: number): number {
  const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  // Ticks of a hundredth of a second, in user mode and in the kernel.
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

async function benchFanOut(bench: Bench): Promise<void> {
  const visitors = bench.count(1_000, 20);
  const commands = bench.count(100, 5);
  await withServer(0, async (url, pid) => {
    const crowd = spawnCrowd("visit", new URL(url).port, String(visitors));
    await linesOf(crowd).next();
    await using logDB = new RemoteLogDB(url);
    await using host = new NodeHost({ logDB });
    const replica = await host.startCluster(() => new KVStateMachine(), {
      clusterID: 1n,
      nodeID: 2n,
    });
    await replica.propose(kv.put("boat", "sampan"));
    const before = processorMsOf(pid);
    for (let i = 0; i < commands; i++) {
      await replica.propose(kv.put("boat", "x".repeat(100)));
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    const used = processorMsOf(pid) - before;
    bench.report(
      `one command of 100 B to ${
        visitors.toLocaleString("en")
      } pages: processor time of the server`,
      used * 1e3 / commands / visitors,
      "µs/page",
      { note: "nothing to share a frame with" },
    );
    crowd.kill("SIGKILL");
    await crowd.status;
  });
}

/** Cases of the server among crowds. */
export const cases: Cases = {
  "crowd/not-records": { run: (bench) => benchAttack(bench, "not records") },
  "crowd/server-records": { run: (bench) => benchAttack(bench, "a server's") },
  "crowd/refused": { run: (bench) => benchAttack(bench, "refused") },
  "crowd/descriptors": { run: benchDescriptors },
  "crowd/visitors": { run: benchVisitors },
  "crowd/fan-out": { run: benchFanOut },
};

if (import.meta.main) {
  const [what, port, ...more] = Deno.args;
  if (what === "attack") {
    const [kind, bytes] = more;
    await Promise.all(
      Array.from(
        { length: 8 },
        () => attack(Number(port), kind as Kind, Number(bytes) / 8),
      ),
    );
  } else await visit(Number(port), Number(more[0]));
}
