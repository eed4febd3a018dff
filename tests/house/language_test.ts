import { assertEquals } from "@std/assert";
import { findLanguage } from "./language.ts";

/** Folders and files of `src/` whose language is not checked. */
const UNCHECKED: readonly string[] = [];

/** Paths outside `src/` whose language is checked. */
const ALSO: readonly string[] = [
  "mod.ts",
  "web",
  "README.md",
  "src/README.md",
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
  const root = new URL("../../src/", import.meta.url);
  const paths = [...Deno.readDirSync(root)]
    .map(({ name }) => name)
    .filter((name) => !UNCHECKED.includes(name))
    .map((name) => `src/${name}`);
  assertEquals(
    [...ALSO, ...paths].flatMap(findLanguage)
      .map(({ where, text }) => `${where}: ${text}`),
    [],
  );
});
