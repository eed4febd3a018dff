/**
 * Size of what a page loads: a module bundled and minified by esbuild, and
 * gzipped.
 *
 * This module needs Deno.
 *
 * @module
 */

import { gzipSync } from "node:zlib";
import { PEERS } from "./install.ts";

const ROOT = decodeURIComponent(
  new URL("../../../", import.meta.url).pathname,
);

/** Modules of this project, by the names that a page uses here. */
const OWN: readonly (readonly [name: string, path: string])[] = [
  ["@sampan/mod", "mod.ts"],
  ["@sampan/indexeddb", "src/indexeddb/mod.ts"],
  ["@sampan/sync/client", "src/sync/client/mod.ts"],
];

/** Kibibytes of a module with all that it imports, gzipped. */
export async function bundleKiB(source: string): Promise<number> {
  const folder = `${PEERS}npm`;
  const entry = `${folder}/page.ts`;
  const output = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(entry, source);
    const { success, stderr } = await new Deno.Command(
      `${folder}/node_modules/.bin/esbuild`,
      {
        args: [
          entry,
          "--bundle",
          "--minify",
          "--format=esm",
          "--platform=browser",
          "--target=es2022",
          "--loader:.wasm=file",
          `--outdir=${output}`,
          ...OWN.map(([name, path]) => `--alias:${name}=${ROOT}${path}`),
        ],
        cwd: folder,
      },
    ).output();
    if (!success) throw new Error(new TextDecoder().decode(stderr));
    let bytes = 0;
    for await (const { name } of Deno.readDir(output)) {
      const file = await Deno.readFile(`${output}/${name}`);
      bytes += gzipSync(file, { level: 9 }).length;
    }
    return bytes / 1024;
  } finally {
    await Deno.remove(output, { recursive: true });
  }
}
