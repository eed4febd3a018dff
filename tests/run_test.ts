import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { countLine, outcome, parseSummary, testArgs } from "./run.ts";

Deno.test("parseSummary() reads what deno test closes with", () => {
  for (
    const [line, passed, failed, skipped] of [
      ["ok | 3 passed | 0 failed (9ms)", 3, 0, 0],
      ["ok | 21 passed (24 steps) | 0 failed (2s)", 21, 0, 0],
      ["ok | 5 passed (1 step) | 0 failed | 1 ignored (245ms)", 5, 0, 1],
      [
        "FAILED | 7 passed (2 steps) | 2 failed (1 step) | 3 ignored (4 steps) (1m2s)",
        7,
        2,
        3,
      ],
      ["ok | 1 passed | 0 failed | 6 filtered out (1ms)", 1, 0, 0],
      [
        "ok | 1 passed | 0 failed | 2 ignored | 6 filtered out (1ms)",
        1,
        0,
        2,
      ],
    ] as const
  ) {
    assertEquals(parseSummary(line), { passed, failed, skipped });
  }
});

Deno.test("parseSummary() takes nothing else for it", () => {
  for (
    const line of [
      "",
      "ok | 3 passed",
      "not ok | 3 passed | 0 failed (9ms)",
      "adds up ... ok (3ms)",
      "3 passed, 0 failed",
    ]
  ) {
    assertEquals(parseSummary(line), undefined);
  }
});

Deno.test("outcome() of a run that ended badly has a failure", () => {
  const good = { passed: 3, failed: 0, skipped: 1 };
  const none = { passed: 0, failed: 0, skipped: 0 };
  assertEquals(outcome(good, 0), good);
  assertEquals(outcome(good, 1), { ...good, failed: 1 });
  assertEquals(outcome({ ...good, failed: 2 }, 1), { ...good, failed: 2 });
  assertEquals(outcome(none, 0), { ...none, failed: 1 });
  assertEquals(outcome(undefined, 0), { ...none, failed: 1 });
  assertEquals(outcome(undefined, 1), { ...none, failed: 1 });
});

Deno.test("countLine() names skipped tests only if there are some", () => {
  assertEquals(
    countLine({ passed: 2, failed: 1, skipped: 0 }),
    "2 passed, 1 failed",
  );
  assertEquals(
    countLine({ passed: 2, failed: 0, skipped: 3 }),
    "2 passed, 0 failed, 3 skipped",
  );
});

Deno.test("testArgs() leaves the browsers out for --unit, and passes the rest on", () => {
  assertEquals(testArgs(["--unit", "--filter", "H1"]), [
    "--parallel",
    "--ignore=tests/browser,tests/package,dist,.cache",
    "--filter",
    "H1",
  ]);
  assertEquals(testArgs(["tests/kv"]), ["--parallel", "tests/kv"]);
});

Deno.test("testArgs() names each long test file once, and then everything", () => {
  const [parallel, filter, name, ...paths] = testArgs(["--filter", "H1"]);
  assertEquals([parallel, filter, name], ["--parallel", "--filter", "H1"]);
  assertEquals(paths.pop(), ".");
  assertEquals(new Set(paths).size, paths.length);
  for (
    const path of [
      "tests/browser/board_test.ts",
      "tests/etcd/histories/histories_test.ts",
      "tests/web/start_test.ts",
    ]
  ) assert(paths.includes(path), path);
});

/** Runs the test command with nothing on its path but what is in this folder. */
async function withPath(
  path: string,
): Promise<{ code: number; lines: string[] }> {
  const { code, stdout } = await new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--allow-read",
      "--allow-run",
      "--allow-env",
      "--allow-sys=uid",
      new URL("run.ts", import.meta.url).href,
    ],
    env: { PATH: path },
  }).output();
  return { code, lines: new TextDecoder().decode(stdout).trim().split("\n") };
}

Deno.test("tests/run.ts says in one line what is missing, where it cannot install it", async () => {
  const { code, lines } = await withPath("/nonexistent");
  assertEquals(code, 1);
  assertEquals(lines.length, 2);
  for (
    const name of ["chromium", "firefox-esr", "webkit2gtk-driver", "xvfb"]
  ) assertStringIncludes(lines[0]!, name);
  assertEquals(lines[1], "0 passed, 1 failed");
});
