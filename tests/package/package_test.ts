import { assert, assertEquals } from "@std/assert";
import { kv, KVStateMachine, NodeHost } from "../../mod.ts";
import { serve } from "../../src/sync/server/mod.ts";
import { stopBundler } from "../../web/bundle.ts";
import { consumer } from "./consumer.ts";
import {
  installPackage,
  installTools,
  type NodeVersion,
  pathOf,
  runNode,
  runTool,
} from "./npm.ts";

Deno.test.afterAll(() => stopBundler());

/** A program in Node: machines and hosts in memory, the contract suite, and a client of a server. */
const PROGRAM = `
import { setTimeout as sleep } from "node:timers/promises";
import {
  ConcurrentKVStateMachine,
  kv,
  KVStateMachine,
  MemoryLogDB,
  MemoryOutbox,
  NodeHost,
} from "@sampan/sampan";
import { RemoteLogDB } from "@sampan/sampan/sync/client";
import { checkStateMachine } from "@sampan/sampan/testing";

const id = { clusterID: 1n, nodeID: 1n };
const logDB = new MemoryLogDB();
const host = new NodeHost({ logDB });
const one = await host.startConcurrentCluster(
  () => new ConcurrentKVStateMachine(),
  { ...id, snapshotEntries: 10 },
);
const session = await one.openSession();
for (let i = 0; i < 50; i++) await one.propose(kv.put("key" + i, "value"), { session });
console.log("host", await one.read(kv.count()));
await host.stop();
await logDB.close();

await checkStateMachine({
  create: () => new KVStateMachine(),
  commands: [kv.put("a", "1"), kv.put("b", "2"), kv.delete("a")],
  queries: [kv.get("a"), kv.count()],
  runs: 10,
});
console.log("contract");

const far = new RemoteLogDB(process.argv[2]);
const outbox = new MemoryOutbox();
const device = new NodeHost({ logDB: far, outbox });
const replica = await device.startCluster(() => new KVStateMachine(), {
  clusterID: 1n,
  nodeID: BigInt(process.argv[3]),
});
const submission = await replica.submit(kv.put(process.argv[3], "Node"));
console.log("shown", await replica.view.lookup(kv.count()) > 0);
await submission.result;
while (far.state !== "live") await sleep(5);
console.log("client", replica.pending().length, far.state);
await device.stop();
await far.close();
await outbox.close();
`;

/** A server's program in Node: log, state, snapshots and files on disk, for one store at a time. */
const STORING = `
import { existsSync } from "node:fs";
import { kv, NodeHost } from "@sampan/sampan";
import {
  DirectoryFileStore,
  FileSnapshotStore,
  SqliteKVStateMachine,
  SqliteLogDB,
} from "@sampan/sampan/sqlite";

const folder = process.argv[2];
async function run(key) {
  const logDB = new SqliteLogDB(folder + "/log.db");
  const snapshots = new FileSnapshotStore(folder + "/snapshots");
  const files = new DirectoryFileStore(folder + "/files");
  const host = new NodeHost({ logDB, snapshots, files });
  const replica = await host.startOnDiskCluster(
    () => new SqliteKVStateMachine(folder + "/state.db"),
    { clusterID: 1n, nodeID: 1n },
  );
  await replica.propose(kv.put(key, "b"));
  const { index } = await replica.requestSnapshot();
  const count = await replica.read(kv.count());
  let refused;
  try {
    new FileSnapshotStore(folder + "/snapshots").list(1n);
  } catch (error) {
    refused = error.name;
  }
  await host.stop();
  await files.close();
  await snapshots.close();
  await logDB.close();
  return [count, index > 0, refused, existsSync(folder + "/snapshots")].join(" ");
}
console.log(await run("one"));
console.log(await run("two"));
`;

/** A program that relies on the types of several entry points. */
const PROGRAM_TYPES = `${consumer("@sampan/sampan", "@sampan/sampan")}
import { MemoryOutbox } from "@sampan/sampan";
import { RemoteLogDB } from "@sampan/sampan/sync/client";
import { checkStateMachine } from "@sampan/sampan/testing";
export const state: string = new RemoteLogDB("ws://localhost/sync").state;
export const outboxes = new NodeHost({ outbox: new MemoryOutbox() });
await checkStateMachine({
  create: () => new KVStateMachine(),
  commands: [kv.put("a", "1")],
  queries: [kv.count()],
});
`;

const PAGE = `${PROGRAM_TYPES}
import {
  IndexedDBKVStateMachine,
  IndexedDBOutbox,
} from "@sampan/sampan/indexeddb";
export const stored = new IndexedDBKVStateMachine("state");
export const outbox = new IndexedDBOutbox("outbox");
`;

/**
 * Compilers, and the variants that each checks: the slow ones check one of the
 * two.
 */
const CHECKED = [
  [5, "page"],
  [6, "program"],
  [7, "page"],
  [7, "program"],
] as const;

/** Strict, with every declaration checked, and no library newer than the build's target. */
function tsconfig(files: string, options: Record<string, unknown>): string {
  return JSON.stringify({
    compilerOptions: {
      strict: true,
      exactOptionalPropertyTypes: true,
      noUncheckedIndexedAccess: true,
      skipLibCheck: false,
      noEmit: true,
      target: "es2022",
      ...options,
    },
    files: [files],
  });
}

Deno.test({
  name:
    "case B4: the npm package installs from its tarball, runs in Node, and its types are strict",
  // The bundler process outlives the test that started it.
  sanitizeOps: false,
  sanitizeResources: false,
  async fn(t): Promise<void> {
    await using installed = await installPackage();
    const { project, source, tarball } = installed;
    const modules = await installTools();

    await t.step("publint finds nothing", async () => {
      const { success, text } = await runTool("publint/src/cli.js", [
        "run",
        pathOf(source),
        "--strict",
      ], project);
      assert(success, text);
    });

    await t.step(
      "the types are right for every way to resolve them",
      async () => {
        const { success, text } = await runTool(
          "@arethetypeswrong/cli/dist/index.js",
          [pathOf(tarball), "--profile", "esm-only", "--no-emoji"],
          project,
        );
        assert(success, text);
      },
    );

    await t.step(
      "no module names a package without its dependency",
      async () => {
        const { dependencies } = JSON.parse(
          await Deno.readTextFile(new URL("package.json", source)),
        ) as { dependencies: Record<string, string> };
        for (const version of Object.values(dependencies)) {
          assert(/^\d+\.\d+\.\d+$/.test(version), version);
        }
        assertEquals(Object.keys(dependencies), [
          "@opentelemetry/api",
          "fast-check",
          "idb-keyval",
          "uplot",
        ]);
      },
    );

    await using host = new NodeHost();
    const replica = await host.startCluster(() => new KVStateMachine(), {
      clusterID: 1n,
      nodeID: 1n,
    });
    const server = serve(host, { hostname: "127.0.0.1", port: 0 });
    try {
      await Deno.writeTextFile(new URL("program.js", project), PROGRAM);
      for (const version of [20, 22, 24] satisfies NodeVersion[]) {
        await t.step(`it runs in Node ${version}`, async () => {
          const { text } = await runNode(version, [
            // From Node 22 on, `WebSocket` is enabled by default.
            ...version === 20 ? ["--experimental-websocket"] : [],
            "program.js",
            server.url,
            `${version}`,
          ], project);
          assertEquals(
            text.replace(/\(node:.*\n|\(Use .*\n/g, ""),
            "host 50\ncontract\nshown true\nclient 0 live\n",
          );
          const key = `${version}`;
          assert(await replica.read(kv.get(key)) !== undefined);
        });
      }
    } finally {
      await server.shutdown();
    }

    await Deno.writeTextFile(new URL("storing.js", project), STORING);
    for (const version of [22, 24] satisfies NodeVersion[]) {
      await t.step(
        `it keeps its data in SQLite in Node ${version}`,
        async () => {
          const { text } = await runNode(
            version,
            ["storing.js", pathOf(new URL(`data${version}`, project))],
            project,
          );
          assertEquals(
            text.replace(/\(node:.*\n|\(Use .*\n/g, ""),
            "1 true ErrStoreLocked true\n2 true ErrStoreLocked true\n",
          );
        },
      );
    }

    await Deno.writeTextFile(new URL("consumer.ts", project), PROGRAM_TYPES);
    await Deno.writeTextFile(new URL("page.ts", project), PAGE);
    await Deno.writeTextFile(
      new URL("tsconfig.program.json", project),
      tsconfig("consumer.ts", {
        lib: ["es2022"],
        module: "nodenext",
        types: ["node"],
        typeRoots: [pathOf(new URL("@types/", modules))],
      }),
    );
    await Deno.writeTextFile(
      new URL("tsconfig.page.json", project),
      tsconfig("page.ts", {
        lib: ["es2022", "dom", "dom.iterable"],
        module: "esnext",
        moduleResolution: "bundler",
        types: [],
      }),
    );
    for (const [version, kind] of CHECKED) {
      await t.step(
        `TypeScript ${version} checks a ${kind} that uses it`,
        async () => {
          const { success, text } = await runTool(
            `typescript${version}/bin/tsc`,
            ["-p", `tsconfig.${kind}.json`],
            project,
          );
          assert(success, text);
        },
      );
    }
  },
});
