/**
 * Installs the programs that the browser tests need besides Deno.
 *
 * This module needs Deno.
 *
 * @module
 */

/** Program: the names of its executable, and its Debian package. */
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

/** Programs without which some tests are skipped. */
const OPTIONAL: Readonly<Record<string, Program>> = {
  etcd: { names: ["etcd"], package: "etcd-server" },
  etcdctl: { names: ["etcdctl"], package: "etcd-client" },
};

/** Folders that are searched for programs. */
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

/**
 * Path of a program: `chromium`, `firefox`, `webkit` (its driver), `xvfb`, `etcd` or
 * `etcdctl`.
 */
export function program(name: string): string {
  const { names } = (PROGRAMS[name] ?? OPTIONAL[name])!;
  const found = find(names);
  if (found === undefined) throw new Error(`${names[0]} is not installed`);
  return found;
}

/** Debian packages of the programs that are missing. */
export function missing(
  folders: string = path(),
  programs: Readonly<Record<string, Program>> = PROGRAMS,
): string[] {
  return Object.values(programs)
    .filter(({ names }) => find(names, folders) === undefined)
    .map(({ package: name }) => name);
}

const INSTALL = ["install", "--yes", "--no-install-recommends"];

/**
 * Installs the missing programs if this is Debian and the user has the
 * permission, and reports it in one line. Searches these folders for programs.
 *
 * @throws Error in one line, with the missing packages and how to get them
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

/**
 * Installs etcd if it is missing, this is Debian and the user has the permission;
 * reports in one line what it does, or why the tests with etcd are skipped.
 */
export async function installEtcd(
  say: (line: string) => void,
  folders: string = path(),
): Promise<void> {
  const packages = missing(folders, OPTIONAL);
  if (packages.length === 0) return;
  const names = packages.join(" ");
  const apt = find(["apt-get"], folders);
  const skipped = (why: string): void =>
    say(`Tests with etcd are skipped: ${names} is not installed, and ${why}`);
  if (apt === undefined) return skipped("there is no apt-get");
  if (Deno.uid() !== 0) return skipped("only root may install it");
  say(`Installing what the tests with etcd need: ${names}`);
  const failed = await aptGet(apt, "update") ??
    await aptGet(apt, ...INSTALL, ...packages);
  if (failed !== undefined) skipped(`apt-get says: ${failed}`);
}

/**
 * Runs apt-get quietly; resolves to the last line of its error output, if any.
 */
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
