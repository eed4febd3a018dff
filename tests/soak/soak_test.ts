import { assertEquals } from "@std/assert";
import { newSeed } from "../support/random.ts";
import { soak, type SoakOptions } from "./soak.ts";

async function soaked(options: Omit<SoakOptions, "seed">): Promise<void> {
  const seed = newSeed();
  const { violations } = await soak({ seed, ...options });
  assertEquals(violations, [], `seed ${seed}`);
}

Deno.test("D5 a process killed under load loses no acknowledged command, and applies none twice", async () => {
  await soaked({ kills: 5, devices: 0 });
});

Deno.test("U21 H3 submissions of a killed process in SQLite are applied once, in order", async () => {
  await soaked({ kills: 5, devices: 1, victims: ["device"] });
});

Deno.test("H2 H3 H5 a server and devices killed under load lose nothing that they acknowledged, and do nothing twice", async () => {
  await soaked({ kills: 15, devices: 2 });
});
