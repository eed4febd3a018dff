/**
 * Demo with a machine that throws at some edits, and an operator who skips them
 * over HTTP.
 *
 * This module needs Deno.
 *
 * @module
 */

import { parseArgs } from "node:util";
import { type Entry, NodeHost } from "../../mod.ts";
import { DataFolder } from "../../src/sqlite/mod.ts";
import { serve } from "../../src/sync/server/mod.ts";
import type { TypedMachine } from "../../src/typed/mod.ts";
import { board } from "../../web/app/board.ts";
import { clusterOf } from "../../web/app/names.ts";
import { Boards } from "../../web/boards.ts";
import { demoFiles, servePage } from "../../web/page.ts";

/** Creates a board that throws at every edit with `poison` in it. */
function createPoisonable(): TypedMachine {
  const machine = board.create();
  const update = machine.update.bind(machine);
  machine.update = (entries: Entry[]): ReturnType<typeof update> => {
    for (const { cmd } of entries) {
      if (new TextDecoder().decode(cmd).includes("poison")) {
        throw new TypeError(
          "Cannot read properties of undefined (reading 'title')",
        );
      }
    }
    return update(entries);
  };
  return machine;
}

/** Board that the page shows. */
const CLUSTER = clusterOf("demo");

const { values } = parseArgs({
  options: { port: { type: "string" }, data: { type: "string" } },
});
const data = await DataFolder.open(values.data!);
const host = new NodeHost({ logDB: data.logDB, snapshots: data.snapshots });
await new Boards(host, createPoisonable).open(CLUSTER);
const page = servePage(await demoFiles());
const server = serve(host, {
  port: Number(values.port),
  // Without a rehearsal, so that the command reaches the log.
  rehearse: false,
  async fetch(request): Promise<Response> {
    const { pathname, searchParams } = new URL(request.url);
    if (pathname !== "/skip") return page(request);
    const { error } = host.clusterStatus(CLUSTER)!;
    const { index } = error as { index: number };
    await host.skipEntry(CLUSTER, index, searchParams.get("reason")!);
    await host.restartCluster(CLUSTER);
    return Response.json({ index });
  },
});
Deno.stdout.writeSync(
  new TextEncoder().encode(`The demo is at ${server.httpURL}\n`),
);
