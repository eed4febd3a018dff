/**
 * Measures how long a page cannot answer, and how much processor time its longest
 * task takes (in Chromium), while a machine applies 100,000 commands of
 * 50 µs each, in the thread of the page and in a worker.
 *
 * ```sh
 * deno run -A tests/browser/worker_bench.ts           # in Chromium
 * deno run -A tests/browser/worker_bench.ts Firefox
 * ```
 *
 * This module needs Deno.
 *
 * @module
 */

import { stopBundler } from "../../web/bundle.ts";
import { type Figure, table } from "./bench.ts";
import { type Engine, launch } from "./browser.ts";
import { type PageServer, servePages } from "./server.ts";
import type { Run } from "./worker_page.ts";

/** Timeout of a run, in milliseconds. */
const RUN_MS_MAX = 2 * 60_000;

/** Number of commands, and how many are proposed at a time. */
const COMMANDS = 100_000;
const AT_ONCE = 500;

/** Figures of an engine. */
export async function workers(
  server: PageServer,
  engine: Engine,
): Promise<readonly Figure[]> {
  const figures: Figure[] = [];
  const url = await server.page("tests/browser/worker_page.ts", true);
  const resting = await launch(engine);
  try {
    const page = await resting.open(url);
    figures.push({
      name: "page at rest for 10 s: longest time in which it does not answer",
      value: await page.evaluate("page.rest(10000)", RUN_MS_MAX) as number,
      unit: "ms",
    });
  } finally {
    await resting.close();
  }
  for (const isInWorker of [false, true]) {
    const browser = await launch(engine);
    try {
      const page = await browser.open(url);
      const run = `page.run(${isInWorker}, ${COMMANDS}, ${AT_ONCE})`;
      const traced = await page.traceTasks?.(run, RUN_MS_MAX);
      const { longestMs, durationMs } =
        (traced?.value ?? await page.evaluate(run, RUN_MS_MAX)) as Run;
      const work = `100,000 updates of 50 µs ${
        isInWorker ? "in a worker" : "in the page"
      }`;
      const aim = isInWorker ? { aim: 8 } : {};
      if (traced !== undefined) {
        figures.push({
          name: `${work}: longest task of the page, processor time`,
          value: traced.longestCpuMs,
          unit: "ms",
          ...aim,
        });
      }
      figures.push({
        name: `${work}: longest time in which the page does not answer`,
        value: longestMs,
        unit: "ms",
        // Time of other programs is in it, where the tasks are not traced.
        ...(traced === undefined ? aim : {}),
      }, {
        name: `${work}: duration`,
        value: durationMs,
        unit: "ms",
      });
    } finally {
      await browser.close();
    }
  }
  return figures;
}

if (import.meta.main) {
  const engine = (Deno.args[0] ?? "Chromium") as Engine;
  await using server = servePages();
  const measured = table(new Map([[engine, await workers(server, engine)]]));
  await stopBundler();
  Deno.stdout.writeSync(new TextEncoder().encode(`${measured}\n`));
}
