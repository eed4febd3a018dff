import { assert, assertEquals } from "@std/assert";

const ROOT = new URL("../../", import.meta.url);

/** Packages that the server and its page need, the bundler of the page, and terser with its own, which makes its script smaller. */
const NEEDED = [
  "@esbuild",
  "@jridgewell/gen-mapping",
  "@jridgewell/resolve-uri",
  "@jridgewell/source-map",
  "@jridgewell/sourcemap-codec",
  "@jridgewell/trace-mapping",
  "@opentelemetry/api",
  "acorn",
  "buffer-from",
  "commander",
  "esbuild",
  "fractional-indexing",
  "idb-keyval",
  "marked",
  "source-map",
  "source-map-support",
  "terser",
  "uplot",
  "uqr",
  "valibot",
];

/**
 * Packages with files in a cache of Deno; packages of which only the metadata
 * is cached are left out.
 */
function* cached(folder: string, scope = ""): Generator<string> {
  for (const { name, isDirectory } of Deno.readDirSync(folder)) {
    if (!isDirectory) continue;
    if (name.startsWith("@")) yield* cached(`${folder}/${name}`, `${name}/`);
    else {
      const versions = [...Deno.readDirSync(`${folder}/${name}`)];
      if (versions.some((one) => one.isDirectory)) yield scope + name;
    }
  }
}

Deno.test("deno task start fetches only what the server and its page need", async () => {
  const folder = await Deno.makeTempDir();
  const child = new Deno.Command(Deno.execPath(), {
    args: ["task", "start", "--port", "0", "--data", `${folder}/data`],
    cwd: ROOT,
    env: { DENO_DIR: `${folder}/cache`, NO_COLOR: "1" },
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  try {
    let said = "";
    const reader = child.stdout.pipeThrough(new TextDecoderStream())
      .getReader();
    let url: string | undefined;
    while (url === undefined) {
      const { done, value } = await reader.read();
      assert(!done, `It ended: ${said}`);
      said += value;
      url = /http:\/\/\S+/.exec(said)?.[0];
    }
    const page = await fetch(url);
    assert((await page.text()).includes("<script"));
    const names = [...Deno.readDirSync(`${folder}/cache/npm`)].flatMap(
      ({ name }) => [...cached(`${folder}/cache/npm/${name}`)],
    );
    const found = names.map((name) =>
      name.replace(/^@esbuild\/.*/, "@esbuild")
    );
    assertEquals([...new Set(found)].sort(), NEEDED);
    child.kill("SIGTERM");
    while (!(await reader.read()).done);
    assert((await child.status).success);
  } finally {
    try {
      child.kill("SIGKILL");
    } catch {
      // It has ended.
    }
    await child.status;
    await Deno.remove(folder, { recursive: true });
  }
});
