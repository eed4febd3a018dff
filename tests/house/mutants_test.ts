/**
 * Checks of the mutants of the simulated worlds, without running them.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { MUTANTS, SURVIVORS } from "../sim/mutants/mutants.ts";
import { mutated } from "../sim/mutants/runner.ts";

Deno.test("each mutant replaces a text that its file has exactly once", async () => {
  for (const mutant of MUTANTS) {
    const file = new URL(`../../${mutant.file}`, import.meta.url);
    mutated(await Deno.readTextFile(file), mutant);
    assert(mutant.find !== mutant.replace, mutant.name);
  }
});

Deno.test("mutants have names of their own, and each survivor is a mutant", () => {
  const names = MUTANTS.map(({ name }) => name);
  assertEquals(new Set(names).size, names.length);
  for (const name of SURVIVORS.keys()) assert(names.includes(name), name);
});
