import { assertEquals, assertRejects } from "@std/assert";
import { kv, KVStateMachine, NodeHost } from "../../mod.ts";
import { ErrOtherEtcd, EtcdLogDB } from "../../src/etcd/mod.ts";
import { EtcdNodes, test } from "./nodes.ts";

test(
  "H9 etcd lost with all its data: what a running server has applied goes on in a new etcd, and the old identity is refused there",
  async (nodes) => {
    await using logDB = new EtcdLogDB({ endpoints: nodes.endpoints });
    await using host = new NodeHost({ logDB });
    const config = { clusterID: 1n, nodeID: 1n };
    const replica = await host.startCluster(() => new KVStateMachine(), config);
    for (let i = 0; i < 20; i++) await replica.propose(kv.put(`key-${i}`, "x"));
    const known = logDB.identity!;
    await nodes.kill(0);
    const exported = replica.exportSnapshot();

    await using other = await EtcdNodes.start();
    const { endpoints } = other;
    await using refused = new EtcdLogDB({ endpoints, known });
    await assertRejects(() => refused.open(1n, 1n), ErrOtherEtcd);
    await using second = new EtcdLogDB({ endpoints });
    await using next = new NodeHost({ logDB: second });
    await next.importSnapshot(1n, exported);
    const again = await next.startCluster(() => new KVStateMachine(), config);
    assertEquals(await again.read(kv.count()), 20);
    await again.propose(kv.put("after", "x"));
    assertEquals(await again.read(kv.count()), 21);
  },
  { leavesTimers: true },
);
