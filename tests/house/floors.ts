/**
 * Oldest runtimes that the project supports, as the README states them.
 *
 * @module
 */

/** Oldest version of each browser and runtime, by the names of MDN's compatibility data. */
export const FLOORS = {
  chrome: 110,
  chrome_android: 110,
  firefox: 115,
  firefox_android: 115,
  safari: 16.4,
  safari_ios: 16.4,
  deno: 2.2,
  nodejs: 20,
} as const;

/** A browser or a runtime. */
export type Runtime = keyof typeof FLOORS;

const BROWSERS: readonly Runtime[] = [
  "chrome",
  "chrome_android",
  "firefox",
  "firefox_android",
  "safari",
  "safari_ios",
];

/** Runtimes that a module of `src/` has to work in; those that need Deno, and the server's, in no other. */
export function runtimesOf(
  path: string,
  needsDeno: boolean,
): readonly Runtime[] {
  if (needsDeno || path.startsWith("src/sync/server/")) return ["deno"];
  if (/^src\/(indexeddb|inspector)\//.test(path)) return BROWSERS;
  return [...BROWSERS, "deno", "nodejs"];
}

/** A built-in that is newer than a floor, and used all the same. */
export interface Exception {
  /** Its name in MDN's compatibility data, below `api` or `javascript.builtins`. */
  readonly builtin: string;
  /** The modules that may use it. */
  readonly modules: RegExp;
  /** Substitute where it is missing. */
  readonly because: string;
}

/** Built-ins that have a fallback, or that only an optional part needs. */
export const EXCEPTIONS: readonly Exception[] = [
  {
    builtin: "Symbol.asyncDispose",
    modules: /^src\//,
    because: "Only ever the name of a method that has a plain twin",
  },
  {
    builtin: "IDBFactory.databases",
    modules: /^src\/indexeddb\/(open|storage)\.ts$/,
    because: "Called only where it exists",
  },
  {
    builtin: "StorageManager.estimate",
    modules: /^src\/inspector\/storage\.ts$/,
    because: "Called only where it exists",
  },
  {
    builtin: "FileSystemFileHandle.createWritable",
    modules: /^src\/indexeddb\/opfs_file_store\.ts$/,
    because: "The file store is optional, and says what it misses",
  },
  {
    builtin: "FileSystemWritableFileStream.write",
    modules: /^src\/indexeddb\/opfs_file_store\.ts$/,
    because: "The file store is optional, and says what it misses",
  },
  {
    builtin: "Navigator.locks",
    modules: /^src\/tabs\/platform\.ts$/,
    because: "Without it tabs share nothing, and say why",
  },
  {
    builtin: "BroadcastChannel",
    modules: /^src\/tabs\/platform\.ts$/,
    because: "Used only together with Web Locks",
  },
  {
    builtin: "WebSocket",
    modules: /^src\/sync\/transport\.ts$/,
    because: "Node before 22 takes a connection of the caller's in `connect`",
  },
];
