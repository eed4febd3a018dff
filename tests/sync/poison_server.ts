/**
 * Server with a cluster whose machine throws at some commands; it stores everything
 * in one folder, for the next one.
 *
 * @module
 */

import { NodeHost } from "../../mod.ts";
import { FileSnapshotStore, SqliteLogDB } from "../../src/sqlite/mod.ts";
import { serve } from "../../src/sync/mod.ts";
import { JournalMachine } from "../machines/client_counters.ts";
import type { ServerSettings } from "./stored_server.ts";
import { PoisonableMachine } from "../machines/poisonable.ts";

const { directory, port, snapshotEntries } = JSON
  .parse(Deno.args[0]!) as ServerSettings;
const host = new NodeHost({
  logDB: new SqliteLogDB(`${directory}/log.db`),
  snapshots: new FileSnapshotStore(`${directory}/snapshots`),
});
const config = { nodeID: 1n, snapshotEntries, hashEntries: 8 };
try {
  await host.startCluster(() => new PoisonableMachine(), {
    ...config,
    clusterID: 1n,
  });
} catch {
  // The server starts without the cluster: `/health` and the clients are told.
}
await host.startCluster(() => new JournalMachine(), {
  ...config,
  clusterID: 2n,
});
const server = serve(host, {
  port,
  async fetch(request): Promise<Response> {
    const { pathname, searchParams } = new URL(request.url);
    if (pathname === "/skip") {
      const index = Number(searchParams.get("index"));
      await host.skipEntry(1n, index, searchParams.get("reason")!);
      await host.restartCluster(1n);
    }
    const clusters = [1n, 2n].map((id) => host.replica(id)?.staleRead(null));
    return Response.json(await Promise.all(clusters));
  },
});
Deno.stdout.writeSync(new TextEncoder().encode(`${server.url}\n`));

// The parent process has exited.
for await (const _ of Deno.stdin.readable);
Deno.exit();
