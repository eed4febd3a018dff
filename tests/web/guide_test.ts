import { assert, assertEquals } from "@std/assert";
import { llmsText, moduleDoc } from "../../web/docs.ts";
import { guideFiles, GUIDES } from "../../web/guide.ts";
import { demoFiles, servePage } from "../../web/page.ts";

const ROOT = new URL("../../", import.meta.url);
const GUIDE = new URL("web/guide/", ROOT);

Deno.test("every guide is listed, rendered and linked from the list", async () => {
  const found = [...Deno.readDirSync(GUIDE)].map(({ name }) => name)
    .filter((name) => name.endsWith(".md")).sort();
  assertEquals(found, GUIDES.map((name) => `${name}.md`).sort());
  const files = await guideFiles();
  const list = new TextDecoder().decode(files.get("")!.content);
  for (const name of GUIDES) {
    assert(files.has(`${name}.html`), name);
    assert(list.includes(`href="${name}.html"`), name);
  }
});

Deno.test("the start command serves the guides beside the page, and the page links to them", async () => {
  const serve = servePage(await demoFiles());
  const get = (path: string): Response =>
    serve(new Request(`http://localhost${path}`));
  assert((await get("/").text()).includes('href="guide/"'));
  const list = get("/guide/");
  assertEquals(list.status, 200);
  assertEquals(list.headers.get("content-type"), "text/html; charset=utf-8");
  assert((await list.text()).includes("<h1>Guides</h1>"));
  const guide = get("/guide/offline-pages.html");
  assert((await guide.text()).includes("Offline pages</h1>"));
  assertEquals(get("/guide/no-such-guide.html").status, 404);
});

Deno.test("every link within the rendered guides leads to a file and a heading that are there", async () => {
  const files = await guideFiles();
  const pages = new Map(
    [...files].filter(([, { type }]) => type.startsWith("text/html"))
      .map(([name, { content }]) => [name, new TextDecoder().decode(content)]),
  );
  for (const [name, html] of pages) {
    for (const [, href] of html.matchAll(/(?:href|src)="([^"]*)"/g)) {
      if (/^(?:[a-z]+:)/.test(href!)) continue;
      const [path, fragment] = href!.split("#");
      const to = path === "" ? name : path === "./" ? "" : path!;
      assert(files.has(to), `${name} links to ${href}`);
      if (fragment === undefined) continue;
      assert(
        pages.get(to)!.includes(`id="${fragment}"`),
        `${name} links to ${href}`,
      );
    }
  }
});

Deno.test("the machine of the guides is the one in the file that they import", async () => {
  const file = await Deno.readTextFile(new URL("seats.ts", GUIDE));
  const guide = await Deno.readTextFile(
    new URL("your-own-machine.md", GUIDE),
  );
  assert(guide.includes(`\`\`\`ts\n${file}\`\`\``), "Copy seats.ts into it");
});

Deno.test("llms.txt has the README, every guide, and what each entry point says of itself", async () => {
  const text = await llmsText();
  assert(text.startsWith("# Sampan\n"));
  for (const name of GUIDES) {
    const guide = await Deno.readTextFile(new URL(`${name}.md`, GUIDE));
    assert(text.includes(guide.trimEnd()), name);
  }
  assert(text.includes("# Entry point `@sampan/sampan/sync/client`\n"));
});

Deno.test("moduleDoc() takes the first comment of a module, without its stars", () => {
  const source = '/**\n * One.\n *\n * @module\n */\n\nexport {} from "x";\n';
  assertEquals(moduleDoc(source), "One.");
  assertEquals(moduleDoc("export {};\n"), undefined);
});
