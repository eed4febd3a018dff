import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  type Entry,
  MemoryOutbox,
  type NodeHost,
  type Replica,
} from "../../mod.ts";
import { simulate } from "../../src/testing/mod.ts";
import { UNDO_EDITS_MAX } from "../../src/limits.ts";
import {
  type App,
  type CallOf,
  defineMachine,
  type Mark,
  table,
  typed,
  type TypedMachine,
} from "../../src/typed/mod.ts";
import { encodeCommand } from "../../src/typed/command.ts";
import { startTyped } from "./host.ts";
import { anything, shape } from "./schemas.ts";

interface Card {
  readonly text: string;
  readonly list: string;
}

const board = defineMachine({
  name: "board",
  version: 1,
  state: () => ({ cards: table<Card>(), title: "" }),
  commands: {
    add: {
      args: shape({ id: "string", text: "string", list: "string" }),
      run: (state, { id, text, list }, ctx) => {
        if (state.cards.has(id)) return ctx.reject("exists");
        state.cards.set(id, { text, list });
        return state.cards.size;
      },
      inverse: (_before, { id }) => ({ name: "remove", args: { id } }),
    },
    move: {
      args: shape({ id: "string", list: "string" }),
      run: (state, { id, list }, ctx) => {
        const card = state.cards.get(id);
        if (card === undefined) return ctx.reject("missing");
        state.cards.set(id, { ...card, list });
        return list;
      },
      inverse: (before, { id, list }) => {
        const card = before.cards.get(id);
        return card === undefined || card.list === list
          ? undefined
          : { name: "move", args: { id, list: card.list } };
      },
    },
    remove: {
      args: shape({ id: "string" }),
      run: (state, { id }, ctx) =>
        state.cards.delete(id) ? true : ctx.reject("missing"),
      inverse: (before, { id }) => {
        const card = before.cards.get(id);
        return card && { name: "add", args: { id, ...card } };
      },
    },
    rename: {
      args: shape({ title: "string" }),
      run: (state, { title }) => {
        state.title = title;
      },
      inverse: (before) => ({ name: "rename", args: { title: before.title } }),
    },
    look: { args: anything<null>(), run: () => null },
    fail: {
      args: anything<null>(),
      run: () => null,
      inverse: (_before, args) => {
        throw new Error(`No inverse of ${args}`);
      },
    },
    new: {
      args: shape({ text: "string" }),
      run: (state, { text }, ctx) => {
        state.cards.set(ctx.id(), { text, list: "new" });
      },
      inverse: (_before, _args, ctx) => ({
        name: "remove",
        args: { id: ctx.id() },
      }),
    },
  },
  queries: {
    lists: (state) =>
      Object.fromEntries([...state.cards].map(([id, { list }]) => [id, list])),
    title: (state) => state.title,
  },
});

type BoardApp = ReturnType<typeof typedBoard>;

// deno-lint-ignore explicit-function-return-type
function typedBoard(replica: Replica, by?: string) {
  return typed(replica as never, board, by === undefined ? {} : { by });
}

const start = (host: NodeHost, nodeID: bigint): Promise<Replica> =>
  host.startConcurrentCluster(board.create, {
    clusterID: 1n,
    nodeID,
  }) as Promise<Replica>;

async function add(app: BoardApp, id: string, list = "todo"): Promise<void> {
  const edit = await app.do.add({ id, text: id, list });
  await edit.result;
}

Deno.test("Y10 undo submits the inverse of the newest edit, and redo the edit once more", async () => {
  await using started = await startTyped(board);
  const { app } = started;
  assertEquals([app.canUndo, app.canRedo], [false, false]);
  assertEquals([await app.undo(), await app.redo()], [undefined, undefined]);
  let changes = 0;
  const end = app.onHistory(() => changes++);
  await add(app, "a");
  await app.do.move({ id: "a", list: "doing" });
  await app.do.move({ id: "a", list: "done" });
  await app.do.look(null);
  assert(changes > 0);
  end();
  const lists = async (): Promise<unknown> => (await app.ask.lists()).a;
  await app.undo();
  assertEquals(await lists(), "doing");
  await app.undo();
  assertEquals(await lists(), "todo");
  assertEquals([app.canUndo, app.canRedo], [true, true]);
  assertEquals(await (await app.redo())?.result, { ok: true, value: "doing" });
  assertEquals(await lists(), "doing");
  await app.undo();
  await app.undo();
  assertEquals(await app.ask.lists(), {});
  assertEquals([app.canUndo, app.canRedo], [false, true]);
  for (const expected of ["todo", "doing", "done"]) {
    await app.redo();
    assertEquals(await lists(), expected);
  }
  assertEquals(app.canRedo, false);
  await app.undo();
  // Another edit makes what was undone unreachable.
  await app.do.rename({ title: "x" });
  assertEquals(app.canRedo, false);
  await app.undo();
  assertEquals(await app.ask.title(), "");
});

Deno.test("Y10 an id that the command drew is known to its inverse, and drawn again by redo", async () => {
  await using started = await startTyped(board);
  const { app } = started;
  await app.do.new({ text: "x" });
  const before = await app.ask.lists();
  await app.undo();
  assertEquals(await app.ask.lists(), {});
  await app.redo();
  assertEquals(await app.ask.lists(), before);
  assertEquals(Object.keys(before).length, 1);
});

Deno.test("Y10 edits in quick succession are undone in order, each from the state before it", async () => {
  await using started = await startTyped(board);
  const { app } = started;
  const edits = [
    app.do.add({ id: "a", text: "a", list: "1" }),
    app.do.move({ id: "a", list: "2" }),
    app.do.move({ id: "a", list: "3" }),
  ];
  await Promise.all([...edits, app.undo(), app.undo()]);
  assertEquals(await app.ask.lists(), { a: "1" });
});

Deno.test("Y10 edits, undos and redos count in the order of their calls, although none is awaited", async () => {
  await using started = await startTyped(board);
  const { app } = started;
  const rename = (title: string): Promise<unknown> => app.do.rename({ title });
  const calls = [
    rename("1"),
    app.undo(),
    rename("2"),
    rename("3"),
    app.undo(),
    app.undo(),
    app.redo(),
    app.do.look(null),
    rename("4"),
    app.undo(),
  ];
  const [, , , , , , , , , last] = await Promise.all(calls);
  assert(last !== undefined);
  assertEquals(await app.ask.title(), "2");
  await app.undo();
  assertEquals([await app.ask.title(), app.canUndo], ["", false]);
});

Deno.test("Y10 an edit that was rejected, or changes nothing, is not undone: the one before is", async () => {
  await using started = await startTyped(board);
  const { app } = started;
  await add(app, "a");
  await add(app, "b");
  await add(app, "a");
  await (await app.do.move({ id: "a", list: "todo" })).result;
  await app.undo();
  assertEquals(await app.ask.lists(), { a: "todo" });
  await app.do.fail(null);
  await assertRejects(() => app.undo(), Error, "No inverse of null");
  // The edit at which it failed is out of the way.
  await app.undo();
  assertEquals(await app.ask.lists(), {});
});

Deno.test("Y10 an inverse is decided again when it arrives, and may be rejected", async () => {
  await simulate({ start }, async (world) => {
    const [ann, bob] = [
      await world.addDevice("ann"),
      await world.addDevice("bob"),
    ];
    const [a, b] = [
      typedBoard(ann.replica, "ann"),
      typedBoard(bob.replica, "bob"),
    ];
    await add(a, "x");
    await a.do.move({ id: "x", list: "done" });
    await world.settle();
    ann.goOffline();
    const undone = await a.undo();
    assertEquals(await a.ask.lists(), { x: "todo" });
    assertEquals(b.canUndo, false);
    await b.do.remove({ id: "x" });
    await world.settle();
    ann.goOnline();
    await world.settle();
    assertEquals(await undone?.result, { ok: false, code: "missing" });
    assertEquals(await a.ask.lists(), {});
    // It stays visible until it is dismissed, as every refusal does.
    assertEquals(a.pending().map(({ code }) => code), ["missing"]);
    assertEquals(a.canRedo, false);
  });
});

Deno.test("Y10 what undoes an edit is not run if the edit is refused, nor is the edit done once more", async () => {
  await simulate({ start }, async (world) => {
    const [ann, bob] = [
      await world.addDevice("ann"),
      await world.addDevice("bob"),
    ];
    const [a, b] = [
      typedBoard(ann.replica, "ann"),
      typedBoard(bob.replica, "bob"),
    ];
    await world.settle();
    ann.goOffline();
    // Bob's card has the same id: the edit is refused, and its inverse would remove the card.
    await a.do.add({ id: "x", text: "of ann", list: "todo" });
    const undone = await a.undo();
    assertEquals(await a.ask.lists(), {});
    const redone = await a.redo();
    const again = await a.undo();
    await a.do.rename({ title: "kept" });
    await add(b, "x");
    await world.settle();
    ann.goOnline();
    await world.settle();
    for (const edit of [undone, redone, again]) {
      assertEquals(await edit?.result, {
        ok: false,
        code: "sampan:edit-refused",
      });
    }
    assertEquals(await b.ask.lists(), { x: "todo" });
    assertEquals(await a.ask.lists(), { x: "todo" });
    assertEquals(await b.ask.title(), "kept");
    assertEquals(
      a.pending().map(({ code }) => code),
      ["exists", ...new Array(3).fill("sampan:edit-refused")],
    );
    // The rename can still be undone, and nothing else.
    await a.undo();
    assertEquals(await a.undo(), undefined);
    await world.settle();
    assertEquals(await b.ask.title(), "");
  });
});

Deno.test("Y10 the view shows nothing of an undo whose edit is refused in it", async () => {
  const add = (id: string, text: string, seed: number): Uint8Array =>
    encodeCommand({
      name: "add",
      version: 1,
      at: 1,
      by: "ann",
      seed: new Uint8Array(16).fill(seed),
      args: { id, text, list: "todo" },
    });
  const undo = encodeCommand({
    name: "remove",
    version: 1,
    at: 1,
    by: "ann",
    seed: new Uint8Array(16).fill(0xfe),
    args: { id: "x" },
  });
  const cmds = [add("x", "of bob", 2), add("x", "of ann", 1), undo];
  const run = (machine: TypedMachine): unknown[] =>
    (machine.update(cmds.map((cmd, i) => ({ index: i + 1, cmd }))) as Entry[])
      .map(({ result }) => machine.refusal(result!));
  const lists = { name: "lists", args: [] };
  const fork = await board.create().fork() as TypedMachine;
  assertEquals(run(fork), [undefined, "exists", "sampan:edit-refused"]);
  assertEquals(fork.lookup(lists), { x: "todo" });
  // A replica applies what is in its log, which an outbox would not have sent.
  const machine = board.create();
  assertEquals(run(machine), [undefined, "exists", undefined]);
  assertEquals(machine.lookup(lists), {});
});

Deno.test("Y10 an undo waits for its edit also after a restart, and is refused with it", async () => {
  await simulate({ start }, async (world) => {
    const [ann, bob] = [
      await world.addDevice("ann"),
      await world.addDevice("bob"),
    ];
    const b = typedBoard(bob.replica, "bob");
    let a = typedBoard(ann.replica, "ann");
    await world.settle();
    ann.goOffline();
    await a.do.add({ id: "x", text: "of ann", list: "todo" });
    await a.undo();
    await add(b, "x");
    ann.kill();
    await ann.start();
    a = typedBoard(ann.replica, "ann");
    ann.goOnline();
    await world.settle();
    assertEquals(
      a.pending().map(({ code }) => code),
      ["exists", "sampan:edit-refused"],
    );
    assertEquals(await b.ask.lists(), { x: "todo" });
    for (const one of a.pending()) await one.dismiss();
    ann.kill();
    await ann.start();
    assertEquals(typedBoard(ann.replica, "ann").pending(), []);
  });
});

Deno.test("Y10 the inverse of a queued edit follows what others did before it", async () => {
  await simulate({ start }, async (world) => {
    const [ann, bob] = [
      await world.addDevice("ann"),
      await world.addDevice("bob"),
    ];
    const [a, b] = [
      typedBoard(ann.replica, "ann"),
      typedBoard(bob.replica, "bob"),
    ];
    await add(a, "x");
    await world.settle();
    ann.goOffline();
    await a.do.move({ id: "x", list: "done" });
    await b.do.move({ id: "x", list: "doing" });
    await world.settle();
    ann.goOnline();
    await world.settle();
    await a.undo();
    await world.settle();
    assertEquals(await b.ask.lists(), { x: "doing" });
  });
});

Deno.test("Y10 edits that are still queued can be undone and redone after a restart", async () => {
  await simulate({ start }, async (world) => {
    const ann = await world.addDevice("ann");
    let app = typedBoard(ann.replica, "ann");
    await add(app, "x");
    await world.settle();
    ann.goOffline();
    await app.do.move({ id: "x", list: "1" });
    await app.do.move({ id: "x", list: "2" });
    await app.do.move({ id: "x", list: "3" });
    await app.undo();
    await app.undo();
    await app.redo();
    ann.kill();
    await ann.start();
    app = typedBoard(ann.replica, "ann");
    assertEquals(typedBoard(ann.replica, "bob").canUndo, false);
    assertEquals(await app.ask.lists(), { x: "2" });
    await app.redo();
    assertEquals(await app.ask.lists(), { x: "3" });
    for (const list of ["2", "1", "todo"]) {
      await app.undo();
      assertEquals(await app.ask.lists(), { x: list });
    }
    assertEquals(await app.undo(), undefined);
    ann.goOnline();
    await world.settle();
    assertEquals(await app.ask.lists(), { x: "todo" });
  });
});

Deno.test("Y10 the number of edits that can be undone is bounded", async () => {
  await using started = await startTyped(board);
  const { app } = started;
  for (let i = 0; i < UNDO_EDITS_MAX + 10; i++) {
    await app.do.rename({ title: `${i}` });
  }
  let undone = 0;
  while (await app.undo() !== undefined) undone++;
  assertEquals(undone, UNDO_EDITS_MAX);
  assertEquals(await app.ask.title(), "9");
});

Deno.test("Y10 the inverse is typed: another name, or other arguments, do not compile", () => {
  type Inputs = typeof board extends { types: { inputs: infer I } } ? I : never;
  const call: CallOf<Inputs> = { name: "remove", args: { id: "a" } };
  // @ts-expect-error: a wrong name does not compile
  const wrong: CallOf<Inputs> = { name: "erase", args: { id: "a" } };
  assert(call !== wrong);
  defineMachine({
    name: "x",
    version: 1,
    state: () => ({ count: 0 }),
    commands: {
      count: {
        args: shape({ by: "number" }),
        run: (state, { by }) => state.count += by,
        // @ts-expect-error: arguments of another type do not compile
        inverse: (before, { by }) => {
          const count: number = before.count;
          return { name: "count", args: { by: `${count - by}` } };
        },
      },
      reset: {
        args: anything<null>(),
        run: (state) => {
          state.count = 0;
        },
        // @ts-expect-error: a wrong name does not compile
        inverse: (before) => ({ name: "sum", args: { by: before.count } }),
      },
    },
    queries: {},
  });
});

// ---------------------------------------------------------------------- marks

function cards(app: BoardApp): Record<string, string> {
  const { cards } = app.marks.getSnapshot()!;
  return Object.fromEntries([...cards].map(([key, { state }]) => [key, state]));
}

Deno.test("Y11 rows and values that pending commands touched are marked, refused ones until they are dismissed", async () => {
  await simulate({ start }, async (world) => {
    const [ann, bob] = [
      await world.addDevice("ann"),
      await world.addDevice("bob"),
    ];
    const [a, b] = [
      typedBoard(ann.replica, "ann"),
      typedBoard(bob.replica, "bob"),
    ];
    await add(a, "x");
    await add(a, "y");
    await world.settle();
    assertEquals(cards(a), {});
    ann.goOffline();
    let calls = 0;
    const end = a.marks.subscribe(() => calls++);
    await a.do.move({ id: "x", list: "done" });
    await a.do.move({ id: "x", list: "todo" });
    await a.do.rename({ title: "t" });
    await world.sleep(100);
    assert(calls > 0);
    assertEquals(cards(a), { x: "queued" });
    const mark: Mark | undefined = a.marks.getSnapshot()!.title;
    assertEquals(mark?.state, "queued");
    assertEquals(
      a.marks.getSnapshot()!.cards.get("x")!.edits.map(({ name }) => name),
      ["move", "move"],
    );
    // @ts-expect-error: a wrong name does not compile
    assertEquals(a.marks.getSnapshot()!.none, undefined);
    await b.do.remove({ id: "x" });
    await world.settle();
    ann.goOnline();
    await world.settle();
    await world.sleep(100);
    assertEquals(cards(a), { x: "refused" });
    assertEquals(a.marks.getSnapshot()!.title, undefined);
    end();
    // After a restart, the row is the one that the command asks for.
    ann.kill();
    await ann.start();
    const again = typedBoard(ann.replica, "ann");
    assertEquals(cards(again), { x: "refused" });
    for (const edit of again.pending()) await edit.dismiss();
    assertEquals(cards(again), {});
  });
});

Deno.test("Y11 marks stay the same object until one changes", async () => {
  await using started = await startTyped(board);
  const app: Pick<App<unknown, unknown, unknown, unknown>, "marks"> =
    started.app;
  const before = app.marks.getSnapshot();
  await add(started.app, "x");
  assert(app.marks.getSnapshot() === before);
  assert(MemoryOutbox !== undefined);
});
