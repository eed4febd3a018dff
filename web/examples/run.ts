/**
 * Runs an example that is a page: bundles it, and serves it together with the
 * cluster that its pages share.
 *
 * ```sh
 * deno run -A web/examples/run.ts react
 * ```
 *
 * `--port N` and `--data FOLDER` change where it listens and keeps its data.
 *
 * This module needs Deno.
 *
 * @module
 */

import { type Plugin, transform } from "esbuild";
import { parseArgs } from "node:util";
import { NodeHost } from "../../mod.ts";
import { DataFolder } from "../../src/sqlite/mod.ts";
import { serve } from "../../src/sync/server/mod.ts";
import type { MachineDefinition } from "../../src/typed/mod.ts";
import { pageFiles, servePage } from "../page.ts";
import { boat } from "./seats.ts";
import { shopping } from "./shopping.ts";

/** An example that is a page. */
interface Example {
  /** Port by default. Each example has its own, so that a browser keeps their data apart. */
  readonly port: number;
  /** Module that loads the page, as that of an application would. */
  readonly text: string;
  /** Machine that server and pages run. */
  readonly machine: Pick<MachineDefinition, "create" | "validate">;
  /** Compiler of the framework's own files, as a plugin of esbuild. */
  readonly compiler?: () => Promise<Plugin>;
}

const EXAMPLES: Readonly<Record<string, Example>> = {
  seats: {
    port: 8002,
    text: 'import "./web/examples/seats.ts";',
    machine: boat,
  },
  react: {
    port: 8003,
    text: 'import "./web/examples/react.tsx";',
    machine: shopping,
  },
  svelte: {
    port: 8004,
    text: `import { mount } from "svelte";
      import App from "./web/examples/svelte.svelte";
      mount(App, { target: document.getElementById("app") });`,
    machine: shopping,
    compiler: compileSvelte,
  },
  vue: {
    port: 8005,
    text: `import { createApp } from "vue";
      import App from "./web/examples/vue.vue";
      createApp(App).mount("#app");`,
    machine: shopping,
    compiler: compileVue,
  },
  solid: {
    port: 8007,
    text: 'import "./web/examples/solid.tsx";',
    machine: shopping,
    compiler: compileSolid,
  },
};

/** A plugin that has esbuild load the files whose names end so as the compiler returns them. */
function compiling(
  ending: string,
  compile: (source: string) => string | Promise<string>,
): Plugin {
  return {
    name: ending,
    setup(build): void {
      build.onLoad(
        { filter: new RegExp(`${ending.replaceAll(".", "\\.")}$`) },
        async ({ path }) => ({
          contents: await compile(await Deno.readTextFile(path)),
        }),
      );
    },
  };
}

// The compilers are loaded by those who use them.
async function compileSvelte(): Promise<Plugin> {
  const { compile } = await import("svelte/compiler");
  return compiling(".svelte", (source) => compile(source, {}).js.code);
}

async function compileVue(): Promise<Plugin> {
  const { compileScript, parse } = await import("vue/compiler-sfc");
  return compiling(".vue", (source) => {
    const { descriptor, errors: [error] } = parse(source);
    if (error !== undefined) throw error;
    return compileScript(descriptor, { id: "app", inlineTemplate: true })
      .content;
  });
}

async function compileSolid(): Promise<Plugin> {
  const { transformAsync } = await import("@babel/core");
  const { default: solid } = await import("babel-preset-solid");
  return compiling("solid.tsx", async (source) => {
    // Types first: what is left is JavaScript with JSX.
    const { code } = await transform(source, {
      loader: "tsx",
      jsx: "preserve",
    });
    const compiled = await transformAsync(code, {
      babelrc: false,
      configFile: false,
      presets: [solid],
    });
    return compiled!.code!;
  });
}

const HTML = `<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>Sampan</title>
    <link rel="icon" href="data:,">
    <style>${await Deno.readTextFile(
  new URL("style.css", import.meta.url),
)}</style>
  </head>
  <body>
    <div id="app"></div>
    <p id="problem" role="alert"></p>
    <script type="module" src="app.js"></script>
  </body>
</html>
`;

const { positionals: [name = ""], values } = parseArgs({
  allowPositionals: true,
  options: { port: { type: "string" }, data: { type: "string" } },
});
const example = EXAMPLES[name];
if (example === undefined) {
  const names = Object.keys(EXAMPLES).join(", ");
  throw new Error(`There is no example "${name}": name one of ${names}`);
}
const { port, text, machine, compiler } = example;
const files = await pageFiles(HTML, {
  // What goes wrong while the page loads is shown too.
  text: `import "./web/examples/shell.ts";\n${text}`,
  plugins: compiler === undefined ? [] : [await compiler()],
});

await using data = await DataFolder.open(values.data ?? `data/${name}`);
await using host = new NodeHost({
  logDB: data.logDB,
  snapshots: data.snapshots,
});
await host.startConcurrentCluster(machine.create, {
  clusterID: 1n,
  nodeID: 1n,
  snapshotEntries: 1000,
});
const server = serve(host, {
  port: Number(values.port ?? port),
  // Arguments, versions and authors are checked before a command is in the log.
  validate: machine.validate,
  fetch: servePage(files),
});
const { port: listening } = new URL(server.httpURL);
Deno.stdout.writeSync(new TextEncoder().encode(
  `Open http://localhost:${listening}/ and http://127.0.0.1:${listening}/ : to a browser these are two devices.\n`,
));
await server.finished;
