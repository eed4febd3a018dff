/**
 * Machine of the tests: cards in lists.
 *
 * @module
 */

import { defineMachine, type Schema, table } from "../../src/typed/mod.ts";

/** Schema that checks the properties of an object by their types, and drops the others. */
export function shape<T extends Record<string, "string" | "number">>(
  types: T,
): Schema<
  { [K in keyof T]: T[K] extends "string" ? string : number },
  { [K in keyof T]: T[K] extends "string" ? string : number }
> {
  return {
    "~standard": {
      version: 1,
      vendor: "tests",
      validate(value) {
        const found: Record<string, unknown> = {};
        for (const name of Object.keys(types)) {
          const part = (value as Record<string, unknown> | null)?.[name];
          if (typeof part !== types[name]) {
            return {
              issues: [{ message: `not a ${types[name]}`, path: [name] }],
            };
          }
          found[name] = part;
        }
        return { value: found as never };
      },
    },
  };
}

/** Schema that accepts every value as it is. */
export function anything<T>(): Schema<T, T> {
  return {
    "~standard": {
      version: 1,
      vendor: "tests",
      validate: (value) => ({ value: value as T }),
    },
  };
}

/** Row of the cards. */
export interface Card {
  readonly text: string;
  readonly list: string;
  readonly by: string | null;
  readonly at: number;
}

/** Errors that handlers threw. */
export const thrown: string[] = [];

/** Cards in lists, with a title. */
export const board = defineMachine({
  name: "board",
  version: 1,
  state: () => ({
    cards: table({ indexes: { byList: (card: Card) => card.list } }),
    title: "",
  }),
  commands: {
    add: {
      args: shape({ id: "string", text: "string", list: "string" }),
      run(state, { id, text, list }, ctx) {
        if (state.cards.has(id)) return ctx.reject("exists");
        state.cards.set(id, { text, list, by: ctx.by, at: ctx.at });
        return state.cards.size;
      },
    },
    move: {
      args: shape({ id: "string", list: "string" }),
      run(state, { id, list }, ctx) {
        const card = state.cards.get(id);
        if (card === undefined) return ctx.reject("missing");
        state.cards.set(id, { ...card, list });
      },
    },
    remove: {
      args: shape({ id: "string" }),
      run: (state, { id }) => state.cards.delete(id),
    },
    rename: {
      args: shape({ title: "string" }),
      run(state, { title }) {
        state.title = title;
      },
    },
    draw: {
      args: shape({}),
      run: (_state, _args, ctx) => [ctx.random(), ctx.random(), ctx.id()],
    },
    crash: {
      args: anything<unknown>(),
      run(state, args) {
        state.title = "crashed";
        for (const [id] of state.cards) state.cards.delete(id);
        throw new TypeError(`crash with ${args}`);
      },
    },
    put: {
      args: anything<unknown>(),
      run(state, args) {
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
