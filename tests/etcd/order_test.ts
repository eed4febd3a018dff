import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import {
  ErrClusterClosed,
  ErrProposalRefused,
  NodeHost,
  type Replica,
} from "../../mod.ts";
import { ErrOrderLost, ErrOrderShared, EtcdLogDB } from "../../src/etcd/mod.ts";
import {
  ETCD_LEASE_SECONDS,
  ETCD_TURN_LEASE_SECONDS,
} from "../../src/limits.ts";
import type { Records } from "../../src/log/log.ts";
import { packRecords } from "../../src/log/records.ts";
import { ErrRemote, RemoteLogDB } from "../../src/sync/client/mod.ts";
import {
  serve,
  type ServeOptions,
  type Server,
} from "../../src/sync/server/mod.ts";
import { encodeShown } from "../../src/bytes.ts";
import { systemEnv } from "../../src/env.ts";
import { proposal } from "../support/log_records.ts";
import { test } from "./nodes.ts";
import { ServerProcess } from "./server_process.ts";
import { PIECES, Stock, validate } from "./stock.ts";

/** Server of a stock. */
interface Running {
  readonly logDB: EtcdLogDB;
  readonly replica: Replica<null, number>;
  readonly server: Server;
  stop(): Promise<void>;
}

async function run(
  endpoints: readonly string[],
  nodeID: bigint,
  isStrict: boolean,
  rule: ServeOptions["validate"],
): Promise<Running> {
  const logDB = new EtcdLogDB({ endpoints });
  const host = new NodeHost({ logDB });
  const replica = await host.startCluster(() => new Stock(isStrict), {
    clusterID: 1n,
    nodeID,
  });
  const server = serve(host, { validate: rule });
  return {
    logDB,
    replica,
    server,
    async stop(): Promise<void> {
      await server.shutdown();
      await host.stop();
      await logDB.close();
    },
  };
}

/** Client of a stock. */
class Client {
  readonly #logDB: RemoteLogDB;
  readonly #host: NodeHost;
  replica!: Replica<null, number>;

  constructor(...urls: readonly string[]) {
    this.#logDB = new RemoteLogDB(urls);
    this.#host = new NodeHost({ logDB: this.#logDB });
  }

  async start(nodeID: bigint): Promise<void> {
    this.replica = await this.#host.startCluster(() => new Stock(false), {
      clusterID: 1n,
      nodeID,
    });
  }

  /** Takes one piece `count` times, all at once; returns how many were taken. */
  async take(count: number, inSession: boolean): Promise<number> {
    const { replica } = this;
    const options = inSession ? { session: await replica.openSession() } : {};
    const outcomes = await Promise.allSettled(
      Array.from(
        { length: count },
        () => replica.propose(new Uint8Array([1]), options),
      ),
    );
    for (const one of outcomes) {
      if (one.status === "fulfilled") continue;
      assert(one.reason instanceof ErrProposalRefused, `${one.reason}`);
    }
    return outcomes.filter(({ status }) => status === "fulfilled").length;
  }

  async stop(): Promise<void> {
    await this.#host.stop();
    await this.#logDB.close();
  }
}

for (const inSession of [false, true]) {
  const where = inSession ? "in sessions" : "outside of sessions";
  test(`H20 a rule about the state holds over two servers on etcd, whose clients break it together ${where}`, async ({ endpoints }) => {
    const servers = [
      await run(endpoints, 1n, false, validate),
      await run(endpoints, 2n, false, validate),
    ];
    const clients = servers.map(({ server }) => new Client(server.url));
    for (const [i, client] of clients.entries()) {
      await client.start(BigInt(10 + i));
    }
    const rounds = [30, 30, 30];
    let taken = 0;
    for (const count of rounds) {
      const each = await Promise.all(
        clients.map((client) => client.take(count, inSession)),
      );
      taken += each[0]! + each[1]!;
    }
    assertEquals(taken, PIECES);
    for (const { replica } of servers) {
      assertEquals(await replica.read(null), 0);
    }
    for (const client of clients) await client.stop();
    for (const server of servers) await server.stop();
  });
}

test("H17 no command that throws gets into a log that two servers append to under a rule, although each would pass alone", async ({ endpoints }) => {
  const accept = () => undefined;
  const servers = [
    await run(endpoints, 1n, true, accept),
    await run(endpoints, 2n, true, accept),
  ];
  const clients = servers.map(({ server }) => new Client(server.url));
  for (const [i, client] of clients.entries()) {
    await client.start(BigInt(10 + i));
  }
  let taken = 0;
  for (let round = 0; round < 3; round++) {
    const each = await Promise.all(
      clients.map((client) => client.take(30, false)),
    );
    taken += each[0]! + each[1]!;
  }
  assertEquals(taken, PIECES);
  for (const { replica } of servers) {
    assertEquals(replica.failure, undefined);
    assertEquals(await replica.read(null), 0);
  }
  for (const client of clients) await client.stop();
  for (const server of servers) await server.stop();
});

/** Records that a test appends and finds again. */
function record(text: string): Records {
  return packRecords(proposal(1, encodeShown(text)));
}

test("H17 H20 a turn to append goes to the server that waits for it, a server without a rule waits, too, and one whose lease has ended appends nothing that it has decided before", async (nodes) => {
  const { endpoints } = nodes;
  await using one = new EtcdLogDB({ endpoints });
  await using two = new EtcdLogDB({ endpoints });
  await using plain = new EtcdLogDB({ endpoints });
  const a = await one.open(1n, 1n);
  const b = await two.open(1n, 2n);
  const c = await plain.open(1n, 3n);
  // Nothing is known of an order before it is wanted.
  assertEquals(await c.append(record("c1")), 2);
  const first = await a.order!.enter(1n);
  assertEquals(first.index, 2);
  assertEquals(await first.append(record("a1")), 4);
  first.leave();
  // A server without a rule gets a turn of its own.
  assertEquals(await c.append(record("c2")), 5);
  const second = await b.order!.enter(1n);
  assertEquals([second.index, first.isOver], [5, true]);
  assertEquals(await second.append(record("b1")), 7);
  // Not while something is being decided in it.
  const waiting = a.order!.enter(1n);
  assertEquals(await second.append(record("b2")), 8);
  assert(!second.isOver);
  second.leave();
  const third = await Promise.resolve(waiting);
  assertEquals([third.index, second.isOver], [8, true]);
  // As if its lease had ended while it was frozen.
  const key = "sampan/order/0000000000000001";
  const decided = third.append(record("a2"));
  assertEquals(await decided, 9);
  const taken = await nodes.ctl("del", key);
  assert(taken.success, taken.output);
  const fourth = await b.order!.enter(1n);
  assertEquals(fourth.index, 9);
  await assertRejects(
    () => Promise.resolve(third.append(record("never"))),
    ErrOrderLost,
    "nothing was appended",
  );
  assertEquals(await fourth.append(record("b3")), 10);
  fourth.leave();
  third.leave();
  const fifth = await a.order!.enter(1n);
  assertEquals(await fifth.append(record("a3")), 11);
  fifth.leave();
  const reader = await c.read(9);
  assertEquals(await c.readIndex(), 11);
  reader.close();
  for (const log of [a, b, c]) await log.close();
  // The one that closes its log does not keep others waiting until its lease ends.
  const d = await two.open(1n, 2n);
  const last = await d.order!.enter(1n);
  assertEquals(last.index, 11);
  last.leave();
  await d.close();
});

for (const isSudden of [false, true]) {
  test(
    `H10 H17 H20 a server that closes a log while it waits for the turn${
      isSudden ? ", and has only just begun to," : ""
    } does not keep the others waiting, while it goes on with other logs`,
    async ({ endpoints }) => {
      await using one = new EtcdLogDB({ endpoints });
      await using two = new EtcdLogDB({ endpoints });
      await using three = new EtcdLogDB({ endpoints });
      const a = await one.open(1n, 1n);
      const b = await two.open(1n, 2n);
      const other = await two.open(2n, 2n);
      const c = await three.open(1n, 3n);
      // Its process has a lease, which lives on.
      (await other.order!.enter(1n)).leave();
      const first = await a.order!.enter(1n);
      await first.append(record("a"));
      const waiting = assertRejects(
        () => Promise.resolve(b.order!.enter(1n)),
        ErrClusterClosed,
      );
      if (!isSudden) await new Promise((resolve) => setTimeout(resolve, 300));
      await b.close();
      await waiting;
      await new Promise((resolve) => setTimeout(resolve, 100));
      first.leave();
      const next = await c.order!.enter(1n);
      await next.append(record("c"));
      next.leave();
      // It may want a turn again.
      const again = await two.open(1n, 2n);
      const last = await again.order!.enter(1n);
      await last.append(record("b"));
      last.leave();
      for (const log of [a, again, other, c]) await log.close();
    },
  );
}

test("H1 H20 what a server appends by itself waits for no decision that waits for it, while another server wants the turn", async ({ endpoints }) => {
  await using one = new EtcdLogDB({ endpoints });
  await using two = new EtcdLogDB({ endpoints });
  const a = await one.open(1n, 1n);
  const b = await two.open(1n, 2n);
  const first = await a.order!.enter(1n);
  await first.append(record("a1"));
  const waiting = Promise.resolve(b.order!.enter(1n));
  await new Promise((resolve) => setTimeout(resolve, 300));
  // The decision ends after it, as rehearsals are made one after the other.
  assertEquals(await a.append(record("a2")), 3);
  first.leave();
  const second = await waiting;
  assertEquals(second.index, 3);
  second.leave();
  for (const log of [a, b]) await log.close();
});

test("H17 H20 nothing is decided in the next turn while what was decided in the last one may still fail: it would be decided on a state that never is", async (nodes) => {
  const { endpoints } = nodes;
  let gate: Promise<void> = Promise.resolve();
  await using one = new EtcdLogDB({
    endpoints,
    env: { ...systemEnv, turn: () => gate.then(() => systemEnv.turn()) },
  });
  const a = await one.open(1n, 1n);
  const first = await a.order!.enter(1n);
  assertEquals(await first.append(record("a1")), 2);
  // Nothing is being written any more.
  await new Promise((resolve) => setTimeout(resolve, 50));
  let open = (): void => {};
  gate = new Promise((resolve) => open = resolve);
  const events: string[] = [];
  // Its put is made late.
  const late = assertRejects(
    () => Promise.resolve(first.append(record("never"))),
    ErrOrderLost,
  ).then(() => events.push("append"));
  first.leave();
  // As if the lease had ended.
  const taken = await nodes.ctl("del", "sampan/order/0000000000000001");
  assert(taken.success, taken.output);
  while (!first.isOver) await new Promise((resolve) => setTimeout(resolve, 5));
  const entered = Promise.resolve(a.order!.enter(1n)).then((turn) => {
    events.push("turn");
    return turn;
  });
  await new Promise((resolve) => setTimeout(resolve, 300));
  const before = [...events];
  open();
  assertEquals(before, []);
  await late;
  const second = await entered;
  assertEquals(events, ["append", "turn"]);
  assertEquals(second.index, 2);
  assertEquals(await second.append(record("a2")), 3);
  second.leave();
  await a.close();
});

test("H20 a turn is under a lease of its own, which ends sooner than what its server has announced", async (nodes) => {
  const { endpoints } = nodes;
  await using one = new EtcdLogDB({ endpoints });
  const a = await one.open(1n, 1n);
  const turn = await a.order!.enter(1n);
  turn.leave();
  const { output } = await nodes.ctl(
    "get",
    "sampan/order/0000000000000001",
    "-w",
    "json",
  );
  const [, lease] = /"lease":(\d+)/.exec(output)!;
  const granted = await nodes.ctl(
    "lease",
    "timetolive",
    BigInt(lease!).toString(16),
    "-w",
    "json",
  );
  const [, seconds] = /"granted-ttl":(\d+)/.exec(granted.output)!;
  assertEquals(Number(seconds), ETCD_TURN_LEASE_SECONDS);
  assert(ETCD_TURN_LEASE_SECONDS < ETCD_LEASE_SECONDS);
  await a.close();
});

test("H5 H20 a command whose turn is lost before it is appended is reported as one that never is in the log, with what to do", async (nodes) => {
  const { endpoints } = nodes;
  let gate: Promise<void> = Promise.resolve();
  const logDB = new EtcdLogDB({
    endpoints,
    env: { ...systemEnv, turn: () => gate.then(() => systemEnv.turn()) },
  });
  const host = new NodeHost({ logDB });
  const replica = await host.startCluster(() => new Stock(false), {
    clusterID: 1n,
    nodeID: 1n,
  });
  const server = serve(host, { validate });
  const client = new Client(server.url);
  await client.start(10n);
  assertEquals(await client.take(1, false), 1);
  const log = await logDB.open(1n, 2n);
  let open = (): void => {};
  gate = new Promise((resolve) => open = resolve);
  const lost = assertRejects(
    () => client.replica.propose(new Uint8Array([1])),
    ErrRemote,
    "is not in the log and never will be, so propose it again",
  );
  // Its put waits for the gate.
  await new Promise((resolve) => setTimeout(resolve, 200));
  const taken = await nodes.ctl("del", "sampan/order/0000000000000001");
  assert(taken.success, taken.output);
  while (log.order!.isHeld) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  open();
  await lost;
  assertEquals(await client.take(1, false), 1);
  assertEquals(await replica.read(null), PIECES - 2);
  await log.close();
  await client.stop();
  await server.shutdown();
  await host.stop();
  await logDB.close();
});

test("H18 H20 health says that commands wait for the turn, which server has it, and since when", async ({ endpoints }) => {
  await using other = new EtcdLogDB({ endpoints, server: { name: "other" } });
  const a = await other.open(1n, 7n);
  a.announcements!.announce([]);
  const turn = await a.order!.enter(7n);
  const { server, stop } = await run(endpoints, 1n, false, validate);
  const client = new Client(server.url);
  await client.start(10n);
  const taking = client.take(1, false);
  const health = async (): Promise<{
    waitsForTurn?: { waitedMs: number; holder: string; heldMs: number };
  }> =>
    await (await fetch(new URL("health/clusters/1", server.httpURL))).json();
  let wait = (await health()).waitsForTurn;
  while (wait?.holder !== "other") {
    await new Promise((resolve) => setTimeout(resolve, 20));
    wait = (await health()).waitsForTurn;
  }
  assert(wait.waitedMs >= 0 && wait.heldMs >= 0, JSON.stringify(wait));
  turn.leave();
  assertEquals(await taking, 1);
  assertEquals((await health()).waitsForTurn, undefined);
  await client.stop();
  await stop();
  await a.close();
});

test("H20 two hosts of a process on one EtcdLogDB do not decide about one log together: the second is refused, until the first is closed", async ({ endpoints }) => {
  await using logDB = new EtcdLogDB({ endpoints });
  const a = await logDB.open(1n, 1n);
  const b = await logDB.open(1n, 2n);
  const first = await a.order!.enter(1n);
  first.leave();
  const error = await assertRejects(
    async () => await b.order!.enter(2n),
    ErrOrderShared,
  );
  assertStringIncludes(error.message, "Give each host a LogDB of its own");
  (await a.order!.enter(1n)).leave();
  await a.close();
  const second = await b.order!.enter(2n);
  assertEquals(await second.append(record("b")), 2);
  second.leave();
  await b.close();
});

for (const signal of ["SIGKILL", "SIGSTOP"] as const) {
  test(`H20 H3 a rule about the state holds while the server whose turn it is gets ${signal}, and nothing is lost or doubled`, async ({ endpoints }) => {
    const servers: ServerProcess[] = [];
    for (const nodeID of [1, 2, 3]) {
      servers.push(
        await ServerProcess.start({ endpoints, nodeID }, "stock.ts"),
      );
    }
    const urls = servers.map(({ url }) => url);
    const clients = urls.map((_, i) =>
      new Client(...urls.slice(i), ...urls.slice(0, i))
    );
    try {
      for (const [i, client] of clients.entries()) {
        await client.start(BigInt(10 + i));
      }
      let taken = 0;
      for (const client of clients) taken += await client.take(10, true);
      // The last one to append has the turn.
      const all = Promise.all(clients.map((one) => one.take(15, true)));
      await clients[2]!.take(1, true).then((one) => taken += one);
      if (signal === "SIGSTOP") servers[2]!.signal(signal);
      else await servers[2]!.kill();
      for (const one of await all) taken += one;
      const rest = await Promise.all(clients.map((one) => one.take(20, true)));
      for (const one of rest) taken += one;
      if (signal === "SIGSTOP") {
        servers[2]!.signal("SIGCONT");
        for (const one of clients) taken += await one.take(5, true);
      }
      const alive = signal === "SIGSTOP" ? servers : servers.slice(0, 2);
      for (const server of alive) {
        const { left } = await (await fetch(server.http("/left"))).json();
        assertEquals(left, PIECES - taken);
      }
      assertEquals(taken, PIECES);
    } finally {
      for (const client of clients) await client.stop();
      for (const server of servers) await server.kill();
    }
  });
}
