import { assert, assertEquals } from "@std/assert";
import { namedTests, SPEC, specWithTests } from "./spec.ts";

const ROOT = new URL("../../", import.meta.url);

/** The source files below a folder, as paths from the root. */
function* sources(folder: string): Generator<string> {
  for (const { name, isDirectory } of Deno.readDirSync(new URL(folder, ROOT))) {
    if (isDirectory) yield* sources(`${folder}${name}/`);
    else if (/(?<!\.d)\.ts$/.test(name)) yield `${folder}${name}`;
  }
}

function read(path: string): string {
  return Deno.readTextFileSync(new URL(path, ROOT));
}

/** Code without its comments and texts. */
function code(path: string): string {
  return read(path)
    .replace(/\/\*[\s\S]*?\*\//g, "")
    .replace(/(^|\s)\/\/.*$/gm, "$1")
    .replace(/`(?:\\.|[^`\\])*`|"(?:\\.|[^"\\])*"/g, '""');
}

/** The files a file imports, as paths from the root. */
function imports(path: string): string[] {
  return [...read(path).matchAll(/(?:from|import)\s*\(?\s*"([^"]+)"/g)]
    .filter(([line]) => !line.includes("mod.ts\\"))
    .map(([, specifier]) => specifier!)
    .filter((specifier) => specifier.startsWith("."))
    .map((specifier) =>
      new URL(specifier, new URL(path, ROOT)).pathname.slice(
        ROOT.pathname.length,
      )
    );
}

const FLOORS: Record<string, number> = {
  statemachine: 1,
  log: 1,
  store: 1,
  snapshot: 1,
  rsm: 2,
  kv: 2,
  divergence: 3,
  rehearsal: 3,
  watch: 3,
  worker: 3,
  nodehost: 4,
  typed: 4,
  offline: 5,
  etcd: 6,
  indexeddb: 6,
  s3: 6,
  sqlite: 6,
  sync: 6,
  tabs: 6,
  testing: 6,
  cli: 7,
  inspector: 7,
};

Deno.test("spec.md lists every test that names a rule", () => {
  const spec = Deno.readTextFileSync(SPEC);
  assertEquals(specWithTests(spec), spec, "Run: deno task spec");
});

Deno.test("spec.md knows every rule at the start of a test's name, also one before a colon", () => {
  const tests = namedTests();
  assertEquals(tests.filter(({ name }) => /^[A-Z]\d+\b/.test(name)), []);
  const [older] = tests.filter(({ name }) =>
    name.startsWith("a tab with older code submits nothing")
  );
  assertEquals(older?.ids, ["M5", "U14"]);
});

Deno.test("spec.md has a test for every rule, or says why not", () => {
  const lines = Deno.readTextFileSync(SPEC).split("\n");
  const bare = lines.filter((line, i) =>
    line.startsWith("- **") && !line.endsWith("_") &&
    !lines[i + 1]?.startsWith("  - ")
  );
  assertEquals(bare, []);
});

Deno.test("a floor imports the floors below it, never one above", () => {
  for (const path of sources("src/")) {
    const floor = FLOORS[path.split("/")[1]!] ?? 0;
    if (floor === 0) continue;
    const withoutExamples = read(path).replace(/^ \*.*$/gm, "");
    for (const imported of imports(path)) {
      const other = FLOORS[imported.split("/")[1]!] ?? 0;
      if (!withoutExamples.includes(imported.split("/").at(-1)!)) continue;
      assert(other <= floor, `${path} imports ${imported}`);
    }
  }
});

/** Paths of modules that may need Deno: its folders, and the sockets of the server. */
const NEEDS_DENO =
  /^src\/(cli\/|deps\/(aws4fetch|cli_progress|grpc_js)|etcd\/|s3\/|sqlite\/|sync\/mod\.ts|sync\/server\/(mod|serve)\.ts)/;

Deno.test("modules that say they are browser compatible use nothing a browser lacks", () => {
  const lacking =
    /\bDeno\.|\bprocess\.|\bBuffer\b|ReadableStream\.from|\bsetImmediate\b|from "node:/;
  for (const path of [...sources("src/"), "mod.ts"]) {
    const text = read(path);
    const compatible = text.includes("This module is browser compatible");
    const deno = NEEDS_DENO.test(path) &&
      /This module needs Deno(?: or Node)?\./.test(text);
    assert(
      compatible || deno,
      `${path} does not say whether it is browser compatible`,
    );
    if (text.includes("This module needs Deno or Node.")) {
      assert(!/\bDeno\./.test(code(path)), `${path} uses Deno`);
    }
    if (deno) continue;
    // The environment takes a message where it is missing.
    const used = path === "src/env.ts"
      ? code(path).replaceAll("setImmediate", "")
      : code(path);
    const found = lacking.exec(used);
    assertEquals(found?.[0], undefined, `${path} uses ${found?.[0]}`);
  }
});

/** The specifiers that a module imports or re-exports from. */
function specifiersOf(path: string): string[] {
  return [...read(path).matchAll(/^(?! \*).*from "([^"\n]+)";$/gm)]
    .map(([, specifier]) => specifier!);
}

Deno.test("only src/deps/ names a package, and each of its modules one", () => {
  for (const path of [...sources("src/"), "mod.ts"]) {
    const specifiers = specifiersOf(path);
    if (path.startsWith("src/deps/")) {
      const [only, ...others] = specifiers;
      assert(/^npm:.+@\d+\.\d+\.\d+$/.test(only ?? ""), `${path}: ${only}`);
      assertEquals(others, [], path);
      continue;
    }
    const allowed = /^src\/(sqlite|cli|etcd|s3)\//.test(path)
      ? /^\.|^node:/
      : /^\./;
    for (const specifier of specifiers) {
      assert(allowed.test(specifier), `${path} imports ${specifier}`);
    }
  }
});

Deno.test("every bound in src/limits.ts has its unit in its text", () => {
  const text = read("src/limits.ts");
  const bounds = [
    ...text.matchAll(/\/\*\*([\s\S]*?)\*\/\nexport const (\w+)/g),
  ];
  assert(bounds.length > 20);
  for (const [, comment, name] of bounds) {
    assert(
      /, in [\w ]+\b/.test(comment!.replace(/\n \*/g, "")),
      `${name} has no unit`,
    );
  }
});

Deno.test("mod.ts works imported by URL, without this project's settings", async () => {
  await using server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen(): void {} },
    async (request) => {
      const path = new URL(request.url).pathname.slice(1);
      const file = await Deno.readTextFile(new URL(path, ROOT));
      return new Response(file, {
        headers: { "content-type": "application/typescript" },
      });
    },
  );
  const folder = await Deno.makeTempDir();
  try {
    const url = `http://127.0.0.1:${server.addr.port}/mod.ts`;
    await Deno.writeTextFile(
      `${folder}/main.ts`,
      `import { kv, KVStateMachine, NodeHost } from "${url}";
      const host = new NodeHost();
      const replica = await host.startCluster(() => new KVStateMachine(), {
        clusterID: 1n,
        nodeID: 1n,
      });
      await replica.propose(kv.put("a", "b"));
      console.log(await replica.read(kv.count()));
      await host.stop();`,
    );
    const { stdout, stderr, success } = await new Deno.Command(
      Deno.execPath(),
      {
        args: [
          "run",
          "--no-lock",
          `--allow-import=127.0.0.1:${server.addr.port}`,
          "main.ts",
        ],
        cwd: folder,
        env: { DENO_DIR: `${folder}/cache` },
      },
    ).output();
    assert(success, new TextDecoder().decode(stderr));
    assertEquals(new TextDecoder().decode(stdout), "1\n");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("case D2: text becomes bytes in one place only, where ill-formed strings are refused", () => {
  const elsewhere = [...sources("src/")].filter((path) =>
    path !== "src/bytes.ts" && /\bTextEncoder\b/.test(code(path))
  );
  assertEquals(elsewhere, []);
});

/** Options that no application passes, or that are checked where the comment says. */
const UNCHECKED = new Set([
  // Dependencies of internals.
  "BringUpOptions",
  "StateMachineOptions",
  "PackedStoreOptions",
  "ProposalsOptions",
  "RecoverOptions",
  "ReplayOptions",
  "SaveOptions",
  "SnapshotWriterOptions",
  "SnapshotterOptions",
  // Arguments of ports, which the library passes.
  "ListOptions",
  "ReadOptions",
  // In kv.range(), with words of its own.
  "KVRangeOptions",
  // Joined from others that are checked.
  "IndexedDBKVOptions",
  "IndexedDBLogOptions",
  "IndexedDBOutboxOptions",
  // Every argument has its own check in DataFolder.
  "BackupOptions",
  "DataFolderOptions",
  "RestoreOptions",
  // A name and a factory, both with a default.
  "DeviceIDOptions",
  "StorageOptions",
  // Of suites for authors, who see at once that a function is missing.
  "BlockStoreConformanceOptions",
  "CheckConcurrentStateMachineOptions",
  "CheckOnDiskStateMachineOptions",
  "CheckStateMachineOptions",
  "FaultyBlockStoreOptions",
  "FileStoreConformanceOptions",
  "LogDBConformanceOptions",
  "OutboxConformanceOptions",
  "SnapshotStoreConformanceOptions",
]);

Deno.test("case C12: every option that an application can pass has a check; an option without one does not compile [R14]", () => {
  const paths = [...sources("src/")].filter((path) =>
    // The sync rooms and the tools check theirs in modules of their own.
    !/^src\/(sync|cli|deps)\//.test(path)
  );
  const text = paths.map(read).join("\n");
  const entries = ["mod.ts", ...paths.filter((path) => /\/mod\.ts$/.test(path))]
    .map(read).join("\n");
  const missing = paths.flatMap((path) =>
    [...read(path).matchAll(/^export interface (\w+(?:Options|Config))\b/gm)]
      .map(([, name]) => name!)
      .filter((name) =>
        new RegExp(`\\b${name}\\b`).test(entries) ||
        entries.includes(`export * from "./${path.split("/").at(-1)}"`) ||
        entries.includes(`export * from "./${path}"`)
      )
  ).filter((name) =>
    !UNCHECKED.has(name) &&
    !new RegExp(`OptionChecks<${name}\\b`).test(text)
  );
  assertEquals(missing, []);
});
