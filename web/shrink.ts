/**
 * Second minification of a bundle, with terser: it takes longer than esbuild, and
 * makes the code some percent smaller. Neither renames a property.
 *
 * This module needs Deno.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { minify } from "terser";
import { type Bundle, ROOT, specifierOf } from "./bundle.ts";

/** Folder of the results. A start of a server with unchanged code takes seconds less. */
const RESULTS = new URL(".cache/shrunk/", ROOT);

/** Number of results that are kept: those of all bundles and pages, and of some earlier ones. */
const RESULTS_MAX = 128;

/** Options of {@linkcode shrink}. */
export interface ShrinkOptions {
  /** Name of the bundle, without `.js`. */
  readonly name: string;
  /** First line of the code. */
  readonly preamble?: string;
  /** Passes over the code: more are slower, and save a little more. @default {1} */
  readonly passes?: number;
}

/** Code and source map as terser returns them. */
interface Result {
  readonly code: string;
  readonly map?: string;
}

/** Result of an earlier call with the same input, if it was kept. */
async function readResult(name: string): Promise<Result | undefined> {
  try {
    return JSON.parse(await Deno.readTextFile(new URL(name, RESULTS)));
  } catch {
    // Not there, or not readable.
    return undefined;
  }
}

/** Stores a result, and removes the oldest ones above the bound. */
async function storeResult(name: string, result: Result): Promise<void> {
  try {
    await Deno.mkdir(RESULTS, { recursive: true });
    // Whole at every moment: another process may be reading or writing it.
    const aside = new URL(`${name}.${crypto.randomUUID()}`, RESULTS);
    await Deno.writeTextFile(aside, JSON.stringify(result));
    await Deno.rename(aside, new URL(name, RESULTS));
    const all: { readonly at: number; readonly url: URL }[] = [];
    for (const { name } of Deno.readDirSync(RESULTS)) {
      const url = new URL(name, RESULTS);
      all.push({ at: Deno.statSync(url).mtime?.getTime() ?? 0, url });
    }
    all.sort((a, b) => b.at - a.at);
    for (const { url } of all.slice(RESULTS_MAX)) await Deno.remove(url);
  } catch {
    // The folder may be read only, and another process may remove the same files:
    // the next call does the work again.
  }
}

/**
 * Minifies a bundle once more; its source map is brought up to date if it is given.
 * Keeps results in `.cache/shrunk`, where that can be written.
 */
export async function shrink<B extends Partial<Bundle> & Pick<Bundle, "code">>(
  bundle: B,
  { name, preamble = "", passes = 1 }: ShrinkOptions,
): Promise<B> {
  const decoder = new TextDecoder();
  const code = decoder.decode(bundle.code);
  const map = bundle.map && decoder.decode(bundle.map);
  const options = {
    module: true,
    ecma: 2020,
    compress: {
      ecma: 2020,
      passes,
      inline: 1,
      unsafe_arrows: true,
      // Code that is longer without it is smaller when it is compressed.
      sequences: false,
    },
    format: { preamble },
    ...(map === undefined ? {} : {
      sourceMap: { content: map, url: `${name}.js.map` },
    }),
  } as const;
  // The version of terser decides, too.
  const input = JSON.stringify([specifierOf("terser"), code, options]);
  const key = createHash("sha256").update(input).digest("hex");
  let small = await readResult(key);
  if (small === undefined) {
    const { code: shorter, map: itsMap } = await minify(
      code,
      options,
    ) as Result;
    small = {
      code: shorter,
      ...(itsMap === undefined ? {} : { map: itsMap }),
    };
    await storeResult(key, small);
  }
  const encoder = new TextEncoder();
  return {
    ...bundle,
    code: encoder.encode(small.code),
    ...(map === undefined ? {} : { map: encoder.encode(small.map) }),
  };
}
