/**
 * The playground as one file of HTML: styles and script are in it, so that any
 * static host can carry it, under any path.
 *
 * This module needs Deno.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { bundle, ROOT } from "./bundle.ts";

/** Upper bound of the weight of the playground, gzipped, in bytes. Held to by a test. */
export const PLAYGROUND_BYTES_MAX: number = 90 * 1024;

/** The playground, ready to be served. */
export interface Playground {
  /** HTML with styles and script. */
  readonly html: string;
  /** Content security policy: the page's own script, which compiles the machine that the person writes, and no connections. */
  readonly policy: string;
}

function read(name: string): Promise<string> {
  return Deno.readTextFile(new URL(`web/playground/${name}`, ROOT));
}

/** Minifies styles: comments, indentation and line breaks. */
function shrinkStyles(css: string): string {
  return css.replace(/\/\*[\s\S]*?\*\//g, "").replace(/\s+/g, " ")
    .replace(/ ?([{};]) ?/g, "$1").replace(/: (?=[^{}]*[;}])/g, ":");
}

/** Bundles the playground. The caller stops the bundler's process. */
export async function bundlePlayground(): Promise<Playground> {
  const [page, css, { code }] = await Promise.all([
    read("index.html"),
    read("playground.css"),
    bundle({
      name: "playground",
      text: 'import "./web/playground/playground.ts";',
    }),
  ]);
  const script = new TextDecoder().decode(code)
    .replace(/\n?\/\/# sourceMappingURL=\S+\s*$/, "")
    // Inside of a string or a regular expression, which is where it can be.
    .replaceAll("</script", "<\\/script");
  const hash = createHash("sha256").update(script).digest("base64");
  const policy =
    `default-src 'none'; script-src 'sha256-${hash}' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'`;
  const put = (html: string, tag: RegExp, text: string): string => {
    if (!tag.test(html)) throw new Error(`index.html has no ${tag}`);
    return html.replace(tag, () => text);
  };
  const styled = put(
    page,
    /<link rel="stylesheet"[^>]*>/,
    `<meta http-equiv="content-security-policy" content="${policy}">\n    <style>${
      shrinkStyles(css)
    }</style>`,
  );
  const html = put(
    styled,
    /<script type="module" src="[^"]*"><\/script>/,
    `<script type="module">${script}</script>`,
  );
  return { html, policy };
}
