/**
 * The browser build: the bundles of a release, each with a source map and its
 * types, and what bundles and pages weigh.
 *
 * ```sh
 * deno task build
 * deno task sizes
 * ```
 *
 * The first writes `dist/`, the second the tables of weights in `web/README.md`.
 *
 * This module needs Deno.
 *
 * @module
 */

import { gzipSync } from "node:zlib";
import {
  type Bundle,
  type BundleWithChunks,
  bundleWithChunks,
  type Chunk,
  ROOT,
  stopBundler,
} from "./bundle.ts";
import { declarations } from "./declarations.ts";
import { bundlePlayground } from "./playground.ts";
import { shrink } from "./shrink.ts";

/** One of the bundles. */
export interface Build {
  /** Name of the bundle, without `.js`. */
  readonly name: string;
  /** The text of the module it is made of. */
  readonly text: string;
  /** Upper bound of its weight, minified and gzipped, in bytes. Held to by a test. */
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

/** Inspector of a page, loaded when it is opened. */
const INSPECTOR = `
export * from "./src/inspector/mod.ts";
`;

/** The bundles of a release. */
export const BUILDS: readonly Build[] = [
  {
    name: "sampan",
    text: CORE,
    gzippedBytesMax: 40.25 * 1024,
  },
  {
    name: "sampan-indexeddb",
    text: STORED,
    gzippedBytesMax: 83.25 * 1024,
  },
  {
    name: "sampan-inspector",
    text: INSPECTOR,
    gzippedBytesMax: 43 * 1024,
  },
  {
    name: "sampan-sync",
    text: CLIENT,
    gzippedBytesMax: 100 * 1024,
  },
];

/** A page whose own bundler takes of the sources what it imports. */
export interface Page {
  /** Description of the page. */
  readonly name: string;
  /** Module of the page, which exports what it uses. */
  readonly text: string;
  /** Weight of Sampan in it to work towards, minified and gzipped, in bytes. */
  readonly gzippedBytesAim: number;
  /** Upper bound of the weight of Sampan in it, minified and gzipped, in bytes. Held to by a test. */
  readonly gzippedBytesMax: number;
}

/** The module of a page that imports some names. */
export function pageText(names: string, from = "./mod.ts"): string {
  return `export { ${names} } from "${from}";`;
}

const KIB = 1024;
const INDEXEDDB = "./src/indexeddb/mod.ts";
const CLIENT_OF_SERVER = pageText("RemoteLogDB", "./src/sync/client/mod.ts");

/** Pages of every kind: none carries what it does not need. */
export const PAGES: readonly Page[] = [
  {
    name: "commands and queries of the key-value machines (`kv`)",
    text: pageText("kv"),
    gzippedBytesAim: 4 * KIB,
    gzippedBytesMax: 3.5 * KIB,
  },
  {
    name: "`KVStateMachine`",
    text: pageText("KVStateMachine"),
    gzippedBytesAim: 8 * KIB,
    gzippedBytesMax: 10.5 * KIB,
  },
  {
    name: "`ConcurrentKVStateMachine`",
    text: pageText("ConcurrentKVStateMachine"),
    gzippedBytesAim: 8 * KIB,
    gzippedBytesMax: 10.5 * KIB,
  },
  {
    name: "`IndexedDBKVStateMachine`",
    text: pageText("IndexedDBKVStateMachine", INDEXEDDB),
    gzippedBytesAim: 20 * KIB,
    gzippedBytesMax: 23.75 * KIB,
  },
  {
    name: "`IndexedDBLogDB`",
    text: pageText("IndexedDBLogDB", INDEXEDDB),
    gzippedBytesAim: 12 * KIB,
    gzippedBytesMax: 13.75 * KIB,
  },
  {
    name: "host (`NodeHost`)",
    text: pageText("NodeHost"),
    gzippedBytesAim: 22 * KIB,
    gzippedBytesMax: 32.5 * KIB,
  },
  {
    name: "host, key-value machine, log and snapshots in IndexedDB",
    text: [
      pageText("kv, NodeHost"),
      pageText(
        "IndexedDBKVStateMachine, IndexedDBLogDB, IndexedDBSnapshotStore",
        INDEXEDDB,
      ),
    ].join("\n"),
    gzippedBytesAim: 50 * KIB,
    gzippedBytesMax: 62.5 * KIB,
  },
  {
    name: "offline page with its state in IndexedDB",
    text: [
      pageText("kv, NodeHost"),
      pageText(
        "deviceID, IndexedDBKVStateMachine, IndexedDBOutbox, IndexedDBSnapshotStore",
        INDEXEDDB,
      ),
      CLIENT_OF_SERVER,
    ].join("\n"),
    gzippedBytesAim: 52 * KIB,
    gzippedBytesMax: 91.5 * KIB,
  },
  {
    name: "offline page with its state in memory",
    text: [
      pageText("NodeHost"),
      pageText("deviceID, IndexedDBOutbox, IndexedDBSnapshotStore", INDEXEDDB),
      CLIENT_OF_SERVER,
    ].join("\n"),
    gzippedBytesAim: 46 * KIB,
    gzippedBytesMax: 74.5 * KIB,
  },
  {
    name: "offline page with a typed machine, its state in memory",
    text: [
      pageText("NodeHost"),
      pageText("defineMachine, newID, table, typed", "./src/typed/mod.ts"),
      pageText("deviceID, IndexedDBOutbox, IndexedDBSnapshotStore", INDEXEDDB),
      CLIENT_OF_SERVER,
    ].join("\n"),
    gzippedBytesAim: 55 * KIB,
    gzippedBytesMax: 86.25 * KIB,
  },
  {
    name: "the same, shared by the tabs of its origin (`shareTabs`)",
    text: [
      pageText("NodeHost"),
      pageText("defineMachine, newID, table, typed", "./src/typed/mod.ts"),
      pageText("deviceID, IndexedDBOutbox, IndexedDBSnapshotStore", INDEXEDDB),
      CLIENT_OF_SERVER,
      pageText("shareTabs", "./src/tabs/mod.ts"),
    ].join("\n"),
    gzippedBytesAim: 65 * KIB,
    gzippedBytesMax: 99.25 * KIB,
  },
];

/** Weight of code, in bytes. */
export interface Size {
  /** Bytes after minification. */
  readonly minified: number;
  /** Bytes after minification and gzip. */
  readonly gzipped: number;
}

/** Weighs code. */
export function sizeOf(code: string | Uint8Array): Size {
  const bytes = typeof code === "string"
    ? new TextEncoder().encode(code)
    : code;
  return {
    minified: bytes.length,
    gzipped: gzipSync(bytes, { level: 9 }).length,
  };
}

/** Upper bound of the weight of all chunks of a bundle, minified and gzipped, in bytes. Held to by a test. */
export const CHUNKS_BYTES_MAX: number = 46.25 * 1024;

/** Chunks of a release by name: all bundles load the same. */
const shrunkChunks = new Map<string, Promise<Chunk>>();

/** Passes of the second minification of a release. */
const PASSES = 3;

/** Bundles a module for a release. */
export async function buildRelease(
  { name, text }: Pick<Build, "name" | "text">,
): Promise<BundleWithChunks> {
  const { chunks, ...bundled } = await bundleWithChunks({
    name,
    text,
    // Each exports the stores in memory.
    included: ["src/nodehost/memory_stores.ts"],
  });
  // Deno finds the types by this line, TypeScript by the name of the file.
  const preamble = `// @ts-self-types="./${name}.d.ts"`;
  return {
    ...await shrink(bundled, { name, preamble, passes: PASSES }),
    chunks: await Promise.all(chunks.map((chunk) => {
      const shrunk = shrunkChunks.get(chunk.name) ??
        shrink(chunk, { name: chunk.name, passes: PASSES });
      shrunkChunks.set(chunk.name, shrunk);
      return shrunk;
    })),
  };
}

/** Weighs the chunks of a bundle, in bytes gzipped. */
export function chunksBytes({ chunks }: BundleWithChunks): number {
  return chunks.reduce((sum, { code }) => sum + sizeOf(code).gzipped, 0);
}

/** Gzipped bytes of each module in a bundle: its share of the whole, in proportion to its minified code. */
export function moduleShares(
  { code, metafile }: Bundle,
): ReadonlyMap<string, number> {
  const { gzipped } = sizeOf(code);
  const output = Object.values(metafile.outputs)
    .find(({ entryPoint }) => entryPoint !== undefined)!;
  const parts = Object.entries(output.inputs)
    .map(([path, { bytesInOutput }]) =>
      [moduleName(path), bytesInOutput] as const
    );
  const all = parts.reduce((sum, [, bytes]) => sum + bytes, 0);
  return new Map(
    parts.map(([name, bytes]) => [name, gzipped * bytes / all]),
  );
}

/** Path of a module below the project's folder; of one from npm, the name of its package. */
function moduleName(path: string): string {
  const [, name] = /\/((?:@[^/]+\/)?[^/]+)\/\d+\.\d+\.\d+[^/]*\//.exec(path) ??
    [];
  return name ?? path;
}

function kibibytes(bytes: number): string {
  return (bytes / KIB).toFixed(1);
}

/** Rows of a table in Markdown. */
function table(
  head: readonly string[],
  rows: readonly (readonly string[])[],
): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
  const rule = head.map((_, i) => i === 0 ? "---" : "--:");
  return [head, rule, ...rows].map(line).join("\n");
}

/** Bytes from which a module has a row of its own in the table. */
const ROW_BYTES_MIN = 100;

/** Tables of what bundles, pages and modules weigh, in Markdown. */
export async function sizeTables(): Promise<string> {
  const shares: ReadonlyMap<string, number>[] = [];
  const bundles: string[][] = [];
  for (const build of BUILDS) {
    const release = await buildRelease(build);
    const { minified, gzipped } = sizeOf(release.code);
    bundles.push([
      `\`${build.name}.js\``,
      ...[minified, gzipped, build.gzippedBytesMax, chunksBytes(release)]
        .map(kibibytes),
    ]);
    shares.push(moduleShares(release));
  }
  const pages: string[][] = [];
  for (const { name, text, gzippedBytesAim, gzippedBytesMax } of PAGES) {
    const page = await bundleWithChunks({ name: "page", text });
    const { minified, gzipped } = sizeOf(page.code);
    pages.push([
      name,
      ...[minified, gzipped, gzippedBytesMax, gzippedBytesAim].map(kibibytes),
      page.chunks.length === 0 ? "" : kibibytes(chunksBytes(page)),
    ]);
  }
  const names = [...new Set(shares.flatMap((share) => [...share.keys()]))];
  const rows = names
    .map((name) => ({
      name,
      bytes: shares.map((share) => share.get(name) ?? 0),
    }))
    .sort((a, b) => b.bytes.at(-1)! - a.bytes.at(-1)!);
  const small = rows.filter(({ bytes }) => Math.max(...bytes) < ROW_BYTES_MIN);
  const rest = {
    name: `${small.length} modules below ${ROW_BYTES_MIN} bytes`,
    bytes: shares.map((_, i) =>
      small.reduce((sum, { bytes }) => sum + bytes[i]!, 0)
    ),
  };
  const modules = [...rows.filter((row) => !small.includes(row)), rest];
  return [
    table(
      ["bundle, in KiB", "minified", "gzipped", "at most", "loaded later"],
      bundles,
    ),
    table(
      [
        "page that imports, in KiB",
        "minified",
        "gzipped",
        "at most",
        "aim",
        "loaded later",
      ],
      pages,
    ),
    table(
      ["module, in bytes gzipped", ...BUILDS.map(({ name }) => `\`${name}\``)],
      modules.map(({ name, bytes }) => [
        `\`${name}\``.replace(/^`(\d.*)`$/, "$1"),
        ...bytes.map((count) => count === 0 ? "" : count.toFixed(0)),
      ]),
    ),
  ].join("\n\n");
}

/** Comments in `web/README.md` between which the tables are. */
const TABLES = /(?<=<!-- sizes -->\n)[\s\S]*(?=<!-- \/sizes -->)/;

async function writeSizeTables(): Promise<void> {
  const readme = new URL("web/README.md", ROOT);
  const text = await Deno.readTextFile(readme);
  const tables = await sizeTables();
  await Deno.writeTextFile(readme, text.replace(TABLES, `\n${tables}\n\n`));
}

function say(...lines: string[]): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${lines.join("\n")}\n`));
}

/** Computes the hash that a page names in `integrity`, so that its browser runs no other script. */
export async function integrityOf(
  code: Uint8Array<ArrayBuffer>,
): Promise<string> {
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-384", code));
  return `sha384-${btoa(String.fromCharCode(...hash))}`;
}

/** Writes the bundles, their source maps, their types and their hashes, and the playground, into a folder, which it empties first. */
export async function writeBuilds(
  folder: URL,
  report: (line: string) => void = () => {},
): Promise<void> {
  await Deno.remove(folder, { recursive: true }).catch(() => {});
  await Deno.mkdir(folder, { recursive: true });
  const hashes: Record<string, string> = {};
  const write = async (name: string, { code, map }: Bundle): Promise<void> => {
    await Deno.writeFile(new URL(`${name}.js`, folder), code);
    await Deno.writeFile(new URL(`${name}.js.map`, folder), map);
    const hash = await integrityOf(code as Uint8Array<ArrayBuffer>);
    hashes[`${name}.js`] = hash;
    const { minified, gzipped } = sizeOf(code);
    report(
      `${name}.js: ${kibibytes(minified)} KiB minified, ${
        kibibytes(gzipped)
      } KiB gzipped, ${hash}`,
    );
  };
  const chunks = new Map<string, Chunk>();
  for (const { name, text } of BUILDS) {
    const release = await buildRelease({ name, text });
    for (const chunk of release.chunks) chunks.set(chunk.name, chunk);
    await write(name, release);
    for (const [path, types] of declarations(name, text)) {
      const file = new URL(path, folder);
      await Deno.mkdir(new URL("./", file), { recursive: true });
      await Deno.writeTextFile(file, types);
    }
  }
  for (const [name, chunk] of chunks) await write(name, chunk);
  const { html } = await bundlePlayground();
  const site = new URL("playground/", folder);
  await Deno.mkdir(site);
  await Deno.writeTextFile(new URL("index.html", site), html);
  report(
    `playground/index.html: ${kibibytes(sizeOf(html).gzipped)} KiB gzipped`,
  );
  await Deno.writeTextFile(
    new URL("integrity.json", folder),
    `${JSON.stringify(hashes, null, 2)}\n`,
  );
}

if (import.meta.main) {
  try {
    if (Deno.args.includes("--sizes")) await writeSizeTables();
    else await writeBuilds(new URL("dist/", ROOT), say);
  } finally {
    await stopBundler();
  }
}
