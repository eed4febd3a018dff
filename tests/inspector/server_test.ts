import { assert, assertEquals, assertMatch } from "@std/assert";
import { kv, KVStateMachine, NodeHost, type Replica } from "../../mod.ts";
import type {
  EntryReport,
  ServerReport,
} from "../../src/sync/inspector_report.ts";
import {
  type InspectorPermission,
  RemoteLogDB,
  serve,
} from "../../src/sync/mod.ts";
import { clusterCard } from "../../src/inspector/server_panel.ts";
import { ServerModel } from "../../src/inspector/server_model.ts";

/** Tokens of the people who ask, with what they may inspect. */
const PERMISSIONS: Readonly<Record<string, InspectorPermission>> = {
  "Bearer all": { clusters: "all", commands: true, act: true },
  "Bearer one": { clusters: [1n] },
};

/** Server of two clusters with a client of each. */
async function served(): Promise<{
  readonly url: string;
  readonly replica: Replica;
  get(path: string, token?: string, more?: RequestInit): Promise<Response>;
  [Symbol.asyncDispose](): Promise<void>;
}> {
  const host = new NodeHost();
  const config = { nodeID: 1n };
  const replica = await host.startCluster(() => new KVStateMachine(), {
    ...config,
    clusterID: 1n,
  });
  await host.startCluster(() => new KVStateMachine(), {
    ...config,
    clusterID: 2n,
  });
  const server = serve(host, {
    sigterm: false,
    authenticate: (request) => {
      const token = request.headers.get("authorization") ?? "";
      return token === "" ? undefined : { id: token.replace("Bearer ", "") };
    },
    inspector: {
      name: "one",
      code: (clusterID) => `c0de${clusterID}`,
      authorize: (request) =>
        PERMISSIONS[request.headers.get("authorization") ?? ""],
    },
  });
  const clients = await Promise.all([1n, 2n].map(async (clusterID) => {
    const logDB = new RemoteLogDB(server.url, { token: `secret-${clusterID}` });
    const client = new NodeHost({ logDB });
    const replica = await client.startCluster(() => new KVStateMachine(), {
      clusterID,
      nodeID: 7n,
    });
    await replica.propose(kv.put(`of ${clusterID}`, "x"));
    return { client, logDB };
  }));
  const url = `${server.httpURL}inspector`;
  return {
    url,
    replica: replica as Replica,
    get: (path, token, more = {}) =>
      fetch(url + path, {
        ...more,
        headers: token === undefined ? {} : { authorization: token },
      }),
    async [Symbol.asyncDispose](): Promise<void> {
      for (const { client, logDB } of clients) {
        await client.stop();
        await logDB.close();
      }
      await server.shutdown();
      await host.stop();
    },
  };
}

Deno.test("U42 the inspector of a server shows its clients, queues, rates, memory and clusters", async () => {
  await using stage = await served();
  const response = await stage.get("", "Bearer all");
  assertEquals(response.status, 200);
  assertEquals(response.headers.get("cache-control"), "no-store");
  const text = await response.text();
  const report = JSON.parse(text) as ServerReport;
  assertEquals(
    report.clients.map(({ principal, clusters }) => [principal, clusters]),
    [["secret-1", ["1"]], ["secret-2", ["2"]]],
  );
  assertEquals(report.clientCount, 2);
  assertEquals(report.clients.map(({ nodes }) => nodes), [["7"], ["7"]]);
  assertEquals(
    [report.name, report.reach, ...report.clusters.map(({ code }) => code)],
    ["one", undefined, "c0de1", "c0de2"],
  );
  const { totals, clusters, uptimeMs } = report;
  assert(uptimeMs > 0 && totals!.memory!.rss > totals!.memory!.heap);
  assertEquals(totals!.counts["connections"], 2);
  assert(totals!.counts["appended"]! >= 2);
  assert(totals!.appendMs.median! > 0);
  assertEquals([totals!.queuedBytes, totals!.appending], [0, 0]);
  assertEquals(
    clusters.map((
      { clusterID, state, clients },
    ) => [clusterID, state, clients]),
    [["1", "running", 1], ["2", "running", 1]],
  );
  assertMatch(clusters[0]!.hash!, /^[0-9a-f]{16}$/);
  assertEquals(clusters[0]!.appliedIndex, stage.replica.appliedIndex);
});

Deno.test("U32 U42 device and server say at which entry they last had the same hashes, as they compare them by themselves", async () => {
  await using host = new NodeHost();
  const config = { clusterID: 1n, hashEntries: 2 };
  const create = (): KVStateMachine => new KVStateMachine();
  await host.startCluster(create, { ...config, nodeID: 1n });
  await using server = serve(host, {
    sigterm: false,
    inspector: { authorize: () => ({ clusters: "all" }) },
  });
  await using logDB = new RemoteLogDB(server.url);
  await using client = new NodeHost({ logDB });
  const replica = await client.startCluster(create, { ...config, nodeID: 7n });
  const history = await replica.history();
  for (let i = 0; (history.agreement()?.index ?? 0) < 6; i++) {
    assert(i < 500, "Hashes were never compared");
    await replica.propose(kv.put("a", `${i}`));
  }
  assertEquals(history.agreement()!.isTrusted, true);
  const url = `${server.httpURL}inspector`;
  let report: ServerReport;
  do report = await (await fetch(url)).json(); while (
    (report.clusters[0]!.agreedIndex ?? 0) < 6
  );
  assert(report.clusters[0]!.agreedMs! >= 0);
  assertEquals(
    clusterCard(report.clusters[0]!).facts.find(({ label }) =>
      label === "Equal on a client"
    )!.tone,
    "good",
  );
});

Deno.test("U42 the inspector of a server refuses everything without a permission, and does not exist without the option", async () => {
  await using stage = await served();
  for (
    const [path, method] of [
      ["", "GET"],
      ["/clusters/1/entries", "GET"],
      ["/clusters/1/snapshot", "POST"],
    ] as const
  ) {
    for (const token of [undefined, "Bearer other"]) {
      const response = await stage.get(path, token, { method });
      assertEquals(response.status, 403, path);
      assertEquals(await response.text(), "You may not inspect this server\n");
    }
  }
  const wrong = await stage.get("", "Bearer all", { method: "DELETE" });
  await wrong.body?.cancel();
  assertEquals(wrong.status, 405);
  await using host = new NodeHost();
  await using server = serve(host, { sigterm: false });
  const none = await fetch(`${server.httpURL}inspector`);
  await none.body?.cancel();
  assertEquals(none.status, 404);
});

Deno.test("U42 the inspector of a server shows nothing of clusters that the permission does not cover, and no command and no action without a permission for it", async () => {
  await using stage = await served();
  const response = await stage.get("", "Bearer one");
  const text = await response.text();
  const report = JSON.parse(text) as ServerReport;
  assertEquals(report.totals, undefined);
  assertEquals(report.clusters.map(({ clusterID }) => clusterID), ["1"]);
  assertEquals(report.clients.map(({ principal }) => principal), ["secret-1"]);
  assertEquals(report.may, { commands: false, act: false });
  assert(!text.includes("secret-2"));
  for (
    const [path, method] of [
      ["/clusters/1/entries", "GET"],
      ["/clusters/1/snapshot", "POST"],
      ["/clusters/2/entries", "GET"],
      ["/clusters/3/entries", "GET"],
    ] as const
  ) {
    const refused = await stage.get(path, "Bearer one", { method });
    assertEquals(refused.status, 403, path);
    assertMatch(await refused.text(), /^You may not .* cluster \d\n$/);
  }
});

Deno.test("U42 with the permission, entries with their commands are read and a snapshot is taken", async () => {
  await using stage = await served();
  const response = await stage.get("/clusters/1/entries", "Bearer all");
  const entries = await response.json() as EntryReport[];
  const cmd = entries.flatMap(({ cmd }) => cmd ?? []).at(-1)!;
  assertEquals(
    Uint8Array.from(atob(cmd), (c) => c.charCodeAt(0)),
    kv.put("of 1", "x"),
  );
  assertEquals(entries.at(-1)!.index, stage.replica.appliedIndex);
  const taken = await stage.get("/clusters/1/snapshot", "Bearer all", {
    method: "POST",
  });
  assertEquals((await taken.json()).index, stage.replica.appliedIndex);
  const absent = await stage.get("/clusters/9/entries", "Bearer all");
  assertEquals(absent.status, 404);
  assertEquals(await absent.text(), "Cluster 9 does not run here\n");
});

Deno.test("U42 a page of another origin cannot use the inspector of a server, and a hook that fails permits nothing", async () => {
  await using stage = await served();
  const foreign = await fetch(stage.url, {
    headers: { authorization: "Bearer all", origin: "https://evil.example" },
  });
  await foreign.body?.cancel();
  assertEquals(
    [foreign.status, foreign.headers.get("access-control-allow-origin")],
    [403, null],
  );
  await using host = new NodeHost();
  const answers: unknown[] = [true, { clusters: "some" }, { clusters: [1] }];
  await using server = serve(host, {
    sigterm: false,
    log: () => {},
    inspector: {
      authorize: () => {
        if (answers.length === 0) throw new Error("ENOENT");
        return answers.shift() as InspectorPermission;
      },
    },
  });
  for (let i = 0; i < 4; i++) {
    const failed = await fetch(`${server.httpURL}inspector`);
    await failed.body?.cancel();
    assertEquals(failed.status, 503);
  }
});

Deno.test("U42 the model of a server samples its rates, and says why it does not answer", async () => {
  await using stage = await served();
  const model = (token: string): ServerModel =>
    new ServerModel({
      source: stage.url,
      headers: () => ({ authorization: token }),
    });
  const one = model("Bearer all");
  const other = model("Bearer none");
  const until = async (is: () => boolean): Promise<void> => {
    for (let waited = 0; !is(); waited += 20) {
      assert(waited < 20_000, "Condition never came true");
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  try {
    await until(() => one.report !== undefined && other.problem !== undefined);
    assertEquals(
      other.problem,
      "Server answers 403: You may not inspect this server",
    );
    assertEquals(one.problem, undefined);
    await until(() => one.samples.length > 0);
    assert(one.samples[0]!.received >= 0);
    assertEquals((await one.entries("1")).length, stage.replica.appliedIndex);
    assertEquals(await one.snapshot("1"), stage.replica.appliedIndex);
  } finally {
    one.close();
    other.close();
  }
});
