/**
 * Program that serves cluster 1 on etcd until it is killed, with the settings in its
 * first argument.
 *
 * @module
 */

import { kv, KVStateMachine, NodeHost } from "../../mod.ts";
import { EtcdLogDB } from "../../src/etcd/mod.ts";
import { serve } from "../../src/sync/server/mod.ts";

/** Settings of the program. */
export interface ServerSettings {
  readonly endpoints: readonly string[];
  readonly nodeID: number;
  readonly port: number;
}

if (import.meta.main) {
  const { endpoints, nodeID, port } = JSON.parse(
    Deno.args[0]!,
  ) as ServerSettings;
  const logDB = new EtcdLogDB({ endpoints });
  const host = new NodeHost({ logDB });
  const replica = await host.startCluster(() => new KVStateMachine(), {
    clusterID: 1n,
    nodeID: BigInt(nodeID),
    hashEntries: 16,
  });
  const server = serve(host, {
    port,
    limits: { heartbeatMs: 1_000 },
    async fetch(request): Promise<Response> {
      if (!request.url.endsWith("/state")) {
        return new Response(null, { status: 404 });
      }
      const count = await replica.read(kv.count());
      const { hash, index } = await replica.getHash();
      return Response.json({ count, hash: `${hash} at ${index}` });
    },
  });
  // deno-lint-ignore no-console
  console.log(server.url);
}
