/**
 * Measures what is kept in IndexedDB, and the offline replication, in three real
 * browsers, and prints a table: a row for each figure, a column for each engine.
 *
 * ```sh
 * deno task bench:browser
 * deno task bench:browser Chromium Firefox
 * ```
 *
 * This module needs Deno.
 *
 * @module
 */

import { stopBundler } from "../../web/bundle.ts";
import { memory } from "./bench_memory.ts";
import { boards } from "./board_bench.ts";
import { type Engine, ENGINES, launch, removeFolder } from "./browser.ts";
import { install } from "./install.ts";
import { servePages } from "./server.ts";
import { sync } from "./sync_bench.ts";

/**
 * Pages with benchmarks, and the exported function that resolves to the
 * figures.
 */
const PAGES = [
  ["tests/indexeddb/browser_bench.ts", "bench"],
  ["tests/indexeddb/browser_bench.ts", "large"],
] as const;

/** Timeout for all figures of one engine, in milliseconds. */
const BENCH_MS_MAX = 15 * 60_000;

/** Figure measured by a page. */
export interface Figure {
  /** Name of the measurement. */
  readonly name: string;
  /** Measured value, or a few words. */
  readonly value: number | string;
  /** Unit, or the value it is compared with. */
  readonly unit?: string;
  /** Largest value that is good enough, if there is an aim. */
  readonly aim?: number;
}

/** Figures of every page, each in a new browser whose profile is on disk. */
async function measure(engine: Engine): Promise<readonly Figure[]> {
  await using server = servePages();
  const figures: Figure[] = [];
  for (const [path, name] of PAGES) {
    // Without a profile, WebKitGTK keeps databases in memory.
    const profile = await Deno.makeTempDir({ prefix: "profile-" });
    const browser = await launch(engine, { profile });
    try {
      const page = await browser.open(await server.page(path, true));
      const found = await page.evaluate(`page.${name}()`, BENCH_MS_MAX);
      figures.push(...found as Figure[]);
    } finally {
      await browser.close();
      await removeFolder(profile);
    }
  }
  figures.push(...await sync(server, engine));
  if (engine === "Chromium") {
    figures.push(...await memory(server), ...await boards());
  }
  return figures;
}

/** Formats a figure for the table. */
export function show({ value, unit }: Pick<Figure, "value" | "unit">): string {
  const text = typeof value === "string"
    ? value
    : value >= 1000
    ? Math.round(value).toLocaleString("en")
    : `${Number(value.toPrecision(3))}`;
  return unit === undefined ? text : `${text} ${unit}`;
}

/** Formats an aim, and the engines in which it is missed. */
function verdict(
  measured: ReadonlyMap<Engine, readonly Figure[]>,
  name: string,
): string {
  let aim: string | undefined;
  const short: Engine[] = [];
  for (const [engine, figures] of measured) {
    const figure = figures.find((one) => one.name === name);
    if (figure?.aim === undefined) continue;
    aim = show({ ...figure, value: figure.aim });
    if (!(Number(figure.value) <= figure.aim)) short.push(engine);
  }
  if (aim === undefined) return "";
  return short.length === 0
    ? `≤ ${aim}: met`
    : `≤ ${aim}: **short** in ${short.join(", ")}`;
}

/** Formats a Markdown table: a row for each name, a column for each engine and one for the aims. */
export function table(
  measured: ReadonlyMap<Engine, readonly Figure[]>,
): string {
  const engines = [...measured.keys()];
  const names = new Set(
    [...measured.values()].flat().map(({ name }) => name),
  );
  const cell = (engine: Engine, name: string): string => {
    const figure = measured.get(engine)!.find((one) => one.name === name);
    return figure === undefined ? "–" : show(figure);
  };
  const lines = [
    ["what", ...engines, "aim"],
    ["---", ...engines.map(() => "---:"), "---"],
    ...[...names].map((name) => [
      name,
      ...engines.map((engine) => cell(engine, name)),
      verdict(measured, name),
    ]),
  ];
  return lines.map((cells) => `| ${cells.join(" | ")} |`).join("\n");
}

function say(line: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${line}\n`));
}

if (import.meta.main) {
  await install(say);
  const wanted = ENGINES.filter((engine) =>
    Deno.args.length === 0 || Deno.args.includes(engine)
  );
  const measured = new Map<Engine, readonly Figure[]>();
  // One engine at a time: they would slow each other down.
  for (const engine of wanted) measured.set(engine, await measure(engine));
  await stopBundler();
  say(table(measured));
}
