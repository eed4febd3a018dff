import { assertEquals } from "@std/assert";
import { circlesIn, importGraph } from "./graph.ts";

Deno.test("circlesIn() finds files that import each other, and no others", () => {
  const graph = new Map([
    ["a", ["b"]],
    ["b", ["c"]],
    ["c", ["b", "d"]],
    ["d", []],
    ["e", ["a", "f"]],
    ["f", ["e"]],
  ]);
  assertEquals(circlesIn(graph), [["b", "c"], ["e", "f"]]);
});

Deno.test("there is no circle of files, type-only imports included", () => {
  assertEquals(circlesIn(importGraph()), []);
});
