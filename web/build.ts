/**
 * The browser build: `dist/sampan.js`, the core alone, and
 * `dist/sampan-indexeddb.js`, with the key-value machines and what keeps logs,
 * snapshots and state in IndexedDB; each with a source map and its types.
 *
 * ```sh
 * deno task build
 * ```
 *
 * This module needs Deno.
 *
 * @module
 */

import { transform } from "esbuild";
import { gzipSync } from "node:zlib";
import { bundle, ROOT, stopBundler } from "./bundle.ts";
import { declarations } from "./declarations.ts";

/** One of the bundles. */
export interface Build {
  /** Name of the bundle, without `.js`. */
  readonly name: string;
  /** The text of the module it is made of. */
  readonly text: string;
  /** What it should weigh minified and gzipped, in bytes. */
  readonly gzippedBytesAim: number;
  /** What it may weigh minified and gzipped, in bytes, until it does. Held to by a test. */
  readonly gzippedBytesMax: number;
}

/** The contract, the host, and logs, snapshots and files in memory: no machine, nothing durable. */
const CORE = `
export * from "./src/statemachine/mod.ts";
export * from "./src/log/errors.ts";
export * from "./src/log/log.ts";
export * from "./src/log/memory_log.ts";
export { packRecords, recordAt } from "./src/log/records.ts";
export { SnapshotFileCollection } from "./src/snapshot/snapshot_file_collection.ts";
export * from "./src/snapshot/reader.ts";
export * from "./src/snapshot/verifier.ts";
export * from "./src/snapshot/writer.ts";
export * from "./src/snapshot/errors.ts";
export * from "./src/snapshot/file_store.ts";
export * from "./src/snapshot/memory_file_store.ts";
export * from "./src/snapshot/memory_snapshot_store.ts";
export * from "./src/snapshot/store.ts";
export * from "./src/nodehost/mod.ts";
export * from "./src/rsm/errors.ts";
export type { HostRow, HostState, IHostState } from "./src/rsm/host_state.ts";
export type { Env } from "./src/env.ts";
`;

/** All of `mod.ts`, and what keeps it in IndexedDB. */
const STORED = `
export * from "./mod.ts";
export * from "./src/indexeddb/mod.ts";
`;

/** Everything for a page that works offline: machines, stores, outboxes, the client of a server, and their errors. */
const CLIENT = `
${STORED}
export * from "./src/sync/client/mod.ts";
`;

/** The bundles of a release. */
export const BUILDS: readonly Build[] = [
  {
    name: "sampan",
    text: CORE,
    gzippedBytesAim: 8 * 1024,
    gzippedBytesMax: 45 * 1024,
  },
  {
    name: "sampan-indexeddb",
    text: STORED,
    gzippedBytesAim: 16 * 1024,
    gzippedBytesMax: 83 * 1024,
  },
  {
    name: "sampan-sync",
    text: CLIENT,
    gzippedBytesAim: 28 * 1024,
    gzippedBytesMax: 100 * 1024,
  },
];

/** A page whose own bundler takes of the sources what it imports. */
export interface Page {
  /** What it imports. */
  readonly names: string;
  /** The module it imports that from. */
  readonly from: string;
  /** What of Sampan it may carry minified and gzipped, in bytes. Held to by a test. */
  readonly gzippedBytesMax: number;
}

/** Pages of every kind: none carries what it does not need. */
export const PAGES: readonly Page[] = [
  { names: "kv", from: "./mod.ts", gzippedBytesMax: 4 * 1024 },
  { names: "KVStateMachine", from: "./mod.ts", gzippedBytesMax: 9.5 * 1024 },
  {
    names: "ConcurrentKVStateMachine",
    from: "./mod.ts",
    gzippedBytesMax: 9.5 * 1024,
  },
  {
    names: "IndexedDBKVStateMachine",
    from: "./src/indexeddb/mod.ts",
    gzippedBytesMax: 21 * 1024,
  },
  {
    names: "IndexedDBLogDB",
    from: "./src/indexeddb/mod.ts",
    gzippedBytesMax: 12 * 1024,
  },
  { names: "NodeHost", from: "./mod.ts", gzippedBytesMax: 45 * 1024 },
];

/** The module of a page. */
export function pageText(
  { names, from }: Omit<Page, "gzippedBytesMax">,
): string {
  return `import { ${names} } from "${from}"; console.log(${names});`;
}

/** What a bundle weighs, in bytes. */
export interface Size {
  /** Minified. */
  readonly minified: number;
  /** Minified and gzipped. */
  readonly gzipped: number;
}

/** What a folder adds to a bundle, in bytes. */
export interface RoomSize extends Size {
  /** The folder below `src/`, or the file in it. */
  readonly room: string;
}

/** What code weighs. */
export function sizeOf(code: string | Uint8Array): Size {
  const bytes = typeof code === "string"
    ? new TextEncoder().encode(code)
    : code;
  return {
    minified: bytes.length,
    gzipped: gzipSync(bytes, { level: 9 }).length,
  };
}

/** The folder below `src/` that a module is in, or the module if it is in none, or the package. */
function roomOf(path: string): string {
  const [, own, other] = /^src\/([^/]+)|([^/]+)\/\d[^/]*\/(?:dist|lib)[^/]*\//
    .exec(path) ?? [];
  return own ?? other ?? path;
}

/** What each folder adds to a bundle: its size less what it would be without that folder's code. */
export async function rooms(text: string): Promise<RoomSize[]> {
  const { code } = await bundle({ name: "rooms", text, minify: "names" });
  const parts = new Map<string, string[]>();
  let part: string[] = [];
  // What is exported names code of every folder: left out, it keeps no folder in.
  const body = new TextDecoder().decode(code).replace(
    /^export \{[^}]*\};$/gm,
    "",
  );
  for (const line of body.split("\n")) {
    const path = /^\/\/ (\S+\.m?[jt]s)$/.exec(line)?.[1];
    if (path !== undefined) {
      const room = roomOf(path);
      parts.set(room, part = parts.get(room) ?? []);
    } else part.push(line);
  }
  const sizeWithout = async (without?: string): Promise<Size> => {
    const rest = [...parts].flatMap(([room, lines]) =>
      room === without ? [] : lines
    );
    const { code } = await transform(rest.join("\n"), {
      minifyWhitespace: true,
      legalComments: "none",
    });
    return sizeOf(code);
  };
  const whole = await sizeWithout();
  const sizes: RoomSize[] = [];
  for (const room of parts.keys()) {
    const { minified, gzipped } = await sizeWithout(room);
    sizes.push({
      room,
      minified: whole.minified - minified,
      gzipped: whole.gzipped - gzipped,
    });
  }
  return sizes.filter(({ minified }) => minified > 20)
    .sort((a, b) => b.gzipped - a.gzipped);
}

function kibibytes(bytes: number): string {
  return `${(bytes / 1024).toFixed(1)} KiB`.padStart(9);
}

function row(name: string, { minified, gzipped }: Size): string {
  return `${name.padEnd(26)} ${kibibytes(minified)} minified ${
    kibibytes(gzipped)
  } gzipped`;
}

function say(...lines: string[]): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${lines.join("\n")}\n`));
}

/** The hash that a page names in `integrity`, so that its browser runs no other script. */
export async function integrityOf(
  code: Uint8Array<ArrayBuffer>,
): Promise<string> {
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-384", code));
  return `sha384-${btoa(String.fromCharCode(...hash))}`;
}

/** Writes the bundles, their source maps, their types and their hashes into a folder, made new. */
export async function writeBuilds(
  folder: URL,
  told: (line: string) => void = () => {},
): Promise<void> {
  await Deno.remove(folder, { recursive: true }).catch(() => {});
  await Deno.mkdir(folder, { recursive: true });
  const hashes: Record<string, string> = {};
  for (const { name, text, gzippedBytesAim } of BUILDS) {
    // Deno finds the types by this line, TypeScript by the name of the file.
    const banner = `// @ts-self-types="./${name}.d.ts"`;
    const { code, map } = await bundle({ name, text, banner });
    await Deno.writeFile(new URL(`${name}.js`, folder), code);
    await Deno.writeFile(new URL(`${name}.js.map`, folder), map);
    for (const [path, types] of declarations(name, text)) {
      const file = new URL(path, folder);
      await Deno.mkdir(new URL("./", file), { recursive: true });
      await Deno.writeTextFile(file, types);
    }
    const hash = await integrityOf(code as Uint8Array<ArrayBuffer>);
    hashes[`${name}.js`] = hash;
    told(row(`${name}.js`, sizeOf(code)));
    told(`  ${hash}`);
    told(`  should be ${kibibytes(gzippedBytesAim).trim()} gzipped; of it is`);
    {
      for (const size of await rooms(text)) told(row(`  ${size.room}`, size));
    }
  }
  await Deno.writeTextFile(
    new URL("integrity.json", folder),
    `${JSON.stringify(hashes, null, 2)}\n`,
  );
  told("a page that bundles the sources and imports");
  for (const page of PAGES) {
    const { code } = await bundle({ name: "page", text: pageText(page) });
    told(row(`  ${page.names}`, sizeOf(code)));
  }
}

if (import.meta.main) {
  try {
    await writeBuilds(new URL("dist/", ROOT), say);
  } finally {
    await stopBundler();
  }
}
