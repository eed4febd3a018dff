/**
 * Kills browsers at random moments under load, and verifies their durable
 * state.
 *
 * This module needs Deno.
 *
 * @module
 */

import { assert } from "@std/assert";
import { type Engine, launch, removeFolder } from "./browser.ts";
import { Ledger, OPEN_MS_MAX } from "./persistence.ts";
import { random, seedFrom } from "../support/random.ts";
import { servePages } from "./server.ts";

/** Maximum time under load before the browser is killed, in milliseconds. */
const LOAD_MS = 2_000;

/**
 * Maximum time into the replica's start before the browser is killed, in
 * milliseconds.
 */
const START_MS = 200;

/**
 * Share of the kills that come while the replica starts rather than under load.
 */
const STARTING = 1 / 4;

/** Result of `killBrowser()`. */
export interface Kills {
  /** Number of kills. */
  readonly kills: number;
  /** Number of proposals that were acknowledged and found after the kills. */
  readonly answered: number;
  /** Applied index at the end. */
  readonly index: number;
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/**
 * Restarts a browser on one profile repeatedly, has a page propose in a session
 * to a machine and a log in IndexedDB, and kills the browser at a moment drawn
 * from the seed: mostly under load, sometimes during the start. After each
 * kill, every acknowledged proposal must be there, and the state must equal
 * that of a replay of the log (D3, D5).
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
  const url = await server.page("tests/browser/persistence_page.ts");
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
          assert(held.index >= index, "Applied index went back");
          index = held.index;
          if (life === kills) break;
          const drawn = seedFrom(next);
          working = page.evaluate(
            `page.work("${life}", 1e9, ${drawn})`,
            OPEN_MS_MAX,
          ).catch(unlessKilled);
          working.catch(() => {});
          // The load has begun once a proposal is acknowledged.
          for (let told: string[] = []; told.length === 0;) {
            await Promise.race([sleep(5), working]);
            ledger.add(told = server.told());
          }
          await sleep(next() * LOAD_MS);
        }
        killed = true;
        await browser.kill();
        // Rethrows an error that the kill did not cause.
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
