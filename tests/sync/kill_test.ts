import { assert } from "@std/assert";
import { newSeed } from "../support/random.ts";
import { killServer } from "./kill.ts";

Deno.test("H3 H5 a server killed under load loses nothing it acknowledged, and does nothing twice", async () => {
  const seed = newSeed();
  const { applied } = await killServer(3, seed);
  assert(applied > 0, `Nothing was applied, seed ${seed}`);
});
