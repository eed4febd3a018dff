/**
 * The long run: browsers, and processes that keep their state in SQLite, are
 * killed at random moments under load, many times. What was answered must be
 * there afterwards, once.
 *
 * ```sh
 * deno task soak            # with a seed drawn at random, which is printed
 * deno task soak 123        # with this one
 * ```
 *
 * This module needs Deno.
 *
 * @module
 */

import { stopBundler } from "../../web/bundle.ts";
import { ENGINES } from "./browser.ts";
import { install } from "./install.ts";
import { killBrowser } from "./kill.ts";

const KILLS = { Chromium: 20, Firefox: 10, WebKitGTK: 10 } as const;

function say(line: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${line}\n`));
}

/** Kills processes with SQLite, in a program of its own. */
async function killProcesses(seed: number): Promise<boolean> {
  const program = new URL("../sqlite/kill.ts", import.meta.url);
  if (!await Deno.stat(program).catch(() => undefined)) return true;
  const { success } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--allow-all", program.href, "200", `${seed}`],
    stdin: "null",
    stdout: "inherit",
    stderr: "inherit",
  }).spawn().status;
  return success;
}

if (import.meta.main) {
  const seed = Number(
    Deno.args[0] ?? crypto.getRandomValues(new Uint32Array(1))[0],
  );
  say(`Seed ${seed}`);
  await install(say);
  let failed = !await killProcesses(seed);
  for (const engine of ENGINES) {
    try {
      const { kills, answered, index } = await killBrowser(
        engine,
        KILLS[engine],
        seed,
        say,
      );
      say(
        `${engine}: killed ${kills} times, ${answered} answers kept, log at ${index}`,
      );
    } catch (error) {
      failed = true;
      say(Deno.inspect(error));
    }
  }
  await stopBundler();
  Deno.exit(failed ? 1 : 0);
}
