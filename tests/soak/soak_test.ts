import { assertEquals } from "@std/assert";
import { newSeed } from "../support/random.ts";
import { soak, type SoakOptions } from "./soak.ts";

async function soaked(
  { seed = newSeed(), ...options }:
    & Omit<SoakOptions, "seed">
    & { seed?: number },
): Promise<void> {
  const { violations } = await soak({ seed, ...options });
  assertEquals(violations, [], `seed ${seed}`);
}

Deno.test("D5 a process killed under load loses no acknowledged command, and applies none twice", async () => {
  await soaked({ kills: 5, devices: 0 });
});

Deno.test("U21 H3 submissions of a killed process in SQLite are applied once, in order", async () => {
  await soaked({ kills: 5, devices: 1, victims: ["device"] });
});

Deno.test("U30 a device that keeps nothing but its outbox shows what it had submitted once the server has sent it", async () => {
  await soaked({ seed: 4, kills: 5, devices: 1, victims: ["device"] });
});

Deno.test("H2 H3 H5 a server and devices killed under load lose nothing that they acknowledged, and do nothing twice", async () => {
  await soaked({ kills: 15, devices: 2 });
});
