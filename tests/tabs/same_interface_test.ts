import { assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import { ErrOutboxCopied, NodeHost, Replica } from "../../mod.ts";
import {
  ConcurrentKVStateMachine,
  kv,
  KVStateMachine,
} from "../../src/kv/mod.ts";
import { ErrCompacted } from "../../src/log/errors.ts";
import { preload } from "../../src/statemachine/load.ts";
import { ListMachine } from "./list_machine.ts";
import { TabsWorld, type Visitor } from "./tabs_world.ts";

type KV = Awaited<ReturnType<typeof startKV>>;

// Loaded before, since that takes turns of the event loop.
await preload();

/** Resolves as `work` does, while simulated time passes. */
async function during<T>(world: TabsWorld, work: Promise<T>): Promise<T> {
  let isSettled = false;
  const settle = (): void => void (isSettled = true);
  work.then(settle, settle);
  for (let i = 0; i < 4_000 && !isSettled; i++) await world.pass(10);
  assertEquals(isSettled, true, "Call has not settled after 40 s");
  return await work;
}

/** Bytes of a stream, which is read to its end. */
async function bytesOf(
  source: ReadableStream<Uint8Array>,
): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  const reader = source.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
  }
  return new Uint8Array(parts.flatMap((part) => [...part]));
}

function streamOf(bytes: Uint8Array): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start(controller): void {
      controller.enqueue(bytes);
      controller.close();
    },
  });
}

/** Tabs that lead and follow, with a cluster of three texts. */
async function openTwo(): Promise<
  { world: TabsWorld; leader: Visitor; follower: Visitor }
> {
  const world = new TabsWorld(1);
  const leader = world.open();
  await world.pass(100);
  const follower = world.open();
  await world.pass(100);
  for (const one of [leader, follower, leader]) {
    one.submit();
    await world.pass(100);
  }
  assertEquals([leader.state, follower.state], ["leading", "following"]);
  return { world, leader, follower };
}

const ID = { clusterID: 2n, nodeID: 1n };

// deno-lint-ignore explicit-function-return-type
function startKV({ host }: Visitor) {
  return host.startCluster(() => new KVStateMachine(), ID);
}

/** Each method of a replica, with the part of its result that is the same in every tab. */
const REPLICA_METHODS: Record<
  string,
  (replica: KV, world: TabsWorld) => unknown
> = {
  untilApplied: (replica) => replica.untilApplied(1),
  sessionInfo: (replica) => replica.sessionInfo(1),
  propose: async (replica) =>
    typeof (await replica.propose(kv.put("a", "1"))).value,
  submit: async (replica, world) => {
    const { result } = await during(world, replica.submit(kv.put("b", "2")));
    return typeof (await result).value;
  },
  pending: (replica) => replica.pending(),
  pendingFrom: (replica) => replica.pendingFrom(),
  onPending: (replica) => replica.onPending(() => {})(),
  adoptOutbox: (replica) => replica.adoptOutbox(),
  activateChange: (replica) =>
    replica.activateChange("one").catch((error) => error.message),
  read: (replica) => replica.read(kv.get("a")),
  staleRead: (replica) => replica.staleRead(kv.get("a")),
  watch: (replica) => replica.watch(kv.get("a")).getSnapshot(),
  naRead: (replica) => replica.naRead(kv.encodeQuery(kv.get("a"))),
  openSession: async (replica) =>
    await replica.closeSession(await replica.openSession()),
  closeSession: async (replica) =>
    await replica.closeSession(await replica.openSession()),
  requestSnapshot: async (replica) => {
    const { clusterID, kind } = await replica.requestSnapshot();
    return { clusterID, kind };
  },
  requestCompaction: async (replica) =>
    await replica.requestCompaction({ compactionOverhead: 2 }) > 0,
  exportSnapshot: async (replica) =>
    (await bytesOf(replica.exportSnapshot())).length > 0,
  getHash: async (replica) => typeof (await replica.getHash()).hash,
  explain: async (replica) => {
    const { appliedIndex } = replica;
    const hashes = await replica.explain(appliedIndex - 1, appliedIndex);
    return hashes?.length;
  },
  history: async (replica) => {
    const history = await replica.history();
    const { appliedIndex: index } = replica;
    const reader = await history.read(index - 1);
    const entries = await reader.next();
    reader.close();
    const past = await history.stateAt(index);
    const found = await past.lookup(kv.get("a"));
    await past.close();
    return { found, length: entries.length, sessions: typeof history };
  },
};

/** Public methods of a class. */
function methodsOf(prototype: object): string[] {
  return Object.entries(Object.getOwnPropertyDescriptors(prototype))
    .flatMap(([name, { value }]) =>
      typeof value === "function" && name !== "constructor" ? [name] : []
    );
}

Deno.test("M6: each method of a replica does in a tab that follows what it does in the one that leads", async () => {
  assertEquals(
    methodsOf(Replica.prototype).toSorted(),
    Object.keys(REPLICA_METHODS).toSorted(),
  );
  const { world, leader, follower } = await openTwo();
  const led = await during(world, startKV(leader));
  const followed = await during(world, startKV(follower));
  for (let i = 0; i < 4; i++) {
    await during(world, led.propose(kv.put("a", "1")));
    await during(world, led.requestSnapshot());
  }
  for (const [name, call] of Object.entries(REPLICA_METHODS)) {
    const results: unknown[] = [];
    for (const replica of [led, followed]) {
      const work = (async () => await call(replica, world))();
      results.push(
        await during(world, work.catch((error) => `${name}: ${error}`)),
      );
    }
    assertEquals(results[1], results[0], name);
    assertEquals(`${results[1]}`.startsWith(`${name}: `), false, name);
  }
  assertEquals([leader.state, follower.state], ["leading", "following"]);
});

Deno.test("M6 U36: a tab that follows exports the state to a file, and imports it from one after its data was removed, for all tabs", async () => {
  const { world, leader, follower } = await openTwo();
  const list = follower.look();
  const { snapshot, pending } = await during(
    world,
    follower.host.exportData(1n),
  );
  const file = await during(world, bytesOf(snapshot));
  assertEquals(pending, []);
  assertEquals([leader.state, follower.state], ["leading", "following"]);
  for (const { host } of [leader, follower]) {
    await during(world, host.stopCluster(1n));
  }
  await during(world, follower.host.removeData(1n));
  const other = { ...ID, clusterID: 1n };
  await during(world, follower.host.importSnapshot(1n, streamOf(file)));
  for (const { host } of [follower, leader]) {
    const replica = await during(
      world,
      host.startCluster(() => new ListMachine(), other),
    );
    assertEquals(replica.staleRead(null), list);
  }
  assertEquals(follower.state, "leading");
});

Deno.test("M6 U36: a stopped cluster is exported and its log cannot be imported over in a tab that follows", async () => {
  const { world, follower } = await openTwo();
  await during(world, follower.host.stopCluster(1n));
  const { appliedIndex, snapshot } = await during(
    world,
    follower.host.exportData(1n),
  );
  const file = await during(world, bytesOf(snapshot));
  assertEquals([appliedIndex > 0, file.length > 0], [true, true]);
  await during(
    world,
    assertRejects(
      () => follower.host.importSnapshot(1n, streamOf(file)),
      Error,
      "already has a log",
    ),
  );
});

Deno.test("M2 M4: a tab whose cluster another tab has removed and imported again reports another history, and mixes no entries of the two", async () => {
  const { world, leader, follower } = await openTwo();
  const file = await during(world, bytesOf(leader.replica!.exportSnapshot()));
  leader.submit();
  leader.submit();
  await world.pass(100);
  const before = leader.look();
  assertEquals(follower.look(), before);
  await during(world, follower.host.stopCluster(1n));
  await during(world, follower.host.removeData(1n));
  await during(world, follower.host.importSnapshot(1n, streamOf(file)));
  const replica = await during(
    world,
    follower.host.startCluster(() => new ListMachine(), {
      ...ID,
      clusterID: 1n,
    }),
  );
  for (let i = 0; i < 5; i++) {
    await during(world, replica.propose(new TextEncoder().encode(`new ${i}`)));
    const { state } = leader.replica!.status;
    if (state === "running") {
      assertEquals(leader.replica!.staleRead(null), before);
    }
  }
  await world.pass(2_000);
  assertEquals(leader.replica!.status.state, "failed");
  assertEquals(
    (leader.replica!.status.error as Error).name,
    "ErrOtherHistory",
  );
  const again = await during(world, leader.host.restartCluster(1n));
  assertEquals(again.staleRead(null), replica.staleRead(null));
});

Deno.test("M6 H17: a tab that follows has an entry skipped, and its replica goes on", async () => {
  const { world, leader, follower } = await openTwo();
  const index = follower.replica!.appliedIndex;
  const skipped = await during(
    world,
    follower.host.skipEntry(1n, index, "wrong"),
  );
  assertEquals([skipped.index, skipped.reason], [index, "wrong"]);
  await world.pass(1_000);
  for (const { replica } of [leader, follower]) {
    assertEquals((await replica!.staleRead(null)).length, 2);
    assertEquals(replica!.skips.length, 1);
  }
  leader.submit();
  follower.submit();
  await world.pass(1_000);
  assertEquals(leader.look()!.length, 4);
  assertEquals(follower.look(), leader.look());
});

Deno.test("M6 U35: a tab that follows leaves nothing on the device, also of clusters that no tab has started since", async () => {
  const { world, leader, follower } = await openTwo();
  await during(world, leader.replica!.requestSnapshot());
  for (const { host } of [leader, follower]) {
    await during(world, host.stopCluster(1n));
  }
  leader.tab.kill();
  const first = world.open();
  await world.pass(100);
  const next = world.open();
  await world.pass(100);
  await during(world, next.host.leave());
  assertEquals([first.state, next.state], ["following", "leading"]);
  for (const name of ["log", "outbox", "snapshots"]) {
    const keys = await world.origin.disk(name).blocks.keys("", "\uffff");
    assertEquals(keys, [], name);
  }
});

Deno.test("M6: a tab that follows reads entries that the leader has in its log only, and earlier states from the snapshots of the device", async () => {
  const world = new TabsWorld(1);
  const leader = world.open();
  await world.pass(100);
  const led = await during(world, startKV(leader));
  const put = (i: number, bytes: number): Promise<unknown> =>
    during(world, led.propose(kv.put(`${i}`, "a".repeat(bytes))));
  for (let i = 1; i <= 3; i++) await put(i, 10);
  const base = led.appliedIndex;
  await during(world, led.requestSnapshot());
  // More than the leader keeps in memory.
  for (let i = 4; i <= 60; i++) await put(i, 60_000);
  const follower = world.open();
  await world.pass(100);
  const followed = await during(world, startKV(follower));
  assertEquals(follower.state, "following");
  const history = await followed.history();
  const { first } = followed.logInfo!;
  assertEquals(first <= base + 1, true);
  await during(
    world,
    assertRejects(() => history.read(first - 2), ErrCompacted, `at ${first};`),
  );
  const reader = await during(world, history.read(first - 1));
  const indexes: number[] = [];
  while (indexes.at(-1) !== led.appliedIndex) {
    const entries = await during(world, reader.next());
    indexes.push(...entries.map(({ index }) => index));
  }
  reader.close();
  assertEquals(indexes, indexes.map((_, i) => indexes[0]! + i));
  assertEquals(indexes[0], first);
  const past = await during(world, history.stateAt(base + 1));
  assertEquals([past.base, await past.lookup(kv.count())], [base, 4]);
  await past.close();
  const described = async ({ host }: Visitor): Promise<unknown> =>
    (await host.info()).clusters.find(({ clusterID }) => clusterID === 2n)!
      .snapshots.map(({ index, size }) => ({ index, size }));
  assertEquals(
    await during(world, described(follower)),
    await during(world, described(leader)),
  );
});

/** Each method of a host that a test above or elsewhere calls in a tab that follows. */
const HOST_METHODS = [
  "clusterStatus",
  "clusters",
  "exportData",
  "importSnapshot",
  "info",
  "leave",
  "removeData",
  "replica",
  "restartCluster",
  "skipEntry",
  "startCluster",
  "startConcurrentCluster",
  "startOnDiskCluster",
  "startOver",
  "stop",
  "stopCluster",
];

Deno.test("M6: a host describes, restarts and stops clusters in a tab that follows as in the one that leads", async () => {
  assertEquals(methodsOf(NodeHost.prototype).toSorted(), HOST_METHODS);
  const { world, leader, follower } = await openTwo();
  const described = async ({ host }: Visitor): Promise<unknown> => {
    const { clusters } = await host.info();
    return clusters.map((
      { clusterID, state, appliedIndex, pending, committedIndex },
    ) => ({ clusterID, state, appliedIndex, pending, committedIndex }));
  };
  assertEquals(
    await during(world, described(follower)),
    await during(world, described(leader)),
  );
  assertEquals(follower.host.clusters(), leader.host.clusters());
  assertEquals(follower.host.clusterStatus(1n)!.state, "running");
  await during(world, follower.host.stopCluster(1n));
  assertEquals(follower.host.replica(1n), undefined);
  const [one, other] = [leader, follower].map(({ host }) =>
    host.startConcurrentCluster(() => new ConcurrentKVStateMachine(), ID)
  );
  const replica = await during(world, other!);
  await during(world, replica.propose(kv.put("a", "1")));
  const file = await during(world, bytesOf(replica.exportSnapshot()));
  assertEquals(file.length > 0, true);
  assertEquals(await during(world, (await one!).read(kv.count())), 1);
  await during(world, follower.host.stop());
  assertEquals(follower.state, "gone");
  await during(world, leader.host.stop());
});

Deno.test("M6 H14: a tab that follows shows why nothing is sent, and makes an outbox that is a copy independent", async () => {
  const { world, leader, follower } = await openTwo();
  const { blocks } = world.origin.disk("outbox");
  const copy = await blocks.list("", "\uffff");
  for (let i = 0; i < 3; i++) {
    follower.submit();
    await world.pass(200);
  }
  for (const { tab } of [leader, follower]) tab.kill();
  // A backup is restored.
  await blocks.write(
    { deleteRanges: [["", "\uffff"]], put: copy },
    "strict",
  );
  const tabs = [world.open()];
  await world.pass(200);
  tabs.push(world.open());
  tabs[0]!.submit();
  await world.pass(500);
  tabs.push(world.open());
  await world.pass(200);
  for (const { replica } of tabs) {
    const { state, error } = replica!.status;
    assertEquals(state, "blocked");
    assertInstanceOf(error, ErrOutboxCopied);
  }
  assertEquals(tabs[2]!.state, "following");
  tabs[2]!.replica!.adoptOutbox();
  await world.pass(500);
  assertEquals(
    tabs.map(({ replica }) => replica!.status.state),
    ["running", "running", "running"],
  );
  tabs[1]!.submit();
  await world.pass(500);
  assertEquals((await tabs[2]!.replica!.staleRead(null)).at(-1), "t4.1");
});
