/**
 * The documentation as files: `dist/docs/api/`, the reference of every entry
 * point; `dist/docs/guide/`, the guides; `dist/docs/llms.txt`, the same for
 * programs that read text.
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

/** Writes all of it into a folder, made new. */
export async function writeDocs(folder: URL): Promise<void> {
  await Deno.remove(folder, { recursive: true }).catch(() => {});
  const guide = new URL("guide/", folder);
  await Deno.mkdir(guide, { recursive: true });
  for (const [name, { content }] of await guideFiles()) {
    await Deno.writeFile(new URL(name || "index.html", guide), content);
  }
  await Deno.writeTextFile(new URL("llms.txt", folder), await llmsText());
  await writeReference(new URL("api/", folder));
}

if (import.meta.main) {
  const folder = new URL("dist/docs/", ROOT);
  await writeDocs(folder);
  const lines = ["api/index.html", "guide/index.html", "llms.txt"].map((path) =>
    `dist/docs/${path}\n`
  );
  Deno.stdout.writeSync(new TextEncoder().encode(lines.join("")));
}
