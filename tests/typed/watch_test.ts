import { assertEquals } from "@std/assert";
import { MemoryOutbox, NodeHost } from "../../mod.ts";
import { defineMachine, table, typed } from "../../src/typed/mod.ts";
import { anything } from "./schemas.ts";

interface Card {
  readonly list: string;
  readonly text: string;
}

Deno.test("U15 a watch of a typed query asks it again only if something that it read has changed", async () => {
  const asked: Record<string, number> = {};
  const count = <A>(name: string, answer: A): A => {
    asked[name] = (asked[name] ?? 0) + 1;
    return answer;
  };
  const machine = defineMachine({
    name: "watched",
    version: 1,
    state: () => ({
      cards: table({ indexes: { byList: (card: Card) => card.list } }),
      other: table<number>(),
      title: "",
    }),
    commands: {
      put: {
        args: anything<{ id: string; card: Card | undefined }>(),
        run: (state, { id, card }) => {
          if (card === undefined) state.cards.delete(id);
          else state.cards.set(id, card);
        },
      },
      other: {
        args: anything<number>(),
        run: (state, n) => state.other.set(`${n}`, n),
      },
      rename: {
        args: anything<string>(),
        run: (state, title) => {
          state.title = title;
        },
      },
    },
    queries: {
      card: (state, id: string) => count("card", state.cards.get(id)?.text),
      list: (state, list: string) =>
        count("list", state.cards.byList(list).map(({ text }) => text)),
      size: (state) => count("size", state.cards.size),
      all: (state) => count("all", [...state.cards.keys()]),
      title: (state) => count("title", state.title),
    },
  });
  await using host = new NodeHost({ outbox: new MemoryOutbox() });
  const replica = await host.startConcurrentCluster(machine.create, {
    clusterID: 1n,
    nodeID: 1n,
  });
  const app = typed(replica, machine);
  const put = async (id: string, card?: Card): Promise<void> => {
    await (await app.do.put({ id, ...(card && { card }) } as never)).result;
  };
  const watches = {
    card: app.watch.card("a"),
    list: app.watch.list("todo"),
    size: app.watch.size(),
    all: app.watch.all(),
    title: app.watch.title(),
  };
  /** Answers, and the queries that were asked for them. */
  const look = (): [unknown[], string[]] => {
    for (const name of Object.keys(asked)) delete asked[name];
    const answers = Object.values(watches).map((one) => one.getSnapshot());
    return [answers, Object.keys(asked).sort()];
  };
  assertEquals(look()[1], ["all", "card", "list", "size", "title"]);
  assertEquals(look()[1], []);
  await put("a", { list: "todo", text: "rice" });
  assertEquals(look(), [["rice", ["rice"], 1, ["a"], ""], [
    "all",
    "card",
    "list",
    "size",
  ]]);
  await (await app.do.other(1)).result;
  assertEquals(look()[1], []);
  // A row of another list: neither the row nor the index key was read.
  await put("b", { list: "done", text: "tea" });
  assertEquals(look(), [["rice", ["rice"], 2, ["a", "b"], ""], [
    "all",
    "size",
  ]]);
  await put("b", { list: "todo", text: "tea" });
  assertEquals(look(), [["rice", ["rice", "tea"], 2, ["a", "b"], ""], [
    "all",
    "list",
    "size",
  ]]);
  await (await app.do.rename("new")).result;
  const [answers] = look();
  assertEquals(answers[4], "new");
  await put("a");
  assertEquals(look()[0], [undefined, ["tea"], 1, ["b"], "new"]);
  // Of a submission that is not decided, too.
  const edit = await app.do.put({ id: "a", card: { list: "x", text: "z" } });
  assertEquals(look()[0][0], "z");
  await edit.result;
  const before = watches.card.getSnapshot();
  assertEquals([before, look()[0][0]], ["z", "z"]);
});
