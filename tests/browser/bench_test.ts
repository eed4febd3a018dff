import { assertEquals } from "@std/assert";
import { table } from "./bench.ts";

Deno.test("table() has a row for each figure and a column for each engine", () => {
  assertEquals(
    table(
      new Map([
        ["Chromium", [
          { name: "puts", value: 123456.7, unit: "/s" },
          { name: "stall", value: 12.345, unit: "ms" },
        ]],
        ["Firefox", [{ name: "puts", value: "none" }]],
      ]),
    ),
    [
      "| what | Chromium | Firefox |",
      "| --- | ---: | ---: |",
      "| puts | 123,457 /s | none |",
      "| stall | 12.3 ms | – |",
    ].join("\n"),
  );
});
