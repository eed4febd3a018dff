/**
 * Runs simulated worlds: `deno task sim --seeds 10000 --jobs 2`.
 *
 * - `--seeds N` is the number of worlds, `--first S` the first seed, by default
 *   one at random; `--jobs J` the number of processes.
 * - `--fleets N` is the number of fleets of a typed application in mixed releases,
 *   by default a tenth of the worlds; `--fleet S` runs one alone.
 * - `--tabs N` is the number of worlds with browsers that have several tabs, by
 *   default a tenth of the worlds.
 * - `--seed S` runs one world alone, with `--steps 3,7,9` only those steps of its
 *   plan, and prints the violations in full.
 * - `--with copies,!tokens,keys=1` changes what the seeds draw.
 * - `--crowd 10000,100,10` runs one world with so many devices, clusters and servers,
 *   of a seed at random or of `--seed S`, and prints what it cost.
 * - `--mutants` runs the deliberate faults of `mutants/` too; `--mutant TEXT` those
 *   with this text in their names.
 * - `--cover` prints the worlds that suffice to meet what was met of the table, and
 *   what was met beside it.
 *
 * @module
 */

// Before everything that defines an error.
import "./errors_without_stacks.ts";
import { processorMs } from "../bench/report.ts";
import { newSeed } from "../support/random.ts";
import { drawCrowd } from "./crowd.ts";
import { History } from "./history.ts";
import { ORACLE } from "./machines.ts";
import { judge } from "./oracles.ts";
import { runWorld } from "./simulate.ts";
import { COVERAGE, FIXED_WORLDS, tableOf } from "./coverage.ts";
import { runMutants } from "./mutants/runner.ts";
import { shrinkSteps } from "./shrink.ts";
import {
  type Job,
  planOf,
  type Report,
  runFleet,
  runPlan,
  work,
  WorldRunner,
} from "./worker.ts";

const ROOT = new URL("../../", import.meta.url);

/** Worlds up to which a run begins with the fixed ones. */
const FIXED_BELOW = 10_000;

/** Failing worlds that are shrunk. */
const SHRUNK_MAX = 5;

function print(text: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(text + "\n"));
}

function option(name: string): string | undefined {
  const at = Deno.args.indexOf(`--${name}`);
  return at < 0 ? undefined : Deno.args[at + 1] ?? "";
}

function numberOption(name: string, otherwise: number): number {
  const text = option(name);
  if (text === undefined) return otherwise;
  const value = Number(text);
  if (text !== "" && Number.isSafeInteger(value) && value >= 0) return value;
  throw new RangeError(`--${name} is ${JSON.stringify(text)}; give a number`);
}

/** Command that repeats a world. */
function repeat({ seed, isFleet, changes, steps }: Job): string {
  if (isFleet) return `deno task sim --fleet ${seed}`;
  return `deno task sim --seed ${seed}${
    changes === undefined ? "" : ` --with '${changes}'`
  }${steps === undefined ? "" : ` --steps ${steps.join(",")}`}`;
}

/** Totals of a run. */
class Totals {
  worlds = 0;
  fleets = 0;
  /** Events of fleets, by their names. */
  readonly fleetCounts = new Map<string, number>();
  readonly counts = new Map<string, number>();
  readonly failed: Report[] = [];
  /** Items met by each world, for `--cover`. */
  readonly met = new Map<Job, readonly string[]>();
  readonly #start = performance.now();
  readonly #planned: number;
  readonly #keepsMet: boolean;
  #printed = performance.now();

  constructor(planned: number, keepsMet: boolean) {
    this.#planned = planned;
    this.#keepsMet = keepsMet;
  }

  add(report: Report): void {
    const { isFleet = false } = report.job;
    if (isFleet) this.fleets++;
    else this.worlds++;
    const counts = isFleet ? this.fleetCounts : this.counts;
    for (const [name, count] of Object.entries(report.counts)) {
      counts.set(name, (counts.get(name) ?? 0) + count);
    }
    if (this.#keepsMet && !isFleet) {
      this.met.set(report.job, Object.keys(report.counts));
    }
    if (report.violations.length > 0) {
      this.failed.push(report);
      for (const { oracle, text } of report.violations) {
        print(`Seed ${report.job.seed}: ${oracle}: ${text}`);
      }
      print(`  ${repeat(report.job)}`);
    }
    if (performance.now() - this.#printed < 10_000) return;
    this.#printed = performance.now();
    print(
      `${this.worlds + this.fleets} of ${this.#planned} worlds and fleets, ${
        this.rate.toFixed(1)
      } a second, ${this.failed.length} with violations, ${this.covered} of ${COVERAGE.length} covered`,
    );
  }

  get rate(): number {
    return (this.worlds + this.fleets) / (performance.now() - this.#start) *
      1000;
  }

  get covered(): number {
    return COVERAGE.filter((item) => this.counts.has(item)).length;
  }
}

/** Runs worlds and fleets in processes. */
async function runWorlds(
  fixed: readonly Job[],
  first: number,
  count: number,
  fleets: number,
  tabs: number,
  jobs: number,
): Promise<Totals> {
  const isCovering = Deno.args.includes("--cover");
  const planned = fixed.length + count + fleets + tabs;
  const totals = new Totals(planned, isCovering);
  const changes = option("with");
  const queue: Job[] = [...fixed];
  for (let i = 0; i < fleets; i++) {
    queue.push({ seed: first + i, isFleet: true });
  }
  for (let i = 0; i < tabs; i++) {
    queue.push({ seed: first + i, changes: "tabs" });
  }
  let next = first;
  const take = (): Job | undefined => {
    const job = queue.shift();
    if (job !== undefined || next >= first + count) return job;
    return { seed: next++, ...changes === undefined ? {} : { changes } };
  };
  await Promise.all(
    Array.from({ length: Math.max(1, jobs) }, async () => {
      const runner = new WorldRunner(ROOT);
      for (let job = take(); job !== undefined; job = take()) {
        totals.add(await runner.run(job));
      }
      await runner.stop();
    }),
  );
  return totals;
}

/** Shrinks a world that failed, and prints the command that repeats it. */
async function shrink({ job, steps, violations }: Report): Promise<void> {
  // A fleet has no plan to shrink.
  if (job.isFleet) return;
  const { seed } = job;
  const runner = new WorldRunner(ROOT);
  const { oracle } = violations[0]!;
  const violationsOf = async (
    steps: readonly number[],
  ): Promise<Report["violations"]> =>
    (await runner.run({ ...job, steps })).violations;
  const fails = async (steps: readonly number[]): Promise<boolean> =>
    (await violationsOf(steps)).some((one) => one.oracle === oracle);
  const all = Array.from({ length: steps }, (_, i) => i);
  if (!await fails(all)) {
    print(`Seed ${seed} does not fail again: something in it is not simulated`);
    print(`  ${repeat(job)}`);
    return await runner.stop();
  }
  const fewest = await shrinkSteps(steps, fails);
  print(`Seed ${seed} fails with ${fewest.length} of ${steps} steps:`);
  for (const { oracle, text } of await violationsOf(fewest)) {
    print(`  ${oracle}: ${text}`);
  }
  print(`  ${repeat({ ...job, steps: fewest })}`);
  await runner.stop();
}

/** Runs one world in this process. */
async function runOne(seed: number): Promise<number> {
  const steps = option("steps")?.split(",").filter((text) => text !== "")
    .map(Number);
  const changes = option("with");
  const plan = planOf({
    seed,
    ...changes === undefined ? {} : { changes },
    ...steps === undefined ? {} : { steps },
  });
  const { violations, history } = await runPlan(plan);
  if (Deno.args.includes("--verbose")) {
    print(Deno.inspect(plan, { depth: 9, iterableLimit: 1e6 }));
    print(tableOf(history.counts, [...history.counts.keys()]));
  }
  for (const { oracle, text } of violations) print(`${oracle}: ${text}`);
  print(
    `1 world with ${plan.steps.length} steps and ${history.operations.length} operations, ${violations.length} violations`,
  );
  return violations.length > 0 ? 1 : 0;
}

/** Runs one fleet in this process. */
async function runOneFleet(): Promise<number> {
  const seed = numberOption("fleet", 0);
  const { violations, counts } = await runFleet({ seed, isFleet: true });
  for (const { text } of violations) print(text);
  print(`1 fleet, ${violations.length} violations: ${Deno.inspect(counts)}`);
  return violations.length > 0 ? 1 : 0;
}

/** Runs one world with so many devices, clusters and servers in this process. */
async function runCrowd(text: string): Promise<number> {
  const [devices, clusters, servers] = text.split(",").map(Number);
  if (!(devices! > 0 && clusters! > 0 && servers! > 0)) {
    throw new RangeError(
      `--crowd is ${text}; give numbers of devices, clusters and servers, such as 10000,100,10`,
    );
  }
  const seed = numberOption("seed", newSeed());
  print(`deno task sim --crowd ${text} --seed ${seed}`);
  const plan = drawCrowd(seed, {
    devices: devices!,
    clusters: clusters!,
    servers: servers!,
  });
  const history = new History();
  const from = processorMs();
  const events = await runWorld(plan, history);
  const ran = processorMs();
  const violations = judge(history, ORACLE);
  const judged = processorMs();
  for (const { oracle, text } of violations) {
    print(`${oracle}: ${text.slice(0, 20000)}`);
  }
  const seconds = (ms: number): string => (ms / 1e3).toFixed(1);
  print(
    `${devices} devices, ${clusters} clusters, ${servers} servers: ${plan.steps.length} steps, ${history.operations.length} operations, ${events} events; ${
      seconds(ran - from)
    } s of processor time to run, ${seconds(judged - ran)} s to judge, ${
      Math.round(Deno.memoryUsage().rss / 2 ** 20)
    } MiB; ${violations.length} violations`,
  );
  return violations.length > 0 ? 1 : 0;
}

/** Smallest set of worlds found that meets everything that all of them met. */
function cover(met: ReadonlyMap<Job, readonly string[]>): Job[] {
  const missing = new Set(
    [...met.values()].flat().filter((item) => COVERAGE.includes(item)),
  );
  const jobs: Job[] = [];
  while (missing.size > 0) {
    let best: Job | undefined;
    let most = 0;
    for (const [job, items] of met) {
      const count = items.filter((item) => missing.has(item)).length;
      if (count > most) [best, most] = [job, count];
    }
    jobs.push(best!);
    for (const item of met.get(best!)!) missing.delete(item);
  }
  return jobs;
}

async function main(): Promise<number> {
  if (Deno.args.includes("--worker")) {
    await work();
    return 0;
  }
  if (option("fleet") !== undefined) return await runOneFleet();
  const crowd = option("crowd");
  if (crowd !== undefined) return await runCrowd(crowd);
  const seed = option("seed");
  if (seed !== undefined) return await runOne(numberOption("seed", 0));
  const withMutants = Deno.args.includes("--mutants") ||
    option("mutant") !== undefined;
  const jobs = numberOption("jobs", 1);
  const count = numberOption("seeds", withMutants ? 0 : 1000);
  const fleets = numberOption("fleets", Math.ceil(count / 10));
  const tabs = numberOption("tabs", Math.ceil(count / 10));
  const first = numberOption("first", newSeed());
  const fixed = count < FIXED_BELOW && option("mutant") === undefined
    ? FIXED_WORLDS
    : [];
  if (count > 0) print(`Seeds ${first} to ${first + count - 1}`);
  const totals = await runWorlds(fixed, first, count, fleets, tabs, jobs);
  for (const report of totals.failed.slice(0, SHRUNK_MAX)) await shrink(report);
  if (Deno.args.includes("--cover")) {
    print("Worlds that suffice:");
    for (const job of cover(totals.met)) print(`  ${JSON.stringify(job)}`);
    const others = [...totals.counts.keys()].filter((item) =>
      !COVERAGE.includes(item)
    );
    print(tableOf(totals.counts, others));
  }
  print(tableOf(totals.counts, COVERAGE));
  if (totals.fleets > 0) {
    const counts = [...totals.fleetCounts];
    print(
      `${totals.fleets} fleets: ${
        counts.map(([name, count]) => `${count} ${name}`).join(", ")
      }`,
    );
  }
  const mutants = withMutants
    ? await runMutants(ROOT, jobs, print, option("mutant"))
    : undefined;
  const killed = mutants === undefined
    ? ""
    : `${mutants.killed} of ${mutants.total} mutants killed, `;
  print(
    `${totals.worlds} worlds, ${totals.failed.length} violations, ${killed}${totals.covered} of ${COVERAGE.length} covered`,
  );
  const isCovered = option("mutant") !== undefined ||
    totals.covered === COVERAGE.length;
  return totals.failed.length > 0 || mutants?.isWeaker || !isCovered ? 1 : 0;
}

if (import.meta.main) {
  let status = 1;
  try {
    status = await main();
  } catch (error) {
    print(error instanceof Error ? `${error.stack}` : `${error}`);
  }
  Deno.exit(status);
}
