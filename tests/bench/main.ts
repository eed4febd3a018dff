/**
 * Runs the benchmarks, each case in a process of its own, one after the other,
 * and closes with one table. Nothing else should run at the same time.
 *
 * ```sh
 * deno task bench                      # every case
 * deno task bench apply sqlite/full    # the cases whose names begin so
 * deno task bench --list               # their names
 * deno task bench --share 0.01 apply   # a hundredth of the work, as a trial
 * ```
 *
 * @module
 */

import { FILES } from "./cases.ts";
import { Bench, type Figure, line, merge, table } from "./report.ts";

/** Marks a line of a case's process that is a figure. */
const FIGURE = "figure ";

function say(text: string): void {
  // deno-lint-ignore no-console
  console.log(text);
}

/** Arguments of this program. */
interface Arguments {
  readonly names: readonly string[];
  readonly share: number;
  readonly list: boolean;
  readonly only: string | undefined;
}

function parse(args: readonly string[]): Arguments {
  const names: string[] = [];
  let share = 1;
  let list = false;
  let only: string | undefined;
  for (let i = 0; i < args.length; i++) {
    const arg = args[i]!;
    if (arg === "--share") share = Number(args[++i]);
    else if (arg === "--list") list = true;
    else if (arg === "--case") only = args[++i];
    else names.push(arg);
  }
  if (!(share > 0 && share <= 1)) {
    throw new RangeError(`--share is ${share}; it must be in (0, 1]`);
  }
  return { names, share, list, only };
}

/** Runs one case in this process and prints its figures for the parent. */
async function runHere(name: string, share: number): Promise<void> {
  const { cases } = await FILES[name.split("/")[0]!]!();
  const bench = new Bench(
    share,
    (figure) => say(FIGURE + JSON.stringify(figure)),
  );
  await cases[name]!.run(bench);
}

/** Runs one case in a process of its own, and resolves to its figures. */
async function runApart(name: string, share: number): Promise<Figure[]> {
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--allow-all",
      import.meta.url,
      "--case",
      name,
      "--share",
      String(share),
    ],
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const figures: Figure[] = [];
  let rest = "";
  for await (
    const text of child.stdout.pipeThrough(new TextDecoderStream())
  ) {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    for (const printed of lines) {
      if (!printed.startsWith(FIGURE)) say(printed);
      else figures.push(JSON.parse(printed.slice(FIGURE.length)) as Figure);
    }
  }
  const { code } = await child.status;
  if (code !== 0) throw new Error(`Case ${name} exited with ${code}`);
  return figures;
}

/** The cases whose names begin with one of `starts`, or all cases, with the number of processes of each. */
async function choose(
  starts: readonly string[],
): Promise<[name: string, processes: number][]> {
  const found: [string, number][] = [];
  for (const load of Object.values(FILES)) {
    const { cases } = await load();
    for (const [name, { processes = 1 }] of Object.entries(cases)) {
      if (
        starts.length === 0 || starts.some((start) => name.startsWith(start))
      ) {
        found.push([name, processes]);
      }
    }
  }
  return found;
}

async function main(): Promise<void> {
  const { names, share, list, only } = parse(Deno.args);
  if (only !== undefined) return await runHere(only, share);
  const chosen = await choose(names);
  if (chosen.length === 0) {
    throw new Error(`No case begins with ${names.join(" or ")}; see --list`);
  }
  if (list) return say(chosen.map(([name]) => name).join("\n"));
  const machine =
    `Deno ${Deno.version.deno}, V8 ${Deno.version.v8}, ${Deno.build.target}, ${navigator.hardwareConcurrency} cores, ${
      new Date().toISOString().slice(0, 10)
    }`;
  say(`${machine}\n`);
  const figures: Figure[] = [];
  const failed: string[] = [];
  for (const [name, processes] of chosen) {
    const taken: Figure[] = [];
    try {
      for (let i = 0; i < (share < 1 ? 1 : processes); i++) {
        taken.push(...await runApart(name, share));
      }
    } catch (error) {
      say(String(error));
      failed.push(name);
    }
    for (const figure of merge(taken)) {
      figures.push(figure);
      say(line(figure));
    }
  }
  say(`\n${machine}\n\n${table(figures)}`);
  if (failed.length > 0) {
    say(`\n${failed.length} cases failed: ${failed.join(", ")}`);
    Deno.exit(1);
  }
}

if (import.meta.main) await main();
