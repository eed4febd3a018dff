/**
 * The long run: browsers, and processes that keep their state in SQLite, are
 * killed at random moments under load, many times, and so is a server. What was
 * answered, or submitted with no network, must be there afterwards, once. Last, a
 * large state goes from SQLite into a page and back.
 *
 * ```sh
 * deno task soak            # with a seed drawn at random, which is printed
 * deno task soak 123        # with this one
 * deno task soak 123 0.05   # and a twentieth of the kills, and of the state
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
import { newSeed } from "../support/random.ts";
import { killDuringRecovery } from "./recovery.ts";
import { editOffline, firstVisit, killUnsent, PAIRS, Scene } from "./sync.ts";

const KILLS = {
  processes: 200,
  Chromium: 20,
  Firefox: 10,
  WebKitGTK: 10,
  recovering: 10,
  server: 30,
  unsent: 5,
} as const;

/**
 * Number of commands that each client submits offline, and of entries that a
 * first visit finds at least.
 */
const OFFLINE = 10_000;
const FIRST_VISIT = 100_000;

/** Size of the state that is transferred, in MiB. */
const TRANSFER_MIB = 256;

function say(line: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${line}\n`));
}

/** Runs another program with a number and the seed. */
async function run(
  path: string,
  count: number,
  seed: number,
): Promise<void> {
  const program = new URL(path, import.meta.url);
  const { success } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--allow-all", program.href, `${count}`, `${seed}`],
    stdin: "null",
    stdout: "inherit",
    stderr: "inherit",
  }).spawn().status;
  if (!success) throw new Error(`${path} failed`);
}

if (import.meta.main) {
  const seed = Number(Deno.args[0] ?? newSeed());
  const share = Number(Deno.args[1] ?? 1);
  const part = (count: number): number => Math.max(1, Math.ceil(count * share));
  say(`Seed ${seed}`);
  await install(say);
  let failed = false;
  const attempt = async (
    what: string,
    work: () => Promise<void>,
  ): Promise<void> => {
    const began = performance.now();
    try {
      await work();
    } catch (error) {
      failed = true;
      say(Deno.inspect(error));
    }
    say(`${what}: ${((performance.now() - began) / 1000).toFixed(0)} s`);
  };
  await attempt(
    "SQLite",
    () => run("../sqlite/kill.ts", part(KILLS.processes), seed),
  );
  for (const engine of ENGINES) {
    await attempt(engine, async () => {
      const { kills, answered, index } = await killBrowser(
        engine,
        part(KILLS[engine]),
        seed,
        say,
      );
      say(
        `${engine}: killed ${kills} times, ${answered} answers kept, log at ${index}`,
      );
    });
  }
  for (const taker of ["machine", "replica", "import"] as const) {
    await attempt(`Killed while taking a snapshot in, ${taker}`, async () => {
      const kills = part(KILLS.recovering);
      const taken = await killDuringRecovery(taker, [0.5, 0.95], kills, seed);
      say(`${taker}: killed ${kills + 2} times, ${taken} times it had it all`);
    });
  }
  await attempt(
    "Server",
    () => run("../sync/kill.ts", part(KILLS.server), seed),
  );
  {
    await using scene = await Scene.start();
    for (const engines of PAIRS) {
      await attempt(`Offline, ${engines.join(", ")}`, async () => {
        const count = part(OFFLINE);
        const { commands, ms, cuts } = await editOffline(
          scene,
          engines,
          count,
          seed,
        );
        const times = ms.map((one) => one.toFixed(0)).join(", ");
        say(
          `${
            engines.join(", ")
          }, Deno: ${commands} commands there once each, ${cuts} cuts; sent after ${times} ms`,
        );
      });
    }
    for (const engine of ENGINES) {
      await attempt(`Killed before it could send, ${engine}`, async () => {
        for (let i = 0; i < part(KILLS.unsent); i++) {
          await killUnsent(scene, engine, 500, seed + i);
        }
      });
      await attempt(`First visit, ${engine}`, async () => {
        const ms = await firstVisit(scene, engine, part(FIRST_VISIT), 128);
        say(`${engine}: live after ${ms.toFixed(0)} ms`);
      });
    }
  }
  await attempt(
    "Transfer",
    () => run("transfer.ts", part(TRANSFER_MIB), seed),
  );
  await stopBundler();
  say(failed ? "Failed" : "All is there");
  Deno.exit(failed ? 1 : 0);
}
