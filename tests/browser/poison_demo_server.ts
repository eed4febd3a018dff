/**
 * Demo with a machine that throws at some edits, and an operator who skips them
 * over HTTP.
 *
 * This module needs Deno.
 *
 * @module
 */

import { parseArgs } from "node:util";
import { KVStateMachine, NodeHost, type Result } from "../../mod.ts";
import { DataFolder } from "../../src/sqlite/mod.ts";
import { serve } from "../../src/sync/server/mod.ts";
import { demoFiles, servePage } from "../../web/page.ts";

/** Machine that throws at every edit with `poison` in it. */
class Poisonable extends KVStateMachine {
  override update(cmd: Uint8Array): Result {
    if (new TextDecoder().decode(cmd).includes("poison")) {
      throw new TypeError(
        "Cannot read properties of undefined (reading 'title')",
      );
    }
    return super.update(cmd);
  }
}

const { values } = parseArgs({
  options: { port: { type: "string" }, data: { type: "string" } },
});
const data = await DataFolder.open(values.data!);
const host = new NodeHost({ logDB: data.logDB, snapshots: data.snapshots });
try {
  await host.startCluster(() => new Poisonable(), {
    clusterID: 1n,
    nodeID: 1n,
    hashEntries: 64,
  });
} catch {
  // It is served all the same: the page is told.
}
const page = servePage(await demoFiles());
const server = serve(host, {
  port: Number(values.port),
  // Without a rehearsal, so that the command reaches the log.
  rehearse: false,
  async fetch(request): Promise<Response> {
    const { pathname, searchParams } = new URL(request.url);
    if (pathname !== "/skip") return page(request);
    const { error } = host.clusterStatus(1n)!;
    const { index } = error as { index: number };
    await host.skipEntry(1n, index, searchParams.get("reason")!);
    await host.restartCluster(1n);
    return Response.json({ index });
  },
});
Deno.stdout.writeSync(
  new TextEncoder().encode(`The demo is at ${server.httpURL}\n`),
);
