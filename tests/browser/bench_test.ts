import { assertEquals } from "@std/assert";
import { table } from "./bench.ts";

Deno.test("table() has a row for each figure, a column for each engine, and says where an aim is missed", () => {
  assertEquals(
    table(
      new Map([
        ["Chromium", [
          { name: "puts", value: 123456.7, unit: "/s" },
          { name: "stall", value: 12.345, unit: "ms", aim: 50 },
          { name: "ratio", value: 1.25, unit: "×", aim: 1.2 },
        ]],
        ["Firefox", [{ name: "puts", value: "none" }]],
      ]),
    ),
    [
      "| what | Chromium | Firefox | aim |",
      "| --- | ---: | ---: | --- |",
      "| puts | 123,457 /s | none |  |",
      "| stall | 12.3 ms | – | ≤ 50 ms: met |",
      "| ratio | 1.25 × | – | ≤ 1.2 ×: **short** in Chromium |",
    ].join("\n"),
  );
});
