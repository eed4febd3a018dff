/**
 * The guides as HTML: `web/guide/*.md`, and every page of the project that they
 * link to, rendered once, for phones and for wide windows, in light and in dark.
 *
 * This module needs Deno.
 *
 * @module
 */

import { Marked, type RendererObject, type Tokens } from "marked";
import { ROOT } from "./bundle.ts";

/** A rendered page, or an image in it. */
export interface GuideFile {
  /** Content to send. */
  readonly content: Uint8Array;
  /** Media type of the content. */
  readonly type: string;
}

/** Names of the guides, in the order in which they are listed. */
export const GUIDES: readonly string[] = [
  "install",
  "your-own-machine",
  "offline-pages",
  "permissions",
  "schema",
  "testing",
  "server",
  "etcd",
  "inspector",
  "troubleshooting",
  "coming-from",
];

const IMAGE_TYPES: Readonly<Record<string, string>> = {
  png: "image/png",
  svg: "image/svg+xml",
};

const STYLE = `
:root {
  color-scheme: light dark;
  --ink: #1c2733;
  --soft: #566676;
  --line: #d7dee5;
  --paper: #f5f7f9;
  --card: #fff;
  --sea: #0b6e8a;
  --string: #8a4b0b;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #dfe6ec;
    --soft: #9aa9b7;
    --line: #34414d;
    --paper: #12181e;
    --card: #1a222a;
    --sea: #5cc4e0;
    --string: #e0b070;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto;
  max-width: 64rem;
  padding: 1rem;
  color: var(--ink);
  background: var(--paper);
  font: 16px/1.55 system-ui, sans-serif;
  overflow-wrap: break-word;
}
a { color: var(--sea); }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 1rem 0; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 0.6rem; }
h3 { font-size: 1.05rem; margin: 1.6rem 0 0.4rem; }
img { max-width: 100%; height: auto; }
code { font: 0.88em/1.5 ui-monospace, monospace; overflow-wrap: anywhere; }
pre {
  overflow-x: auto;
  padding: 0.8rem 1rem;
  font-size: 0.82rem;
  line-height: 1.45;
  background: var(--card);
  border: 1px solid var(--line);
  border-radius: 0.5rem;
}
pre code { font-size: inherit; line-height: inherit; overflow-wrap: normal; }
pre i { color: var(--soft); font-style: normal; }
pre b { color: var(--string); font-weight: normal; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 0.92rem; }
th, td {
  padding: 0.45rem 0.6rem;
  text-align: left;
  vertical-align: top;
  border-bottom: 1px solid var(--line);
}
td > code:only-child { overflow-wrap: normal; }
th { color: var(--soft); font-weight: 600; }
nav.all { display: none; }
nav.page { color: var(--soft); font-size: 0.92rem; }
nav.page ul { margin: 0; padding-left: 1.1rem; }
footer {
  display: flex;
  flex-wrap: wrap;
  justify-content: space-between;
  gap: 1rem;
  margin-top: 3rem;
  padding-top: 1rem;
  border-top: 1px solid var(--line);
}
dl.guides dt { margin-top: 1rem; font-weight: 600; }
dl.guides dd { margin: 0; }
@media (min-width: 56rem) {
  body {
    display: grid;
    grid-template-columns: 12rem minmax(0, 1fr);
    column-gap: 2.5rem;
  }
  header, footer { grid-column: 2; }
  main { grid-column: 2; min-width: 0; }
  nav.all {
    display: block;
    grid-column: 1;
    grid-row: 1 / span 3;
    font-size: 0.92rem;
  }
  nav.all ul { list-style: none; margin: 0; padding: 0; position: sticky; top: 1rem; }
  nav.all li { padding: 0.2rem 0; }
  nav.all [aria-current] { color: var(--ink); font-weight: 600; text-decoration: none; }
  header { display: none; }
}
@media (max-width: 40rem) {
  table, tbody, tr, td { display: block; }
  thead { display: none; }
  tr {
    margin: 0 0 0.8rem;
    padding: 0.4rem 0.7rem;
    background: var(--card);
    border: 1px solid var(--line);
    border-radius: 0.5rem;
  }
  td { padding: 0.15rem 0; border: 0; }
  td:empty { display: none; }
  td[data-label]::before {
    display: block;
    color: var(--soft);
    font-size: 0.78rem;
    content: attr(data-label);
  }
  td:first-child::before { display: none; }
}
`;

function escapeHTML(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}

/** A string, or a comment, of TypeScript. */
const STRING_OR_COMMENT =
  /("(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`)|(\/\/.*|\/\*[\s\S]*?\*\/)/g;

/** TypeScript as HTML, in which comments are `i` and strings `b`. */
function highlight(code: string): string {
  let html = "";
  let at = 0;
  for (const match of code.matchAll(STRING_OR_COMMENT)) {
    const [text] = match;
    const tag = match[2] === undefined ? "b" : "i";
    html += escapeHTML(code.slice(at, match.index)) +
      `<${tag}>${escapeHTML(text)}</${tag}>`;
    at = match.index + text.length;
  }
  return html + escapeHTML(code.slice(at));
}

/** Id of a heading, as GitHub makes it, so that links work on both. */
function slugOf(text: string): string {
  return text.toLowerCase().replace(/[^\p{L}\p{N}\s_-]/gu, "").trim()
    .replace(/\s/g, "-");
}

/** Name under which a page of the project is served, from its path. */
function nameOf(path: string): string {
  const name = path.startsWith("web/guide/")
    ? path.slice("web/guide/".length)
    : path.replaceAll("/", "-").toLowerCase();
  return name.replace(/\.md$/, ".html");
}

/** Path from the root of the project that a link in a page leads to, with its fragment; undefined for a link out of the project. */
function targetOf(path: string, href: string): [string, string] | undefined {
  if (/^[a-z]+:|^\/|^#/i.test(href)) return undefined;
  const { pathname, hash } = new URL(href, new URL(path, ROOT));
  return [decodeURIComponent(pathname.slice(ROOT.pathname.length)), hash];
}

/** One page while it is rendered. */
interface Rendered {
  readonly title: string;
  readonly html: string;
  /** First sentence, as text. */
  readonly summary: string;
  /** Pages and images of the project that it links to. */
  readonly links: readonly string[];
}

/** Text of inline tokens, without marks. */
function textOf(tokens: readonly { raw: string }[]): string {
  return tokens.map((token) => {
    const inner = (token as Tokens.Generic)["tokens"] as
      | { raw: string }[]
      | undefined;
    return inner === undefined
      ? (token as Tokens.Generic)["text"] as string ?? token.raw
      : textOf(inner);
  }).join("");
}

/** Renders one page of markdown. */
function render(path: string, markdown: string): Rendered {
  const links: string[] = [];
  const headings: string[] = [];
  const renderer: RendererObject = {
    heading({ tokens, depth }): string {
      const id = slugOf(textOf(tokens));
      const html = this.parser.parseInline(tokens);
      if (depth === 2) headings.push(`<li><a href="#${id}">${html}</a></li>`);
      return `<h${depth} id="${id}">${html}</h${depth}>\n`;
    },
    link({ href, tokens }): string {
      const text = this.parser.parseInline(tokens);
      const target = targetOf(path, href);
      if (target === undefined) {
        return `<a href="${escapeHTML(href)}">${text}</a>`;
      }
      const [to, hash] = target;
      // A source file is not served.
      if (!to.endsWith(".md")) return text;
      links.push(to);
      return `<a href="${escapeHTML(nameOf(to) + hash)}">${text}</a>`;
    },
    image({ href, text }): string {
      const [to] = targetOf(path, href) ?? [href];
      links.push(to);
      return `<img src="${escapeHTML(nameOf(to))}" alt="${escapeHTML(text)}">`;
    },
    code({ text, lang = "" }): string {
      const html = lang.startsWith("ts") ? highlight(text) : escapeHTML(text);
      return `<pre><code>${html}\n</code></pre>\n`;
    },
    table({ header, rows }): string {
      const head = header.map(({ tokens }) =>
        `<th>${this.parser.parseInline(tokens)}</th>`
      );
      const body = rows.map((row) => {
        const cells = row.map(({ tokens }, i) => {
          const label = escapeHTML(textOf(header[i]!.tokens));
          const html = this.parser.parseInline(tokens);
          return `<td data-label="${label}">${html}</td>`;
        });
        return `<tr>${cells.join("")}</tr>\n`;
      });
      return `<div class="wide"><table><thead><tr>${
        head.join("")
      }</tr></thead><tbody>\n${body.join("")}</tbody></table></div>\n`;
    },
  };
  const marked = new Marked({ renderer });
  const tokens = marked.lexer(markdown);
  const first = (type: string): string => {
    const token = tokens.find((token) => token.type === type);
    return token === undefined ? "" : textOf((token as Tokens.Generic).tokens!);
  };
  const html = marked.parser(tokens);
  const contents = headings.length < 5
    ? ""
    : `<nav class="page" aria-label="On this page"><ul>${
      headings.join("")
    }</ul></nav>`;
  return {
    title: first("heading"),
    summary: /^.*?[.:](?= |$)/.exec(first("paragraph"))?.[0] ?? "",
    html: html.replace("</h1>", `</h1>\n${contents}`),
    links,
  };
}

/** The document around a rendered page. */
function documentOf(
  name: string,
  { title, html }: Pick<Rendered, "title" | "html">,
  guides: ReadonlyMap<string, Rendered>,
): string {
  const all = [...guides].map(([each, { title }]) => {
    const current = each === name ? ' aria-current="page"' : "";
    return `<li><a href="${each}"${current}>${escapeHTML(title)}</a></li>`;
  });
  const names = [...guides.keys()];
  const at = names.indexOf(name);
  const step = (to: string | undefined, text: (title: string) => string) =>
    to === undefined || at < 0
      ? "<span></span>"
      : `<a href="${to}">${text(escapeHTML(guides.get(to)!.title))}</a>`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHTML(title)} · Sampan</title>
<link rel="icon" href="data:,">
<style>${STYLE}</style>
</head>
<body>
<nav class="all" aria-label="Guides"><ul>
<li><a href="./"${name === "" ? ' aria-current="page"' : ""}>All guides</a></li>
${all.join("\n")}
</ul></nav>
${name === "" ? "" : '<header><a href="./">All guides</a></header>\n'}<main>
${html}</main>
<footer>${step(names[at - 1], (title) => `← ${title}`)}${
    step(names[at + 1], (title) => `${title} →`)
  }</footer>
</body>
</html>
`;
}

/** Reads and renders the guides and all they link to, by name; the guides first. */
async function renderAll(
  paths: readonly string[],
): Promise<{ pages: Map<string, Rendered>; images: string[] }> {
  const pages = new Map<string, Rendered>();
  const images = new Set<string>();
  const open = [...paths];
  for (let path = open.shift(); path !== undefined; path = open.shift()) {
    if (!path.endsWith(".md")) {
      images.add(path);
      continue;
    }
    if (pages.has(nameOf(path))) continue;
    const text = await Deno.readTextFile(new URL(path, ROOT));
    const page = render(path, text);
    pages.set(nameOf(path), page);
    open.push(...page.links);
  }
  return { pages, images: [...images] };
}

/**
 * Renders the guides, and every page and image that they link to.
 *
 * @returns files by name, that of the list of guides being ""
 * @throws Deno.errors.NotFound if a link leads to a file that is not there
 */
export async function guideFiles(): Promise<ReadonlyMap<string, GuideFile>> {
  const paths = GUIDES.map((name) => `web/guide/${name}.md`);
  const { pages, images } = await renderAll(paths);
  const guides = new Map(
    paths.map((path) => [nameOf(path), pages.get(nameOf(path))!]),
  );
  const files = new Map<string, GuideFile>();
  const add = (name: string, page: Pick<Rendered, "title" | "html">): void => {
    files.set(name, {
      content: new TextEncoder().encode(documentOf(name, page, guides)),
      type: "text/html; charset=utf-8",
    });
  };
  const list = [...guides].map(([name, { title, summary }]) =>
    `<dt><a href="${name}">${escapeHTML(title)}</a></dt><dd>${
      escapeHTML(summary)
    }</dd>\n`
  );
  add("", {
    title: "Guides",
    html: `<h1>Guides</h1>\n<dl class="guides">\n${list.join("")}</dl>\n`,
  });
  for (const [name, page] of pages) add(name, page);
  for (const path of images) {
    files.set(nameOf(path), {
      content: await Deno.readFile(new URL(path, ROOT)),
      type: IMAGE_TYPES[path.split(".").at(-1)!] ?? "application/octet-stream",
    });
  }
  return files;
}
