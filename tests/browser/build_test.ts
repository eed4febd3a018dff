import { assertEquals } from "@std/assert";
import ts from "typescript";
import { BUILDS, integrityOf, writeBuilds } from "../../web/build.ts";
import { stopBundler } from "../../web/bundle.ts";
import { consumer, CONSUMER_OUTPUT } from "../package/consumer.ts";

Deno.test.afterAll(() => stopBundler());

/** TypeScript's diagnostics of a program that runs in a browser. */
function check(path: string, resolution: ts.ModuleResolutionKind): string[] {
  const program = ts.createProgram([path], {
    lib: ["lib.esnext.d.ts", "lib.dom.d.ts", "lib.dom.asynciterable.d.ts"],
    module: resolution === ts.ModuleResolutionKind.Bundler
      ? ts.ModuleKind.ESNext
      : ts.ModuleKind.NodeNext,
    moduleResolution: resolution,
    noEmit: true,
    strict: true,
    target: ts.ScriptTarget.ESNext,
    types: [],
  });
  return ts.getPreEmitDiagnostics(program).map(({ file, messageText }) =>
    `${file?.fileName}: ${ts.flattenDiagnosticMessageText(messageText, "\\n")}`
  );
}

Deno.test({
  name: "U37 the bundles work for who imports them, and so do their types",
  // The bundler process outlives the test that started it.
  sanitizeOps: false,
  sanitizeResources: false,
  async fn(t): Promise<void> {
    const folder = await Deno.makeTempDir();
    try {
      await writeBuilds(new URL(`file://${folder}/`));
      const path = `${folder}/consumer.mts`;
      await Deno.writeTextFile(
        path,
        consumer("./sampan.js", "./sampan-indexeddb.js"),
      );
      // Deno's own library has no types of IndexedDB.
      const lib = ["deno.ns", "dom", "dom.asynciterable", "esnext"];
      await Deno.writeTextFile(
        `${folder}/deno.json`,
        JSON.stringify({ compilerOptions: { lib } }),
      );
      await t.step("there are bundles, source maps and types", async () => {
        for (const { name } of BUILDS) {
          const code = await Deno.readTextFile(`${folder}/${name}.js`);
          assertEquals(/^import |[^.]import\(/m.test(code), false);
          const map = JSON.parse(
            await Deno.readTextFile(`${folder}/${name}.js.map`),
          ) as { sources: string[] };
          assertEquals(map.sources.some((s) => s.endsWith("replica.ts")), true);
          await Deno.stat(`${folder}/${name}.d.ts`);
          const hashes = JSON.parse(
            await Deno.readTextFile(`${folder}/integrity.json`),
          ) as Record<string, string>;
          assertEquals(
            hashes[`${name}.js`],
            await integrityOf(await Deno.readFile(`${folder}/${name}.js`)),
          );
        }
      });
      await t.step("Deno checks and runs it", async () => {
        const { stdout, stderr, success } = await new Deno.Command(
          Deno.execPath(),
          {
            args: ["run", "--quiet", "--no-lock", "--check", path],
            cwd: folder,
            env: { NO_COLOR: "1" },
          },
        ).output();
        const decoder = new TextDecoder();
        assertEquals([decoder.decode(stderr), success], ["", true]);
        assertEquals(decoder.decode(stdout), CONSUMER_OUTPUT);
      });
      await t.step("TypeScript checks it for a bundler", () => {
        assertEquals(check(path, ts.ModuleResolutionKind.Bundler), []);
      });
      await t.step("TypeScript checks it for Node", () => {
        assertEquals(check(path, ts.ModuleResolutionKind.NodeNext), []);
      });
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});
