import { assert, assertEquals, assertRejects } from "@std/assert";
import type { NodeHost, Replica } from "../../mod.ts";
import { checkMachine, simulate } from "../../src/testing/mod.ts";
import { ErrInvalidArguments, typed } from "../../src/typed/mod.ts";
import { board, TEXT_LENGTH_MAX } from "../../web/app/board.ts";
import { startTyped } from "../typed/host.ts";

const start = (host: NodeHost, nodeID: bigint): Promise<Replica> =>
  host.startConcurrentCluster(board.create, {
    clusterID: 1n,
    nodeID,
  }) as Promise<Replica>;

// deno-lint-ignore explicit-function-return-type
function appOf(replica: unknown, by: string) {
  return typed(replica as never, board, { by });
}

type App = ReturnType<typeof appOf>;

/** Texts of a list's cards in order; a ticked one begins with ✓. */
async function texts(app: App, list = "todo"): Promise<string[]> {
  return (await app.ask.cards(list))
    .map(({ text, done }) => `${done ? "✓" : ""}${text}`);
}

const LISTS = { lists: [{ id: "todo", title: "To do", cards: [] }] };

async function add(
  app: App,
  id: string,
  before: string | null = null,
): Promise<void> {
  await app.do.add({ id, list: "todo", text: id, before });
}

/** Two devices with the cards a, b and c, both offline. */
async function apart(
  run: (world: {
    readonly ann: App;
    readonly bob: App;
    readonly meet: () => Promise<void>;
  }) => Promise<void>,
): Promise<void> {
  await simulate({ start }, async (world) => {
    const devices = [
      await world.addDevice("ann"),
      await world.addDevice("bob"),
    ];
    const [ann, bob] = devices.map(({ replica }, i) =>
      appOf(replica, i === 0 ? "ann" : "bob")
    ) as [App, App];
    await ann.do.begin(LISTS);
    for (const id of ["a", "b", "c"]) await add(ann, id);
    await world.settle();
    for (const device of devices) device.goOffline();
    await run({
      ann,
      bob,
      async meet(): Promise<void> {
        for (const device of devices) {
          await device.goOnline();
          await world.settle();
        }
        assertEquals(await texts(ann), await texts(bob));
      },
    });
  });
}

Deno.test("U25 on the board, a tick and a text of the same card that two devices made offline both survive", async () => {
  await apart(async ({ ann, bob, meet }) => {
    await ann.do.tick({ id: "b", done: true });
    await bob.do.write({ id: "b", text: "bread" });
    await meet();
    assertEquals(await texts(ann), ["a", "✓bread", "c"]);
  });
});

Deno.test("U18 U25 on the board, a card that was archived while another device wrote in it does not come back, and the text is kept as refused", async () => {
  await apart(async ({ ann, bob, meet }) => {
    await ann.do.archive({ id: "b" });
    await bob.do.write({ id: "b", text: "bread" });
    await meet();
    assertEquals(await texts(ann), ["a", "c"]);
    const [refused] = bob.pending();
    assertEquals(
      [refused?.name, refused?.state, refused?.code],
      ["write", "refused", "archived"],
    );
    assertEquals(refused?.args, { id: "b", text: "bread" });
  });
});

Deno.test("U25 on the board, cards that two devices insert at the same place get different positions, in the order of the log", async () => {
  await apart(async ({ ann, bob, meet }) => {
    for (const n of ["1", "2", "3"]) {
      await add(ann, `ann ${n}`, "b");
      await add(bob, `bob ${n}`, "b");
    }
    await bob.do.move({ id: "c", list: "todo", before: "a" });
    await ann.do.move({ id: "c", list: "todo", before: "b" });
    await meet();
    const positions = (await ann.ask.cards("todo"))
      .map(({ position }) => position);
    assertEquals(new Set(positions).size, 9);
    assertEquals(positions.toSorted(), positions);
    assertEquals(await texts(ann), [
      "c",
      "a",
      "ann 1",
      "ann 2",
      "ann 3",
      "bob 1",
      "bob 2",
      "bob 3",
      "b",
    ]);
  });
});

Deno.test("on the board, two devices that begin it begin it once", async () => {
  await apart(async ({ ann, bob, meet }) => {
    await bob.do.begin({ lists: [{ id: "x", title: "X", cards: [] }] });
    await meet();
    assertEquals((await ann.ask.lists()).map(({ id }) => id), ["todo"]);
  });
});

Deno.test("Y10 on the board, everything but a removal for ever can be undone and redone", async () => {
  await using started = await startTyped(board);
  const app = started.app as unknown as App;
  await app.do.begin(LISTS);
  for (const id of ["a", "b", "c"]) await add(app, id);
  const look = async (): Promise<unknown> => [
    (await app.ask.about()).title,
    (await app.ask.lists()).map(({ id, title }) => [id, title]),
    await texts(app),
    await texts(app, "done"),
  ];
  const steps: (() => Promise<unknown>)[] = [
    () => app.do.name({ title: "Boat" }),
    () => app.do.addList({ id: "done", title: "Done", before: "todo" }),
    () => app.do.moveList({ id: "done", before: null }),
    () => app.do.renameList({ id: "done", title: "Did" }),
    () => add(app, "d", "b"),
    () => app.do.write({ id: "a", text: "alpha" }),
    () => app.do.tick({ id: "b", done: true }),
    () => app.do.move({ id: "c", list: "done", before: null }),
    () => app.do.move({ id: "b", list: "todo", before: "a" }),
    () => app.do.archive({ id: "a" }),
    () => app.do.restore({ id: "a" }),
    () => app.do.move({ id: "c", list: "todo", before: "d" }),
    () => app.do.removeList({ id: "done" }),
  ];
  const seen = [await look()];
  for (const step of steps) {
    await step();
    seen.push(await look());
  }
  for (let i = steps.length; i > 0; i--) {
    assertEquals(await look(), seen[i]);
    await app.undo();
  }
  for (const expected of seen) {
    assertEquals(await look(), expected);
    await app.redo();
  }
  // None of them was refused.
  await (await app.do.name({ title: "Boat" })).result;
  assertEquals(app.pending(), []);
});

Deno.test("Y1 the board's commands are refused with a code, or before they are queued", async () => {
  await using started = await startTyped(board);
  const app = started.app as unknown as App;
  await app.do.begin(LISTS);
  await add(app, "a");
  const outcome = async (edit: Promise<{ result: Promise<unknown> }>) =>
    await (await edit).result;
  const refused = (code: string): unknown => ({ ok: false, code });
  const text = "x";
  const before = null;
  assertEquals(
    [
      await outcome(app.do.write({ id: "z", text })),
      await outcome(app.do.tick({ id: "z", done: true })),
      await outcome(app.do.move({ id: "a", list: "z", before })),
      await outcome(app.do.add({ id: "b", list: "z", text, before })),
      await outcome(app.do.add({ id: "a", list: "todo", text, before })),
      await outcome(app.do.removeList({ id: "todo" })),
      await outcome(app.do.remove({ id: "a" })),
    ],
    [
      "gone",
      "gone",
      "no-list",
      "no-list",
      "exists",
      "not-empty",
      "not-archived",
    ].map(refused),
  );
  await app.do.write({ id: "a", text: "字".repeat(TEXT_LENGTH_MAX) });
  for (const text of ["", "  \n", "a".repeat(TEXT_LENGTH_MAX + 1)]) {
    await assertRejects(
      () => app.do.write({ id: "a", text }),
      ErrInvalidArguments,
    );
  }
});

Deno.test("C6 the board's machine keeps the contract", async () => {
  const ids = ["a", "b", "c", "d"];
  const lists = ["todo", "done"];
  const card = ids.map((id) => ({ id }));
  const moves = ids.flatMap((id, i) => ({
    id,
    list: lists[i % 2]!,
    before: ids[(i + 1) % 4]!,
  }));
  const saved = lists.map((id, i) => ({
    id,
    title: id,
    cards: ids.slice(0, 1 + i).map((id) => ({
      id,
      text: `saved ${id}`,
      done: i > 0,
      archived: id === "b",
    })),
  }));
  await checkMachine(board, {
    runs: 10,
    commands: {
      begin: [LISTS],
      fill: [{ lists: saved }],
      name: [{ title: "Boat" }],
      addList: lists.map((id) => ({ id, title: id, before: "todo" })),
      renameList: lists.map((id) => ({ id, title: `${id}!` })),
      moveList: [{ id: "done", before: "todo" }],
      removeList: lists.map((id) => ({ id })),
      add: moves.map((move) => ({ ...move, text: move.id })),
      write: ids.map((id) => ({ id, text: `${id}?` })),
      tick: ids.map((id) => ({ id, done: id < "c" })),
      move: moves,
      archive: card,
      restore: card,
      remove: card,
    },
    queries: {
      cards: lists.map((list) => [list] as [string]),
      card: ids.map((id) => [id] as [string]),
      list: lists.map((id) => [id] as [string]),
    },
  });
});

Deno.test("a typed machine decodes its commands, with their results", async () => {
  await using started = await startTyped(board);
  const app = started.app as unknown as App;
  await app.do.write({ id: "a", text: "x" });
  const [submission] = started.replica.pending();
  const decoded = board.decode(submission!.cmd, { value: 0n });
  assert(decoded!.at > 0);
  assertEquals({ ...decoded, at: 0 }, {
    name: "write",
    by: null,
    at: 0,
    args: { id: "a", text: "x" },
    code: undefined,
    value: undefined,
  });
  assertEquals(board.decode(new Uint8Array([9])), undefined);
});
