/**
 * Second minification of a bundle, with terser: it takes longer than esbuild, and
 * makes the code some percent smaller. Neither renames a property.
 *
 * This module needs Deno.
 *
 * @module
 */

import { minify } from "terser";
import type { Bundle } from "./bundle.ts";

/** Options of {@linkcode shrink}. */
export interface ShrinkOptions {
  /** Name of the bundle, without `.js`. */
  readonly name: string;
  /** First line of the code. */
  readonly preamble?: string;
  /** Passes over the code: more are slower, and save a little more. @default {1} */
  readonly passes?: number;
}

/** Minifies a bundle once more; its source map is brought up to date if it is given. */
export async function shrink<B extends Partial<Bundle> & Pick<Bundle, "code">>(
  bundle: B,
  { name, preamble = "", passes = 1 }: ShrinkOptions,
): Promise<B> {
  const decoder = new TextDecoder();
  const { code, map } = bundle;
  const small = await minify(decoder.decode(code), {
    module: true,
    ecma: 2020,
    compress: { ecma: 2020, passes },
    format: { preamble },
    ...(map === undefined ? {} : {
      sourceMap: { content: decoder.decode(map), url: `${name}.js.map` },
    }),
  });
  const encoder = new TextEncoder();
  return {
    ...bundle,
    code: encoder.encode(small.code),
    ...(map === undefined ? {} : { map: encoder.encode(small.map as string) }),
  };
}
