import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertThrows,
} from "@std/assert";
import {
  ErrChangeUnknown,
  ErrNotImplemented,
  MemoryLogDB,
  MemoryOutbox,
  NodeHost,
  type Replica,
  type ReplicaConfig,
} from "../../mod.ts";
import { recordAt, RecordKind } from "../../src/log/records.ts";
import { RecordCursor } from "../../src/rsm/record_codec.ts";
import { decodeCommand, encodeCommand } from "../../src/typed/command.ts";
import {
  defineMachine,
  ErrInvalidDefinition,
  ErrNewerCode,
  ErrOtherAuthor,
  type MachineDefinition,
  table,
  typed,
} from "../../src/typed/mod.ts";
import {
  simulate,
  type SimulatedComputer,
  type SimulatedDevice,
  type SimulatedWorld,
} from "../../src/testing/mod.ts";
import type { CoreOptions } from "../../src/sync/server/options.ts";
import { anything } from "./schemas.ts";

// Two versions of one application: the newer one names a note's text differently
// and has another command.

const one = defineMachine({
  name: "notes",
  version: 1,
  state: () => ({ notes: table<string>() }),
  commands: {
    add: {
      args: anything<{ id: string; title: string }>(),
      run: (s, { id, title }) => {
        s.notes.set(id, title);
        return s.notes.size;
      },
    },
  },
  queries: { all: (s) => [...s.notes.values()] },
});

const two = defineMachine({
  name: "notes",
  version: 1,
  state: () => ({ notes: table<string>() }),
  commands: {
    add: {
      version: 2,
      upcast: {
        1: ({ id, title }: { id: string; title: string }) => ({
          id,
          text: title,
        }),
      },
      args: anything<{ id: string; text: string }>(),
      run: (s, { id, text }) => {
        s.notes.set(id, text);
        return s.notes.size;
      },
    },
    clear: {
      args: anything<null>(),
      run: (s) => {
        for (const id of s.notes.keys()) s.notes.delete(id);
      },
    },
  },
  queries: { all: (s) => [...s.notes.values()] },
});

type Code = Pick<MachineDefinition, "create" | "validate">;

/** World in which each computer runs the code that `code` has for it at its start. */
async function fleet(
  code: Record<string, Code>,
  test: (world: SimulatedWorld) => Promise<void>,
  server: CoreOptions = {},
  config: Partial<ReplicaConfig> = {},
): Promise<void> {
  await simulate({
    start: (host, nodeID) =>
      host.startConcurrentCluster(
        code[nodeID === 1n ? "server" : `${nodeID}`]!.create,
        { clusterID: 1n, nodeID, hashEntries: 4, ...config },
      ),
    server: { authenticate: undefined, ...server },
  }, test);
}

const pageOf = (
  { replica }: SimulatedComputer,
): Parameters<typeof typed>[0] => replica as Replica<never, never>;
const first = (device: SimulatedDevice) => typed(pageOf(device), one);
const second = (device: SimulatedDevice) => typed(pageOf(device), two);

async function restart(computer: SimulatedComputer): Promise<void> {
  await computer.stop();
  await computer.start();
}

for (
  const [name, validates] of [
    ["without a hook", false],
    ["with the derived validate", true],
  ] as const
) {
  Deno.test(`Y6 U22 an older server ${name} orders no newer command: its queue waits with cause and time, and others go on`, async () => {
    const code: Record<string, Code> = { server: one, 2: two, 3: one };
    await fleet(
      code,
      async (world) => {
        const a = await world.addDevice("a");
        const b = await world.addDevice("b");
        const edit = await second(a).do.add({ id: "1", text: "new" });
        await world.sleep(2_000);
        const { state, reason, retryAt } = a.logDB.status;
        assertEquals([state, reason?.code], ["not accepting", "older-server"]);
        assert(reason!.message.includes("version 2, this server knows 1"));
        assert(retryAt! > world.now, `${retryAt}`);
        assertEquals(await second(a).ask.all(), ["new"]);
        assertEquals(
          await (await first(b).do.add({ id: "2", title: "old" })).result,
          { ok: true, value: 1 },
        );
        await world.sleep(60_000);
        assertEquals(a.logDB.status.reason?.code, "older-server");
        assertEquals(await first(b).ask.all(), ["old"]);
        code.server = two;
        await restart(world.server);
        assertEquals(await edit.result, { ok: true, value: 2 });
        assertEquals(a.logDB.status.state, "live");
      },
      validates
        ? {
          validate: (principal, cmd) => code.server!.validate(principal, cmd),
        }
        : {},
    );
  });
}

Deno.test("Y6 U23 over an older version of the protocol, the cause for which a queue waits is said in words", async () => {
  const versions = { first: 2, last: 3 };
  await fleet({ server: one, 2: two }, async (world) => {
    const device = await world.addDevice("a");
    await second(device).do.add({ id: "1", text: "new" });
    await world.sleep(2_000);
    const { reason } = device.logDB.status;
    assertEquals(reason?.code, "held");
    assert(reason!.message.includes("this server knows 1"));
  }, { versions });
});

Deno.test("Y6 H17 a hostile version or name of a command stops nothing", async () => {
  await fleet(
    { server: one, 2: one, 3: one, 4: one, 5: one },
    async (world) => {
      const honest = await world.addDevice("honest");
      const head = { at: 0, by: null, seed: new Uint8Array(16), args: null };
      for (
        const [i, hostile] of [
          { name: "add", version: 2 ** 53 - 1 },
          { name: "unheard", version: 1 },
          { name: "", version: 0 },
        ].entries()
      ) {
        const device = await world.addDevice(`hostile ${i}`);
        await device.replica.submit(encodeCommand({ ...head, ...hostile }));
      }
      await world.sleep(5_000);
      const { do: act, ask } = first(honest);
      const { result } = await act.add({ id: "1", title: "a" });
      assertEquals(await result, { ok: true, value: 1 });
      assertEquals(await ask.all(), ["a"]);
      const [, second, third, fourth] = world.devices;
      assertEquals(second!.logDB.status.reason?.code, "older-server");
      assertEquals(third!.logDB.status.reason?.code, "older-server");
      assertEquals(fourth!.replica.pending()[0]?.state, "refused");
      assertEquals(world.server.replica.status.state, "running");
    },
  );
});

Deno.test("Y6 a page with older code stops answering with ErrNewerCode, keeps its queue, and goes on after the reload", async () => {
  const code: Record<string, Code> = { server: two, 2: one, 3: two };
  await fleet(code, async (world) => {
    const old = await world.addDevice("old");
    const page = await world.addDevice("new");
    await (await first(old).do.add({ id: "1", title: "before" })).result;
    old.goOffline();
    await first(old).do.add({ id: "2", title: "queued" });
    await (await second(page).do.add({ id: "3", text: "newer" })).result;
    old.goOnline();
    await world.sleep(5_000);
    const app = first(old);
    for (
      const ask of [
        () => app.ask.all(),
        () => old.replica.read({ name: "all", args: [] }),
        async () => await old.replica.staleRead({ name: "all", args: [] }),
      ]
    ) await assertRejects(ask, ErrNewerCode, "load the newer code");
    const { status } = old.replica;
    assertEquals(status.state, "failed");
    assertInstanceOf(status.error, ErrNewerCode);
    const { state, reason } = old.logDB.status;
    assertEquals([state, reason?.code], ["blocked", "newer-code"]);
    // What is edited now is not lost either.
    await app.do.add({ id: "4", title: "late" });
    assertEquals(app.pending().length, 2);
    await old.stop();
    code[2] = two;
    await old.start();
    await world.settle();
    assertEquals(await second(old).ask.all(), [
      "before",
      "queued",
      "newer",
      "late",
    ]);
    assertEquals(old.replica.pending(), []);
    assertEquals(
      (await old.replica.getHash()).hash,
      (await world.server.replica.getHash()).hash,
    );
  });
});

Deno.test("Y6 U23 queued commands of an old version survive a deploy byte for byte", async () => {
  const code: Record<string, Code> = { server: one, 2: one };
  await fleet(code, async (world) => {
    const device = await world.addDevice("a");
    device.goOffline();
    await first(device).do.add({ id: "1", title: "queued" });
    const [before] = device.replica.pending();
    const bytes = before!.cmd;
    await device.stop();
    code[2] = code.server = two;
    await restart(world.server);
    await device.start();
    assertEquals(device.replica.pending()[0]!.cmd, bytes);
    assertEquals(await second(device).ask.all(), ["queued"]);
    assertEquals(second(device).pending()[0]!.args, {
      id: "1",
      text: "queued",
    });
    device.goOnline();
    await world.settle();
    assertEquals(await second(device).ask.all(), ["queued"]);
    assertEquals(decodeCommand(bytes)!.version, 1);
  });
});

Deno.test("Y6 a queued command that cannot be upcast is listed as it is stored, and the application starts", async () => {
  const broken = defineMachine({
    name: "notes",
    version: 1,
    state: () => ({ notes: table<string>() }),
    commands: {
      add: {
        version: 2,
        upcast: {
          1: () => {
            throw new Error("upcast");
          },
        },
        args: anything<{ id: string; text: string }>(),
        run: (s, { id, text }) => s.notes.set(id, text),
        inverse: () => undefined,
      },
    },
    queries: { all: (s) => [...s.notes.values()] },
  });
  const code: Record<string, Code> = { server: one, 2: one };
  await fleet(code, async (world) => {
    const device = await world.addDevice("a");
    device.goOffline();
    const args = { id: "1", title: "queued" };
    await first(device).do.add(args);
    await device.stop();
    code[2] = broken;
    await device.start();
    const app = typed(pageOf(device), broken);
    assertEquals(app.pending().map(({ args }) => args), [args]);
    assertEquals(await app.ask.all(), []);
  });
});

Deno.test("Y6 a queued command of newer code is never refused by older code, whose view stops answering", async () => {
  const code: Record<string, Code> = { server: two, 2: two };
  await fleet(code, async (world) => {
    const device = await world.addDevice("a");
    device.goOffline();
    await second(device).do.add({ id: "1", text: "queued" });
    await device.stop();
    code[2] = one;
    await device.start();
    await assertRejects(() => first(device).ask.all(), ErrNewerCode);
    assertEquals(device.replica.pending()[0]!.state, "queued");
    await device.stop();
    code[2] = two;
    await device.start();
    device.goOnline();
    await world.settle();
    assertEquals(await second(device).ask.all(), ["queued"]);
  });
});

Deno.test("Y6 a host that orders the log by itself orders no newer command, queued or proposed, and goes on with the newer code", async () => {
  const logDB = new MemoryLogDB();
  const outbox = new MemoryOutbox();
  const start = async (code: Code, more = {}) => {
    const host = new NodeHost({ logDB, ...more });
    const replica = await host.startConcurrentCluster(code.create, {
      clusterID: 1n,
      nodeID: 1n,
    });
    return { host, replica };
  };
  // The queue belongs to newer code, which a deploy was rolled back from.
  const newer = encodeCommand({
    name: "add",
    version: 2,
    at: 0,
    by: null,
    seed: new Uint8Array(16),
    args: { id: "1", text: "newer" },
  });
  const rolledBack = await start(one, { outbox });
  await assertRejects(() => rolledBack.replica.propose(newer), ErrNewerCode);
  const submission = await rolledBack.replica.submit(newer);
  for (let i = 0; i < 50; i++) await new Promise((go) => setTimeout(go, 1));
  assertEquals(submission.state, "queued");
  assertInstanceOf(rolledBack.replica.status.error, ErrNewerCode);
  assertEquals(rolledBack.replica.status.state, "blocked");
  const { value } = await rolledBack.replica.propose(encodeCommand({
    name: "add",
    version: 1,
    at: 0,
    by: null,
    seed: new Uint8Array(16),
    args: { id: "0", title: "old" },
  }));
  assertEquals(value, 0n);
  await rolledBack.host.stop();
  const deployed = await start(two, { outbox });
  await deployed.replica.pending()[0]?.result;
  assertEquals(
    await typed(deployed.replica as never, two).ask.all(),
    ["old", "newer"],
  );
  await deployed.host.stop();
  // And the older code refuses the log that the newer one has written, with words.
  const error = await assertRejects(() => start(one)) as Error;
  assert(`${error.message} ${error.cause}`.includes("load the newer code"));
  await outbox.close();
  await logDB.close();
});

// ------------------------------------------------------------------- authors

const authors = defineMachine({
  name: "authors",
  version: 1,
  state: () => ({ notes: table<string | null>() }),
  commands: {
    add: {
      args: anything<string>(),
      run: (s, id, ctx) => s.notes.set(id, ctx.by),
    },
  },
  queries: { all: (s) => [...s.notes] },
});

const authorsOf = (device: SimulatedComputer, by?: string) =>
  typed(pageOf(device), authors, by === undefined ? {} : { by });

Deno.test("Y5 the author is the principal of the last welcome, also offline and after a restart, and null for the anonymous one", async () => {
  let who: string | undefined = "ann";
  const authenticate = () => ({ id: who ?? "anybody" });
  await fleet({ server: authors, 2: authors }, async (world) => {
    const device = await world.addDevice("a");
    await world.settle();
    await (await authorsOf(device).do.add("1")).result;
    assertEquals(device.replica.principal, "ann");
    device.goOffline();
    await device.stop();
    await device.start();
    assertEquals(device.replica.principal, "ann");
    await authorsOf(device).do.add("2");
    device.goOnline();
    await world.settle();
    const stored: [string, string][] = [["1", "ann"], ["2", "ann"]];
    assertEquals(await authorsOf(device).ask.all(), stored);
    // Of an anonymous server, there is no author.
    who = undefined;
    device.goOffline();
    await world.sleep(100);
    device.goOnline();
    await world.sleep(10_000);
    assertEquals(device.replica.principal, null);
    await device.stop();
    device.goOffline();
    await device.start();
    assertEquals(device.replica.principal, null);
  }, { authenticate });
});

Deno.test("Y5 before the first welcome a command has no author, which an anonymous server takes", async () => {
  await fleet({ server: authors, 2: authors }, async (world) => {
    const device = await world.addDevice("a");
    device.goOffline();
    await authorsOf(device).do.add("1");
    device.goOnline();
    await world.settle();
    assertEquals(await authorsOf(device).ask.all(), [["1", null]]);
  });
});

for (const by of [undefined, "ann"]) {
  Deno.test(`Y5 U34 a command of ${by ?? "no author"} waits as needing sign-in while another principal is signed in, and is not refused`, async () => {
    let who: string | undefined = "bob";
    const authenticate = () => ({ id: who ?? "anybody" });
    await fleet({ server: authors, 2: authors, 3: authors }, async (world) => {
      const device = await world.addDevice("a");
      device.goOffline();
      const { result } = await authorsOf(device, by).do.add("1");
      device.goOnline();
      await world.sleep(10_000);
      const { state, reason } = device.logDB.status;
      assertEquals([state, reason?.code], ["blocked", "needs-auth"]);
      assertInstanceOf(device.replica.status.error, ErrOtherAuthor);
      assertEquals(device.replica.pending()[0]!.state, "queued");
      // What is edited in that time is queued behind it; others go on.
      if (by !== undefined) await authorsOf(device, by).do.add("2");
      const other = await world.addDevice("b");
      await world.sleep(1_000);
      const edit = await authorsOf(other).do.add("3");
      assertEquals((await edit.result).ok, true);
      who = by;
      device.goOffline();
      await world.sleep(1_000);
      device.goOnline();
      assertEquals((await result).ok, true);
      await world.sleep(10_000);
      assertEquals(device.logDB.status.state, "live");
      assertEquals(await authorsOf(device).ask.all(), [
        ["1", by ?? null],
        ...by === undefined ? [] : [["2", by] as [string, string]],
        ["3", "bob"],
      ]);
    }, { authenticate });
  });
}

Deno.test("Y5 the server checks the author by itself, whatever the page does, and a forged one stops no other client", async () => {
  // A page whose machine does not check authors.
  const careless: Code = {
    validate: authors.validate,
    create: () => Object.assign(authors.create(), { admit: undefined }),
  };
  await fleet({ server: authors, 2: careless, 3: authors }, async (world) => {
    const forger = await world.addDevice("forger");
    const honest = await world.addDevice("honest");
    await authorsOf(forger, "honest").do.add("1");
    await world.sleep(5_000);
    const { state, reason, retryAt } = forger.logDB.status;
    assertEquals([state, reason?.code], ["not accepting", "needs-auth"]);
    assert(retryAt! > world.now);
    assert((await (await authorsOf(honest).do.add("2")).result).ok);
    assertEquals(await authorsOf(honest).ask.all(), [["2", "honest"]]);
  }, {
    authenticate: (request) => ({
      id: decodeURIComponent(
        request.headers.get("authorization")!.replace("Bearer ", ""),
      ),
    }),
  });
});

// ---------------------------------------------------------------- activation

const define = (version: number, changes: readonly string[]) =>
  defineMachine({
    name: "loud",
    version,
    state: () => ({ notes: [] as string[] }),
    migrate: version === 1 ? {} : { 1: (old) => old },
    changes,
    commands: {
      note: {
        args: anything<string>(),
        run: (s, text, ctx) => {
          const isLoud = changes.includes("loud") && ctx.since("loud");
          s.notes = [...s.notes, isLoud ? text.toUpperCase() : text];
        },
      },
    },
    queries: { notes: (s) => s.notes },
  });
const quiet = define(1, []);
const loud = define(1, ["loud"]);
const reshaped = define(2, ["loud"]);

/** Changes that are activated in the log of a replica. */
async function activated(logDB: MemoryLogDB): Promise<unknown[]> {
  const log = await logDB.open(1n, 99n);
  const reader = await log.read(0);
  const found: unknown[] = [];
  for (let left = reader.lastAtStart; left > 0;) {
    const { records } = await reader.next();
    left -= records.ends.length;
    for (let i = 0; i < records.ends.length; i++) {
      const cursor = new RecordCursor();
      const record = recordAt(records, i);
      cursor.read(record, 0, record.length);
      if (cursor.kind !== RecordKind.Proposal) continue;
      const command = decodeCommand(record.subarray(cursor.start));
      if (command?.name === "") found.push(command.args);
    }
  }
  await log.close();
  return found;
}

// deno-lint-ignore explicit-function-return-type
async function startOn(
  logDB: MemoryLogDB,
  code: Pick<typeof quiet, "create">,
  nodeID = 1n,
) {
  const host = new NodeHost({ logDB });
  const replica = await host.startConcurrentCluster(code.create, {
    clusterID: 1n,
    nodeID,
  });
  const note = (text: string) =>
    replica.propose(encodeCommand({
      name: "note",
      version: 1,
      at: 0,
      by: null,
      seed: new Uint8Array(16),
      args: text,
    }));
  const notes = () => replica.read({ name: "notes", args: [] });
  return { host, replica, note, notes };
}

Deno.test("Y7 a host that orders its log activates a change by itself, before anything that is proposed after its start, and once", async () => {
  const logDB = new MemoryLogDB();
  const before = await startOn(logDB, quiet);
  await before.note("a");
  await before.host.stop();
  for (const text of ["b", "c"]) {
    const { host, note, notes } = await startOn(logDB, loud);
    await note(text);
    assertEquals((await notes() as string[]).at(-1), text.toUpperCase());
    await host.stop();
  }
  assertEquals(await activated(logDB), ["loud"]);
  const error = await assertRejects(() => startOn(logDB, quiet)) as Error;
  assert(`${error} ${error.cause}`.includes("load the newer code"), `${error}`);
  await logDB.close();
});

Deno.test("Y7 with several hosts on a log, a change is activated once each live one has announced that it knows it, or by hand", async () => {
  const logDB = new MemoryLogDB();
  const old = await startOn(logDB, quiet, 1n);
  const new2 = await startOn(logDB, loud, 2n);
  const new3 = await startOn(logDB, loud, 3n);
  await new2.note("a");
  assertEquals(await activated(logDB), []);
  await old.host.stop();
  await new3.note("b");
  assertEquals(await new2.notes(), ["a", "B"]);
  assertEquals(await new3.notes(), ["a", "B"]);
  assertEquals(await activated(logDB), ["loud"]);
  // Not waiting for an older host is the operator's decision: it stops.
  const newest = await startOn(logDB, reshaped, 4n);
  await newest.note("c");
  assertEquals(await activated(logDB), ["loud"]);
  await assertRejects(
    () => newest.replica.activateChange("sampan:state:2"),
    ErrChangeUnknown,
    "Change sampan:state:2 of cluster 1 is unknown to every live replica",
  );
  const force = true;
  await newest.replica.activateChange("sampan:state:2", { force });
  await newest.replica.activateChange("sampan:state:2", { force });
  // The host itself may put it there beside the operator: the second has no effect.
  assertEquals([...new Set(await activated(logDB))], [
    "loud",
    "sampan:state:2",
  ]);
  while (new2.replica.error === undefined) {
    await new Promise((go) => setTimeout(go, 1));
  }
  assertInstanceOf(new2.replica.error, ErrNewerCode);
  assertEquals(await newest.notes(), ["a", "B", "C"]);
  await assertRejects(
    () => newest.replica.activateChange("unheard"),
    ErrInvalidDefinition,
    '"unheard"',
  );
  for (const { host } of [new2, new3, newest]) await host.stop();
  await logDB.close();
});

Deno.test("Y7 pages with older code stop at an activation and go on after the reload, and a page cannot activate", async () => {
  const code: Record<string, Code> = { server: quiet, 2: quiet, 3: reshaped };
  await fleet(code, async (world) => {
    const a = await world.addDevice("a");
    const b = await world.addDevice("b");
    const app = () => typed(pageOf(a), quiet);
    await (await app().do.note("a")).result;
    await (await typed(pageOf(b), reshaped).do.note("b")).result;
    await assertRejects(
      () => b.replica.activateChange("loud"),
      ErrNotImplemented,
      "by the server",
    );
    // Both shapes of the state are in use: their hashes are not compared.
    assertEquals(world.server.replica.status.state, "running");
    code.server = reshaped;
    await restart(world.server);
    await world.sleep(60_000);
    await assertRejects(() => app().ask.notes(), ErrNewerCode);
    await app().do.note("c");
    assertEquals(b.logDB.status.state, "live");
    await a.stop();
    code[2] = reshaped;
    await a.start();
    await world.settle();
    assertEquals(await typed(pageOf(a), reshaped).ask.notes(), ["a", "b", "C"]);
  });
});

Deno.test("Y8 a page that needs a snapshot of newer code stops answering, keeps what is edited, and goes on after the reload", async () => {
  const code: Record<string, Code> = { server: quiet, 2: quiet, 3: reshaped };
  await fleet(
    code,
    async (world) => {
      const a = await world.addDevice("a");
      const app = () => typed(pageOf(a), quiet);
      await (await app().do.note("a")).result;
      a.goOffline();
      code.server = reshaped;
      await restart(world.server);
      const b = await world.addDevice("b");
      for (let i = 0; i < 30; i++) {
        await (await typed(pageOf(b), reshaped).do.note(`${i}`)).result;
      }
      a.goOnline();
      await world.sleep(60_000);
      await assertRejects(() => app().ask.notes(), ErrNewerCode, "version 2");
      assertEquals(a.replica.status.state, "failed");
      assertInstanceOf(a.replica.status.error, ErrNewerCode);
      assertEquals(a.logDB.status.reason?.code, "newer-code");
      await app().do.note("late");
      await a.stop();
      code[2] = reshaped;
      await a.start();
      await world.settle();
      const notes = await typed(pageOf(a), reshaped).ask.notes();
      assertEquals([notes.length, notes[0], notes.at(-1)], [32, "a", "LATE"]);
    },
    {},
    { snapshotEntries: 5, compactionOverhead: 1 },
  );
});

Deno.test("Y7 a name of a change that belongs to the library is refused", () => {
  assertThrows(() => define(1, ["sampan:x"]), ErrInvalidDefinition, "sampan:x");
});
