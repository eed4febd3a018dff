import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import * as v from "valibot";
import {
  kv,
  KVStateMachine,
  MemoryLogDB,
  MemoryOutbox,
  NodeHost,
  type Replica,
} from "../../mod.ts";
import { differencesOf } from "../../src/inspector/difference.ts";
import { DeviceModel } from "../../src/inspector/device_model.ts";
import {
  checkInspector,
  type InspectorOptions,
} from "../../src/inspector/options.ts";
import { Samples } from "../../src/inspector/samples.ts";
import { durationText, sizeText, valueText } from "../../src/inspector/show.ts";
import { defineMachine, table, typed } from "../../src/typed/mod.ts";
import {
  INSPECTOR_ENTRIES_MAX,
  INSPECTOR_ROWS_MAX,
  INSPECTOR_SAMPLES_MAX,
} from "../../src/limits.ts";
import { rejection } from "../support/environment.ts";

const notes = defineMachine({
  name: "notes",
  version: 1,
  state: () => ({ notes: table<{ text: string }>(), title: "" }),
  commands: {
    write: {
      args: v.object({ id: v.string(), text: v.string() }),
      run: ({ notes }, { id, text }) => {
        notes.set(id, { text });
        return undefined;
      },
    },
    remove: {
      args: v.object({ id: v.string() }),
      run: ({ notes }, { id }, ctx) =>
        notes.delete(id) ? undefined : ctx.reject("not-found"),
    },
  },
  queries: { count: ({ notes }) => notes.size },
});

const access = (replica: Replica) => typed(replica, notes);
type Notes = ReturnType<typeof access>;

const CLUSTER = { clusterID: 1n, nodeID: 1n };

/** Host with notes, inspected. */
async function inspected(
  more: Partial<InspectorOptions> = {},
): Promise<{
  host: NodeHost;
  model: DeviceModel;
  app: Notes;
  [Symbol.asyncDispose](): Promise<void>;
}> {
  const host = new NodeHost({ outbox: new MemoryOutbox() });
  const start = (): Promise<Replica> =>
    host.startConcurrentCluster(notes.create, CLUSTER) as Promise<Replica>;
  const replica = await start();
  const model = new DeviceModel({
    host,
    replica,
    machine: notes,
    restart: start,
    ...more,
  });
  return {
    host,
    model,
    app: access(replica),
    async [Symbol.asyncDispose](): Promise<void> {
      model.close();
      await host.stop();
    },
  };
}

async function until(is: () => boolean): Promise<void> {
  for (let waited = 0; !is(); waited += 5) {
    assert(waited < 5000, "Condition never came true");
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

async function write(app: Notes, id: string, text: string): Promise<void> {
  await (await app.do.write({ id, text })).result;
}

Deno.test("U42 an inspector lists the newest entries with their commands decoded by the definition, and each as it is applied", async () => {
  await using stage = await inspected();
  const { model, app } = stage;
  await write(app, "a", "one");
  await write(app, "b", "two");
  const calls = (): unknown[] =>
    model.entries.flatMap(({ call }) =>
      call === undefined ? [] : [(call as { args: unknown }).args]
    );
  await until(() => calls().length === 2);
  assertEquals(calls(), [{ id: "a", text: "one" }, { id: "b", text: "two" }]);
  assertEquals(model.entries[0]!.kind, "epoch");
  assert(model.entries.length <= 2 * INSPECTOR_ENTRIES_MAX);
});

Deno.test("U42 an inspector lists commands with their outcome: what a handler returned, and why a command was refused", async () => {
  await using stage = await inspected();
  const { model, app } = stage;
  await write(app, "a", "one");
  const { result } = await app.do.remove({ id: "b" });
  assertEquals((await result).ok, false);
  const outcomes = (): unknown[] =>
    model.entries.flatMap(({ kind, outcome, call }) =>
      kind === "command"
        ? [[outcome?.reason, (call as { code: unknown }).code]]
        : []
    );
  await until(() => model.entries.at(-1)?.outcome !== undefined);
  assertEquals(outcomes(), [
    [undefined, undefined],
    ["not-found", "not-found"],
  ]);
});

Deno.test("U42 an inspector reports the state of a replica: its outbox, sessions, snapshots and hash", async () => {
  await using stage = await inspected();
  const { model, app } = stage;
  await write(app, "a", "one");
  await model.snapshot();
  await until(() => model.report?.snapshots.length === 1);
  const { status, pendingCount, sessions, hash, snapshots } = model.report!;
  assertEquals([status.state, pendingCount], ["running", 0]);
  assertEquals(sessions.map(({ decided }) => decided), [1]);
  assertEquals(hash!.index, model.replica.appliedIndex);
  assertEquals(snapshots[0]!.index, hash!.index);
});

Deno.test("U42 time travel shows the state as of an entry beside the present one, with the difference, and leaves the present one as it is", async () => {
  await using stage = await inspected();
  const { model, app } = stage;
  await write(app, "a", "one");
  const then = model.replica.appliedIndex;
  await write(app, "a", "changed");
  await write(app, "b", "two");
  const { index, now, before, after, hash, hashNow, differences } = await model
    .travel(then);
  assertEquals([index, now], [then, model.replica.appliedIndex]);
  assertEquals(before, {
    notes: new Map([["a", { text: "one" }]]),
    title: "",
  });
  assertEquals((after as { notes: Map<string, unknown> }).notes.size, 2);
  assert(hash !== hashNow);
  assertEquals(
    differences.places.map(({ path, change }) => [path.join("."), change]),
    [["notes.a.text", "changed"], ["notes.b", "added"]],
  );
  const same = await model.travel(now);
  assertEquals([same.differences.count, same.hash], [0, same.hashNow]);
});

Deno.test("U42 time travel to an entry that the log no longer has says so, and from which entry on it is possible", async () => {
  await using stage = await inspected();
  const { model, app } = stage;
  for (const id of ["a", "b"]) {
    for (let i = 0; i < 5; i++) await write(app, id, `${i}`);
    await model.snapshot();
  }
  for (let i = 0; i < 5; i++) await write(app, "c", `${i}`);
  await model.replica.requestCompaction();
  const first = await model.firstState();
  assert(first > 1);
  const { message } = await rejection(model.travel(first - 1)) as Error;
  assertMatch(
    message,
    new RegExp(
      `no longer has entry ${first - 1}, .* choose an entry from ${first} on`,
    ),
  );
  assertEquals((await model.travel(first)).index, first);
});

Deno.test("U42 time travel ends when it is aborted", async () => {
  await using stage = await inspected();
  const { message } = await rejection(
    stage.model.travel(0, AbortSignal.abort(new Error("enough"))),
  ) as Error;
  assertEquals(message, "enough");
});

Deno.test("U32 U42 hashes are compared with a replay of the log: equal for a machine that is deterministic, different for one that is not", async () => {
  await using stage = await inspected();
  await write(stage.app, "a", "one");
  const { here, replayed, trusted } = await stage.model.compare();
  assertEquals([replayed, trusted], [here, undefined]);

  let made = 0;
  class Odd extends KVStateMachine {
    readonly #number = made++;
    override update(cmd: Uint8Array): ReturnType<KVStateMachine["update"]> {
      super.update(kv.put("made", `${this.#number}`));
      return super.update(cmd);
    }
  }
  await using host = new NodeHost();
  const replica = await host.startCluster(() => new Odd(), CLUSTER);
  await replica.propose(kv.put("a", "1"));
  const model = new DeviceModel({ replica: replica as Replica });
  const odd = await model.compare();
  model.close();
  assert(odd.replayed !== odd.here && typeof odd.replayed === "bigint");
});

Deno.test("U36 U42 an inspector exports the state to a file, and imports it where the log is ordered on this device", async () => {
  await using stage = await inspected();
  const { model, app } = stage;
  await write(app, "a", "one");
  const [file, ...others] = await model.exportFiles();
  assertEquals(others, []);
  assertMatch(file!.name, /^cluster-1-\d+\.snapshot$/);
  const { hash } = await model.replica.getHash();
  await write(app, "a", "changed");
  const old = model.replica;
  assertMatch(await model.importFile(file!.content), /now that of the file/);
  assert(model.replica !== old);
  assertEquals((await model.replica.getHash()).hash, hash);
});

Deno.test("U36 U42 a file that is damaged, or of another cluster, is refused before anything is removed", async () => {
  await using stage = await inspected();
  const { model, app } = stage;
  await write(app, "a", "one");
  const [file] = await model.exportFiles();
  const bytes = new Uint8Array(await file!.content.arrayBuffer());
  bytes[bytes.length - 9]! ^= 1;
  await rejection(model.importFile(new Blob([bytes])));
  await rejection(model.importFile(new Blob(["hello"])));
  await using host = new NodeHost();
  await host.startConcurrentCluster(notes.create, {
    clusterID: 2n,
    nodeID: 1n,
  });
  const { snapshot } = await host.exportData(2n);
  const other = await rejection(
    model.importFile(await new Response(snapshot).blob()),
  ) as Error;
  assertMatch(other.message, /snapshot of cluster 2; .* of cluster 1/);
  assertEquals(model.replica.status.state, "running");
});

Deno.test("U36 U42 edits that were exported while they waited are submitted again by an import", async () => {
  await using stage = await inspected();
  const cmd: Uint8Array[] = [];
  const { model, app } = stage;
  await write(app, "a", "one");
  await until(() => model.entries.some(({ call }) => call !== undefined));
  cmd.push(model.entries.find(({ call }) => call !== undefined)!.cmd!);
  await (await app.do.remove({ id: "a" })).result;
  const file = new Blob([
    JSON.stringify([{
      id: 1,
      state: "queued",
      cmd: btoa(String.fromCharCode(...cmd[0]!)),
    }]),
  ]);
  assertEquals(await model.importFile(file), "Submitted 1 edit of the file");
  await until(() => model.replica.pendingCount === 0);
  assertEquals(
    await model.replica.read({ name: "count", args: [] }),
    1,
  );
  const broken = await rejection(
    model.importFile(new Blob(['[{"cmd":"AA=="},{"cmd":1}]'])),
  ) as Error;
  assertMatch(broken.message, /Edit 2 of the file has no command/);
});

Deno.test("U42 actions that are not possible here are refused with the reason", async () => {
  await using stage = await inspected();
  await rejection(stage.model.startOver());
  await using logDB = new MemoryLogDB();
  await using host = new NodeHost({ logDB });
  const replica = await host.startCluster(() => new KVStateMachine(), CLUSTER);
  const model = new DeviceModel({ replica: replica as Replica });
  const { message } = await rejection(model.exportFiles()) as Error;
  model.close();
  assertMatch(message, /Option `host` .* is not set/);
});

Deno.test("U42 the difference of two states is bounded, and says when it is not complete", () => {
  const rows = (count: number): Map<string, number> =>
    new Map(Array.from({ length: count }, (_, i) => [`${i}`, i]));
  const { places, count, isComplete } = differencesOf(
    { rows: new Map() },
    { rows: rows(1000) },
  );
  assertEquals([places.length, count, isComplete], [
    INSPECTOR_ROWS_MAX,
    1000,
    true,
  ]);
  assertEquals(differencesOf(rows(50), new Map(), 20).isComplete, false);
  assertEquals(
    differencesOf(
      { a: [1, { b: new Uint8Array([1]) }], c: 1n },
      { a: [1, { b: new Uint8Array([1]) }], c: 2n },
    ).places.map(({ path, before, after }) => [path, before, after]),
    [[["c"], 1n, 2n]],
  );
});

Deno.test("U42 samples have the rate and the latencies of each interval, and are bounded", () => {
  const samples = new Samples();
  samples.tick(10, 1000);
  for (let ms = 1; ms <= 100; ms++) samples.took(ms);
  samples.tick(60, 2000);
  assertEquals(samples.list, [{ at: 2000, rate: 50, median: 51, high: 96 }]);
  samples.tick(20, 3000);
  assertEquals(samples.list[1], {
    at: 3000,
    rate: 0,
    median: null,
    high: null,
  });
  for (let i = 0; i < 1000; i++) samples.tick(20, 4000 + i * 1000);
  assertEquals(samples.list.length, INSPECTOR_SAMPLES_MAX);
});

Deno.test("U42 values are shown as text within bounds", () => {
  assertEquals(
    valueText({ a: [1, "x"], m: new Map([["k", null]]), n: 5n }),
    '{a: [1, "x"], m: {k: null}, n: 5}',
  );
  assertEquals(valueText(new Uint8Array([1, 255])), "0x01ff (2 B)");
  const long = valueText(Array.from({ length: 10_000 }, (_, i) => i));
  assert(long.length <= 401 && long.endsWith("…"));
  const ring: unknown[] = [];
  ring.push(ring);
  assert(valueText(ring).length < 500);
  assertEquals(
    [sizeText(5), sizeText(1536), sizeText(200 * 1024 * 1024)],
    ["5 B", "1.5 KiB", "200 MiB"],
  );
  assertEquals(
    [durationText(2.34), durationText(999), durationText(61_000)],
    ["2.3 ms", "999 ms", "1 min"],
  );
});

Deno.test("U42 options of an inspector are checked by name", () => {
  assertThrows(
    () => checkInspector({ host: {} as NodeHost }),
    TypeError,
    "host has no exportData(); give a NodeHost",
  );
});
