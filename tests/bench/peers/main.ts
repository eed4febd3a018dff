/**
 * Runs Sampan beside its peers: the same works, server and clients in processes
 * of their own on loopback. Installs the peers from npm at the first run. Prints
 * the medians of several runs, and the caveats of each product.
 *
 * ```sh
 * deno task bench:peers                        # every product, every work
 * deno task bench:peers yjs loro sampan W1 W2  # some of them
 * deno task bench:peers --runs 1 --share 0.01  # a trial
 * ```
 *
 * This module needs Deno.
 *
 * @module
 */

import { median } from "../report.ts";
import { bundleKiB } from "./bundle.ts";
import { install, NODE, PEERS } from "./install.ts";
import { type Product, PRODUCTS } from "./products.ts";
import { type Taken, type Work, WORKS } from "./works.ts";

function say(text: string): void {
  // deno-lint-ignore no-console
  console.log(text);
}

function commandOf({ runtime, program, args }: Product): readonly string[] {
  const isOwn = !program.startsWith("npm/");
  const path = isOwn
    ? decodeURIComponent(new URL(program, import.meta.url).pathname)
    : PEERS + program;
  if (runtime === "Node") {
    return [NODE, "--max-old-space-size=8192", path, ...args];
  }
  const options = isOwn
    ? []
    : ["--no-config", "--no-lock", "--node-modules-dir=manual", "--no-check"];
  return [
    Deno.execPath(),
    "run",
    "--quiet",
    "--allow-all",
    ...options,
    path,
    ...args,
  ];
}

/** Does a work once, in a folder that is removed afterwards. */
async function once(
  product: Product,
  work: Work,
  share: number,
): Promise<Taken[]> {
  const folder = await Deno.makeTempDir({ prefix: "peers-" });
  try {
    return await work.run({
      command: commandOf(product),
      folder,
      share,
      bundleKiB: () =>
        bundleKiB(product.page, !product.program.startsWith("npm/")),
    }) ?? [];
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function shown(value: number): string {
  return value.toLocaleString("en", { maximumSignificantDigits: 3 });
}

/** The medians of several runs, with the least and the greatest. */
function summarize(runs: readonly Taken[][]): string {
  return (runs[0] ?? []).map(({ what, unit }, i) => {
    const values = runs.map((run) => run[i]!.value);
    const spread = values.length === 1
      ? ""
      : ` (${shown(Math.min(...values))}–${shown(Math.max(...values))})`;
    return `${what} ${shown(median(values))}${spread} ${unit}`;
  }).join("; ");
}

/** Options on the command line. */
interface Options {
  readonly products: readonly string[];
  readonly works: readonly string[];
  readonly runs: number;
  readonly share: number;
}

function parse(args: readonly string[]): Options {
  const products: string[] = [];
  const works: string[] = [];
  let runs = 5;
  let share = 1;
  for (let i = 0; i < args.length; i++) {
    const arg = args[i]!;
    if (arg === "--runs") runs = Number(args[++i]);
    else if (arg === "--share") share = Number(args[++i]);
    else if (Object.hasOwn(PRODUCTS, arg)) products.push(arg);
    else if (Object.hasOwn(WORKS, arg)) works.push(arg);
    else {
      throw new Error(
        `${arg} is neither a product (${
          Object.keys(PRODUCTS).join(", ")
        }) nor a work (${Object.keys(WORKS).join(", ")})`,
      );
    }
  }
  if (!(share > 0 && share <= 1)) {
    throw new RangeError(`--share is ${share}; it must be in (0, 1]`);
  }
  return {
    products: products.length > 0 ? products : Object.keys(PRODUCTS),
    works: works.length > 0 ? works : Object.keys(WORKS),
    runs,
    share,
  };
}

async function main(): Promise<void> {
  const options = parse(Deno.args);
  const needsPackages = options.works.includes("W6") ||
    options.products.some((key) => PRODUCTS[key]!.program.startsWith("npm/"));
  if (needsPackages) await install();
  say(
    `Deno ${Deno.version.deno}, ${navigator.hardwareConcurrency} cores, ${
      new Date().toISOString().slice(0, 10)
    }; medians of ${options.runs} runs (least–greatest)`,
  );
  for (const name of options.works) {
    const work = WORKS[name]!;
    say(`\n${name}: ${work.title}\n\n| product | measured |\n| --- | --- |`);
    const chosen = options.products.map((key) => PRODUCTS[key]!)
      .filter(({ works }) => works.includes(name));
    const runs = chosen.map((): Taken[][] => []);
    const errors = new Map<number, string>();
    // In turns, so that all meet the same load of the machine.
    for (let round = 0; round < options.runs; round++) {
      for (const [i, product] of chosen.entries()) {
        if (errors.has(i)) continue;
        try {
          runs[i]!.push(await once(product, work, options.share));
        } catch (error) {
          errors.set(i, String((error as Error).message).split("\n")[0]!);
        }
      }
    }
    for (const [i, { title }] of chosen.entries()) {
      say(`| ${title} | ${errors.get(i) ?? summarize(runs[i]!)} |`);
    }
  }
  say("");
  for (const key of options.products) {
    const { title, caveats } = PRODUCTS[key]!;
    say(`- ${title}: ${caveats.join(" ")}`);
  }
}

if (import.meta.main) await main();
