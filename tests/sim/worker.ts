/**
 * Process that runs worlds for the runner: it reads a job in each line of its
 * input, and writes a report for each.
 *
 * @module
 */

import { History, type Violation } from "./history.ts";
import { ORACLE } from "./machines.ts";
import { judge } from "./oracles.ts";
import {
  completed,
  drawPlan,
  drawSteps,
  type Plan,
  type Profile,
} from "./plan.ts";
import { runWorld } from "./simulate.ts";

/** One world to run, or one fleet. */
export interface Job {
  readonly seed: number;
  /** True for a fleet of a typed application in mixed releases, which has no plan. */
  readonly isFleet?: boolean;
  /** Changes of the profile that the seed draws, such as `copies,keys=1`. */
  readonly changes?: string;
  /** Steps of the plan to run; all without it. */
  readonly steps?: readonly number[];
}

/** Outcome of one world. */
export interface Report {
  readonly job: Job;
  /** Number of steps in the plan. */
  readonly steps: number;
  readonly violations: readonly Violation[];
  /** Number of times that each item of the coverage table was met. */
  readonly counts: Readonly<Record<string, number>>;
}

/** Longest time for one world, in milliseconds; a world takes a fraction of a second on an idle core. */
const WORLD_MS_MAX = 300_000;

/** Most of the code of a world runs only a few times: optimizing it takes longer than it saves, by a fifth. */
const V8_FLAGS =
  "--v8-flags=--no-opt,--always-sparkplug,--min-semi-space-size=16,--max-semi-space-size=32";

/** Worlds after which a process is replaced, so that it does not grow. */
const WORLDS_MAX = 2_000;

/** Client of a process that runs worlds. */
export class WorldRunner {
  readonly #root: URL;
  readonly #nice: boolean;
  #child: Deno.ChildProcess | undefined;
  #writer: WritableStreamDefaultWriter<Uint8Array> | undefined;
  #lines: AsyncIterator<string> | undefined;
  #worlds = 0;

  /** Creates a runner of the tree at `root`; the process starts with the first world. */
  constructor(root: URL, options: { readonly nice?: boolean } = {}) {
    this.#root = root;
    this.#nice = options.nice ?? false;
  }

  #start(): void {
    const args = [
      Deno.execPath(),
      "run",
      V8_FLAGS,
      "--quiet",
      "--no-check",
      "--lock=tests/deno.lock",
      "--allow-all",
      "tests/sim/main.ts",
      "--worker",
    ];
    if (this.#nice) args.unshift("nice", "-n", "10");
    const child = this.#child = new Deno.Command(args[0]!, {
      args: args.slice(1),
      cwd: this.#root,
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    this.#writer = child.stdin.getWriter();
    this.#lines = linesOf(child.stdout);
    this.#worlds = 0;
  }

  /** Runs a world; a process that dies or hangs is a violation of it. */
  async run(job: Job): Promise<Report> {
    if (this.#child === undefined) this.#start();
    const failed = (text: string): Report => ({
      job,
      steps: 0,
      violations: [{ oracle: "process", text }],
      counts: {},
    });
    let timer: ReturnType<typeof setTimeout> | undefined;
    const timeout = new Promise<undefined>((resolve) => {
      timer = setTimeout(() => resolve(undefined), WORLD_MS_MAX);
    });
    try {
      await this.#writer!.write(
        new TextEncoder().encode(JSON.stringify(job) + "\n"),
      );
      const line = await Promise.race([this.#lines!.next(), timeout]);
      if (line === undefined) {
        await this.stop();
        return failed(`World did not end in ${WORLD_MS_MAX} ms`);
      }
      if (line.done) {
        await this.stop();
        return failed("Process ended in the middle of a world");
      }
      if (++this.#worlds >= WORLDS_MAX) await this.stop();
      return JSON.parse(line.value) as Report;
    } catch (error) {
      await this.stop();
      return failed(`${error}`);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Ends the process. */
  async stop(): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    this.#child = undefined;
    try {
      child.kill("SIGKILL");
    } catch {
      // It has ended.
    }
    await this.#writer?.close().catch(() => {});
    await this.#lines?.return?.();
    await child.status;
  }
}

async function* linesOf(
  stream: ReadableStream<Uint8Array>,
): AsyncGenerator<string, void> {
  let rest = "";
  for await (
    const text of stream.pipeThrough(
      new TextDecoderStream() as TransformStream<
        Uint8Array,
        string
      >,
    )
  ) {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    yield* lines;
  }
}

/**
 * Profile with changes: `copies` switches a fault on, `!copies` off, and `keys=1`
 * sets a number.
 */
function changed(profile: Profile, changes: string): Partial<Profile> {
  const values: Record<string, unknown> = { ...profile };
  for (const change of changes.split(",")) {
    const [, not, name, number] = /^(!?)(\w+)(?:=(\d+))?$/.exec(change) ?? [];
    if (name === undefined || typeof values[name] === "object") {
      throw new RangeError(
        `Change of the profile is ${
          JSON.stringify(change)
        }; write a name, !name or name=number`,
      );
    }
    values[name] = number === undefined ? not === "" : Number(number);
  }
  return values;
}

/** Plan of a job. */
export function planOf({ seed, changes, steps }: Job): Plan {
  let plan = drawPlan(seed);
  if (changes !== undefined) {
    const { profile } = plan;
    const { length } = profile.servers;
    plan = drawSteps(seed, completed(seed, changed(profile, changes), length));
  }
  return steps === undefined
    ? plan
    : { ...plan, steps: steps.flatMap((i) => plan.steps[i] ?? []) };
}

/** Runs a plan, and judges what happened. */
export async function runPlan(
  plan: Plan,
): Promise<{ history: History; violations: readonly Violation[] }> {
  const history = new History();
  await runWorld(plan, history);
  try {
    return { history, violations: judge(history, ORACLE) };
  } catch (error) {
    const { stack } = error as { readonly stack?: string };
    const text = stack ?? `${error}`;
    return { history, violations: [{ oracle: "oracles", text }] };
  }
}

/** Runs a fleet. */
export async function runFleet(job: Job): Promise<Report> {
  const { simulateFleet } = await import("./fleet.ts");
  try {
    const counts = { ...await simulateFleet(job.seed) };
    return { job, steps: 0, violations: [], counts };
  } catch (error) {
    const text = error instanceof Error ? error.stack ?? "" : `${error}`;
    const violations = [{ oracle: "fleet", text }];
    return { job, steps: 0, violations, counts: {} };
  }
}

async function runJob(job: Job): Promise<Report> {
  if (job.isFleet) return await runFleet(job);
  const plan = planOf(job);
  const { history, violations } = await runPlan(plan);
  return {
    job,
    steps: plan.steps.length,
    violations,
    counts: Object.fromEntries(history.counts),
  };
}

/** Answers each job in the input, until it ends. */
export async function work(): Promise<void> {
  for await (const line of linesOf(Deno.stdin.readable)) {
    const report = await runJob(JSON.parse(line) as Job);
    await Deno.stdout.write(
      new TextEncoder().encode(JSON.stringify(report) + "\n"),
    );
  }
}
