import { assertEquals } from "@std/assert";
import ts from "typescript";
import { BUILDS, integrityOf, writeBuilds } from "../../web/build.ts";
import { stopBundler } from "../../web/bundle.ts";
import { consumer, CONSUMER_OUTPUT } from "../package/consumer.ts";

Deno.test.afterAll(() => stopBundler());

const HOST_CHUNKS = ["sampan-on-demand", "sampan-replays"];
const STORED_CHUNKS = [
  ...HOST_CHUNKS,
  "sampan-earlier-session",
  "sampan-snapshot-blocks",
  "sampan-start-over",
];

/** Names, without their hashes, of the files that each bundle loads when they are first needed. */
const CHUNKS: Readonly<Record<string, readonly string[]>> = {
  "sampan": HOST_CHUNKS,
  "sampan-indexeddb": STORED_CHUNKS,
  "sampan-sync": [
    ...STORED_CHUNKS,
    "sampan-http-probe",
    "sampan-snapshot-fetch",
  ],
  "sampan-inspector": [],
};

/** Program that prints the error of a snapshot, if there is one, and whether its replica goes on. */
const SNAPSHOT = `
import { NodeHost } from "./sampan.js";

const events = [];
const host = new NodeHost({ onEvent: ({ type }) => events.push(type) });
const replica = await host.startCluster(() => ({
  update: () => ({ value: 1n }),
  lookup: () => 1,
  saveSnapshot: () => {},
  recoverFromSnapshot: () => {},
  close: () => {},
}), { clusterID: 1n, nodeID: 1n });
await replica.propose(new Uint8Array());
const taken = await replica.requestSnapshot()
  .then(({ index }) => index > 0, (error) => error.name);
const { value } = await replica.propose(new Uint8Array());
console.log(events.join(), taken, String(value), replica.status.state);
await host.stop();
`;

/** Standard output of a program that Deno runs in a folder; fails if it writes errors. */
async function output(folder: string, ...args: string[]): Promise<string> {
  const { stdout, stderr, success } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "--no-lock", ...args],
    cwd: folder,
    env: { NO_COLOR: "1" },
  }).output();
  const decoder = new TextDecoder();
  assertEquals([decoder.decode(stderr), success], ["", true]);
  return decoder.decode(stdout);
}

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
          assertEquals(/^import /m.test(code), false);
          // What it loads later are files of this release that load nothing.
          const chunks = [...code.matchAll(/[^.]import\("\.\/([^"]+)"\)/g)]
            .map(([, chunk]) => chunk!);
          assertEquals(code.split(/[^.]import\(/).length, 1 + chunks.length);
          const isInspector = name === "sampan-inspector";
          assertEquals(
            chunks.map((chunk) => chunk.replace(/-[0-9a-f]{8}\.js$/, ""))
              .sort(),
            [...CHUNKS[name]!].sort(),
          );
          for (const chunk of chunks) {
            const later = await Deno.readTextFile(`${folder}/${chunk}`);
            assertEquals(/^import |[^.]import\(/m.test(later), false);
            await Deno.stat(`${folder}/${chunk}.map`);
          }
          const map = JSON.parse(
            await Deno.readTextFile(`${folder}/${name}.js.map`),
          ) as { sources: string[] };
          const source = isInspector ? "element.ts" : "replica.ts";
          assertEquals(map.sources.some((s) => s.endsWith(source)), true);
          await Deno.stat(`${folder}/${name}.d.ts`);
          const hashes = JSON.parse(
            await Deno.readTextFile(`${folder}/integrity.json`),
          ) as Record<string, string>;
          for (const file of [`${name}.js`, ...chunks]) {
            assertEquals(
              hashes[file],
              await integrityOf(await Deno.readFile(`${folder}/${file}`)),
            );
          }
        }
      });
      await t.step("Deno checks and runs it", async () => {
        assertEquals(await output(folder, "--check", path), CONSUMER_OUTPUT);
      });
      await t.step(
        "without its chunk a host postpones snapshots, and does everything else",
        async () => {
          const { name } = [...Deno.readDirSync(folder)]
            .find(({ name }) => /^sampan-on-demand-.*\.js$/.test(name))!;
          const chunk = `${folder}/${name}`;
          await Deno.writeTextFile(`${folder}/snapshot.js`, SNAPSHOT);
          await Deno.rename(chunk, `${chunk}.away`);
          assertEquals(
            await output(folder, "snapshot.js"),
            "snapshot failed ErrCodeNotLoaded 1 running\n",
          );
          await Deno.rename(`${chunk}.away`, chunk);
          assertEquals(
            await output(folder, "snapshot.js"),
            "snapshot true 1 running\n",
          );
        },
      );
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
