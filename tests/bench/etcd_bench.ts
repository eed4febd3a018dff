/**
 * The log on etcd, with three nodes on this machine, and beside it a bare client of
 * the same nodes in the same run.
 *
 * @module
 */

import {
  type Entry,
  type IConcurrentStateMachine,
  kv,
  KVStateMachine,
  NodeHost,
  type Replica,
} from "../../mod.ts";
import { Keys } from "../../src/etcd/keys.ts";
import { EtcdLogDB } from "../../src/etcd/mod.ts";
import type { Log, Records } from "../../src/log/log.ts";
import { packRecords } from "../../src/log/records.ts";
import {
  proposalHeadLength,
  putProposalHead,
} from "../../src/rsm/record_codec.ts";
import { RemoteLogDB } from "../../src/sync/client/mod.ts";
import { serve } from "../../src/sync/server/mod.ts";
import { EtcdNodes } from "../etcd/nodes.ts";
import { linesOf } from "../sync/crowd_server.ts";
import { BareEtcd } from "./bare_etcd.ts";
import { type Bench, type Cases, median } from "./report.ts";

const CLUSTER = { clusterID: 1n, nodeID: 1n };

/** Key of the log of the cluster, and one for the bare client. */
const LOG_KEY: Uint8Array = new Keys("sampan").of("log", 1n);
const BARE_KEY: Uint8Array = new Keys("bare").of("log", 1n);

/** Size of a command, in bytes. */
const COMMAND_BYTES = 16;

/** Records of a batch that is appended without a host. */
const BATCH = 1_000;

const pause = (ms: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, ms));

/** Machine that counts its entries. */
class NoOpStateMachine implements IConcurrentStateMachine<unknown, number> {
  #count = 0;
  update(entries: Entry[]): Entry[] {
    for (const entry of entries) entry.result = { value: 1n };
    this.#count += entries.length;
    return entries;
  }
  lookup(): number {
    return this.#count;
  }
  prepareSnapshot(): undefined {}
  saveSnapshot(): void {}
  recoverFromSnapshot(): void {}
  close(): void {}
}

/** Starts three nodes, and a host with one cluster on them, for `use`. */
async function withServer(
  use: (nodes: EtcdNodes, host: NodeHost, replica: Replica) => Promise<void>,
): Promise<void> {
  await using nodes = await EtcdNodes.start({ count: 3 });
  await using logDB = new EtcdLogDB({ endpoints: nodes.endpoints });
  await using host = new NodeHost({ logDB });
  const replica = await host.startConcurrentCluster(
    () => new NoOpStateMachine(),
    CLUSTER,
  );
  await use(nodes, host, replica);
}

/** Runs `clients` loops of calls, one after the other in each, `count` in all; returns the calls a second. */
async function rate(
  count: number,
  clients: number,
  call: () => Promise<unknown>,
): Promise<number> {
  let left = count;
  const client = async (): Promise<void> => {
    while (left-- > 0) await call();
  };
  const from = performance.now();
  await Promise.all(Array.from({ length: clients }, client));
  return count / (performance.now() - from) * 1e3;
}

/** Number of puts of the log so far, and the bytes of the last one. */
async function puts(
  bare: BareEtcd,
): Promise<{ version: number; bytes: number }> {
  const found = await bare.get(LOG_KEY);
  return { version: found?.version ?? 0, bytes: found?.value.length ?? 0 };
}

/**
 * Records a second of `run`, which appends `count` of them, in turn with those of a
 * bare client that makes as many puts of the same size, one under way at a time as
 * the log has.
 */
async function besideBare(
  bench: Bench,
  nodes: EtcdNodes,
  count: number,
  run: () => Promise<number>,
): Promise<{ own: number[]; bare: number[]; packed: number }> {
  using bare = new BareEtcd(nodes.endpoints[0]!);
  await run();
  const figures = { own: [] as number[], bare: [] as number[], packed: 0 };
  for (let i = 0; i < bench.count(5); i++) {
    const before = await puts(bare);
    figures.own.push(await run());
    const after = await puts(bare);
    const made = after.version - before.version;
    figures.packed = count / made;
    const value = new Uint8Array(Math.ceil(count / made * recordBytes()));
    const each = await rate(made, 1, () => bare.put(BARE_KEY, value));
    figures.bare.push(each * count / made);
  }
  return figures;
}

/** Bytes of a packed record of a command, with its length. */
function recordBytes(): number {
  return 1 + proposalHeadLength(1e6) + COMMAND_BYTES;
}

async function benchPropose(bench: Bench): Promise<void> {
  const count = bench.count(400_000, 2_000);
  await withServer(async (nodes, _, replica) => {
    const cmd = new Uint8Array(COMMAND_BYTES);
    const { own, bare, packed } = await besideBare(
      bench,
      nodes,
      count,
      () => rate(count, 1024, () => replica.propose(cmd)),
    );
    const wall = (samples: number[]): { wall: number[]; processor: [] } => ({
      wall: samples.map((one) => one / 1e3),
      processor: [],
    });
    bench.report("16 B proposals, 1,024 in flight", wall(own), "k/s", {
      atLeast: 150,
      dragonboat: 59,
      note: `${Math.round(packed)} a put; no-op machine`,
    });
    bench.report("… a bare client's puts of that size", wall(bare), "k/s");
    bench.report(
      "… relative to those",
      median(own.map((one, i) => one / bare[i]!)),
      "×",
    );
  });
}

/** Batch of proposals of a client that no replica waits for. */
function makeBatch(): Records {
  return packRecords(...Array.from({ length: BATCH }, (_, i) => {
    const record = new Uint8Array(proposalHeadLength(i) + COMMAND_BYTES);
    putProposalHead(record, 0, 1, 2, i);
    return record;
  }));
}

/** Appends batches without a replica, 16 in flight; returns the records a second. */
async function append(log: Log, batches: number): Promise<number> {
  const records = makeBatch();
  return BATCH * await rate(batches, 16, async () => {
    await log.append(records);
  });
}

async function benchPacked(bench: Bench): Promise<void> {
  const batches = bench.count(500, 20);
  await using nodes = await EtcdNodes.start({ count: 3 });
  await using logDB = new EtcdLogDB({ endpoints: nodes.endpoints });
  const log = await logDB.open(1n, 1n);
  const { own, bare, packed } = await besideBare(
    bench,
    nodes,
    batches * BATCH,
    () => append(log, batches),
  );
  log.close();
  const wall = (samples: number[]): { wall: number[]; processor: [] } => ({
    wall: samples.map((one) => one / 1e6),
    processor: [],
  });
  bench.report("packed records, batches of 1,000 × 16 B", wall(own), "M/s", {
    note: `${Math.round(packed)} a put`,
  });
  bench.report("… a bare client's puts of that size", wall(bare), "M/s");
  bench.report(
    "… relative to those",
    { wall: own.map((one, i) => one / bare[i]!), processor: [] },
    "×",
    { atLeast: 0.8 },
  );
}

async function benchOne(bench: Bench): Promise<void> {
  const count = bench.count(1_000, 20);
  await withServer(async (nodes, _, replica) => {
    using bare = new BareEtcd(nodes.endpoints[0]!);
    const cmd = new Uint8Array(COMMAND_BYTES);
    const own: number[] = [];
    const puts: number[] = [];
    const timed = async (call: () => Promise<unknown>): Promise<number> => {
      const from = performance.now();
      await call();
      return performance.now() - from;
    };
    const isWarm = bench.count(100);
    for (let i = 0; i < isWarm + count; i++) {
      const one = await timed(() => replica.propose(cmd));
      const put = await timed(() => bare.put(BARE_KEY, cmd));
      if (i < isWarm) continue;
      own.push(one);
      puts.push(put);
    }
    bench.report("one proposal at a time, p50", median(own), "ms");
    bench.report("… a bare put, in turn, p50", median(puts), "ms");
    bench.report("… relative to it", median(own) / median(puts), "×", {
      atMost: 1.3,
    });
  });
}

async function benchReads(bench: Bench): Promise<void> {
  const count = bench.count(300_000, 1_000);
  await withServer(async (nodes, _, replica) => {
    using bare = new BareEtcd(nodes.endpoints[0]!);
    await replica.propose(new Uint8Array(COMMAND_BYTES));
    await bare.put(BARE_KEY, new Uint8Array(COMMAND_BYTES));
    const read = (): Promise<number> =>
      rate(count, 256, () => replica.read(undefined));
    const get = (): Promise<number> =>
      rate(bench.count(10_000, 500), 256, () => bare.get(BARE_KEY));
    await read();
    await get();
    const own: number[] = [];
    const gets: number[] = [];
    for (let i = 0; i < bench.count(5); i++) {
      own.push(await read() / 1e3);
      gets.push(await get() / 1e3);
    }
    bench.report(
      "linearizable reads, 256 clients",
      { wall: own, processor: [] },
      "k/s",
      { atLeast: 100, dragonboat: 95 },
    );
    bench.report(
      "… a bare client's linearizable gets, 256 in flight",
      { wall: gets, processor: [] },
      "k/s",
    );
  });
}

/** Longest time between two successes, and from the start and until the end. */
class Gaps {
  longest = 0;
  #last = performance.now();
  #isOver = false;
  readonly #calls: Promise<void>[] = [];

  /** Repeats a call, one after the other, until `end()`. */
  repeat(call: () => Promise<unknown>): void {
    this.#calls.push(this.#repeat(call));
  }

  async #repeat(call: () => Promise<unknown>): Promise<void> {
    while (!this.#isOver) {
      try {
        await call();
        this.#note();
      } catch {
        // Neither committed nor refused in time: repeated.
      }
      await pause(2);
    }
  }

  #note(): void {
    const now = performance.now();
    this.longest = Math.max(this.longest, now - this.#last);
    this.#last = now;
  }

  /** Begins to measure. */
  begin(): void {
    this.longest = 0;
    this.#last = performance.now();
  }

  /** Ends the calls. */
  async end(): Promise<void> {
    this.#isOver = true;
    this.#note();
    await Promise.all(this.#calls);
  }
}

/** Time for which proposals go on after a kill. */
const AFTER_KILL_MS = 6_000;

async function benchLeader(bench: Bench): Promise<void> {
  const own: number[] = [];
  const bare: number[] = [];
  const states = new Set<string>();
  await withServer(async (nodes, host, replica) => {
    await using server = serve(host);
    await using remote = new RemoteLogDB(server.url);
    await using page = new NodeHost({ logDB: remote });
    await page.startConcurrentCluster(
      () => new NoOpStateMachine(),
      { ...CLUSTER, nodeID: 2n },
    );
    while (remote.state !== "live") await pause(10);
    const end = remote.watch(({ state }) => states.add(state));
    const cmd = new Uint8Array(COMMAND_BYTES);
    for (let i = 0; i < bench.count(4); i++) {
      const clients = nodes.endpoints.map((one) => new BareEtcd(one));
      const log = new Gaps();
      const etcd = new Gaps();
      for (let n = 0; n < 4; n++) log.repeat(() => replica.propose(cmd));
      // Whichever node is asked: the gap is that of etcd itself.
      for (const client of clients) {
        etcd.repeat(() => client.put(BARE_KEY, cmd, 300));
      }
      await pause(500);
      log.begin();
      etcd.begin();
      const leader = await nodes.leader();
      await nodes.kill(leader);
      await pause(AFTER_KILL_MS);
      await Promise.all([log.end(), etcd.end()]);
      for (const client of clients) client[Symbol.dispose]();
      own.push(log.longest / 1e3);
      bare.push(etcd.longest / 1e3);
      nodes.run(leader);
      await pause(bench.count(2_000));
      await nodes.ready();
    }
    end();
  });
  bench.report(
    "leader killed: longest time without a commit",
    Math.max(...own),
    "s",
    { atMost: 3.5, note: `of ${own.map((one) => one.toFixed(2)).join(", ")}` },
  );
  bench.report(
    "… of bare clients of every node",
    Math.max(...bare),
    "s",
    { note: `of ${bare.map((one) => one.toFixed(2)).join(", ")}` },
  );
  const worse = [...states].filter((state) =>
    state !== "live" && state !== "catching up"
  );
  bench.report(
    "… states of a page besides live and catching up",
    worse.length,
    "states",
    { atMost: 0, note: worse.join(", ") },
  );
}

async function benchCatchUp(bench: Bench): Promise<void> {
  const batches = bench.count(2_000, 20);
  const own: number[] = [];
  const bare: number[] = [];
  await using nodes = await EtcdNodes.start({ count: 3 });
  const { endpoints } = nodes;
  const start = async (nodeID: bigint): Promise<number> => {
    await using logDB = new EtcdLogDB({ endpoints });
    await using host = new NodeHost({ logDB });
    const from = performance.now();
    const replica = await host.startConcurrentCluster(
      () => new NoOpStateMachine(),
      { ...CLUSTER, nodeID },
    );
    const count = batches * BATCH;
    while (await replica.read(undefined) as number < count) {
      if (nodeID === 1n) return 0;
      await pause(1);
    }
    return count / (performance.now() - from) / 1e3;
  };
  // The first record of a log is a host's.
  await start(1n);
  await using writer = new EtcdLogDB({ endpoints });
  const log = await writer.open(1n, 1n);
  await append(log, batches);
  log.close();
  using client = new BareEtcd(endpoints[0]!);
  const { version, bytes } = await puts(client);
  for (let i = 0; i < bench.count(4); i++) {
    own.push(await start(BigInt(2 + i)));
    const from = performance.now();
    await client.replay(LOG_KEY, version);
    bare.push(batches * BATCH / (performance.now() - from) / 1e3);
  }
  bench.report(
    `a new server catches up with ${batches / 1e3} M records`,
    { wall: own, processor: [] },
    "M/s",
    { atLeast: 1, note: `${version} puts, the last of ${bytes} B` },
  );
  bench.report(
    "… a bare watch of the same puts, which reads no record",
    { wall: bare, processor: [] },
    "M/s",
  );
}

/** Processor time that processes have used, in seconds. */
function processorSeconds(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => {
    const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    // Ticks of a hundredth of a second, in user mode and in the kernel.
    return sum + (Number(fields[11]) + Number(fields[12])) / 100;
  }, 0);
}

/** Resident memory of a process, in MiB. */
function residentMiB(pid: number): number {
  const status = Deno.readTextFileSync(`/proc/${pid}/status`);
  return Number(/VmRSS:\s+(\d+)/.exec(status)![1]) / 1024;
}

const SERVERS = 3;

async function benchClusters(bench: Bench): Promise<void> {
  const clusters = bench.count(1_000, 30);
  const ms = bench.count(20_000, 2_000);
  await using nodes = await EtcdNodes.start({ count: 3 });
  const children = Array.from(
    { length: SERVERS },
    (_, i) =>
      new Deno.Command(Deno.execPath(), {
        args: [
          "run",
          "--allow-all",
          import.meta.url,
          "server",
          String(i),
          String(clusters),
          ...nodes.endpoints,
        ],
        stdout: "piped",
        stderr: "inherit",
      }).spawn(),
  );
  const lines = children.map(linesOf);
  try {
    const nextOf = async (): Promise<number[]> =>
      await Promise.all(lines.map(async (one) => {
        const { value, done } = await one.next();
        if (done) throw new Error(`A server of ${clusters} clusters has ended`);
        return Number(value);
      }));
    await nextOf();
    await pause(bench.count(5_000, 500));
    const pids = children.map(({ pid }) => pid);
    const before = [processorSeconds(pids), processorSeconds(nodes.pids)];
    const from = performance.now();
    await pause(ms);
    const seconds = (performance.now() - from) / 1e3;
    const servers = (processorSeconds(pids) - before[0]!) / seconds;
    const etcd = (processorSeconds(nodes.pids) - before[1]!) / seconds;
    const memory = pids.map(residentMiB);
    for (const { pid } of children) Deno.kill(pid, "SIGTERM");
    const made = (await nextOf()).reduce((sum, one) => sum + one, 0);
    bench.report(
      `${
        clusters.toLocaleString("en")
      } clusters, a proposal a second each: cores of three servers`,
      servers,
      "cores",
      {
        atMost: 0.5,
        note: `${made.toLocaleString("en")} applied since the start`,
      },
    );
    bench.report("… of three etcd nodes", etcd, "cores");
    bench.report("… memory of a server", median(memory), "MiB");
  } finally {
    for (const child of children) {
      try {
        child.kill("SIGKILL");
      } catch {
        // It has ended.
      }
      await child.status;
    }
    for (const one of lines) await one.return?.();
  }
}

/** Server with every cluster, which proposes once a second in each third one; a process of its own. */
async function runServer(
  number: number,
  clusters: number,
  endpoints: readonly string[],
): Promise<void> {
  const at = [...endpoints.slice(number), ...endpoints.slice(0, number)];
  const logDB = new EtcdLogDB({ endpoints: at });
  const host = new NodeHost({ logDB });
  const replicas: Replica[] = [];
  const opening = Array.from({ length: clusters }, (_, i) => i);
  await Promise.all(Array.from({ length: 32 }, async () => {
    for (let i = opening.shift(); i !== undefined; i = opening.shift()) {
      replicas[i] = await host.startCluster(() => new KVStateMachine(), {
        clusterID: BigInt(i + 1),
        nodeID: BigInt(number + 1),
        snapshotEntries: 10_000,
      });
    }
  }));
  const own = replicas.filter((_, i) => i % SERVERS === number);
  let made = 0;
  let isOver = false;
  const clients = own.map(async (replica, i) => {
    // Spread over the second, as independent clients are.
    await pause(i * 1_000 / own.length);
    let next = performance.now();
    while (!isOver) {
      await replica.propose(kv.put("boat", `${made}`));
      made++;
      next += 1_000;
      await pause(Math.max(0, next - performance.now()));
    }
  });
  const stopped = new Promise<void>((resolve) => {
    Deno.addSignalListener("SIGTERM", resolve);
  });
  // deno-lint-ignore no-console
  console.log("0");
  await stopped;
  isOver = true;
  // deno-lint-ignore no-console
  console.log(String(made));
  await Promise.all(clients);
  Deno.exit(0);
}

/** Cases of the log on etcd. */
export const cases: Cases = {
  "etcd/propose": { run: benchPropose },
  "etcd/packed": { run: benchPacked },
  "etcd/one": { run: benchOne },
  "etcd/reads": { run: benchReads },
  "etcd/leader": { run: benchLeader },
  "etcd/catch-up": { run: benchCatchUp },
  "etcd/clusters": { run: benchClusters },
};

if (import.meta.main) {
  const [, number, clusters, ...endpoints] = Deno.args;
  await runServer(Number(number), Number(clusters), endpoints);
}
