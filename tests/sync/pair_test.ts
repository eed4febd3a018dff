import { assert, assertEquals, assertInstanceOf } from "@std/assert";
import {
  type ErrDiverged,
  ErrOtherPrincipal,
  ErrProposalRefused,
  ErrUnknownOutcome,
  type HostEvent,
  kv,
  KVStateMachine,
  MemoryBlockStore,
  MemoryLogDB,
  MemorySnapshotStore,
  NodeHost,
  type Replica,
  type Result,
  type Session,
} from "../../mod.ts";
import { BlockOutbox } from "../../src/ports/mod.ts";
import { SqliteLogDB } from "../../src/sqlite/mod.ts";
import { SYNC_COPY_SNAPSHOT_BYTES } from "../../src/limits.ts";
import { packRecords } from "../../src/log/records.ts";
import { unregisterRecord } from "../../src/rsm/record_codec.ts";
import { RemoteLogDB } from "../../src/sync/client/mod.ts";
import { ErrConnectionLost } from "../../src/sync/errors.ts";
import { serve } from "../../src/sync/server/serve.ts";
import { bytes, text } from "../support/bytes.ts";
import { checked, peek, rejection, settle } from "../support/environment.ts";
import { listOf, startOn } from "../support/clusters.ts";
import { random32 } from "../support/random.ts";
import { RegularJournal } from "../machines/journal.ts";
import { caughtUp, Pair } from "./pair.ts";

const config = { clusterID: 1n, nodeID: 1n };

function test(name: string, run: () => Promise<void>): void {
  Deno.test(name, checked(run));
}

/** Starts a device whose outbox is in `store`. */
async function openDevice(
  pair: Pair,
  store: MemoryBlockStore,
  onEvent: (event: HostEvent) => void = () => {},
): Promise<[NodeHost, Replica, BlockOutbox]> {
  const { env } = pair;
  const outbox = new BlockOutbox(store, { env });
  const host = pair.host(pair.client(), { outbox, onEvent });
  const replica = await env.until(
    host.startCluster(() => new KVStateMachine(), { ...config, nodeID: 2n }),
    50,
  );
  return [host, replica, outbox];
}

async function valueOf(replica: Replica, key: string): Promise<string> {
  return text(await replica.staleRead(kv.get(key)) as Uint8Array);
}

test("H1 a command of one client reaches the other clients and the server", async () => {
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
  await pair.closeAndCheck();
});

for (const seed of [1, 2, 3, 4, 5, 6, 7, 8]) {
  test(`H3 connections cut at random: all replicas equal, everything exactly once, seed ${seed}`, async () => {
    const random = random32(seed);
    // With some seeds, a client that was disconnected for long needs a snapshot.
    const snapshotEntries = seed % 2 === 0 ? 0 : 15;
    const limits = snapshotEntries === 0 ? {} : { farEntries: 20 };
    const pair = new Pair(seed, { limits }, {});
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
    await pair.closeAndCheck();
  });
}

test("U38 a page starts offline from its snapshot and its copy of the log", async () => {
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
    const host = pair.host(db, { snapshots });
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
  // No time passes: it starts from the storage of the device alone.
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
  await pair.closeAndCheck();
});

test("U26 H7 a long copy of the log triggers snapshots, and is compacted, even if none are configured", async () => {
  const pair = new Pair(4);
  await pair.start();
  const { env } = pair;
  const copy = new MemoryBlockStore();
  const snapshots = new MemorySnapshotStore();
  const types: string[] = [];
  const db = pair.client({ copy });
  const host = pair.host(db, {
    snapshots,
    onEvent: ({ type }) => types.push(type),
  });
  const replica = await host.startCluster(
    () => new KVStateMachine(),
    { ...config, nodeID: 2n },
  );
  const value = bytes("x".repeat(1 << 19));
  for (let i = 0; i < 100; i++) {
    await env.until(pair.replica.propose(kv.put("key", value)), 10);
    if (i % 4 === 0) await caughtUp(pair, [replica]);
  }
  await caughtUp(pair, [replica]);
  await settle(10);
  assertEquals(types, [
    "snapshot",
    "snapshot",
    "compacted",
    "snapshot",
    "compacted",
  ]);
  let stored = 0;
  for (const { bytes } of copy.list("", "\x7f")) stored += bytes.length;
  assert(stored < 3 * SYNC_COPY_SNAPSHOT_BYTES, `${stored}`);
  assertEquals(db.status.clusters[0]!.error, undefined);
  await pair.closeAndCheck();
});

test("U33 a page detects a server restored from an older backup, and keeps its state", async () => {
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
  assertEquals((replica.error as Error).name, "ErrOtherHistory");
  await pair.closeAndCheck();
});

test("U33 a page detects a restored backup whose log has grown past the page's index", async () => {
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
  // Like a file system snapshot of a running server.
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
  // The length of the log does not show it.
  for (let i = 0; i < 20; i++) {
    await env.until(pair.replica.propose(kv.put(`other ${i}`, "")), 20);
  }
  assert(pair.replica.appliedIndex > replica.appliedIndex);
  assertEquals(replica.error, undefined);
  pair.isDown = false;
  await env.advance(60_000);
  assertEquals((replica.error as Error)?.name, "ErrOtherHistory");
  await pair.closeAndCheck();
  await Deno.remove(directory, { recursive: true });
});

test("U29 a page far behind fetches a snapshot of the server", async () => {
  const pair = new Pair(7, { limits: { farEntries: 50 } });
  await pair.start(20);
  const { env } = pair;
  for (let i = 0; i < 200; i++) {
    await env.until(pair.replica.propose(kv.put(`${i % 30}`, `${i}`)), 20);
  }
  await settle();
  const db = pair.client();
  const events: string[] = [];
  const host = pair.host(db, {
    onEvent: (event) => events.push(event.type),
  });
  const replica = await host.startCluster(
    () => new KVStateMachine(),
    { ...config, nodeID: 2n },
  );
  await caughtUp(pair, [replica]);
  assert(events.includes("recovered"), `${events}`);
  assertEquals(await replica.getHash(), await pair.replica.getHash());
  await pair.closeAndCheck();
});

test("U20 over real sockets, a page loses no edit while its server restarts", async () => {
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

/** Server whose principal is the client's token. */
const BY_TOKEN = {
  authenticate: (request: Request): { id: string } => ({
    id: request.headers.get("authorization") ?? "anonymous",
  }),
};

test("U34 proposals of a session that are sent while another principal is signed in are sent again for its owner", async () => {
  const pair = new Pair(8, BY_TOKEN);
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
  await pair.closeAndCheck();
});

test("H12 U32 a client with a long log gets the command at which it diverged, without an earlier snapshot", async () => {
  const pair = new Pair(10, { limits: { farEntries: 8 } }, {});
  await pair.start(0, { hashEntries: 4 });
  const { env } = pair;
  const events: HostEvent[] = [];
  const host = pair.host(pair.client(), {
    onEvent: (event) => void events.push(event),
  });
  class Skewed extends RegularJournal {
    override apply(cmd: Uint8Array): Result {
      return super.apply(text(cmd) === "new" ? bytes("what?") : cmd);
    }
  }
  await env.until(
    host.startCluster(
      (clusterID, nodeID) => new Skewed({}, clusterID, nodeID),
      { clusterID: 1n, nodeID: 2n, hashEntries: 4 },
    ),
    50,
  );
  for (let i = 0; i < 30; i++) {
    await env.until(pair.replica.propose(bytes(i === 25 ? "new" : `${i}`)), 50);
    await env.advance(100);
  }
  await env.advance(10_000);
  const errors = events.filter((event) => event.type === "diverged")
    .map(({ error }) => error as ErrDiverged);
  assertEquals(errors.map(({ index }) => index), [undefined, 27]);
  assertEquals(text(errors[1]!.command), "new");
  assertEquals(events.filter(({ type }) => type === "hash failed"), []);
  await pair.closeAndCheck();
});

test("U34 U35 H14 submissions wait while another principal is signed in, and the application is notified once", async () => {
  const pair = new Pair(8, BY_TOKEN);
  await pair.start();
  const { env } = pair;
  let token = "ann";
  const db = pair.client({ token: () => token });
  const store = new MemoryBlockStore();
  const events: HostEvent[] = [];
  const told = (): unknown[] =>
    events.splice(0).filter(({ type }) => type === "outbox failed")
      .map((event) => (event as { error: unknown }).error);
  const host = pair.host(db, {
    outbox: new BlockOutbox(store, { env }),
    onEvent: (event) => void events.push(event),
  });
  const make = (): KVStateMachine => new KVStateMachine();
  const started = host.startCluster(make, { clusterID: 1n, nodeID: 2n });
  const replica = await env.until(started, 20);
  await env.until(
    replica.submit(kv.put("a", "1")).then(({ result }) => result),
    50,
  );
  token = "bob";
  pair.cut();
  await env.advance(5_000);
  const submitted = await env.until(replica.submit(kv.put("b", "2")), 20);
  await env.advance(20_000);
  assertEquals(submitted.state, "queued");
  const errors = told();
  assertEquals(errors.length, 1);
  assertInstanceOf(errors[0], ErrProposalRefused);
  // It reports so, and accepts nothing that would wait behind it.
  const { status } = replica;
  assertEquals(status.state, "blocked");
  assertInstanceOf(status.error, ErrOtherPrincipal);
  assertEquals([db.state, db.status.reason?.code], [
    "blocked",
    "other-principal",
  ]);
  assertInstanceOf(
    await rejection(replica.submit(kv.put("c", "3"))),
    ErrOtherPrincipal,
  );
  token = "ann";
  pair.cut();
  await env.until(submitted.result, 100);
  assertEquals(told(), []);
  assertEquals([replica.status, db.state], [{ state: "running" }, "live"]);
  await pair.closeAndCheck();
});

test("case A18: commands of the next principal do not wait behind the session of a principal without submissions [U35, H18]", async () => {
  const pair = new Pair(8, BY_TOKEN);
  await pair.start();
  const { env } = pair;
  let token = "ann";
  const store = new MemoryBlockStore();
  const events: HostEvent[] = [];
  for (const [i, who] of ["ann", "bob", "bob", "ann"].entries()) {
    token = who;
    const db = pair.client({ token: () => token });
    const host = pair.host(db, {
      outbox: new BlockOutbox(store, { env }),
      onEvent: (event) => void events.push(event),
    });
    const replica = await env.until(
      host.startCluster(() => new KVStateMachine(), {
        clusterID: 1n,
        nodeID: 2n,
      }),
      20,
    );
    const { result } = await env.until(replica.submit(kv.put(`${i}`, who)), 20);
    await env.until(result, 50);
    assertEquals(replica.status, { state: "running" });
    assertEquals(db.state, "live");
    await env.until(host.stop(), 20);
    await env.until(db.close(), 20);
  }
  assertEquals(events.filter(({ type }) => type === "outbox failed"), []);
  await pair.closeAndCheck();
});

test("H11 connected pages continue with a cluster that is stopped and restarted on the server", async () => {
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
  await pair.closeAndCheck();
});

test("case A22: the first edit of a device whose principal may not write is refused with its reason, like later ones [H18, U17]", async () => {
  let may = false;
  const pair = new Pair(1, {
    authenticate: () => ({ id: "reader" }),
    authorize: (_who, _cluster, action) => action === "read" || may,
  });
  await pair.start();
  const { env } = pair;
  const store = new MemoryBlockStore();
  const events: HostEvent[] = [];
  const open = (): Promise<[NodeHost, Replica, BlockOutbox]> =>
    openDevice(pair, store, (event) => events.push(event));
  const [host, replica, outbox] = await open();
  const [first, second] = await env.until(
    Promise.all([
      replica.submit(kv.put("a", "1")),
      replica.submit(kv.put("b", "2")),
    ]),
    50,
  );
  for (const submission of [first!, second!]) {
    const error = await env.until(
      submission.result.catch((error) => error),
      50,
    );
    assertInstanceOf(error, ErrProposalRefused);
    assertEquals(submission.state, "refused");
    assertEquals(submission.reason, "You may not write to this cluster");
  }
  const third = await env.until(replica.submit(kv.put("c", "3")), 50);
  await env.until(third.result.catch(() => {}), 50);
  assertEquals(replica.pending().map(({ state }) => state), [
    "refused",
    "refused",
    "refused",
  ]);
  // Nothing is retried.
  const before = pair.replica.appliedIndex;
  await env.advance(120_000);
  assertEquals(pair.replica.appliedIndex, before);
  assertEquals(events.filter(({ type }) => type === "outbox failed"), []);
  await env.until(host.stop(), 10);
  await env.until(outbox.close(), 10);

  const [, again] = await open();
  assertEquals(again.pending().map(({ state, reason }) => [state, reason]), [
    ["refused", "You may not write to this cluster"],
    ["refused", "You may not write to this cluster"],
    ["refused", "You may not write to this cluster"],
  ]);
  may = true;
  const fourth = await env.until(again.submit(kv.put("d", "4")), 50);
  await env.until(fourth.result, 50);
  assertEquals(await valueOf(again, "d"), "4");
  for (const submission of again.pending()) {
    await env.until(submission.dismiss(), 50);
  }
  assertEquals(again.pending(), []);
  await pair.closeAndCheck();
});

test("case A22: submissions of a principal that may no longer write, and whose session was evicted, are refused with the reason [H18, U17]", async () => {
  let may = true;
  const pair = new Pair(2, {
    authenticate: () => ({ id: "writer" }),
    authorize: (_who, _cluster, action) => action === "read" || may,
  });
  await pair.start();
  const { env } = pair;
  const store = new MemoryBlockStore();
  const [host, replica, outbox] = await openDevice(pair, store);
  const first = await env.until(replica.submit(kv.put("a", "1")), 50);
  await env.until(first.result, 50);
  pair.isDown = true;
  pair.cut();
  await env.until(replica.submit(kv.put("b", "2")), 50);
  await env.until(host.stop(), 10);
  await env.until(outbox.close(), 10);

  const logged = await pair.serverLog.open(1n, 77n);
  const [session] = [...Array(pair.replica.appliedIndex + 1).keys()]
    .filter((index) => pair.replica.sessionInfo(index) !== undefined);
  await env.until(
    Promise.resolve(logged.append(packRecords(unregisterRecord(session!)))),
    50,
  );
  await logged.close();
  may = false;
  pair.isDown = false;
  const [, again] = await openDevice(pair, store);
  const [second] = again.pending();
  const error = await env.until(second!.result.catch((error) => error), 50);
  assertInstanceOf(error, ErrProposalRefused);
  assertEquals(second!.reason, "You may not write to this cluster");
  await pair.closeAndCheck();
});
