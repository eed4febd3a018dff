import { assertEquals } from "@std/assert";
import { findLanguage } from "./language.ts";

/** Files and folders whose language is checked. */
const PATHS: readonly string[] = [
  "mod.ts",
  "src",
  "web",
  "README.md",
  "tests/app",
  "tests/bench",
  "tests/browser",
  "tests/cli",
  "tests/divergence",
  "tests/house",
  "tests/indexeddb",
  "tests/kv",
  "tests/log",
  "tests/machines",
  "tests/offline",
  "tests/package",
  "tests/rehearsal",
  "tests/replay",
  "tests/rsm",
  "tests/run.ts",
  "tests/sim",
  "tests/snapshot",
  "tests/sqlite",
  "tests/statemachine",
  "tests/store",
  "tests/support",
  "tests/sync",
  "tests/testing",
  "tests/watch",
  "tests/web",
];

Deno.test("comments, names and messages are in the words of the glossary", () => {
  assertEquals(
    PATHS.flatMap(findLanguage).map(({ where, text }) => `${where}: ${text}`),
    [],
  );
});
