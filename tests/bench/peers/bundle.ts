/**
 * Size of what a page loads: a module bundled and minified by esbuild, and
 * gzipped.
 *
 * This module needs Deno.
 *
 * @module
 */

import { gzipSync } from "node:zlib";
import { bundle, stopBundler } from "../../../web/bundle.ts";
import { PEERS } from "./install.ts";

/** Bytes of a module of this project with all that it imports, gzipped. */
async function ownBytes(source: string): Promise<number> {
  try {
    const { code } = await bundle({ text: source, name: "page" });
    return gzipSync(code, { level: 9 }).length;
  } finally {
    stopBundler();
  }
}

/** Bytes of a module with the packages that it imports, and of the WebAssembly it loads, gzipped. */
async function peerBytes(source: string): Promise<number> {
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
    return bytes;
  } finally {
    await Deno.remove(output, { recursive: true });
  }
}

/** Kibibytes of a page's module with all that it imports, gzipped. */
export async function bundleKiB(
  source: string,
  isOwn: boolean,
): Promise<number> {
  return (isOwn ? await ownBytes(source) : await peerBytes(source)) / 1024;
}
