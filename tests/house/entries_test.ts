import { assert, assertEquals } from "@std/assert";

const ROOT = new URL("../../", import.meta.url);

/** Libraries that may be loaded with each entry point: npm packages, and modules of Node that other runtimes have too. */
const LIBRARIES: Readonly<Record<string, readonly string[]>> = {
  ".": [],
  "./cli": [
    "cli-progress",
    "node:crypto",
    "node:fs",
    "node:os",
    "node:path",
    "node:sqlite",
    "node:timers",
    "node:url",
    "node:util",
  ],
  "./etcd": ["@grpc/grpc-js", "node:buffer", "node:crypto", "node:tls"],
  "./indexeddb": ["idb-keyval"],
  "./inspector": ["uplot"],
  "./ports": [],
  "./s3": ["aws4fetch", "node:crypto"],
  "./sqlite": [
    "node:fs",
    "node:os",
    "node:path",
    "node:sqlite",
    "node:timers",
    "node:url",
  ],
  "./sync": ["@opentelemetry/api"],
  "./sync/client": [],
  "./sync/server": ["@opentelemetry/api"],
  "./tabs": [],
  "./testing": ["@opentelemetry/api", "fast-check"],
  "./typed": [],
  "./worker": [],
};

const { exports } = JSON.parse(
  await Deno.readTextFile(new URL("deno.json", ROOT)),
) as { exports: Record<string, string> };

/** Every module that is loaded with an entry point, types included. */
async function graphOf(path: string): Promise<string[]> {
  const { stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["info", "--json", new URL(path, ROOT).href],
    cwd: ROOT,
  }).output();
  const { modules } = JSON.parse(new TextDecoder().decode(stdout)) as {
    modules: { specifier: string; error?: string }[];
  };
  assertEquals(modules.filter(({ error }) => error !== undefined), []);
  return modules.map(({ specifier }) => specifier);
}

const isOwn = (specifier: string): boolean =>
  specifier.startsWith(new URL("src/", ROOT).href) ||
  specifier === new URL("mod.ts", ROOT).href;

/** `npm:/@scope/name@1.2.3/sub` as `@scope/name`. */
const libraryOf = (specifier: string): string =>
  specifier.replace(/^npm:\/?((?:@[^/]+\/)?[^@/]+).*$/, "$1");

Deno.test("every entry point has its list of libraries", () => {
  assertEquals(Object.keys(exports).sort(), Object.keys(LIBRARIES).sort());
});

for (const [entry, path] of Object.entries(exports)) {
  Deno.test(`the entry point ${entry} loads the libraries it uses and no other`, async () => {
    const modules = await graphOf(path);
    assert(modules.some(isOwn));
    const libraries = modules.filter((module) => !isOwn(module)).map(libraryOf);
    assertEquals([...new Set(libraries)].sort(), LIBRARIES[entry]);
  });

  Deno.test(`the entry point ${entry} needs Deno if a module it loads does`, async () => {
    const needsDeno = (module: string): boolean =>
      Deno.readTextFileSync(new URL(module)).includes(
        "This module needs Deno",
      );
    const modules = (await graphOf(path)).filter(isOwn);
    assertEquals(
      modules.some(needsDeno),
      needsDeno(new URL(path, ROOT).href),
      modules.filter(needsDeno).join(", "),
    );
  });
}

/** Files in a folder and its folders. */
async function* filesIn(folder: URL): AsyncGenerator<URL> {
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    const path = new URL(isDirectory ? `${name}/` : name, folder);
    if (isDirectory) yield* filesIn(path);
    else yield path;
  }
}

Deno.test("the examples import the package by its name, as an application does", async () => {
  const examples = new URL("web/examples/", ROOT);
  const found: string[] = [];
  for await (const path of filesIn(examples)) {
    // The runner is no example.
    if (path.href.endsWith("/examples/run.ts")) continue;
    const text = await Deno.readTextFile(path);
    for (const [, specifier] of text.matchAll(/from "([^"]+)"/g)) {
      if (!specifier!.startsWith(".")) continue;
      // The bundler beside them is theirs to use.
      const { href } = new URL(specifier!, path);
      if (!href.startsWith(new URL("web/", ROOT).href)) {
        found.push(`${path.href} imports ${specifier}`);
      }
    }
  }
  assertEquals(found, []);
});

Deno.test("the demo page is built from public entry points only", async () => {
  const app = new URL("web/app/", ROOT);
  const entries = Object.values(exports).map((path) =>
    new URL(path, ROOT).href
  );
  const found: string[] = [];
  for await (const { name } of Deno.readDir(app)) {
    if (!name.endsWith(".ts")) continue;
    const text = await Deno.readTextFile(new URL(name, app));
    for (const [, specifier] of text.matchAll(/from "([^"]+)"/g)) {
      const { href } = new URL(specifier!, new URL(name, app));
      if (href.startsWith(app.href) || entries.includes(href)) continue;
      found.push(`${name} imports ${specifier}`);
    }
  }
  assertEquals(found, []);
});
