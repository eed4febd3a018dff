/**
 * Tools from npm and the package under test, each where a user would have it.
 *
 * This module needs Deno and npm.
 *
 * @module
 */

import { packTarball, writePackage } from "../../web/pack.ts";

const CACHE = new URL("../../.cache/package/", import.meta.url);

/**
 * Package with Node's binary: on Linux directly, elsewhere with a script that
 * downloads it.
 */
const NODE = Deno.build.os === "linux"
  ? `node-linux-${Deno.build.arch === "aarch64" ? "arm64" : "x64"}`
  : "node";

/** Versions of the tools the tests run, by the name they are installed under. */
const TOOLS: Readonly<Record<string, string>> = {
  "@arethetypeswrong/cli": "0.18.5",
  "@rollup/plugin-node-resolve": "16.0.3",
  "@types/node": "22.20.7",
  "esbuild": "0.28.2",
  "node20": `npm:${NODE}@20.20.2`,
  "node22": `npm:${NODE}@22.23.3`,
  "node24": `npm:${NODE}@24.21.0`,
  "publint": "0.3.25",
  "rollup": "4.68.8",
  "typescript5": "npm:typescript@5.9.3",
  "typescript6": "npm:typescript@6.0.3",
  "typescript7": "npm:typescript@7.0.2",
  "vite": "8.4.0",
};

/** Output and exit of a program. */
export interface Output {
  /** True if it ended with status 0. */
  readonly success: boolean;
  /** Everything it printed, errors last. */
  readonly text: string;
}

/** A path on this machine. */
export function pathOf(url: URL): string {
  return decodeURIComponent(url.pathname);
}

/** Runs a program in a folder to its end. */
export async function run(
  program: string,
  args: readonly string[],
  cwd: URL,
): Promise<Output> {
  const { stdout, stderr, success } = await new Deno.Command(program, {
    args: [...args],
    cwd,
    env: { NO_COLOR: "1", CI: "1" },
    stdin: "null",
  }).output();
  const decoder = new TextDecoder();
  return { success, text: decoder.decode(stdout) + decoder.decode(stderr) };
}

/** Runs npm; rejects if it fails. */
async function npm(args: readonly string[], cwd: URL): Promise<void> {
  const { success, text } = await run("npm", [
    ...args,
    "--no-audit",
    "--no-fund",
    "--prefer-offline",
  ], cwd);
  if (!success) throw new Error(`npm ${args[0]} failed: ${text}`);
}

async function install(): Promise<URL> {
  await Deno.mkdir(CACHE, { recursive: true });
  // Test files run at the same time, and npm may not run twice in a folder.
  using lock = await Deno.open(new URL("lock", CACHE), {
    create: true,
    write: true,
  });
  await lock.lock(true);
  const folder = new URL("tools/", CACHE);
  const wanted = JSON.stringify({ private: true, dependencies: TOOLS });
  const manifest = new URL("package.json", folder);
  const done = new URL("installed", folder);
  const installed = await Deno.readTextFile(done).catch(() => "");
  if (installed !== wanted) {
    await Deno.mkdir(folder, { recursive: true });
    await Deno.writeTextFile(manifest, wanted);
    await npm(["install"], folder);
    await Deno.writeTextFile(done, wanted);
  }
  return new URL("node_modules/", folder);
}

let tools: Promise<URL> | undefined;

/** Installs the tools, once; resolves to their `node_modules`. */
export function installTools(): Promise<URL> {
  return tools ??= install();
}

/** Runs a script of an installed tool with Node. */
export async function runTool(
  script: string,
  args: readonly string[],
  cwd: URL,
): Promise<Output> {
  const modules = await installTools();
  return await runNode(22, [pathOf(new URL(script, modules)), ...args], cwd);
}

/** Versions of Node that the tests run. */
export type NodeVersion = 20 | 22 | 24;

/** Runs Node in a folder. */
export async function runNode(
  version: NodeVersion,
  args: readonly string[],
  cwd: URL,
): Promise<Output> {
  const modules = await installTools();
  return await run(
    pathOf(new URL(`node${version}/bin/node`, modules)),
    args,
    cwd,
  );
}

/** The package, in a folder of its own, with an empty project that has installed its tarball. */
export interface Installed extends AsyncDisposable {
  /** The project. */
  readonly project: URL;
  /** The folder that was packed. */
  readonly source: URL;
  /** The tarball. */
  readonly tarball: URL;
}

/** Packs the sources and installs the tarball into an empty project. */
export async function installPackage(): Promise<Installed> {
  const folder = new URL(
    `file://${await Deno.makeTempDir({ prefix: "package-" })}/`,
  );
  const source = new URL("npm/", folder);
  await writePackage(source);
  const tarball = await packTarball(source);
  const project = new URL("project/", folder);
  await Deno.mkdir(project);
  await Deno.writeTextFile(
    new URL("package.json", project),
    '{ "private": true, "type": "module" }\n',
  );
  await npm(["install", pathOf(tarball)], project);
  return {
    project,
    source,
    tarball,
    async [Symbol.asyncDispose](): Promise<void> {
      await Deno.remove(folder, { recursive: true });
    },
  };
}
