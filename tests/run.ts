/**
 * Runs every test of `tests/` and every example in the documentation, and
 * closes with one line: `N passed, N failed`, and `, N skipped` if some were.
 * Installs first what the browser tests need, where it may; with `--unit` it
 * leaves those tests out, and with `--no-run` it checks the types only. What else
 * it is given goes to `deno test`.
 *
 * @module
 */

import { install, installEtcd } from "./browser/install.ts";

/** Test results of a run; steps of a test are not counted. */
export interface Count {
  /** Number of tests that passed. */
  readonly passed: number;
  /** Number of tests that failed, including modules that did not load. */
  readonly failed: number;
  /** Number of tests that were skipped. */
  readonly skipped: number;
}

const ROOT = new URL("..", import.meta.url);
const TESTS = new URL("tests/", ROOT);

/** Upper bound of the number of test files that run at the same time, if some have browsers. */
const JOBS_MAX = 4;

const SUMMARY =
  /^(?:ok|FAILED) \| (\d+) passed(?: \([^|]*\))? \| (\d+) failed(?: \([^|]*\))?(?: \| (\d+) ignored(?: \([^|]*\))?)?(?: \| .*)?$/;

/**
 * Parses a line as the summary of `deno test`, without colours; undefined if it
 * is not one.
 */
export function parseSummary(line: string): Count | undefined {
  // Times and filters follow in parentheses.
  const match = SUMMARY.exec(line.replace(/ \([^()]*\)$/, ""));
  if (match === null) return undefined;
  return {
    passed: Number(match[1]),
    failed: Number(match[2]),
    skipped: Number(match[3] ?? 0),
  };
}

/**
 * Count to report for a run that exited with `code`. A failed run has at least
 * one failure, even without a summary, and so has a run without tests.
 */
export function outcome(summary: Count | undefined, code: number): Count {
  const count = summary ?? { passed: 0, failed: 0, skipped: 0 };
  const bad = code !== 0 || summary === undefined || count.passed === 0;
  return bad ? { ...count, failed: Math.max(1, count.failed) } : count;
}

/** Last line of a run. */
export function countLine({ passed, failed, skipped }: Count): string {
  const line = `${passed} passed, ${failed} failed`;
  return skipped === 0 ? line : `${line}, ${skipped} skipped`;
}

/** Line of output without colours. */
function plain(line: string): string {
  // deno-lint-ignore no-control-regex
  return line.replace(/\x1b\[[0-9;]*m/g, "").trimEnd();
}

/**
 * Folders with the tests that take longest: they start browsers, servers and
 * nodes of etcd. They are begun first, so that no long one runs alone at the end.
 */
const LONGEST: readonly string[] = [
  "browser",
  "etcd",
  "web",
  "package",
  "s3",
  "soak",
  "bench",
];

/** Paths of the test files in a folder of `tests`, and in the folders in it. */
function* testFiles(folder: string): Generator<string> {
  const entries = [...Deno.readDirSync(new URL(`${folder}/`, TESTS))];
  entries.sort((a, b) => a.name < b.name ? -1 : 1);
  for (const { name, isDirectory } of entries) {
    if (isDirectory) yield* testFiles(`${folder}/${name}`);
    else if (name.endsWith("_test.ts")) yield `tests/${folder}/${name}`;
  }
}

/** True if an argument is the path of something in the project. */
function isPath(arg: string): boolean {
  try {
    Deno.statSync(new URL(arg, ROOT));
    return true;
  } catch {
    return false;
  }
}

/** Arguments of `deno test` for the arguments of this program. */
export function testArgs(args: readonly string[]): string[] {
  const passed = args.flatMap((arg) =>
    // `--ignore` replaces the `exclude` of deno.json.
    arg === "--unit"
      ? ["--ignore=tests/browser,tests/package,dist,.cache"]
      : [arg]
  );
  // A file that is named twice runs once, where it is named first.
  const all = args.includes("--unit") || args.some(isPath)
    ? []
    : [...LONGEST.flatMap((folder) => [...testFiles(folder)]), "."];
  return ["--parallel", ...passed, ...all];
}

/**
 * Number of test files that run at the same time: one on each core, but not so
 * many that their browsers take all memory.
 */
function jobs(args: readonly string[]): number {
  const cores = navigator.hardwareConcurrency;
  return args.includes("--unit") ? cores : Math.min(cores, JOBS_MAX);
}

function say(line: string): void {
  writeAll(new TextEncoder().encode(`${line}\n`));
}

function writeAll(bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length;) {
    at += Deno.stdout.writeSync(bytes.subarray(at));
  }
}

/** Passes the output on as it arrives; resolves to the last summary in it. */
async function relay(
  output: ReadableStream<Uint8Array>,
): Promise<Count | undefined> {
  const decoder = new TextDecoder();
  let summary: Count | undefined;
  let rest = "";
  for await (const chunk of output) {
    writeAll(chunk);
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop() as string;
    // A test may print such a line, too; the run's own comes last.
    for (const line of lines) summary = parseSummary(plain(line)) ?? summary;
  }
  return parseSummary(plain(rest)) ?? summary;
}

async function main(args: string[]): Promise<number> {
  const runs = !args.includes("--no-run");
  if (runs && !args.includes("--unit")) {
    try {
      await install(say);
      await installEtcd(say);
    } catch (error) {
      say(error instanceof Error ? error.message : String(error));
      say(countLine(outcome(undefined, 1)));
      return 1;
    }
  }
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "test",
      "--allow-all",
      "--doc",
      "--lock=tests/deno.lock",
      // A test that leaves a timer or a file open fails.
      "--sanitize-ops",
      "--sanitize-resources",
      ...testArgs(args),
    ],
    cwd: ROOT,
    env: {
      DENO_JOBS: Deno.env.get("DENO_JOBS") ?? String(jobs(args)),
      ...(Deno.stdout.isTerminal() || Deno.env.has("FORCE_COLOR")
        ? {}
        : { NO_COLOR: "1" }),
    },
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const [summary, { code }] = await Promise.all([
    relay(child.stdout),
    child.status,
  ]);
  if (!runs) return code;
  const count = outcome(summary, code);
  say(countLine(count));
  return code !== 0 ? code : count.failed === 0 ? 0 : 1;
}

if (import.meta.main) Deno.exit(await main(Deno.args));
