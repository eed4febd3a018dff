import { assert, assertEquals, assertRejects } from "@std/assert";
import { type } from "arktype";
import * as v from "valibot";
import { z } from "zod";
import * as mini from "zod/mini";
import {
  defineMachine,
  ErrInvalidArguments,
  ErrNotPlain,
  ErrSchemaAsync,
  ErrSchemaNotIdempotent,
  type Schema,
  table,
  typed,
} from "../../src/typed/mod.ts";
import { startTyped } from "./host.ts";

/** Card as stored: its text without spaces around it, and a list, "todo" unless given. */
interface Card {
  readonly id: string;
  readonly text: string;
  readonly list: string;
}

/** Input of a card. */
interface NewCard {
  readonly id: string;
  readonly text: string;
  readonly list?: string | undefined;
}

/** The same schemas in each library. */
interface Library {
  /** Accepts a card, trims its text, and fills in its list. */
  readonly card: Schema<NewCard, Card>;
  /** Adds one to a number each time. */
  readonly grows: Schema<{ n: number }, { n: number }>;
  /** Makes a number of a string, which it does not accept itself. */
  readonly converts: Schema<{ n: string }, { n: number }>;
  /** Validates asynchronously. */
  readonly async: Schema<{ n: number }, { n: number }> | undefined;
  /** Gives a value that is not plain data. */
  readonly date: Schema<unknown, unknown>;
}

const libraries: Record<string, Library> = {
  "zod": {
    card: z.object({
      id: z.string(),
      text: z.string().trim(),
      list: z.string().default("todo"),
    }),
    grows: z.object({ n: z.number().transform((n) => n + 1) }),
    converts: z.object({ n: z.string().transform(Number) }),
    async: z.object({ n: z.number().refine(() => Promise.resolve(true)) }),
    date: z.object({ at: z.date() }),
  },
  "zod/mini": {
    card: mini.object({
      id: mini.string(),
      text: mini.string().check(mini.trim()),
      list: mini._default(mini.string(), "todo"),
    }),
    grows: mini.object({
      n: mini.pipe(mini.number(), mini.transform((n: number) => n + 1)),
    }),
    converts: mini.object({
      n: mini.pipe(mini.string(), mini.transform(Number)),
    }),
    async: mini.object({
      n: mini.number().check(mini.refine(() => Promise.resolve(true))),
    }),
    date: mini.object({ at: mini.date() }),
  },
  "valibot": {
    card: v.object({
      id: v.string(),
      text: v.pipe(v.string(), v.trim()),
      list: v.optional(v.string(), "todo"),
    }),
    grows: v.object({ n: v.pipe(v.number(), v.transform((n) => n + 1)) }),
    converts: v.object({ n: v.pipe(v.string(), v.transform(Number)) }),
    async: v.objectAsync({
      n: v.pipeAsync(v.number(), v.checkAsync(() => Promise.resolve(true))),
    }),
    date: v.object({ at: v.date() }),
  },
  "arktype": {
    card: type({ id: "string", text: "string.trim", list: "string = 'todo'" }),
    grows: type({ n: type("number").pipe((n) => n + 1) }),
    converts: type({ n: "string.numeric.parse" }),
    // It has no asynchronous schemas.
    async: undefined,
    date: type({ at: "Date" }),
  },
};

// deno-lint-ignore explicit-function-return-type
function machineOf({ card, grows, converts, async, date }: Library) {
  const run = (): void => {};
  return defineMachine({
    name: "cards",
    version: 1,
    state: () => ({ cards: table<Card>() }),
    commands: {
      add: {
        args: card,
        run: (state, args) => state.cards.set(args.id, args),
      },
      grow: { args: grows, run },
      convert: { args: converts, run },
      wait: { args: async ?? card, run },
      date: { args: date, run },
    },
    queries: { all: (state) => [...state.cards.values()] },
  });
}

for (const [name, library] of Object.entries(libraries)) {
  Deno.test(`Y1 schemas of ${name}: defaults and trimming pass, and the server accepts what was stored`, async () => {
    const machine = machineOf(library);
    await using started = await startTyped(machine);
    const queued: Uint8Array[] = [];
    const replica = new Proxy(started.replica, {
      get(target, name): unknown {
        const value = Reflect.get(target, name, target);
        if (typeof value !== "function") return value;
        return (...args: unknown[]): unknown => {
          if (name === "submit") queued.push(args[0] as Uint8Array);
          return Reflect.apply(value, target, args);
        };
      },
    });
    const app = typed(replica, machine);
    await (await app.do.add({ id: "1", text: "  rice " })).result;
    await (await app.do.add({ id: "2", text: "tea", list: "done" })).result;
    assertEquals(await app.ask.all(), [
      { id: "1", text: "rice", list: "todo" },
      { id: "2", text: "tea", list: "done" },
    ]);
    assertEquals(queued.length, 2);
    for (const cmd of queued) {
      assertEquals(machine.validate({ id: "" }, cmd), undefined);
    }
  });

  Deno.test(`Y1 schemas of ${name}: what is refused names command and path, before anything is queued`, async () => {
    await using started = await startTyped(machineOf(library));
    const { app, replica } = started;
    const refused = await assertRejects(
      () => app.do.add({ id: "1", text: 5 as never }),
      ErrInvalidArguments,
    );
    assert(refused.message.includes("add.text"), refused.message);
    const grown = await assertRejects(
      () => app.do.grow({ n: 1 }),
      ErrSchemaNotIdempotent,
    );
    assert(grown.message.includes("grow.n (2, then 3)"), grown.message);
    const converted = await assertRejects(
      () => app.do.convert({ n: "5" }),
      ErrSchemaNotIdempotent,
    );
    assert(converted.message.includes("convert.n"), converted.message);
    await assertRejects(
      () => app.do.date({ at: new Date(0) }),
      ErrNotPlain,
      "arguments of date",
    );
    if (library.async !== undefined) {
      await assertRejects(
        () => app.do.wait({ n: 1 } as never),
        ErrSchemaAsync,
        "wait",
      );
    }
    assertEquals(replica.pending(), []);
  });
}

Deno.test("Y1 inputs and outputs are inferred from the schemas of each library", () => {
  const run = (
    state: { count: number },
    { list }: { readonly list: string },
  ): string => `${state.count}${list}`;
  const machine = defineMachine({
    name: "x",
    version: 1,
    state: () => ({ count: 0 }),
    commands: {
      zod: { args: z.object({ list: z.string().default("a") }), run },
      mini: {
        args: mini.object({ list: mini._default(mini.string(), "a") }),
        run,
      },
      valibot: { args: v.object({ list: v.optional(v.string(), "a") }), run },
      arktype: { args: type({ list: "string = 'a'" }), run },
      wrong: {
        args: z.object({ list: z.number() }),
        // @ts-expect-error: a handler for other arguments does not compile
        run,
      },
    },
    queries: {},
  });
  type Inputs = typeof machine extends { types: { inputs: infer I } } ? I
    : never;
  const empty: [
    Inputs["zod"],
    Inputs["mini"],
    Inputs["valibot"],
    Inputs["arktype"],
  ] = [{}, {}, {}, {}];
  // @ts-expect-error: an argument of another type does not compile
  const wrong: Inputs["zod"] = { list: 5 };
  assertEquals([empty.length, wrong.list], [4, 5] as never);
});
