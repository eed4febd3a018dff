/**
 * Program that serves until it gets SIGTERM, and then prints its state.
 *
 * @module
 */

import { kv, KVStateMachine, NodeHost } from "../../mod.ts";
import { serve } from "../../src/sync/server/mod.ts";

const host = new NodeHost();
const replica = await host.startCluster(() => new KVStateMachine(), {
  clusterID: 1n,
  nodeID: 1n,
});
const server = serve(host, {
  validate: async () => {
    await new Promise((resolve) => setTimeout(resolve, 100));
    return undefined;
  },
});
// deno-lint-ignore no-console
console.log(server.url);
await server.finished;
// deno-lint-ignore no-console
console.log(`${await replica.read(kv.count())} key`);
await host.stop();
