/**
 * What the browser tests need besides Deno, and how it gets there.
 *
 * This module needs Deno.
 *
 * @module
 */

/** A program, under the names it goes by, and the Debian package it is in. */
interface Program {
  readonly names: readonly string[];
  readonly package: string;
}

const PROGRAMS: Readonly<Record<string, Program>> = {
  chromium: {
    names: ["chromium", "chromium-browser", "google-chrome"],
    package: "chromium",
  },
  firefox: { names: ["firefox-esr", "firefox"], package: "firefox-esr" },
  webkit: { names: ["WebKitWebDriver"], package: "webkit2gtk-driver" },
  xvfb: { names: ["Xvfb"], package: "xvfb" },
};

/** Folders that programs are looked for in. */
function path(): string {
  return Deno.env.get("PATH") ?? "";
}

function find(
  names: readonly string[],
  folders: string = path(),
): string | undefined {
  for (const folder of folders.split(":")) {
    for (const name of names) {
      const path = `${folder}/${name}`;
      try {
        if (Deno.statSync(path).isFile) return path;
      } catch {
        // Not there: the next folder may have it.
      }
    }
  }
  return undefined;
}

/** Where a program is: `chromium`, `firefox`, `webkit` (its driver) or `xvfb`. */
export function program(name: string): string {
  const { names } = PROGRAMS[name]!;
  const found = find(names);
  if (found === undefined) throw new Error(`${names[0]} is not installed`);
  return found;
}

/** The Debian packages of what is missing. */
export function missing(folders: string = path()): string[] {
  return Object.values(PROGRAMS)
    .filter(({ names }) => find(names, folders) === undefined)
    .map(({ package: name }) => name);
}

const INSTALL = ["install", "--yes", "--no-install-recommends"];

/**
 * Installs what is missing, if this is Debian and the user may, and says so in
 * one line. Looks for programs in these folders.
 *
 * @throws Error in one line, with what is missing and how to get it
 */
export async function install(
  say: (line: string) => void,
  folders: string = path(),
): Promise<void> {
  const packages = missing(folders);
  if (packages.length === 0) return;
  const names = packages.join(" ");
  const apt = find(["apt-get"], folders);
  const help = `The browser tests need what Debian has as ${names}; ${
    apt === undefined
      ? "install that"
      : `sudo apt-get ${INSTALL.join(" ")} ${names}`
  }, or do without it: deno task test:unit`;
  if (apt === undefined || Deno.uid() !== 0) throw new Error(help);
  say(`Installing what the browser tests need: ${names}`);
  const failed = await aptGet(apt, "update") ??
    await aptGet(apt, ...INSTALL, ...packages);
  if (failed !== undefined || missing(folders).length > 0) {
    throw new Error(`${help} (apt-get says: ${failed ?? "done"})`);
  }
}

/** Runs apt-get quietly; resolves to the last line of its complaint, if it has one. */
async function aptGet(
  path: string,
  ...args: string[]
): Promise<string | undefined> {
  const { success, stderr } = await new Deno.Command(path, {
    args: ["-qq", ...args],
    env: { DEBIAN_FRONTEND: "noninteractive" },
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).output();
  if (success) return undefined;
  return new TextDecoder().decode(stderr).trim().split("\n").at(-1) ?? "";
}
