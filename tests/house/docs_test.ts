import { assertEquals } from "@std/assert";

const ROOT = new URL("../../", import.meta.url);

function read(path: string): string {
  return Deno.readTextFileSync(new URL(path, ROOT));
}

/** Paths of the files below a folder, from the root of the project. */
function* filesIn(folder: string): Generator<string> {
  for (const { name, isDirectory } of Deno.readDirSync(new URL(folder, ROOT))) {
    if (isDirectory) yield* filesIn(`${folder}${name}/`);
    else yield `${folder}${name}`;
  }
}

Deno.test("every error class is explained in the guide to troubleshooting, and no other", () => {
  const guide = read("web/guide/troubleshooting.md");
  const explained = [...guide.matchAll(/^\| (?:●\s)?`(Err\w+)`/gm)]
    .map(([, name]) => name!);
  const classes = [...filesIn("src/")].filter((path) => path.endsWith(".ts"))
    .flatMap((path) => [
      ...read(path).matchAll(/^export (?:abstract )?class (Err\w+)/gm),
    ]).map(([, name]) => name!);
  assertEquals(explained.sort(), [...new Set(classes)].sort());
});

Deno.test("every file that README.md names is there", () => {
  const named = read("README.md").matchAll(
    /`((?:src|tests|web)\/[\w./]+\.\w+)`/g,
  );
  const there = new Set(
    ["src/", "tests/", "web/"].flatMap((folder) => [...filesIn(folder)]),
  );
  assertEquals(
    [...named].map(([, path]) => path!).filter((path) => !there.has(path)),
    [],
  );
});

Deno.test("every file that src/README.md names is there", () => {
  const named = [...read("src/README.md").matchAll(/`([\w./]+\.(?:ts|md))`/g)]
    .map(([, path]) => path!);
  const there = new Set([
    "mod.ts",
    ...filesIn("src/"),
    ...filesIn("tests/"),
  ]);
  const missing = named.filter((path) =>
    !there.has(path) && !there.has(`src/${path}`)
  );
  assertEquals(missing, []);
});
