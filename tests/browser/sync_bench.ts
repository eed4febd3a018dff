/**
 * Measures the offline replication in a page, with the server in a process of
 * its own.
 *
 * ```sh
 * deno run -A tests/browser/sync_bench.ts           # in Chromium
 * deno run -A tests/browser/sync_bench.ts Firefox
 * ```
 *
 * This module needs Deno.
 *
 * @module
 */

import { stopBundler } from "../../web/bundle.ts";
import { ServerProcess } from "../sync/server_process.ts";
import { type Figure, table } from "./bench.ts";
import { type Engine, launch, removeFolder } from "./browser.ts";
import { type PageServer, servePages } from "./server.ts";

/** Number of rows on the server, and the size of their values in bytes. */
const ROWS = 100_000;
const VALUE_BYTES = 16;

/** Timeout for all figures, in milliseconds. */
const BENCH_MS_MAX = 5 * 60_000;

/** Figures of an engine. */
export async function sync(
  server: PageServer,
  engine: Engine,
): Promise<readonly Figure[]> {
  const directory = await Deno.makeTempDir({ prefix: "sync-" });
  try {
    await using remote = await ServerProcess.start(`${directory}/server`, {
      origins: [server.origin],
      snapshotEntries: 10_000,
    });
    await remote.fill(ROWS, VALUE_BYTES);
    const profile = `${directory}/profile`;
    await Deno.mkdir(profile);
    const browser = await launch(engine, { profile });
    try {
      const address = await server.page(
        "tests/browser/sync_bench_page.ts",
        true,
      );
      const url = `ws://127.0.0.1:${remote.port}/sync`;
      const call = async (name: string, ...args: string[]): Promise<unknown> =>
        await (await browser.open(address)).evaluate(
          `page.${name}(...${JSON.stringify(args)})`,
          BENCH_MS_MAX,
        );
      const figures: Figure[] = [];
      // The page is reloaded between the visits.
      for (const visit of ["first visit", "page loaded again"]) {
        figures.push({
          name: `${visit}, 100,000 entries on disk: received until live`,
          value: await call("bytesOfVisit", url, "visited") as number,
          unit: "B",
        });
      }
      figures.push(...await call("bench", url) as Figure[]);
      return figures;
    } finally {
      await browser.close();
    }
  } finally {
    await removeFolder(directory);
  }
}

if (import.meta.main) {
  const engine = (Deno.args[0] ?? "Chromium") as Engine;
  await using server = servePages();
  const measured = table(new Map([[engine, await sync(server, engine)]]));
  await stopBundler();
  Deno.stdout.writeSync(new TextEncoder().encode(`${measured}\n`));
}
