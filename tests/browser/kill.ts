/**
 * Kills browsers at random moments under load, and looks at what they kept.
 *
 * This module needs Deno.
 *
 * @module
 */

import { assert } from "@std/assert";
import { type Engine, launch, removeFolder } from "./browser.ts";
import { Ledger, OPEN_MS_MAX } from "./kept.ts";
import { random, seedFrom } from "../support/random.ts";
import { servePages } from "./server.ts";

/** The longest a browser is under load before it is killed, in milliseconds. */
const LOAD_MS = 2_000;

/** The longest it is starting the replica before it is killed, in milliseconds. */
const START_MS = 200;

/** How many of the kills come while the replica starts, and not under load. */
const STARTING = 1 / 4;

/** What came of it. */
export interface Kills {
  /** How often the browser was killed. */
  readonly kills: number;
  /** Proposals that were answered, and found again. */
  readonly answered: number;
  /** The index at the end. */
  readonly index: number;
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/**
 * Starts a browser on one profile again and again, has a page propose in a
 * session to a machine and a log in IndexedDB, and kills the browser at a
 * moment drawn from the seed, most under load, some while it starts. Each time everything that was answered must be
 * there, and the state must be that of a replay of the log (D3, D5).
 */
export async function killBrowser(
  engine: Engine,
  kills: number,
  seed: number,
  told: (line: string) => void = () => {},
): Promise<Kills> {
  const next = random(seed);
  const profile = await Deno.makeTempDir({ prefix: "profile-" });
  const ledger = new Ledger();
  await using server = servePages();
  const url = await server.page("tests/browser/kept_page.ts");
  try {
    let index = 0;
    for (let life = 0; life <= kills; life++) {
      const browser = await launch(engine, { profile });
      try {
        const page = await browser.open(url);
        let working: Promise<unknown>;
        let killed = false;
        const unlessKilled = (error: unknown): void => {
          if (!killed) throw error;
        };
        if (life > 0 && life < kills && next() < STARTING) {
          working = page.evaluate("page.open()", OPEN_MS_MAX)
            .catch(unlessKilled);
          working.catch(() => {});
          await sleep(next() * START_MS);
        } else {
          const held = await ledger.check(page);
          assert(held.index >= index, "The log went back");
          index = held.index;
          if (life === kills) break;
          const drawn = seedFrom(next);
          working = page.evaluate(
            `page.work("${life}", 1e9, ${drawn})`,
            OPEN_MS_MAX,
          ).catch(unlessKilled);
          working.catch(() => {});
          // The load has begun once something is answered.
          for (let told: string[] = []; told.length === 0;) {
            await Promise.race([sleep(5), working]);
            ledger.add(told = server.told());
          }
          await sleep(next() * LOAD_MS);
        }
        killed = true;
        await browser.kill();
        // What it failed with, if that was not the kill.
        await working;
        ledger.add(server.told());
        told(`${engine}: kill ${life + 1}, ${ledger.size} answered so far`);
      } finally {
        await browser.kill();
      }
    }
    return { kills, answered: ledger.size, index };
  } catch (error) {
    throw new Error(`${engine}, seed ${seed}`, { cause: error });
  } finally {
    await removeFolder(profile);
  }
}
