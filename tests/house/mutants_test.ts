/**
 * Checks of the mutants of the simulated worlds, without running them.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { MUTANTS, SURVIVORS } from "../sim/mutants/mutants.ts";
import { mutated, PARTS } from "../sim/mutants/runner.ts";
import { importGraph } from "./graph.ts";

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

Deno.test("a copy of the parts that mutants change has every module that a process which runs worlds imports", () => {
  const graph = new Map([...importGraph(), ...importGraph("tests/")]);
  const reached = new Set(["tests/sim/main.ts"]);
  for (const file of reached) {
    for (const imported of graph.get(file) ?? []) reached.add(imported);
  }
  const isCopied = (file: string): boolean =>
    PARTS.some((part) => file === part || file.startsWith(`${part}/`));
  assert(reached.size > 100, `${reached.size} modules`);
  assertEquals([...reached].filter((file) => !isCopied(file)), []);
});
