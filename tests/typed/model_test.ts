import { assertEquals } from "@std/assert";
import {
  defineMachine,
  table,
  type TypedMachine,
} from "../../src/typed/mod.ts";
import { encodeCommand } from "../../src/typed/command.ts";
import { codeOf, valueOf } from "../../src/typed/result.ts";
import { type Random, seeded } from "../support/random.ts";
import { anything } from "./schemas.ts";
import { recover, snapshotOf } from "./snapshots.ts";

/** Row of the model. */
interface Card {
  readonly list: string;
  readonly rank: number | null;
  readonly text: string;
}

/** Step of a command: what it does to the state, in order. */
type Step =
  | { readonly do: "set"; readonly key: string; readonly card: Card }
  | { readonly do: "delete"; readonly key: string }
  | { readonly do: "clear"; readonly list: string }
  | { readonly do: "title"; readonly title: string }
  | { readonly do: "reject" }
  | { readonly do: "throw" };

const cards = defineMachine({
  name: "model",
  version: 1,
  state: () => ({
    cards: table({
      indexes: {
        byList: (card: Card) => [card.list, card.rank],
        byRank: (card: Card) => card.rank ?? undefined,
      },
    }),
    title: "",
  }),
  commands: {
    steps: {
      args: anything<readonly Step[]>(),
      run: (state, steps, ctx) => {
        for (const step of steps) {
          switch (step.do) {
            case "set":
              state.cards.set(step.key, step.card);
              break;
            case "delete":
              state.cards.delete(step.key);
              break;
            case "clear":
              for (const [key, { list }] of state.cards) {
                if (list === step.list) state.cards.delete(key);
              }
              break;
            case "title":
              state.title = step.title;
              break;
            case "reject":
              return ctx.reject("rejected");
            case "throw":
              throw new TypeError(`Thrown by ${step.do}`);
          }
        }
        return state.cards.size;
      },
    },
  },
  queries: {
    all: (state) => [...state.cards],
    part: (state, from: string, to: string) => [
      ...state.cards.keys({ from, to }),
    ],
    list: (state, list: string) => state.cards.byList(list),
    at: (state, list: string, rank: number | null) =>
      state.cards.byList(list, rank),
    rank: (state, rank: number) => state.cards.byRank(rank),
    title: (state) => state.title,
  },
});

/** The same machine as plain code: a map that is copied for each command. */
class Model {
  cards = new Map<string, Card>();
  title = "";

  run(steps: readonly Step[]): unknown {
    const before = { cards: new Map(this.cards), title: this.title };
    for (const step of steps) {
      switch (step.do) {
        case "set":
          this.cards.set(step.key, step.card);
          break;
        case "delete":
          this.cards.delete(step.key);
          break;
        case "clear":
          for (const [key, { list }] of [...this.cards]) {
            if (list === step.list) this.cards.delete(key);
          }
          break;
        case "title":
          this.title = step.title;
          break;
        default:
          Object.assign(this, before);
          return step.do === "reject" ? "rejected" : "sampan:threw";
      }
    }
    return this.cards.size;
  }

  get all(): [string, Card][] {
    return [...this.cards].sort(([one], [other]) => one < other ? -1 : 1);
  }

  answer(name: string, args: readonly unknown[]): unknown {
    const { all } = this;
    const [a, b] = args;
    const byRank = (one: Card, other: Card): number =>
      (one.rank ?? -9) - (other.rank ?? -9);
    const rows = all.map(([, card]) => card);
    switch (name) {
      case "all":
        return all;
      case "part":
        return all.map(([key]) => key)
          .filter((key) => key >= (a as string) && key < (b as string));
      case "list":
        // Array.sort() is stable, and rows are in the order of their keys.
        return rows.filter(({ list }) => list === a).sort(byRank);
      case "at":
        return rows.filter(({ list, rank }) => list === a && rank === b);
      case "rank":
        return rows.filter(({ rank }) => rank === a);
      default:
        return this.title;
    }
  }
}

const LISTS = ["todo", "done", "", "é"];

function keyOf(random: Random): string {
  return random.below(8) === 0
    ? ["", "constructor", "__proto__", "\u{1F600}", "10", "9"][random.below(6)]!
    : `${random.below(60)}`;
}

function stepOf(random: Random): Step {
  const drawn = random.below(40);
  if (drawn < 22) {
    return {
      do: "set",
      key: keyOf(random),
      card: {
        list: LISTS[random.below(4)]!,
        rank: random.below(3) === 0 ? null : random.below(4) - 1,
        text: `${random.below(3)}`,
      },
    };
  }
  if (drawn < 34) return { do: "delete", key: keyOf(random) };
  if (drawn < 35) return { do: "clear", list: LISTS[random.below(4)]! };
  if (drawn < 37) return { do: "title", title: `${random.below(9)}` };
  return { do: drawn < 39 ? "reject" : "throw" };
}

function expectSame(machine: TypedMachine, model: Model, random: Random): void {
  const list = LISTS[random.below(4)]!;
  const rank = random.below(4) - 1;
  const queries: [string, unknown[]][] = [
    ["all", []],
    ["title", []],
    ["part", ["1", `${random.below(9)}`]],
    ["list", [list]],
    ["at", [list, random.below(2) === 0 ? null : rank]],
    ["rank", [rank]],
  ];
  for (const [name, args] of queries) {
    assertEquals(machine.lookup({ name, args }), model.answer(name, args));
  }
}

Deno.test("Y4 any history through a typed machine equals a plain model: results, answers, forks, snapshots and hashes [Y3, Y8]", async () => {
  const random = seeded();
  for (let world = 0; world < 40; world++) {
    let machine = cards.create();
    const replica = cards.create();
    const model = new Model();
    for (let index = 1; index <= 60; index++) {
      const steps = Array.from(
        { length: 1 + random.below(6) },
        () => stepOf(random),
      );
      const cmd = encodeCommand({
        name: "steps",
        version: 1,
        at: index,
        by: null,
        seed: new Uint8Array(16),
        args: steps as never,
      });
      const fork = random.below(4) === 0 ? await machine.fork() : undefined;
      const all = { name: "all", args: [] };
      const before = fork?.lookup(all);
      const entry = { index, cmd, result: { value: 0n } };
      machine.update([entry]);
      replica.update([{ index, cmd }]);
      const expected = model.run(steps);
      assertEquals(codeOf(entry.result) ?? valueOf(entry.result), expected);
      assertEquals(machine.getHash(), replica.getHash());
      if (fork !== undefined) {
        // A fork does not see it, and what is done to the fork is done to it alone.
        assertEquals(fork.lookup(all), before);
        fork.update([{ index, cmd }]);
        assertEquals(fork.lookup(all), machine.lookup(all));
      }
      if (random.below(10) === 0) {
        machine = await recover(cards.create(), await snapshotOf(machine));
        assertEquals(machine.getHash(), replica.getHash());
      }
      if (random.below(3) === 0) expectSame(machine, model, random);
    }
    expectSame(machine, model, random);
  }
});
