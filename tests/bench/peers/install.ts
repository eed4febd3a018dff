/**
 * Installs the packages of the comparison, on demand, outside the sources: in
 * `.cache/peers/`, where the programs that use them are copied.
 *
 * This module needs Deno.
 *
 * @module
 */

const HERE = new URL("./", import.meta.url);
const TARGET = new URL("../../../.cache/peers/", import.meta.url);

/** Folder of the programs in Node. */
export const PEERS: string = decodeURIComponent(TARGET.pathname);

/** Node of the package `node`, which runs TypeScript. */
export const NODE: string = `${PEERS}npm/node_modules/.bin/node`;

async function copy(name: string): Promise<void> {
  await Deno.copyFile(new URL(name, HERE), new URL(name, TARGET));
}

async function read(path: URL): Promise<string> {
  return await Deno.readTextFile(path).catch(() => "");
}

/** Copies the programs, and installs the packages if those there are not the locked ones. */
export async function install(): Promise<void> {
  await Deno.mkdir(new URL("npm/", TARGET), { recursive: true });
  await copy("peer.ts");
  await copy("program.ts");
  const installed = new URL("npm/installed.json", TARGET);
  for await (const { name } of Deno.readDir(new URL("npm/", HERE))) {
    if (name !== "node_modules") await copy(`npm/${name}`);
  }
  const lock = await read(new URL("npm/package-lock.json", HERE));
  if (await read(installed) === lock) return;
  // Not `npm ci`, which fails if the lock lacks packages of other platforms.
  const { success } = await new Deno.Command("npm", {
    args: ["install", "--no-audit", "--no-fund", "--loglevel=error"],
    cwd: new URL("npm/", TARGET),
    stdout: "null",
  }).output();
  if (!success) throw new Error("npm install failed in .cache/peers/npm");
  await Deno.writeTextFile(installed, lock);
}
