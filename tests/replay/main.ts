/**
 * Replays a recorded editing history on three replicas and shows that they end
 * the same: `deno task replay [trace.json.gz]`. Without a file it replays this
 * project's README being typed.
 *
 * Exit status: 0 if all went well, 1 if anything differs, 2 for a file that
 * cannot be replayed, 130 when interrupted.
 *
 * @module
 */

import { formatProgress, formatReport } from "./display.ts";
import { type Progress, replay } from "./replay.ts";
import {
  loadTrace,
  oneLine,
  recordTyping,
  type Trace,
  TraceError,
} from "./trace.ts";

const USAGE = "Usage: deno task replay [trace.json.gz]";
const README = new URL("../../README.md", import.meta.url);

/** Minimum interval between two redraws of the bar, in milliseconds. */
const REDRAW_MS = 100;

function print(
  to: typeof Deno.stdout | typeof Deno.stderr,
  text: string,
): void {
  const bytes = new TextEncoder().encode(text);
  try {
    for (let at = 0; at < bytes.length;) at += to.writeSync(bytes.subarray(at));
  } catch (error) {
    // The reader has closed the pipe, as `head` does.
    if (!(error instanceof Deno.errors.BrokenPipe)) throw error;
  }
}

/** Draws a line over the one before it on a terminal; elsewhere nothing. */
class Bar {
  readonly #shown = Deno.stderr.isTerminal();
  readonly #start = performance.now();
  #drawn = 0;

  draw(progress: Progress): void {
    const now = performance.now();
    if (!this.#shown || now - this.#drawn < REDRAW_MS) return;
    this.#drawn = now;
    // Some terminals do not report their size.
    const columns = Deno.consoleSize().columns || 80;
    const seconds = (now - this.#start) / 1000;
    print(
      Deno.stderr,
      `\r${formatProgress(progress, seconds, columns)}\x1b[K`,
    );
  }

  clear(): void {
    if (this.#drawn > 0) print(Deno.stderr, "\r\x1b[K");
    this.#drawn = 0;
  }
}

async function readTrace(file: string | undefined): Promise<Trace> {
  if (file !== undefined) return await loadTrace(file);
  let text: string;
  try {
    text = await Deno.readTextFile(README);
  } catch (cause) {
    throw new TraceError("README.md", "cannot be read", { cause });
  }
  return recordTyping(text, { name: "README.md being typed" });
}

async function run(args: string[], signal: AbortSignal): Promise<number> {
  const [file, ...more] = args;
  if (more.length > 0 || file?.startsWith("-")) {
    const asked = more.length === 0 && (file === "--help" || file === "-h");
    print(asked ? Deno.stdout : Deno.stderr, `${USAGE}\n`);
    return asked ? 0 : 2;
  }
  const trace = await readTrace(file);
  const bar = new Bar();
  try {
    const report = await replay(trace, {
      signal,
      onProgress: (progress) => bar.draw(progress),
    });
    bar.clear();
    const color = Deno.stdout.isTerminal() && !Deno.noColor;
    print(Deno.stdout, formatReport(report, color));
    return report.same ? 0 : 1;
  } finally {
    bar.clear();
  }
}

async function main(args: string[]): Promise<number> {
  const interrupted = new AbortController();
  const interrupt = (): void => {
    // A second interrupt exits without waiting for the replicas to stop.
    if (interrupted.signal.aborted) Deno.exit(130);
    interrupted.abort();
  };
  Deno.addSignalListener("SIGINT", interrupt);
  try {
    return await run(args, interrupted.signal);
  } catch (error) {
    if (interrupted.signal.aborted) return 130;
    if (error instanceof TraceError) {
      print(Deno.stderr, `${error.message}\n`);
      return 2;
    }
    print(Deno.stderr, `${oneLine(`Replay failed: ${error}`)}\n`);
    return 1;
  } finally {
    Deno.removeSignalListener("SIGINT", interrupt);
  }
}

if (import.meta.main) Deno.exit(await main(Deno.args));
