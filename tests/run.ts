/**
 * Runs every test of `tests/` and every example in the documentation, and
 * closes with one line: `N passed, N failed`, and `, N skipped` if some were.
 * Installs first what the browser tests need, where it may; with `--unit` it
 * leaves those tests out. What else it is given goes to `deno test`.
 *
 * @module
 */

import { install } from "./browser/install.ts";

/** How many tests ended how; steps of a test are not counted. */
export interface Count {
  /** Tests that passed. */
  readonly passed: number;
  /** Tests that failed, modules that did not load among them. */
  readonly failed: number;
  /** Tests that were not run. */
  readonly skipped: number;
}

const SUMMARY =
  /^(?:ok|FAILED) \| (\d+) passed(?: \([^|]*\))? \| (\d+) failed(?: \([^|]*\))?(?: \| (\d+) ignored(?: \([^|]*\))?)?(?: \| .*)?$/;

/** What `deno test` says in this line, without colours, if it is its summary. */
export function parseSummary(line: string): Count | undefined {
  // Times and filters follow in parentheses; they are not ours to check.
  const match = SUMMARY.exec(line.replace(/ \([^()]*\)$/, ""));
  if (match === null) return undefined;
  return {
    passed: Number(match[1]),
    failed: Number(match[2]),
    skipped: Number(match[3] ?? 0),
  };
}

/**
 * The count to report for a run that ended with `code`. A run that ended badly
 * has at least one failure, also when it never came to a summary, and so has
 * one in which no test ran.
 */
export function outcome(summary: Count | undefined, code: number): Count {
  const count = summary ?? { passed: 0, failed: 0, skipped: 0 };
  const bad = code !== 0 || summary === undefined || count.passed === 0;
  return bad ? { ...count, failed: Math.max(1, count.failed) } : count;
}

/** The line a run closes with. */
export function countLine({ passed, failed, skipped }: Count): string {
  const line = `${passed} passed, ${failed} failed`;
  return skipped === 0 ? line : `${line}, ${skipped} skipped`;
}

/** A line of output as it reads without colours. */
function plain(line: string): string {
  // deno-lint-ignore no-control-regex
  return line.replace(/\x1b\[[0-9;]*m/g, "").trimEnd();
}

/** What `deno test` is called with, for what this program was called with. */
export function testArgs(args: readonly string[]): string[] {
  // To say where what leaks was opened takes a third of the time: the short run
  // only says that something does.
  const trace = args.includes("--unit") ? [] : ["--trace-leaks"];
  return [
    ...trace,
    ...args.flatMap((arg) =>
      // What is told here stands in for the `exclude` of deno.json.
      arg === "--unit"
        ? ["--parallel", "--ignore=tests/browser,tests/package,dist,.cache"]
        : [arg]
    ),
  ];
}

function say(line: string): void {
  writeAll(new TextEncoder().encode(`${line}\n`));
}

function writeAll(bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length;) {
    at += Deno.stdout.writeSync(bytes.subarray(at));
  }
}

/** Passes the output on as it comes; resolves to the last summary in it. */
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
    // A test may print such a line too; that of the run itself comes last.
    for (const line of lines) summary = parseSummary(plain(line)) ?? summary;
  }
  return parseSummary(plain(rest)) ?? summary;
}

async function main(args: string[]): Promise<number> {
  if (!args.includes("--unit")) {
    try {
      await install(say);
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
    cwd: new URL("..", import.meta.url),
    env: Deno.stdout.isTerminal() || Deno.env.has("FORCE_COLOR")
      ? {}
      : { NO_COLOR: "1" },
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const [summary, { code }] = await Promise.all([
    relay(child.stdout),
    child.status,
  ]);
  const count = outcome(summary, code);
  say(countLine(count));
  return code !== 0 ? code : count.failed === 0 ? 0 : 1;
}

if (import.meta.main) Deno.exit(await main(Deno.args));
