import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { formatProgress, formatReport } from "./display.ts";
import type { ReplayReport } from "./replay.ts";

const REPORT: ReplayReport = {
  name: "paper.json.gz",
  edits: 259_778,
  refused: 0,
  seconds: 2.5,
  logStart: 150_000,
  same: true,
  replicas: [
    {
      nodeID: 1n,
      start: { how: "start", snapshot: undefined },
      index: 259_782,
      hash: 0xabcn,
      length: 104_852,
      sameText: true,
    },
    {
      nodeID: 2n,
      start: { how: "restart", snapshot: 129_892 },
      index: 259_782,
      hash: 0xabcn,
      length: 104_852,
      sameText: true,
    },
    {
      nodeID: 3n,
      start: { how: "late", snapshot: undefined },
      index: 7,
      hash: 0xfedcba9876543210n,
      length: 0,
      sameText: false,
    },
  ],
};

Deno.test("formatReport() makes a table", () => {
  assertEquals(
    formatReport(REPORT, false),
    `paper.json.gz

replica  came up                            index  hash               length  text
1        from the start                   259,782  0000000000000abc  104,852  equal
2        restarted from snapshot 129,892  259,782  0000000000000abc  104,852  equal
3        joined late from the start             7  fedcba9876543210        0  differs

The log began at 150,000 when replica 3 joined: what was before had been cut
259,778 edits in 2.50 s: 103,911 edits per second, three replicas applying
All replicas are the same and hold the recorded text
`,
  );
});

Deno.test("formatReport() says what went wrong", () => {
  const text = formatReport({ ...REPORT, refused: 1, same: false }, false);
  assertStringIncludes(text, "\n1 edit was refused\n");
  assertStringIncludes(text, "Replicas differ");
});

Deno.test("formatReport() uses colours only when asked to", () => {
  assert(!formatReport(REPORT, false).includes("\x1b"));
  const colored = formatReport(REPORT, true);
  assertStringIncludes(colored, "\x1b[31mdiffers\x1b[0m");
  assertEquals(
    // deno-lint-ignore no-control-regex
    colored.replaceAll(/\x1b\[\d+m/g, ""),
    formatReport(REPORT, false),
  );
});

Deno.test("formatProgress() shows how far it is, how fast, and what is left", () => {
  assertEquals(
    formatProgress({ done: 500, total: 2000 }, 2, 80),
    "█████████░░░░░░░░░░░░░░░░░░░░░░░░░  25 %    500 of 2,000 edits, 250/s, 6 s left",
  );
  assertEquals(
    formatProgress({ done: 1, total: 1000 }, 1, 64),
    "░░░░░░░░░░░░   0 %      1 of 1,000 edits, 1/s, 16 min 39 s left",
  );
});

Deno.test("formatProgress() stays on its line", () => {
  for (let columns = 1; columns < 200; columns++) {
    for (const done of [0, 1, 129_000, 259_778]) {
      for (const seconds of [0, 0.001, 3, 5000]) {
        const line = formatProgress({ done, total: 259_778 }, seconds, columns);
        assert(line.length < columns, `${line.length} of ${columns}: ${line}`);
      }
    }
  }
});
