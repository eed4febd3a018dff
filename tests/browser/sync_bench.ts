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
import { ServerProcess } from "../sync/kill.ts";
import { type Figure, table } from "./bench.ts";
import { type Engine, launch, removeFolder } from "./browser.ts";
import { type PageServer, servePages } from "./server.ts";

/** Rows on the server, and their values in bytes. */
const ROWS = 100_000;
const VALUE_BYTES = 16;

/** What all figures may take, in milliseconds. */
const BENCH_MS_MAX = 5 * 60_000;

/** The figures of an engine. */
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
      const page = await browser.open(
        await server.page("tests/browser/sync_bench_page.ts", true),
      );
      const url = `ws://127.0.0.1:${remote.port}/sync`;
      return await page.evaluate(
        `page.bench(${JSON.stringify(url)})`,
        BENCH_MS_MAX,
      ) as Figure[];
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
