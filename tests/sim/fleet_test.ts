import { assert } from "@std/assert";
import { type FleetCounts, simulateFleet } from "./fleet.ts";

/** Number of fleets, and the first seed: `FLEETS=2000 SEED=1` runs two thousand. */
const FLEETS = Number(Deno.env.get("FLEETS") ?? 12);
const SEED = Number(Deno.env.get("SEED") ?? Date.now() % 1_000_000);

Deno.test("Y6 Y7 Y8 U14 U23 U24 fleets of mixed releases lose nothing, apply nothing twice, never differ, and ask for no more than a reload", async () => {
  const total: Record<string, number> = {};
  for (let seed = SEED; seed < SEED + FLEETS; seed++) {
    let counts: FleetCounts;
    try {
      counts = await simulateFleet(seed);
    } catch (error) {
      throw new Error(
        `FLEETS=1 SEED=${seed} deno test -A tests/sim/fleet_test.ts repeats it`,
        { cause: error },
      );
    }
    for (const [name, count] of Object.entries(counts)) {
      total[name] = (total[name] ?? 0) + count;
    }
  }
  // deno-lint-ignore no-console
  console.log(`${FLEETS} fleets from seed ${SEED}`, total);
  // Few fleets need not have all that can happen.
  if (FLEETS < 100) return;
  for (const [name, count] of Object.entries(total)) {
    assert(count > 0, `no fleet has ${name}`);
  }
});
