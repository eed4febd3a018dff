import { assert, assertEquals } from "@std/assert";
import { kv, KVStateMachine, NodeHost } from "../../mod.ts";
import { serve } from "../../src/sync/server/mod.ts";
import { stopBundler } from "../../web/bundle.ts";
import { launch } from "../browser/browser.ts";
import { installPackage, installTools, pathOf, run, runTool } from "./npm.ts";

Deno.test.afterAll(() => stopBundler());

const ROOT = new URL("../../", import.meta.url);

/**
 * Page that submits one edit; it imports the package, or equivalent modules.
 */
function app(imports: (entry: string) => string): string {
  return `
import { kv, KVStateMachine, NodeHost } from "${imports(".")}";
import { IndexedDBOutbox } from "${imports("./indexeddb")}";
import { RemoteLogDB } from "${imports("./sync/client")}";

const key = document.title;
const outbox = new IndexedDBOutbox(key);
const logDB = new RemoteLogDB(location.origin.replace("http", "ws") + "/sync");
const host = new NodeHost({ logDB, outbox });
const replica = await host.startCluster(() => new KVStateMachine(), {
  clusterID: 1n,
  nodeID: BigInt(key.length + 100),
});
const submission = await replica.submit(kv.put(key, "bundled"));
document.body.textContent = submission.state;
submission.result.then(() => document.body.textContent = "committed");
`;
}

const page = (key: string, script: string): string =>
  `<!doctype html><meta charset="utf-8"><title>${key}</title>` +
  `<link rel="icon" href="data:,">` +
  `<body><script type="module" src="${script}"></script></body>`;

/** Recipe of the README for esbuild over the sources, run by Deno. */
const ESBUILD_WITH_DENO = `
import { build, stop } from "npm:esbuild@0.28.2";

await build({
  entryPoints: ["app.ts"],
  bundle: true,
  format: "esm",
  platform: "browser",
  target: "es2022",
  outfile: "app.js",
  plugins: [{
    name: "npm",
    setup(build) {
      build.onResolve({ filter: /^npm:/ }, async ({ path }) => {
        await import(path);
        return { path: new URL(import.meta.resolve(path)).pathname };
      });
    },
  }],
});
await stop();
`;

Deno.test({
  name:
    "case B4: plain bundlers make a page of the package or the sources, and it submits an edit",
  // The bundler process outlives the test that started it.
  sanitizeOps: false,
  sanitizeResources: false,
  async fn(t): Promise<void> {
    await using installed = await installPackage();
    const { project } = installed;
    const modules = await installTools();
    const toolOf = (path: string): string => pathOf(new URL(path, modules));
    const write = (name: string, text: string): Promise<void> =>
      Deno.writeTextFile(new URL(name, project), text);
    const { exports } = JSON.parse(
      await Deno.readTextFile(new URL("deno.json", ROOT)),
    ) as { exports: Record<string, string> };
    await write("app.js", app((entry) => `@sampan/sampan${entry.slice(1)}`));
    await write("index.html", page("vite", "./app.js"));
    // Next to a package.json, Deno requires every package to be listed there.
    const sources = new URL("../sources/", project);
    await Deno.mkdir(sources);
    await Deno.writeTextFile(
      new URL("app.ts", sources),
      app((entry) => pathOf(new URL(exports[entry]!, ROOT))),
    );
    await Deno.writeTextFile(new URL("build.ts", sources), ESBUILD_WITH_DENO);

    /** Served files, by path. */
    const files = new Map<string, URL>();
    const bundlers: Record<string, () => Promise<URL>> = {
      async esbuild(): Promise<URL> {
        const { success, text } = await run(toolOf("esbuild/bin/esbuild"), [
          "app.js",
          "--bundle",
          "--format=esm",
          "--target=es2022",
          "--outfile=esbuild.js",
        ], project);
        assert(success, text);
        return new URL("esbuild.js", project);
      },
      async rollup(): Promise<URL> {
        const { success, text } = await runTool("rollup/dist/bin/rollup", [
          "app.js",
          "--plugin",
          toolOf("@rollup/plugin-node-resolve/dist/cjs/index.js"),
          "--format=es",
          "--inlineDynamicImports",
          "--file=rollup.js",
        ], project);
        assert(success, text);
        return new URL("rollup.js", project);
      },
      async vite(): Promise<URL> {
        const { success, text } = await runTool("vite/bin/vite.js", [
          "build",
          "--outDir=vite",
          "--base=./",
          // An app uses top-level await.
          "--target=es2022",
        ], project);
        assert(success, text);
        let entry: URL | undefined;
        for (
          const { name } of Deno.readDirSync(new URL("vite/assets/", project))
        ) {
          const file = new URL(`vite/assets/${name}`, project);
          if (name.startsWith("index-")) entry = file;
          // The entry imports these, or loads them when they are first needed.
          else files.set(`script/${name}`, file);
        }
        if (entry !== undefined) return entry;
        throw new Error(`Vite wrote no file to ${project}vite/assets/`);
      },
      async "deno bundle"(): Promise<URL> {
        const { success, text } = await run(Deno.execPath(), [
          "bundle",
          "--quiet",
          "--platform=browser",
          "--output=bundle.js",
          "app.ts",
        ], sources);
        assert(success, text);
        return new URL("bundle.js", sources);
      },
      async "esbuild with Deno"(): Promise<URL> {
        const { success, text } = await run(Deno.execPath(), [
          "run",
          "--allow-all",
          "build.ts",
        ], sources);
        assert(success, text);
        return new URL("app.js", sources);
      },
    };

    await using host = new NodeHost();
    const replica = await host.startCluster(() => new KVStateMachine(), {
      clusterID: 1n,
      nodeID: 1n,
    });
    const server = serve(host, {
      hostname: "127.0.0.1",
      port: 0,
      fetch: async (request) => {
        const name = decodeURIComponent(new URL(request.url).pathname).slice(1);
        if (name in bundlers) {
          return new Response(page(name, `/script/${name}`), {
            headers: { "content-type": "text/html; charset=utf-8" },
          });
        }
        const file = files.get(name);
        if (file === undefined) return new Response(null, { status: 404 });
        return new Response(await Deno.readFile(file), {
          headers: { "content-type": "text/javascript; charset=utf-8" },
        });
      },
    });
    await write(
      "small.js",
      'import { kv } from "@sampan/sampan";\nconsole.log(kv.put("a", "b"));\n',
    );
    await t.step("what a page does not import is left out", async () => {
      const built = await Promise.all([
        run(toolOf("esbuild/bin/esbuild"), [
          "small.js",
          "--bundle",
          "--format=esm",
        ], project),
        runTool("rollup/dist/bin/rollup", [
          "small.js",
          "--silent",
          "--plugin",
          toolOf("@rollup/plugin-node-resolve/dist/cjs/index.js"),
        ], project),
      ]);
      for (const { success, text } of built) {
        assert(success, text);
        assert(text.includes("TextEncoder"), text.slice(0, 200));
        for (const name of ["NodeHost", "KVStateMachine", "MemoryLogDB"]) {
          assert(!new RegExp(`\\b${name}\\b`).test(text), `It carries ${name}`);
        }
      }
    });
    const browser = await launch("Chromium");
    try {
      for (const [name, bundle] of Object.entries(bundlers)) {
        await t.step(name, async () => {
          files.set(`script/${name}`, await bundle());
          const origin = server.url.replace(/^ws/, "http");
          const opened = await browser.open(
            new URL(`/${encodeURIComponent(name)}`, origin).href,
          );
          const shown = await opened.evaluate(
            `(async () => {
              for (let i = 0; i < 1000; i++) {
                if (document.body.textContent === "committed") break;
                await new Promise((resolve) => setTimeout(resolve, 10));
              }
              return document.body.textContent;
            })()`,
            20_000,
          );
          assertEquals(shown, "committed");
          const value = await replica.read(kv.get(name));
          assertEquals(
            new TextDecoder().decode(value as Uint8Array),
            "bundled",
          );
          await opened.close();
        });
      }
    } finally {
      await browser.close();
      await server.shutdown();
    }
  },
});
