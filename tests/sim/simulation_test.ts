/**
 * Everything at once: a server, devices that submit while offline, and all that
 * goes wrong with them, over simulated network and time.
 *
 * `SIMULATION_RUNS=1000` runs so many seeds of each test; `SIMULATION_SEED=7`
 * runs that one alone.
 *
 * @module
 */

import { assert } from "@std/assert";
import { checked } from "../support/environment.ts";
import { type Counts, type Profile, World } from "./world.ts";

const RUNS = Number(Deno.env.get("SIMULATION_RUNS") ?? 8);
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
  cutSnapshots: false,
  restores: false,
  poisons: false,
};

/** Runs a world with each seed. */
function simulate(
  name: string,
  profile: (seed: number) => Profile,
  what: (world: World) => Promise<void> = run,
): void {
  Deno.test(
    name,
    checked(async () => {
      const counts: Counts = {};
      const runs = SEED === undefined ? RUNS : 1;
      for (let seed = FIRST; seed < FIRST + runs; seed++) {
        try {
          await what(new World(seed, profile(seed), counts));
        } catch (cause) {
          throw new Error(
            `SIMULATION_SEED=${seed} deno test --allow-all tests/sim/simulation_test.ts --filter "${name}"`,
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

async function begin(world: World): Promise<void> {
  await world.server.start();
  const devices = 3 + world.random() % 2;
  for (let i = 0; i < devices; i++) {
    world.addDevice("abcd"[i]!).start();
  }
}

async function run(world: World): Promise<void> {
  await begin(world);
  for (let i = 0; i < 60; i++) await world.step();
  await world.heal();
  await world.checkLog();
  await world.heal();
  await world.checkEnd();
  await world.end();
}

simulate(
  "H3 U19 U20 U21 U30 U31 connections and processes fail: every command once, in order, and in sight all the time",
  () => QUIET,
);

simulate(
  "U15 U16 U17 U18 H17 R15 what is refused, also by the machine, is never applied, says why, and holds up nothing behind it",
  () => ({ ...QUIET, refusals: 6 }),
);

simulate(
  "H4 U30 with sessions evicted while clients are away, each command once, or named unknown",
  (seed) => ({ ...QUIET, evictions: true, compaction: seed % 2 === 0 }),
);

simulate(
  "H7 U25 U29 with the log cut while clients are away, all end equal, and the log stays short",
  () => ({ ...QUIET, compaction: true }),
);

simulate(
  "D11 U29 U38 with snapshots cut off on the way and no network for long, each goes on with what it had, and takes one later",
  () => ({ ...QUIET, compaction: true, cutSnapshots: true }),
);

simulate(
  "U34 while a token has expired all stays queued",
  () => ({ ...QUIET, tokens: true }),
);

simulate(
  "U8 U21 with outboxes that cannot write and power cuts, no command twice",
  (seed) => ({
    ...QUIET,
    fullStores: seed % 3 !== 0,
    powerCuts: seed % 3 === 0,
  }),
);

simulate(
  "H14 with outboxes copied to other devices, no command twice",
  () => ({ ...QUIET, copies: true }),
);

simulate(
  "H3 H4 H7 U17 U34 everything at once",
  () => ({
    ...QUIET,
    refusals: 6,
    evictions: true,
    compaction: true,
    tokens: true,
    fullStores: true,
  }),
);

simulate(
  "case A10: commands at which every machine throws get into the log, and an operator has them skipped [H17, R5]",
  (seed) => ({
    ...QUIET,
    refusals: 5,
    poisons: true,
    compaction: seed % 2 === 0,
  }),
);

simulate(
  "H19 H18 U33 a server put back to older copies of its store, and devices that start over with what is pending, whatever fails",
  (seed) => ({ ...QUIET, restores: true, fullStores: seed % 3 === 0 }),
);

simulate(
  "H17 H18 H19 restores, devices that start over, commands that throw and an operator, all at once",
  (seed) => ({
    ...QUIET,
    refusals: 6,
    restores: true,
    poisons: true,
    compaction: seed % 2 === 0,
    tokens: seed % 3 === 0,
  }),
);

simulate(
  "U33 a server put back to an older copy of its store is noticed by all who have seen more, who start over and lose nothing silently [H19]",
  () => QUIET,
  async (world) => {
    world.server.useDisk();
    await begin(world);
    for (let i = 0; i < 8; i++) await world.step();
    await world.heal();
    const restore = world.server.copyDisk();
    const { appliedIndex } = world.server.replica;
    for (let i = 0; i < 8; i++) await world.step();
    for (const device of world.devices) device.submit();
    await world.heal();
    const more = world.devices.filter((device) =>
      device.replica!.appliedIndex > appliedIndex
    );
    // Some of it is on its way when the server dies.
    for (const device of [...more, ...more]) device.submit();
    await world.restore(restore);
    for (const device of more) {
      assert(device.hasDiverged, `${device.name} has not noticed`);
    }
    for (const device of more) await world.startOver(device);
    await world.end();
  },
);
