import { defineMachine } from "../../src/typed/mod.ts";
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import {
  ConcurrentKVStateMachine,
  type Entry,
  kv,
  NodeHost,
} from "../../mod.ts";
import { serveControl } from "../../src/cli/main.ts";
import { controlPath } from "../../src/cli/control.ts";
import { DataFolder } from "../../src/sqlite/mod.ts";
import { serve } from "../../src/sync/mod.ts";
import { withReplica } from "../support/replicas.ts";

const MAIN = new URL("../../src/cli/main.ts", import.meta.url).href;

interface Ended {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs a command in its own process. */
async function sampan(...args: string[]): Promise<Ended> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--allow-all", "--quiet", "--no-lock", MAIN, ...args],
    env: { NO_COLOR: "1" },
    stdin: "null",
  }).output();
  const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
  return { code, out: text(stdout), err: text(stderr) };
}

/** Runs a command that succeeds, and parses the JSON it prints. */
async function json(...args: string[]): Promise<Record<string, unknown>> {
  const { code, out, err } = await sampan(...args, "--json");
  assertEquals(code, 0, err);
  return JSON.parse(out);
}

function test(
  name: string,
  work: (folder: string) => Promise<void>,
): void {
  Deno.test(name, async () => {
    const folder = await Deno.makeTempDir({ prefix: "cli-" });
    try {
      await work(folder);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  });
}

/** Host on a data folder, with one cluster and some commands. */
async function withHost(
  path: string,
  work: (host: NodeHost, data: DataFolder) => Promise<void>,
  commands = 10,
): Promise<void> {
  await withReplica(path, async (data, replica, host) => {
    for (let i = 0; i < commands; i++) {
      await replica.propose(kv.put(`key ${i}`, "value"));
    }
    await work(host, data);
  });
}

test("H11 sampan reports an invalid command line in one line, with exit status 2", async (folder) => {
  const cases: [string[], RegExp][] = [
    [[], /Name a command/],
    [["frobnicate"], /no command "frobnicate"/],
    [["snapshot", "frob"], /no command "snapshot frob"/],
    [["log", "stat", "--clster", "3"], /--clster/],
    [["log", "stat", "--cluster", "x"], /--cluster is "x"/],
    [["log", "stat", "--cluster", "99999999999999999999"], /2\^64-1/],
    [["backup"], /backup needs FILE/],
    [["backup", "a", "b"], /takes no "b"/],
    [["info", "--cluster", "1"], /info takes no --cluster/],
    [["snapshot", "export", "f"], /needs --cluster/],
    [["log", "stat", "--cluster", "-1"], /'--cluster' argument is ambiguous/],
    [
      ["snapshot", "export", "f", "--cluster", "1", "--url", "here"],
      /--url is "here"/,
    ],
    [
      [
        ...["snapshot", "export", "f", "--cluster", "1"],
        ...["--url", "http://localhost", "--data", "d"],
      ],
      /exclude each other/,
    ],
  ];
  await Promise.all(cases.map(async ([args, words]) => {
    const { code, out, err } = await sampan(...args);
    assertEquals([code, out], [2, ""], `${args}: ${err}`);
    assertMatch(err, words);
    assertEquals(err.trimEnd().split("\n").length, 1, err);
  }));
  const help = await sampan("--help");
  assertEquals(help.code, 0);
  assertMatch(help.out, /snapshot export FILE/);
  const missing = await sampan("info", "--data", `${folder}/missing`);
  assertEquals(missing.code, 1);
  assertMatch(missing.err, /missing is not a data folder/);
  const unreachable = await sampan(
    ...["snapshot", "export", `${folder}/f`, "--cluster", "1"],
    ...["--url", "http://no-such-host.invalid"],
  );
  assertEquals(unreachable.code, 1);
  assertMatch(
    unreachable.err,
    /no-such-host\.invalid.* cannot be reached: .*dns/,
  );
});

test("H9 sampan operates on a folder that no server uses", async (folder) => {
  const data = `${folder}/data`;
  await withHost(data, async (host) => {
    await host.replica(1n)!.requestSnapshot();
  });
  const { clusters } = await json("info", "--data", data);
  const [info] = clusters as { last: number; snapshots: { index: number }[] }[];
  assertEquals(info!.last, 11);
  assertEquals(info!.snapshots[0]!.index, 11);

  const stat = await json("log", "stat", "--data", data, "--cluster", "1");
  const [counted] = stat["clusters"] as { kinds: Record<string, unknown> }[];
  assertEquals(Object.keys(counted!.kinds).sort(), ["Epoch", "Proposal"]);

  const file = `${folder}/state.snapshot`;
  const exported = await json(
    ...["snapshot", "export", file, "--cluster", "1", "--data", data],
  );
  assertEquals(exported["index"], 11);
  assertEquals((await sampan("snapshot", "verify", file)).code, 0);
  const again = await sampan(
    ...["snapshot", "export", file, "--cluster", "1", "--data", data],
  );
  assertEquals(again.code, 1);
  assertMatch(again.err, /exists already/);

  const other = `${folder}/other`;
  const imported = await sampan(
    ...["snapshot", "import", file, "--cluster", "1", "--data", other],
  );
  assertEquals(imported.code, 0, imported.err);
  await withHost(other, async (host) => {
    assertEquals(await host.replica(1n)!.read(kv.count()), 10);
  }, 0);

  const bytes = await Deno.readFile(file);
  bytes[bytes.length >> 1]! ^= 1;
  await Deno.writeFile(file, bytes);
  const damaged = await sampan("snapshot", "verify", file, "--json");
  assertEquals(damaged.code, 1);
  assertEquals(JSON.parse(damaged.err).error, "ErrSnapshotCorrupted");
});

test("H8 sampan log verify finds a damaged log and a damaged snapshot", async (folder) => {
  const data = `${folder}/data`;
  await withHost(data, async (host) => {
    await host.replica(1n)!.requestSnapshot();
  });
  assertEquals((await sampan("log", "verify", "--data", data)).code, 0);
  const snapshots = `${data}/snapshots`;
  for (const { name } of Deno.readDirSync(snapshots)) {
    if (!name.endsWith(".snapshot")) continue;
    const bytes = await Deno.readFile(`${snapshots}/${name}`);
    bytes[bytes.length - 3]! ^= 1;
    await Deno.writeFile(`${snapshots}/${name}`, bytes);
  }
  const { DatabaseSync } = await import("node:sqlite");
  const db = new DatabaseSync(`${data}/log.db`);
  const rows = db.prepare(
    "SELECT key, bytes FROM blocks WHERE key LIKE '%/b/%'",
  )
    .all() as { key: string; bytes: Uint8Array }[];
  const { key, bytes } = rows.at(-1)!;
  bytes[bytes.length - 1]! ^= 1;
  db.prepare("UPDATE blocks SET bytes = ? WHERE key = ?").run(bytes, key);
  db.close();
  const { code, out } = await sampan("log", "verify", "--data", data, "--json");
  assertEquals(code, 1);
  const { problems } = JSON.parse(out) as { problems: { part: string }[] };
  assertEquals(problems.map(({ part }) => part.split(" ")[0]), [
    "log",
    "snapshot",
  ]);
});

test("H9 sampan runs its operations in the server that has the folder open", async (folder) => {
  const data = `${folder}/data`;
  await withHost(data, async (host, opened) => {
    const refused = await sampan("backup", `${folder}/b`, "--data", data);
    assertEquals(refused.code, 1);
    assertMatch(refused.err, /has .*data open and accepts no commands/);

    await using control = serveControl(host, opened);
    assertEquals(control!.path, controlPath(data));
    const backup = await json("backup", `${folder}/backup`, "--data", data);
    assertEquals(backup["file"], `${folder}/backup`);
    // At the applied index, as there is no snapshot.
    const exported = await json(
      ...["snapshot", "export", `${folder}/s`, "--cluster", "1"],
      ...["--data", data],
    );
    assertEquals(exported["index"], 11);
    const twice = await sampan("backup", `${folder}/backup`, "--data", data);
    assertEquals(twice.code, 1);
    assertMatch(twice.err, /exists already/);
    const unknown = await sampan(
      ...["log", "stat", "--cluster", "7", "--data", data],
    );
    assertMatch(unknown.err, /has no log of cluster 7; its clusters: 1/);
  });
  const restored = await json(
    ...["restore", `${folder}/backup`, "--data", `${folder}/restored`],
  );
  assertEquals(restored["clusters"], [{ cluster: "1", last: 11 }]);
  await withHost(`${folder}/restored`, async (host) => {
    assertEquals(await host.replica(1n)!.read(kv.count()), 10);
  }, 0);
});

test("H9 sampan backs up a server under load, with every command acknowledged before", async (folder) => {
  const data = `${folder}/data`;
  let acknowledged = 0;
  let before = 0;
  await withHost(data, async (host, opened) => {
    await using _control = serveControl(host, opened)!;
    const replica = host.replica(1n)!;
    let isOver = false;
    const load = (async () => {
      while (!isOver) {
        await replica.propose(kv.put(`load ${acknowledged}`, "value"));
        acknowledged++;
      }
    })();
    while (acknowledged < 20) await host.env.turn();
    before = acknowledged;
    await json("backup", `${folder}/backup`, "--data", data);
    isOver = true;
    await load;
  }, 50);
  assert(acknowledged > before);
  await json("restore", `${folder}/backup`, "--data", `${folder}/restored`);
  await withHost(`${folder}/restored`, async (host) => {
    const replica = host.replica(1n)!;
    const count = await replica.read(kv.count()) as number;
    assert(count >= 50 + before, `${count}`);
    // The backup has a prefix of the commands, without gaps.
    assertEquals(
      await replica.read(kv.get(`load ${count - 51}`)) === undefined,
      count === 50,
    );
    assertEquals(await replica.read(kv.get(`load ${count - 50}`)), undefined);
  }, 0);
});

test("H10 closing a control socket cancels operations in progress, and leaves no file", async (folder) => {
  const data = `${folder}/data`;
  await withHost(data, async (host, opened) => {
    const control = serveControl(host, opened)!;
    await control.close();
    await control.close();
    const names = [...Deno.readDirSync(data)].map(({ name }) => name);
    assert(!names.includes("control.sock"), names.join());
  });
});

test("H9 sampan exports from and imports into a server over HTTP", async (folder) => {
  await withHost(`${folder}/data`, async (host) => {
    await using server = serve(host, {
      sigterm: false,
      authenticate: ({ headers }) =>
        headers.get("authorization") === "Bearer secret"
          ? { id: "operator" }
          : undefined,
      authorize: () => true,
    });
    const url = ["--url", server.httpURL];
    const file = `${folder}/state`;
    const refused = await sampan(
      ...["snapshot", "export", file, "--cluster", "1", ...url],
    );
    assertEquals(refused.code, 1);
    assertMatch(refused.err, /answered 401/);
    const token = ["--token", "secret"];
    const exported = await json(
      ...["snapshot", "export", file, "--cluster", "1", ...url, ...token],
    );
    assertEquals(exported["index"], 11);
    const taken = await sampan(
      ...["snapshot", "import", file, "--cluster", "1", ...url, ...token],
    );
    assertMatch(taken.err, /answered 409/);
  });
});

/** Key-value machine that throws at one command. */
class Poisoned extends ConcurrentKVStateMachine {
  override update(entries: Entry[]): Entry[] {
    for (const { cmd } of entries) {
      if (new TextDecoder().decode(cmd).includes("poison")) {
        throw new Error("cannot read 'title' of undefined (edit.title)");
      }
    }
    return super.update(entries);
  }
}

test("H17 sampan log skip skips an entry, in a running server and in a folder", async (folder) => {
  const path = `${folder}/data`;
  {
    await using data = await DataFolder.open(path);
    await using host = new NodeHost({
      logDB: data.logDB,
      snapshots: data.snapshots,
    });
    const config = { clusterID: 1n, nodeID: 1n };
    const replica = await host.startConcurrentCluster(
      () => new Poisoned(),
      config,
    );
    await replica.propose(kv.put("a", "1"));
    await assertRejects(() => replica.propose(kv.put("poison", "")), Error);
    await using _control = serveControl(host, data)!;
    const info = await json("info", "--data", path);
    const [cluster] = info["clusters"] as { state: string; error: string }[];
    assertEquals(cluster!.state, "failed");
    assertMatch(cluster!.error, /cannot read 'title'/);
    const { out } = await sampan("info", "--data", path);
    assertMatch(out, /sampan log skip 3 --cluster 1 --reason/);
    const args = ["--cluster", "1", "--data", path, "--reason", "bad title"];
    const refused = await sampan("log", "skip", "99", ...args);
    assertEquals(refused.code, 1);
    assertMatch(refused.err, /no such entry/);
    const skipped = await json("log", "skip", "3", ...args);
    assertEquals(skipped["restarted"], true);
    const again = host.replica(1n)!;
    await again.propose(kv.put("b", "2"));
    assertEquals(await again.read(kv.count()), 2);
  }
  // The entry stays skipped for code that could apply it.
  const args = ["--cluster", "1", "--data", path];
  const second = await json(
    ...["log", "skip", "2", ...args, "--reason", "the other one, too"],
  );
  assertEquals(second["restarted"], false);
  await withHost(path, async (host) => {
    assertEquals(await host.replica(1n)!.read(kv.count()), 1);
  }, 0);
  for (const wrong of [["3"], ["x", "--reason", "a"], ["0", "--reason", "a"]]) {
    assertEquals((await sampan("log", "skip", ...wrong, ...args)).code, 2);
  }
});

test("Y7 sampan activate activates a change of a typed machine in the server that runs it", async (folder) => {
  const path = `${folder}/data`;
  const { create } = defineMachine({
    name: "notes",
    version: 1,
    state: () => ({}),
    changes: ["loud"],
    commands: {},
    queries: {},
  });
  const args = ["--cluster", "1", "--data", path];
  {
    await using data = await DataFolder.open(path);
    await using host = new NodeHost({ logDB: data.logDB });
    // Not by itself.
    await host.startConcurrentCluster(
      () => Object.defineProperty(create(), "changes", { value: [] }),
      { clusterID: 1n, nodeID: 1n },
    );
    await using _control = serveControl(host, data)!;
    const unknown = await sampan("activate", "loud", ...args);
    assertEquals(unknown.code, 1);
    assertMatch(
      unknown.err,
      /loud of cluster 1 is unknown to every live replica/,
    );
    assertEquals(host.replica(1n)!.appliedIndex, 0);
    const { out, err } = await sampan("activate", "loud", "--force", ...args);
    assertEquals(err, "");
    assertMatch(out, /Change loud of cluster 1 is active/);
    assertEquals(host.replica(1n)!.appliedIndex, 2);
    assertEquals((await sampan("activate", "loud", ...args)).code, 0);
    assertEquals(host.replica(1n)!.appliedIndex, 2);
    const refused = await sampan("activate", "unheard", ...args);
    assertEquals(refused.code, 1);
    assertMatch(refused.err, /"unheard"/);
  }
  const stopped = await sampan("activate", "loud", ...args);
  assertEquals(stopped.code, 1);
  assertMatch(stopped.err, /not started on this host/);
});
