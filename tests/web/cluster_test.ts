import { assert, assertEquals, assertMatch } from "@std/assert";
import { NodeHost } from "../../mod.ts";
import { RemoteLogDB } from "../../src/sync/client/mod.ts";
import { board } from "../../web/app/board.ts";
import { clusterOf, WELCOME } from "../../web/app/names.ts";
import { ClusterProcess } from "../etcd/cluster_process.ts";
import { withoutEtcd } from "../etcd/nodes.ts";

const reason = withoutEtcd();
const name =
  "H10 the cluster to play with starts three etcd nodes and three servers on one log, and stops them all";

/** True if nothing listens at a URL any more. */
async function isGone(url: string): Promise<boolean> {
  try {
    await (await fetch(url)).body?.cancel();
    return false;
  } catch {
    return true;
  }
}

Deno.test({
  name: reason === undefined ? name : `${name}: skipped, ${reason}`,
  ignore: reason !== undefined,
  fn: async (): Promise<void> => {
    const folder = await Deno.makeTempDir({ prefix: "cluster-" });
    const cluster = new ClusterProcess(`${folder}/data`);
    try {
      await cluster.read("Ctrl-C");
      const urls = [...cluster.said.matchAll(/http:\/\/\S+/g)].map(([url]) =>
        url
      );
      assertEquals(urls.length, 6, cluster.said);
      const servers = urls.slice(0, 3);
      for (const url of servers) {
        const health = await fetch(new URL("health", url));
        assertMatch(await health.text(), /"status":"ok"/);
      }
      // A device of each server sees the same history.
      const points: string[] = [];
      for (const [i, url] of servers.entries()) {
        await using logDB = new RemoteLogDB(
          `${url.replace("http", "ws")}sync`,
        );
        await using host = new NodeHost({ logDB });
        const replica = await host.startConcurrentCluster(board.create, {
          clusterID: clusterOf(WELCOME),
          nodeID: BigInt(100 + i),
        });
        const session = await replica.openSession();
        await replica.closeSession(session);
        const { index, hash } = await replica.getHash();
        points.push(`${index} ${hash}`);
      }
      assertEquals(new Set(points).size, 3, "each has two records more");
      cluster.child.kill("SIGTERM");
      await cluster.read("Stopped.");
      assertEquals((await cluster.child.status).code, 0);
      for (const url of urls) assert(await isGone(url), `${url} still runs`);
    } finally {
      await cluster.cancel().catch(() => {});
      await Deno.remove(folder, { recursive: true });
    }
  },
});
