import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertThrows,
} from "@std/assert";
import {
  type Entry,
  ErrProposalRefused,
  MemoryOutbox,
  NodeHost,
  type Result,
} from "../../mod.ts";
import {
  decodeCommand,
  encodeCommand,
  type Envelope,
} from "../../src/typed/command.ts";
import {
  defineMachine,
  ErrInvalidArguments,
  ErrInvalidDefinition,
  ErrInvalidQuery,
  ErrNewerCode,
  ErrNotPlain,
  ErrOtherAuthor,
  ErrSchemaAsync,
  ErrSchemaNotIdempotent,
  ErrTypedSnapshot,
  newID,
  type OldState,
  type Schema,
  table,
  typed,
  type TypedMachine,
} from "../../src/typed/mod.ts";
import { codeOf, valueOf } from "../../src/typed/result.ts";
import { checkConcurrentStateMachine } from "../../src/testing/mod.ts";
import { encodePlain } from "../../src/typed/plain.ts";
import { startTyped } from "./host.ts";
import { anything, shape } from "./schemas.ts";
import { recover, snapshotOf } from "./snapshots.ts";

/** Row of the cards. */
interface Card {
  readonly text: string;
  readonly list: string;
  readonly by: string | null;
  readonly at: number;
}

/** Errors that handlers threw. */
const thrown: string[] = [];

/** Cards in lists, with a title. */
const board = defineMachine({
  name: "board",
  version: 1,
  state: () => ({
    cards: table({ indexes: { byList: (card: Card) => card.list } }),
    title: "",
  }),
  commands: {
    add: {
      args: shape({ id: "string", text: "string", list: "string" }),
      run: (state, { id, text, list }, ctx) => {
        if (state.cards.has(id)) return ctx.reject("exists");
        state.cards.set(id, { text, list, by: ctx.by, at: ctx.at });
        return state.cards.size;
      },
    },
    move: {
      args: shape({ id: "string", list: "string" }),
      run: (state, { id, list }, ctx) => {
        const card = state.cards.get(id);
        if (card === undefined) return ctx.reject("missing");
        state.cards.set(id, { ...card, list });
        return list;
      },
    },
    remove: {
      args: shape({ id: "string" }),
      run: (state, { id }) => state.cards.delete(id),
    },
    rename: {
      args: shape({ title: "string" }),
      run: (state, { title }) => {
        state.title = title;
      },
    },
    draw: {
      args: shape({}),
      run: (_state, _args, ctx) => [ctx.random(), ctx.random(), ctx.id()],
    },
    crash: {
      args: anything<unknown>(),
      run: (state, args) => {
        state.title = "crashed";
        for (const [id] of state.cards) state.cards.delete(id);
        throw new TypeError(`crash with ${args}`);
      },
    },
    put: {
      args: anything<unknown>(),
      run: (state, args) => {
        state.cards.set("put", args as Card);
      },
    },
  },
  queries: {
    list: (state, list: string) => state.cards.byList(list),
    ids: (state) => [...state.cards.keys()],
    title: (state) => state.title,
    all: (state) => state.cards,
  },
  onThrow: (error, { index, name }) =>
    thrown.push(`${name} at ${index}: ${error}`),
});

const SEED = new Uint8Array(16).fill(7);

function command(
  name: string,
  args: unknown,
  more: Partial<Envelope> = {},
): Uint8Array {
  return encodeCommand({
    name,
    version: 1,
    at: 1000,
    by: null,
    seed: SEED,
    args: args as never,
    ...more,
  });
}

function run(machine: TypedMachine, ...cmds: Uint8Array[]): Result[] {
  const entries = cmds.map((cmd, i) => ({ index: i + 1, cmd }));
  const applied = machine.update(entries) as Entry[];
  return applied.map(({ result }) => result!);
}

/** Value or code of a result. */
function decided(result: Result): unknown {
  return codeOf(result) ?? valueOf(result) ?? "done";
}

Deno.test("Y2 a result is a value or a code, and never the text of a native error", () => {
  const machine = board.create();
  const add = command("add", { id: "1", text: "rice", list: "todo" });
  const results = run(
    machine,
    add,
    add,
    command("move", { id: "2", list: "done" }),
    command("remove", { id: "1" }),
    command("rename", { title: "new" }),
    command("crash", "test"),
  );
  assertEquals(results.map(decided), [
    1,
    "exists",
    "missing",
    true,
    "done",
    "sampan:threw",
  ]);
  const text = new TextDecoder().decode(results[5]!.data);
  assert(!text.includes("crash"), text);
  assertEquals(machine.refusal(results[1]!), "exists");
  assertEquals(machine.refusal(results[0]!), undefined);
});

Deno.test("Y3 a handler that throws is undone, reported with the decoded command, and stops nothing", () => {
  const machine = board.create();
  run(machine, command("add", { id: "1", text: "rice", list: "todo" }));
  const hash = machine.getHash();
  thrown.length = 0;
  run(machine, command("crash", 5));
  assertEquals(machine.getHash(), hash);
  assertEquals(machine.lookup({ name: "ids", args: [] }), ["1"]);
  assertEquals(machine.lookup({ name: "title", args: [] }), "");
  assertEquals(thrown, ["crash at 1: TypeError: crash with 5"]);
});

Deno.test("Y4 what is not plain never gets into the state: the command is undone", () => {
  const machine = board.create();
  const hash = machine.getHash();
  const define = (row: unknown) =>
    defineMachine({
      name: "x",
      version: 1,
      state: () => ({ rows: table<unknown>(), value: 0 as unknown }),
      commands: {
        row: { args: anything(), run: (s) => s.rows.set("a", row) },
        value: {
          args: anything(),
          run: (s) => {
            s.rows.set("b", 1);
            s.value = row;
          },
        },
        returns: { args: anything(), run: () => row },
      },
      queries: {},
    });
  assertEquals(machine.getHash(), hash);
  for (const bad of [NaN, new Map(), { a: undefined }, "\ud800", [() => 1]]) {
    const machine = define(bad).create();
    const before = machine.getHash();
    assertEquals(
      run(
        machine,
        command("row", 1),
        command("value", 1),
        command("returns", 1),
      ).map(decided),
      ["sampan:threw", "sampan:threw", "sampan:threw"],
    );
    assertEquals(machine.getHash(), before);
  }
});

Deno.test("Y5 random numbers and ids come from the command's seed alone", () => {
  const draw = (seed: Uint8Array, machine = board.create()) =>
    decided(run(machine, command("draw", {}, { seed }))[0]!);
  const other = board.create();
  run(other, command("rename", { title: "before" }));
  assertEquals(draw(SEED), draw(SEED, other));
  assert(`${draw(SEED)}` !== `${draw(new Uint8Array(16))}`);
});

Deno.test("Y6 a malformed command is rejected, and stops nothing", () => {
  const machine = board.create();
  assertEquals(
    run(
      machine,
      new Uint8Array(),
      new Uint8Array([255, 1, 2]),
      command("add", {}).subarray(0, 12),
      command("add", {}, { version: 0 }),
    ).map(decided),
    Array(4).fill("sampan:malformed"),
  );
});

Deno.test("Y6 a stored command of an old version is upcast when it is decoded", () => {
  const machine = defineMachine({
    name: "x",
    version: 1,
    state: () => ({ rows: table<unknown>() }),
    commands: {
      add: {
        version: 3,
        upcast: {
          1: (old: { id: string }) => ({ ...old, first: true }),
          2: (old: object) => ({ ...old, second: true }),
        },
        args: anything<{ id: string }>(),
        run: (s, a) => s.rows.set(a.id, a),
      },
    },
    queries: { all: (s) => [...s.rows] },
  }).create();
  run(
    machine,
    command("add", { id: "1" }),
    command("add", { id: "2" }, { version: 2 }),
    command("add", { id: "3" }, { version: 3 }),
  );
  assertEquals(machine.lookup({ name: "all", args: [] }), [
    ["1", { id: "1", first: true, second: true }],
    ["2", { id: "2", second: true }],
    ["3", { id: "3" }],
  ]);
});

Deno.test("Y6 a command of newer code stops the replica, or is rejected where the definition says so", () => {
  const newer = command("add", {}, { version: 2 });
  assertThrows(() => run(board.create(), newer), ErrNewerCode, "version 2");
  assertThrows(
    () => run(board.create(), command("unheard", {})),
    ErrNewerCode,
    '"unheard"',
  );
  const rejecting = defineMachine({
    name: "x",
    version: 1,
    state: () => ({ value: 1 }),
    commands: {},
    queries: {},
    newer: "reject",
  });
  assertEquals(decided(run(rejecting.create(), newer)[0]!), "sampan:newer");
});

Deno.test("Y7 a change of behaviour counts from its entry in the log on, and survives a snapshot", async () => {
  const definition = defineMachine({
    name: "x",
    version: 1,
    state: () => ({ log: [] as string[] }),
    commands: {
      note: {
        args: anything<string>(),
        run: (s, a, ctx) => {
          s.log = [...s.log, ctx.since("loud") ? a.toUpperCase() : a];
        },
      },
    },
    queries: { log: (s) => s.log },
    changes: ["loud"],
  });
  const machine = definition.create();
  const activate = command("", "loud", { version: 0 });
  run(machine, command("note", "a"));
  const before = machine.getHash();
  run(machine, activate);
  assert(machine.getHash() !== before);
  const after = await recover(definition.create(), await snapshotOf(machine));
  assertEquals(after.getHash(), machine.getHash());
  for (const one of [machine, after]) {
    run(one, command("note", "b"));
    assertEquals(one.lookup({ name: "log", args: [] }), ["a", "B"]);
  }
  assertThrows(
    () => run(board.create(), activate),
    ErrNewerCode,
    'Change "loud"',
  );
});

Deno.test("Y8 a snapshot is the state, keys in their order, and names its machine and versions", async () => {
  const machine = board.create();
  for (let i = 0; i < 3000; i++) {
    const id = `${i * 7919 % 3000}`;
    run(machine, command("add", { id, text: `card ${i}`, list: `${i % 5}` }));
  }
  run(machine, command("rename", { title: "big" }));
  const bytes = await snapshotOf(machine);
  const other = await recover(board.create(), bytes);
  assertEquals(other.getHash(), machine.getHash());
  for (
    const query of [
      { name: "ids", args: [] },
      { name: "list", args: ["3"] },
      { name: "title", args: [] },
    ]
  ) assertEquals(other.lookup(query), machine.lookup(query));
  assertEquals(other.getRecoveredHash(), undefined);
  // A fork and the context of a snapshot do not see what comes later.
  const fork = await machine.fork();
  const context = machine.prepareSnapshot();
  run(machine, command("rename", { title: "later" }));
  assertEquals(fork.lookup({ name: "title", args: [] }), "big");
  assert(context !== undefined);
});

Deno.test("Y8 a damaged or foreign snapshot is refused, and changes nothing", async () => {
  const machine = board.create();
  run(machine, command("add", { id: "1", text: "a", list: "b" }));
  const bytes = await snapshotOf(machine);
  const hash = machine.getHash();
  for (let length = 0; length < bytes.length; length++) {
    await assertRejects(
      () => recover(machine, bytes.subarray(0, length)),
      ErrTypedSnapshot,
    );
  }
  const foreign = defineMachine({
    name: "other",
    version: 1,
    state: () => ({}),
    commands: {},
    queries: {},
  });
  await assertRejects(
    () => recover(foreign.create(), bytes),
    ErrTypedSnapshot,
    '"board"',
  );
  assertEquals(machine.getHash(), hash);
});

Deno.test("Y8 a state of an older version is migrated, with its own hash; a newer one is refused", async () => {
  const commands = {};
  const one = defineMachine({
    name: "x",
    version: 1,
    state: () => ({
      cards: table<{ text: string }>(),
      title: "old",
    }),
    commands: {
      add: {
        args: shape({ id: "string" }),
        run: (s, { id }) => s.cards.set(id, { text: id }),
      },
    },
    queries: {},
  });
  const two = defineMachine({
    name: "x",
    version: 2,
    state: () => ({
      notes: table<{ text: string; done: boolean }>(),
      titles: [] as string[],
    }),
    commands,
    queries: { all: (s) => [[...s.notes], s.titles] },
    migrate: {
      1: ({ cards, title }) => ({
        notes: new Map(
          [...cards as Map<string, object>].map(([key, card]) => [
            key,
            { ...card, done: false },
          ]),
        ),
        titles: [title as string],
      }),
    },
  });
  const old = one.create();
  run(old, command("add", { id: "a" }), command("add", { id: "b" }));
  const migrated = await recover(two.create(), await snapshotOf(old));
  assertEquals(migrated.lookup({ name: "all", args: [] }), [
    [["a", { text: "a", done: false }], ["b", { text: "b", done: false }]],
    ["old"],
  ]);
  assertEquals(migrated.getRecoveredHash(), old.getHash());
  await assertRejects(
    async () => await recover(one.create(), await snapshotOf(migrated)),
    ErrNewerCode,
    "state version 2",
  );
});

Deno.test("Y4 a handler meets the parts of its state in the order of the definition, in a fork too", () => {
  const machine = defineMachine({
    name: "x",
    version: 1,
    state: () => ({ first: 0, rows: table<number>(), last: 0 }),
    commands: {
      names: { args: anything(), run: (state) => Object.keys(state).join() },
    },
    queries: { names: (state) => Object.keys(state).join() },
  }).create();
  for (const one of [machine, machine.fork() as TypedMachine]) {
    assertEquals(decided(run(one, command("names", 1))[0]!), "first,rows,last");
    assertEquals(one.lookup({ name: "names", args: [] }), "first,rows,last");
  }
});

Deno.test("Y4 a query and an inverse change nothing, nor does what a handler assigns after its command", async () => {
  let kept: { count: number } | undefined;
  const definition = defineMachine({
    name: "x",
    version: 1,
    state: () => ({ count: 0, rows: table<number>() }),
    commands: {
      add: {
        args: anything<number>(),
        run: (state) => {
          kept = state;
          return ++state.count;
        },
        inverse: (before) => {
          before.rows.set("a", 1);
          return undefined;
        },
      },
      assign: {
        args: anything<number>(),
        run: (state) => ++state.count,
        inverse: (before) => {
          before.count = 7;
          return undefined;
        },
      },
    },
    queries: {
      all: ({ count, rows }) => [count, ...rows],
      assign: (state) => state.count++,
      set: ({ rows }) => rows.set("a", 1),
    },
  });
  const machine = definition.create();
  const all = { name: "all", args: [] };
  run(machine, command("add", 1));
  for (const name of ["assign", "set"]) {
    assertThrows(() => machine.lookup({ name, args: [] }), TypeError);
  }
  kept!.count = 5;
  assertEquals(machine.lookup(all), [1]);
  assertEquals(decided(run(machine, command("add", 1))[0]!), 2);
  // An inverse is called where its edit can be undone: there alone it would count.
  const { host, app } = await startTyped(definition);
  for (const edit of [app.do.add, app.do.assign]) await (await edit(1)).result;
  assertEquals(await app.ask.all(), [2]);
  await assertRejects(() => app.undo(), TypeError);
  await host.stop();
});

Deno.test("Y8 a table may begin with rows: they are in the hash, and gone after a snapshot without them", async () => {
  const definition = defineMachine({
    name: "x",
    version: 1,
    state: () => {
      const rows = table<number>();
      rows.set("welcome", 1);
      return { rows };
    },
    commands: {
      remove: {
        args: anything<string>(),
        run: ({ rows }, key) => rows.delete(key),
      },
    },
    queries: { all: ({ rows }) => [...rows] },
  });
  const machine = definition.create();
  for (const expected of [[["welcome", 1]], []]) {
    const other = await recover(definition.create(), await snapshotOf(machine));
    assertEquals(other.lookup({ name: "all", args: [] }), expected);
    assertEquals(other.getHash(), machine.getHash());
    run(machine, command("remove", "welcome"));
  }
});

Deno.test("an answer is found by name, and is never a table", () => {
  const machine = board.create();
  assertThrows(
    () => machine.lookup({ name: "none", args: [] }),
    ErrInvalidQuery,
    '"none"',
  );
  assertThrows(
    () => machine.lookup({ name: "all", args: [] }),
    ErrInvalidQuery,
    "a table",
  );
});

Deno.test("a definition that contradicts itself is refused with the part", () => {
  const base = { name: "x", version: 1, state: () => ({}), queries: {} };
  const args = anything();
  const run = (): void => {};
  const none = { a: { args, run } };
  for (
    const [options, part] of [
      [{ ...base, version: 2, commands: none }, "`migrate` from version none"],
      [
        { ...base, commands: { a: { args, run, version: 2 } } },
        "`upcast` from version none",
      ],
      [{ ...base, commands: { a: { args: {} as never, run } } }, "`args`"],
      [{ ...base, commands: { a: undefined as never } }, 'Command "a" needs'],
      [
        { ...base, commands: { a: { args, run, upcast: { 1: () => 1 } } } },
        "`upcast` from version 1",
      ],
      [
        { ...base, commands: none, migrate: { 2: (old: OldState) => old } },
        "`migrate` from version 2",
      ],
      [
        {
          ...base,
          version: 2,
          commands: none,
          migrate: { 1: (old: OldState) => old, 0: (old: OldState) => old },
        },
        "`migrate` from version 0,1",
      ],
    ] as const
  ) assertThrows(() => defineMachine(options), ErrInvalidDefinition, part);
  assertThrows(
    () => defineMachine({ ...base, version: 0, commands: none }),
    RangeError,
    "version",
  );
  assertThrows(
    () => defineMachine({ ...base, state: () => ({ a: NaN }), commands: {} }),
    ErrNotPlain,
    "a is NaN",
  );
});

// ------------------------------------------------------------------ the edges

function schema<T>(validate: Schema<T>["~standard"]["validate"]): Schema<T, T> {
  return { "~standard": { version: 1, vendor: "tests", validate } };
}

const edges = defineMachine({
  name: "edges",
  version: 1,
  state: () => ({ names: table<string>() }),
  commands: {
    trim: {
      args: schema<string>((value) => ({ value: String(value).trim() })),
      run: (s, name) => s.names.set(name, name),
    },
    grow: {
      args: schema<{ n: number }>((value) => ({
        value: { n: (value as { n: number }).n + 1 },
      })),
      run: () => {},
    },
    later: {
      args: schema<string>((value) =>
        Promise.resolve({ value: value as string })
      ),
      run: () => {},
    },
  },
  queries: { names: (s) => [...s.names.keys()] },
});

// deno-lint-ignore explicit-function-return-type
async function start() {
  const host = new NodeHost({ outbox: new MemoryOutbox() });
  const replica = await host.startConcurrentCluster(edges.create, {
    clusterID: 1n,
    nodeID: 1n,
  });
  return { host, replica, app: typed(replica, edges) };
}

Deno.test("Y1 what is submitted is the output of the schema, which must accept it unchanged", async () => {
  const { host, replica, app } = await start();
  await (await app.do.trim("  ann ")).result;
  assertEquals(await app.ask.names(), ["ann"]);
  const refused = await assertRejects(
    () => app.do.grow({ n: 1 }),
    ErrSchemaNotIdempotent,
  );
  assert(refused.message.includes("grow.n (2, then 3)"), refused.message);
  await assertRejects(() => app.do.later("x"), ErrSchemaAsync, "later");
  assertEquals(replica.pending(), []);
  await host.stop();
});

Deno.test("Y1 the server validates again: arguments and versions", () => {
  const ann = { id: "ann" };
  const good = { id: "1", text: "a", list: "b" };
  const add = (args: unknown, more: Partial<Envelope> = {}) =>
    command("add", args, more);
  assertEquals(board.validate(ann, add(good)), undefined);
  for (
    const [cmd, reason] of [
      [new Uint8Array([9]), "not one of machine board"],
      [add({ ...good, text: 5 }), "add.text: not a string"],
      [add({ ...good, more: 5 }), "not validated before"],
    ] as const
  ) {
    const found = board.validate(ann, cmd) as string | undefined;
    assert(found?.includes(reason), `${found}`);
  }
  for (const cmd of [add(good, { version: 2 }), command("steal", {})]) {
    assertThrows(() => board.validate(ann, cmd), ErrNewerCode);
  }
});

Deno.test("Y1 arguments that an upcast cannot convert are refused with a reason", () => {
  const definition = defineMachine({
    name: "x",
    version: 1,
    state: () => ({}),
    commands: {
      add: {
        version: 2,
        upcast: { 1: ({ a }: { a: { b: string } }) => a.b },
        args: anything<string>(),
        run: () => {},
      },
    },
    queries: {},
  });
  for (const args of [{}, { a: {} }]) {
    const reason = definition.validate({ id: "ann" }, command("add", args));
    assert(`${reason}`.includes("add in version 1 cannot"), `${reason}`);
  }
});

Deno.test("Y1 stored arguments of which the schema makes what is not plain are refused with a reason", () => {
  const definition = defineMachine({
    name: "x",
    version: 1,
    state: () => ({}),
    commands: {
      add: {
        args: schema<unknown>((value) => ({
          value: new Date(value as number),
        })),
        run: () => {},
      },
    },
    queries: {},
  });
  const reason = definition.validate({ id: "ann" }, command("add", 0));
  assert(`${reason}`.includes("the schema changes arguments"), `${reason}`);
});

Deno.test("Y6 upcast arguments are plain and frozen, so that no handler changes what later commands get", () => {
  const tags: string[] = [];
  const machine = defineMachine({
    name: "x",
    version: 1,
    state: () => ({ count: 0 }),
    commands: {
      add: {
        version: 2,
        upcast: { 1: () => ({ tags }) },
        args: anything<{ tags: string[] }>(),
        run: (state, { tags }) => state.count = tags.push("new"),
      },
    },
    queries: {},
  }).create();
  const results = run(machine, command("add", 1), command("add", 1));
  assertEquals(results.map(decided), ["sampan:threw", "sampan:threw"]);
  assertEquals(tags, []);
});

Deno.test("Y6 a command is admitted by version and author: it is refused only if no newer code and no other author can be meant", () => {
  const machine = board.create();
  const cmd = (by: string | null, version = 1) =>
    command("add", {}, { by, version });
  assertEquals(machine.admit(cmd(null), null), undefined);
  assertEquals(machine.admit(cmd("ann"), "ann"), undefined);
  assertEquals(machine.admit(cmd("ann"), undefined), undefined);
  for (
    const [by, principal, text] of [
      [null, "ann", 'no author, and "ann"'],
      ["bob", "ann", 'the author "bob", and "ann"'],
      ["bob", null, 'the author "bob", and no one'],
    ] as const
  ) {
    assertThrows(() => machine.admit(cmd(by), principal), ErrOtherAuthor, text);
  }
  for (const principal of [null, undefined, "ann"]) {
    for (const newer of [cmd("ann", 2), cmd("ann", 2 ** 53 - 1)]) {
      assertThrows(() => machine.admit(newer, principal), ErrNewerCode);
    }
    assertThrows(
      () => machine.admit(command("unheard", {}), principal),
      ErrNewerCode,
      '"unheard"',
    );
  }
  const activate = command("", "loud", { version: 0 });
  assertThrows(() => machine.admit(activate, undefined), ErrNewerCode, "loud");
  assert(machine.admit(activate, null)?.includes("Only the server"));
  assert(machine.admit(new Uint8Array(), null)?.includes("not one of"));
  assertEquals(machine.admit(new Uint8Array(), undefined), undefined);
});

Deno.test("Y2 an application sees values, codes and pending edits, inferred from the definition", async () => {
  const host = new NodeHost({ outbox: new MemoryOutbox() });
  const replica = await host.startConcurrentCluster(board.create, {
    clusterID: 1n,
    nodeID: 1n,
  });
  const app = typed(replica, board, { by: "ann", now: () => 5 });
  const id = newID();
  const edit = await app.do.add({ id, text: "rice", list: "todo" });
  const outcome = await edit.result;
  assert(outcome.ok);
  const size: number = outcome.value;
  assertEquals(size, 1);
  const cards: readonly Card[] = await app.ask.list("todo");
  assertEquals(cards, [{ text: "rice", list: "todo", by: "ann", at: 5 }]);
  const again = await app.do.add({ id, text: "rice", list: "todo" });
  const refused = await again.result;
  assert(!refused.ok);
  const code:
    | "exists"
    | "sampan:threw"
    | "sampan:malformed"
    | "sampan:newer"
    | "sampan:edit-refused" = refused.code;
  assertEquals(code, "exists");
  const [pending] = app.pending();
  assertEquals([pending!.name, pending!.state, pending!.code], [
    "add",
    "refused",
    "exists",
  ]);
  assertEquals(pending!.args, { id, text: "rice", list: "todo" });
  await pending!.dismiss();
  assertEquals(app.pending(), []);
  const watch = app.watch.title();
  const end = watch.subscribe(() => {});
  await (await app.do.rename({ title: "shop" })).result;
  assertEquals(await app.ask.title(), "shop");
  end();
  await assertRejects(
    // @ts-expect-error: an argument of another type does not compile
    () => app.do.rename({ title: 5 }),
    ErrInvalidArguments,
    "rename.title: not a string",
  );
  // @ts-expect-error: a wrong name does not compile
  assertEquals(app.do.unheard, undefined);
  // @ts-expect-error: an argument of another type does not compile
  void app.ask.list(5);
  const raw = await replica.propose(command("remove", { id })).catch((e) => e);
  assert(!(raw instanceof ErrProposalRefused));
  assertInstanceOf(decodeCommand(command("a", 1))!.seed, Uint8Array);
  await host.stop();
});

Deno.test("C6 a typed machine keeps the contract [Y4, Y8]", async () => {
  await checkConcurrentStateMachine({
    create: board.create,
    commands: [
      command("add", { id: "1", text: "rice", list: "todo" }),
      command("add", { id: "2", text: "tea", list: "todo" }),
      command("move", { id: "1", list: "done" }),
      command("remove", { id: "2" }),
      command("rename", { title: "shop" }),
      command("draw", {}),
      command("crash", "x"),
      new Uint8Array([7]),
    ],
    queries: [
      { name: "list", args: ["todo"] },
      { name: "ids", args: [] },
      { name: "title", args: [] },
    ],
    naQueries: [encodePlain(["ids"]), encodePlain(["list", "todo"])],
  });
});

/** Notes whose text is saved at each key. */
const notes = defineMachine({
  name: "notes",
  version: 1,
  state: () => ({ notes: table<{ text: string }>(), saves: 0 }),
  commands: {
    save: {
      args: shape({
        id: "string",
        text: "string",
      }),
      run: (state, { id, text }) => {
        state.notes.set(id, { text });
      },
      merge: (first, second) => first.id === second.id ? second : undefined,
    },
    clear: {
      args: shape({ id: "string" }),
      run: (state, { id }) => {
        state.notes.delete(id);
      },
    },
  },
  queries: { text: ({ notes }, id: string) => notes.get(id)?.text },
});

Deno.test("E3 U41 neighbouring commands of one name and author are merged by their definition", () => {
  const machine = notes.create();
  const command = (
    id: string,
    text: string,
    change: Partial<Envelope> = {},
  ): Uint8Array =>
    encodeCommand({
      name: "save",
      version: 1,
      at: 1,
      by: "ann",
      seed: new Uint8Array(16).fill(text.length),
      args: { id, text },
      ...change,
    });
  const [one, two] = [command("a", "1"), command("a", "22", { at: 2 })];
  assertEquals(machine.merge(one, two), two);
  for (
    const other of [
      command("b", "2"),
      command("a", "2", { by: null }),
      command("a", "2", { version: 2 }),
      command("a", "2", { name: "clear", args: { id: "a" } }),
      new Uint8Array([1, 2, 3]),
    ]
  ) {
    assertEquals(machine.merge(one, other), undefined);
    assertEquals(machine.merge(other, two), undefined);
  }
  const limited = (merge: (first: string, second: string) => string) =>
    defineMachine({
      name: "limited",
      version: 1,
      state: () => ({}),
      commands: {
        type: {
          args: schema<string>((value) =>
            `${value}`.length < 4
              ? { value: value as string }
              : { issues: [{ message: "long" }] }
          ),
          run: () => {},
          merge,
        },
      },
      queries: {},
    }).create();
  const type = (text: string): Uint8Array =>
    encodeCommand({
      name: "type",
      version: 1,
      at: 1,
      by: "ann",
      seed: SEED,
      args: text,
    });
  const append = limited((first, second) => first + second);
  assertEquals(append.merge(type("a"), type("bc")), type("abc"));
  // The server would refuse the one that stands for both.
  assertEquals(append.merge(type("ab"), type("cd")), undefined);
  const failing = limited(() => {
    throw new Error("merge");
  });
  assertEquals(failing.merge(type("a"), type("b")), undefined);
  const { merge, ...save } = {
    args: anything<unknown>(),
    run: (): void => {},
    merge: (_first: unknown, second: unknown) => second,
  };
  const define = (command: unknown): unknown =>
    defineMachine({
      name: "wrong",
      version: 1,
      state: () => ({}),
      commands: { save: command as typeof save },
      queries: {},
    });
  define({ ...save, merge });
  assertThrows(() => define({ ...save, merge: 7 }), ErrInvalidDefinition);
  assertThrows(
    () => define({ ...save, merge, inverse: () => undefined }),
    ErrInvalidDefinition,
  );
});
