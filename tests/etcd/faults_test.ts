import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import {
  ErrCompacted,
  ErrProposalRefused,
  ErrStoreFull,
  ErrUnknownOutcome,
  kv,
  KVStateMachine,
  NodeHost,
} from "../../mod.ts";
import {
  ErrEtcdUnavailable,
  EtcdLogDB,
  type EtcdLogOptions,
} from "../../src/etcd/mod.ts";
import {
  ErrRecordsRefused,
  type Log,
  packRecords,
  recordAt,
} from "../../src/ports/mod.ts";
import { epochOf } from "../../src/log/records.ts";
import { type EtcdNodes, test } from "./nodes.ts";

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Opens logs whose first endpoint is a node. */
function logsAt(
  { endpoints }: EtcdNodes,
  first: number,
  options: Partial<EtcdLogOptions> = {},
): EtcdLogDB {
  const order = [...endpoints.slice(first), ...endpoints.slice(0, first)];
  return new EtcdLogDB({ endpoints: order, ...options });
}

const record = (text: string) => packRecords(new TextEncoder().encode(text));

/** Reads a log to its present end; returns texts, and checks that indexes are consecutive. */
async function textsOf(log: Log): Promise<string[]> {
  const reader = await log.read(0);
  const texts: string[] = [];
  let at = 0;
  try {
    while (at < reader.lastAtStart) {
      const { follows, first, records } = await reader.next();
      assertEquals([follows, first], [at, at + 1]);
      for (let i = 0; i < records.ends.length; i++) {
        at++;
        const bytes = recordAt(records, i);
        if (epochOf(bytes) === undefined) {
          texts.push(new TextDecoder().decode(bytes));
        }
      }
    }
  } finally {
    reader.close();
  }
  return texts;
}

/** Appends numbered texts, a few at a time, until it is stopped. */
class Writer {
  readonly acknowledged: string[] = [];
  readonly unknown: string[] = [];
  /** Longest time between two acknowledgements, in milliseconds. */
  longest = 0;
  #isStopped = false;
  #count = 0;
  #last = performance.now();
  readonly #done: Promise<unknown>;

  constructor(log: Log, name: string) {
    this.#done = Promise.all(
      Array.from({ length: 4 }, () => this.#run(log, name)),
    );
  }

  async #run(log: Log, name: string): Promise<void> {
    while (!this.#isStopped) {
      const text = `${name} ${this.#count++}`;
      try {
        await log.append(record(text));
        this.acknowledged.push(text);
        this.longest = Math.max(this.longest, performance.now() - this.#last);
        this.#last = performance.now();
      } catch (error) {
        if (error instanceof ErrUnknownOutcome) this.unknown.push(text);
        else assert(error instanceof ErrEtcdUnavailable, `${error}`);
      }
    }
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#done;
  }
}

/** Checks what a log has against what writers know: nothing lost, nothing twice. */
function checkTexts(
  texts: readonly string[],
  writers: readonly Writer[],
): void {
  const found = new Set(texts);
  assertEquals(found.size, texts.length, "a record is in the log twice");
  const may = new Set<string>();
  for (const { acknowledged, unknown } of writers) {
    for (const text of acknowledged) {
      assert(found.has(text), `acknowledged "${text}" is lost`);
      may.add(text);
    }
    for (const text of unknown) may.add(text);
  }
  for (const text of texts) assert(may.has(text), `"${text}" was rejected`);
}

for (const fault of ["SIGKILL", "SIGSTOP"] as const) {
  test(
    `H5 etcd's leader ${
      fault === "SIGKILL" ? "is killed" : "freezes"
    } under load: no acknowledged record is lost, none is doubled, and writers on every node go on`,
    async (nodes) => {
      const leader = await nodes.leader();
      await using one = logsAt(nodes, leader);
      await using two = logsAt(nodes, (leader + 1) % 3);
      const logs = [await one.open(1n, 1n), await two.open(1n, 2n)];
      const writers = logs.map((log, i) => new Writer(log, `w${i}`));
      await pause(500);
      const before = writers.map(({ acknowledged }) => acknowledged.length);
      if (fault === "SIGKILL") await nodes.kill(leader);
      else nodes.signal(leader, "SIGSTOP");
      await pause(6_000);
      for (const [i, { acknowledged }] of writers.entries()) {
        assert(
          acknowledged.length > before[i]! + 10,
          `writer ${i} stands still`,
        );
      }
      if (fault === "SIGKILL") nodes.run(leader);
      else nodes.signal(leader, "SIGCONT");
      // A put that waited in the socket of the frozen node may arrive now.
      await pause(2_000);
      for (const writer of writers) await writer.stop();
      const texts = await textsOf(logs[0]!);
      assertEquals(await textsOf(logs[1]!), texts);
      checkTexts(texts, writers);
      for (const { longest } of writers) {
        assert(longest < 6_000, `${longest} ms`);
      }
    },
    { count: 3, leavesTimers: true },
  );
}

test(
  "H2 H5 without a quorum no read index is given and proposals end as unknown, or wait as chosen; then all goes on by itself",
  async (nodes) => {
    const leader = await nodes.leader();
    const others = [0, 1, 2].filter((i) => i !== leader);
    await using logDB = logsAt(nodes, leader, { appendMs: 1_500 });
    await using patient = logsAt(nodes, leader, { appendMs: Infinity });
    const log = await logDB.open(1n, 1n);
    const waiting = await patient.open(1n, 2n);
    await log.append(record("before"));
    for (const i of others) nodes.signal(i, "SIGSTOP");
    await pause(200);
    const waits = waiting.append(record("waits"));
    const asks = Array.from({ length: 20 }, () => log.readIndex());
    const outcomes = Promise.allSettled(asks);
    await assertRejects(
      async () => await log.append(record("unknown")),
      ErrUnknownOutcome,
    );
    for (const outcome of await outcomes) {
      assert(outcome.status === "rejected", "a read index without a quorum");
      assert(outcome.reason instanceof ErrEtcdUnavailable);
    }
    for (const i of others) nodes.signal(i, "SIGCONT");
    await waits;
    await log.append(record("after"));
    const texts = await textsOf(log);
    assertEquals(texts.filter((text) => text === "waits").length, 1);
    assert(texts.filter((text) => text === "unknown").length <= 1);
    assertEquals(texts[0], "before");
    assert(texts.includes("after"));
    assert(await log.readIndex() >= texts.length);
  },
  { count: 3, leavesTimers: true },
);

test(
  "H3 proposals of sessions are applied exactly once while etcd's nodes freeze and die in turn",
  async (nodes) => {
    const hosts: NodeHost[] = [];
    await using one = logsAt(nodes, 0, { appendMs: 800 });
    await using two = logsAt(nodes, 1, { appendMs: 800 });
    try {
      const start = async (logDB: EtcdLogDB, nodeID: bigint) => {
        const host = new NodeHost({ logDB });
        hosts.push(host);
        return await host.startCluster(() => new KVStateMachine(), {
          clusterID: 1n,
          nodeID,
        });
      };
      const replicas = [await start(one, 1n), await start(two, 2n)];
      const counts = [0, 0];
      let isOver = false;
      const load = replicas.map(async (replica, i) => {
        const session = await replica.openSession();
        while (!isOver) {
          await replica.propose(kv.put(`${i}-${counts[i]}`, "x"), {
            session,
          });
          counts[i]!++;
        }
      });
      for (let round = 0; round < 3; round++) {
        const leader = await nodes.leader();
        await pause(300);
        nodes.signal(leader, "SIGSTOP");
        await pause(3_500);
        nodes.signal(leader, "SIGCONT");
        await pause(500);
      }
      isOver = true;
      await Promise.all(load);
      for (const replica of replicas) {
        assertEquals(
          await replica.read(kv.count()),
          counts[0]! + counts[1]!,
        );
      }
      assert(counts[0]! > 50 && counts[1]! > 50, `${counts}`);
    } finally {
      for (const host of hosts) await host.stop();
    }
  },
  { count: 3, leavesTimers: true },
);

test(
  "H7 a compaction of etcd by another program fails only readers that need what it removed",
  async (nodes) => {
    await using logDB = logsAt(nodes, 0);
    const log = await logDB.open(1n, 1n);
    for (let i = 0; i < 20; i++) await log.append(record(`${i}`));
    await using live = logsAt(nodes, 0);
    const other = await live.open(1n, 2n);
    const reader = await other.read(await other.readIndex());
    const { output } = await nodes.ctl("get", "sampan/history", "-w", "json");
    const { header } = JSON.parse(output) as { header: { revision: number } };
    assert((await nodes.ctl("compact", `${header.revision}`)).success);
    const next = reader.next();
    await log.append(record("20"));
    assertEquals((await next).records.ends.length, 1);
    reader.close();
    // A process that starts now does not have the first ones.
    await using late = logsAt(nodes, 0);
    const behind = await late.open(1n, 3n);
    await assertRejects(async () => {
      const first = await behind.read(0);
      try {
        await first.next();
      } finally {
        first.close();
      }
    }, ErrCompacted);
    await behind.append(record("21"));
  },
  { count: 1, leavesTimers: true },
);

test(
  "U8 an etcd out of space refuses appends with ErrStoreFull, reads go on, and appends succeed by themselves once there is room",
  async (nodes) => {
    await using logDB = logsAt(nodes, 0);
    const log = await logDB.open(1n, 1n);
    const large = packRecords(new Uint8Array(400_000).fill(1));
    const error = await assertRejects(async () => {
      for (let i = 0; i < 100; i++) await log.append(large);
    }, ErrStoreFull);
    assert(error.message.includes("nothing was appended"), error.message);
    assert(log.storage!.trouble instanceof ErrStoreFull);
    const last = await log.readIndex();
    const texts = await textsOf(log);
    assertEquals(texts.length, last - 1);
    await assertRejects(async () => await log.compact!(last), ErrStoreFull);
    // An operator makes room.
    const { output } = await nodes.ctl("get", "sampan/history", "-w", "json");
    const { header } = JSON.parse(output) as { header: { revision: number } };
    await nodes.ctl("compact", `${header.revision}`);
    assert((await nodes.ctl("defrag")).success);
    assert((await nodes.ctl("alarm", "disarm")).success);
    for (let waited = 0; log.storage!.trouble !== undefined; waited += 100) {
      assert(waited < 5_000, "still reported as full");
      await pause(100);
    }
    assertEquals(await log.append(record("more")), last + 1);
  },
  { count: 1, leavesTimers: true, args: ["--quota-backend-bytes=8000000"] },
);

test(
  "H11 a record over the limit of etcd's requests is refused with words that say what to do, and appends that shared its put are not",
  async (nodes) => {
    await using logDB = logsAt(nodes, 0);
    const log = await logDB.open(1n, 1n);
    await log.append(record("before"));
    for (const size of [200_000, 900_000]) {
      const large = packRecords(new Uint8Array(size).fill(1));
      const [one, refused, other] = await Promise.allSettled([
        log.append(record(`one ${size}`)),
        log.append(large),
        log.append(record(`other ${size}`)),
      ]);
      assertEquals([one.status, other.status], ["fulfilled", "fulfilled"]);
      assert(refused.status === "rejected");
      assert(
        refused.reason instanceof ErrRecordsRefused,
        `${refused.reason}`,
      );
      assertStringIncludes(refused.reason.message, "--max-request-bytes");
    }
    // A host says so to the caller, and goes on.
    await using host = new NodeHost({ logDB });
    const replica = await host.startCluster(() => new KVStateMachine(), {
      clusterID: 2n,
      nodeID: 1n,
    });
    const error = await assertRejects(
      async () => await replica.propose(kv.put("x", "y".repeat(200_000))),
      ErrProposalRefused,
    );
    assertStringIncludes(error.message, "--max-request-bytes");
    await replica.propose(kv.put("x", "small"));
    assertEquals((await textsOf(log)).length, 5);
  },
  { count: 1, leavesTimers: true, args: ["--max-request-bytes=100000"] },
);

test(
  "R5 one EtcdLogDB serves a thousand clusters over one connection",
  async (nodes) => {
    await using logDB = logsAt(nodes, 0);
    const ids = Array.from({ length: 1_000 }, (_, i) => BigInt(i + 1));
    const logs = await Promise.all(ids.map((id) => logDB.open(id, 1n)));
    const readers = await Promise.all(logs.map((log) => log.read(0)));
    await Promise.all(
      logs.map((log, i) => log.append(record(`of ${i}`))),
    );
    for (const [i, reader] of readers.entries()) {
      const texts: string[] = [];
      while (texts.length === 0) {
        const { records } = await reader.next();
        for (let at = 0; at < records.ends.length; at++) {
          const bytes = recordAt(records, at);
          if (epochOf(bytes) === undefined) {
            texts.push(new TextDecoder().decode(bytes));
          }
        }
      }
      assertEquals(texts, [`of ${i}`]);
      reader.close();
    }
    assertEquals((await logDB.clusters()).length, 1_000);
    // Their watches go on when the node has restarted.
    await nodes.kill(0);
    nodes.run(0);
    await nodes.ready();
    await using other = logsAt(nodes, 0);
    for (const at of [0, 500, 999]) {
      const reader = await logs[at]!.read(2);
      await (await other.open(ids[at]!, 2n)).append(record("again"));
      assertEquals((await reader.next()).first, 3);
      reader.close();
    }
  },
  { count: 1, leavesTimers: true },
);

test(
  "H2 H5 etcd nodes that are cut off each other and still answer give no read index and commit nothing; then all goes on by itself",
  async (nodes) => {
    const leader = await nodes.leader();
    await using logDB = logsAt(nodes, leader, { appendMs: 1_500 });
    await using elsewhere = logsAt(nodes, (leader + 1) % 3);
    const log = await logDB.open(1n, 1n);
    const other = await elsewhere.open(1n, 2n);
    await log.append(record("before"));
    for (const link of nodes.links) link.set("silent");
    // At once: the leader does not know yet that it is alone.
    const asks = await Promise.allSettled([log.readIndex(), other.readIndex()]);
    for (const outcome of asks) {
      assert(outcome.status === "rejected", "a read index without a quorum");
      assert(outcome.reason instanceof ErrEtcdUnavailable, `${outcome.reason}`);
    }
    const outcome = await Promise.allSettled([log.append(record("lone"))]);
    assert(outcome[0].status === "rejected");
    for (const link of nodes.links) link.set("open");
    for (let tries = 0;; tries++) {
      try {
        await log.append(record("after"));
        break;
      } catch (error) {
        assert(tries < 10, `${error}`);
      }
    }
    const texts = await textsOf(log);
    assertEquals(await textsOf(other), texts);
    assertEquals([texts[0], texts.at(-1)], ["before", "after"]);
    assert(texts.filter((text) => text === "lone").length <= 1);
  },
  { count: 3, leavesTimers: true, hasLinks: true },
);
