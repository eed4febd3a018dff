import { stopBundler } from "../../web/bundle.ts";
import { ENGINES } from "./browser.ts";
import { cases as core } from "./core_suite.ts";
import type { Case } from "./runner.ts";
import { register, Stage } from "./suites.ts";

const CORE = "tests/browser/core_suite.ts";
const STORED = "tests/indexeddb/browser_suite.ts";
const TYPED = "tests/typed/browser_suite.ts";

const stage = new Stage();

Deno.test.afterAll(async () => {
  await stage[Symbol.asyncDispose]();
  await stopBundler();
});

async function load(path: string): Promise<readonly Case[]> {
  const url = new URL(`../../${path}`, import.meta.url);
  if (!await Deno.stat(url).catch(() => undefined)) return [];
  return (await import(url.href) as { cases: readonly Case[] }).cases;
}

const stored = await load(STORED);
const typed = await load(TYPED);

for (const engine of ENGINES) {
  register(stage, engine, { path: CORE }, core);
  // The released bundle is minified: hosts and machines must work minified,
  // too.
  register(
    stage,
    engine,
    { path: CORE, minify: true },
    core,
    (name) => !name.startsWith("Memory"),
  );
  register(stage, engine, { path: STORED }, stored);
  register(stage, engine, { path: TYPED, minify: true }, typed);
}
