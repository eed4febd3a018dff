import { assertEquals } from "@std/assert";
import { findLanguage } from "./language.ts";

/** Files and folders whose language is checked. */
const PATHS: readonly string[] = ["mod.ts", "README.md", "src", "tests", "web"];

Deno.test("comments, names and messages are in the words of the glossary", () => {
  assertEquals(
    PATHS.flatMap(findLanguage).map(({ where, text }) => `${where}: ${text}`),
    [],
  );
});
