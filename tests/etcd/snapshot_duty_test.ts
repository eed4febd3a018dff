import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  ErrSnapshotAborted,
  kv,
  KVStateMachine,
  MemorySnapshotStore,
  NodeHost,
} from "../../mod.ts";
import { EtcdLogDB } from "../../src/etcd/mod.ts";
import { test } from "./nodes.ts";
import { ServerProcess } from "./server_process.ts";

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Servers that have the duty, of those that run. */
async function onDuty(
  servers: readonly ServerProcess[],
): Promise<ServerProcess[]> {
  const found = [];
  for (const server of servers) if (await server.isOnDuty()) found.push(server);
  return found;
}

test(
  "H7 one server at a time stores snapshots, and another one takes over when it is killed or frozen; the one that was frozen moves no pointer back",
  async ({ endpoints }) => {
    await using stack = new AsyncDisposableStack();
    const servers: ServerProcess[] = [];
    for (const nodeID of [1, 2, 3]) {
      servers.push(stack.use(
        await ServerProcess.start({ endpoints, nodeID, snapshotEntries: 20 }),
      ));
    }
    await using logDB = new EtcdLogDB({
      endpoints,
      snapshots: new MemorySnapshotStore(),
    });
    await using host = new NodeHost({
      logDB,
      snapshots: new MemorySnapshotStore(),
    });
    const replica = await host.startCluster(() => new KVStateMachine(), {
      clusterID: 1n,
      nodeID: 9n,
    });
    let newest = 0;
    /** Proposes until a newer snapshot has a pointer. */
    const advanced = async (): Promise<void> => {
      const before = newest;
      for (let waited = 0; newest === before; waited += 50) {
        assert(waited < 45_000, `no snapshot after ${newest}`);
        await replica.propose(kv.put("a", "x"));
        const [pointer] = await logDB.snapshotPointers(1n);
        assert((pointer?.index ?? 0) >= newest, "a pointer went back");
        newest = pointer?.index ?? 0;
        await pause(50);
      }
    };
    await advanced();
    const [first, ...others] = await onDuty(servers);
    assertEquals(others, []);
    await first!.kill();
    const left = servers.filter((server) => server !== first);
    await advanced();
    const [second, ...none] = await onDuty(left);
    assertEquals(none, []);
    second!.signal("SIGSTOP");
    const [third] = left.filter((server) => server !== second);
    await advanced();
    assert(await third!.isOnDuty());
    second!.signal("SIGCONT");
    for (let i = 0; i < 3; i++) await advanced();
    assertEquals(await onDuty(left), [third]);
  },
);

test("looking who has the duty of storing snapshots does not take it", async ({ endpoints }) => {
  const snapshots = new MemorySnapshotStore();
  await using one = new EtcdLogDB({ endpoints, snapshots });
  await using two = new EtcdLogDB({ endpoints, snapshots });
  const looks = async (): Promise<boolean[]> => [
    await one.snapshots!.isOnDuty!(true),
    await two.snapshots!.isOnDuty!(true),
  ];
  assertEquals(await looks(), [false, false]);
  assert(await two.snapshots!.isOnDuty!());
  assertEquals(await looks(), [false, true]);
});

test("H7 a snapshot whose server has lost the duty while it was stored gets no pointer", async (nodes) => {
  const { endpoints } = nodes;
  const snapshots = new MemorySnapshotStore();
  await using one = new EtcdLogDB({ endpoints, snapshots });
  const store = one.snapshots!;
  assert(await store.isOnDuty!());
  await using two = new EtcdLogDB({ endpoints, snapshots });
  assertEquals(await two.snapshots!.isOnDuty!(), false);
  const sink = await store.create({
    clusterID: 1n,
    nodeID: 1n,
    type: 1,
    kind: "full",
    index: 1,
    compression: "none",
  });
  const writer = sink.writable.getWriter();
  await writer.write(new Uint8Array(100));
  await writer.close();
  // As etcd does when the lease has ended.
  await nodes.ctl("del", "sampan/duty");
  assert(await two.snapshots!.isOnDuty!());
  await assertRejects(
    async () => await sink.commit({ files: 0 }),
    ErrSnapshotAborted,
  );
  assertEquals(await two.snapshotPointers(1n), []);
});
