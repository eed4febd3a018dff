/**
 * The npm package, made of the sources module by module, so that a bundler
 * leaves out what an application does not import: `dist/npm/`, and its tarball.
 *
 * ```sh
 * deno task pack
 * ```
 *
 * This module needs Deno, and npm for the tarball.
 *
 * @module
 */

import { stop, transform } from "esbuild";
import { ROOT } from "./bundle.ts";
import { declare } from "./declarations.ts";

/** Entry points that work outside of Deno; the server and the command line stay with it. */
export const PACKED_ENTRIES: readonly string[] = [
  ".",
  "./indexeddb",
  "./inspector",
  "./ports",
  "./sqlite",
  "./sync/client",
  "./tabs",
  "./testing",
  "./typed",
];

/** Files of the repository that go into the package as they are. */
const FILES: readonly string[] = [
  "LICENSE",
  "README.md",
  "src/snapshot/format.md",
  "src/sync/protocol.md",
];

/** Fields of deno.json that the package is made of. */
interface Project {
  readonly name: string;
  readonly version: string;
  readonly license: string;
  readonly exports: Readonly<Record<string, string>>;
}

/** Matches the specifiers a module imports or re-exports from, in code and in types. */
const SPECIFIER = /((?:\bfrom|\bimport)\s*\(?\s*)"([^"\n]+)"/g;

/** Types of disposal, for compilers whose `lib` ends before it. */
const DISPOSAL_TYPES = '/// <reference lib="esnext.disposable" />\n';

/** Writes the npm package into a folder, made new, and returns the contents of its `package.json`. */
export async function writePackage(folder: URL): Promise<unknown> {
  await Deno.remove(folder, { recursive: true }).catch(() => {});
  await Deno.mkdir(folder, { recursive: true });
  const project = JSON.parse(
    await Deno.readTextFile(new URL("deno.json", ROOT)),
  ) as Project;
  const entries = PACKED_ENTRIES.map((entry) =>
    [entry, project.exports[entry]!.slice(2)] as const
  );
  const dependencies = new Map<string, string>();
  const waiting = entries.map(([, path]) => path);
  const seen = new Set(waiting);

  /** The specifier as the package has it; what is in it is written later. */
  const specifierIn = (path: string, specifier: string): string => {
    const [, name, version, sub = ""] =
      /^npm:((?:@[^/]+\/)?[^@/]+)@([^/]+)(\/.*)?$/.exec(specifier) ?? [];
    if (name !== undefined) {
      dependencies.set(name, version!);
      return name + sub;
    }
    if (!specifier.startsWith(".")) return specifier;
    const { href } = new URL(specifier, new URL(path, ROOT));
    const imported = href.slice(ROOT.href.length);
    if (!seen.has(imported)) waiting.push(imported);
    seen.add(imported);
    return specifier.replace(/\.ts$/, ".js");
  };

  /** Examples in documentation import the package, whatever they import here. */
  const exampleLine = (path: string, line: string): string =>
    line.replace(SPECIFIER, (whole, before: string, specifier: string) => {
      if (!specifier.startsWith(".")) return whole;
      const { href } = new URL(specifier, new URL(path, ROOT));
      const entry = entries.findLast(([, file]) =>
        href.startsWith(new URL("./", new URL(file, ROOT)).href)
      )!;
      return `${before}"${project.name}${entry[0].slice(1)}"`;
    });

  const rewritten = (path: string, text: string): string =>
    text.split("\n").map((line) =>
      /^\s*(?:\/\*)?\*/.test(line) ? exampleLine(path, line) : line.replace(
        SPECIFIER,
        (_, before: string, specifier: string) =>
          `${before}"${specifierIn(path, specifier)}"`,
      )
    ).join("\n");

  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    const source = await Deno.readTextFile(new URL(path, ROOT));
    const name = path.replace(/\.ts$/, "");
    const into = new URL(name, folder);
    await Deno.mkdir(new URL("./", into), { recursive: true });
    const { code, map } = await transform(rewritten(path, source), {
      loader: "ts",
      format: "esm",
      target: "es2022",
      charset: "utf8",
      sourcemap: "external",
      sourcefile: path.slice(path.lastIndexOf("/") + 1),
    });
    const file = name.slice(name.lastIndexOf("/") + 1);
    await Deno.writeTextFile(
      new URL(`${into.href}.js`),
      `${code}//# sourceMappingURL=${file}.js.map\n`,
    );
    await Deno.writeTextFile(new URL(`${into.href}.js.map`), map);
    const isEntry = entries.some(([, entry]) => entry === path);
    await Deno.writeTextFile(
      new URL(`${into.href}.d.ts`),
      (isEntry ? DISPOSAL_TYPES : "") + rewritten(path, declare(path, source)),
    );
  }

  for (const path of FILES) {
    const into = new URL(path, folder);
    await Deno.mkdir(new URL("./", into), { recursive: true });
    await Deno.copyFile(new URL(path, ROOT), into);
  }
  const manifest = {
    name: project.name,
    version: project.version,
    description: "Replicated state machines for the browser, Node and Deno",
    license: project.license,
    type: "module",
    sideEffects: false,
    engines: { node: ">=20" },
    exports: {
      ...Object.fromEntries(
        entries.map(([entry, path]) => {
          const file = `./${path.replace(/\.ts$/, "")}`;
          return [entry, { types: `${file}.d.ts`, default: `${file}.js` }];
        }),
      ),
      "./package.json": "./package.json",
    },
    dependencies: Object.fromEntries([...dependencies].sort()),
  };
  await Deno.writeTextFile(
    new URL("package.json", folder),
    `${JSON.stringify(manifest, null, 2)}\n`,
  );
  return manifest;
}

/** Makes the tarball of a package beside its folder; resolves to where it is. */
export async function packTarball(folder: URL): Promise<URL> {
  const beside = new URL("../", folder);
  const { stdout, stderr, success } = await new Deno.Command("npm", {
    args: [
      "pack",
      "--silent",
      "--pack-destination",
      decodeURIComponent(beside.pathname),
    ],
    cwd: folder,
  }).output();
  if (!success) {
    throw new Error(`npm pack failed: ${new TextDecoder().decode(stderr)}`);
  }
  return new URL(new TextDecoder().decode(stdout).trim(), beside);
}

if (import.meta.main) {
  const folder = new URL("dist/npm/", ROOT);
  try {
    await writePackage(folder);
  } finally {
    await stop();
  }
  const { pathname } = await packTarball(folder);
  Deno.stdout.writeSync(new TextEncoder().encode(`${pathname}\n`));
}
