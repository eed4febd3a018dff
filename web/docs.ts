/**
 * The documentation as files in `dist/docs/`: in `api/` the reference of every
 * entry point, in `guide/` the guides, and `llms.txt` for programs that read text.
 *
 * ```sh
 * deno task docs
 * ```
 *
 * This module needs Deno.
 *
 * @module
 */

import { ROOT } from "./bundle.ts";
import { guideFiles, GUIDES } from "./guide.ts";

/** Entry points of the package, by name. */
async function entryPoints(): Promise<Map<string, string>> {
  const text = await Deno.readTextFile(new URL("deno.json", ROOT));
  const { exports } = JSON.parse(text) as { exports: Record<string, string> };
  return new Map(Object.entries(exports));
}

/** Writes the API reference into a folder. */
async function writeReference(folder: URL): Promise<void> {
  const { success, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      "doc",
      "--html",
      "--name=Sampan",
      `--output=${decodeURIComponent(folder.pathname)}`,
      ...(await entryPoints()).values(),
    ],
    cwd: ROOT,
  }).output();
  if (!success) {
    throw new Error(
      `deno doc --html failed: ${new TextDecoder().decode(stderr)}`,
    );
  }
}

/** Text of a module's own documentation, without its stars; undefined if it has none. */
export function moduleDoc(source: string): string | undefined {
  const comment = /^\/\*\*([\s\S]*?)\*\//.exec(source)?.[1];
  return comment?.replace(/^\s*\* ?/gm, "")
    .replace(/^@module$/m, "").trim();
}

/**
 * The documentation as one text: the README, the guides, and what each entry
 * point says of itself.
 */
export async function llmsText(): Promise<string> {
  const read = (path: string): Promise<string> =>
    Deno.readTextFile(new URL(path, ROOT));
  const parts = [
    await read("README.md"),
    ...await Promise.all(GUIDES.map((name) => read(`web/guide/${name}.md`))),
  ];
  for (const [name, path] of await entryPoints()) {
    const doc = moduleDoc(await read(path));
    if (doc === undefined) continue;
    parts.push(`# Entry point \`@sampan/sampan${name.slice(1)}\`\n\n${doc}\n`);
  }
  return parts.map((part) => part.trimEnd()).join("\n\n---\n\n") + "\n";
}

/** First page of the folder. */
const INDEX = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sampan</title>
<style>
:root { color-scheme: light dark; }
body { margin: 2rem auto; max-width: 40rem; padding: 0 1rem; font: 16px/1.6 system-ui, sans-serif; }
</style>
<h1>Sampan</h1>
<ul>
<li><a href="guide/readme.html">Overview</a></li>
<li><a href="guide/index.html">Guides</a></li>
<li><a href="api/index.html">API reference</a></li>
<li><a href="llms.txt">All of it as text</a></li>
</ul>
`;

/** Writes all of it into a folder, made new. */
export async function writeDocs(folder: URL): Promise<void> {
  await Deno.remove(folder, { recursive: true }).catch(() => {});
  const guide = new URL("guide/", folder);
  await Deno.mkdir(guide, { recursive: true });
  for (const [name, { content }] of await guideFiles()) {
    await Deno.writeFile(new URL(name || "index.html", guide), content);
  }
  await Deno.writeTextFile(new URL("index.html", folder), INDEX);
  await Deno.writeTextFile(new URL("llms.txt", folder), await llmsText());
  await writeReference(new URL("api/", folder));
}

if (import.meta.main) {
  const folder = new URL("dist/docs/", ROOT);
  await writeDocs(folder);
  const text = "dist/docs/index.html\ndist/docs/llms.txt\n";
  Deno.stdout.writeSync(new TextEncoder().encode(text));
}
