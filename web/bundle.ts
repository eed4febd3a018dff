/**
 * Makes one module for browsers out of many: what the build, the size test and
 * the browser tests share.
 *
 * This module needs Deno.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { build, type Metafile, type Plugin, transform } from "esbuild";

/** The project's folder. */
export const ROOT: URL = new URL("../", import.meta.url);

/** The assertions that tests import by name. */
const STD = "tests/std/assert/mod.ts";

/** Options of a bundle. */
export interface BundleOptions {
  /** Text of the entry module; its imports are relative to the project's folder. */
  readonly text: string;
  /** Name of the entry module in source maps, and of the bundle. */
  readonly name: string;
  /**
   * True to minify; `names` shortens names only, and keeps the white space and a
   * comment with the path before each module.
   *
   * @default {true}
   */
  readonly minify?: boolean | "names";
  /** First line of the bundle. */
  readonly banner?: string;
  /** Plugins of esbuild, for files in other languages. */
  readonly plugins?: readonly Plugin[];
  /**
   * Called with the path of a module of this project that is imported dynamically;
   * returns the specifier of the file that the bundle loads it from, or undefined for
   * one that is part of the bundle. By default all are.
   */
  readonly lazy?: (path: string) => Promise<string | undefined>;
}

/** A bundled module for browsers; it imports nothing but what it loads when it is first needed. */
export interface Bundle {
  /** Code of the module. */
  readonly code: Uint8Array;
  /** Source map of the code. */
  readonly map: Uint8Array;
  /** Modules that went into it, with their sizes. */
  readonly metafile: Metafile;
}

/** File path of a URL. */
function pathOf(url: URL): string {
  return decodeURIComponent(url.pathname);
}

/** Folder that holds packages in the layout that bundlers resolve. */
const PACKAGES = pathOf(new URL(".cache/bundle/node_modules/", ROOT));

/** Packages in that folder with their dependencies, by name and version. */
const laidOut = new Map<string, Promise<void>>();

/** Has Deno fetch a package and its dependencies only, and lays them out for a bundler. */
async function layOut(specifier: string): Promise<void> {
  // With the lock file, Deno fetches everything that file names.
  const { npmPackages = {} } = JSON.parse(
    await deno("info", "--no-lock", "--json", specifier),
  ) as {
    npmPackages?: Record<string, { name: string; localPath: string }>;
  };
  for (const { name, localPath } of Object.values(npmPackages)) {
    const link = PACKAGES + name;
    await Deno.mkdir(link.slice(0, link.lastIndexOf("/")), { recursive: true });
    if (await Deno.readLink(link).catch(() => {}) === localPath) continue;
    // Whole at every moment: another process may be bundling.
    const aside = `${link}.${crypto.randomUUID()}`;
    await Deno.symlink(localPath, aside);
    await Deno.rename(aside, link);
  }
}

async function deno(...args: string[]): Promise<string> {
  const { stdout, stderr, success } = await new Deno.Command(Deno.execPath(), {
    args,
    cwd: ROOT,
    env: { NO_COLOR: "1" },
  }).output();
  if (!success) {
    throw new Error(
      `deno ${args[0]} failed: ${new TextDecoder().decode(stderr)}`,
    );
  }
  return new TextDecoder().decode(stdout);
}

function readJSON(path: string): unknown {
  return JSON.parse(Deno.readTextFileSync(new URL(path, ROOT)));
}

const { imports } = readJSON("import_map.json") as {
  imports: Readonly<Record<string, string>>;
};

const project = readJSON("deno.json") as {
  name: string;
  exports: Readonly<Record<string, string>>;
};

/** Path of the entry point that an import of this project by its own name means; undefined for other imports. */
function entryOf(path: string): string | undefined {
  const { name, exports } = project;
  if (path !== name && !path.startsWith(`${name}/`)) return undefined;
  const entry = exports[`.${path.slice(name.length)}`];
  return entry && pathOf(new URL(entry, ROOT));
}

/** The specifier that an import stands for in this project's import map: exact, or for something below it. */
export function specifierOf(path: string): string {
  const name = /^(?:@[^/]+\/)?[^/]+/.exec(path)?.[0] ?? path;
  const mapped = imports[name];
  return mapped === undefined ? path : mapped + path.slice(name.length);
}

/** Marks what the plugin below has seen to already. */
const LAID_OUT = Symbol("laid out");

/** Resolves this project's own name, `npm:name@version` and the names of the import map, on which packages rely that do not declare all they import. */
const specifiers: Plugin = {
  name: "specifiers",
  setup(build): void {
    build.onResolve({ filter: /^@std\/assert$/ }, () => ({
      path: pathOf(new URL(STD, ROOT)),
    }));
    build.onResolve({ filter: /^[@a-z]/ }, async (args) => {
      const { path, resolveDir, kind, pluginData } = args;
      if (pluginData === LAID_OUT) return undefined;
      const entry = entryOf(path);
      if (entry !== undefined) return { path: entry };
      const specifier = specifierOf(path);
      const [, version, name, sub = ""] =
        /^npm:\/?(((?:@[^/]+\/)?[^@/]+)(?:@[^/]+)?)(\/.*)?$/.exec(specifier) ??
          [];
      if (version === undefined) return undefined;
      const ready = laidOut.get(version) ?? layOut(`npm:${version}`);
      laidOut.set(version, ready);
      await ready;
      return await build.resolve(name + sub, {
        resolveDir,
        kind,
        pluginData: LAID_OUT,
      });
    });
  },
};

/** Leaves modules that are imported dynamically to files of their own. */
function lazyModules(lazy: NonNullable<BundleOptions["lazy"]>): Plugin {
  return {
    name: "lazy modules",
    setup(build): void {
      build.onResolve(
        { filter: /^\./ },
        async ({ path, importer, kind }) => {
          if (kind !== "dynamic-import") return undefined;
          const { href } = new URL(path, `file://${importer}`);
          const found = await lazy(href.slice(ROOT.href.length));
          return found === undefined
            ? undefined
            : { path: found, external: true };
        },
      );
    },
  };
}

/** Bundles a module with all it imports. */
export async function bundle(options: BundleOptions): Promise<Bundle> {
  const { text, name, minify = true, banner = "", plugins = [], lazy } =
    options;
  const { outputFiles, metafile } = await build({
    stdin: {
      contents: text,
      resolveDir: pathOf(ROOT),
      sourcefile: `${name}.ts`,
      loader: "ts",
    },
    absWorkingDir: pathOf(ROOT),
    outfile: pathOf(new URL(`dist/${name}.js`, ROOT)),
    banner: { js: banner },
    bundle: true,
    charset: "utf8",
    format: "esm",
    jsx: "automatic",
    legalComments: "none",
    logLevel: "silent",
    metafile: true,
    minifyIdentifiers: minify !== false,
    minifySyntax: minify !== false,
    minifyWhitespace: minify === true,
    nodePaths: [PACKAGES],
    platform: "browser",
    plugins: [
      ...plugins,
      ...(lazy === undefined ? [] : [lazyModules(lazy)]),
      specifiers,
    ],
    sourcemap: "linked",
    target: "es2022",
    write: false,
  });
  const [map, code] = outputFiles;
  return { code: code!.contents, map: map!.contents, metafile };
}

/** Minifies a style sheet. */
export async function minifyStyle(text: string): Promise<string> {
  const { code } = await transform(text, { loader: "css", minify: true });
  return code.trim();
}

/**
 * Code that bundles and pages load when it is first needed. It has its own copy of
 * what it imports, so that a bundle carries nothing for its sake; errors of both
 * are the same to `instanceof`.
 */
export interface Chunk extends Bundle {
  /** Name of the file, without `.js`; it changes with the content, so that no bundle loads a chunk of another version. */
  readonly name: string;
}

/** A bundle, and the chunks that it loads when they are first needed. */
export interface BundleWithChunks extends Bundle {
  /** Chunks, which load nothing themselves but what is nested. */
  readonly chunks: readonly Chunk[];
}

/** Bundles a module that others import dynamically, as a chunk. */
async function bundleChunk(
  path: string,
  options: Pick<BundleOptions, "plugins" | "lazy">,
): Promise<Chunk> {
  const stem = /([^/]+)\.ts$/.exec(path)![1]!.replaceAll("_", "-");
  const bundled = await bundle({
    name: stem,
    text: `export * from "./${path}";`,
    ...options,
  });
  const hash = createHash("sha256").update(bundled.code).digest("hex");
  return { ...bundled, name: `sampan-${stem}-${hash.slice(0, 8)}` };
}

/** Options of a bundle with chunks. */
export interface BundleWithChunksOptions extends Omit<BundleOptions, "lazy"> {
  /** Paths of modules that are part of the bundle although they are imported dynamically: it has their content anyway. */
  readonly included?: readonly string[];
  /** True for the path of a module that chunks load from a chunk of its own, too; it imports nothing that loads it. By default chunks contain all they load. */
  readonly nested?: (path: string) => boolean;
}

/** Bundles a module, and leaves what it imports dynamically to chunks beside it. */
export async function bundleWithChunks(
  { included = [], nested = (): boolean => false, ...options }:
    BundleWithChunksOptions,
): Promise<BundleWithChunks> {
  const { plugins = [] } = options;
  const chunks = new Map<string, Promise<Chunk>>();
  const chunk = async (path: string): Promise<string | undefined> => {
    if (included.includes(path)) return undefined;
    const building = chunks.get(path) ?? bundleChunk(path, {
      plugins,
      lazy: async (path) => nested(path) ? await chunk(path) : undefined,
    });
    chunks.set(path, building);
    return `./${(await building).name}.js`;
  };
  const bundled = await bundle({ ...options, lazy: chunk });
  // What would load the others was not used, and is left out.
  const unused = new Set(await Promise.all(chunks.values()));
  const used: Chunk[] = [];
  const codes = [bundled.code];
  for (const bytes of codes) {
    const code = new TextDecoder().decode(bytes);
    for (const chunk of unused) {
      if (!code.includes(chunk.name)) continue;
      unused.delete(chunk);
      used.push(chunk);
      codes.push(chunk.code);
    }
  }
  return { ...bundled, chunks: used };
}

/** Ends the bundler, which is a process of its own; the next bundle starts another. */
export { stop as stopBundler } from "esbuild";
