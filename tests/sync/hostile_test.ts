import { assert } from "@std/assert";
import { newSeed } from "../support/random.ts";
import { beHostile } from "./hostile.ts";

Deno.test("H11 U26 connections that misbehave in any way are closed, and a good client is served throughout", async () => {
  const seed = newSeed();
  const { codes } = await beHostile(80, seed);
  assert(
    (codes[4429] ?? 0) > 0,
    `No connection was refused with 4429, seed ${seed}`,
  );
});
