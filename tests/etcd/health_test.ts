import { assert, assertEquals } from "@std/assert";
import { kv, KVStateMachine, NodeHost } from "../../mod.ts";
import { EtcdLogDB } from "../../src/etcd/mod.ts";
import { serve } from "../../src/sync/server/mod.ts";
import { test } from "./nodes.ts";

/** Answer of a path, until it has a status. */
async function until(
  url: string,
  expected: number,
): Promise<Record<string, unknown>> {
  for (let waited = 0;; waited += 200) {
    const response = await fetch(url);
    const body = await response.json();
    if (response.status === expected) return body;
    assert(waited < 30_000, `${url}: ${JSON.stringify(body)}`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

test(
  "H18 health says that a server on etcd has lost its quorum and serves stale reads, that it is well again once there is one, and was live all the time",
  async (nodes) => {
    const { endpoints } = nodes;
    await using logDB = new EtcdLogDB({ endpoints, appendMs: 2_000 });
    await using host = new NodeHost({ logDB });
    const replica = await host.startCluster(() => new KVStateMachine(), {
      clusterID: 1n,
      nodeID: 1n,
    });
    await using server = serve(host);
    await replica.propose(kv.put("a", "x"));
    const url = (path: string): string => new URL(path, server.httpURL).href;
    const paths = ["health", "health/clusters/1"].map(url);
    for (const path of paths) {
      const { quorum, serves, lag } = await until(path, 200);
      assertEquals([quorum, serves, lag], [true, "reads and writes", 0]);
    }
    await nodes.kill(0);
    await nodes.kill(1);
    for (const path of paths) {
      const { status, quorum, serves } = await until(path, 503);
      assertEquals([status, quorum, serves], ["cut off", false, "stale reads"]);
    }
    assertEquals((await until(url("health/live"), 200))["status"], "ok");
    assertEquals(await replica.staleRead(kv.count()), 1);
    nodes.run(0);
    nodes.run(1);
    for (const path of paths) {
      const { quorum, serves, lag } = await until(path, 200);
      assertEquals([quorum, serves, lag], [true, "reads and writes", 0]);
    }
    await replica.propose(kv.put("b", "x"));
    assertEquals(await replica.read(kv.count()), 2);
  },
  { count: 3, leavesTimers: true },
);
