/**
 * Everything at once: a server, devices that submit while offline, and all that
 * goes wrong with them, over simulated network and time.
 *
 * `SIMULATION_RUNS=1000` runs so many seeds of each test; `SIMULATION_SEED=7`
 * runs that one alone.
 *
 * @module
 */

import { checked } from "../nodehost/support.ts";
import { type Counts, type Profile, World } from "./world.ts";

const RUNS = Number(Deno.env.get("SIMULATION_RUNS") ?? 12);
const SEED = Deno.env.get("SIMULATION_SEED");
const FIRST = Number(SEED ?? Deno.env.get("SIMULATION_FIRST") ?? 1);

const QUIET: Profile = {
  refusals: 0,
  evictions: false,
  compaction: false,
  tokens: false,
  copies: false,
  fullStores: false,
  powerCuts: false,
};

/** Runs a world with each seed. */
function simulate(
  name: string,
  profile: (seed: number) => Profile,
): void {
  Deno.test(
    name,
    checked(async () => {
      const counts: Counts = {};
      const runs = SEED === undefined ? RUNS : 1;
      for (let seed = FIRST; seed < FIRST + runs; seed++) {
        try {
          await run(new World(seed, profile(seed), counts));
        } catch (cause) {
          throw new Error(
            `SIMULATION_SEED=${seed} deno test --allow-all tests/sync/simulation_test.ts --filter "${name}"`,
            { cause },
          );
        }
      }
      if (Deno.env.has("SIMULATION_COUNTS")) {
        // deno-lint-ignore no-console
        console.log(counts);
      }
    }),
  );
}

async function run(world: World): Promise<void> {
  await world.startServer();
  const devices = 3 + world.random() % 2;
  for (let i = 0; i < devices; i++) {
    world.start(world.addDevice("abcd"[i]!));
  }
  for (let i = 0; i < 60; i++) await world.step();
  await world.heal();
  await world.checkLog();
  await world.heal();
  await world.checkAll();
  await world.over();
}

simulate(
  "H3 U19 U20 U21 U30 U31 connections and processes fail: every command once, in order, and in sight all the time",
  () => QUIET,
);
