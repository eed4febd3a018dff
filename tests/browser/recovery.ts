/**
 * Kills a browser while a page recovers from a snapshot.
 *
 * This module needs Deno.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { launch, removeFolder } from "./browser.ts";
import { random } from "../support/random.ts";
import type { PageState, Recoverer } from "./recovery_page.ts";
import { servePages } from "./server.ts";

const PAGE = "tests/browser/recovery_page.ts";

/** Timeout of a step, in milliseconds. */
const STEP_MS_MAX = 120_000;

/** Fraction of the state after which the last phase begins. */
const NEAR_END = 0.9;

/**
 * Maximum time from there until the kill, in milliseconds: between one and two
 * times as long as the last phase takes.
 */
const END_MS = { machine: 400, replica: 400, import: 60 } as const;

/**
 * Resolves to the page's first report that begins with `word` and has a value
 * of at least `least`; rejects if `work` does.
 */
async function reportOf(
  told: () => string[],
  word: string,
  least: number,
  work: Promise<unknown>,
): Promise<number> {
  const failed = work.then(() => new Promise<never>(() => {}));
  failed.catch(() => {});
  for (let waited = 0; waited < STEP_MS_MAX; waited += 5) {
    for (const line of told()) {
      const [first, number] = line.split(" ");
      if (first === word && Number(number) >= least) return Number(number);
    }
    await Promise.race([failed, sleep(5)]);
  }
  throw new Error(`Page has not reported "${word}"`);
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/**
 * Kills the browser while a page replaces its state with one from a snapshot,
 * and verifies that the old state is intact (D11): at each of `stops`, after
 * that fraction of the new state, and then `kills` times at a moment near the
 * end, where the page may also have the complete new state. The last recovery
 * runs to its end. Resolves to the number of times the page had the new state.
 */
export async function killDuringRecovery(
  recoverer: Recoverer,
  stops: readonly number[],
  kills: number,
  seed: number,
): Promise<number> {
  const next = random(seed);
  const profile = await Deno.makeTempDir({ prefix: "profile-" });
  await using server = servePages();
  const url = await server.page(PAGE);
  const lives = stops.length + kills;
  let old: PageState | undefined;
  let made: PageState | undefined;
  let taken = 0;
  let state = 0;
  try {
    for (let life = 0; life <= lives; life++) {
      const browser = await launch("Chromium", { profile });
      try {
        const page = await browser.open(url);
        const call = (what: string, ...args: unknown[]): Promise<unknown> => {
          const json = args.map((arg) => JSON.stringify(arg)).join();
          return page.evaluate(`page.${what}(${json})`, STEP_MS_MAX);
        };
        let held = await call("found", recoverer) as PageState;
        if (old === undefined) {
          const first = await call("prepare", recoverer, ++state, held);
          held = await call("runRecovery", recoverer, state, 1) as PageState;
          assertEquals(held, first);
        } else if (held.hash === made?.hash) {
          assertEquals(held, made);
          taken++;
        } else assertEquals(held, old, `After ${life} kills`);
        if (held.hash !== old?.hash) {
          made = await call("prepare", recoverer, ++state, held) as PageState;
          assert(made.hash !== held.hash, "Old and new state are equal");
        }
        old = held;
        server.told();
        const until = stops[life] ?? 1;
        const recovering = call("runRecovery", recoverer, state, until);
        // Rejects when the browser is killed.
        recovering.catch(() => {});
        if (life === lives) {
          assertEquals(await recovering, made);
          break;
        }
        if (until < 1) {
          const written = await reportOf(server.told, "stopped", 0, recovering);
          assert(written > 0, "No block was written before the kill");
        } else {
          await reportOf(server.told, "taken", NEAR_END, recovering);
          await sleep(next() * END_MS[recoverer]);
        }
      } finally {
        await browser.kill();
      }
    }
    return taken;
  } catch (error) {
    throw new Error(`${recoverer}, seed ${seed}`, { cause: error });
  } finally {
    await removeFolder(profile);
  }
}
