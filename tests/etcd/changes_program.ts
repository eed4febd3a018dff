/**
 * Program that serves a typed machine as cluster 1 on etcd, with the changes of
 * behaviour that its first argument lists, until it is killed.
 *
 * @module
 */

import { NodeHost } from "../../mod.ts";
import { EtcdLogDB } from "../../src/etcd/mod.ts";
import { serve } from "../../src/sync/server/mod.ts";
import { defineMachine, fingerprintOf } from "../../src/typed/mod.ts";
import type { ServerSettings } from "./server_program.ts";

if (import.meta.main) {
  const { endpoints, nodeID, port, changes = [] } = JSON.parse(
    Deno.args[0]!,
  ) as ServerSettings;
  const notes = defineMachine({
    name: "notes",
    version: 1,
    state: () => ({}),
    changes,
    commands: {},
    queries: {},
  });
  const logDB = new EtcdLogDB({
    endpoints,
    server: { name: `server-${nodeID}`, code: () => fingerprintOf(notes) },
  });
  const waits: string[] = [];
  const host = new NodeHost({
    logDB,
    onEvent(event): void {
      if (event.type === "activation waits") waits.push(...event.servers);
    },
  });
  const replica = await host.startConcurrentCluster(notes.create, {
    clusterID: 1n,
    nodeID: BigInt(nodeID),
  });
  const server = serve(host, {
    port,
    fetch(): Response {
      return Response.json({ waits, applied: replica.appliedIndex });
    },
  });
  // deno-lint-ignore no-console
  console.log(server.url);
}
