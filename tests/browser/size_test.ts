import { assert, assertEquals } from "@std/assert";
import {
  buildRelease,
  BUILDS,
  CHUNKS_BYTES_MAX,
  chunksBytes,
  PAGES,
  pageText,
  sizeOf,
} from "../../web/build.ts";
import { bundleWithChunks, stopBundler } from "../../web/bundle.ts";

Deno.test.afterAll(() => stopBundler());

// The bundler process outlives the test that started it.
const outliving = { sanitizeOps: false, sanitizeResources: false };

for (const { name, text, gzippedBytesMax } of BUILDS) {
  Deno.test({
    name: `U37 ${name}.js weighs at most ${gzippedBytesMax / 1024} KiB gzipped`,
    ...outliving,
    async fn(): Promise<void> {
      const release = await buildRelease({ name, text });
      const { gzipped } = sizeOf(release.code);
      assert(gzipped <= gzippedBytesMax, `Bundle has ${gzipped} bytes gzipped`);
      const later = chunksBytes(release);
      assert(later <= CHUNKS_BYTES_MAX, `Chunks have ${later} bytes gzipped`);
    },
  });
}

for (const { name, text, gzippedBytesMax } of PAGES) {
  Deno.test({
    name: `U37 a page carries at most ${
      gzippedBytesMax / 1024
    } KiB gzipped: ${name}`,
    ...outliving,
    async fn(): Promise<void> {
      const { code } = await bundleWithChunks({ name: "page", text });
      const { gzipped } = sizeOf(code);
      assert(gzipped <= gzippedBytesMax, `Page has ${gzipped} bytes gzipped`);
    },
  });
}

/** Names of the classes and functions in a page that imports these names. */
async function carried(names: string, from = "./mod.ts"): Promise<string[]> {
  const { code } = await bundleWithChunks({
    name: "page",
    text: pageText(names, from),
    minify: false,
  });
  return [
    ...new TextDecoder().decode(code).matchAll(
      /^(?:var (\w+) = (?:class|\()|(?:async )?function\*? (\w+))/gm,
    ),
  ].map(([, one, other]) => (one ?? other)!.replace(/^_/, ""));
}

/**
 * Fails unless a page with these imports includes all of `present` and none of
 * `absent`.
 */
async function check(
  names: string,
  present: readonly string[],
  absent: readonly string[],
  from?: string,
): Promise<void> {
  const found = await carried(names, from);
  assertEquals(present.filter((name) => !found.includes(name)), []);
  assertEquals(absent.filter((name) => found.includes(name)), []);
}

/**
 * Classes of the host, each from another module, that a page without a host
 * must not include.
 */
const HOST = [
  "NodeHost",
  "Replica",
  "Session",
  "Proposals",
  "Snapshotter",
  "StateMachine",
  "SessionTable",
  "Recovery",
];

/** Classes and functions of the host that are loaded when they are first needed. */
const LOADED_LATER = [
  "MemoryLogDB",
  "MemoryFileStore",
  "SnapshotMaker",
  "SnapshotRecovery",
  "SnapshotWriter",
  "locateFailure",
];

const MACHINES = [
  "KVStateMachine",
  "ConcurrentKVStateMachine",
  "OnDiskKVStateMachine",
  "IndexedDBKVStateMachine",
];

for (const machine of ["KVStateMachine", "ConcurrentKVStateMachine"]) {
  Deno.test({
    name:
      `U37 a page that imports ${machine} carries neither the host nor the other machines`,
    ...outliving,
    async fn(): Promise<void> {
      const others = MACHINES.filter((name) => name !== machine);
      await check(machine, [machine, "Tree"], [
        ...others,
        ...HOST,
        ...LOADED_LATER,
      ]);
    },
  });
}

/** Classes that only a host with an outbox needs. */
const SUBMITTING = ["BlockOutbox", "SubmissionQueue", "OptimisticView"];

Deno.test({
  name:
    "U37 a page that imports the host carries neither the machines, nor what only an outbox needs, nor what is loaded later",
  ...outliving,
  async fn(): Promise<void> {
    await check("NodeHost", HOST, [
      ...MACHINES,
      ...SUBMITTING,
      ...LOADED_LATER,
      "Tree",
      "encodeCommand",
      "BlockLogDB",
      "IndexedDBLogDB",
    ]);
    await check("NodeHost, MemoryOutbox", [...HOST, ...SUBMITTING], [
      ...MACHINES,
      ...LOADED_LATER,
    ]);
  },
});

Deno.test({
  name: "U37 the host of one bundle submits with the outbox of another",
  ...outliving,
  async fn(): Promise<void> {
    const [sampan, other] = await Promise.all(
      BUILDS.slice(0, 2).map(async ({ name, text }) => {
        const { code } = await buildRelease({ name, text });
        const blob = new Blob([code.slice()], { type: "text/javascript" });
        const url = URL.createObjectURL(blob);
        return await import(url).finally(() => URL.revokeObjectURL(url));
      }),
    ) as [typeof import("../../mod.ts"), typeof import("../../mod.ts")];
    await using outbox = new other.MemoryOutbox();
    const { promise: failed, reject } = Promise.withResolvers<never>();
    await using host = new sampan.NodeHost({
      outbox,
      onEvent: (event) => "error" in event && reject(event.error),
    });
    const replica = await host.startCluster(() => new other.KVStateMachine(), {
      clusterID: 1n,
      nodeID: 1n,
    });
    const submission = await replica.submit(other.kv.put("a", "b"));
    assertEquals(await replica.view.lookup(other.kv.count()), 1);
    await Promise.race([submission.result, failed]);
    assertEquals(await replica.read(other.kv.count()), 1);
  },
});

Deno.test({
  name:
    "U37 a page that imports IndexedDBKVStateMachine carries neither the host nor the other machines",
  ...outliving,
  async fn(): Promise<void> {
    const machine = "IndexedDBKVStateMachine";
    await check(machine, [machine, "OnDiskKVStateMachine"], [
      "KVStateMachine",
      "ConcurrentKVStateMachine",
      ...HOST,
      "IndexedDBLogDB",
      "IndexedDBSnapshotStore",
      "OPFSFileStore",
    ], "./src/indexeddb/mod.ts");
  },
});

Deno.test({
  name: "U37 a page that imports an error, or commands, carries no host",
  ...outliving,
  async fn(): Promise<void> {
    await check("kv, ErrSystemBusy", ["ErrSystemBusy"], [...HOST, ...MACHINES]);
  },
});
