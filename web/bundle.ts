/**
 * Makes one module for browsers out of many: what the build, the size test and
 * the browser tests share.
 *
 * This module needs Deno.
 *
 * @module
 */

import { build, type Metafile, type Plugin } from "esbuild";

/** The project's folder. */
export const ROOT: URL = new URL("../", import.meta.url);

/** The assertions that tests import by name. */
const STD = "tests/std/assert/mod.ts";

/** What a bundle is made of. */
export interface BundleOptions {
  /** The text of the module it starts from, whose imports are relative to the project's folder. */
  readonly text: string;
  /** The name of that module in source maps, and so that of the bundle. */
  readonly name: string;
  /**
   * Whether it is made small, at the cost of being readable; `names` leaves the
   * spaces, and says before each module where it comes from.
   *
   * @default {true}
   */
  readonly minify?: boolean | "names";
  /** The first line of the bundle. */
  readonly banner?: string;
}

/** A module for browsers that imports nothing. */
export interface Bundle {
  /** The module. */
  readonly code: Uint8Array;
  /** Its source map. */
  readonly map: Uint8Array;
  /** What went into it, for those who ask where its size comes from. */
  readonly metafile: Metafile;
}

/** A path on this machine. */
function pathOf(url: URL): string {
  return decodeURIComponent(url.pathname);
}

/**
 * Has Deno fetch the packages that deno.json and `src/deps.ts` name, and lays
 * them out the way a bundler looks for them. Resolves to that folder.
 */
async function packages(): Promise<string> {
  await deno("install", "--quiet");
  const { npmPackages = {} } = JSON.parse(
    await deno("info", "--json", "src/deps.ts"),
  ) as {
    npmPackages?: Record<string, { name: string; localPath: string }>;
  };
  const folder = pathOf(new URL(".cache/bundle/node_modules/", ROOT));
  for (const { name, localPath } of Object.values(npmPackages)) {
    const link = folder + name;
    await Deno.mkdir(link.slice(0, link.lastIndexOf("/")), { recursive: true });
    if (await Deno.readLink(link).catch(() => {}) === localPath) continue;
    // Whole at every moment: another process may be bundling.
    const aside = `${link}.${crypto.randomUUID()}`;
    await Deno.symlink(localPath, aside);
    await Deno.rename(aside, link);
  }
  return folder;
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

/** Takes `npm:name@version` for the package, and the names of the import map for what they stand for. */
const specifiers: Plugin = {
  name: "specifiers",
  setup(build): void {
    build.onResolve({ filter: /^npm:/ }, ({ path, resolveDir, kind }) => {
      const [, name, sub = ""] =
        /^npm:\/?((?:@[^/]+\/)?[^@/]+)(?:@[^/]+)?(\/.*)?$/.exec(path)!;
      return build.resolve(name + sub, { resolveDir, kind });
    });
    build.onResolve({ filter: /^@std\/assert$/ }, () => ({
      path: pathOf(new URL(STD, ROOT)),
    }));
  },
};

let folder: Promise<string> | undefined;

/** Bundles a module with all it imports. */
export async function bundle(options: BundleOptions): Promise<Bundle> {
  const { text, name, minify = true, banner = "" } = options;
  folder ??= packages();
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
    legalComments: "none",
    logLevel: "silent",
    metafile: true,
    minifyIdentifiers: minify !== false,
    minifySyntax: minify !== false,
    minifyWhitespace: minify === true,
    nodePaths: [await folder],
    platform: "browser",
    plugins: [specifiers],
    sourcemap: "linked",
    target: "es2022",
    write: false,
  });
  const [map, code] = outputFiles;
  return { code: code!.contents, map: map!.contents, metafile };
}

/** Ends the bundler, which is a process of its own; the next bundle starts another. */
export { stop as stopBundler } from "esbuild";
