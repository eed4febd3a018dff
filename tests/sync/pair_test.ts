import { assert, assertEquals } from "@std/assert";
import {
  ErrUnknownOutcome,
  type HostEvent,
  kv,
  KVStateMachine,
  MemoryBlockStore,
  MemoryLogDB,
  MemorySnapshotStore,
  NodeHost,
  type Replica,
  type Session,
} from "../../mod.ts";
import { SqliteLogDB } from "../../src/sqlite/mod.ts";
import {
  RemoteLogDB,
  type RemoteLogOptions,
} from "../../src/sync/client/mod.ts";
import { ErrConnectionLost } from "../../src/sync/errors.ts";
import { Core } from "../../src/sync/server/core.ts";
import { serve } from "../../src/sync/server/serve.ts";
import type { CoreOptions } from "../../src/sync/server/options.ts";
import {
  bytes,
  checked,
  listOf,
  ManualEnv,
  peek,
  randomOf,
  settle,
  startOn,
  text,
} from "../nodehost/support.ts";
import { wire, type WireEnd } from "./client_support.ts";

const config = { clusterID: 1n, nodeID: 1n };

function test(name: string, run: () => Promise<void>): void {
  Deno.test(name, checked(run));
}

/** Time that does not run ahead of what takes turns of the event loop, as snapshots do. */
class PairEnv extends ManualEnv {
  override async advance(ms: number): Promise<void> {
    for (let left = ms; left > 0; left -= 200) {
      await super.advance(Math.min(left, 200));
      await settle(4);
    }
  }
}

/** A server and its clients in one process, on a network that a test cuts. */
class Pair {
  readonly env: ManualEnv;
  readonly #random: () => number;
  readonly #options: CoreOptions;
  /** Whether its machine tells what was applied. */
  readonly #journals: boolean;
  serverLog: MemoryLogDB | SqliteLogDB;
  server!: NodeHost;
  #core!: Core;
  replica!: Replica;
  readonly #wires = new Set<WireEnd>();
  readonly #closing: (() => Promise<void>)[] = [];
  isDown = false;

  constructor(seed: number, options: CoreOptions = {}, journals = false) {
    this.#journals = journals;
    this.env = new PairEnv(seed);
    this.#random = randomOf(seed);
    this.#options = options;
    this.serverLog = new MemoryLogDB({ env: this.env });
  }

  async start(snapshotEntries = 0): Promise<void> {
    const { env } = this;
    this.server = new NodeHost({ logDB: this.serverLog, env });
    this.#core = new Core(this.server, this.#options);
    this.replica = await env.until(
      this.#journals
        ? startOn(this.server, { config: { ...config, snapshotEntries } })
        : this.server.startCluster(() => new KVStateMachine(), {
          ...config,
          snapshotEntries,
        }),
      10,
    );
  }

  /** Ends the server, and every connection with it. */
  async stop(): Promise<void> {
    this.cut();
    await this.env.until(this.#core.stop(), 100);
    await this.env.until(this.server.stop(), 100);
  }

  /** Breaks every connection, at both ends or for one of them only at first. */
  cut(): void {
    for (const end of this.#wires) {
      const [first, second] = this.#random() % 2 === 0
        ? [end, end.other]
        : [end.other, end];
      first.end(1006, "");
      // The other end hears of it later, and goes on until then.
      if (this.#random() % 2 === 0) second.end(1006, "");
      else {
        const late = 1 + this.#random() % 500;
        this.env.setTimer(() => second.end(1006, ""), late);
      }
    }
    this.#wires.clear();
  }

  /** A wire whose frames take their time, in order. */
  #wire(): [WireEnd, WireEnd] {
    let last = 0;
    return wire((deliver) => {
      const at = Math.max(last, this.env.now() + this.#random() % 20);
      last = at + 0.001;
      this.env.setTimer(deliver, at - this.env.now());
    });
  }

  client(options: RemoteLogOptions = {}): RemoteLogDB {
    const db = new RemoteLogDB("ws://server/sync", {
      env: this.env,
      hints: () => () => {},
      connect: (url) => {
        const [client, server] = this.#wire();
        if (this.isDown) this.env.setTimer(() => client.end(1006, ""), 5);
        else {
          this.#wires.add(client);
          this.#core.accept(server, {
            url: url.replace("ws:", "http:"),
            headers: new Headers(),
          });
        }
        return client;
      },
      ...options,
    });
    this.#closing.push(() => db.close());
    return db;
  }

  host(
    logDB: RemoteLogDB,
    snapshots?: MemorySnapshotStore,
    onEvent: (event: HostEvent) => void = () => {},
  ): NodeHost {
    const host = new NodeHost({
      logDB,
      env: this.env,
      onEvent,
      ...(snapshots === undefined ? {} : { snapshots }),
    });
    this.#closing.unshift(() => host.stop());
    return host;
  }

  async over(): Promise<void> {
    for (const close of this.#closing) await this.env.until(close(), 10);
    await this.stop();
    await this.env.advance(1_000);
    assertEquals(this.env.timers, 0, "A timer is left");
    await this.serverLog.close();
  }
}

async function valueOf(replica: Replica, key: string): Promise<string> {
  return text(await replica.staleRead(kv.get(key)) as Uint8Array);
}

/** Waits until the replicas have applied as much as the server has. */
async function caughtUp(
  pair: Pair,
  replicas: readonly Replica[],
): Promise<void> {
  const isThere = (): boolean =>
    replicas.every(({ appliedIndex }) =>
      appliedIndex === pair.replica.appliedIndex
    );
  for (let i = 0; i < 2000 && !isThere(); i++) await pair.env.advance(50);
  assert(isThere(), `${replicas.map((r) => r.appliedIndex)}`);
}

test("H1 what one client proposes the others and the server see", async () => {
  const pair = new Pair(1);
  await pair.start();
  const { env } = pair;
  const [a, b] = [pair.client(), pair.client()];
  const one = await pair.host(a).startCluster(
    () => new KVStateMachine(),
    { ...config, nodeID: 2n },
  );
  const two = await pair.host(b).startCluster(
    () => new KVStateMachine(),
    { ...config, nodeID: 3n },
  );
  await env.until(one.propose(kv.put("boat", "sampan")), 50);
  assertEquals(
    text(await env.until(two.read(kv.get("boat")), 50) as Uint8Array),
    "sampan",
  );
  assertEquals(await valueOf(pair.replica, "boat"), "sampan");
  assertEquals([a.state, b.state], ["live", "live"]);
  await pair.over();
});

for (const seed of [1, 2, 3, 4, 5, 6, 7, 8]) {
  test(`H3 connections cut at random: all replicas equal, everything exactly once, seed ${seed}`, async () => {
    const random = randomOf(seed);
    // With some, whoever was cut off for long has to take a snapshot.
    const snapshotEntries = seed % 2 === 0 ? 0 : 15;
    const limits = snapshotEntries === 0 ? {} : { farEntries: 20 };
    const pair = new Pair(seed, { limits }, true);
    await pair.start(snapshotEntries);
    const { env } = pair;
    const replicas: Replica[] = [];
    const sessions: Session[] = [];
    for (const nodeID of [2n, 3n]) {
      const copy = new MemoryBlockStore();
      const db = pair.client(nodeID === 2n ? { copy } : {});
      const replica = await env.until(
        startOn(pair.host(db), {
          config: { ...config, nodeID, snapshotEntries },
        }),
        10,
      );
      replicas.push(replica);
      sessions.push(await env.until(replica.openSession(), 50));
    }
    const work: Promise<unknown>[] = [];
    const expected = [0, 0];
    let single = 0;
    let answered = 0;
    for (let step = 0; step < 120; step++) {
      const i = random() % 2;
      const replica = replicas[i]!;
      for (let n = random() % 4; n > 0; n--) {
        const command = bytes(`${i}:${expected[i]!++}`);
        work.push(replica.propose(command, { session: sessions[i]! }));
      }
      if (random() % 4 === 0) {
        single++;
        work.push(
          replica.propose(bytes(`single ${single}`)).then(
            () => answered++,
            (error) => {
              assert(
                error instanceof ErrUnknownOutcome ||
                  error instanceof ErrConnectionLost,
                `${error}`,
              );
            },
          ),
        );
      }
      if (random() % 10 === 0) pair.cut();
      if (random() % 20 === 0) {
        pair.isDown = !pair.isDown;
        if (pair.isDown) pair.cut();
      }
      if (random() % 40 === 0) {
        await pair.stop();
        await pair.start(snapshotEntries);
      }
      await env.advance(random() % 200);
    }
    pair.isDown = false;
    await env.until(Promise.all(work), 1_000);
    await caughtUp(pair, replicas);
    const applied = await listOf(pair.replica);
    for (const i of [0, 1]) {
      assertEquals(
        applied.filter((command) => command.startsWith(`${i}:`)),
        Array.from({ length: expected[i]! }, (_, n) => `${i}:${n}`),
        `seed ${seed}`,
      );
    }
    const alone = applied.filter((command) => command.startsWith("single"));
    assertEquals(new Set(alone).size, alone.length, `seed ${seed}`);
    assert(alone.length >= answered && alone.length <= single, `seed ${seed}`);
    for (const replica of replicas) {
      assertEquals(await listOf(replica), applied, `seed ${seed}`);
    }
    await pair.over();
  });
}

test("U38 a page starts with no network from its snapshot and the copy of the log", async () => {
  const pair = new Pair(3);
  await pair.start();
  const { env } = pair;
  const store = new MemoryBlockStore();
  const snapshots = new MemorySnapshotStore();
  const start = async (): Promise<{
    db: RemoteLogDB;
    host: NodeHost;
    replica: Replica;
  }> => {
    const db = pair.client({ copy: store });
    const host = pair.host(db, snapshots);
    const replica = await host.startCluster(() => new KVStateMachine(), {
      ...config,
      nodeID: 2n,
      snapshotEntries: 40,
    });
    return { db, host, replica };
  };
  let page = await start();
  for (let i = 0; i < 100; i++) {
    await env.until(page.replica.propose(kv.put(`${i}`, `${i}`)), 20);
  }
  await env.advance(100);
  const { appliedIndex } = page.replica;
  await env.until(page.host.stop(), 10);
  await env.until(page.db.close(), 10);
  pair.isDown = true;
  // No time passes: it comes up from what is on the device alone.
  page = await start();
  assertEquals(page.replica.appliedIndex, appliedIndex);
  assertEquals(await valueOf(page.replica, "99"), "99");
  const offline = page.replica.propose(kv.put("offline", "yes"));
  await env.advance(10_000);
  assertEquals(page.db.state === "live", false);
  pair.isDown = false;
  await env.until(offline, 1_000);
  assertEquals(await valueOf(pair.replica, "offline"), "yes");
  assertEquals(page.db.state, "live");
  await pair.over();
});

test("U33 a server restored from an older backup is noticed by a page, which keeps what it has", async () => {
  const pair = new Pair(5);
  await pair.start();
  const { env } = pair;
  const db = pair.client();
  const replica = await pair.host(db).startCluster(
    () => new KVStateMachine(),
    { ...config, nodeID: 2n },
  );
  for (let i = 0; i < 10; i++) {
    await env.until(replica.propose(kv.put(`${i}`, "")), 20);
  }
  await pair.stop();
  await pair.serverLog.close();
  pair.serverLog = new MemoryLogDB({ env });
  await pair.start();
  for (let i = 0; i < 20; i++) {
    await env.until(pair.replica.propose(kv.put(`other ${i}`, "")), 20);
  }
  await env.advance(60_000);
  assertEquals((replica.error as Error).name, "ErrDiverged");
  await pair.over();
});

test("U33 a restored backup whose log has grown past what a page has seen is noticed too", async () => {
  const directory = await Deno.makeTempDir();
  const pair = new Pair(6);
  const { env } = pair;
  const open = (file: string): SqliteLogDB =>
    new SqliteLogDB(`${directory}/${file}`, { env });
  await pair.serverLog.close();
  pair.serverLog = open("log.db");
  await pair.start();
  const db = pair.client({ copy: new MemoryBlockStore() });
  const replica = await pair.host(db).startCluster(
    () => new KVStateMachine(),
    { ...config, nodeID: 2n },
  );
  await env.until(replica.propose(kv.put("before", "")), 20);
  // As a file system's snapshot of a server that runs.
  for await (const { name } of Deno.readDir(directory)) {
    const copy = name.replace("log.db", "backup.db");
    await Deno.copyFile(`${directory}/${name}`, `${directory}/${copy}`);
  }
  for (let i = 0; i < 10; i++) {
    await env.until(replica.propose(kv.put(`${i}`, "")), 20);
  }
  await pair.stop();
  await pair.serverLog.close();
  pair.isDown = true;
  pair.serverLog = open("backup.db");
  await pair.start();
  assert(pair.replica.appliedIndex < replica.appliedIndex);
  // Nobody who has seen less than the log now has can tell by its length.
  for (let i = 0; i < 20; i++) {
    await env.until(pair.replica.propose(kv.put(`other ${i}`, "")), 20);
  }
  assert(pair.replica.appliedIndex > replica.appliedIndex);
  assertEquals(replica.error, undefined);
  pair.isDown = false;
  await env.advance(60_000);
  assertEquals((replica.error as Error)?.name, "ErrDiverged");
  await pair.over();
  await Deno.remove(directory, { recursive: true });
});

test("U29 a page far behind takes a snapshot of the server", async () => {
  const pair = new Pair(7, { limits: { farEntries: 50 } });
  await pair.start(20);
  const { env } = pair;
  for (let i = 0; i < 200; i++) {
    await env.until(pair.replica.propose(kv.put(`${i % 30}`, `${i}`)), 20);
  }
  await settle();
  const db = pair.client();
  const events: string[] = [];
  const host = pair.host(db, undefined, (event) => events.push(event.type));
  const replica = await host.startCluster(
    () => new KVStateMachine(),
    { ...config, nodeID: 2n },
  );
  await caughtUp(pair, [replica]);
  assert(events.includes("recovered"), `${events}`);
  assertEquals(await replica.getHash(), await pair.replica.getHash());
  await pair.over();
});

test("U20 over real sockets: a server that stops and comes back, and a page that loses no edit", async () => {
  const logDB = new MemoryLogDB();
  let server = new NodeHost({ logDB });
  await server.startCluster(() => new KVStateMachine(), config);
  let serving = serve(server, { sigterm: false });
  const port = Number(new URL(serving.httpURL).port);
  const db = new RemoteLogDB(serving.url, { hints: () => () => {} });
  const host = new NodeHost({ logDB: db });
  const page = await host.startCluster(() => new KVStateMachine(), {
    ...config,
    nodeID: 2n,
  });
  const session = await page.openSession();
  const all = Array.from(
    { length: 50 },
    (_, i) => page.propose(kv.put(`${i}`, ""), { session }),
  );
  await serving.shutdown();
  await server.stop();
  const later = page.propose(kv.put("later", ""), { session });
  server = new NodeHost({ logDB });
  const replica = await server.startCluster(() => new KVStateMachine(), config);
  serving = serve(server, { port, sigterm: false });
  db.reconnect();
  await Promise.all([...all, later]);
  assertEquals(await page.read(kv.count()), 51);
  assertEquals(await page.getHash(), await replica.getHash());
  await host.stop();
  await db.close();
  await serving.shutdown();
  await server.stop();
  await logDB.close();
});

test("U34 what a session sends while somebody else is signed in is sent again for its owner", async () => {
  const pair = new Pair(8, {
    authenticate: (request) => ({
      id: request.headers.get("authorization") ?? "nobody",
    }),
  });
  await pair.start();
  const { env } = pair;
  let token = "ann";
  const db = pair.client({ token: () => token });
  const replica = await pair.host(db).startCluster(
    () => new KVStateMachine(),
    { ...config, nodeID: 2n },
  );
  const session = await env.until(replica.openSession(), 20);
  await env.until(replica.propose(kv.put("a", "1"), { session }), 20);
  token = "bob";
  pair.cut();
  await env.advance(5_000);
  assertEquals(db.state, "live");
  const proposed = replica.propose(kv.put("b", "2"), { session });
  await env.advance(5_000);
  assertEquals(await peek(proposed), "pending");
  token = "ann";
  pair.cut();
  await env.until(proposed, 100);
  assertEquals(await valueOf(pair.replica, "b"), "2");
  await pair.over();
});

test("H11 a cluster that is stopped on the server and started again is gone on with, by pages that were connected all along", async () => {
  const pair = new Pair(9);
  await pair.start();
  const { env } = pair;
  const db = pair.client();
  const replica = await pair.host(db).startCluster(
    () => new KVStateMachine(),
    { ...config, nodeID: 2n },
  );
  const session = await env.until(replica.openSession(), 20);
  await env.until(replica.propose(kv.put("a", "1"), { session }), 20);
  await env.until(pair.server.stopCluster(1n), 20);
  await env.advance(2_000);
  const proposed = replica.propose(kv.put("b", "2"), { session });
  const read = replica.read(kv.get("b"));
  await env.advance(20_000);
  assertEquals(await peek(proposed), "pending");
  pair.replica = await env.until(
    pair.server.startCluster(() => new KVStateMachine(), config),
    20,
  );
  await env.until(proposed, 100);
  await env.until(read, 100);
  await caughtUp(pair, [replica]);
  assertEquals(await valueOf(pair.replica, "b"), "2");
  assertEquals(db.state, "live");
  await pair.over();
});
